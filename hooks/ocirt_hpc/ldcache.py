"""Read and write the cache in which glibc's loader looks for libraries: /etc/ld.so.cache.

The stage adds the driver's libraries to an image's cache and lays the result over the image's
file.  No ldconfig runs, neither the image's nor the host's, and nothing of the image is written.

The file is a header, entries sorted for the loader's binary search, their strings, and since
glibc 2.33 an extension that names the sub-directories of glibc-hwcaps.  An old-format block may
come first; only loaders of glibc 2.1 and earlier need it, so it is skipped and never written.

Source: glibc, sysdeps/generic/dl-cache.h (the format), elf/cache.c (the order of entries),
elf/dl-cache.c (the search, and `_dl_cache_libcmp`).
"""

from __future__ import annotations

import sys
from _struct import Struct
from _struct import error as struct_error  # type: ignore[attr-defined]

from ocirt.errors import ConfigError
from ocirt_hpc import elf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

OLD_MAGIC, MAGIC = b"ld.so-1.7.0", b"glibc-ld.so.cache1.1"
OLD_HEADER, OLD_ENTRY = Struct("=11sxI"), 12
HEADER = Struct("=20s2IB3xI12x")
ENTRY = Struct("=i3IQ")
EXTENSION_MAGIC = 0xEAA42174
EXTENSION_HEADER, SECTION = Struct("=2I"), Struct("=4I")
TAG_HWCAPS = 1
ENDIANNESS = 2 if sys.byteorder == "little" else 3

HWCAP_EXTENSION = 1 << 62  # in an entry's hwcap: the low 32 bits are an index of the names

LARGEST = 16 << 20  # bytes; a host with 10,000 libraries has 1 MiB
MOST_ENTRIES = 1 << 17

# Which libraries an entry is for: sysdeps/*/ldconfig.h.  0x3 is libc6, the rest the ABI.
FLAGS = {
    # (machine, bits)       flags
    (elf.X86, 32):          0x0003,
    (elf.X86_64, 64):       0x0303,
    (elf.X86_64, 32):       0x0803,
    (elf.S390, 64):         0x0403,
    (elf.PPC64, 64):        0x0503,
    (elf.AARCH64, 64):      0x0A03,
    (elf.RISCV, 64):        0x1003,
}  # fmt: skip
ARM_HARD_FLOAT, ARM_SOFT_FLOAT = 0x0903, 0x0B03
EF_ARM_HARD_FLOAT = 0x400


class Entry:
    """One library of a cache: the name that programs ask for, where it is, and for whom.

    flags: of FLAGS.  hwcap: 0, or the bits of old loaders.  hwcaps: name of a sub-directory of
    glibc-hwcaps, or "".
    """

    __slots__ = ("flags", "hwcap", "hwcaps", "name", "path")

    def __init__(self, name: str, path: str, flags: int, hwcap: int = 0, hwcaps: str = "") -> None:
        self.name = name
        self.path = path
        self.flags = flags
        self.hwcap = hwcap
        self.hwcaps = hwcaps


def entry(library: elf.Library, path: str) -> Entry | None:
    """Return the entry of a library at a path; None without a soname, or for other machines."""
    flags = FLAGS.get((library.machine, library.bits))
    if library.machine == elf.ARM:
        flags = ARM_HARD_FLOAT if library.flags & EF_ARM_HARD_FLOAT else ARM_SOFT_FLOAT
    if flags is None or not library.soname:
        return None
    return Entry(library.soname, path, flags)


# --- reading


def parse(data: bytes) -> list[Entry]:
    """Return the entries of a cache in their order; ConfigError when it is none."""
    if len(data) > LARGEST:
        raise ConfigError(f"more than {LARGEST >> 20} MiB of loader cache")
    try:
        return _parse(memoryview(data))
    except (struct_error, IndexError):
        raise ConfigError("a loader cache cut short") from None


