"""What answers over RDMA netlink mean; tests/integration/test_rdma.py asks a kernel."""

from __future__ import annotations

import errno

import pytest

from ocirt.errors import KernelError
from ocirt.kernel import netlink
from ocirt.kernel.rdmanetlink import Rdma


class Answered(Rdma):
    """A socket without a kernel: `answer` is what comes back, or is raised."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def ask(self, kind, flags, body):
        self.asked.append((kind, flags, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def mode(value):
    return [netlink.attribute(66, bytes([value]))]


def test_the_mode_of_namespaces():
    assert Answered(mode(0)).exclusive()
    assert not Answered(mode(1)).exclusive()
    assert not Answered([b""]).exclusive()


def test_a_kernel_that_knows_no_modes_shares():
    assert not Answered(KernelError(errno.EINVAL)).exclusive()
    with pytest.raises(KernelError):
        Answered(KernelError(errno.EPERM)).exclusive()


def test_devices_by_name():
    bodies = [
        netlink.attribute(1, netlink.UINT.pack(number)) + netlink.attribute(2, name + b"\0")
        for number, name in ((0, b"mlx5_0"), (7, b"rocep65s0"))
    ]
    assert Answered(bodies).devices() == {"mlx5_0": 0, "rocep65s0": 7}


def test_a_move_names_device_and_namespace():
    socket = Answered([])
    socket.move(7, 5)
    ((kind, flags, body),) = socket.asked
    assert (kind, flags) == (5 << 10 | 2, netlink.NLM_F_ACK)
    assert dict(netlink.attributes(body, 0)) == {1: b"\7\0\0\0", 68: b"\5\0\0\0"}
