"""CDI files, GPUs and fabrics: what procfs, sysfs and /dev tell, no driver's library asked."""

from __future__ import annotations

import os

from ocirt import hpc
from ocirt.doctor.machine import INFO, LACKS, OK

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
    driver = machine.text("/proc/driver/nvidia/version").partition("\n")[0].split()
    if not driver:
        return
    # NVRM version: NVIDIA UNIX [Open] x86_64 Kernel Module [for x86_64]  570.86.15  ...
    version = next((word for word in driver if word[:1].isdigit() and "." in word), "")
    yield "NVIDIA driver", INFO, version or " ".join(driver), ""
    for address in machine.names("/proc/driver/nvidia/gpus"):
        lines = machine.text(f"/proc/driver/nvidia/gpus/{address}/information").splitlines()
        facts = {key.strip(): value.strip() for key, _, value in [s.partition(":") for s in lines]}
        node = f"/dev/nvidia{facts.get('Device Minor', '')}"
        value = f"{facts.get('Model', 'unknown model')}, {address}, {node}"
        yield _usable(machine, "NVIDIA GPU", node, value, "nvidia-modprobe -c=0")
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
    for name in machine.names("/sys/class/infiniband"):
        ports = []
        for port in machine.names(f"/sys/class/infiniband/{name}/ports"):
            at = f"/sys/class/infiniband/{name}/ports/{port}"
            state = machine.text(f"{at}/state").rpartition(" ")[2].lower()  # "4: ACTIVE"
            ports.append(f"port {port} {state} ({machine.text(f'{at}/link_layer')})")
        yield "RDMA", INFO, ", ".join([name, *ports]), ""
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
