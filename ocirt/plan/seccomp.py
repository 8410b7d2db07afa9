"""The compiled system call filter of `linux.seccomp`, from the cache if it was compiled before.

Compiling Docker's profile takes libseccomp some ten milliseconds, and a host starts thousands of
containers with the same few profiles.  The cache is a directory of ours with one file per
profile, read here; `seccomp_compile` makes what is missing.

    entry   8s magic · 32s blake2b of all that follows
            u32 flags · u32 listener · u32 library bytes · u32 program bytes
            the library (path, size, time of change, as text) · the program (struct sock_filter)

A filter is as trustworthy as the file that it is read from, so an entry counts only if it and its
directory belong to us and to nobody else.  Anything odd about an entry is no error: it is
compiled anew.

runtime-spec, config-linux.md, "Seccomp"; seccomp(2).
"""

from __future__ import annotations

import marshal
from _blake2 import blake2b
from _struct import Struct

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAGIC = b"OCIRTSC2"  # one more whenever compiling gives another program for the same section
LARGEST = 1 << 16  # bytes of an entry; the kernel takes 4096 instructions of 8 bytes
MOST = 256  # entries; the oldest go first

_HEAD = Struct("=8s32s")
_SIZES = Struct("=4I")


def program(section: dict[str, Any], cache_dir: str | None) -> tuple[bytes, int, bool]:
    """Return the program of a `linux.seccomp`, its flags for seccomp(2), and whether it notifies.

    cache_dir: a directory of the caller's, made here when it is missing; None goes without.
    """
    name = ""
    if cache_dir is not None:
        name = _name(section)
        found = _load(cache_dir, name)
        if found is not None:
            return found
    from ocirt.plan import seccomp_compile

    code, flags, listener, library = seccomp_compile.build(section)
    if cache_dir is not None:
        _save(cache_dir, name, (code, flags, listener), library)
    return code, flags, listener


def _name(section: dict[str, Any]) -> str:
    """Return the file name of a section: all that the program depends on, but the library.

    The listener's path differs from container to container and is not part of the program.
    """
    content = [
        [key, value]
        for key, value in section.items()
        if key not in ("listenerPath", "listenerMetadata")
    ]
    kernel = os.uname()
    subject = [content, bool(section.get("listenerPath")), kernel.machine, *kernel[2:4]]
    # Version 2 writes values only; later ones refer back to equal objects or not, as it happens.
    return blake2b(marshal.dumps(subject, 2), digest_size=20).hexdigest()


def library_mark(path: str) -> str:
    """Return what tells one build of a library from the next, without loading it."""
    found = os.stat(path)
    return f"{path}\n{found.st_size}\n{found.st_mtime_ns}"


def _is_ours(status: os.stat_result, kind: int, forbidden: int) -> bool:
    """Whether a file is of this kind and ours, and none of the forbidden mode bits are set."""
    mode = status.st_mode
    return (mode & 0o170000) == kind and not mode & forbidden and status.st_uid == os.geteuid()


def _open_dir(cache_dir: str) -> int:
    """Open the cache, or fail with OSError when it is not a directory for us alone."""
    fd = os.open(cache_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not _is_ours(os.fstat(fd), 0o040000, 0o077):
        os.close(fd)
        raise PermissionError
    return fd


def _load(cache_dir: str, name: str) -> tuple[bytes, int, bool] | None:
    """Return what the cache holds under this name; None when it holds nothing we can trust."""
    try:
        directory = _open_dir(cache_dir)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=directory)
        finally:
            os.close(directory)
        try:
            if not _is_ours(os.fstat(fd), 0o100000, 0o077):
                return None
            data = os.read(fd, LARGEST + 1)
        finally:
            os.close(fd)
        return _parse(data)
    except OSError:
        return None


def _parse(data: bytes) -> tuple[bytes, int, bool] | None:
    """Take an entry apart, if it is whole and its library is still the one on this machine."""
    start = _HEAD.size + _SIZES.size
    if not start < len(data) <= LARGEST:
        return None
    magic, digest = _HEAD.unpack_from(data)
    if magic != MAGIC or digest != blake2b(data[_HEAD.size :], digest_size=32).digest():
        return None
    flags, listener, mark_size, size = _SIZES.unpack_from(data, _HEAD.size)
    mark = data[start : start + mark_size].decode("utf-8", "surrogateescape")
    if len(data) != start + mark_size + size or size % 8 or not size:
        return None
    if library_mark(mark.partition("\n")[0]) != mark:
        return None
    return data[start + mark_size :], flags, bool(listener)


def _save(cache_dir: str, name: str, result: tuple[bytes, int, bool], library: str) -> None:
    """Put an entry into the cache, whole or not at all; without a cache life goes on slower."""
    code, flags, listener = result
    try:
        mark = library_mark(library).encode("utf-8", "surrogateescape")
        body = _SIZES.pack(flags, listener, len(mark), len(code)) + mark + code
        data = _HEAD.pack(MAGIC, blake2b(body, digest_size=32).digest()) + body
        if not os.path.lexists(cache_dir):
            os.mkdir(cache_dir, 0o700)
        directory = _open_dir(cache_dir)
    except OSError:
        return
    try:
        _write(directory, name, data)
        _prune(directory)
    except OSError:
        return
    finally:
        os.close(directory)


def _write(directory: int, name: str, data: bytes) -> None:
    # Two runtimes may compile the same section at once; each writes a file of its own.
    temporary = f".{name}.{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        whole = os.write(fd, data) == len(data)
    except OSError:
        whole = False
    finally:
        os.close(fd)
    if whole:
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    else:
        os.unlink(temporary, dir_fd=directory)


def _prune(directory: int) -> None:
    """Remove the oldest files beyond MOST; one may be what a killed runtime left half written."""
    names = os.listdir(directory)
    if len(names) <= MOST:
        return
    ages = sorted((os.stat(name, dir_fd=directory).st_mtime_ns, name) for name in names)
    for _, name in ages[: len(names) - MOST]:
        os.unlink(name, dir_fd=directory)
