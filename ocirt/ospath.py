"""The functions of `os.path` that hot verbs need, for text; `ocirt.system` tells why.

Whatever else is asked for is that of os.path, imported then.
"""

from __future__ import annotations

import posix
from posix import _path_normpath  # type: ignore[attr-defined] # unknown to typeshed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KIND = 0o170000  # of st_mode: inode(7)
MOST_LINKS = 40  # that the kernel follows on one way: path_resolution(7)


def join(first: str, *more: str) -> str:
    for part in more:
        if part[:1] == "/" or not first:
            first = part
        elif first[-1] == "/":
            first += part
        else:
            first = f"{first}/{part}"
    return first


def split(name: str) -> tuple[str, str]:
    at = name.rfind("/") + 1
    head = name[:at]
    return head.rstrip("/") or head, name[at:]


def dirname(name: str) -> str:
    return split(name)[0]


def basename(name: str) -> str:
    return name[name.rfind("/") + 1 :]


def normpath(name: str) -> str:
    return _path_normpath(name) or "."


def abspath(name: str) -> str:
    return normpath(name if name[:1] == "/" else join(posix.getcwd(), name))


def realpath(name: str) -> str:
    way = join(posix.getcwd(), name).split("/")[::-1]
    real, links = "", 0
    while way:
        part = way.pop()
        if part == "..":
            real = real[: real.rfind("/") + 1].rstrip("/")
        elif part not in ("", "."):
            try:
                target = posix.readlink(f"{real}/{part}")
            except OSError:  # no link, or nothing that we can see
                real = f"{real}/{part}"
                continue
            links += 1
            if links > MOST_LINKS:  # a circle, which is worded as it is there
                return str(__getattr__("realpath")(name))
            real = "" if target[0] == "/" else real
            way += target.split("/")[::-1]
    return real or "/"


def exists(name: str) -> bool:
    return _kind(posix.stat, name) is not None


def lexists(name: str) -> bool:
    return _kind(posix.lstat, name) is not None


def isdir(name: str) -> bool:
    return _kind(posix.stat, name) == 0o040000


def _kind(look: Any, name: str | int) -> int | None:
    """Return the type bits of a file, None where there is none to be seen."""
    try:
        return look(name).st_mode & KIND  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None


def __getattr__(name: str) -> Any:
    if name[:2] == "__":
        raise AttributeError(name)
    import os.path

    return getattr(os.path, name)
