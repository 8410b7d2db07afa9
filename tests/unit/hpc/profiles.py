"""Machines of the kinds that sites have, each with requests; test_golden.py has the outcome."""

from __future__ import annotations

from ocirt_hpc import elf

from tests.unit.hpc.machines import (
    UUID,
    Machine,
    cluster_node,
    eight,
    install,
    library,
    workstation,
)

ARM = "/usr/lib/aarch64-linux-gnu"
GRAPHICS = {
    "libGLX_nvidia": "libGLX_nvidia.so.0",
    "libEGL_nvidia": "libEGL_nvidia.so.0",
    "libnvidia-eglcore": "libnvidia-eglcore.so.{}",
}


def t4(root):
    machine = workstation(root)
    install(machine)
    return machine


def a100(root):
    """Eight GPUs on switches with NICs; the first is cut into seven MIG devices."""
    machine = cluster_node(root)
    install(machine)
    for gi in range(7, 14):
        machine.mig(2, gi)
    return machine


def hgx(root):
    """Eight GPUs behind NVSwitch, a NIC beside each, two more for storage."""
    machine = cluster_node(root)
    install(machine)
    machine.devices["nvidia-nvswitch"] = 234
    machine.node("/dev/nvidia-nvswitchctl", 234, 255)
    for number in range(4):
        machine.node(f"/dev/nvidia-nvswitch{number}", 234, number)
    machine.node("/dev/gdrdrv", 240, 0)
    return machine


def arm_library(soname):
    return library(soname, machine=elf.AARCH64)


def arm(machine):
    """Install a driver of ARM servers."""
    install(machine, ARM)
    for path in (machine.root / ARM.lstrip("/")).glob("*.so.*"):
        if not path.is_symlink():
            soname = elf_soname(path)
            path.write_bytes(arm_library(soname))
    return machine


def elf_soname(path):
    with open(path, "rb") as file:
        return elf.read(file.fileno()).soname


