"""An MPI of the host in place of the image's: what fits, what goes where, what is refused."""

from __future__ import annotations

import pytest
from ocirt_hpc import ldcache

from ocirt.errors import ConfigError, KernelError
from tests.unit.hpc.libraries import GCC, Source, build
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import ALWAYS, Place

pytestmark = pytest.mark.skipif(GCC is None, reason="needs gcc")

LIBC = Source("/usr/lib64/libc.so.6", "libc.so.6", ("GLIBC_2.17",))
WANTED = ((LIBC.file, "GLIBC_2.17"),)
OMPI = ("ompi_mpi_comm_world",)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path, Machine(tmp_path / "machine"))
    made.machine.host()
    (made.rootfs / "lib64").mkdir()
    (made.rootfs / "lib64/ld-linux-x86-64.so.2").touch()
    build(made.rootfs, LIBC)
    build(made.machine.root, LIBC)
    return made


def mpi(numbers, folder="/opt/mpi/lib", name="libmpi.so", **more):
    major = numbers.partition(".")[0]
    return Source(f"{folder}/{name}.{numbers}", f"{name}.{major}", (), WANTED, **more)


def ask(place, how="major", replace="/opt/mpi/lib/libmpi.so.12", add="", **more):
    text = f'[libraries]\nreplace = ["{replace}"]\ncompatibility = "{how}"\n'
    if add:
        text += f'add = ["{add}"]\n'
    return place.ask(ALWAYS + text, **more)


def mounts(made):
    return {one["destination"]: one["source"] for one in made.config["mounts"]}


PLACE = "/run/ocirt/hpc/lib64"
THEIRS = "/usr/lib64/libmpi.so.{}"


@pytest.mark.parametrize(
    ("how", "image", "fits"),
    [
        ("major", "12.1.0", True),
        ("major", "12.3.4", True),
        ("major", "12.9.0", True),
        ("full", "12.3.0", True),
        ("full", "12.1.7", True),
        ("full", "12.4.0", False),  # goes in, and is not seen in the image's place
        ("strict", "12.3.9", True),
    ],
)
def test_numbers_that_fit(place, how, image, fits):
    build(place.machine.root, mpi("12.3.4"))
    build(place.rootfs, mpi(image, "/usr/lib64"))
    made = ask(place, how)
    source = f"{place.machine.root}/opt/mpi/lib/libmpi.so.12.3.4"
    assert mounts(made)[f"{PLACE}/libmpi.so.12.3.4"] == source
    assert (mounts(made).get(THEIRS.format(image)) == source) is fits
    entries = ldcache.parse(made.tree.files["ld.so.cache"])
    assert [one.path for one in entries if one.name == "libmpi.so.12"] == [f"{PLACE}/libmpi.so.12"]
    left_out = [row["what"] for row in made.report if row["allowed"] == "left out"]
    assert bool(left_out) is not fits
    if not fits:
        assert left_out == [
            f"what {THEIRS.format(image)} of the image has and the older"
            " /opt/mpi/lib/libmpi.so.12.3.4 has not"
        ]


@pytest.mark.parametrize(
    ("how", "image", "words"),
    [
        ("major", "13.0.0", "its ABI is 12, the image's 13"),
        ("full", "40.30.4", "its ABI is 12, the image's 40"),
        ("strict", "12.4.4", "its ABI is 12.3, the image's 12.4"),
    ],
)
def test_numbers_that_do_not_fit(place, how, image, words):
    build(place.machine.root, mpi("12.3.4"))
    build(place.rootfs, mpi(image, "/usr/lib64"))
    with pytest.raises(ConfigError) as caught:
        ask(place, how)
    assert str(caught.value) == (
        "hpc.toml: libraries: /opt/mpi/lib/libmpi.so.12.3.4 of the host cannot replace"
        f" {THEIRS.format(image)} of the image: {words}"
    )


def test_open_mpi_is_told_by_more_than_its_numbers(place):
    build(place.machine.root, mpi("12.3.4"))
    build(place.rootfs, mpi("12.0.3", "/usr/lib64", symbols=OMPI))
    with pytest.raises(ConfigError, match=r"one of the two is Open MPI, the other is not$"):
        ask(place)
    build(place.machine.root, mpi("12.0.9", "/opt/ompi/lib", symbols=OMPI))
    made = ask(place, replace="/opt/ompi/lib/libmpi.so.12")
    assert THEIRS.format("12.0.3") in mounts(made)


