"""ocirt list: print the containers below a state root."""

from __future__ import annotations

import sys

from ocirt import jsonio, log, state
from ocirt import system as os
from ocirt.errors import Error, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options]"
WORDS = (0, 0)
OPTIONS = (
    # long     short  value     default  help
    ("format", "f",   "FORMAT", "table", "table or json"),
    ("quiet",  "q",   "",       False,   "print nothing but ids"),
)  # fmt: skip
ABOUT = "Lists what is below the state root of the caller, or below the one that --root names."

COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
NARROWEST, GAP = 12, 3


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the containers; what cannot be read is a warning."""
    if arguments.format not in ("table", "json"):
        raise Error("invalid format option")
    try:
        ids = state.ids(settings.root)
    except FileNotFoundError:
        if settings.root_given:
            raise
        ids = []  # nobody has made a container yet
    if arguments.quiet:
        sys.stdout.write("".join([f"{container_id}\n" for container_id in ids]))
        return 0
    documents = list(_documents(settings.root, ids))
    if arguments.format == "json":
        sys.stdout.write(jsonio.dumps(documents or None) + "\n")
    else:
        rows = [[str(document[key]) for key in COLUMNS] for document in documents]
        sys.stdout.write(table([[key.upper() for key in COLUMNS], *rows]))
    return 0


def _documents(root: str, ids: Iterable[str]) -> Iterable[dict[str, Any]]:
    for container_id in ids:
        try:
            container = state.load(root, container_id)
            document = container.document()
            uid = os.stat(container.directory).st_uid
        except (NotFound, FileNotFoundError):
            continue  # deleted since we looked
        except (Error, KeyError, TypeError, OSError) as error:
            log.warning(f"load container {container_id}: {error}")
            continue
        document["owner"] = owner(uid)
        yield document


def owner(uid: int) -> str:
    """Return the name of a user, or `#UID` where nobody knows one."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns, in runc's manner: 12 wide at least, 3 blanks between."""
    widths = [
        max(NARROWEST, *[len(cell) + GAP for cell in column]) for column in zip(*rows, strict=True)
    ]
    widths[-1] = 0
    lines = [
        "".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)])
        for row in rows
    ]
    return "".join([line + "\n" for line in lines])