def gb200(root):
    """Four GPUs that share memory with those of other nodes by IMEX channels."""
    machine = Machine(root)
    for number in range(4):
        address = f"{8 + number:04x}:01:00.0"
        machine.gpu(address, number, model="NVIDIA GB200", numa=number // 2)
    machine.devices["nvidia-caps-imex-channels"] = 234
    machine.node("/dev/nvidia-caps-imex-channels/channel0", 234, 0)
    return arm(machine)


def grace_hopper(root):
    machine = Machine(root)
    machine.gpu("0009:01:00.0", 0, model="NVIDIA GH200 120GB")
    return arm(machine)


def mi250x(root):
    """Four cards of two GPUs each."""
    machine = Machine(root)
    for number in range(8):
        address = f"0000:{0xC1 + 4 * number:02x}:00.0"
        path = machine.pci(address, vendor="0x1002", **{"class": "0x038000"}, numa_node=number // 2)
        for kind, minor in (("card", number + 1), ("renderD", number + 128)):
            machine.write(f"{path}/drm/{kind}{minor}/dev", f"226:{minor}\n")
            machine.node(f"/dev/dri/{kind}{minor}", 226, minor, 0o660)
    machine.node("/dev/kfd", 510, 0, 0o660)
    return machine


def display(root):
    """A workstation whose GPU drives a screen."""
    machine = workstation(root)
    install(machine)
    for stem, soname in GRAPHICS.items():
        name = f"/usr/lib/x86_64-linux-gnu/{stem}.so.550.54.15"
        machine.write(name, library(soname.format("550.54.15")))
    path = "/sys/bus/pci/devices/0000:65:00.0/drm"
    for kind, minor in (("card", 1), ("renderD", 128)):
        machine.write(f"{path}/{kind}{minor}/dev", f"226:{minor}\n")
        machine.node(f"/dev/dri/{kind}{minor}", 226, minor)
    machine.write("/sys/module/nvidia_modeset/refcnt", "1\n")
    machine.node("/dev/nvidia-modeset", 195, 254)
    return machine


def no_driver(root):
    """A GPU whose driver is not loaded."""
    machine = Machine(root)
    machine.pci("0000:65:00.0", vendor="0x10de", **{"class": "0x030200"}, numa_node=0)
    return machine


def no_nodes(root):
    """The driver is loaded, and nobody has made its device nodes yet."""
    machine = t4(root)
    machine.nodes.clear()
    return machine


def updated(root):
    """The driver's files were replaced while the old one is loaded."""
    machine = workstation(root)
    install(machine, version="555.42.02")
    return machine


def long_domains(root):
    machine = Machine(root)
    machine.gpu("0000:65:00.0", 0, folder="00000000:65:00.0")
    machine.gpu("10000:01:00.0", 1, folder="00010000:01:00.0")
    install(machine)
    return machine


def excluded(root):
    """Two GPUs, of which the driver leaves one alone."""
    machine = Machine(root)
    machine.gpu("0000:01:00.0", 0, excluded=True)
    machine.gpu("0000:02:00.0", 1)
    install(machine)
    return machine


def wsl(root):
    """Windows' GPUs, which have no driver of ours below them."""
    machine = Machine(root)
    machine.node("/dev/dxg", 10, 125)
    machine.write("/usr/lib/wsl/lib/libcuda.so.1", library("libcuda.so.1"))
    return machine


ALL = "NVIDIA_VISIBLE_DEVICES=all"
ONE = "NVIDIA_VISIBLE_DEVICES=0"

# name -> (machine, requests: variables, annotations as ocirt.hpc/NAME=value, settings of [nvidia]
# as NAME = VALUE)
PROFILES = {
    "t4": (t4, [[ALL], [ONE, "NVIDIA_DRIVER_CAPABILITIES=utility"], ["CUDA_VERSION=11.4"],
                [ONE, 'layout = "native"']]),
    "a100": (
        a100,
        [
            ["NVIDIA_VISIBLE_DEVICES=1", "NVIDIA_DRIVER_CAPABILITIES=utility",
             "ocirt.hpc/rdma=nearest"],
            [f"NVIDIA_VISIBLE_DEVICES=MIG-{UUID.format(2)}/9/0",
             "NVIDIA_DRIVER_CAPABILITIES=utility"],
            ["NVIDIA_VISIBLE_DEVICES=0:2"],
        ],
    ),
    "hgx": (
        hgx,
        [["NVIDIA_VISIBLE_DEVICES=0,7", "NVIDIA_DRIVER_CAPABILITIES=utility",
          "NVIDIA_NVSWITCH=enabled", "NVIDIA_GDRCOPY=enabled", "MELLANOX_VISIBLE_DEVICES=0,7"]],
    ),
    "gb200": (
        gb200, [[ALL, "NVIDIA_IMEX_CHANNELS=0,1", "NVIDIA_DRIVER_CAPABILITIES=utility"]],
    ),
    "grace-hopper": (grace_hopper, [[ALL]]),
    "mi250x": (mi250x, [["AMD_VISIBLE_DEVICES=0,1"], ["ocirt.hpc/amd=all"], [ALL], [ONE]]),
    "display": (display, [[ALL, "NVIDIA_DRIVER_CAPABILITIES=graphics,utility"]]),
    "no-driver": (no_driver, [[ALL], [ONE], ["ocirt.hpc/gpus=0"]]),
    "no-nodes": (no_nodes, [[ONE, "NVIDIA_DRIVER_CAPABILITIES=compute"]]),
    "updated": (updated, [[ALL]]),
    "long-domains": (
        long_domains,
        [["NVIDIA_VISIBLE_DEVICES=00000000:65:00.0", "NVIDIA_DRIVER_CAPABILITIES=utility"],
         ["NVIDIA_VISIBLE_DEVICES=10000:01:00.0", "NVIDIA_DRIVER_CAPABILITIES=utility"]],
    ),
    "excluded": (
        excluded, [[ALL, "NVIDIA_DRIVER_CAPABILITIES=utility"], ["NVIDIA_VISIBLE_DEVICES=1"]],
    ),
    "wsl": (wsl, [[ALL], [ONE]]),
    "eight": (eight, [["NVIDIA_VISIBLE_DEVICES=none"], ["NVIDIA_VISIBLE_DEVICES=../../etc"]]),
}  # fmt: skip
