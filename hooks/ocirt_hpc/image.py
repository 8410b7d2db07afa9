"""Look into a container's root file system, whose every name is hostile.

A path is walked component by component, each opened relative to the descriptor of the one before
and never followed by the kernel: links are read and taken as the container would, `..` ends at
the root.  So neither a link nor a rename in the middle of the walk leads outside, and what comes
back is a descriptor, never a path to open again.

Python has no openat2(RESOLVE_IN_ROOT) without ctypes, which costs more than these few walks.
"""

from __future__ import annotations

from ocirt import jsonio
from ocirt import system as os
from ocirt.errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

S_IFMT, S_IFREG, S_IFLNK = 0o170000, 0o100000, 0o120000
O_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_LINKS = 40


class Image:
    """A root file system, as a context: it keeps the descriptor of its root."""

    def __init__(self, rootfs: str) -> None:
        self.rootfs = rootfs
        self.fd = -1

    def __enter__(self) -> Image:
        try:
            self.fd = os.open(self.rootfs, O_WALK | os.O_DIRECTORY)
        except OSError as error:
            raise KernelError(error.errno or 0, "root.path", self.rootfs) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)

    def has(self, path: str) -> bool:
        """Whether the container would find something at a path."""
        fd = self._walk(path)
        if fd is None:
            return False
        os.close(fd)
        return True

    @property
    def readonly(self) -> bool:
        """Whether nothing can be made in it: a squashfs, or any mount that is read-only."""
        return bool(os.fstatvfs(self.fd).f_flag & os.ST_RDONLY)

    def resolve(self, path: str) -> str | None:
        """Return the path without links by which the container finds something, or None.

        It holds for as long as nobody changes the image: whoever acts on it looks once more.
        """
        way: list[str] = []
        fd = self._walk(path, way)
        if fd is None:
            return None
        os.close(fd)
        return "/" + "/".join(way)

    def kind(self, path: str) -> int:
        """Return what is at a path itself, be it a link: the type bits of its mode; 0 for none."""
        fd = self._walk(os.path.dirname(path))
        if fd is None:
            return 0
        try:
            seen = os.stat(os.path.basename(path), dir_fd=fd, follow_symlinks=False)
        except OSError:
            return 0
        finally:
            os.close(fd)
        return seen.st_mode & S_IFMT

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, in order; [] when it is none."""
        fd = self._walk(path)
        if fd is None:
            return []
        try:
            # An O_PATH descriptor lists nothing itself.
            within = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return []
        finally:
            os.close(fd)
        try:
            return sorted(os.listdir(within))
        finally:
            os.close(within)

    def open(self, path: str) -> int | None:
        """Return a descriptor to read a regular file by; None when there is none."""
        fd = self._walk(path)
        if fd is None:
            return None
        try:
            if os.fstat(fd).st_mode & S_IFMT != S_IFREG:
                return None
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        finally:
            os.close(fd)

    def read(self, path: str, most: int) -> bytes | None:
        """Return a regular file of at most `most` bytes; None for any other, or none."""
        fd = self.open(path)
        if fd is None:
            return None
        try:
            held = jsonio.drain(fd, most)
        except OSError:
            return None
        finally:
            os.close(fd)
        return held if len(held) <= most else None

    def _walk(self, path: str, way: list[str] | None = None) -> int | None:
        """Return an O_PATH descriptor of what a path means in the container, or None.

        way: gets the names that lead there.
        """
        way = [] if way is None else way
        parts = path.split("/")[::-1]
        held = [os.dup(self.fd)]  # the way from the root to where we are
        links = 0
        try:
            while parts:
                part = parts.pop()
                if part in ("", "."):
                    continue
                if part == "..":
                    if len(held) > 1:
                        os.close(held.pop())
                        way.pop()
                    continue
                fd = os.open(part, O_WALK, dir_fd=held[-1])
                if os.fstat(fd).st_mode & S_IFMT != S_IFLNK:
                    held.append(fd)
                    way.append(part)
                    continue
                links += 1
                try:
                    target = os.readlink("", dir_fd=fd)
                finally:
                    os.close(fd)
                if links > MOST_LINKS or len(parts) > MOST_LINKS * 64:
                    return None
                if target.startswith("/"):
                    while len(held) > 1:
                        os.close(held.pop())
                    way.clear()
                parts += target.split("/")[::-1]
            return held.pop()
        except OSError:
            return None
        finally:
            for fd in held:
                os.close(fd)
