"""Move RDMA devices into a container's network namespace, where a host keeps them apart.

`rdma system` says whether it does: in mode exclusive a device belongs to one network namespace and
can be used there alone.  Whether a container gets one is for the HPC stage to decide; here it is
moved, after the network devices that a RoCE port takes its addresses from, and taken back when
`create` fails later on.  When the container ends the kernel brings it back to the machine's first
namespace along with the end of the container's; from a namespace that the container has only
joined, `delete` fetches it.

A device is numbered anew on the way.  Mostly it keeps its numbers, being the first to ask for some;
if not, the container would get another's nodes, and is refused.

Source: Linux, drivers/infiniband/core/device.c, `rdma_dev_change_netns`; rdma-system(8).
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.errors import At, ConfigError, Error, KernelError
from ocirt.kernel.rdmanetlink import Rdma
from ocirt.launch import netlink_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from ocirt.plan import Context
    from ocirt.state import Container
    from ocirt.undo import Undo

CLASSES = ("/sys/class/infiniband_verbs", "/sys/class/infiniband_mad")


class Devices:
    """The RDMA devices of one container, whose first process waits meanwhile."""

    def __init__(self, pid: int) -> None:
        self._namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._here = Rdma()
        self._moved: list[str] = []

    def move(self, devices: Mapping[str, str]) -> None:
        """Move devices, name -> what asks for each; on failure `put_back` undoes what was done."""
        there = self._here.devices()
        for name, origin in devices.items():
            with At(origin):
                if name not in there:
                    raise ConfigError(f"RDMA device {name} is in another network namespace")
                before = numbers(name)
                try:
                    self._here.move(there[name], self._namespace)
                except KernelError as error:
                    raise KernelError(
                        error.errno, f"RDMA device {name} cannot move", *error.segments
                    ) from None
                self._moved.append(name)
                if numbers(name) != before:
                    raise Error(f"RDMA device {name} got other nodes when it moved; try again")

    def put_back(self) -> None:
        """Return every device to where it came from."""
        moved, self._moved = self._moved, []
        if moved:
            fetch(self._namespace, moved)

    def close(self) -> None:
        """Let go of the container's namespace."""
        self._here.close()
        os.close(self._namespace)


def move_in(pid: int, context: Context, container: Container, undo: Undo) -> Callable[[], None]:
    """Move the plan's devices to a process that waits; return what to call when all went well."""
    devices = Devices(pid)
    undo.add(devices.close)
    undo.add(devices.put_back)
    if "network" in context.namespaces.joined:
        container.record["rdma"] = {
            "namespace": context.namespaces.joined["network"],
            "devices": list(context.rdma_devices),
        }
        container.save()
    devices.move(context.rdma_devices)
    return devices.close


def numbers(name: str) -> set[tuple[str, str]]:
    """Return (node, numbers) of a device: these classes show it whatever namespace it is in."""
    found = set()
    for folder in CLASSES:
        for node in os.listdir(folder) if os.path.isdir(folder) else ():
            if _text(f"{folder}/{node}/ibdev") == name:
                found.add((node, _text(f"{folder}/{node}/dev")))
    return found


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def fetch(namespace: int, names: Iterable[str]) -> None:
    """Bring devices from a network namespace (a descriptor) to ours; what fails is told."""
    there = Rdma(netlink_socket(namespace, Rdma.PROTOCOL))
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        held = there.devices()
        for name in names:
            try:
                if name in held:
                    os.close(netlink_socket(namespace, Rdma.PROTOCOL, home, held[name]))
            except (Error, OSError) as error:
                log.warning(f"RDMA device {name} could not be put back: {error}")
    finally:
        there.close()
        os.close(home)


def give_back(record: Mapping[str, Any]) -> None:
    """Fetch what a container had moved into a namespace that others have made and keep."""
    try:
        namespace = os.open(record["namespace"], os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # the namespace has ended, and the kernel has brought them back
    try:
        fetch(namespace, record["devices"])
    except (Error, OSError) as error:
        log.warning(f"RDMA devices could not be put back: {error}")
    finally:
        os.close(namespace)
