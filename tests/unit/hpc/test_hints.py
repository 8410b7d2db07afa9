"""Variables by which libraries find the fabric: set where they are right for every port."""

from __future__ import annotations

import pytest

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import BASE, Place

KEEP = '[rdma]\nmemlock = "keep"\n'
ALL = {"ocirt.hpc/rdma": "all"}
LINK_LOCAL = "fe80:0000:0000:0000:0000:0000:0000:0001"
IPV4 = "0000:0000:0000:0000:0000:ffff:0a09:0001"
OTHER_IPV4 = "0000:0000:0000:0000:0000:ffff:0a09:0002"
IPV6 = "2001:0db8:0000:0000:0000:0000:0000:0001"
V1, V2 = "IB/RoCE v1", "RoCE v2"
USUAL = ((LINK_LOCAL, V1), (LINK_LOCAL, V2), (IPV4, V1), (IPV4, V2))

HOST_NETWORK = {
    **BASE,
    "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts")]},
}
ROUTES = "Iface\tDestination\tGateway\n"


def roce(machine, name="mlx5_0", address="0000:41:00.0", **options):
    options = {"net": "ens1", "gids": USUAL, "layer": "Ethernet", **options}
    machine.nic(name, address, **options)
    return machine


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "host")


@pytest.fixture
def ask(machine, tmp_path):
    def answer(text=KEEP, **options):
        place = Place(tmp_path, machine)
        made = place.ask(text, **{"annotations": ALL, "config": HOST_NETWORK, **options})
        env = dict(item.split("=", 1) for item in made.config["process"]["env"])
        return env, [row["what"] for row in made.report if row["allowed"] == "advice"]

    return answer


def addresses(machine, *names):
    machine.write("/proc/net/route", ROUTES + "".join(f"{name}\t0009090A\n" for name in names))


# --- ports


def test_ports_are_named(machine, ask):
    machine.nic("mlx5_0", "0000:41:00.0", ports=2)
    env, _ = ask(annotations={"ocirt.hpc/rdma": "mlx5_0:2"})
    assert (env["UCX_NET_DEVICES"], env["NCCL_IB_HCA"]) == ("mlx5_0:2", "=mlx5_0:2")


def test_all_ports_are_named(machine, ask):
    machine.nic("mlx5_0", "0000:41:00.0", ports=2)
    assert ask()[0]["UCX_NET_DEVICES"] == "mlx5_0:1,mlx5_0:2"


def test_who_wants_no_hints_gets_none(machine, ask):
    addresses(roce(machine), "ens1")
    env, _ = ask("[rdma]\nhints = false\n")
    assert not [name for name in env if name.startswith(("UCX", "NCCL", "GLOO", "FI_"))]


# --- addresses of RoCE


def test_the_address_of_version_2(machine, ask):
    roce(machine)
    roce(machine, "mlx5_1", "0000:42:00.0")
    env, advice = ask()
    assert (env["NCCL_IB_GID_INDEX"], env["UCX_IB_GID_INDEX"]) == ("3", "3")
    assert advice == []


@pytest.mark.parametrize(
    ("gids", "expected"),
    [
        (((LINK_LOCAL, V1), (LINK_LOCAL, V2)), None),  # without an address of its own
        ((*USUAL[:2], (IPV6, V1), (IPV6, V2)), "3"),
        ((*USUAL, (IPV6, V1), (IPV6, V2)), "3"),  # IPv4 comes first, as for NCCL and UCX
        (((LINK_LOCAL, V1), ("", ""), ("", ""), (IPV4, V2)), "3"),  # free places in between
        (((IPV4, V1),), None),
    ],
)
def test_which_address_it_is(machine, ask, gids, expected):
    roce(machine, gids=gids)
    assert ask()[0].get("NCCL_IB_GID_INDEX") == expected


def test_an_address_that_goes_meanwhile_is_none(machine, ask):
    """The kernel says EINVAL for its type, as a directory in its place says EISDIR."""
    roce(machine)
    file = machine.root / "sys/class/infiniband/mlx5_0/ports/1/gid_attrs/types/3"
    file.unlink()
    file.mkdir()
    assert "NCCL_IB_GID_INDEX" not in ask()[0]


def test_ports_that_do_not_agree_are_told_and_get_nothing(machine, ask):
    roce(machine)
    roce(machine, "mlx5_1", "0000:42:00.0", gids=USUAL[2:])
    env, advice = ask()
    assert "NCCL_IB_GID_INDEX" not in env
    assert advice == [
        "no index of an address fits all ports (NCCL_IB_GID_INDEX UCX_IB_GID_INDEX):"
        " mlx5_0:1 has 3, mlx5_1:1 has 1"
    ]


