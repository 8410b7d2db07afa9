"""Read what a shared library says of itself: its soname, what it needs, whose machine it is for.

With `versions` also which versions of symbols it defines, and which it needs of whom, by which a
loader tells libraries that only look alike apart.

Few reads of a descriptor that the caller opened, each bounded: the file may be an image's.

Source: System V Application Binary Interface, "ELF Header", "Program Header", "Dynamic Section";
Linux Standard Base, Core, "Symbol Versioning".
"""

from __future__ import annotations

from _struct import Struct
from _struct import error as struct_error  # type: ignore[attr-defined]

from ocirt import system as os
from ocirt.errors import ConfigError

PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME = 0, 1, 5, 10, 14
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
VER_FLG_WEAK = 2

X86, X86_64, ARM, AARCH64, PPC64, S390, RISCV = 3, 62, 40, 183, 21, 22, 243

# More than any library has; a header that asks for more is hostile.
MOST_SEGMENTS, MOST_SECTIONS = 256, 4096
LARGEST_DYNAMIC, LARGEST_STRINGS, LARGEST_NOTE = 64 << 10, 4 << 20, 64 << 10
LARGEST_VERSIONS, MOST_VERSIONS = 256 << 10, 4096


class Library:
    """A shared library: ELF class in bits, machine as e_machine, soname ("" for none), needed.

    versions: those that it defines.  wants: soname -> versions that it needs of that library.
    """

    def __init__(self, bits: int, machine: int, flags: int) -> None:
        self.bits = bits
        self.machine = machine
        self.flags = flags
        self.soname = ""
        self.needed: list[str] = []
        self.versions: set[str] = set()
        self.wants: dict[str, set[str]] = {}
        self._strings = b""

    def mentions(self, symbol: str) -> bool:
        """Whether a symbol of this name is among those that it offers or needs."""
        return b"\0" + symbol.encode() + b"\0" in self._strings


def read(fd: int, *, versions: bool = False) -> Library:
    """Return what the file is; ConfigError when it is no ELF file, or a broken one.

    versions: read versions and the names of symbols as well.
    """
    file = _File(fd)
    library = Library(file.bits, file.machine, file.flags)
    segments = file.segments()
    for kind, offset, _, size in segments:
        if kind == PT_DYNAMIC:
            _dynamic(file, library, segments, offset, size, versions)
            break
    return library


def note(fd: int, section: str) -> tuple[str, bytes] | None:
    """Return owner and content of the first note in a section; None where there is none."""
    file = _File(fd)
    found = file.section(section.encode())
    if found is None:
        return None
    data = file.part(*found, LARGEST_NOTE)
    word = Struct(file.order + "3I")
    if len(data) < word.size:
        raise ConfigError(f"{section} is cut short")
    owner_size, size, _ = word.unpack_from(data)
    start = word.size + (owner_size + 3) // 4 * 4
    if start + size > len(data):
        raise ConfigError(f"{section} is cut short")
    owner = data[word.size : word.size + owner_size].rstrip(b"\0")
    return owner.decode("utf-8", "replace"), data[start : start + size]


class _Layout:
    """The structures of one class and byte order: Elf64_Ehdr or Elf32_Ehdr, and so on."""

    def __init__(self, bits: int, order: str) -> None:
        if bits == 64:
            formats = ("16s2HI3QI6H", "2I6Q", "2I4Q2I2Q", "qQ")
        else:
            formats = ("16s2HI3II6H", "8I", "10I", "iI")
        self.header, self.segment, self.section, self.entry = (
            Struct(order + one) for one in formats
        )


