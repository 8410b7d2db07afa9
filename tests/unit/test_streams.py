"""Lines of many ranks in one output."""

from __future__ import annotations

import contextlib
import os
import select

import pytest

from ocirt.errors import KernelError
from ocirt.sink import FULL
from ocirt.streams import LONGEST, Source, Streams


@pytest.mark.parametrize(
    ("pieces", "passed"),
    [
        ([b"one\n", b""], [b"[3] one\n", b""]),
        ([b"o", b"ne\ntw", b"o\n", b""], [b"", b"[3] one\n", b"[3] two\n", b""]),
        ([b"end", b""], [b"", b"[3] end\n"]),
        ([b"a\n\nb\n"], [b"[3] a\n[3] \n[3] b\n"]),
        ([b"1%\r2%\r", b"3%\r", b""], [b"[3] 1%\r", b"[3] 2%\r", b"[3] 3%\r"]),
        ([b"dos\r", b"\nnext\n"], [b"", b"[3] dos\r\n[3] next\n"]),
        ([b"\xff\x00\n"], [b"[3] \xff\x00\n"]),
        ([b"a\x0bb\x0cc\x1cd\xe2\x80\xa8e\n"], [b"[3] a\x0bb\x0cc\x1cd\xe2\x80\xa8e\n"]),
    ],
)
def test_lines_come_whole_and_labelled(pieces, passed):
    source = Source(0, b"[3] ", 1)
    assert [source.lines(piece) for piece in pieces] == passed


def test_a_line_without_end_is_broken():
    source = Source(0, b"[3] ", 1)
    found = source.lines(b"x" * LONGEST)
    assert found == b"[3] " + b"x" * LONGEST + b"\n"
    assert source.lines(b"") == b""


@pytest.fixture
def kept():
    """Close what a test has opened."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for name in set(os.listdir("/proc/self/fd")) - before:
        try:
            os.close(int(name))
        except OSError:
            pass


def test_one_rank_reads_our_input_and_the_others_nothing(kept):
    streams = Streams(stdin=1, raw=True)
    assert streams.open(1) == (0, 1, 2)
    null, out, err = streams.open(0)
    assert (out, err) == (1, 2)
    assert os.readlink(f"/proc/self/fd/{null}") == "/dev/null"
    assert streams.open(2)[0] == null


def test_what_is_left_is_passed_on_though_somebody_holds_the_pipe(kept, capfd):
    streams = Streams()
    _, out, err = streams.open(7)
    os.write(out, b"half")
    os.write(err, b"whole\nand more")
    streams.drain()
    assert streams.sources == {}
    assert streams.flush(None)
    assert tuple(capfd.readouterr()) == ("[7] half\n", "[7] whole\n[7] and more\n")
    with pytest.raises(BrokenPipeError):
        os.write(out, b"x")


def test_a_pipe_ends_when_both_have_closed_it(kept, capfd):
    streams = Streams()
    _, out, _ = streams.open(0)
    (fd, *_) = streams.sources
    os.write(out, b"x\n")
    streams.close(0)
    assert streams.pump(fd) is True
    assert streams.pump(fd) is False
    assert fd not in streams.sources
    assert streams.flush(None)
    assert capfd.readouterr().out == "[0] x\n"


@contextlib.contextmanager
def stalled():
    """Have nobody read our output, until a test does; pytest takes it back between fixtures."""
    ours, theirs = os.pipe()
    before = os.dup(1)
    os.dup2(theirs, 1)
    os.close(theirs)
    try:
        yield ours
    finally:
        os.dup2(before, 1)


def test_ranks_wait_for_who_does_not_read_and_we_do_not(kept):
    streams = Streams()
    with stalled() as reader:
        _, out, _ = streams.open(0)
        os.set_blocking(out, False)
        poll = select.poll()
        streams.watch(poll)
        sent = 0

        def step():
            for fd, _ in poll.poll(0):
                streams.hear(fd)

        line = b"x" * 1023 + b"\n"
        for _ in range(8000):
            try:
                sent += os.write(out, line)
            except BlockingIOError:
                before = sent
                step()
        # Two pipes, and what we keep: then the rank has to wait.
        assert FULL < before < FULL + (1 << 20)
        assert poll.poll(0) == []
        found = 0
        os.set_blocking(reader, False)
        while found < sent // 1024 * 1028:
            step()
            try:
                found += len(os.read(reader, 1 << 16))
            except BlockingIOError:
                assert poll.poll(0), "nobody goes on"
        streams.close(0)
        step()
        assert streams.flush(0)


def test_output_that_nobody_reads_in_time_is_lost(kept):
    streams = Streams()
    with stalled():
        _, out, _ = streams.open(0)
        fd = next(iter(streams.sources))
        for _ in range(100):
            os.write(out, b"x\n" * 10_000)
            streams.pump(fd)
        streams.drain()
        assert streams.flush(0.05) is False


def test_files_are_made_with_their_directories(kept, tmp_path):
    names = [f"{tmp_path}/a/b/{rank}" for rank in range(2)]
    streams = Streams(output=names)
    _, out, err = streams.open(1)
    assert out == err
    os.write(out, b"x")
    streams.close(1)
    assert (tmp_path / "a/b/1").read_bytes() == b"x"
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelError, match=r"^--output: .*file"):
        Streams(output=[f"{tmp_path}/file/x"]).open(0)
