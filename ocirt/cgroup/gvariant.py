"""Read the text form of a D-Bus value: `uint64 5000000`, `'inactive-or-failed'`, `['a', 'b']`.

Annotations `org.systemd.property.NAME` are worded so.  What is not there: maybe types, which
D-Bus has not, and values whose type only what follows tells (`[1, 2.5]`).

GLib Reference Manual, "GVariant Text Format".
"""

from __future__ import annotations

from ocirt.cgroup.dbus import split
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u",
    "handle": "h", "int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o",
    "signature": "g",
}  # fmt: skip
RANGES = {
    "y": (0, 1 << 8), "n": (-(1 << 15), 1 << 15), "q": (0, 1 << 16), "i": (-(1 << 31), 1 << 31),
    "u": (0, 1 << 32), "h": (0, 1 << 31), "x": (-(1 << 63), 1 << 63), "t": (0, 1 << 64),
}  # fmt: skip
ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
BLANKS = " \t\r\n"
DEEPEST = 32


def parse(text: str) -> tuple[str, Any]:
    """Return (signature, value) of the one value in `text`; ConfigError says what is wrong."""
    reader = _Reader(text)
    try:
        found = reader.value("", 0)
    except (ValueError, IndexError):
        raise reader.wrong("no value") from None
    if reader.peek():
        raise reader.wrong("text after the value")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def wrong(self, what: str) -> ConfigError:
        return ConfigError(f"{self.text!r}: {what} at character {self.at + 1}")

    def peek(self) -> str:
        """Pass over blanks; return the next character, "" at the end."""
        while self.text[self.at : self.at + 1] in BLANKS and self.at < len(self.text):
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, letter: str) -> None:
        if self.peek() != letter:
            raise self.wrong(f"{letter!r} expected")
        self.at += 1

    def value(self, wanted: str, depth: int) -> tuple[str, Any]:
        """Read a value, of the type `wanted` unless that is ""."""
        if depth > DEEPEST:
            raise self.wrong("nested too deeply")
        letter = self.peek()
        if letter == "@":
            self.at += 1
            kind = self.word("".join(KEYWORDS.values()) + "va(){}")
            if len(split(kind)) != 1:
                raise self.wrong("one type expected")
            return self.checked(wanted, kind, self.value(kind, depth + 1)[1])
        if letter in "'\"":
            kind = wanted if wanted in ("s", "o", "g") else "s"
            return self.checked(wanted, kind, self.string())
        if letter == "b" and self.text[self.at + 1 : self.at + 2] in ("'", '"'):
            self.at += 1
            data = self.string().encode("latin-1") + b"\0"
            return self.checked(wanted, "ay", list(data))
        if letter in "[({<":
            kind, found = getattr(self, _GROUPS[letter])(wanted, depth)
            return self.checked(wanted, kind, found)
        if letter.isalpha():
            return self.named(wanted, depth)
        return self.number(wanted)

    def checked(self, wanted: str, kind: str, found: Any) -> tuple[str, Any]:
        if wanted and wanted != kind:
            raise self.wrong(f"a value of type {wanted} expected before this place")
        return kind, found

    def word(self, letters: str = "") -> str:
        """Read the letters up to what ends a word, or only those of `letters`."""
        start = self.at
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter not in letters if letters else letter in BLANKS + ",:])}>":
                break
            self.at += 1
        return self.text[start : self.at]

    def named(self, wanted: str, depth: int) -> tuple[str, Any]:
        """Read what starts with a letter: true, a number such as inf, or a type and its value."""
        start, word = self.at, self.word()
        if word in ("true", "false"):
            return self.checked(wanted, "b", word == "true")
        if word in KEYWORDS:
            kind = KEYWORDS[word]
            return self.checked(wanted, kind, self.value(kind, depth + 1)[1])
        self.at = start
        return self.number(wanted)

    def number(self, wanted: str) -> tuple[str, Any]:
        word = self.word()
        plain = word.lstrip("+-")
        real = wanted == "d" or (
            not plain.startswith("0x") and (plain in ("inf", "nan") or bool({*".e"} & {*plain}))
        )
        kind = wanted or ("d" if real else "i")
        if kind == "d":
            return kind, float(word)
        if kind not in RANGES:
            raise self.wrong(f"a value of type {kind} expected before this place")
        octal = len(plain) > 1 and plain.isdigit() and plain[0] == "0"
        found = int(word, 8 if octal else 0)
        low, high = RANGES[kind]
        if not low <= found < high or "_" in word:
            raise self.wrong(f"a value of type {kind} expected before this place")
        return kind, found

    def string(self) -> str:
        quote, found = self.text[self.at], []
        self.at += 1
        while (letter := self.text[self.at]) != quote:
            self.at += 1
            if letter == "\\":
                letter = self.text[self.at]
                self.at += 1
                if letter in "uU":
                    width = 4 if letter == "u" else 8
                    found.append(chr(int(self.text[self.at : self.at + width], 16)))
                    self.at += width
                    continue
                letter = ESCAPES.get(letter, letter)
            found.append(letter)
        self.at += 1
        return "".join(found)

    def _array(self, wanted: str, depth: int) -> tuple[str, list[Any]]:
        inner = wanted[1:] if wanted[:1] == "a" else ""
        found: list[Any] = []
        self.at += 1
        while self.peek() != "]":
            if found:
                self.expect(",")
            # The first one, or the type that was asked for, speaks for all.
            inner, item = self.value(inner, depth + 1)
            found.append(item)
        self.at += 1
        if not inner:
            raise self.wrong("an empty array needs a type such as @as before this place")
        return "a" + inner, found

    def _tuple(self, wanted: str, depth: int) -> tuple[str, tuple[Any, ...]]:
        kinds = split(wanted[1:-1]) if wanted[:1] == "(" else []
        found: list[tuple[str, Any]] = []
        self.at += 1
        while self.peek() != ")":
            if found:
                self.expect(",")
                if self.peek() == ")":  # of one item: (1,)
                    break
            kind = kinds[len(found)] if kinds else ""
            found.append(self.value(kind, depth + 1))
        self.at += 1
        if not found:
            raise self.wrong("D-Bus has no empty tuples")
        return "(" + "".join([kind for kind, _ in found]) + ")", tuple([item for _, item in found])

    def _dict(self, wanted: str, depth: int) -> tuple[str, list[tuple[Any, Any]]]:
        key, item = split(wanted[2:-1]) if wanted[:2] == "a{" else ("", "")
        found: list[tuple[Any, Any]] = []
        self.at += 1
        while self.peek() != "}":
            if found:
                self.expect(",")
            key, name = self.value(key, depth + 1)
            self.expect(":")
            item, value = self.value(item, depth + 1)
            found.append((name, value))
        self.at += 1
        if not key:
            raise self.wrong("an empty dictionary needs a type such as @a{sv} before this place")
        return f"a{{{key}{item}}}", found

    def _variant(self, _: str, depth: int) -> tuple[str, tuple[str, Any]]:
        self.at += 1
        found = self.value("", depth + 1)
        self.expect(">")
        return "v", found


_GROUPS = {"[": "_array", "(": "_tuple", "{": "_dict", "<": "_variant"}