def test_an_image_without_it(place):
    build(place.machine.root, mpi("12.3.4"))
    with pytest.raises(ConfigError, match=r"^hpc.toml: libraries: the image has no libmpi.so to"):
        ask(place)


def test_a_cache_says_where_the_image_has_it(place):
    build(place.machine.root, mpi("12.3.4"))
    build(place.rootfs, mpi("12.1.1", "/opt/theirs/lib"))
    entries = [ldcache.Entry("libmpi.so.12", "/opt/theirs/lib/libmpi.so.12", 0x303)]
    (place.rootfs / "etc").mkdir()
    (place.rootfs / "etc/ld.so.cache").write_bytes(ldcache.build(entries))
    assert "/opt/theirs/lib/libmpi.so.12.1.1" in mounts(ask(place))


def test_a_link_of_the_image_leads_nowhere_else(place):
    """What is replaced is a file of the image, by the image's own root."""
    build(place.machine.root, mpi("12.3.4"))
    build(place.rootfs, mpi("12.1.1", "/opt/theirs/lib"))
    (place.rootfs / "usr/lib64/libmpi.so.12").symlink_to("/../../opt/theirs/lib/libmpi.so.12")
    assert "/opt/theirs/lib/libmpi.so.12.1.1" in mounts(ask(place))


def test_what_it_needs_goes_in_and_what_nothing_names(place):
    root = place.machine.root
    build(root, Source("/opt/mpi/lib/libfabric.so.1.20.1", "libfabric.so.1", (), WANTED))
    needs = (*WANTED, ("/opt/mpi/lib/libfabric.so.1", ""))
    build(root, mpi("12.3.4")._replace(wants=needs))
    build(root, Source("/opt/mpi/lib/libplugin.so.3.0.0", "libplugin.so.3", (), WANTED))
    build(place.rootfs, mpi("12.1.1", "/usr/lib64"))
    found = mounts(ask(place, add="/opt/mpi/lib/libplugin.so.3"))
    assert f"{PLACE}/libplugin.so.3.0.0" in found
    assert f"{PLACE}/libfabric.so.1.20.1" in found
    assert f"{PLACE}/libc.so.6" not in found


def test_a_c_library_that_is_too_old(place):
    newer = Source("/opt/new/libc.so.6", "libc.so.6", ("GLIBC_2.17", "GLIBC_2.38"))
    build(place.machine.root, newer)
    build(place.machine.root, mpi("12.3.4")._replace(wants=((newer.file, "GLIBC_2.38"),)))
    build(place.rootfs, mpi("12.1.1", "/usr/lib64"))
    with pytest.raises(ConfigError, match=r"wants GLIBC_2.38 of libc.so.6, which the image's does"):
        ask(place)


def test_a_host_that_lacks_it(place):
    with pytest.raises(
        KernelError, match=r"^hpc.toml: libraries: /opt/mpi/lib/libmpi.so.12: no such"
    ):
        ask(place)


def test_a_name_without_numbers(place):
    build(place.machine.root, Source("/opt/mpi/lib/libmpi.so", "libmpi.so.12", (), WANTED))
    build(place.rootfs, mpi("12.1.1", "/usr/lib64"))
    with pytest.raises(ConfigError, match=r"libmpi.so is not named libNAME.so.X.Y.Z, which would"):
        ask(place, replace="/opt/mpi/lib/libmpi.so")


def test_only_who_asks_for_the_module_gets_it(place):
    build(place.machine.root, mpi("12.3.4"))
    build(place.rootfs, mpi("12.1.1", "/usr/lib64"))
    text = '[module.mpich.libraries]\nreplace = ["/opt/mpi/lib/libmpi.so.12"]\n'
    made = place.ask(text)
    assert made is None or THEIRS.format("12.1.1") not in mounts(made)
    made = place.ask(text, annotations={"ocirt.hpc/modules": "mpich"})
    assert THEIRS.format("12.1.1") in mounts(made)
    rows = [row for row in made.report if row["from"] == "hpc.toml: module.mpich.libraries"]
    assert rows
    assert {row["allowed"] for row in rows} == {"annotations are the caller's"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("replace = 1", "libraries.replace: expected a list of strings"),
        ('replace = ["libmpi.so"]', 'libraries.replace: "libmpi.so" is not absolute'),
        ('compatibility = "most"', 'libraries.compatibility: "most" is none of major, full'),
        ("swap = true", "libraries.swap: unknown setting"),
    ],
)
def test_settings_that_mean_nothing(place, text, words):
    with pytest.raises(ConfigError, match=words):
        place.ask(f"[libraries]\n{text}\n")
