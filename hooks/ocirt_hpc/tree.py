"""Small files that the stage makes for one container: a loader cache, links, copies of procfs.

They lie beside the container's state on the host, are written before the container exists, and
are seen inside through read-only bind mounts; so nothing is written into the image, and nothing
in the image can lead a write astray.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At


class Tree:
    """Files, links and folders below `place`, which `write` makes; paths in it are relative."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.folders: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self.files or self.links or self.folders)

    def file(self, path: str, content: bytes = b"") -> str:
        """Put a file at a path; return where it will be on the host, for a mount."""
        self.files[path] = content
        return self._within(path)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link at a path."""
        self._within(path)
        self.links[path] = target

    def folder(self, path: str) -> str:
        """Put a folder at a path; return where it will be on the host, for a mount."""
        self.folders.add(path)
        return self._within(path)

    def _within(self, path: str) -> str:
        above = os.path.dirname(path)
        while above:
            self.folders.add(above)
            above = os.path.dirname(above)
        return f"{self.place}/{path}"

    def write(self) -> None:
        """Make everything, in a directory that must not be there yet."""
        with At(self.place):
            os.mkdir(self.place, 0o755)
            for path in sorted(self.folders):
                os.mkdir(f"{self.place}/{path}", 0o755)
            for path, content in self.files.items():
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = os.open(f"{self.place}/{path}", flags, 0o644)
                try:
                    view = memoryview(content)
                    while view:
                        view = view[os.write(fd, view) :]
                finally:
                    os.close(fd)
            for path, target in self.links.items():
                os.symlink(target, f"{self.place}/{path}")
