"""Machines that nobody has at hand, written into a directory: GPUs, NICs, drivers, as /proc says.

    machine = Machine(tmp_path)
    machine.gpu("0000:65:00.0", minor=0)
    host = machine.host()

Device nodes are plain files; `Machine.host` has an `lstat` that knows what they stand for.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING

from ocirt_hpc.host import Host

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "550.54.15"
UUID = "GPU-{:08x}-1111-2222-3333-444444444444"

NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Tue Mar  5 22:23:56 UTC 2024\n"

INFORMATION = """\
Model: \t\t {model}
IRQ:   \t\t 57
GPU UUID: \t {uuid}
Video BIOS: \t 92.00.45.00.03
Bus Type: \t PCIe
DMA Size: \t 47 bits
DMA Mask: \t 0x7fffffffffff
Bus Location: \t {address}
Device Minor: \t {minor}
GPU Excluded:\t {excluded}
"""

DEVICES = {"mem": 1, "misc": 10, "infiniband_mad": 231, "infiniband_verbs": 231}
NVIDIA = {"nvidia-frontend": 195, "nvidia-caps": 236, "nvidia-uvm": 510}

LINK = {"current_link_speed": "16.0 GT/s PCIe", "current_link_width": 16}
SOCKETS = ("0-31,64-95", "32-63,96-127")  # CPUs of two sockets


class Machine:
    """A machine below a directory, which tests furnish."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: dict[str, tuple[int, int, int]] = {}
        self.devices = dict(DEVICES)
        self.write("/proc/devices", "")

    def host(self, **options) -> Host:
        lines = "".join(f"{number:3} {name}\n" for name, number in self.devices.items())
        self.write("/proc/devices", f"Character devices:\n{lines}\nBlock devices:\n  8 sd\n")
        return Host(str(self.root), lstat=self.lstat, **options)

    def lstat(self, path: str) -> os.stat_result:
        name = "/" + os.path.relpath(path, self.root)
        if name not in self.nodes:
            return os.lstat(path)
        major, minor, mode = self.nodes[name]
        # st_rdev is the field after the ten of the tuple and the three times.
        return os.stat_result([0o020000 | mode, *[0] * 9], {"st_rdev": os.makedev(major, minor)})

    def write(self, path: str, content: str | bytes) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def folders(self, *paths: str) -> None:
        for path in paths:
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def make_nodes(self) -> None:
        """Put real device nodes in place of the imagined ones, which takes root."""
        for path, (major, minor, mode) in self.nodes.items():
            file = self.root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            os.mknod(file, stat.S_IFCHR | mode, os.makedev(major, minor))
            file.chmod(mode)

    def node(self, path: str, major: int, minor: int, mode: int = 0o666) -> None:
        self.nodes[path] = (major, minor, mode)

    def pci(self, address: str, bridges: str = "", **files: object) -> str:
        """Put a PCI function behind bridges (`0000:60:01.0/0000:61:00.0`); return its path."""
        above = (bridges or address)[:7]  # the bus of the host bridge
        path = f"/sys/devices/pci{above}/{bridges}/{address}".replace("//", "/")
        for name, value in files.items():
            self.write(f"{path}/{name}", f"{value}\n")
        self.link(f"/sys/bus/pci/devices/{address}", f"../../../..{path}")
        return path

    def numa(self, *cpulists: str, gib: int = 512) -> None:
        """Say which CPUs each NUMA node has, and to each PCI function which are its own."""
        for number, cpus in enumerate(cpulists):
            place = f"/sys/devices/system/node/node{number}"
            self.write(f"{place}/cpulist", f"{cpus}\n")
            self.write(f"{place}/meminfo", f"Node {number} MemTotal:  {gib << 20} kB\n")
            row = (10 if other == number else 21 for other in range(len(cpulists)))
            self.write(f"{place}/distance", " ".join(map(str, row)) + "\n")
        for file in sorted(self.root.glob("sys/devices/**/numa_node")):
            number = int(file.read_text())
            if 0 <= number < len(cpulists):
                (file.parent / "local_cpulist").write_text(f"{cpulists[number]}\n")

    # --- NVIDIA

    def driver(self, version: str = VERSION) -> None:
        """Load the driver."""
        self.devices.update(NVIDIA)
        self.write("/proc/driver/nvidia/version", NVRM.format(version) + "GCC version:  gcc 12\n")
        self.write(
            "/proc/driver/nvidia/params",
            "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438\n",
        )
        self.node("/dev/nvidiactl", 195, 255)
        self.node("/dev/nvidia-uvm", NVIDIA["nvidia-uvm"], 0)
        self.node("/dev/nvidia-uvm-tools", NVIDIA["nvidia-uvm"], 1)

    def gpu(
        self,
        address: str,
        minor: int,
        *,
        model: str = "NVIDIA A100-SXM4-80GB",
        uuid: str | None = None,
        excluded: bool = False,
        folder: str | None = None,
        bridges: str = "",
        numa: int = 0,
    ) -> None:
        """Put a GPU into the machine; the driver gives out minors in another order than PCI."""
        if not (self.root / "proc/driver/nvidia").exists():
            self.driver()
        self.write(
            f"/proc/driver/nvidia/gpus/{folder or address}/information",
            INFORMATION.format(
                model=model,
                uuid=uuid or UUID.format(minor),
                address=folder or address,
                minor=minor,
                excluded="Yes" if excluded else "No",
            ),
        )
        files = {"class": "0x030200", "numa_node": numa, **LINK}
        self.pci(address, bridges, vendor="0x10de", **files)
        self.node(f"/dev/nvidia{minor}", 195, minor)

    def mig(self, minor: int, gi: int, ci: int = 0) -> None:
        """Cut a MIG device out of the GPU with this minor."""
        folder = f"/proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{gi}"
        self.write(f"{folder}/access", "DeviceFileMinor: 0\n")
        self.write(f"{folder}/ci{ci}/access", "DeviceFileMinor: 0\n")
        lines = ["config 1", "monitor 2"]
        number = 3
        for gpu in range(8):
            for instance in range(15):
                lines.append(f"gpu{gpu}/gi{instance}/access {number}")
                lines += [
                    f"gpu{gpu}/gi{instance}/ci{compute}/access {number + 1 + compute}"
                    for compute in range(8)
                ]
                number += 9
        self.write("/proc/driver/nvidia-caps/mig-minors", "\n".join(lines) + "\n")

    # --- RDMA

    def nic(
        self,
        name: str,
        address: str = "",
        *,
        ports: int = 1,
        active: bool = True,
        layer: str = "InfiniBand",
        bridges: str = "",
        numa: int = 0,
        net: str = "",
        gids: tuple[tuple[str, str], ...] = (),
        driver: str = "",
        model: int = 0,
    ) -> None:
        """Put an RDMA device into the machine; without an address it is a soft one.

        net: its network device.  gids: (address, type) of each port, from index 0 on; "" is free.
        """
        number = len(list((self.root / "sys/class/infiniband_verbs").glob("uverbs*")))
        if address:
            files = {"vendor": "0x15b3", "class": "0x020700", "numa_node": numa, **LINK}
            path = self.pci(address, bridges, device=f"{model:#06x}", **files)
            if net:
                self.write(f"{path}/net/{net}/operstate", "up\n")
            if driver:
                self.link(f"{path}/driver", f"/sys/bus/pci/drivers/{driver}")
        else:
            path = f"/sys/devices/virtual/infiniband/{name}"
        base = f"{path}/infiniband/{name}" if address else path
        for port in range(1, ports + 1):
            state = "4: ACTIVE" if active else "1: DOWN"
            self.write(f"{base}/ports/{port}/state", f"{state}\n")
            self.write(f"{base}/ports/{port}/link_layer", f"{layer}\n")
            self.write(f"{base}/ports/{port}/rate", "200 Gb/sec (4X HDR)\n")
            for index, (gid, kind) in enumerate((*gids, *[("", "")] * 12) if gids else ()):
                place = f"{base}/ports/{port}"
                self.write(f"{place}/gids/{index}", f"{gid or '0000' + 7 * ':0000'}\n")
                if gid:
                    self.write(f"{place}/gid_attrs/types/{index}", f"{kind}\n")
                    self.write(f"{place}/gid_attrs/ndevs/{index}", f"{net}\n")
        if address:
            self.link(f"{base}/device", "../..")
        self.link(f"/sys/class/infiniband/{name}", f"../..{base.removeprefix('/sys')}")
        nodes = [("infiniband_verbs", "uverbs", 192), ("infiniband_mad", "umad", 0),
                 ("infiniband_mad", "issm", 64)]  # fmt: skip
        for kind, prefix, minor in nodes:
            node = f"{prefix}{number}"
            folder = f"{path}/{kind}/{node}"
            self.write(f"{folder}/dev", f"231:{minor + number}\n")
            self.write(f"{folder}/ibdev", f"{name}\n")
            self.link(f"/sys/class/{kind}/{node}", f"../..{folder.removeprefix('/sys')}")
            mode = 0o666 if prefix == "uverbs" else 0o600
            self.node(f"/dev/infiniband/{node}", 231, minor + number, mode)
        self.write("/sys/class/infiniband_verbs/abi_version", "6\n")
        self.write("/sys/class/misc/rdma_cm/dev", "10:122\n")
        self.node("/dev/infiniband/rdma_cm", 10, 122)


