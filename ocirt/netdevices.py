"""Move network devices of the host into a container: linux.netDevices.

A device takes its addresses along that are global and permanent, and is up on arrival; its MTU and
its hardware address it keeps anyhow, routes it loses.  What can be refused is refused before the
first device moves.  When `create` fails later on, devices go back under their old names, with
their addresses: left to itself the kernel would destroy the virtual ones along with the
namespace, and take the others to the first namespace of the machine.  That is what happens to
them when a container has ended (network_namespaces(7)); nobody fetches them back then.

runtime-spec, config-linux.md, "Network Devices".
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.errors import At, ConfigError, Error
from ocirt.kernel.rtnetlink import Route
from ocirt.launch import netlink_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.kernel.rtnetlink import Address, Device

PLACE = "linux.netDevices"


class Traveller:
    """One device: its names on both sides, and how it was before."""

    __slots__ = ("addresses", "before", "inside", "name")

    def __init__(self, name: str, inside: str, before: Device, addresses: list[Address]) -> None:
        self.name = name
        self.inside = inside
        self.before = before
        self.addresses = addresses


class Devices:
    """The devices of one container, whose first process waits meanwhile."""

    def __init__(self, pid: int) -> None:
        self._namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._there = Route(netlink_socket(self._namespace, Route.PROTOCOL))
        self._here = Route()
        self._touched: list[Traveller] = []

    def move(self, section: dict[str, Any]) -> None:
        """Move all of linux.netDevices; on failure `put_back` undoes what was done."""
        travellers = []
        for name, device in section.items():
            with At(f"{PLACE}.{name}"):
                travellers.append(self._look(name, device.get("name") or name))
        for traveller in travellers:
            self._touched.append(traveller)
            with At(f"{PLACE}.{traveller.name}"):
                self._here.move(traveller.before.index, self._namespace, traveller.inside)
                self._settle(self._there, traveller.inside, traveller.addresses, True)

    def _look(self, name: str, inside: str) -> Traveller:
        found = self._here.find(name)
        if found is None:
            raise ConfigError(f"link not found for interface {name} on runtime namespace")
        if self._there.find(inside):
            raise ConfigError(f'the container has a network device "{inside}" already')
        # Now, since it has none any more once it has moved.
        return Traveller(name, inside, found, self._here.addresses(found.index))

    @staticmethod
    def _settle(route: Route, name: str, addresses: list[Address], up: bool) -> None:
        device = route.find(name)
        if device is None:
            raise Error(f"{name} is gone")
        for address in addresses:
            route.add(device.index, address)
        if up:
            route.set_up(device.index)

    def put_back(self) -> None:
        """Return every device to where it came from, as it was."""
        while self._touched:
            traveller = self._touched.pop()
            try:
                self._put_back(traveller)
            except (Error, OSError) as error:
                log.warning(f"network device {traveller.name} could not be put back: {error}")

    def _put_back(self, traveller: Traveller) -> None:
        here = self._here.find(traveller.name)
        if here is None or here.index != traveller.before.index:
            # Older kernels move a device first and rename it then, if they can.
            device = self._there.find(traveller.inside) or self._there.find(traveller.name)
            if device:
                home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self._there.move(device.index, home, traveller.name)
                finally:
                    os.close(home)
        self._settle(self._here, traveller.name, traveller.addresses, traveller.before.up)

    def close(self) -> None:
        """Let go of the container's namespace."""
        self._here.close()
        self._there.close()
        os.close(self._namespace)
