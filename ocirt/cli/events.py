"""ocirt events: print what a container uses, and when the kernel kills for want of memory."""

from __future__ import annotations

import sys
import time

from ocirt import cgroup as groups
from ocirt import jsonio, state
from ocirt import system as os
from ocirt.cgroup import oom, stats
from ocirt.errors import Error, StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup.fs import Manager
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings
    from ocirt.state import Container

USAGE = "[options] ID"
WORDS = (1, 1)
OPTIONS = (
    # long       short  value       default  help
    ("interval", "",    "DURATION", "5s",    "time from one line of statistics to the next"),
    ("stats",    "",    "",         False,   "print the statistics once"),
)  # fmt: skip
ABOUT = """\
Prints one JSON object a line, of the type `stats` or `oom`, until the container ends. A DURATION
is a number with a unit, such as 500ms, 5s or 1m30s."""

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def run(arguments: Arguments, settings: Settings) -> int:
    """Print events until the container ends; 0, or an Error."""
    container = state.load(settings.root, arguments.words[0])
    interval = duration(arguments.interval)
    if interval <= 0:
        raise Error("duration interval must be greater than 0")
    if container.status() == state.STOPPED:
        raise StateError(f"container with id {container.id} is not running")
    record = container.record.get("cgroup")
    if not record:
        raise StateError("cannot collect statistics: cgroups not configured for container")
    manager = groups.from_record(record)
    if arguments.stats:
        _print_stats(container, manager)
    else:
        follow(container, manager, interval)
    return 0


def follow(container: Container, manager: Manager, interval: float) -> None:
    """Print what happens until the container's init has ended."""
    import select

    watch = oom.open_watch(manager)
    poll = select.poll()
    if watch:
        poll.register(watch.fd, watch.mask)
    try:
        end = os.pidfd_open(container.pid)
    except OSError:
        return
    poll.register(end, select.POLLIN)
    due = time.monotonic() + interval
    while container.alive():  # looked at with the pidfd in hand: the pid is not another's now
        left = max(due - time.monotonic(), 0.0)
        ready = {fd for fd, _ in poll.poll(-(-left * 1000 // 1))}
        if watch and watch.fd in ready and watch.fired():
            _print({"type": "oom", "id": container.id})
        if end in ready:
            break
        if time.monotonic() >= due:
            _print_stats(container, manager)
            due = max(due + interval, time.monotonic())
    if watch and watch.fired():
        _print({"type": "oom", "id": container.id})


def _print_stats(container: Container, manager: Manager) -> None:
    data = stats.gather(manager)
    if container.record.get("resctrl"):
        from ocirt import resctrl

        data["intel_rdt"] = resctrl.Group(container.record["resctrl"]).stats()
    _print({"type": "stats", "id": container.id, "data": data})


def _print(event: dict[str, Any]) -> None:
    sys.stdout.write(jsonio.dumps(event) + "\n")
    sys.stdout.flush()


def duration(text: str) -> float:
    """Return the seconds of a duration as Go writes it: `5s`, `1m30s`, `1.5h`."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, complete = 0.0, False
    while rest:
        word = rest.lstrip("0123456789.")
        number = rest[: len(rest) - len(word)]
        rest = word.lstrip("".join(UNITS))
        unit = word[: len(word) - len(rest)]
        complete = unit in UNITS and number.count(".") <= 1 and number.strip(".") != ""
        if not complete:
            break
        total += float(number) * UNITS[unit]
    if not complete:
        raise UsageError(f'invalid value "{text}" for flag -interval: parse error')
    return sign * total