# --- machines that many tests want


def workstation(root: Path) -> Machine:
    """One T4."""
    machine = Machine(root)
    machine.gpu("0000:65:00.0", 0, model="Tesla T4")
    return machine


def eight(root: Path) -> Machine:
    """Eight A100, whose minors are not in the order of their addresses, on two sockets."""
    machine = Machine(root)
    for place, minor in enumerate((2, 3, 0, 1, 6, 7, 4, 5)):
        bus = 0x07 + 0x20 * place
        bridges = f"0000:{bus - 2:02x}:01.0/0000:{bus - 1:02x}:00.0"
        machine.gpu(f"0000:{bus:02x}:00.0", minor, bridges=bridges, numa=place // 4)
    return machine


def eight_and_eight(root: Path) -> Machine:
    """The same with a NIC beside each GPU, on one switch."""
    machine = eight(root)
    for place in range(8):
        bus = 0x07 + 0x20 * place
        switch = f"0000:{bus - 2:02x}:01.0/0000:{bus - 1:02x}:00.0"
        # Two ports of one switch: an own downstream port for each.
        machine.nic(
            f"mlx5_{place}",
            f"0000:{bus + 2:02x}:00.0",
            bridges=f"{switch}/0000:{bus + 1:02x}:02.0",
            numa=place // 4,
        )
    machine.numa(*SOCKETS)
    return machine


def cluster_node(root: Path) -> Machine:
    """The same with two more NICs for storage, whose links are down."""
    machine = eight_and_eight(root)
    for place in (8, 9):
        address = f"0000:{0xF0 + place:02x}:00.0"
        machine.nic(f"mlx5_{place}", address, active=False, layer="Ethernet", numa=1)
    machine.numa(*SOCKETS)
    return machine


# --- files of a driver


def library(soname: str, *, bits: int = 64, machine: int | None = None) -> bytes:
    """Return the smallest shared library with a soname, for x86-64 or i386."""
    machine = machine or {64: 62, 32: 3}[bits]
    strings = b"\0" + soname.encode() + b"\0"
    header, segment, entry = (64, 56, 16) if bits == 64 else (52, 32, 8)
    dynamic = header + 2 * segment
    tags = [(14, 1), (5, dynamic + 4 * entry), (10, len(strings)), (0, 0)]
    size = dynamic + 4 * entry + len(strings)
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    if bits == 64:
        head = struct.pack(
            "<16s2HI3QI6H", ident, 3, machine, 1, 0, header, 0, 0, 64, 56, 2, 0, 0, 0
        )
        segments = [
            struct.pack("<2I6Q", kind, 4, at, at, at, length, length, 8)
            for kind, at, length in ((1, 0, size), (2, dynamic, 4 * entry))
        ]
        held = [struct.pack("<qQ", *tag) for tag in tags]
    else:
        head = struct.pack(
            "<16s2HI3II6H", ident, 3, machine, 1, 0, header, 0, 0, 52, 32, 2, 0, 0, 0
        )
        segments = [
            struct.pack("<8I", kind, at, at, at, length, length, 4, 4)
            for kind, at, length in ((1, 0, size), (2, dynamic, 4 * entry))
        ]
        held = [struct.pack("<iI", *tag) for tag in tags]
    return b"".join([head, *segments, *held, strings])


LIBRARIES = {
    "libcuda": "libcuda.so.1",
    "libnvidia-ml": "libnvidia-ml.so.1",
    "libnvidia-ptxjitcompiler": "libnvidia-ptxjitcompiler.so.1",
    "libnvidia-encode": "libnvidia-encode.so.1",
    "libGLX_nvidia": "libGLX_nvidia.so.0",
    "libnvidia-glcore": "libnvidia-glcore.so.{}",
    "libnvidia-allocator": "libnvidia-allocator.so.1",
    "libnvidia-ngx": "libnvidia-ngx.so.1",
    "libnvidia-novelty": "libnvidia-novelty.so.1",
    "vdpau/libvdpau_nvidia": "libvdpau_nvidia.so.1",
}


def install(machine: Machine, folder: str = "/usr/lib/x86_64-linux-gnu", version: str = VERSION):
    """Install the driver's files as a distribution does."""
    for name, soname in LIBRARIES.items():
        machine.write(f"{folder}/{name}.so.{version}", library(soname.format(version)))
    machine.link(f"{folder}/libcuda.so.1", f"libcuda.so.{version}")
    machine.link(f"{folder}/libcuda.so", "libcuda.so.1")
    machine.write("/usr/bin/nvidia-smi", "smi")
    machine.write("/usr/bin/nvidia-cuda-mps-control", "mps")
    machine.write("/usr/share/vulkan/icd.d/nvidia_icd.json", "{}")
    machine.write("/etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1\n")
    machine.write(f"/lib/firmware/nvidia/{version}/gsp_ga10x.bin", "gsp")
    machine.write("/run/nvidia-persistenced/socket", "")
