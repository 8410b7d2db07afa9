"""The host's rdma-core for an image: when it goes in, what goes in, what does not fit."""

from __future__ import annotations

import shutil

import pytest
from ocirt_hpc import hostlibs, ldcache, loader, rdma, verbs
from ocirt_hpc.image import Image
from ocirt_hpc.tree import Tree

from ocirt.errors import ConfigError
from tests.unit.hpc import sites
from tests.unit.hpc.libraries import GCC, Source, build
from tests.unit.hpc.machines import Machine

pytestmark = pytest.mark.skipif(GCC is None, reason="needs gcc")

LIB = "/usr/lib64"


def rdma_core(root, build_number=34, glibc=("GLIBC_2.2.5", "GLIBC_2.17"), provider="mlx5"):
    libc = f"{LIB}/libc.so.6"
    private = f"IBVERBS_PRIVATE_{build_number}"
    wanted = (libc, glibc[-1])
    for source in (
        Source(libc, "libc.so.6", glibc),
        Source(f"{LIB}/libnl-3.so.200.26.0", "libnl-3.so.200", ("libnl_3",), (wanted,)),
        Source(f"{LIB}/libibverbs.so.1.14", "libibverbs.so.1", ("IBVERBS_1.1", private),
               (wanted, (f"{LIB}/libnl-3.so.200", "libnl_3"))),
        Source(f"{LIB}/librdmacm.so.1.3", "librdmacm.so.1", ("RDMACM_1.0",),
               ((f"{LIB}/libibverbs.so.1", "IBVERBS_1.1"),)),
        Source(f"{LIB}/libibverbs/lib{provider}-rdmav{build_number}.so", "", (),
               ((f"{LIB}/libibverbs.so.1", private),)),
    ):  # fmt: skip
        build(root, source)
    (root / "lib64").mkdir(exist_ok=True)
    (root / "lib64/ld-linux-x86-64.so.2").touch()
    (root / "etc").mkdir(exist_ok=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Roots with rdma-core, by name; built once, since a compiler takes its time."""
    top = tmp_path_factory.mktemp("rdma-core")
    rdma_core(top / "host")
    rdma_core(top / "same")
    rdma_core(top / "older", 22)
    rdma_core(top / "no-provider", provider="efa")
    rdma_core(top / "bare")
    rdma_core(top / "ancient", glibc=("GLIBC_2.2.5",))
    for name in ("bare", "ancient"):
        for path in (top / name / "usr/lib64").iterdir():
            if not path.name.startswith("libc.so"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    mixed = top / "mixed"
    rdma_core(mixed, 22)
    shutil.rmtree(mixed / "usr/lib64/libibverbs")
    shutil.copytree(top / "same/usr/lib64/libibverbs", mixed / "usr/lib64/libibverbs")
    return top


def shelf_of(built, machine_root, image):
    from ocirt_hpc.host import Host

    return hostlibs.Shelf(Host(str(machine_root)), image)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("same", ""),
        ("older", ""),  # a build of its own, complete
        ("bare", "the image has no libibverbs.so.1"),
        ("no-provider", "the image's libibverbs.so.1 has no provider mlx5 of its own build"),
        ("mixed", "the image's libibverbs.so.1 has no provider mlx5 of its own build"),
    ],
)
def test_what_an_image_lacks(built, name, expected):
    with Image(str(built / name)) as image:
        assert verbs.missing(shelf_of(built, built / "host", image), ["mlx5"]) == expected


def test_all_of_the_hosts_goes_in_and_what_it_needs(built):
    tree, libraries = Tree("/state/hpc"), loader.Libraries()
    with Image(str(built / "bare")) as image:
        shelf = shelf_of(built, built / "host", image)
        found = verbs.edits(shelf, ["mlx5"], tree, libraries, "test")
    where = {one["containerPath"]: one["hostPath"] for one in found["mounts"]}
    root = built / "host"
    assert where == {
        "/run/ocirt/hpc": "/state/hpc",
        "/run/ocirt/hpc/lib64/libibverbs.so.1.14": f"{root}/usr/lib64/libibverbs.so.1.14",
        "/run/ocirt/hpc/lib64/librdmacm.so.1.3": f"{root}/usr/lib64/librdmacm.so.1.3",
        "/run/ocirt/hpc/lib64/libnl-3.so.200.26.0": f"{root}/usr/lib64/libnl-3.so.200.26.0",
        "/run/ocirt/hpc/lib64/libibverbs/libmlx5-rdmav34.so":
            f"{root}/usr/lib64/libibverbs/libmlx5-rdmav34.so",
        "/etc/libibverbs.d": "/state/hpc/libibverbs.d",
    }  # fmt: skip
    assert tree.files["libibverbs.d/mlx5.driver"] == (
        b"driver /run/ocirt/hpc/lib64/libibverbs/libmlx5\n"
    )
    assert {one.name: one.path for one in libraries.entries} == {
        name: f"/run/ocirt/hpc/lib64/{name}"
        for name in ("libibverbs.so.1", "librdmacm.so.1", "libnl-3.so.200")
    }


def test_what_the_image_has_in_the_wanted_version_stays(built):
    with Image(str(built / "same")) as image:
        shelf = shelf_of(built, built / "host", image)
        found = verbs.edits(shelf, ["mlx5"], Tree("/x"), loader.Libraries(), "test")
    assert not [one for one in found["mounts"] if "libnl" in one["hostPath"]]


def test_an_image_with_an_older_c_library_is_refused(built):
    tree = Tree("/x")
    with Image(str(built / "ancient")) as image:
        shelf = shelf_of(built, built / "host", image)
        with pytest.raises(ConfigError) as caught:
            verbs.edits(shelf, ["mlx5"], tree, loader.Libraries(), "test")
    assert str(caught.value) == (
        "/usr/lib64/libibverbs.so.1.14 wants GLIBC_2.17 of libc.so.6, which the image's does not"
        " have"
    )
    assert not tree


@pytest.mark.parametrize(
    ("host", "wanted", "words"),
    [
        (
            "host",
            "rxe",
            r"this host's libibverbs.so.1 has no provider rxe in /usr/lib64/libibverbs",
        ),
        ("bare", "mlx5", r"this host has no libibverbs.so.1 to give"),
        ("mixed", "mlx5", r"libmlx5-rdmav34.so is of another build than .*IBVERBS_PRIVATE_22"),
    ],
)
def test_a_host_that_cannot_give_it_says_so(built, host, wanted, words):
    with Image(str(built / "same")) as image:
        shelf = shelf_of(built, built / host, image)
        with pytest.raises(ConfigError, match=words):
            verbs.edits(shelf, [wanted], Tree("/x"), loader.Libraries(), "test")


def test_a_device_has_its_drivers_provider(tmp_path):
    machine = Machine(tmp_path)
    machine.nic("rocep65s0", "0000:41:00.0")
    machine.link(
        "/sys/devices/pci0000:41/0000:41:00.0/driver", "../../../bus/pci/drivers/mlx5_core"
    )
    machine.nic("irdma0", "0000:42:00.0")
    machine.link("/sys/devices/pci0000:42/0000:42:00.0/driver", "../../../bus/pci/drivers/ice")
    machine.nic("rxe12")
    host = machine.host()
    found = rdma.choose(rdma.find(host), ["all"])
    assert [verbs.provider(host, one) for one in found] == ["mlx5", "irdma", "rxe"]


# --- the whole way


def run(machine, tmp_path, rootfs, setting):
    config = {"process": {}, "annotations": {"ocirt.hpc/rdma": "mlx5_0"}}
    text = f'[rdma]\nuserland = "{setting}"\n'
    return sites.run(config, machine, tmp_path, rootfs, text)


@pytest.fixture
def machine(built, tmp_path):
    shutil.copytree(built / "host", tmp_path / "host", symlinks=True)
    made = Machine(tmp_path / "host")
    made.nic("mlx5_0", "0000:41:00.0")
    made.link("/sys/devices/pci0000:41/0000:41:00.0/driver", "../../../bus/pci/drivers/mlx5_core")
    return made


def places(applied):
    return {mount["destination"] for mount in applied.config.get("mounts", ())}


def test_the_site_decides(built, machine, tmp_path):
    given = {"/etc/libibverbs.d", "/run/ocirt/hpc", "/etc/ld.so.cache"}
    assert not places(run(machine, tmp_path, built / "bare", "never")) & given
    assert not places(run(machine, tmp_path, built / "same", "auto")) & given
    assert given <= places(run(machine, tmp_path, built / "bare", "auto"))
    applied = run(machine, tmp_path, built / "same", "always")
    assert given <= places(applied)
    cache = ldcache.parse(applied.tree.files["ld.so.cache"])
    assert [one.path for one in cache if one.name == "libibverbs.so.1"] == [
        "/run/ocirt/hpc/lib64/libibverbs.so.1"
    ]


def test_what_does_not_fit_is_left_out_or_refused(built, machine, tmp_path):
    applied = run(machine, tmp_path, built / "ancient", "auto")
    assert "/etc/libibverbs.d" not in places(applied)
    assert applied.report[-1]["what"].startswith("the image has no libibverbs.so.1, and ")
    with pytest.raises(ConfigError, match=r"^rdma.userland in hpc.toml: .* wants GLIBC_2.17 of"):
        run(machine, tmp_path, built / "ancient", "always")
