"""ocirt plan: print what create would have the init do, and change nothing."""

from __future__ import annotations

import sys

from ocirt import jsonio
from ocirt import system as os
from ocirt.cli.create import settle
from ocirt.create import Draft, Wish
from ocirt.plan import ops

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] BUNDLE"
WORDS = (0, 1)
OPTIONS = (
    # long      short  value     default        help
    ("config",  "f",   "FILE",   "config.json", "the configuration, relative to the bundle"),
    ("device",  "",    "NAME",   (),            "add a CDI device: vendor/class=name; repeatable"),
    ("format",  "",    "FORMAT", "table",       "table or json"),
    ("id",      "",    "ID",     "plan",        "the container's id"),
)  # fmt: skip
ABOUT = "Compile the bundle's config.json into the steps of container setup, each with its origin."

ARGUMENTS = {name: names.split() for _, name, _, names in ops.OPS}


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the plan; an Error names what cannot be done."""
    from ocirt.errors import UsageError

    if arguments.format not in ("table", "json"):
        raise UsageError(f"invalid format option: {arguments.format}")
    wish = Wish(arguments.id, settings.root, arguments.words[0] if arguments.words else os.getcwd())
    wish.config_name = arguments.config
    wish.devices = arguments.device
    settle(wish, settings)
    draft = Draft(wish)
    rows = _writes(draft) + _resctrl(draft) + [_row(op) for op in draft.plan]
    if arguments.format == "json":
        sys.stdout.write(jsonio.dumps(rows, indent=2) + "\n")
    else:
        sys.stdout.write(table(rows))
    return 0


def _writes(draft: Draft) -> list[dict[str, Any]]:
    """What the runtime itself writes into the cgroup before the init starts."""
    if draft.manager is None:
        return []
    resources = draft.linux.get("resources") or {}
    name = draft.edits.name if draft.edits else str
    asked = [
        {"op": "systemd", "what": what, "from": whom, "arguments": {}}
        for whom, what in draft.manager.asks(resources)
    ]
    return asked + [
        {"op": "cgroup", "what": f"{file} = {value}", "from": name(where), "arguments": {}}
        for file, value, where in draft.manager.writes(resources)
    ]


def _resctrl(draft: Draft) -> list[dict[str, Any]]:
    """What the runtime itself makes and writes in resctrl."""
    if draft.resctrl is None:
        return []
    where = draft.edits.name("linux.intelRdt") if draft.edits else "linux.intelRdt"
    return [
        {"op": "resctrl", "what": line, "from": where, "arguments": {}}
        for line in draft.resctrl.describe()
    ]


def _row(op: ops.Op) -> dict[str, Any]:
    names = ARGUMENTS[op.name]
    arguments = {
        name: f"{len(value)} bytes" if isinstance(value, bytes) else value
        for name, value in zip(names, op.args, strict=True)
    }
    return {"op": op.name, "what": op.what, "from": op.where, "arguments": arguments}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as lines: number, op, what it is about, where in config.json it is from."""
    width = max(len(row["op"]) for row in rows)
    lines = [f" #   {'op'.ljust(width)}  {'what'.ljust(52)}  from"]
    for number, row in enumerate(rows):
        what = row["what"].replace("\n", " ") + _options(row)
        lines.append(
            f"{number:3}  {row['op'].ljust(width)}  {what.ljust(52)}  {row['from']}".rstrip()
        )
    return "\n".join(lines) + "\n"


def _options(row: dict[str, Any]) -> str:
    """Word flags and data of a mount, which its subject does not show."""
    given = row["arguments"]
    words = []
    if row["op"] in ("mount", "remount"):
        from ocirt.plan import mountopts

        words = [
            name
            for name, (flag, sets, _) in mountopts.FLAGS.items()
            if sets and flag and given["flags"] & flag
        ]
        words += [given["data"]] if given["data"] else []
    elif row["op"] in ("bind", "set_attr"):
        from ocirt.plan import mountopts

        words = [
            name
            for name, (_, sets, attribute) in mountopts.FLAGS.items()
            if sets and attribute and given["set"] & attribute
        ]
    return f" ({','.join(words)})" if words else ""
