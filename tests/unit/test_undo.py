"""What is taken back, and in which order."""

from __future__ import annotations

import os

import pytest

from ocirt.undo import Undo, close_all


def test_descriptors_are_closed_once():
    """A number that was closed may be somebody else's by the second time."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    given = list(fds)
    close_all(fds)
    assert fds == []
    for fd in given:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    close_all(fds)


def test_steps_are_undone_newest_first_and_a_failure_stops_none():
    seen = []
    undo = Undo()
    undo.add(seen.append, "first")
    undo.add(os.rmdir, "/proc/no such directory")
    undo.add(seen.append, "last")
    failures = undo.run()
    assert seen == ["last", "first"]
    assert [type(failure) for failure in failures] == [FileNotFoundError]
    assert undo.run() == []
    assert seen == ["last", "first"]
