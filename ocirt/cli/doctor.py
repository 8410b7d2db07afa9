"""ocirt doctor: print what this machine can do for containers, and what to do about the rest."""

from __future__ import annotations

import sys

from ocirt import system as os
from ocirt.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings
    from ocirt.doctor import Row

USAGE = "[options]"
WORDS = (0, 0)
OPTIONS = (
    # long     short  value     default  help
    ("format", "f",   "FORMAT", "table", "table or json"),
    ("root",   "",    "DIR",    "/",     "look at the files below DIR, such as another machine's"),
)  # fmt: skip
ABOUT = """\
ok      works
info    there, or not; nothing depends on it
lacks   something that is not always needed will be refused
fails   ocirt itself needs it; the exit code is 1"""


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the rows; 1 when ocirt cannot work here."""
    from ocirt import doctor

    if arguments.format not in ("table", "json"):
        raise UsageError(f"invalid format option: {arguments.format}")
    rows = doctor.examine(doctor.Machine(arguments.root, os.geteuid()))
    if arguments.format == "json":
        from ocirt import jsonio

        keys = ("area", "name", "status", "value", "advice")
        documents = [dict(zip(keys, row, strict=True)) for row in rows]
        sys.stdout.write(jsonio.dumps(documents, indent=2) + "\n")
    else:
        sys.stdout.write(table(rows))
    return int(any(row[2] == doctor.FAILS for row in rows))


def table(rows: list[Row]) -> str:
    """Return the rows as aligned lines below the names of their areas, advice below its row."""
    width = max(len(row[1]) for row in rows)
    lines, current = [], ""
    for area, name, status, value, advice in rows:
        if area != current:
            lines.append(f"{area}:")
            current = area
        lines.append(f"  {status:<6} {name:<{width}}  {value}".rstrip())
        if advice:
            lines.append(f"  {'':<6} {'':<{width}}  -> {advice}")
    return "\n".join(lines) + "\n"
