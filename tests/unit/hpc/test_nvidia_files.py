"""The driver's files: which capability asks for which, and where they are looked for."""

from __future__ import annotations

import pytest
from ocirt_hpc import ldcache
from ocirt_hpc.nvidia import container, files
from ocirt_hpc.nvidia.driver import Places
from ocirt_hpc.tree import Tree

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import VERSION, Machine, install, library, workstation

LIB = "/usr/lib/x86_64-linux-gnu"


def found(machine, *words, kind=None, version=VERSION):
    some = files.find(machine.host(), version, files.capabilities(words))
    return [one for one in some if kind in (None, one.kind)]


def stems(machine, *words):
    return {one.name.partition(".so")[0] for one in found(machine, *words, kind="library")}


@pytest.fixture
def machine(tmp_path):
    machine = workstation(tmp_path)
    install(machine)
    return machine


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["utility"], {"libnvidia-ml"}),
        (["compute"], {"libcuda", "libnvidia-ptxjitcompiler", "libnvidia-allocator"}),
        (["ngx"], {"libnvidia-ngx"}),
        (["graphics"], {"libGLX_nvidia", "libnvidia-glcore", "libnvidia-allocator"}),
        (
            ["video"],  # of no use without compute
            {"libcuda", "libnvidia-ptxjitcompiler", "libnvidia-allocator",
             "libnvidia-encode", "libvdpau_nvidia"},
        ),
    ],
)  # fmt: skip
def test_a_capability_asks_for_its_libraries(machine, words, expected):
    assert stems(machine, *words) == expected


def test_all_asks_for_libraries_of_unknown_use_too(machine):
    every = stems(machine, *files.CAPABILITIES)
    assert "libnvidia-novelty" not in every
    assert stems(machine, "all") == every | {"libnvidia-novelty"}


def test_a_library_says_what_programs_call_it(machine):
    (cuda,) = [one for one in found(machine, "compute") if one.name == f"libcuda.so.{VERSION}"]
    assert (cuda.source, cuda.soname, cuda.bits) == (
        f"{LIB}/libcuda.so.{VERSION}", "libcuda.so.1", 64,
    )  # fmt: skip
    assert (cuda.entry.name, cuda.entry.flags) == ("libcuda.so.1", 0x303)


def test_programs_configs_firmware_and_sockets(machine):
    rest = [one for one in found(machine, "all") if one.kind != "library"]
    assert {one.destination: one.source for one in rest} == {
        "/usr/bin/nvidia-smi": "/usr/bin/nvidia-smi",
        "/usr/bin/nvidia-cuda-mps-control": "/usr/bin/nvidia-cuda-mps-control",
        "/etc/vulkan/icd.d/nvidia_icd.json": "/usr/share/vulkan/icd.d/nvidia_icd.json",
        "/etc/OpenCL/vendors/nvidia.icd": "/etc/OpenCL/vendors/nvidia.icd",
        f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin":
            f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin",
        "/run/nvidia-persistenced/socket": "/run/nvidia-persistenced/socket",
    }  # fmt: skip
    assert {one.kind for one in found(machine, "utility")} == {
        "library", "program", "firmware", "socket",
    }  # fmt: skip


def test_what_is_released_on_its_own_has_a_version_of_its_own(machine):
    machine.write(f"{LIB}/libnvidia-egl-gbm.so.1.1.0", library("libnvidia-egl-gbm.so.1"))
    machine.link(f"{LIB}/libnvidia-egl-gbm.so.1", "libnvidia-egl-gbm.so.1.1.0")
    machine.write(f"{LIB}/libnvidia-other.so.1.1.0", library("libnvidia-other.so.1"))
    names = [one.name for one in found(machine, "all", kind="library")]
    assert names.count("libnvidia-egl-gbm.so.1.1.0") == 1
    assert "libnvidia-other.so.1.1.0" not in names
    assert "libnvidia-egl-gbm" not in stems(machine, "compute")


def test_modules_of_xorg_stay_where_xorg_looks(machine):
    module = f"{LIB}/xorg/modules/extensions/libglxserver_nvidia.so.{VERSION}"
    machine.write(module, library("libglxserver_nvidia.so"))
    machine.write(f"{LIB}/libnvidia-vulkan-producer.so.{VERSION}", library(""))
    (one,) = [one for one in found(machine, "display") if "glxserver" in one.name]
    assert one.destination == module
    tree = Tree("/state")
    made, _ = container.file_edits("/root", found(machine, "display"), tree)
    places = {mount["containerPath"]: mount["hostPath"] for mount in made["mounts"]}
    assert places[module] == f"/root{module}"
    assert made["links"] == [{"path": module.removesuffix(f".{VERSION}"), "target": one.name}]
    producer = "lib64/libnvidia-vulkan-producer.so"
    assert tree.links[producer] == f"libnvidia-vulkan-producer.so.{VERSION}"


