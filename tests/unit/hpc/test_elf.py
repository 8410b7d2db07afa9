"""What a library says of itself, and files that lie."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ocirt_hpc import elf

from ocirt.errors import ConfigError

GCC = shutil.which("gcc")
SOURCE = """
__attribute__((section(".note.test"), aligned(4))) const struct {
  unsigned owner, size, type; char name[8]; char text[8];
} note = {6, 5, 1, "ocirt", "{ 42}"};
"""

needs_gcc = pytest.mark.skipif(GCC is None, reason="needs gcc")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elf")
    (folder / "lib.c").write_text(SOURCE)
    path = folder / "libdemo.so.1.2.3"
    subprocess.run(
        [GCC, "-shared", "-Wl,-soname,libdemo.so.1", "-Wl,--no-as-needed", "-o", path,
         folder / "lib.c", "-lm"],
        check=True, timeout=60,
    )  # fmt: skip
    return path


def read(path):
    with open(path, "rb") as file:
        return elf.read(file.fileno())


@needs_gcc
def test_soname_needs_and_machine(library):
    found = read(library)
    assert found.soname == "libdemo.so.1"
    assert found.needed == ["libm.so.6", "libc.so.6"]
    assert found.bits in (32, 64)


@needs_gcc
def test_a_note_is_read_by_its_section(library):
    with open(library, "rb") as file:
        assert elf.note(file.fileno(), ".note.test") == ("ocirt", b"{ 42}")
        assert elf.note(file.fileno(), ".note.absent") is None


def test_what_is_no_elf_file_is_refused(tmp_path):
    path = tmp_path / "text"
    path.write_text("GROUP ( /lib/libc.so.6 )\n")
    with pytest.raises(ConfigError, match="not an ELF file"):
        read(path)


@needs_gcc
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_broken_files_are_refused_in_words(library, tmp_path, data):
    whole = bytearray(library.read_bytes())
    for _ in range(data.draw(st.integers(0, 6))):
        # The headers are where damage tells.
        at = data.draw(st.integers(0, min(len(whole), 1024) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "broken"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    fd = os.open(path, os.O_RDONLY)
    try:
        for look in (elf.read, lambda fd: elf.note(fd, ".note.test")):
            try:
                look(fd)
            except ConfigError as error:
                words = str(error)
                assert "ELF" in words or "cut short" in words
    finally:
        os.close(fd)
