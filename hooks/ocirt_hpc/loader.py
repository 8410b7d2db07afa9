"""Let an image's own loader find the libraries that the stage puts into the container.

What the image has decides, and `Way` says what came of it:

    glibc   its cache, with our libraries before its own, over /etc/ld.so.cache
    musl    its search path, with our folders after its own, over /etc/ld-musl-ARCH.path
    none    an image with neither has programs that load nothing

Where a file cannot be laid over, LD_LIBRARY_PATH gets the folders instead.  No program runs.

Source: ld.so(8); musl, ldso/dynlink.c.
"""

from __future__ import annotations

from ocirt import log
from ocirt.errors import ConfigError
from ocirt_hpc import ldcache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ocirt_hpc.image import Image
    from ocirt_hpc.tree import Tree

CACHE = "/etc/ld.so.cache"
LARGEST_PATH_FILE = 64 << 10
MUSL_FOLDERS = "/lib:/usr/local/lib:/usr/lib"  # where it looks when there is no file
LOADERS = ("/lib64", "/lib", "/usr/lib64", "/usr/lib")

OPTIONS = ["bind", "ro", "nosuid", "nodev", "noexec", "private"]

PLACE = "/run/ocirt/hpc"  # of all libraries, in the container
FOLDERS = {64: "lib64", 32: "lib32"}  # below it, by ELF class

# A library must not be noexec.
MAPPED = ("bind", "ro", "nosuid", "nodev", "private")


class Libraries:
    """What the stage gives a container for its loader, gathered from all that brings libraries.

    entries   as the cache wants them, what was added first comes first
    folders   where they are in the container
    origin    what asked for the first of them
    """

    def __init__(self) -> None:
        self.entries: list[ldcache.Entry] = []
        self.folders: list[str] = []
        self.origin = ""

    def add(self, origin: str, entries: Iterable[ldcache.Entry], folders: Iterable[str]) -> None:
        """Add libraries and the folders that hold them."""
        self.origin = self.origin or origin
        self.entries = ldcache.merge(self.entries, entries)
        self.folders += [folder for folder in folders if folder not in self.folders]


def put(
    tree: Tree, name: str, soname: str, bits: int, entry: ldcache.Entry | None, below: str = ""
) -> tuple[str, ldcache.Entry | None]:
    """Give a library and its link a place; return where it is in the container, and its entry.

    The path is "" when one of that name has the place already.  entry: what it is to the loader of
    the host.  below: a folder like "vdpau/", where no loader looks by itself.
    """
    folder = FOLDERS[bits]
    path = f"{folder}/{below}{name}"
    if path in tree.files:
        return "", None
    tree.file(path)
    link = f"{folder}/{below}{soname}"
    if soname and link not in tree.files and link not in tree.links:
        tree.link(link, name)
    if entry is not None and not below:
        entry = ldcache.Entry(soname, f"{PLACE}/{folder}/{soname}", entry.flags)
    return f"{PLACE}/{path}", None if below else entry


def folders(tree: Tree) -> list[str]:
    """Return the folders, in the container, that have got a library."""
    return [f"{PLACE}/{name}" for name in FOLDERS.values() if name in tree.folders]


def place(tree: Tree) -> dict[str, Any]:
    """Return the edit that shows the libraries' folders, on which each is mounted."""
    mount = {"containerPath": PLACE, "hostPath": tree.place, "options": list(MAPPED)}
    return {"mounts": [mount]}


class Way:
    """How the loader was told: `how` (cache, path, env, none), and the edits for it."""

    def __init__(self, how: str, edits: dict[str, Any]) -> None:
        self.how = how
        self.edits = edits


def tell(
    image: Image,
    entries: Iterable[ldcache.Entry],
    folders: list[str],
    tree: Tree,
    room: Callable[[str], bool] = lambda path: True,
) -> Way:
    """Return how the image's loader finds these libraries, which lie in these folders.

    entries: as the cache wants them, paths as in the container.  room: whether a file can
    be laid over a path of the image.
    """
    names = [name for folder in LOADERS for name in image.names(folder)]
    musl = [name for name in names if name.startswith("ld-musl-") and ".so" in name]
    if musl:
        path = f"/etc/{musl[0].partition('.so')[0]}.path"
        if room(path):
            held = image.read(path, LARGEST_PATH_FILE)
            text = held.decode("utf-8", "surrogateescape") if held is not None else MUSL_FOLDERS
            lines = "\n".join([text.rstrip("\n"), *folders]) + "\n"
            source = tree.file("ld-musl.path", lines.encode("utf-8", "surrogateescape"))
            return Way("path", _over(path, source))
        return Way("env", env(folders))
    if not any(name.startswith(("ld-linux", "ld64.so", "ld.so.1")) for name in names):
        log.debug("the image has no loader: its programs are static and load no driver")
        return Way("none", {})
    if not room(CACHE):
        return Way("env", env(folders))
    held = image.read(CACHE, ldcache.LARGEST)
    try:
        before = ldcache.parse(held) if held else []
    except ConfigError as error:
        log.warning(f"the image's {CACHE} is left out: {error}")
        before = []
    source = tree.file("ld.so.cache", ldcache.build(ldcache.merge(entries, before)))
    return Way("cache", _over(CACHE, source))


def _over(path: str, source: str) -> dict[str, Any]:
    return {"mounts": [{"containerPath": path, "hostPath": source, "options": OPTIONS}]}


def env(folders: list[str]) -> dict[str, Any]:
    """Return the edit that adds folders to LD_LIBRARY_PATH."""
    return {"envAppend": [f"LD_LIBRARY_PATH={':'.join(folders)}"]}
