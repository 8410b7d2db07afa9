"""ocirt ps: print the processes of a container."""

from __future__ import annotations

import sys

from ocirt import container, jsonio, state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID [PS-OPTIONS...]"
WORDS = (1, None)
OPTIONS_FIRST = True
OPTIONS = (
    # long    short  value     default  help
    ("format", "f",  "FORMAT", "table", "table or json, a list of process ids"),
)  # fmt: skip
ABOUT = """\
The table is that of the host's own ps with PS-OPTIONS (-ef when there are none), less the lines
of other processes."""


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the processes; none are no error."""
    container_id, *words = arguments.words
    pids = container.processes(state.load(settings.root, container_id))
    if arguments.format == "json":
        sys.stdout.write(jsonio.dumps(pids or None) + "\n")
    elif arguments.format == "table":
        sys.stdout.buffer.write(table(_host_ps(words or ["-ef"]), pids))
    else:
        raise Error("invalid format option")
    return 0


def table(text: bytes, pids: list[int]) -> bytes:
    """Keep of what ps printed the header and the lines of `pids`."""
    header, *lines = text.splitlines(keepends=True) or [b""]
    names = header.split()
    if b"PID" not in names:
        raise Error("couldn't find PID field in ps output")
    column = names.index(b"PID")
    wanted = {b"%d" % pid for pid in pids}
    kept = []
    for line in lines:
        word = b"".join(line.split()[column : column + 1])
        if line.strip() and not word.isdigit():  # a column before it has blanks in it
            raise Error(f"unable to parse pid: {word.decode(errors='replace')!r}")
        if word in wanted:
            kept.append(line)
    return b"".join([header, *kept])


def _host_ps(words: list[str]) -> bytes:
    import subprocess

    try:
        done = subprocess.run(
            ["ps", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except FileNotFoundError:
        raise Error('exec: "ps": executable file not found in $PATH') from None
    if done.returncode:
        what = done.stdout.decode(errors="replace").strip().partition("\n")[0]
        raise Error(f"ps: exit status {done.returncode}", what)
    return done.stdout
