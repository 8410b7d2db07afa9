"""Read TOML without `tomllib`, whose import costs a container more than all of the stage.

What files of settings hold as a rule is read here: tables, arrays of tables, dotted keys, strings
without escapes, whole numbers, true and false, arrays, inline tables, comments.  For anything
else, and for anything wrong, `tomllib` is asked: it knows the rest of the language and words the
faults.  So this reader has to be right in what it accepts, and never has to accept.

TOML 1.0.0.
"""

from __future__ import annotations

from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
AFTER_WORD = frozenset(",]}# \t\n")
LONGEST_NUMBER = 18  # digits, of which any make a 64-bit number

# Escapes, carriage returns, and what no TOML may hold.
UNUSUAL = ("\\", "\x7f", *(chr(code) for code in range(32) if chr(code) not in "\t\n"))

DEEPEST = 50  # levels of arrays and inline tables


def loads(text: str) -> dict[str, Any]:
    """Return what a text says; ConfigError, in the words of `tomllib`, when it is no TOML."""
    try:
        return _Reader(text).document()
    except _UnusualError:
        pass
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error)) from None
    except RecursionError:
        raise ConfigError("is nested too deeply") from None


class _UnusualError(Exception):
    """Something that this reader leaves to `tomllib`."""


class _Reader:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        if any(sign in text for sign in UNUSUAL):
            raise _UnusualError
        self.text = text + "\n"
        self.at = 0
        self.root: dict[str, Any] = {}
        # By id(): tables that headers have opened, those that they name in passing, arrays of
        # tables, and tables that dotted keys of the present table have opened.
        self.headed: set[int] = set()
        self.passed: set[int] = {id(self.root)}
        self.arrays: set[int] = set()
        self.dotted: set[int] = set()

    def document(self) -> dict[str, Any]:
        table, text = self.root, self.text
        while True:
            self.blanks(lines=True)
            if self.at == len(text):
                return self.root
            if text[self.at] == "[":
                table = self.header()
                self.dotted = set()
            else:
                self.pair(table)
            self.blanks()
            if text[self.at] != "\n":
                raise _UnusualError

    def blanks(self, *, lines: bool = False) -> None:
        """Pass over blanks and a comment; with `lines`, over more lines of these."""
        text, at = self.text, self.at
        while at < len(text):
            sign = text[at]
            if sign == "#":
                at = text.index("\n", at)
            elif sign in " \t" or (lines and sign == "\n"):
                at += 1
            else:
                break
        self.at = at

    def spaces(self) -> None:
        while self.text[self.at] in " \t":
            self.at += 1

    def take(self, sign: str) -> None:
        if self.text[self.at] != sign:
            raise _UnusualError
        self.at += 1

    # --- tables

    def header(self) -> dict[str, Any]:
        """Read [a.b] or [[a.b]]; return the table that it opens."""
        double = self.text.startswith("[[", self.at)
        self.at += 1 + double
        names = self.names()
        self.take("]")
        if double:
            self.take("]")
        here = self.root
        for name in names[:-1]:
            here = self.through(here, name)
        last = names[-1]
        made: dict[str, Any] = {}
        if double:
            if last not in here:
                here[last] = []
                self.arrays.add(id(here[last]))
            if id(here[last]) not in self.arrays:
                raise _UnusualError
            here[last].append(made)
        elif last not in here:
            here[last] = made
        else:
            made = here[last]
            if id(made) not in self.passed or id(made) in self.headed:
                raise _UnusualError
        self.headed.add(id(made))
        self.passed.add(id(made))
        return made

    def through(self, here: dict[str, Any], name: str) -> dict[str, Any]:
        """Return the table of a name in a header that goes on after it."""
        if name not in here:
            here[name] = {}
            self.passed.add(id(here[name]))
        below = here[name]
        if id(below) in self.arrays:
            below = below[-1]
        if id(below) not in self.passed:
            raise _UnusualError
        found: dict[str, Any] = below
        return found

    def pair(self, table: dict[str, Any]) -> None:
        """Read KEY = VALUE into a table."""
        *above, last = self.names()
        self.take("=")
        self.spaces()
        for name in above:
            if name not in table:
                table[name] = {}
                self.dotted.add(id(table[name]))
            table = table[name]
            if id(table) not in self.dotted:
                raise _UnusualError
        if last in table:
            raise _UnusualError
        table[last] = self.value(0)

    def names(self) -> list[str]:
        """Read a key: names with dots between them, and the blanks after it."""
        found = []
        while True:
            self.spaces()
            sign = self.text[self.at]
            if sign in "\"'":
                found.append(self.string(sign))
            else:
                end = self.at
                while self.text[end] in BARE:
                    end += 1
                if end == self.at:
                    raise _UnusualError
                found.append(self.text[self.at : end])
                self.at = end
            self.spaces()
            if self.text[self.at] != ".":
                return found
            self.at += 1

    # --- values

    def value(self, depth: int) -> Any:
        if depth > DEEPEST:
            raise _UnusualError
        sign = self.text[self.at]
        if sign in "\"'":
            return self.string(sign)
        if sign == "[":
            return self.array(depth)
        if sign == "{":
            return self.inline(depth)
        end = self.at
        while self.text[end] not in AFTER_WORD:
            end += 1
        word = self.text[self.at : end]
        self.at = end
        if word in ("true", "false"):
            return word == "true"
        digits = word.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= LONGEST_NUMBER):
            raise _UnusualError
        if digits[0] == "0" and digits != "0":
            raise _UnusualError
        return int(word)

    def string(self, sign: str) -> str:
        """Read a string of one line."""
        start = self.at + 1
        if self.text.startswith(sign * 2, start):  # of several lines, or followed by a fault
            raise _UnusualError
        end = self.text.find(sign, start)
        found = self.text[start:end]
        if end < 0 or "\n" in found:
            raise _UnusualError
        self.at = end + 1
        return found

    def array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        while True:
            self.blanks(lines=True)
            if self.text[self.at : self.at + 1] == "]":
                self.at += 1
                return found
            if self.at == len(self.text):
                raise _UnusualError
            found.append(self.value(depth + 1))
            self.blanks(lines=True)
            if self.text[self.at : self.at + 1] == ",":
                self.at += 1
            elif self.text[self.at : self.at + 1] != "]":
                raise _UnusualError

    def inline(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        self.at += 1
        self.spaces()
        if self.text[self.at] == "}":
            self.at += 1
            return made
        while True:
            *above, last = self.names()
            # Dotted keys in one line are rare enough.
            if above or last in made:
                raise _UnusualError
            self.take("=")
            self.spaces()
            made[last] = self.value(depth + 1)
            self.spaces()
            if self.text[self.at] == "}":
                self.at += 1
                return made
            self.take(",")
