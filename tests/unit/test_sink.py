"""Writing to who may not read."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
from errno import ENOSPC, EPIPE

import pytest

from ocirt.sink import Sink, same


def read_all(fd):
    os.set_blocking(fd, False)
    found = b""
    while True:
        try:
            found += os.read(fd, 1 << 16)
        except BlockingIOError:
            return found


@pytest.fixture
def pipe():
    ours, theirs = os.pipe()
    yield ours, theirs
    for fd in (ours, theirs):
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def sockets():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours.fileno(), theirs.fileno()


@pytest.mark.parametrize("kind", ["pipe", "terminal", "sockets"])
def test_what_there_is_no_room_for_is_kept_and_written_later(kind, request):
    reader, writer = request.getfixturevalue(kind)
    sink = Sink(writer)
    text = b"".join(b"line %d\n" % number for number in range(100_000))
    sink.put(text)  # it does not wait
    assert 0 < len(sink) < len(text)
    found = b""
    while len(sink):
        found += read_all(reader)
        sink.write()
    found += read_all(reader)
    assert found.replace(b"\r\n", b"\n") == text
    # A shell has the same description, and does not expect this.
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK
    sink.close()


def test_a_pipe_of_somebody_else_is_written_with_care(pipe, monkeypatch):
    def refuse(*args):
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    sink = Sink(pipe[1])
    monkeypatch.undo()
    assert sink.fd == pipe[1]
    sink.put(b"x" * 300_000)
    assert len(sink) == 300_000 - 65536
    assert len(read_all(pipe[0])) == 65536


def test_a_reader_that_has_gone_is_told_by_the_error(pipe):
    sink = Sink(pipe[1])
    os.close(pipe[0])
    sink.put(b"x")
    assert (sink.error, len(sink)) == (EPIPE, 0)
    sink.put(b"more")
    assert len(sink) == 0


def test_a_full_disk_is_told_by_the_error():
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = Sink(fd)
    sink.put(b"x")
    assert sink.error == ENOSPC
    os.close(fd)


def test_a_descriptor_that_is_closed_is_told_by_the_error(pipe):
    os.close(pipe[1])
    sink = Sink(pipe[1])
    sink.put(b"x")
    assert sink.error


def test_a_file_is_written_where_others_write(tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        file.write(b"before\n")
        file.flush()
        Sink(file.fileno()).put(b"after\n")
        file.seek(0)
        assert file.read() == b"before\nafter\n"


def test_two_names_of_one_pipe(pipe):
    other = os.dup(pipe[1])
    assert same(pipe[1], other)
    assert not same(pipe[1], 0)
    os.close(other)
    assert not same(other, other)
