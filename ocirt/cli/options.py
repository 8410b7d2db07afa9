"""Read a command line by tables, and print help from the same tables.

A verb is one file, ocirt/cli/VERB.py, with a row in COMMANDS (ocirt/cli/__init__.py).  It is
imported only when it is called, and has this shape:

    USAGE = "[options] ID"      # printed after "ocirt VERB"
    WORDS = (1, 1)              # the fewest and the most words that are no options; None: no end
    OPTIONS = (
        # long            short  value   default  help (empty: not shown)
        ("bundle",        "b",   "DIR",  "",      "the bundle; without it the current directory"),
        ("preserve-fds",  "",    "N",    0,       "hand over descriptors 3 to 3+N-1 as well"),
        ("no-pivot",      "",    "",     False,   "move the root file system instead"),
        ("env",           "e",   "K=V",  (),      "add to the environment; may be repeated"),
    )
    ABOUT = "..."               # optional: a paragraph for `ocirt VERB --help`
    OPTIONS_FIRST = True        # optional: options end at the first word (exec, kill, ps)

    def run(arguments: Arguments, settings: Settings) -> int:
        (container_id,) = arguments.words
        ...
        return 0                # the exit code; every failure is raised as an ocirt.errors.Error

The default's type is the option's: bool takes no value, int a whole number, str a text, tuple
may be repeated.  In `arguments` an option is an attribute, with _ for -: `arguments.no_pivot`.
`settings` (ocirt/cli/settings.py) holds what stands before the verb: root, cgroup_driver, ...

The rules are those that callers of runc rely on: `-flag` is `--flag`; `--flag=v` and
`--flag v`; options after the words, too.  Of crun's we take the bundles of letters (`-ti`).
"""

from __future__ import annotations

from ocirt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TypeAlias

    Row: TypeAlias = tuple[str, str, str, Any, str]

HELP: Row = ("help", "h", "", False, "show help")

YES = ("1", "t", "T", "true", "TRUE", "True")
NO = ("0", "f", "F", "false", "FALSE", "False")


class Arguments:
    """The options of one verb as attributes, and `words`: what is no option."""

    def __init__(self, options: Iterable[Row]) -> None:
        self.words: list[str] = []
        for name, _, _, default, _ in options:
            self.__dict__[name.replace("-", "_")] = [] if default == () else default

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def parse(
    options: Sequence[Row],
    argv: Sequence[str],
    *,
    options_first: bool = False,
    arguments: Arguments | None = None,
) -> Arguments:
    """Sort `argv` into options and words; UsageError names the first that does not fit."""
    options = (*options, HELP)
    found = arguments or Arguments(options)
    known: dict[str, Row] = {}
    for row in options:
        known[row[0]] = row
        if row[1]:
            known[row[1]] = row
    index, end = 0, len(argv)
    while index < end:
        word = argv[index]
        index += 1
        if word[:1] != "-" or word == "-":
            found.words.append(word)
            if options_first:
                found.words += argv[index:]
                break
            continue
        if word == "--":
            found.words += argv[index:]
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name[0] == "-":
            raise UsageError(f"bad flag syntax: {word}")
        for part, last in _letters(name, word, known):
            row = known[part]
            if row[3].__class__ is bool and not (equals and last):
                found.__dict__[row[0].replace("-", "_")] = True
                continue
            if not equals:
                if index == end:
                    raise UsageError(f"flag needs an argument: -{part}")
                value = argv[index]
                index += 1
            _store(found, row, part, value)
    return found


def _letters(name: str, word: str, known: dict[str, Row]) -> list[tuple[str, bool]]:
    """Return the options that `name` stands for, each with "is the last": one, or a bundle."""
    if name in known:
        return [(name, True)]
    bundle = word[1] != "-" and all(letter in known for letter in name)
    # Only the last letter may take a value, or a misspelt `-bundel` would mean `-b undel`.
    if not bundle or any(known[letter][3].__class__ is not bool for letter in name[:-1]):
        raise UsageError(f"flag provided but not defined: -{name}")
    last = len(name) - 1
    return [(letter, place == last) for place, letter in enumerate(name)]


def _store(found: Arguments, row: Row, name: str, value: str) -> None:
    attribute, default = row[0].replace("-", "_"), row[3]
    if default.__class__ is bool:
        if value not in YES and value not in NO:
            raise UsageError(f'invalid boolean value "{value}" for -{name}: parse error')
        found.__dict__[attribute] = value in YES
    elif default.__class__ is int:
        digits = value[1:] if value[:1] in ("-", "+") else value
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
            raise UsageError(f'invalid value "{value}" for flag -{name}: parse error')
        found.__dict__[attribute] = int(value)
    elif default == ():
        found.__dict__[attribute].append(value)
    else:
        found.__dict__[attribute] = value


def count(verb: str, words: Sequence[str], limits: tuple[int, int | None]) -> None:
    """Refuse a wrong number of words, in runc's sentences."""
    fewest, most = limits
    if fewest == most and len(words) != fewest:
        raise UsageError(f'ocirt: "{verb}" requires exactly {fewest} argument(s)')
    if len(words) < fewest:
        raise UsageError(f'ocirt: "{verb}" requires a minimum of {fewest} argument(s)')
    if most is not None and len(words) > most:
        raise UsageError(f'ocirt: "{verb}" requires a maximum of {most} argument(s)')


def table(options: Iterable[Row]) -> str:
    """Return the lines of help for `options`."""
    rows = []
    for name, short, value, default, text in (*options, HELP):
        if not text:
            continue
        value = f" {value}" if value else ""
        left = f"--{name}{value}" + (f", -{short}{value}" if short else "")
        if default and default.__class__ is not bool:
            text = f"{text} (default: {default})"
        rows.append((left, text))
    return columns(rows)


def columns(rows: Sequence[tuple[str, str]]) -> str:
    """Return two aligned columns, indented by three."""
    width = max((len(left) for left, _ in rows), default=0)
    return "".join([f"   {left:<{width}}  {text}\n" for left, text in rows])


def help_verb(verb: str, summary: str, module: Any) -> str:
    """Return what `ocirt VERB --help` prints."""
    text = f"NAME:\n   ocirt {verb} - {summary}\n\nUSAGE:\n   ocirt {verb} {module.USAGE}\n"
    if about := getattr(module, "ABOUT", ""):
        text += "\nDESCRIPTION:\n" + "".join([f"   {line}\n" for line in about.splitlines()])
    return f"{text}\nOPTIONS:\n{table(module.OPTIONS)}"
