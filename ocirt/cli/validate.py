"""`ocirt validate`: print every fault of a bundle's config.json, each with its place.

The models of `oci_spec` find what has the wrong shape, `checks` what makes no sense, and
compiling the plan the first thing that this machine cannot do.  Nothing is changed.
"""

from __future__ import annotations

import sys

from ocirt import bundle, checks, shape
from ocirt import system as os
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

    Fault = tuple[str, str]

USAGE = "[options] [BUNDLE]"
WORDS = (0, 1)
OPTIONS = (
    # long      short  value   default        help
    ("config",  "f",   "FILE", "config.json", "the configuration, relative to the bundle"),
    ("explain", "e",   "",     False,         "say what each faulty field is for as well"),
)  # fmt: skip
ABOUT = """\
Prints a line `PLACE: WHAT` for each fault and exits with 1; with 0 and no line when a container
can be made of the bundle. Hints about what would be ignored go to stderr."""


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the faults; an Error only when there is no document to look at."""
    directory = arguments.words[0] if arguments.words else os.getcwd()
    document, _ = bundle.read(directory, arguments.config)
    for place, name in misspelt(document):
        sys.stderr.write(f"hint: {place}: ignored; the specification writes {name}\n")
    found = misshapen(document)
    if not found:
        shape.check(document)  # takes out what is null
        found = checks.faults(document, unprivileged=os.geteuid() != 0)
    if not found:
        found = undoable(directory, arguments.config, settings)
    for place, sentence in found:
        sys.stdout.write(f"{place}: {sentence}\n" if place else f"{sentence}\n")
        text = explanation(place) if arguments.explain else ""
        if text:
            sys.stdout.write(f"    {text}\n")
    return 1 if found else 0


def misshapen(document: Any) -> list[Fault]:
    """Return every place whose type, range or name is not the specification's."""
    from ocirt.cli import cold

    cold.site()
    try:
        from oci_spec.config import Config
        from pydantic import ValidationError
    except ImportError:
        return _first(document)
    try:
        Config.parse(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        return [
            (_place(one["loc"]), _sentence(one["type"], one["loc"], one["input"])) for one in errors
        ]
    return []


def _first(document: Any) -> list[Fault]:
    """Return what the fast check finds, for a machine without pydantic."""
    try:
        shape.check(document)
    except Error as error:
        return [(error.segments[0], ": ".join(error.segments[1:]))]
    return []


def undoable(directory: str, config: str, settings: Settings) -> list[Fault]:
    """Return the first thing that this machine cannot do."""
    from ocirt.cli.create import settle
    from ocirt.create import Draft, Wish

    wish = Wish("validate", settings.root, directory)
    wish.config_name = config
    settle(wish, settings)
    try:
        Draft(wish)
    except Error as error:
        return [(error.segments[0], ": ".join(error.segments[1:]))]
    return []


def misspelt(value: Any, detail: Any = shape.CONFIG, place: str = "") -> list[Fault]:
    """Return (place, right name) of unknown fields that differ from a known one in case only.

    Go programs read `noNewprivileges` as `noNewPrivileges`, and we ignore it as unknown.
    """
    found: list[Fault] = []
    if detail is None:
        return found
    if value.__class__ is list and detail[0] in (list, dict):
        for index, item in enumerate(value):
            found += misspelt(item, detail[2], f"{place}[{index}]")
    elif value.__class__ is dict:
        fields = detail[0] if detail[0].__class__ is dict else None
        small = {name.lower(): name for name in fields or ()}
        for name, item in value.items():
            where = f"{place}.{name}".removeprefix(".")
            rule = fields.get(name) if fields else detail
            if rule is not None:
                if rule[0] in (list, dict) and rule[2] is not None:
                    found += misspelt(item, rule[2], where)
            elif name.lower() in small:
                found.append((where, small[name.lower()]))
    return found


def explanation(place: str) -> str:
    """Return what the field at a place is for."""
    from ocirt.cli import cold

    cold.site()
    try:
        from oci_spec.explain import describe
    except ImportError:
        return ""
    return describe(place)


def _place(path: tuple[int | str, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _sentence(kind: str, path: tuple[int | str, ...], value: Any) -> str:
    """Word a fault as the fast check does, by the rule of its place."""
    if kind == "missing":
        return "missing"
    rule = (dict, False, shape.CONFIG)
    for part in path:
        detail: Any = rule[2]
        rule = detail[0][part] if detail[0].__class__ is dict else detail
    return shape.refusal(rule, value)
