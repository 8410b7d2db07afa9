"""What the driver says of its GPUs, and which of them a name means."""

from __future__ import annotations

import pytest
from ocirt_hpc.nvidia import choice, driver

from ocirt.errors import ConfigError, KernelError
from tests.unit.hpc.machines import UUID, Machine, eight, workstation


def names(machine, *asked):
    return [one.name for one in choice.choose(driver.find(machine.host()), asked)]


def minors(machine, *asked):
    return [one.gpu.minor for one in choice.choose(driver.find(machine.host()), asked)]


# --- the driver


def test_a_machine_without_a_driver_has_none(tmp_path):
    assert driver.find(Machine(tmp_path).host()) is None


def test_one_gpu(tmp_path):
    found = driver.find(workstation(tmp_path).host())
    assert found.version == "550.54.15"
    (gpu,) = found.gpus
    assert (gpu.index, gpu.minor, gpu.path) == (0, 0, "/dev/nvidia0")
    assert (gpu.uuid, gpu.address, gpu.model) == (UUID.format(0), "0000:65:00.0", "Tesla T4")


def test_the_index_follows_the_address_and_the_node_the_minor(tmp_path):
    found = driver.find(eight(tmp_path).host())
    assert [gpu.index for gpu in found.gpus] == list(range(8))
    assert [gpu.minor for gpu in found.gpus] == [2, 3, 0, 1, 6, 7, 4, 5]


def test_a_domain_of_eight_digits_is_the_same_gpu(tmp_path):
    machine = Machine(tmp_path)
    machine.gpu("0000:3b:00.0", 0, folder="00000000:3B:00.0")
    (gpu,) = driver.find(machine.host()).gpus
    assert (gpu.address, gpu.folder) == ("0000:3b:00.0", "00000000:3B:00.0")
    assert machine.host().pci(gpu.folder).number("vendor") == 0x10DE


def test_an_excluded_gpu_takes_no_index(tmp_path):
    machine = Machine(tmp_path)
    machine.gpu("0000:01:00.0", 0, excluded=True)
    machine.gpu("0000:02:00.0", 1)
    assert [(gpu.index, gpu.minor) for gpu in driver.find(machine.host()).gpus] == [(0, 1)]


def test_the_nodes_are_whose_the_driver_was_told(tmp_path):
    machine = workstation(tmp_path)
    machine.write(
        "/proc/driver/nvidia/params", "DeviceFileUID: 0\nDeviceFileGID: 44\nDeviceFileMode: 432\n"
    )
    found = driver.find(machine.host())
    node = found.node("/dev/nvidia7", 195, 7)
    assert (node.there, node.mode, node.gid) == (False, 0o660, 44)


def test_a_node_left_from_another_boot_is_refused(tmp_path):
    machine = workstation(tmp_path)
    machine.node("/dev/nvidia-uvm", 511, 0)
    found = driver.find(machine.host())
    with pytest.raises(ConfigError, match=r"/dev/nvidia-uvm: is device 511:0.*510:0; remove"):
        found.node("/dev/nvidia-uvm", 510, 0)


def test_the_mig_devices_that_exist_and_their_capabilities(tmp_path):
    machine = eight(tmp_path)
    machine.mig(2, 9)
    machine.mig(2, 1, 0)
    gpu = driver.find(machine.host()).gpus[0]
    assert [(mig.gi, mig.ci) for mig in gpu.migs] == [(1, 0), (9, 0)]
    base = 3 + 9 * (15 * 2 + 1)
    assert gpu.migs[0].caps == [(base, 0o666), (base + 1, 0o666)]


def test_the_file_of_a_capability_tells_its_permissions(tmp_path):
    machine = workstation(tmp_path)
    machine.mig(0, 1)
    folder = "/proc/driver/nvidia/capabilities/gpu0/mig/gi1"
    machine.write(f"{folder}/access", "DeviceFileMinor: 91\nDeviceFileMode: 292\n")
    (mig,) = driver.find(machine.host()).gpus[0].migs
    assert [mode for _, mode in mig.caps] == [0o444, 0o666]
    machine.write("/proc/driver/nvidia-caps/mig-minors", "gpu0/gi1/ci0/access 92\n")
    (mig,) = driver.find(machine.host()).gpus[0].migs
    assert mig.caps == [(91, 0o444), (92, 0o666)]


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("version", "", "/proc/driver/nvidia/version: names no version"),
        ("version", "NVRM version: unknown\n", "names no version"),
        ("gpus/0000:65:00.0/information", "", "0000:65:00.0/information: names no device minor"),
        ("gpus/0000:65:00.0/information", "Device Minor: x\n", "names no device minor"),
    ],
)
def test_a_driver_half_loaded_says_which_file(tmp_path, path, content, words):
    machine = workstation(tmp_path)
    machine.write(f"/proc/driver/nvidia/{path}", content)
    with pytest.raises(ConfigError, match=words):
        driver.find(machine.host())