def test_a_port_with_two_addresses_is_for_people_to_choose(machine, ask):
    roce(machine, gids=(*USUAL, (OTHER_IPV4, V1), (OTHER_IPV4, V2)))
    env, advice = ask()
    assert "UCX_IB_GID_INDEX" not in env
    assert advice[0].endswith("mlx5_0:1 has 3 and 5")


@pytest.mark.parametrize(
    ("others", "left"),
    [
        (["NCCL_IB_GID_INDEX=1"], {"NCCL_IB_GID_INDEX": "1", "UCX_IB_GID_INDEX": "3"}),
        (["NCCL_IB_ADDR_FAMILY=AF_INET6"], {"UCX_IB_GID_INDEX": "3"}),
        (["UCX_IB_ROCE_SUBNET_LIST=10.9.0.0/16"], {"NCCL_IB_GID_INDEX": "3"}),
    ],
)
def test_who_chooses_an_address_otherwise_keeps_to_it(machine, ask, others, left):
    roce(machine)
    env, _ = ask(env=others)
    assert {name: value for name, value in env.items() if "GID_INDEX" in name} == left


def test_infiniband_needs_no_index(machine, ask):
    roce(machine)
    machine.nic("mlx5_1", "0000:42:00.0")
    assert "NCCL_IB_GID_INDEX" not in ask()[0]


def test_a_port_without_a_link_does_not_count(machine, ask):
    roce(machine)
    roce(machine, "mlx5_1", "0000:42:00.0", gids=USUAL[2:], active=False)
    assert ask()[0]["NCCL_IB_GID_INDEX"] == "3"


def test_a_network_of_its_own_has_other_addresses(machine, ask):
    addresses(roce(machine), "ens1")
    env, _ = ask(config=BASE)
    assert env["UCX_NET_DEVICES"] == "mlx5_0:1"
    assert not [name for name in env if "GID" in name or "IFNAME" in name]


def test_a_profile_that_shares_the_network_has_the_hosts(machine, tmp_path):
    addresses(roce(machine), "ens1")
    made = Place(tmp_path, machine).ask(KEEP, annotations=ALL, profile="hpc-job")
    assert "NCCL_SOCKET_IFNAME==ens1" in made.config["process"]["env"]


# --- sockets


def test_the_one_network_device_with_an_address(machine, ask):
    roce(machine)
    roce(machine, "mlx5_1", "0000:42:00.0", net="ens2")
    addresses(machine, "eno1", "ens2", "ens2")
    env, advice = ask()
    assert (env["NCCL_SOCKET_IFNAME"], env["GLOO_SOCKET_IFNAME"]) == ("=ens2", "ens2")
    assert advice == []


@pytest.mark.parametrize(("scope", "expected"), [("20", None), ("00", "=ens1")])
def test_an_address_of_ipv6_beyond_the_link_is_one(machine, ask, scope, expected):
    roce(machine)
    line = "20010db8000000000000000000000001 02 40 {} 80     ens1\n"
    machine.write("/proc/net/if_inet6", line.format(scope))
    assert ask()[0].get("NCCL_SOCKET_IFNAME") == expected


def test_ipoib_is_a_network_device_of_infiniband(machine, ask):
    machine.nic("mlx5_0", "0000:41:00.0", net="ib0")
    addresses(machine, "ib0")
    assert ask()[0]["NCCL_SOCKET_IFNAME"] == "=ib0"


def test_several_network_devices_are_told_and_none_is_chosen(machine, ask):
    roce(machine)
    roce(machine, "mlx5_1", "0000:42:00.0", net="ens2")
    addresses(machine, "ens1", "ens2")
    env, advice = ask(env=["GLOO_SOCKET_IFNAME=eno1"])
    assert "NCCL_SOCKET_IFNAME" not in env
    assert env["GLOO_SOCKET_IFNAME"] == "eno1"
    assert advice == ["the ports have several network devices (NCCL_SOCKET_IFNAME): ens1, ens2"]


def test_no_address_no_hint(machine, ask):
    roce(machine)
    assert "NCCL_SOCKET_IFNAME" not in ask()[0]


def test_the_images_settings_of_nccl_stay(machine, tmp_path):
    addresses(roce(machine), "ens1")
    place = Place(tmp_path, machine)
    (place.rootfs / "etc").mkdir()
    (place.rootfs / "etc/nccl.conf").write_text("#NCCL_IB_GID_INDEX=0\nNCCL_SOCKET_IFNAME=^lo\n")
    made = place.ask(KEEP, annotations=ALL, config=HOST_NETWORK)
    env = made.config["process"]["env"]
    assert not [item for item in env if item.startswith("NCCL_SOCKET_IFNAME")]
    assert {"GLOO_SOCKET_IFNAME=ens1", "NCCL_IB_GID_INDEX=3"} <= set(env)