class _File:
    """The header of an ELF file, and reads that stay inside of the file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        ident = os.pread(fd, 64, 0)
        if len(ident) < 52 or ident[:4] != b"\x7fELF" or ident[4] not in (1, 2):
            raise ConfigError("not an ELF file")
        if ident[5] not in (1, 2):
            raise ConfigError("an ELF file of unknown byte order")
        self.bits = 32 * ident[4]
        self.order = "<" if ident[5] == 1 else ">"
        self.layout = _Layout(self.bits, self.order)
        if len(ident) < self.layout.header.size:
            raise ConfigError("an ELF file cut short")
        fields = self.layout.header.unpack_from(ident)
        self.machine, self.flags = fields[2], fields[7]
        self.programs = fields[5], fields[9], fields[10]
        self.sections = fields[6], fields[11], fields[12], fields[13]

    def part(self, offset: int, size: int, most: int) -> bytes:
        """Read a part of the file; ConfigError when it lies outside or is larger than `most`."""
        if size > most or offset + size > self.size:
            raise ConfigError("an ELF file with a part outside of it")
        data = os.pread(self.fd, size, offset)
        if len(data) != size:
            raise ConfigError("an ELF file cut short")
        return data

    def segments(self) -> list[tuple[int, int, int, int]]:
        """Return (type, file offset, address, size in the file) of each segment."""
        offset, each, count = self.programs
        layout = self.layout.segment
        if count > MOST_SEGMENTS or (count and each != layout.size):
            raise ConfigError("an ELF file with strange program headers")
        data = self.part(offset, each * count, MOST_SEGMENTS * layout.size)
        found = []
        for fields in layout.iter_unpack(data):
            if self.bits == 64:
                kind, _, start, address, _, size = fields[:6]
            else:
                kind, start, address, _, size = fields[:5]
            found.append((kind, start, address, size))
        return found

    def section(self, name: bytes) -> tuple[int, int] | None:
        """Return file offset and size of the section of this name."""
        offset, each, count, names = self.sections
        layout = self.layout.section
        if not count:
            return None
        if count > MOST_SECTIONS or each != layout.size or names >= count:
            raise ConfigError("an ELF file with strange section headers")
        data = self.part(offset, each * count, MOST_SECTIONS * layout.size)
        headers = list(layout.iter_unpack(data))
        strings = self.part(headers[names][4], headers[names][5], LARGEST_STRINGS)
        for header in headers:
            if _text(strings, header[0]) == name:
                return header[4], header[5]
        return None


def _dynamic(
    file: _File,
    library: Library,
    segments: list[tuple[int, int, int, int]],
    offset: int,
    size: int,
    versions: bool,
) -> None:
    entry = file.layout.entry
    data = file.part(offset, size - size % entry.size, LARGEST_DYNAMIC)
    tags: dict[int, int] = {}
    needed = []
    for tag, value in entry.iter_unpack(data):
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            needed.append(value)
        else:
            tags.setdefault(tag, value)
    if DT_STRTAB not in tags or DT_STRSZ not in tags:
        return
    address = tags[DT_STRTAB]
    for kind, start, base, length in segments:
        if kind == PT_LOAD and base <= address < base + length:
            strings = file.part(start + address - base, tags[DT_STRSZ], LARGEST_STRINGS)
            break
    else:
        raise ConfigError("an ELF file whose strings are nowhere")
    if DT_SONAME in tags:
        library.soname = _text(strings, tags[DT_SONAME]).decode("utf-8", "surrogateescape")
    library.needed = [_text(strings, one).decode("utf-8", "surrogateescape") for one in needed]
    if not versions:
        return
    library._strings = strings
    for tag, number, read_versions in (
        (DT_VERDEF, DT_VERDEFNUM, _defined),
        (DT_VERNEED, DT_VERNEEDNUM, _wanted),
    ):
        if tag in tags:
            held = _versions(file, segments, tags[tag])
            count = tags.get(number, 0)
            if count > MOST_VERSIONS:
                raise ConfigError("an ELF file with too many versions")
            try:
                read_versions(file.order, held, count, strings, library)
            except struct_error:
                raise ConfigError("an ELF file with versions outside of it") from None


def _versions(file: _File, segments: list[tuple[int, int, int, int]], address: int) -> bytes:
    for kind, start, base, length in segments:
        if kind == PT_LOAD and base <= address < base + length:
            size = min(length - (address - base), LARGEST_VERSIONS)
            return file.part(start + address - base, size, LARGEST_VERSIONS)
    raise ConfigError("an ELF file whose versions are nowhere")


def _defined(order: str, held: bytes, count: int, strings: bytes, library: Library) -> None:
    """Elf64_Verdef and the first Elf64_Verdaux of each: its name."""
    head, name = Struct(order + "4H3I"), Struct(order + "2I")
    at = 0
    for _ in range(count):
        _, _, _, _, _, first, following = head.unpack_from(held, at)
        library.versions.add(_text(strings, name.unpack_from(held, at + first)[0]).decode())
        at += following
        if not following:
            break


def _wanted(order: str, held: bytes, count: int, strings: bytes, library: Library) -> None:
    """Elf64_Verneed of each library, and an Elf64_Vernaux for each version."""
    head, version = Struct(order + "2H3I"), Struct(order + "I2H2I")
    at = 0
    for _ in range(count):
        _, names, owner, first, following = head.unpack_from(held, at)
        wants = library.wants.setdefault(_text(strings, owner).decode(), set())
        place = at + first
        for _ in range(names):
            _, flags, _, name, more = version.unpack_from(held, place)
            if not flags & VER_FLG_WEAK:
                wants.add(_text(strings, name).decode())
            place += more
            if not more:
                break
        at += following
        if not following:
            break


def _text(strings: bytes, at: int) -> bytes:
    end = strings.find(b"\0", at)
    if at >= len(strings) or end < 0:
        raise ConfigError("an ELF file with a name outside of its strings")
    return strings[at:end]
