"""CDI files, GPUs and fabrics: what procfs, sysfs and /dev tell, no driver's library asked."""

from __future__ import annotations

from ocirt import hpc
from ocirt import system as os
from ocirt.doctor.machine import INFO, LACKS, OK
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine

# drivers/gpu/drm: /sys/class/drm/renderD*/device/vendor, a PCI vendor
VENDORS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel"}

FABRICS = (
    # what            devices                 what each of them has below /dev
    ("RDMA verbs",    "infiniband_verbs",     "infiniband/{}",  "modprobe ib_uverbs"),
    ("Slingshot",     "cxi",                  "{}",             "modprobe cxi_user"),
)  # fmt: skip


def cdi(machine: Machine) -> Iterator[Finding]:
    """The files by which devices can be asked for, and what is wrong with them."""
    some = False
    for file in hpc.cdi_files(machine.site.root):
        some = True
        name = f"CDI {os.path.basename(file.path)}"
        if file.fault:
            yield name, LACKS, file.path, f"its devices cannot be asked for: {file.fault}"
        else:
            yield name, OK, f"{file.kind}={{{','.join(file.devices)}}} ({file.path})", ""
    if not some:
        yield "CDI", INFO, "no files in /etc/cdi or /var/run/cdi", ""


def nvidia(machine: Machine) -> Iterator[Finding]:
    """The driver, its GPUs, and the nodes that a program needs besides those of the GPUs."""
    hpc.put_in_place()
    from ocirt_hpc.host import Host
    from ocirt_hpc.nvidia import driver

    try:
        loaded = driver.find(Host(machine.site.root))
    except Error as error:
        yield "NVIDIA driver", LACKS, str(error), ""
        return
    if loaded is None:
        return
    yield "NVIDIA driver", INFO, loaded.version, ""
    for gpu in loaded.gpus:
        value = f"{gpu.model or 'unknown model'}, {gpu.address}, {gpu.path}"
        yield _usable(machine, "NVIDIA GPU", gpu.path, value, "nvidia-modprobe -c=0")
    for node, advice in (
        ("/dev/nvidiactl", "nvidia-modprobe"),
        ("/dev/nvidia-uvm", "CUDA needs it: nvidia-modprobe -u"),
    ):
        yield _usable(machine, os.path.basename(node), node, node, advice)


def render(machine: Machine) -> Iterator[Finding]:
    """Render nodes by vendor, and AMD's node for computing."""
    for name in machine.names("/dev/dri"):
        if name.startswith("renderD"):
            vendor = machine.text(f"/sys/class/drm/{name}/device/vendor")
            value = f"{VENDORS.get(vendor, vendor)} /dev/dri/{name}".strip()
            yield _usable(machine, "render node", f"/dev/dri/{name}", value, "")
    if machine.host.exists("/dev/kfd"):
        yield _usable(machine, "AMD compute", "/dev/kfd", "/dev/kfd", "")


def fabrics(machine: Machine) -> Iterator[Finding]:
    """Adapters for RDMA with the state of their ports, and the nodes that programs open."""
    hpc.put_in_place()
    from ocirt_hpc import rdma
    from ocirt_hpc.host import Host

    try:
        for device in rdma.find(Host(machine.site.root)):
            ports = [f"port {one.number} {one.state} ({one.layer})" for one in device.ports]
            yield "RDMA", INFO, ", ".join([device.name, *ports]), ""
    except Error as error:
        yield "RDMA", LACKS, str(error), ""
    for what, devices, node, advice in FABRICS:
        for name in machine.names(f"/sys/class/{devices}"):
            if name != "abi_version":
                path = "/dev/" + node.format(name)
                yield _usable(machine, what, path, path, advice)


def _usable(machine: Machine, name: str, node: str, value: str, advice: str) -> Finding:
    """Return the finding about a device node: there, and the user's to use."""
    if not machine.host.exists(node):
        return name, LACKS, f"{value} is missing", advice or f"the driver has not made {node}"
    if not machine.may_use(node):
        return name, LACKS, f"{value}: permission denied", f"join the group that owns {node}"
    return name, OK, value, ""
