"""Ask the kernel about RDMA devices and move them between network namespaces, as rdma(8) does.

linux/rdma_netlink.h; rdma-system(8), rdma-dev(8)
"""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP

from ocirt import system as os
from ocirt.errors import KernelError
from ocirt.kernel.netlink import NLM_F_ACK, NLM_F_DUMP, UINT, Netlink, attribute, attributes

CLIENT = 5 << 10  # RDMA_NL_NLDEV, in the type of a message
GET, SET, SYS_GET = 1, 2, 6
DEV_INDEX, DEV_NAME, NETNS_MODE, NET_NS_FD = 1, 2, 66, 68
SHARED = 1


class Rdma(Netlink):
    """An RDMA netlink socket."""

    PROTOCOL = 20  # NETLINK_RDMA

    def exclusive(self) -> bool:
        """Whether a device belongs to one network namespace alone; before Linux 5.2 none does."""
        try:
            answers = self.ask(CLIENT | SYS_GET, 0, b"")
        except KernelError as error:
            if error.errno in (EINVAL, EOPNOTSUPP):
                return False
            raise
        mode = dict(attributes(answers[0], 0)).get(NETNS_MODE)
        return mode is not None and mode[0] != SHARED

    def devices(self) -> dict[str, int]:
        """Return name -> index of the devices in this namespace."""
        found = {}
        for body in self.ask(CLIENT | GET, NLM_F_DUMP, b""):
            held = dict(attributes(body, 0))
            found[os.fsdecode(held[DEV_NAME].rstrip(b"\0"))] = UINT.unpack(held[DEV_INDEX])[0]
        return found

    def move(self, index: int, namespace: int) -> None:
        """Move a device into a network namespace (a descriptor)."""
        body = attribute(DEV_INDEX, UINT.pack(index)) + attribute(NET_NS_FD, UINT.pack(namespace))
        self.ask(CLIENT | SET, NLM_F_ACK, body)
