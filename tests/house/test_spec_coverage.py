"""Every field of the specification is read somewhere, refused, or on a list with its reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ocirt import checks, shape

ROOT = Path(__file__).resolve().parent.parent.parent

# They name every field, or refuse some; reading a field to act on it happens elsewhere.
NO_READERS = {"_generated_shape.py", "shape.py", "checks.py"}

UNREAD = {
    # place                                  reason
    "process.user.username":                "config.md: Windows",
    "process.commandLine":                  "config.md: Windows",
    "linux.resources.memory.useHierarchy":  "the kernel always accounts hierarchically by now",
    "solaris":                              "another platform: config.md wants it ignored",
    "windows":                              "another platform: config.md wants it ignored",
    "vm":                                   "another platform: config.md wants it ignored",
    "zos":                                  "another platform: config.md wants it ignored",
    "freebsd":                              "another platform: config.md wants it ignored",
}  # fmt: skip


def words():
    """Return every string that the runtime's modules hold, and the words of those."""
    found = set()
    for path in (ROOT / "ocirt").rglob("*.py"):
        if path.name in NO_READERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
                found.update(node.value.split())
    return found


def fields(detail=shape.CONFIG, place=""):
    """Yield (place, name) of every field in the tables."""
    if detail is None or isinstance(detail[0], (int, str)):
        return
    if isinstance(detail[0], dict):
        for name, (kind, _, inner) in detail[0].items():
            where = f"{place}.{name}".removeprefix(".")
            yield where, name
            if kind in (list, dict):
                yield from fields(inner, where)
    else:
        yield from fields(detail[2], place)


def covered(place, listed):
    return any(place == one or place.startswith(f"{one}.") for one in listed)


def test_no_field_is_passed_over_in_silence():
    known = words()
    listed = set(UNREAD) | {place for place, _ in checks.UNSUPPORTED}
    silent = {place for place, name in fields() if name not in known and not covered(place, listed)}
    assert silent == set()


@pytest.mark.parametrize("place", UNREAD)
def test_a_field_that_is_read_leaves_the_list(place):
    assert place in dict(fields())
    assert dict(fields())[place] not in words()


def test_what_we_refuse_is_a_field():
    assert {place for place, _ in checks.UNSUPPORTED} <= dict(fields()).keys()
