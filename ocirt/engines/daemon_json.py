"""Docker: one member of `runtimes` in daemon.json; all other bytes of the file stay."""

from __future__ import annotations

from ocirt.engines.site import ours
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.engines.site import Site, Wish

    Member = tuple[str, int, int, int]  # key, where it begins, where the value begins, its end

BLANK = " \t\n\r"
INDENT = "    "


def parse(text: str) -> dict[str, Any]:
    """Return the document; dockerd takes an empty file for an empty object."""
    from json import JSONDecodeError, loads

    text = text.removeprefix("\ufeff")
    if not text.strip():
        return {}
    try:
        document = loads(text)
    except JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ConfigError("malformed JSON", f"{place}: {error.msg}") from None
    if not isinstance(document, dict):
        raise ConfigError("expected an object")
    return document


def add(old: str, wish: Wish, site: Site) -> str:
    """Register the runtime, or correct the path of one that is ours."""
    entry = _entry(parse(old), wish)
    if entry is None:
        return put(old, ("runtimes", wish.name), {"path": wish.path})
    if entry.get("path") == wish.path:
        return old
    if not ours(entry.get("path")):
        raise ConfigError(f"runtimes.{wish.name}", "is there already: choose another --name")
    return put(old, ("runtimes", wish.name, "path"), wish.path)


def remove(old: str, wish: Wish, site: Site) -> str:
    """Take the runtime back; an object that becomes empty goes with it."""
    document = parse(old)
    entry = _entry(document, wish)
    if entry is None:
        return old
    place = f"runtimes.{wish.name}"
    if not ours(entry.get("path")) and entry.get("path") != wish.path:
        raise ConfigError(place, "is not ours")
    if more := ", ".join([key for key in entry if key != "path"]):
        raise ConfigError(place, f"holds more than setup wrote ({more}): remove it by hand")
    if document.get("default-runtime") == wish.name:
        raise ConfigError("default-runtime", f"names {wish.name}: change it first")
    return cut(old, ("runtimes", wish.name))


def _entry(document: dict[str, Any], wish: Wish) -> dict[str, Any] | None:
    runtimes = document.get("runtimes", {})
    if not isinstance(runtimes, dict):
        raise ConfigError("runtimes", "expected an object")
    entry = runtimes.get(wish.name)
    if entry is not None and not isinstance(entry, dict):
        raise ConfigError(f"runtimes.{wish.name}", "expected an object")
    return entry


def put(text: str, path: tuple[str, ...], value: Any) -> str:
    """Return the JSON text with a value at a place, laid out like what is around it."""
    if not text.removeprefix("\ufeff").strip():
        text = "{\n}\n"
    unit = _unit(text)
    start = text.index("{")
    for depth, key in enumerate(path):
        found, _ = members(text, start)
        match = [member for member in found if member[0] == key]
        if match and depth + 1 < len(path):
            start = match[-1][2]
            continue
        if match:
            _, _, begin, end = match[-1]
            return text[:begin] + _layout(value, unit, depth + 1) + text[end:]
        for outer in reversed(path[depth + 1 :]):
            value = {outer: value}
        if not found:
            _, close = members(text, start)
            return text[:start] + _layout({key: value}, unit, depth) + text[close + 1 :]
        end = found[-1][3]
        gap = text[start + 1 : found[0][1]] or " "
        # Members on one line stay on one line.
        inner = _layout(value, unit if "\n" in gap else "", depth + 1)
        return text[:end] + f",{gap}{_layout(key, '', 0)}: {inner}" + text[end:]
    return text


def cut(text: str, path: tuple[str, ...]) -> str:
    """Return the JSON text without a member, "" when nothing is left of it."""
    start = text.index("{")
    chain: list[tuple[list[Member], int]] = []
    for key in path:
        found, _ = members(text, start)
        at = max(index for index, member in enumerate(found) if member[0] == key)
        chain.append((found, at))
        start = found[at][2]
    for found, at in reversed(chain):
        if len(found) == 1:
            continue
        if at:
            return text[: found[at - 1][3]] + text[found[at][3] :]
        return text[: found[0][1]] + text[found[1][1] :]
    return ""


def members(text: str, start: int) -> tuple[list[Member], int]:
    """Return the members of the (valid) object that begins at `start`, and where it is closed."""
    from json import JSONDecoder

    decode = JSONDecoder().raw_decode
    found = []
    place = _skip(text, start + 1)
    while text[place] != "}":
        key, after = decode(text, place)
        value = _skip(text, _skip(text, after) + 1)
        _, end = decode(text, value)
        found.append((key, place, value, end))
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return found, place


def _skip(text: str, place: int) -> int:
    while text[place] in BLANK:
        place += 1
    return place


def _unit(text: str) -> str:
    """Return what the document is indented by; "" for one that is all on one line."""
    start = text.index("{") + 1
    gap = text[start : _skip(text, start)]
    if "\n" not in gap:
        return ""
    return gap.rpartition("\n")[2] or INDENT


def _layout(value: Any, unit: str, depth: int) -> str:
    from json import dumps

    text = dumps(value, indent=unit or None, ensure_ascii=False)
    return text.replace("\n", "\n" + unit * depth)
