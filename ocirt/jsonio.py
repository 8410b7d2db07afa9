"""Read and write JSON without the `json` module, whose import costs more than a `create` may.

`_json` is the C half of `json`: scanner and encoder, and nothing else.  What this file adds is
what a runtime must not leave to chance: bounds on size and nesting, and a sentence with line
and column for text that is no JSON.

Stricter than Python's `json`, as Go and the RFC are: no NaN or Infinity, no number too large
for a float, no lone surrogate (it could not be handed to the kernel as a file name).  As in Go
the last of two equal keys wins.  Integers stay integers of any size; `1.0` stays a float, so
that nobody mistakes it for one.
"""

from __future__ import annotations

from _json import encode_basestring, make_encoder, make_scanner

from ocirt import system as os
from ocirt.errors import ConfigError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LARGEST = 16 << 20  # bytes; a Docker config has 30 thousand
DEEPEST = 128  # levels; the spec itself needs 8


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError("number out of range")
    return value


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


class _Grammar:
    """What the C scanner asks its context for."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_float)
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012 - asked for by older scanners


_scan = make_scanner(_Grammar())  # type: ignore[arg-type]


def parse(text: str | bytes) -> Any:
    """Return the value that a JSON text stands for.

    Raises ConfigError with the place: `line 3 column 17: ...`.
    """
    if len(text) > LARGEST:
        raise ConfigError(f"more than {LARGEST >> 20} MiB of JSON")
    if text.__class__ is not str:
        try:
            text = text.decode("utf-8")  # type: ignore[union-attr]
        except UnicodeDecodeError as error:
            head = error.object[: error.start].decode("utf-8")
            raise ConfigError(_place(head, len(head)), "not UTF-8") from None
    assert isinstance(text, str)
    body = text.strip(" \t\n\r")
    start = 0 if body is text else text.find(body)
    if not body:
        raise ConfigError("holds no JSON")
    try:
        try:
            value, end = _scan(body, 0)
        except SystemError:
            # The scanner words its complaint with json.decoder, if that is loaded already.
            import json.decoder  # noqa: F401

            value, end = _scan(body, 0)
    except StopIteration as stop:
        at = start + stop.value
        what = "unexpected end" if at >= len(text.rstrip(" \t\n\r")) else "expected a value"
        raise ConfigError(_place(text, at), what) from None
    except RecursionError:
        raise ConfigError(f"nested more than {DEEPEST} levels deep") from None
    except ValueError as error:
        # json.JSONDecodeError, or one of ours, which knows no position
        at = getattr(error, "pos", None)
        if at is None:
            what = "number out of range" if "digits" in str(error) else str(error)
            raise ConfigError(what) from None
        what = error.msg[:1].lower() + error.msg[1:]  # type: ignore[attr-defined]
        raise ConfigError(_place(text, start + at), what) from None
    if end != len(body):
        end = body.index(body[end:].lstrip(" \t\n\r"), end)
        raise ConfigError(_place(text, start + end), "unexpected text after the value")
    if "\\ud" in body or "\\uD" in body:
        _refuse_surrogates(value)
    if body.count("{") + body.count("[") > DEEPEST:
        _refuse_depth(value)
    return value


def read(path: str) -> bytes:
    """Return what the file holds, up to one byte more than LARGEST.

    A pipe is read to its end; one that nobody writes to is empty, and not waited for.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.set_blocking(file, True)
            return drain(file, LARGEST)
        finally:
            os.close(file)
    except OSError as error:
        raise KernelError(error.errno or 0, path) from error
    except ValueError:
        raise ConfigError(repr(path), "holds a NUL character") from None


def drain(fd: int, most: int) -> bytes:
    """Return what a descriptor gives up to its end, or one byte more than `most`."""
    parts, left = [], most + 1
    while left and (some := os.read(fd, min(left, 1 << 16))):
        parts.append(some)
        left -= len(some)
    return b"".join(parts)


def load(path: str) -> Any:
    """Return the value that a JSON file holds; errors start with its path."""
    text = read(path)
    try:
        return parse(text)
    except ConfigError as error:
        error.segments.insert(0, path)
        raise


_compact = make_encoder(
    None,
    None,  # type: ignore[arg-type]
    encode_basestring,
    None,
    ":",
    ",",
    False,
    False,
    False,
)


def dumps(value: Any, indent: int | str | None = None) -> str:
    """Write `value` down as JSON: one line, or indented by a number of spaces or a string."""
    if indent is None:
        return "".join(_compact(value, 0))
    step = indent if isinstance(indent, str) else " " * indent
    return _pretty(value, "\n", step)


def _pretty(value: Any, margin: str, step: str) -> str:
    if isinstance(value, dict) and value:
        inner = margin + step
        items = [
            f"{encode_basestring(key)}: {_pretty(item, inner, step)}" for key, item in value.items()
        ]
        return "{" + inner + ("," + inner).join(items) + margin + "}"
    if isinstance(value, (list, tuple)) and value:
        inner = margin + step
        return (
            "["
            + inner
            + ("," + inner).join([_pretty(item, inner, step) for item in value])
            + margin
            + "]"
        )
    return "".join(_compact(value, 0))


def _place(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return f"line {line} column {column}"


def _refuse_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for held in level
            for item in (held.values() if held.__class__ is dict else held)
            if item.__class__ is dict or item.__class__ is list
        ]
        if not level:
            return
    raise ConfigError(f"nested more than {DEEPEST} levels deep")


def _refuse_surrogates(value: Any) -> None:
    place = find_text(value, lambda text: any("\ud800" <= one <= "\udfff" for one in text))
    if place is not None:
        raise ConfigError(place or "the document", "holds half of a surrogate pair")


def find_text(value: Any, wanted: Callable[[str], bool]) -> str | None:
    """Return the place (`process.args[1]`) of the first string that is `wanted`.

    For a key the place is that of its object; the place of `value` itself is "".
    """
    todo = [("", value)]
    for where, held in todo:
        if held.__class__ is str:
            if wanted(held):
                return where
        elif held.__class__ is list:
            todo += [(f"{where}[{index}]", item) for index, item in enumerate(held)]
        elif held.__class__ is dict:
            for key, item in held.items():
                if wanted(key):
                    return where
                todo.append((f"{where}.{key}" if where else key, item))
    return None
