"""AMD's GPUs in the order in which AMD's own tools number them.

That is by PCI address, of those that kfd knows; the partitions of a GPU (CPX and the like), whose
nodes belong to platform devices, come after it.  kfd tells by the unique id of the GPU which belong
together.  A kernel without kfd has GPUs for graphics alone: all that are on PCI.

Source: Linux, drivers/gpu/drm/amd/amdkfd/kfd_topology.c, amdxcp/amdgpu_xcp_drv.c; AMD container
toolkit, internal/amdgpu.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_hpc.host import Host

VENDOR = 0x1002
TOPOLOGY = "/sys/class/kfd/kfd/topology/nodes"
PLATFORM = "/sys/devices/platform"
PARTITION = "amdgpu_xcp"
RENDER = "renderD"


def find(host: Host) -> list[tuple[str, str, list[str]]]:
    """Return (PCI address or "", unique id as 0x... or "", names in /dev/dri) of each GPU."""
    ids = _ids(host)
    found: list[tuple[str, str, list[str]]] = []
    for pci in host.pcis():
        if pci.number("vendor") == VENDOR:
            names = pci.names("drm")
            unique = ids.get(_render(names), "")
            if names and (unique or not ids):
                found.append((pci.address, unique, names))
    parts = []
    for name in host.names(PLATFORM):
        if name.startswith(PARTITION):
            names = host.names(f"{PLATFORM}/{name}/drm")
            if _render(names) in ids:
                parts.append(("", ids[_render(names)], names))
    order = [unique for _, unique, _ in found]
    parts = [one for one in parts if one[1] in order]
    if parts:
        found = sorted(found + parts, key=lambda one: (order.index(one[1]), _render(one[2])))
    return found


def _ids(host: Host) -> dict[int, str]:
    """Return the minor number of each render node that kfd knows -> the GPU's unique id."""
    found = {}
    for node in host.names(TOPOLOGY):
        lines = (host.text(f"{TOPOLOGY}/{node}/properties") or "").splitlines()
        fields = dict(line.split(" ", 1) for line in lines if " " in line)
        minor, unique = fields.get("drm_render_minor", "0"), fields.get("unique_id", "0")
        if minor.isdecimal() and unique.isdecimal() and int(minor):
            # Old GPUs have none: they are told apart by their node.
            found[int(minor)] = f"0x{int(unique):016x}" if int(unique) else f"node {node}"
    return found


def _render(names: list[str]) -> int:
    numbers = [name.removeprefix(RENDER) for name in names if name.startswith(RENDER)]
    return next((int(number) for number in numbers if number.isdecimal()), 0)
