"""Ask the kernel over a netlink socket: one request at a time, its answer, its words of refusal.

A socket works in the network namespace that it was made in, wherever its user is.

netlink(7); linux/netlink.h
"""

from __future__ import annotations

from _socket import SOCK_CLOEXEC, SOCK_RAW, socket
from _struct import Struct

from ocirt.errors import Error, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

AF_NETLINK = 16
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 1, 4, 0x10, 0x300
NLM_F_ACK_TLVS = 0x200
NLMSG_ERROR, NLMSG_DONE, NLMSGERR_ATTR_MSG = 2, 3, 1

_HEAD = Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = Struct("=HH")  # length, type
UINT = Struct("=I")
_INT = Struct("=i")

MOST_TRIES = 10  # at a list that others keep changing while it is read


class Netlink:
    """A netlink socket of PROTOCOL; `fd`: one that was made elsewhere, else it is made here."""

    PROTOCOL = 0

    def __init__(self, fd: int = -1) -> None:
        if fd < 0:
            self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, self.PROTOCOL)
        else:
            self._socket = socket(AF_NETLINK, SOCK_RAW, self.PROTOCOL, fd)
        self._sequence = 0
        # The kernel then says in words why it refuses, and does not repeat the question.
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def close(self) -> None:
        """Let go of the namespace: it lives as long as a socket in it."""
        self._socket.close()

    def ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send a request; return the bodies of the answers, or raise KernelError."""
        for _ in range(MOST_TRIES):
            self._sequence += 1
            size = _HEAD.size + len(body)
            head = _HEAD.pack(size, kind, NLM_F_REQUEST | flags, self._sequence, 0)
            self._socket.send(head + body)
            found, whole = self._answers(flags)
            if whole:
                return found
        raise Error("the kernel's list changes faster than it can be read")

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
