"""Looks into a hostile root file system stay inside of it."""

from __future__ import annotations

import os
import threading

import pytest
from ocirt_hpc.image import Image

from ocirt.errors import KernelError


@pytest.fixture
def outside(tmp_path):
    """A secret beside the root, and one at the same path inside."""
    (tmp_path / "secret").write_text("host")
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "secret").write_text("image")
    return root


def read(root, path, most=100):
    with Image(str(root)) as image:
        return image.read(path, most)


def fds():
    return len(os.listdir("/proc/self/fd"))


def test_a_plain_file(outside):
    (outside / "etc" / "file").write_text("text")
    assert read(outside, "/etc/file") == b"text"
    assert read(outside, "etc//./file") == b"text"
    assert read(outside, "/etc/none") is None
    assert read(outside, "/etc/file/x") is None
    assert read(outside, "/etc") is None


@pytest.mark.parametrize(
    "target", ["/secret", "../secret", "../../../../secret", "/../secret", "../etc/../../secret"]
)
def test_links_mean_what_they_mean_in_the_container(outside, target):
    (outside / "etc" / "link").symlink_to(target)
    assert read(outside, "/etc/link") == b"image"


def test_a_link_in_the_middle(outside):
    (outside / "lib").symlink_to("/")
    assert read(outside, "/lib/lib/../../secret") == b"image"


def test_a_loop_is_nothing(outside):
    (outside / "a").symlink_to("b")
    (outside / "b").symlink_to("a")
    (outside / "deep").symlink_to("/".join(["deep"] * 100))
    before = fds()
    assert read(outside, "/a") is None
    assert read(outside, "/deep") is None
    assert fds() == before


def test_what_is_no_regular_file_is_never_opened(outside):
    os.mkfifo(outside / "fifo")
    (outside / "procfd").symlink_to("/proc/self/fd/0")
    assert read(outside, "/fifo") is None
    assert read(outside, "/procfd") is None


def test_a_file_too_large_is_none(outside):
    (outside / "big").write_bytes(bytes(101))
    assert read(outside, "/big") is None
    assert read(outside, "/big", 101) == bytes(101)


def test_names_and_has(outside):
    (outside / "to").symlink_to("/etc")
    (outside / "etc" / "b").write_text("")
    (outside / "etc" / "a").write_text("")
    (outside / "dangling").symlink_to("/nowhere")
    with Image(str(outside)) as image:
        assert image.names("/to") == ["a", "b"]
        assert image.names("/secret") == []
        assert image.has("/to/a")
        assert not image.has("/dangling")


def test_a_root_that_is_none(tmp_path):
    with pytest.raises(KernelError, match=r"root\.path"), Image(str(tmp_path / "none")):
        pass


def test_a_rename_in_the_middle_leads_nowhere_else(outside):
    """Somebody swaps a directory and a link to the host's while we walk."""
    good = outside / "lib"
    good.mkdir()
    (good / "secret").write_text("image")
    bad = outside / "bad"
    bad.symlink_to("../..")
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(good, outside / "spare")
            os.rename(bad, good)
            os.rename(good, bad)
            os.rename(outside / "spare", good)

    racer = threading.Thread(target=swap)
    racer.start()
    before = fds()
    try:
        got = {read(outside, "/lib/secret") for _ in range(2000)}
    finally:
        stop.set()
        racer.join()
    assert got <= {b"image", None}
    assert fds() == before
