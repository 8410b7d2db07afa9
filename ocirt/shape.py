"""Check that a config has the shape of the specification: types, ranges, names, required fields.

The facts are in `_generated_shape.py`, made from the models of `oci_spec`, so that there is one
truth; this is the fifty lines that walk them.  What a config *means* is the business of
`checks.py`.  To know a new field: add it to the model and run `python3 -m oci_spec.tables`.
"""

# ruff: noqa: B007 - the loop variables are read when a fault is on its way up

from __future__ import annotations

from ocirt._generated_shape import CONFIG, PROCESS, RESOURCES
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CONFIG", "PROCESS", "RESOURCES", "check"]

EXPECTED = {
    str: "expected a string",
    int: "expected an integer",
    bool: "expected true or false",
    list: "expected a list",
    dict: "expected an object",
}

# How engines and their users know these refusals (runc's sentences); the rest get a plain one.
WORDS = {
    "SeccompAction": "string {} is not a valid action for seccomp",
    "SeccompOperator": "string {} is not a valid operator for seccomp",
    "SeccompArch": "string {} is not a valid arch for seccomp",
    "SeccompFlag": "seccomp flag {} is not known to ocirt",
    "DeviceType": 'invalid device type "{}"',
    "DeviceRuleType": 'invalid cgroup device type "{}"',
    "RlimitType": "wrong rlimit value: {}",
    "SchedulerPolicy": "invalid scheduler policy: {}",
    "SchedulerFlag": "invalid scheduler flag: {}",
    "IOPriorityClass": 'invalid ioPriority.Class: "{}"',
    "PersonalityDomain": "invalid personality domain {}",
    "MemoryPolicyMode": 'invalid memory policy mode "{}"',
    "MemoryPolicyFlag": 'invalid memory policy flag "{}"',
    "RootfsPropagation": "rootfsPropagation={} is not supported",
    # never "does not exist": shims take that for an unknown container
    "NamespaceType": 'unknown namespace type "{}"',
}


def check(value: Any, shape: Any = CONFIG, where: str = "") -> None:
    """Raise ConfigError for the first fault, with its place: `process.user.uid`.

    Takes fields out of `value` that hold null where null means absent, so that nobody later
    meets a None.  `where` is the place of `value` itself when it is a part of a config.
    """
    if value.__class__ is not dict:
        raise ConfigError(where or "the document", EXPECTED[dict])
    try:
        _object(value, shape[0], shape[1])
    except ConfigError as error:
        error.segments[0] = (where + error.segments[0]).removeprefix(".")
        raise


def _object(value: dict[str, Any], fields: dict[str, Any], required: tuple[str, ...]) -> None:
    key = ""
    nulls = []
    try:
        for key, item in value.items():
            rule = fields.get(key)
            if rule is None:
                continue
            kind, nullable, detail = rule
            if item.__class__ is not kind:
                if item is None and nullable:
                    nulls.append(key)
                    continue
                raise ConfigError("", EXPECTED[kind])
            if detail is not None:
                _inside(item, kind, detail)
        for key in nulls:
            del value[key]
        for key in required:
            if key not in value:
                raise ConfigError("", "missing")
    except ConfigError as error:
        error.segments[0] = f".{key}{error.segments[0]}"
        raise


def _inside(item: Any, kind: type, detail: Any) -> None:
    """Check a value whose class is right already."""
    if kind is list:
        _list(item, *detail)
    elif kind is dict:
        if detail[0].__class__ is dict:
            _object(item, detail[0], detail[1])
        else:
            _map(item, *detail)
    elif kind is str:
        if item not in detail[1]:
            raise ConfigError("", refusal((kind, False, detail), item))
    elif not detail[0] <= item <= detail[1]:
        raise ConfigError("", refusal((kind, False, detail), item))


def _list(items: list[Any], kind: type, _nullable: bool, detail: Any) -> None:
    index = 0
    try:
        if kind is str and detail is None:
            # Most lists hold only strings, and join looks at them at the speed of C.
            try:
                "".join(items)
            except TypeError:
                pass
            else:
                return
        for index, item in enumerate(items):
            if item.__class__ is not kind:
                raise ConfigError("", EXPECTED[kind])
            if detail is not None:
                _inside(item, kind, detail)
    except ConfigError as error:
        error.segments[0] = f"[{index}]{error.segments[0]}"
        raise


def _map(items: dict[str, Any], kind: type, _nullable: bool, detail: Any) -> None:
    key = ""
    try:
        for key, item in items.items():
            if item.__class__ is not kind:
                raise ConfigError("", EXPECTED[kind])
            if detail is not None:
                _inside(item, kind, detail)
    except ConfigError as error:
        error.segments[0] = f".{key}{error.segments[0]}"
        raise


def refusal(rule: tuple[type, bool, Any], item: Any) -> str:
    """Word why `item` breaks a rule of the tables."""
    kind, _, detail = rule
    if item.__class__ is not kind:
        return EXPECTED[kind]
    if kind is int:
        return f"expected an integer from {detail[0]} to {detail[1]}"
    name, allowed = detail
    words = WORDS.get(name)
    if words is None:
        words = "{} is not one of " + ", ".join(sorted(filter(None, allowed)))
    return words.format(item)
