"""The runtime's side of the conversation with an init, which may speak before stage 0 has."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest

from ocirt.errors import Error
from ocirt.launch import Init
from ocirt.plan import ops
from ocirt.plan.ops import Op

PLAN = [Op("clone", (0, "cgroup"), "linux.namespaces"), Op("ask", (ops.ASK_READY,), "ready")]


def reply(kind, index=0, value=0, text=b""):
    return struct.pack("=IIiI", kind, index, value, len(text)) + text


@pytest.fixture
def conversation():
    """Return a function that starts a stage 0 which says something, waits, and dies of a signal."""
    inits = []

    def start(*words, ends=True):
        init = Init(PLAN, {})
        inits.append(init)
        ours, theirs = socket.socketpair()
        init._socket = ours
        init._stage0 = os.fork()
        if not init._stage0:
            theirs.sendall(b"".join(words))
            if not ends:
                signal.pause()
            os._exit(0)
        theirs.close()
        return init

    yield start
    for init in inits:
        init.kill()


@pytest.fixture
def child():
    """Return the pid of a process that waits to be killed."""
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_what_a_child_says_before_its_pid_is_told_is_not_lost(conversation, child):
    asks = reply(ops.ASK, 1, ops.ASK_READY)
    init = conversation(asks, reply(ops.CLONED, 0, child), reply(ops.DONE))
    asked = []
    assert init.cloned() == child
    assert init.converse({ops.ASK_READY: asked.append}) is True
    assert asked == [1]


def test_a_child_that_fails_before_its_pid_is_told_is_known_by_its_op(conversation, child):
    init = conversation(reply(ops.FAIL, 1, 13), reply(ops.CLONED, 0, child))
    assert init.cloned() == child
    with pytest.raises(Error, match="ready: permission denied"):
        init.converse({})


def test_a_stage_0_that_fails_has_no_child(conversation):
    with pytest.raises(Error, match="namespaces: permission denied"):
        conversation(reply(ops.FAIL, 0, 13)).cloned()


@pytest.mark.parametrize("before", [b"", reply(ops.ASK, 1, ops.ASK_READY)], ids=["at once", "late"])
def test_who_is_killed_takes_along_the_child_that_nobody_has_heard_of(conversation, child, before):
    init = conversation(before + reply(ops.CLONED, 0, child), ends=False)
    while not init._socket.recv(1, socket.MSG_PEEK):
        pass
    init.kill()
    with pytest.raises(ChildProcessError):
        os.waitpid(child, 0)
    assert init.pid == init.stage0 == 0


def test_who_is_killed_before_there_was_a_child_is_just_gone(conversation):
    init = conversation(ends=False)
    init.kill()
    assert init.pid == init.stage0 == 0
