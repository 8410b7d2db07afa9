"""The loader's cache: read and written as glibc's own ldconfig does, and no byte trusted."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ocirt_hpc import elf, ldcache
from ocirt_hpc.ldcache import Entry

from ocirt.errors import ConfigError

HOST = "/etc/ld.so.cache"
LDCONFIG = shutil.which("ldconfig") or shutil.which("ldconfig", path="/sbin:/usr/sbin")

host = pytest.mark.skipif(
    not os.path.exists(HOST) or LDCONFIG is None, reason="needs glibc's cache and ldconfig"
)


def fields(entries):
    return [(one.name, one.path, one.flags, one.hwcap, one.hwcaps) for one in entries]


def listing(path):
    """Return the libraries that ldconfig finds in a cache, in its order."""
    text = subprocess.run(
        [LDCONFIG, "-p", "-C", path], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    return [line for line in text.splitlines() if line.startswith("\t")]


@host
def test_the_hosts_cache_is_read_and_written_as_it_is(tmp_path):
    with open(HOST, "rb") as file:
        entries = ldcache.parse(file.read())
    again = ldcache.merge([], entries)
    assert fields(again) == fields(entries)  # in ldconfig's order already
    copy = tmp_path / "cache"
    copy.write_bytes(ldcache.build(again))
    assert listing(copy) == listing(HOST)


@host
def test_ldconfig_finds_what_is_added_instead_of_what_was_there(tmp_path):
    ours = [
        Entry("libcuda.so.1", "/run/driver/libcuda.so.1", 0x303),
        Entry("libc.so.6", "/run/driver/libc.so.6", 0x303),
    ]
    with open(HOST, "rb") as file:
        merged = ldcache.merge(ours, ldcache.parse(file.read()))
    path = tmp_path / "cache"
    path.write_bytes(ldcache.build(merged))
    lines = listing(path)
    for name in ("libcuda.so.1", "libc.so.6"):
        found = [one for one in lines if one.startswith(f"\t{name} (libc6,x86-64")]
        assert [one.rpartition(" ")[2] for one in found] == [f"/run/driver/{name}"]


@host
def test_ldconfig_makes_entries_as_we_do_with_hwcaps_and_old_format(tmp_path):
    """A tree with glibc-hwcaps, and the format of ldconfig before glibc 2.32."""
    with open(HOST, "rb") as file:
        libc = next(one for one in ldcache.parse(file.read()) if one.name == "libc.so.6")
    lib = tmp_path / "lib"
    best = lib / "glibc-hwcaps" / "x86-64-v3"
    best.mkdir(parents=True)
    for folder in (lib, best):
        shutil.copy(libc.path, folder / "libc.so.6")
    (tmp_path / "conf").write_text(f"{lib}\n")
    for form in ("new", "compat"):
        cache = tmp_path / form
        subprocess.run(
            [LDCONFIG, "-X", "-c", form, "-C", cache, "-f", tmp_path / "conf"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        entries = ldcache.parse(cache.read_bytes())
        named = [one.hwcaps for one in entries if one.path.startswith(str(lib))]
        assert named == ["x86-64-v3", ""]
        again = tmp_path / f"{form}.again"
        again.write_bytes(ldcache.build(ldcache.merge([], entries)))
        # ldconfig prints other words for its own hwcaps in a file of both formats.
        assert listing(again) == listing(tmp_path / "new")


@host
def test_an_entry_says_of_a_library_what_ldconfig_says():
    with open(HOST, "rb") as file:
        entries = [one for one in ldcache.parse(file.read()) if os.path.exists(one.path)]
    seen = 0
    for one in entries[:100]:
        with open(one.path, "rb") as file:
            made = ldcache.entry(elf.read(file.fileno()), one.path)
        if made is not None and made.name == one.name:
            assert made.flags == one.flags
            seen += 1
    assert seen > 10


def test_numbers_in_names_count_as_numbers():
    names = ["liba.so.2", "liba.so.10", "liba.so", "libA.so", "liba1.so", "libab.so"]
    entries = [Entry(name, f"/{name}", 0x303) for name in names]
    assert [one.name for one in ldcache.merge(entries, [])] == [
        "liba1.so",
        "libab.so",
        "liba.so.10",
        "liba.so.2",
        "liba.so",
        "libA.so",
    ]


text = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20
)
entries = st.lists(
    st.builds(
        Entry,
        text,
        text.map("/".__add__),
        st.sampled_from([0x3, 0x303, 0xA03]),
        st.integers(0, (1 << 62) - 1),
    )
    | st.builds(Entry, text, text, st.just(0x303), st.just(0), text),
    max_size=8,
)


@settings(deadline=None, max_examples=50)
@given(entries)
def test_what_is_built_is_read_again(some):
    assert fields(ldcache.parse(ldcache.build(some))) == fields(some)


@settings(deadline=None, max_examples=50)
@given(entries, entries)
def test_of_two_for_one_name_the_first_list_wins(first, then):
    taken = {(one.name, one.flags) for one in first}
    kept = [one for one in then if (one.name, one.flags) not in taken]
    assert sorted(map(id, ldcache.merge(first, then))) == sorted(map(id, first + kept))


@settings(deadline=None, max_examples=150)
@given(st.data(), entries)
def test_broken_caches_are_refused_in_words(data, some):
    whole = bytearray(ldcache.build(some))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        ldcache.parse(cut)
    except ConfigError as error:
        assert "loader cache" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a loader cache"),
        (b"#!/bin/sh\n", "not a loader cache"),
        (ldcache.MAGIC, "cut short"),
        (ldcache.HEADER.pack(ldcache.MAGIC, 1 << 30, 0, 0, 0), "cut short"),
        (ldcache.HEADER.pack(ldcache.MAGIC, 0, 0, 5 - ldcache.ENDIANNESS, 0), "byte order"),
        (bytes(ldcache.LARGEST + 1), "more than"),
    ],
)
def test_what_is_no_cache_is_refused(data, words):
    with pytest.raises(ConfigError, match=words):
        ldcache.parse(data)
