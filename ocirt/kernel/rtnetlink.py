"""Ask the kernel about network devices and change them, over a route netlink socket.

Only what moving a device needs is here.

rtnetlink(7); linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
"""

from __future__ import annotations

from _struct import Struct

from ocirt import system as os
from ocirt.errors import KernelError
from ocirt.kernel.netlink import NLM_F_ACK, NLM_F_DUMP, UINT, Netlink, attribute, attributes

NLM_F_EXCL, NLM_F_CREATE = 0x200, 0x400
RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 19, 20, 22
IFF_UP = 1
IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY = 1, 2, 4, 8, 9
IFA_F_PERMANENT = 0x80
RT_SCOPE_UNIVERSE = 0

# What an address keeps: its numbers, and those flags that somebody has chosen for it: NODAD,
# HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN.  Its label holds the device's old name.
KEPT_ATTRIBUTES = (IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY)
KEPT_FLAGS = 0x02 | 0x10 | 0x100 | 0x200 | 0x400

_LINK = Struct("=BxHiII")  # family, type of device, index, flags, mask of the flags to change
_ADDRESS = Struct("=BBBBI")  # family, prefix length, flags, scope, index


class Device:
    """A network device as it is in one namespace."""

    __slots__ = ("index", "up")

    def __init__(self, index: int, up: bool) -> None:
        self.index = index
        self.up = up


class Address:
    """An address of a device, as the kernel takes it back."""

    __slots__ = ("attributes", "family", "flags", "prefix")

    def __init__(self, family: int, prefix: int, flags: int, attributes: dict[int, bytes]) -> None:
        self.family = family
        self.prefix = prefix
        self.flags = flags
        self.attributes = attributes


class Route(Netlink):
    """A route netlink socket."""

    PROTOCOL = 0  # NETLINK_ROUTE

    def find(self, name: str) -> Device | None:
        """Return the device of that name, or None."""
        from errno import ENODEV

        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        try:
            answers = self.ask(RTM_GETLINK, 0, body)
        except KernelError as error:
            if error.errno == ENODEV:
                return None
            raise
        _, _, index, flags, _ = _LINK.unpack_from(answers[0])
        return Device(index, bool(flags & IFF_UP))

    def addresses(self, index: int) -> list[Address]:
        """Return the addresses of a device that are worth keeping: permanent and global.

        What the kernel or a router has given it belongs to where it is now.
        """
        found = []
        for body in self.ask(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, its = _ADDRESS.unpack_from(body)
            held = dict(attributes(body, _ADDRESS.size))
            if IFA_FLAGS in held:
                (flags,) = UINT.unpack(held[IFA_FLAGS])
            if its == index and flags & IFA_F_PERMANENT and scope == RT_SCOPE_UNIVERSE:
                kept = {kind: held[kind] for kind in KEPT_ATTRIBUTES if kind in held}
                found.append(Address(family, prefix, flags & KEPT_FLAGS, kept))
        return found

    def set_up(self, index: int) -> None:
        """Switch a device on."""
        self.ask(RTM_SETLINK, NLM_F_ACK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP))

    def move(self, index: int, namespace: int, name: str) -> None:
        """Move a device into a namespace (a descriptor) and rename it, in one step.

        The kernel switches it off on the way; one that it will not move it leaves alone.
        """
        body = _LINK.pack(0, 0, index, 0, 0)
        body += attribute(IFLA_NET_NS_FD, UINT.pack(namespace))
        body += attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        self.ask(RTM_NEWLINK, NLM_F_ACK, body)

    def add(self, index: int, address: Address) -> None:
        """Give a device an address; one that it has already is fine."""
        from errno import EEXIST

        body = _ADDRESS.pack(address.family, address.prefix, 0, RT_SCOPE_UNIVERSE, index)
        for kind, data in address.attributes.items():
            body += attribute(kind, data)
        body += attribute(IFA_FLAGS, UINT.pack(address.flags))
        try:
            self.ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body)
        except KernelError as error:
            if error.errno != EEXIST:
                raise
