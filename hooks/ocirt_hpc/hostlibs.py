"""Libraries of the host in a container, with all that they need and the image does not have.

    shelf = Shelf(host, image)
    for library in shelf.with_needs(["/usr/lib64/libibverbs.so.1"]): ...

Whether they work there is a question of versions: the C library is always the image's, so it must
define every version of a symbol that a library of the host wants of it.  Of anything else the image
has, what defines the wanted versions stays; what says nothing of versions, or is too old, comes
from the host as well.  Nothing is tried out: it is all in the files (elf.py).

Source: ld.so(8); System V Application Binary Interface, "Dynamic Linking".
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError, KernelError
from ocirt_hpc import elf, ldcache, loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.host import Host
    from ocirt_hpc.image import Image
    from ocirt_hpc.ldcache import Entry
    from ocirt_hpc.tree import Tree

CACHE = "/etc/ld.so.cache"

# Where loaders look without a cache, and where distributions keep libraries.
FOLDERS = (
    "/usr/lib64", "/lib64", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib", "/lib", "/usr/local/lib",
)  # fmt: skip

# Parts of the C library, which go with the loader that the image's programs name.
LIBC = (
    "ld-linux", "ld64.so", "ld.so", "libc.so", "libm.so", "libmvec.so", "libpthread.so", "libdl.so",
    "librt.so", "libresolv.so", "libutil.so", "libanl.so", "libnsl.so.1", "libnss_",
    "libBrokenLocale.so", "libthread_db.so",
)  # fmt: skip

MOST = 512  # libraries that one may need; more is a mistake


class Library:
    """A library of the host: where it is there, and what its file says."""

    def __init__(self, source: str, found: elf.Library, entry: ldcache.Entry | None) -> None:
        self.source = source
        self.elf = found
        self.entry = entry

    @property
    def name(self) -> str:
        """Its last name, such as libmlx5.so.1.24.44.0."""
        return os.path.basename(self.source)


class Shelf:
    """The libraries of a host, and those of an image that is to get some of them."""

    def __init__(self, host: Host, image: Image) -> None:
        self.host = host
        self.image = image
        self._hosts = _by_name(_cache(_read(host.root + CACHE)))
        self._images = _by_name(_cache(image.read(CACHE, ldcache.LARGEST)))
        self._known: dict[str, elf.Library | None] = {}

    def library(self, path: str) -> Library:
        """Return a library of the host; an error names what is wrong with it."""
        source = self.host.resolve(path)
        try:
            fd = os.open(self.host.root + source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise KernelError(error.errno or 0, path) from error
        try:
            found = elf.read(fd, versions=True)
        except ConfigError as error:
            raise ConfigError(path, *error.segments) from None
        finally:
            os.close(fd)
        return Library(source, found, ldcache.entry(found, source))

    def on_host(self, soname: str, near: str = "", flags: int | None = None) -> str | None:
        """Return where the host has a library: beside another, by its cache, or in FOLDERS."""
        if near and self.host.there(f"{near}/{soname}"):
            return f"{near}/{soname}"
        for path, ours in self._hosts.get(soname, ()):
            if flags in (None, ours) and self.host.there(path):
                return path
        paths = (f"{folder}/{soname}" for folder in FOLDERS)
        return next((path for path in paths if self.host.there(path)), None)

    def in_image(self, soname: str, flags: int | None = None) -> str | None:
        """Return where the image's programs find a library, or None."""
        for path, theirs in self._images.get(soname, ()):
            if flags in (None, theirs) and self.image.has(path):
                return path
        paths = (f"{folder}/{soname}" for folder in FOLDERS)
        return next((path for path in paths if self.image.has(path)), None)

    def names_in_image(self) -> list[str]:
        """Return the names that the image's cache has, or those in FOLDERS without one."""
        return list(self._images) or [
            name for folder in FOLDERS for name in self.image.names(folder) if ".so" in name
        ]

    def give(self, libraries: Iterable[Library], tree: Tree) -> tuple[dict[str, Any], list[Entry]]:
        """Return the mounts of libraries in their own place, and what they are to the loader."""
        mounts, entries = loader.place(tree)["mounts"], []
        for one in libraries:
            path, entry = loader.put(tree, one.name, one.elf.soname, one.elf.bits, one.entry)
            if path:
                mounts.append(self.mount(one.source, path))
            if entry is not None:
                entries.append(entry)
        return {"mounts": mounts}, entries

    def mount(self, source: str, path: str) -> dict[str, Any]:
        """Return the mount of a library of the host."""
        options = list(loader.MAPPED)
        return {"containerPath": path, "hostPath": self.host.root + source, "options": options}

    def of_image(self, path: str) -> elf.Library | None:
        """Return what a library of the image says; None when it is none."""
        if path not in self._known:
            self._known[path] = None
            fd = self.image.open(path)
            if fd is not None:
                try:
                    self._known[path] = elf.read(fd, versions=True)
                except ConfigError:
                    pass  # a linker script, or something that no loader would take
                finally:
                    os.close(fd)
        return self._known[path]

    def with_needs(self, paths: Iterable[str]) -> list[Library]:
        """Return libraries of the host, and whatever the image cannot give them.

        ConfigError in one sentence when the image's C library is too old for one of them, or
        when the host itself lacks one.
        """
        found: dict[str, Library] = {}
        waiting = [self.library(path) for path in paths]
        while waiting:
            one = waiting.pop(0)
            key = one.elf.soname or one.name
            if key in found:
                continue
            if len(found) == MOST:
                raise ConfigError(one.source, "needs more libraries than any")
            found[key] = one
            self.check(one)
            for soname in one.elf.needed:
                if soname in found or soname.startswith(LIBC) or self._has(one, soname):
                    continue
                flags = one.entry.flags if one.entry else None
                path = self.on_host(soname, os.path.dirname(one.source), flags)
                if path is None:
                    raise ConfigError(one.source, f"needs {soname}, which this host lacks")
                waiting.append(self.library(path))
        return list(found.values())

    def _has(self, one: Library, soname: str) -> bool:
        """Whether the image has a library that defines all versions that this one wants of it."""
        wanted = one.elf.wants.get(soname)
        return bool(wanted) and not self._lacks(one, soname, wanted or set())

    def _lacks(self, one: Library, soname: str, wanted: set[str]) -> set[str]:
        path = self.in_image(soname, one.entry.flags if one.entry else None)
        there = self.of_image(path) if path else None
        if there is None or (there.machine, there.bits) != (one.elf.machine, one.elf.bits):
            return wanted
        return wanted - there.versions

    def check(self, one: Library) -> None:
        """Refuse a library that wants more than the image's C library has."""
        for soname, wanted in one.elf.wants.items():
            if not soname.startswith(LIBC):
                continue
            lacking = self._lacks(one, soname, wanted)
            if lacking:
                newest = max(lacking, key=_number)
                raise ConfigError(
                    f"{one.source} wants {newest} of {soname}, which the image's does not have"
                )


def _number(version: str) -> list[int]:
    return [int(part) for part in version.rpartition("_")[2].split(".") if part.isdecimal()]


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(ldcache.LARGEST + 1)
    except OSError:
        return None


def _cache(held: bytes | None) -> list[ldcache.Entry]:
    try:
        return ldcache.parse(held) if held else []
    except ConfigError:
        return []


def _by_name(entries: Iterable[ldcache.Entry]) -> dict[str, list[tuple[str, int]]]:
    found: dict[str, list[tuple[str, int]]] = {}
    for one in entries:
        found.setdefault(one.name, []).append((one.path, one.flags))
    return found