def test_the_sites_own_word_comes_before_a_hint(machine, ask):
    addresses(roce(machine), "ens1")
    text = f'[stage]\ntrigger = "always"\n[env]\nset.NCCL_IB_ADDR_FAMILY = "AF_INET6"\n{KEEP}'
    env, _ = ask(text)
    assert "NCCL_IB_GID_INDEX" not in env
    assert env["UCX_IB_GID_INDEX"] == "3"


# --- EFA


def efa(machine, name="rdmap0s6", address="0000:00:06.0", model=0xEFA2):
    machine.nic(name, address, layer="Unspecified", driver="efa", model=model)
    return machine


def fabric(env):
    return {name: value for name, value in env.items() if name.startswith(("FI_", "NCCL", "UCX"))}


def test_efa_is_for_libfabric_alone(machine, ask):
    efa(machine).write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5128\n")
    assert fabric(ask()[0]) == {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}


def test_an_older_efa_may_not_read_memory_of_others(machine, ask):
    efa(efa(machine), "rdmap0s7", "0000:00:07.0", model=0xEFA1)
    assert "FI_EFA_USE_DEVICE_RDMA" not in ask()[0]


def test_without_huge_pages_efa_is_told_so(machine, ask):
    efa(machine)
    assert ask()[0]["FI_EFA_USE_HUGE_PAGE"] == "0"


def test_a_limit_of_no_huge_pages_is_the_same(machine, ask):
    efa(machine).write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "5128\n")
    limits = {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}}
    config = {**HOST_NETWORK, "linux": {**HOST_NETWORK["linux"], **limits}}
    assert ask(config=config)[0]["FI_EFA_USE_HUGE_PAGE"] == "0"


def test_efa_beside_others_is_not_the_one_provider(machine, ask):
    roce(efa(machine))
    env, _ = ask()
    assert "FI_PROVIDER" not in env
    assert env["UCX_NET_DEVICES"] == "mlx5_0:1"


# --- huge pages

PAGES = {**ALL, "ocirt.hpc/hugepages": "true"}


def huge(machine):
    machine.nic("mlx5_0", "0000:41:00.0")
    machine.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "512\n")
    return machine


def mount(made):
    return next((one for one in made.config["mounts"] if "huge" in one["destination"]), None)


def test_huge_pages_are_a_file_system_of_the_containers_own(machine, tmp_path):
    process = {**BASE["process"], "user": {"uid": 1000, "gid": 100}}
    made = Place(tmp_path, huge(machine)).ask(
        KEEP, annotations=PAGES, config={**BASE, "process": process}
    )
    assert mount(made) == {
        "destination": "/dev/hugepages",
        "source": "hugetlbfs",
        "type": "hugetlbfs",
        "options": ["nosuid", "nodev", "noexec", "mode=0770", "uid=1000", "gid=100"],
    }


def test_in_a_user_namespace_they_are_the_hosts(machine, tmp_path):
    place = Place(tmp_path, huge(machine))
    with pytest.raises(
        ConfigError, match=r"annotations.ocirt.hpc/hugepages: this host has no /dev"
    ):
        place.ask(KEEP, annotations=PAGES, rootless=True)
    (machine.root / "dev/hugepages").mkdir(parents=True)
    made = place.ask(KEEP, annotations=PAGES, rootless=True)
    assert mount(made)["source"] == f"{machine.root}/dev/hugepages"
    assert "rw" in mount(made)["options"]


def test_a_site_gives_them_with_every_device_or_to_nobody(machine, tmp_path):
    place = Place(tmp_path, huge(machine))
    always = KEEP + 'hugepages = "always"\n'
    assert mount(place.ask(always, annotations=ALL)) is not None
    assert mount(place.ask(always, annotations={**ALL, "ocirt.hpc/hugepages": "false"})) is None
    assert place.ask(always) is None
    assert mount(place.ask(KEEP, annotations=ALL)) is None
    with pytest.raises(ConfigError, match=r"the site gives none \(rdma.hugepages in hpc.toml\)$"):
        place.ask(KEEP + 'hugepages = "never"\n', annotations=PAGES)


def test_a_host_without_huge_pages_says_so(machine, tmp_path):
    machine.nic("mlx5_0", "0000:41:00.0")
    place = Place(tmp_path, machine)
    with pytest.raises(ConfigError) as caught:
        place.ask(KEEP, annotations=PAGES)
    assert str(caught.value) == (
        "annotations.ocirt.hpc/hugepages: this host has set no huge pages aside (vm.nr_hugepages)"
    )
    made = place.ask(KEEP + 'hugepages = "always"\n', annotations=ALL)
    assert mount(made) is None
    assert "no huge pages aside" in made.report[-1]["what"]


def test_neither_true_nor_false(machine, tmp_path):
    with pytest.raises(ConfigError, match="hugepages: expected true or false"):
        Place(tmp_path, huge(machine)).ask(KEEP, annotations={"ocirt.hpc/hugepages": "2MB"})
