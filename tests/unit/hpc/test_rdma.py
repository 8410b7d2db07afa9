"""RDMA devices: which there are, which a name means, what a container needs for them."""

from __future__ import annotations

import pytest
from ocirt_hpc import rdma, topology
from ocirt_hpc.tree import Tree

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine, cluster_node, eight


def chosen(machine, *names, gpus=()):
    host = machine.host()
    near = [host.pci(address) for address in gpus]
    return [(one.device.name, one.port) for one in rdma.choose(rdma.find(host), names, near)]


def paths(machine, *names, **options):
    host = machine.host()
    return [node.path for node in rdma.nodes(host, rdma.choose(rdma.find(host), names), **options)]


# --- what there is


def test_devices_come_in_the_order_of_the_bus(tmp_path):
    machine = Machine(tmp_path)
    machine.nic("rxe1")
    machine.nic("mlx5_1", "0000:c1:00.0")
    machine.nic("mlx5_0", "0000:41:00.0", ports=2, layer="Ethernet")
    found = rdma.find(machine.host())
    assert [(one.index, one.name, one.pci and one.pci.address) for one in found] == [
        (0, "mlx5_0", "0000:41:00.0"),
        (1, "mlx5_1", "0000:c1:00.0"),
        (2, "rxe1", None),
    ]
    assert [(port.number, port.layer, port.active) for port in found[0].ports] == [
        (1, "Ethernet", True),
        (2, "Ethernet", True),
    ]
    assert found[0].nodes == {"infiniband_verbs": ["uverbs2"], "infiniband_mad": ["issm2", "umad2"]}


def test_a_machine_without_rdma_has_none(tmp_path):
    assert rdma.find(Machine(tmp_path).host()) == []


# --- names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mlx5_3"], [("mlx5_3", 0)]),
        (["mlx5_3:1"], [("mlx5_3", 1)]),
        (["2", "mlx5_0"], [("mlx5_2", 0), ("mlx5_0", 0)]),
        (["0000:09:00.0"], [("mlx5_0", 0)]),
        (["00000000:09:00.0"], [("mlx5_0", 0)]),
        (["none"], []),
        (["mlx5_1", "mlx5_1"], [("mlx5_1", 0)]),
        (["all"], [(f"mlx5_{number}", 0) for number in range(10)]),
    ],
)
def test_a_name_means_a_device(tmp_path, names, expected):
    assert chosen(cluster_node(tmp_path), *names) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mlx5_77", r'there is no RDMA device "mlx5_77" \(have 0 mlx5_0, 1 mlx5_1'),
        ("10", "there is no RDMA device"),
        ("mlx5_0:2", 'RDMA device mlx5_0 has no port "2"'),
        ("mlx5_0:x", "there is no RDMA device"),
        ("../../etc", "there is no RDMA device"),
        ("", "there is no RDMA device"),
    ],
)
def test_a_name_that_means_nothing_is_an_error(tmp_path, name, words):
    with pytest.raises(ConfigError, match=words):
        chosen(cluster_node(tmp_path), name)


def test_nearest_is_the_nic_on_the_gpus_switch(tmp_path):
    machine = cluster_node(tmp_path)
    assert chosen(machine, "nearest", gpus=["0000:07:00.0"]) == [("mlx5_0", 0)]
    both = chosen(machine, "nearest", gpus=["0000:e7:00.0", "0000:47:00.0"])
    assert both == [("mlx5_2", 0), ("mlx5_7", 0)]


def test_nearest_without_a_gpu_is_every_device(tmp_path):
    assert len(chosen(cluster_node(tmp_path), "nearest")) == 10


def test_nearest_takes_all_in_a_tie_and_no_dead_link(tmp_path):
    machine = eight(tmp_path)
    machine.nic("ib0", "0000:f1:00.0", numa=1)
    machine.nic("ib1", "0000:f2:00.0", numa=1)
    machine.nic("ib2", "0000:f3:00.0", numa=1, active=False)
    assert chosen(machine, "nearest", gpus=["0000:e7:00.0"]) == [("ib0", 0), ("ib1", 0)]


# --- topology


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("0000:07:00.0", "0000:07:00.0", "X"),
        ("0000:01:00.0", "0000:01:00.1", "PIX"),
        ("0000:07:00.0", "0000:09:00.0", "PIX"),
        ("0000:07:00.0", "0000:0b:00.0", "PXB"),
        ("0000:07:00.0", "0000:0d:00.0", "PHB"),
        ("0000:07:00.0", "0000:20:00.0", "NODE"),
        ("0000:07:00.0", "0000:90:00.0", "SYS"),
    ],
)
def test_the_class_of_two_devices(tmp_path, one, other, expected):
    machine = Machine(tmp_path)
    bridge = "0000:00:01.0/0000:05:00.0"
    places = {
        "0000:01:00.0": ("0000:00:03.0", 0),
        "0000:01:00.1": ("0000:00:03.0", 0),
        "0000:07:00.0": (f"{bridge}/0000:06:00.0", 0),
        "0000:09:00.0": (f"{bridge}/0000:06:01.0", 0),
        "0000:0b:00.0": (f"{bridge}/0000:06:02.0/0000:0a:00.0/0000:0a:01.0", 0),
        "0000:0d:00.0": ("0000:00:02.0", 0),
    }
    for address, (bridges, numa) in places.items():
        path = f"/sys/devices/pci0000:00/{bridges}/{address}"
        machine.write(f"{path}/numa_node", f"{numa}\n")
        machine.link(f"/sys/bus/pci/devices/{address}", f"../../../..{path}")
    machine.pci("0000:20:00.0", numa_node=-1)
    machine.pci("0000:90:00.0", numa_node=1)
    host = machine.host()
    assert topology.distance(host.pci(one), host.pci(other)) == expected
    assert topology.distance(host.pci(other), host.pci(one)) == expected


