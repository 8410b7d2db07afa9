"""Lines of many ranks in one output."""

from __future__ import annotations

import os

import pytest

from ocirt.errors import KernelError
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
    assert capfd.readouterr().out == "[0] x\n"


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
