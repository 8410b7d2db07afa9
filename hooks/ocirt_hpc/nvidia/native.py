"""The driver's libraries where the image's distribution keeps its own: nvidia.layout = "native".

For programs that open /usr/lib/x86_64-linux-gnu/libcuda.so.1 by its path.  The folder is that of
NVIDIA's toolkit: /usr/lib/TRIPLET where the image has /etc/debian_version, else /usr/lib64; of 32
bits /usr/lib/i386-linux-gnu, else /usr/lib32 if it is there, else /usr/lib.

The folder is taken without links, and nothing is mounted through one that somebody puts there
meanwhile; so no other file of the image is covered.  A file of a library's own name is, and a link
of its soname leads to ours.  An image that nothing can be added to has no room for this.

Source: libnvidia-container, nvc_container.c.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc import elf, ldcache
from ocirt_hpc.image import S_IFLNK, S_IFREG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.image import Image
    from ocirt_hpc.nvidia.files import File

DEBIAN = "/etc/debian_version"
TRIPLETS = {
    elf.X86_64: "x86_64-linux-gnu",
    elf.AARCH64: "aarch64-linux-gnu",
    elf.X86: "i386-linux-gnu",
}


class Native:
    """The places of a driver's libraries in one image.

    links: path -> target, of those that programs and the loader follow.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self.debian = image.has(DEBIAN)
        self.links: dict[str, str] = {}
        self._folders: dict[int, str] = {}  # by e_machine
        self._held: set[str] = set()

    @property
    def folders(self) -> list[str]:
        """The folders that have got a library."""
        return list(dict.fromkeys(self._folders.values()))

    def put(
        self, file: File, source: str, options: list[str], below: str = ""
    ) -> tuple[list[dict[str, Any]], ldcache.Entry | None]:
        """Give a library a place; return its mounts, never through a link, and its entry.

        [] when one of that name has the place already.  source: where it is on the host.  below: a
        folder like "vdpau/".
        """
        folder = self._folder(file)
        path = f"{folder}/{below}{file.name}"
        if path in self._held:
            return [], None
        self._refuse_link(path)
        self._held.add(path)
        places, link = [path], f"{folder}/{below}{file.soname}"
        if file.soname and link not in self._held:
            self._held.add(link)
            if self.image.kind(link) == S_IFREG:
                places.append(link)
            else:
                self.links[link] = file.name
        entry = None
        if file.entry is not None and not below:
            entry = ldcache.Entry(file.soname, f"{folder}/{file.soname}", file.entry.flags)
        mounts = [
            {"containerPath": place, "hostPath": source, "options": options, "noLinks": True}
            for place in places
        ]
        return mounts, entry

    def names(self, folder: str) -> list[str]:
        """Return the names that a folder has got, those below it as well."""
        start = f"{folder}/"
        return sorted(path.removeprefix(start) for path in self._held if path.startswith(start))

    def link(self, path: str, target: str) -> None:
        """Add a link, unless the image has a file of that name, which may be one of its own."""
        if path not in self._held and self.image.kind(path) != S_IFREG:
            self._held.add(path)
            self.links[path] = target

    def _folder(self, file: File) -> str:
        found = self._folders.get(file.machine)
        if found is None:
            if self.debian and file.machine in TRIPLETS:
                found = f"/usr/lib/{TRIPLETS[file.machine]}"
            elif file.bits == 64:
                found = "/usr/lib64"
            else:
                found = "/usr/lib32" if self.image.has("/usr/lib32") else "/usr/lib"
            found = self._folders[file.machine] = self._without_links(found)
        return found

    def _without_links(self, folder: str) -> str:
        """Return the path of a folder by which the container finds it, or would make it."""
        missing: list[str] = []
        while True:
            found = self.image.resolve(folder)
            if found is not None:
                break
            self._refuse_link(folder)
            folder, name = os.path.split(folder)
            missing.insert(0, name)
        return os.path.join(found, *missing)

    def _refuse_link(self, path: str) -> None:
        if self.image.kind(path) == S_IFLNK:
            raise ConfigError(
                f"the image's {path} is a link, and nothing is mounted through it"
                ' (nvidia.layout is "native" in hpc.toml)'
            )
