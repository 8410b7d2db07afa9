"""Walk a table from `linux.resources` to cgroup files; the converters both versions share.

A table has two parts.  FIELDS: one row is one file, its value made from one or more fields of
one section.  ITEMS: one row is one write for each item of a list (or mapping), the file name
possibly made from the item.  A converter returns the text to write, or None to leave the file
alone; it raises ConfigError for what cannot be meant.

Nothing here touches a file: `v1.py` and `v2.py` hold the tables, the drivers carry them out.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Fields = tuple[tuple[str, tuple[str, ...], str, Callable[..., str | None]], ...]
    Items = tuple[tuple[str, str, str, Callable[[dict[str, Any]], str | None]], ...]
    Write = tuple[str, str, str]  # file, value, place in config.json

UNSIGNED_MINUS_ONE = (1 << 64) - 1  # how some engines spell -1 in an unsigned field


def writes(fields: Fields, items: Items, resources: dict[str, Any]) -> list[Write]:
    """Return (file, value, where) for all that `resources` asks for, in the tables' order."""
    found: list[Write] = []
    for section, names, file, convert in fields:
        part = resources.get(section)
        if not part:
            continue
        values = [part.get(name) for name in names]
        if not any(value is not None for value in values):
            continue
        where = f"linux.resources.{section}.{names[0]}"
        with At(where):
            text = convert(*values)
        if text is not None:
            found.append((file, text, where))
    for section, name, file, convert_item in items:
        part = resources.get(section)
        if not part:
            continue
        if name:
            part = part.get(name) or ()
            name = "." + name
        if part.__class__ is dict:
            listed = [(f".{key}", {"name": key, **item}) for key, item in part.items()]
        else:
            listed = [(f"[{i}]", item) for i, item in enumerate(part)]
        for index, item in listed:
            where = f"linux.resources.{section}{name}{index}"
            with At(where):
                text = convert_item(item)
            if text is not None:
                found.append((file.format_map(item), text, where))
    return found


def given(value: int | None) -> str | None:
    """Word a number that counts only when it is not 0, the old way of saying "not set"."""
    return str(value) if value else None


def exact(value: int | None) -> str | None:
    """Word a number that counts even when it is 0."""
    return None if value is None else str(value)


def text(value: str | None) -> str | None:
    """Pass on a list such as "0-3,7"; an empty one means "not set"."""
    return value or None


def tasks(value: int) -> str:
    """Word pids.limit: negative lifts it."""
    # systemd refuses TasksMax=0, so both drivers say 1 and stay alike.
    return "max" if value < 0 else str(max(value, 1))


def page_limit(item: dict[str, Any]) -> str:
    """Word one of hugepageLimits; its pageSize, part of a file name, is checked here."""
    size = item["pageSize"]
    if not (size[-2:] in ("KB", "MB", "GB") and size[:-2].isdecimal() and size.isascii()):
        raise ConfigError("pageSize", f"{size!r} is no page size such as 64KB, 2MB or 1GB")
    return str(item["limit"])


def device(item: dict[str, Any]) -> str:
    """Return the MAJOR:MINOR that starts a line about one block device."""
    return f"{item['major']}:{item['minor']}"


def handles(item: dict[str, Any]) -> str | None:
    """Word one entry of rdma, a line such as `mlx5_0 hca_handle=2 hca_object=2000`."""
    name = item["name"]
    if not name or any(letter.isspace() for letter in name):
        raise ConfigError(f"{name!r} is no name of an RDMA device")
    words = [
        f"{word}={item[field]}"
        for word, field in (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
        if item.get(field) is not None
    ]
    return " ".join([name, *words]) if words else None