def test_a_function_that_nobody_can_place_is_far_from_all(tmp_path):
    machine = Machine(tmp_path)
    machine.nic("mlx5_0", "0000:01:00.0", numa=-1)
    machine.nic("mlx5_1", "0000:02:00.0", numa=-1)
    one, other = (machine.host().pci(f"0000:0{number}:00.0") for number in (1, 2))
    assert (topology.numa(one), topology.distance(one, other)) == (0, "NODE")
    machine.numa("0-3", "4-7")
    assert (topology.numa(one), topology.distance(one, other)) == (None, "SYS")


# --- what a container needs


def test_the_nodes_of_the_chosen_and_the_connection_manager(tmp_path):
    machine = cluster_node(tmp_path)
    assert paths(machine, "mlx5_1") == ["/dev/infiniband/uverbs1", "/dev/infiniband/rdma_cm"]
    assert paths(machine, "mlx5_1", management=True) == [
        "/dev/infiniband/uverbs1",
        "/dev/infiniband/issm1",
        "/dev/infiniband/umad1",
        "/dev/infiniband/rdma_cm",
    ]
    assert paths(machine, "none") == []


def test_numbers_come_from_sysfs_where_the_host_lacks_the_node(tmp_path):
    machine = Machine(tmp_path)
    machine.nic("rxe0")
    machine.nodes.clear()
    host = machine.host()
    found = rdma.nodes(host, rdma.choose(rdma.find(host), ["all"]))
    assert [(node.major, node.minor, node.there) for node in found] == [
        (231, 192, False),
        (10, 122, False),
    ]


def test_a_module_that_is_missing_is_named(tmp_path):
    machine = Machine(tmp_path)
    machine.link("/sys/class/infiniband/rxe0", "../../devices/virtual/infiniband/rxe0")
    machine.write("/sys/devices/virtual/infiniband/rxe0/node_type", "1: CA\n")
    with pytest.raises(ConfigError, match=r"rxe0 has no uverbs node.*modprobe ib_uverbs"):
        paths(machine, "all")


def test_sysfs_shows_the_chosen_alone(tmp_path):
    machine = Machine(tmp_path / "host")
    machine.nic("mlx5_0", "0000:41:00.0")
    machine.nic("mlx5_1", "0000:c1:00.0")
    host, tree = machine.host(), Tree(str(tmp_path / "tree"))
    found = rdma.find(host)
    edits = rdma.view_edits(host, rdma.choose(found, ["mlx5_1"]), found, tree)
    assert [mount["containerPath"] for mount in edits["mounts"]] == [
        "/sys/class/infiniband",
        "/sys/class/infiniband_verbs",
        "/sys/class/infiniband_mad",
    ]
    tree.write()
    seen = sorted(path.name for path in (tmp_path / "tree/sys-class").rglob("*"))
    assert seen == [
        "abi_version", "infiniband", "infiniband_mad", "infiniband_verbs", "issm1", "mlx5_1",
        "umad1", "uverbs1",
    ]  # fmt: skip
    assert tree.links["sys-class/infiniband/mlx5_1"] == (
        "../../devices/pci0000:c1/0000:c1:00.0/infiniband/mlx5_1"
    )


def test_all_devices_need_no_view(tmp_path):
    host, tree = cluster_node(tmp_path).host(), Tree("/tree")
    found = rdma.find(host)
    assert rdma.view_edits(host, rdma.choose(found, ["all"]), found, tree) == {}
    assert not tree


def test_memory_that_can_be_pinned(monkeypatch):
    monkeypatch.setattr(rdma, "highest", lambda name: rdma.UNLIMITED)

    def limit(setting):
        (found,) = rdma.memlock_edits(setting)["rlimits"]
        return found["soft"], found["hard"]

    assert limit("unlimited") == (rdma.UNLIMITED, rdma.UNLIMITED)
    assert limit("4096") == (4096, 4096)
    assert rdma.memlock_edits("keep") == {}
    with pytest.raises(ConfigError, match=r"rdma.memlock in hpc.toml: .*not unlimited, keep"):
        rdma.memlock_edits("lots")
    monkeypatch.setattr(rdma, "highest", lambda name: 65536)
    assert limit("unlimited") == (65536, 65536)