def test_32_bits_only_for_compat32(machine):
    for name, soname in (("libcuda", "libcuda.so.1"), ("libnvidia-ml", "libnvidia-ml.so.1")):
        machine.write(f"/usr/lib/i386-linux-gnu/{name}.so.{VERSION}", library(soname, bits=32))
    assert {one.bits for one in found(machine, "compute", kind="library")} == {64}
    both = found(machine, "compute", "compat32", kind="library")
    assert {one.bits for one in both} == {64, 32}
    assert {one.entry.flags for one in both} == {0x303, 0x3}


def test_a_folder_that_only_the_loader_knows(tmp_path):
    machine = workstation(tmp_path)
    install(machine, "/opt/driver/lib")
    with pytest.raises(ConfigError, match="no library of the loaded NVIDIA driver 550"):
        found(machine, "compute")
    entries = [ldcache.Entry("libcuda.so.1", "/opt/driver/lib/libcuda.so.1", 0x303)]
    machine.write("/etc/ld.so.cache", ldcache.build(entries))
    assert "libcuda" in stems(machine, "compute")


def test_links_between_folders_do_not_double_anything(machine):
    machine.link("/lib", "usr/lib") if not (machine.root / "lib").exists() else None
    machine.link("/usr/lib64", "lib/x86_64-linux-gnu")
    sources = [one.source for one in found(machine, "all", kind="library")]
    assert len(sources) == len(set(sources)) == 10
    assert all(source.startswith(LIB) for source in sources)


def test_an_update_without_a_reboot_is_told(tmp_path):
    machine = workstation(tmp_path)
    install(machine, version="555.42.02")
    with pytest.raises(ConfigError, match=r"libcuda.so.555.42.02: is not of the loaded.*reboot"):
        found(machine, "compute")


def test_a_broken_library_is_named(machine):
    machine.write(f"{LIB}/libcuda.so.{VERSION}", "GROUP (libc.so.6)")
    with pytest.raises(ConfigError, match=f"{LIB}/libcuda.so.{VERSION}: not an ELF file"):
        found(machine, "compute")


def test_an_unknown_capability_is_an_error():
    with pytest.raises(ConfigError, match=r'unknown driver capability "gpu" \(have compute,'):
        files.capabilities(["gpu"])


# --- what a site adds


def test_a_folder_of_the_sites_comes_first(tmp_path):
    machine = Machine(tmp_path)
    install(machine)
    install(machine, "/opt/driver/lib")
    places = Places(["/opt/driver/lib"])
    found = files.find(machine.host(), VERSION, {"compute"}, places)
    cuda = [file.source for file in found if file.name.startswith("libcuda.")]
    assert cuda[0] == f"/opt/driver/lib/libcuda.so.{VERSION}"
    assert files.nvml(machine.host(), VERSION, places).startswith("/opt/driver/lib/")


@pytest.mark.parametrize(
    ("pattern", "sources"),
    [
        ("libacme.so.*", ["/opt/acme/libacme.so.1.2"]),
        ("libacme*", ["/opt/acme/libacme-x.so.3", "/opt/acme/libacme.so.1.2"]),
        ("/opt/acme/libacme-?.so.3", ["/opt/acme/libacme-x.so.3"]),
        ("libnvidia-ngx*", [f"/usr/lib/x86_64-linux-gnu/libnvidia-ngx.so.{VERSION}"]),
    ],
)
def test_libraries_of_the_sites(tmp_path, pattern, sources):
    machine = Machine(tmp_path)
    install(machine)
    machine.write("/opt/acme/libacme.so.1.2", library("libacme.so.1"))
    machine.link("/opt/acme/libacme.so.1", "libacme.so.1.2")
    machine.write("/opt/acme/libacme-x.so.3", library("libacme-x.so.3"))
    found = files.find(machine.host(), VERSION, set(), Places(["/opt/acme"], [pattern]))
    assert [file.source for file in found if file.kind == "library"] == sources


def test_a_library_of_the_sites_that_there_is_not(tmp_path):
    machine = Machine(tmp_path)
    install(machine)
    with pytest.raises(ConfigError, match=r'extra-libraries in hpc.toml: .* no library "libno.so"'):
        files.find(machine.host(), VERSION, set(), Places([], ["libno.so"]))