def _parse(file: memoryview) -> list[Entry]:
    data = file
    if file[: len(OLD_MAGIC)] == OLD_MAGIC:
        count = OLD_HEADER.unpack_from(file)[1]
        data = file[(OLD_HEADER.size + count * OLD_ENTRY + 7) // 8 * 8 :]
    if data[: len(MAGIC)] != MAGIC:
        raise ConfigError("not a loader cache")
    _, count, length, order, extension = HEADER.unpack_from(data)
    if order not in (0, ENDIANNESS):
        raise ConfigError("a loader cache of a machine with another byte order")
    end = HEADER.size + count * ENTRY.size
    if count > MOST_ENTRIES or end + length > len(data):
        raise ConfigError("a loader cache cut short")
    # The extension lies where the file says, all names where the new header does.
    names = [_text(data, word) for word in _hwcaps(file, extension)]
    found = []
    for flags, key, value, _, hwcap in ENTRY.iter_unpack(data[HEADER.size : end]):
        hwcaps = ""
        if hwcap & HWCAP_EXTENSION:
            hwcaps, hwcap = names[hwcap & 0xFFFFFFFF], 0
        found.append(Entry(_text(data, key), _text(data, value), flags, hwcap, hwcaps))
    return found


def _hwcaps(file: memoryview, extension: int) -> tuple[int, ...]:
    """Return where the extension says that the names of sub-directories are."""
    if not extension:
        return ()
    magic, count = EXTENSION_HEADER.unpack_from(file, extension)
    if magic != EXTENSION_MAGIC:
        return ()
    for index in range(min(count, 64)):
        at = extension + EXTENSION_HEADER.size + index * SECTION.size
        tag, _, offset, size = SECTION.unpack_from(file, at)
        if tag == TAG_HWCAPS:
            return Struct(f"={min(size // 4, 4096)}I").unpack_from(file, offset)
    return ()


def _text(data: memoryview, at: int) -> str:
    # A path is no longer than PATH_MAX.
    text, end, _ = bytes(data[at : at + 4097]).partition(b"\0")
    if not end:
        raise ConfigError("a loader cache with a name outside of it")
    return text.decode("utf-8", "surrogateescape")


# --- writing


def merge(first: Iterable[Entry], then: Iterable[Entry]) -> list[Entry]:
    """Return both in the loader's order; of two for the same name and ABI it takes `first`'s.

    Names below glibc-hwcaps, which the loader would prefer, give way as well.
    """
    first = list(first)
    taken = {(one.name, one.flags) for one in first}
    return sorted(first + [one for one in then if (one.name, one.flags) not in taken], key=_order)


def _order(one: Entry) -> tuple[object, ...]:
    # Names and ABIs descend; hwcaps come before plain entries, old bits descend.
    parts = [(-kind, -value) for kind, value in _parts(one.name)]
    return (*parts, (1, 0)), -one.flags, not one.hwcaps, one.hwcaps, -one.hwcap


def _parts(name: str) -> list[tuple[int, int]]:
    """Return a name as `_dl_cache_libcmp` compares it: numbers as numbers, above letters."""
    data = name.encode("utf-8", "surrogateescape")
    parts, at = [], 0
    while at < len(data):
        end = at
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        if end > at:
            parts.append((1, int(data[at:end])))
            at = end
        else:
            # `char` is signed where most of this runs.
            parts.append((0, data[at] - 256 if data[at] > 127 else data[at]))
            at += 1
    return parts


def build(entries: Iterable[Entry]) -> bytes:
    """Return the file that holds these entries, which `merge` has put in order."""
    entries = list(entries)
    names = sorted({one.hwcaps for one in entries} - {""})
    strings = bytearray()
    places: dict[str, int] = {}
    base = HEADER.size + len(entries) * ENTRY.size

    def place(text: str) -> int:
        if text not in places:
            places[text] = base + len(strings)
            strings.extend(text.encode("utf-8", "surrogateescape") + b"\0")
        return places[text]

    body = b"".join(
        ENTRY.pack(
            one.flags,
            place(one.name),
            place(one.path),
            0,
            HWCAP_EXTENSION | names.index(one.hwcaps) if one.hwcaps else one.hwcap,
        )
        for one in entries
    )
    words = Struct(f"={len(names)}I").pack(*map(place, names))
    length = len(strings)
    extension, tail = 0, b""
    if names:
        strings += bytes(-(base + length) % 4)
        extension = base + len(strings)
        at = extension + EXTENSION_HEADER.size + SECTION.size
        tail = EXTENSION_HEADER.pack(EXTENSION_MAGIC, 1)
        tail += SECTION.pack(TAG_HWCAPS, 0, at, len(words)) + words
    head = HEADER.pack(MAGIC, len(entries), length, ENDIANNESS, extension)
    return head + body + bytes(strings) + tail
