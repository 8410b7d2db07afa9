"""`--trace-time`: where the time of a verb goes, in phases, on stderr.

Nothing of this is loaded without the option, and no other module knows of it: POINTS names the
functions that a phase consists of, and they are wrapped as their modules are imported.  A phase
has the time of its functions less that of other phases within.  To time one more, add a row.

The launcher says through the environment when it began, and what CPU time the process had spent
by then: the exec.  It is the option that asks; the variable alone does nothing.
"""

from __future__ import annotations

import builtins
import sys
import time

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BEGUN = "OCIRT_TRACE_TIME"  # packaging/launcher.c: ns of CLOCK_MONOTONIC, ns of CPU
PHASES = (
    # phase          what it is
    ("exec",        "until the launcher runs: CPU time since the process was born"),
    ("interpreter", "from there to the first line of our own"),
    ("modules",     "import"),
    ("read",        "config.json, --process, records"),
    ("HPC stage",   "what requests for devices add"),
    ("check",       "the config, or the process"),
    ("compile",     "the plan, seccomp included"),
    ("cgroup",      "make it, set limits"),
    ("init ops",    "start the init, feed it, wait while it performs"),
    ("hooks",       "those that run in our namespaces"),
    ("state",       "state.json, gate, lock, pid file, record for later verbs"),
    ("end",         "kill, delete"),
    ("other",       "all the rest"),
)  # fmt: skip

POINTS = (
    # phase       module               functions
    ("read",      "ocirt.bundle",      "load_with_text"),
    ("read",      "ocirt.exec",        "process_of"),
    ("read",      "ocirt.state",       "load Container.config"),
    ("HPC stage", "ocirt.hpc",         "apply mentioned"),
    ("check",     "ocirt.checks",      "run"),
    ("compile",   "ocirt.plan",        "compile compile_entry"),
    ("cgroup",    "ocirt.cgroup",      "open_manager from_record"),
    ("cgroup",    "ocirt.cgroup.fs",   "Manager.remove Manager.undo Manager.kill"),
    ("cgroup",    "ocirt.cgroup.fs_v1", "V1.make V1.limit V1.device_program"),
    ("cgroup",    "ocirt.cgroup.fs_v2", "V2.make V2.limit V2.device_program "
                                        "V2.delegate V2.kill"),
    ("cgroup",    "ocirt.cgroup.systemd", "Systemd.make Systemd.settle Systemd.remove"),
    ("init ops",  "ocirt.launch",      "Init.spawn Init.send_outside Init.send_inside "
                                       "Init._receive"),
    ("hooks",     "ocirt.lifecycle",   "run run_all"),
    ("state",     "ocirt.state",       "claim Container.save Container.save_config Container.draft "
                                       "Container.adopt Container.make_gate Container.status "
                                       "remove_directory"),
    ("state",     "ocirt.quick",       "write forget"),
    ("state",     "ocirt.handover",    "write_pid_file"),
    ("end",       "ocirt.container",   "signal_init _end"),
)  # fmt: skip


class Stopwatch:
    """Time by phase, in ns; one phase runs at any moment."""

    def __init__(self, first: str) -> None:
        self.spent = {phase: 0 for phase, _ in PHASES}
        self._stack = [first]
        self._since = time.monotonic_ns()

    def enter(self, phase: str) -> None:
        """Let a phase run instead of the one that does."""
        self._charge()
        self._stack.append(phase)

    def leave(self) -> None:
        """Go back to the phase before."""
        self._charge()
        self._stack.pop()

    def _charge(self) -> None:
        now = time.monotonic_ns()
        self.spent[self._stack[-1]] += now - self._since
        self._since = now

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, charging its calls to a phase."""

        def call(*arguments: Any, **options: Any) -> Any:
            self.enter(phase)
            try:
                return function(*arguments, **options)
            finally:
                self.leave()

        return call


class Trace:
    """A verb that is being timed.  began: when our first line ran, in ns of CLOCK_MONOTONIC."""

    def __init__(self, verb: str, began: int) -> None:
        self._verb = verb
        self._watch = Stopwatch("other")
        self._import = builtins.__import__
        self._seen: set[str] = set()
        self._watch.spent["modules"] += time.monotonic_ns() - began
        words = os.environ.pop(BEGUN, "").split()
        if len(words) == 2 and all(word.isdecimal() for word in words):
            self._watch.spent["interpreter"] = began - int(words[0])
            self._watch.spent["exec"] = int(words[1])
        builtins.__import__ = self._load
        self._wrap()

    def _load(self, *arguments: Any, **options: Any) -> Any:
        self._watch.enter("modules")
        try:
            return self._import(*arguments, **options)
        finally:
            self._wrap()
            self._watch.leave()

    def _wrap(self) -> None:
        for phase, module, functions in POINTS:
            found = sys.modules.get(module)
            for name in functions.split():
                # A module that is being imported has some of it already.
                there = name.partition(".")[0] in getattr(found, "__dict__", ())
                if there and f"{module}.{name}" not in self._seen:
                    self._seen.add(f"{module}.{name}")
                    replace(found, name, self._watch.timed, phase)
        found = sys.modules.get("ocirt.aside")
        if hasattr(found, "Aside") and "aside" not in self._seen:
            self._seen.add("aside")
            replace(found, "Aside.become", self._told)

    def _told(self, become: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any) -> Any:
            self.report()  # nobody else will: another program takes our place
            return become(*arguments)

        return told

    def report(self) -> None:
        """Print the phases; only once."""
        if builtins.__import__ is self._import:
            return
        builtins.__import__ = self._import
        self._watch.enter("other")
        os.write(2, table(self._verb, self._watch.spent).encode())


def replace(module: Any, name: str, by: Callable[..., Any], *more: Any) -> None:
    """Put by(*more, f) in the place of a function, or of a Class.method, f of a module."""
    holder, _, last = name.rpartition(".")
    owner = getattr(module, holder) if holder else module
    setattr(owner, last, by(*more, owner.__dict__[last]))


def table(verb: str, spent: dict[str, int]) -> str:
    """Return the lines that are printed: microseconds, in the order of PHASES."""
    rows = [(phase, spent[phase] // 1000, about) for phase, about in PHASES if spent[phase]]
    lines = [f"  {phase:<12}{microseconds:>8} us  {about}\n" for phase, microseconds, about in rows]
    total = sum(microseconds for _, microseconds, _ in rows)
    return f"ocirt: {verb}: where the time went\n{''.join(lines)}  {'total':<12}{total:>8} us\n"