def test_a_mig_device_without_numbers_says_which_file(tmp_path):
    machine = workstation(tmp_path)
    machine.mig(0, 1)
    machine.write("/proc/driver/nvidia-caps/mig-minors", "config 1\n")
    with pytest.raises(ConfigError, match="mig-minors: has no line for gpu0/gi1/access"):
        driver.find(machine.host())


def test_a_file_that_does_not_end_says_so(tmp_path):
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"nvidia/version: holds more than 1048576 bytes$"):
        driver.find(Machine(tmp_path).host())


def test_what_cannot_be_read_says_so(tmp_path):
    machine = workstation(tmp_path)
    version = machine.root / "proc/driver/nvidia/version"
    version.unlink()
    version.mkdir()
    with pytest.raises(KernelError, match="/proc/driver/nvidia/version"):
        driver.find(machine.host())


# --- names


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["0"], [2]),
        (["1", "0", "1"], [3, 2]),
        (["all"], [2, 3, 0, 1, 6, 7, 4, 5]),
        (["none"], []),
        ([UUID.format(5).upper().replace("GPU-", "gpu-")], [5]),
        (["0000:07:00.0"], [2]),
        (["00000000:E7:00.0"], [5]),
        (["7", "all"], [5, 2, 3, 0, 1, 6, 7, 4]),
    ],
)
def test_a_name_means_a_gpu(tmp_path, asked, expected):
    assert minors(eight(tmp_path), *asked) == expected


def test_all_means_the_mig_devices_of_a_gpu_that_is_cut(tmp_path):
    machine = Machine(tmp_path)
    machine.gpu("0000:01:00.0", 0)
    machine.gpu("0000:02:00.0", 1)
    machine.mig(0, 7)
    machine.mig(0, 8)
    first = f"MIG-{UUID.format(0)}"
    assert names(machine, "all") == [f"{first}/7/0", f"{first}/8/0", UUID.format(1)]
    assert names(machine, f"{first}/8/0", "0") == [f"{first}/8/0", UUID.format(0)]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("1", r'there is no NVIDIA GPU "1" \(have MIG-GPU-00000000-.*/3/0\)'),
        ("-1", "there is no NVIDIA GPU"),
        ("٣", "there is no NVIDIA GPU"),
        ("../../etc", 'there is no NVIDIA GPU "../../etc"'),
        ("", 'there is no NVIDIA GPU ""'),
        ("GPU-0", "there is no NVIDIA GPU"),
        ("0000:ff:00.0", "there is no NVIDIA GPU"),
        ("0:1", "known to NVML alone; name it as MIG-GPU-00000000-"),
        ("MIG-5c8a7f5b", "the UUID of a MIG device is known to NVML alone"),
        ("MIG-GPU-0/1/2", "there is no MIG device"),
        ("MIG-GPU-0/x/2", "known to NVML alone"),
    ],
)
def test_a_name_that_means_nothing_is_an_error(tmp_path, asked, words):
    machine = workstation(tmp_path)
    machine.mig(0, 3)
    with pytest.raises(ConfigError, match=words):
        names(machine, asked)


def test_a_gpu_that_does_not_know_its_uuid_yet(tmp_path):
    machine = Machine(tmp_path)
    machine.gpu("0000:01:00.0", 0, uuid="GPU-????????-????-????-????-????????????")
    assert minors(machine, "0") == [0]
    with pytest.raises(ConfigError, match="run nvidia-smi on the host once"):
        names(machine, "GPU-11111111-1111-2222-3333-444444444444")


def test_a_driver_without_gpus_says_so(tmp_path):
    machine = Machine(tmp_path)
    machine.driver()
    assert names(machine, "all") == []
    with pytest.raises(ConfigError, match="the driver has none"):
        names(machine, "0")
