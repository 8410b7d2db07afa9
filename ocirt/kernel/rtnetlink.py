"""Ask the kernel about network devices and change them, over a route netlink socket.

A socket works in the network namespace that it was made in, wherever its user is.  Only what
moving a device needs is here: one request at a time, its answer, and the words of its refusal.

netlink(7), rtnetlink(7); linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
"""

from __future__ import annotations

import os
from _socket import SOCK_CLOEXEC, SOCK_RAW, socket
from _struct import Struct

from ocirt.errors import Error, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

AF_NETLINK, NETLINK_ROUTE = 16, 0
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 1, 4, 0x10, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_ACK_TLVS = 0x200, 0x400, 0x200
NLMSG_ERROR, NLMSG_DONE, NLMSGERR_ATTR_MSG = 2, 3, 1
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

_HEAD = Struct("=IHHII")  # length, type, flags, sequence number, port
_LINK = Struct("=BxHiII")  # family, type of device, index, flags, mask of the flags to change
_ADDRESS = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ATTRIBUTE = Struct("=HH")  # length, type
_UINT = Struct("=I")
_INT = Struct("=i")

MOST_TRIES = 10  # at a list that others keep changing while it is read


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


class Route:
    """A route netlink socket; `fd`: one that was made elsewhere, otherwise it is made here."""

    def __init__(self, fd: int = -1) -> None:
        if fd < 0:
            self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
        else:
            self._socket = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, fd)
        self._sequence = 0
        # The kernel then says in words why it refuses, and does not repeat the question.
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def close(self) -> None:
        """Let go of the namespace: it lives as long as a socket in it."""
        self._socket.close()

    def find(self, name: str) -> Device | None:
        """Return the device of that name, or None."""
        from errno import ENODEV

        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        try:
            answers = self._ask(RTM_GETLINK, 0, body)
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
        for body in self._ask(RTM_GETADDR, NLM_F_DUMP, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, prefix, flags, scope, its = _ADDRESS.unpack_from(body)
            held = dict(attributes(body, _ADDRESS.size))
            if IFA_FLAGS in held:
                (flags,) = _UINT.unpack(held[IFA_FLAGS])
            if its == index and flags & IFA_F_PERMANENT and scope == RT_SCOPE_UNIVERSE:
                kept = {kind: held[kind] for kind in KEPT_ATTRIBUTES if kind in held}
                found.append(Address(family, prefix, flags & KEPT_FLAGS, kept))
        return found

    def set_up(self, index: int) -> None:
        """Switch a device on."""
        self._ask(RTM_SETLINK, NLM_F_ACK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP))

    def move(self, index: int, namespace: int, name: str) -> None:
        """Move a device into a namespace (a descriptor) and rename it, in one step.

        The kernel switches it off on the way; one that it will not move it leaves alone.
        """
        body = _LINK.pack(0, 0, index, 0, 0)
        body += attribute(IFLA_NET_NS_FD, _UINT.pack(namespace))
        body += attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
        self._ask(RTM_NEWLINK, NLM_F_ACK, body)

    def add(self, index: int, address: Address) -> None:
        """Give a device an address; one that it has already is fine."""
        from errno import EEXIST

        body = _ADDRESS.pack(address.family, address.prefix, 0, RT_SCOPE_UNIVERSE, index)
        for kind, data in address.attributes.items():
            body += attribute(kind, data)
        body += attribute(IFA_FLAGS, _UINT.pack(address.flags))
        try:
            self._ask(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body)
        except KernelError as error:
            if error.errno != EEXIST:
                raise

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send a request; return the bodies of the answers, or raise KernelError."""
        for _ in range(MOST_TRIES):
            self._sequence += 1
            size = _HEAD.size + len(body)
            head = _HEAD.pack(size, kind, NLM_F_REQUEST | flags, self._sequence, 0)
            self._socket.send(head + body)
            found, whole = self._answers(flags)
            if whole:
                return found
        raise Error("network devices change faster than they can be read")

    def _answers(self, flags: int) -> tuple[list[bytes], bool]:
        found: list[bytes] = []
        whole = True
        while True:
            for kind, noted, sequence, body in messages(self._socket.recv(1 << 17)):
                if sequence != self._sequence:
                    continue
                whole = whole and not noted & NLM_F_DUMP_INTR
                if kind == NLMSG_ERROR:
                    (number,) = _INT.unpack_from(body)
                    if number:
                        raise KernelError(-number, *refusal(body, noted))
                elif kind != NLMSG_DONE:
                    found.append(body)
                if kind in (NLMSG_ERROR, NLMSG_DONE) or not flags & (NLM_F_DUMP | NLM_F_ACK):
                    return found, whole


def refusal(body: bytes, flags: int) -> list[str]:
    """Return what the kernel says beside an errno, in at most one segment."""
    if not flags & NLM_F_ACK_TLVS:
        return []
    said = dict(attributes(body, _INT.size + _HEAD.size)).get(NLMSGERR_ATTR_MSG, b"")
    text = said.rstrip(b"\0").decode("utf-8", "replace")
    return [text] if text else []


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, sequence number, body) of each message in what was received."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, kind, flags, sequence, _ = _HEAD.unpack_from(data, at)
        if size < _HEAD.size:
            return
        yield kind, flags, sequence, data[at + _HEAD.size : at + size]
        at += size + -size % 4


def attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of each attribute behind a message's fixed part."""
    while at + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, body[at + _ATTRIBUTE.size : at + size]
        at += size + -size % 4


def attribute(kind: int, value: bytes) -> bytes:
    """Write one attribute down."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)
