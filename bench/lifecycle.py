#!/usr/bin/env python3
"""Race OCI runtimes through the life of a container, and print who spends what.

    sudo python3 bench/lifecycle.py [--rounds N | --quick] [--format json] [--gate]

Per round and runtime: create, start, state, kill, delete of one container, then `run` of
another that ends at once.  The runtimes take turns within a round, each round in another
order, so that a slow moment of the machine hits all of them.  Wall time is what the caller
waits; CPU time is what wait4 reports for the command and all it has waited for, and
`init` is the same for the container's first process, which we reap as an engine's shim
does.  Work the kernel does later (tearing down namespaces) is in neither.

The uncounted first round fills what may be kept from one container to the next: the page
cache, and ocirt's store of compiled seccomp programs.

Memory is taken in rounds of its own, below busybox: a process begins its life with the peak
of the program that it was forked from, and ours is a large one.  So about 1.4 MiB is the
least that a command can show.

Phases are what `ocirt --trace-time` prints, in rounds of their own.

Where `perf` can count them, the instructions of each command (its children and the init up
to the gate included) are printed too: they hardly change when the machine is busy.

Everything happens in a private mount namespace, in which /sys/fs/cgroup/unified is not
mounted (crun refuses the hybrid layout) and the bundle lies on a tmpfs of our own.
Only the cgroup /ocirt-bench-PID is made on the machine, and removed.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import glob
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import bundle

if TYPE_CHECKING:
    import resource
    from collections.abc import Callable, Iterator
    from typing import Any

VERBS = ("create", "start", "state", "kill", "delete")
CGROUP = f"ocirt-bench-{os.getpid()}"  # nobody else is to sweep it
RUNTIMES = ("ocirt", "runc", "crun")
BUDGET_INIT_KIB = 1024
PHASE_ROUNDS = 10

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH = 2
PR_SET_CHILD_SUBREAPER = 36

libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A runtime or the machine would not do what the benchmark needs; str() says which."""


def kernel(result: int, what: str) -> None:
    if result != 0:
        raise BenchError(f"{what}: {os.strerror(ctypes.get_errno())}")


def work_in_memory(folder: str) -> None:
    """Mount a tmpfs on a directory, in a mount namespace of our own: disks have moods."""
    kernel(libc.unshare(CLONE_NEWNS), "unshare")
    kernel(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
    kernel(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, b"mode=755"), "mount tmpfs")


def enter_private_world(folder: str) -> None:
    work_in_memory(folder)
    if os.path.ismount("/sys/fs/cgroup/unified"):
        # crun looks for hybrid by the file system here, and then makes plain directories.
        path = b"/sys/fs/cgroup/unified"
        kernel(libc.umount2(path, MNT_DETACH), "unmount unified cgroup")
        kernel(libc.mount(b"tmpfs", path, b"tmpfs", 0, None), "mount tmpfs")
    # Containers must become our children when `create` has gone, as with an engine's shim.
    kernel(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


@dataclass
class Spent:
    """What one command cost."""

    wall_ms: float
    cpu_ms: float


@dataclass
class Runtime:
    name: str
    path: str
    root: str
    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    instructions: dict[str, int] = field(default_factory=dict)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)  # us, by verb

    def command(self, verb: str, *args: str) -> list[str]:
        return [self.path, "--root", self.root, verb, *args]

    def note(self, verb: str, wall_ms: float | None, cpu_ms: float) -> None:
        if wall_ms is not None:
            self.wall.setdefault(verb, []).append(wall_ms)
        self.cpu.setdefault(verb, []).append(cpu_ms)


def cpu_ms(usage: resource.struct_rusage) -> float:
    return (usage.ru_utime + usage.ru_stime) * 1000


class Bench:
    def __init__(self, folder: str, busybox: str, runtimes: list[Runtime]) -> None:
        self.folder = folder
        self.busybox = busybox
        self.runtimes = runtimes
        self.output = os.path.join(folder, "output")
        self.pid_file = os.path.join(folder, "pid")
        self.made = 0
        bundle.make_files(folder, busybox)
        make = bundle.make_bundle
        self.sleeper = make(folder, "sleeper", ["/bin/sleep", "1000"], f"/{CGROUP}/sleeper")
        self.short = make(folder, "short", ["/bin/true"], f"/{CGROUP}/short")

    # -- commands ------------------------------------------------------------------------

    def spawn(self, argv: list[str]) -> int:
        """Start `argv` with the stdio of a daemon's child; return its pid."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, self.output, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        return os.posix_spawn(argv[0], argv, ENVIRONMENT, file_actions=actions)

    def said(self) -> str:
        with open(self.output, encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:].strip()

    def call(self, argv: list[str]) -> Spent:
        """Run `argv` to its end and return its cost; anything but success ends the race."""
        begin = time.perf_counter()
        pid = self.spawn(argv)
        _, status, usage = os.wait4(pid, 0)
        wall = (time.perf_counter() - begin) * 1000
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            raise BenchError(f"exit status {code}: {' '.join(argv)}\n{self.said()}")
        return Spent(wall, cpu_ms(usage))

    def new_id(self) -> str:
        self.made += 1
        return f"bench{self.made}"

    def created_pid(self) -> int:
        with open(self.pid_file, encoding="ascii") as file:
            return int(file.read())

    @staticmethod
    def reap() -> float:
        """Reap what is left of the container, waiting for it; return its CPU milliseconds."""
        spent = 0.0
        while True:
            try:
                spent += cpu_ms(os.wait4(-1, 0)[2])
            except ChildProcessError:
                return spent

    # -- rounds --------------------------------------------------------------------------

    def life(self, runtime: Runtime, keep: bool) -> None:
        container_id = self.new_id()
        make = ("--bundle", self.sleeper, "--pid-file", self.pid_file)
        sum_wall = sum_cpu = 0.0
        for verb, args in (
            ("create", (*make, container_id)),
            ("start", (container_id,)),
            ("state", (container_id,)),
            ("kill", (container_id, "KILL")),
            ("delete", (container_id,)),
        ):
            if verb == "delete":
                init = self.reap()
                sum_cpu += init
                if keep:
                    runtime.note("init", None, init)
            spent = self.call(runtime.command(verb, *args))
            if verb == "state" and json.loads(self.said())["status"] != "running":
                raise BenchError(f"{runtime.name}: not running after start:\n{self.said()}")
            sum_wall += spent.wall_ms
            sum_cpu += spent.cpu_ms
            if keep:
                runtime.note(verb, spent.wall_ms, spent.cpu_ms)
        if keep:
            runtime.note("sum", sum_wall, sum_cpu)

    def run(self, runtime: Runtime, keep: bool) -> None:
        spent = self.call(runtime.command("run", "--bundle", self.short, self.new_id()))
        spent.cpu_ms += self.reap()
        if keep:
            runtime.note("run", spent.wall_ms, spent.cpu_ms)

    def race(self, rounds: int) -> None:
        for number in range(-1, rounds):  # round -1 is not counted
            for runtime in in_turn(self.runtimes, number):
                self.life(runtime, number >= 0)
            for runtime in in_turn(self.runtimes, number):
                self.run(runtime, number >= 0)

    # -- memory --------------------------------------------------------------------------

    def max_rss(self, argv: list[str]) -> int:
        """Run `argv` below busybox and return what that calls its maximum resident set."""
        report = os.path.join(self.folder, "time")
        self.call([self.busybox, "time", "-v", "-o", report, *argv])
        with open(report, encoding="ascii") as file:
            lines = [line for line in file if "Maximum resident set size" in line]
        return int(lines[0].rpartition(":")[2])

    def peak(self, runtime: Runtime, verb: str, *args: str) -> None:
        kib = self.max_rss(runtime.command(verb, *args)) // self.rss_unit
        runtime.memory[verb] = max(kib, runtime.memory.get(verb, 0))

    @functools.cached_property
    def rss_unit(self) -> int:
        # busybox takes the kernel's KiB for pages; a known program tells whether this one does.
        copy = [self.busybox, "dd", "if=/dev/zero", "of=/dev/null", "bs=32M", "count=1"]
        return max(1, self.max_rss(copy) // (32 << 10))

    def each_verb(self, take: Callable[..., None], runtime: Runtime) -> None:
        """Lead a container through its life with `take(runtime, verb, *args)`."""
        container_id = self.new_id()
        make = ("--bundle", self.sleeper, "--pid-file", self.pid_file)
        take(runtime, "create", *make, container_id)
        rss, pss = resident([self.created_pid()])
        runtime.memory.update({"waiting_init_rss": rss, "waiting_init_pss": pss})
        take(runtime, "start", container_id)
        take(runtime, "state", container_id)
        take(runtime, "kill", container_id, "KILL")
        self.reap()
        take(runtime, "delete", container_id)
        take(runtime, "run", "--bundle", self.short, self.new_id())
        self.reap()

    def count(self, runtime: Runtime, verb: str, *args: str) -> None:
        report = os.path.join(self.folder, "perf")
        perf = [self.perf, "stat", "-x,", "-e", "instructions", "-o", report, "--"]
        self.call(perf + runtime.command(verb, *args))
        number = instructions(report)
        runtime.instructions[verb] = min(number, runtime.instructions.get(verb, number))

    @functools.cached_property
    def perf(self) -> str:
        """A perf that can count, else nothing: virtual machines often have no counters."""
        path = shutil.which("perf", path=ENVIRONMENT["PATH"])
        report = os.path.join(self.folder, "perf")
        if not path:
            return ""
        try:
            self.call([path, "stat", "-x,", "-e", "instructions", "-o", report, "/bin/true"])
        except BenchError:
            return ""
        return path if instructions(report) else ""

    def measure_waiting_run(self, runtime: Runtime) -> None:
        container_id = self.new_id()
        if os.path.exists(self.pid_file):
            os.unlink(self.pid_file)
        args = ("--bundle", self.sleeper, "--pid-file", self.pid_file, container_id)
        pid = self.spawn(runtime.command("run", *args))
        init = self.wait_for_program(pid)
        time.sleep(0.3)  # let it settle into waiting
        rss, pss = resident([one for one in family(pid) if one != init])
        runtime.memory.update({"waiting_run_rss": rss, "waiting_run_pss": pss})
        os.kill(init, signal.SIGKILL)
        self.reap()

    def wait_for_program(self, pid: int) -> int:
        for _ in range(1000):
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise BenchError(f"run ended early:\n{self.said()}")
            if os.path.exists(self.pid_file):
                init = self.created_pid()
                with open(f"/proc/{init}/cmdline", "rb") as file:
                    if file.read().startswith(b"/bin/sleep\0"):
                        return init
            time.sleep(0.01)
        raise BenchError("run: the program has not begun after 10 s")

    # -- where the time goes ---------------------------------------------------------------

    def measure_phases(self, runtime: Runtime, rounds: int) -> None:
        """Take the medians of what `--trace-time` tells, for who knows that option."""
        if "--trace-time" not in self.told(runtime.path, "--help"):
            return
        seen: dict[str, dict[str, list[int]]] = {}
        for _ in range(rounds):
            container_id = self.new_id()
            make = ("--bundle", self.sleeper, "--pid-file", self.pid_file)
            for verb, args in (
                ("create", (*make, container_id)),
                ("exec", (container_id, "/bin/true")),
                ("run", ("--bundle", self.short, self.new_id())),
            ):
                self.call([runtime.path, "--root", runtime.root, "--trace-time", verb, *args])
                for phase, spent in phases(self.said()).items():
                    seen.setdefault(verb, {}).setdefault(phase, []).append(spent)
            self.call(runtime.command("delete", "--force", container_id))
            self.reap()
        for verb, found in seen.items():
            runtime.phases[verb] = {name: statistics.median(each) for name, each in found.items()}

    def told(self, *argv: str) -> str:
        self.call(list(argv))
        with open(self.output, encoding="utf-8") as file:
            return file.read()

    # -- many at once --------------------------------------------------------------------

    def parallel(self, runtime: Runtime, number: int) -> float:
        """Return the wall milliseconds per container of `number` times `run` at once."""
        ids = [self.new_id() for _ in range(number)]
        bundles = [
            bundle.make_bundle(self.folder, name, ["/bin/true"], f"/{CGROUP}/{name}")
            for name in ids
        ]
        begin = time.perf_counter()
        pids = {
            self.spawn(runtime.command("run", "--bundle", path, name))
            for path, name in zip(bundles, ids, strict=True)
        }
        failed = 0
        while pids:
            pid, status = os.wait()
            if pid in pids:
                pids.discard(pid)
                failed += status != 0
        wall = (time.perf_counter() - begin) * 1000
        if failed:
            raise BenchError(f"{runtime.name}: {failed} of {number} failed:\n{self.said()}")
        return wall / number

    # -- the end -------------------------------------------------------------------------

    def clean(self) -> None:
        """Remove what a failed race left: containers, processes, cgroups."""
        for runtime in self.runtimes:
            if not os.path.isdir(runtime.root):
                continue
            for container_id in os.listdir(runtime.root):
                pid = self.spawn(runtime.command("delete", "--force", container_id))
                os.waitpid(pid, 0)
        for path in cgroup_folders():
            for procs in glob.glob(f"{path}/**/cgroup.procs", recursive=True):
                with open(procs, encoding="ascii") as file:
                    for line in file:
                        kill(int(line))
        self.reap()
        for path in cgroup_folders():
            for folder, _, _ in os.walk(path, topdown=False):
                remove_cgroup(folder)


ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "XDG_RUNTIME_DIR": "/run",
}


def in_turn(runtimes: list[Runtime], number: int) -> list[Runtime]:
    """Order the runtimes for round `number`: rotate, and go backwards every other round."""
    start = (number // 2) % len(runtimes)
    order = runtimes[start:] + runtimes[:start]
    return order[::-1] if number % 2 else order


def resident(pids: list[int]) -> tuple[int, int]:
    """Return the resident and the proportional set size of `pids` together, in KiB."""
    totals = {"Rss": 0, "Pss": 0}
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in totals:
                    totals[name] += int(value.split()[0])
    return totals["Rss"], totals["Pss"]


def family(pid: int) -> Iterator[int]:
    """Yield `pid` and all its descendants."""
    yield pid
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path, encoding="ascii") as file:
            for child in file.read().split():
                yield from family(int(child))


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # by now it is gone, as we want it


def instructions(report: str) -> int:
    """Return what `perf stat -x,` counted, 0 when it could not."""
    with open(report, encoding="ascii", errors="replace") as file:
        counts = [line.split(",")[0] for line in file if ",instructions" in line]
    return int(counts[0]) if counts and counts[0].isdigit() else 0


def phases(text: str) -> dict[str, int]:
    """Return {phase: microseconds} from what `ocirt --trace-time` prints."""
    rows = [line.partition(" us")[0].rsplit(None, 1) for line in text.splitlines() if " us" in line]
    return {name.strip(): int(spent) for name, spent in rows}


def cgroup_folders() -> list[str]:
    found = [f"/sys/fs/cgroup/{CGROUP}", *glob.glob(f"/sys/fs/cgroup/*/{CGROUP}")]
    return [path for path in found if os.path.exists(f"{path}/cgroup.procs")]


def remove_cgroup(folder: str) -> None:
    for attempt in range(50):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:
            if attempt == 49:
                print(f"bench: cannot remove {folder}", file=sys.stderr)
            time.sleep(0.02)
        else:
            return


# -- what we found -----------------------------------------------------------------------


def version(path: str) -> str:
    with os.popen(f"'{path}' --version 2>&1") as pipe:
        words = pipe.readline().split()
    return words[-1] if words else "?"


def host() -> dict[str, Any]:
    kind = "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1"
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "cgroup": kind,
        "load": os.getloadavg()[0],
    }


def summary(runtime: Runtime) -> dict[str, Any]:
    def short(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
        return {
            verb: {
                "median": round(statistics.median(values), 3),
                "minimum": round(min(values), 3),
            }
            for verb, values in samples.items()
        }

    return {
        "path": runtime.path,
        "version": version(runtime.path),
        "wall_ms": short(runtime.wall),
        "cpu_ms": short(runtime.cpu),
        "memory_kib": runtime.memory,
        "instructions": runtime.instructions,
        "phases_us": runtime.phases,
    }


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return ours / theirs, of medians; below 1 we are the cheaper one."""
    return {
        kind: {
            verb: round(ours[kind][verb]["median"] / theirs[kind][verb]["median"], 3)
            for verb in ours[kind]
            if theirs[kind][verb]["median"]
        }
        for kind in ("wall_ms", "cpu_ms")
    }


def table(title: str, columns: tuple[str, ...], rows: dict[str, list[str]]) -> str:
    cells = [[title, *columns], *([name, *row] for name, row in rows.items())]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join((row[0].ljust(widths[0]), *numbers)))
    return "\n".join(lines)


def report(result: dict[str, Any]) -> str:
    machine, runtimes = result["host"], result["runtimes"]
    wall = (*VERBS, "sum", "run")
    cpu = (*VERBS, "init", "sum", "run")
    peak = (*VERBS, "run")
    waiting = ("waiting_init_rss", "waiting_init_pss", "waiting_run_rss", "waiting_run_pss")

    def times(kind: str, columns: tuple[str, ...], digits: int) -> dict[str, list[str]]:
        rows = {
            name: [
                f"{one[kind][c]['median']:.{digits}f} ({one[kind][c]['minimum']:.{digits}f})"
                for c in columns
            ]
            for name, one in runtimes.items()
        }
        for pair, both in result["ratios"].items():
            rows[pair] = [f"{both[kind].get(c, float('nan')):.2f}" for c in columns]
        return rows

    def memory(columns: tuple[str, ...]) -> dict[str, list[str]]:
        return {n: [str(one["memory_kib"][c]) for c in columns] for n, one in runtimes.items()}

    parts = [
        f"{result['rounds']} rounds on {machine['cpus']} CPUs, {machine['machine']}, kernel "
        f"{machine['kernel']}, cgroup {machine['cgroup']}, load {machine['load']:.1f}\n"
        + "\n".join(f"{name} {one['version']}: {one['path']}" for name, one in runtimes.items()),
        table("wall ms: median (min)", wall, times("wall_ms", wall, 1)),
        table("CPU ms: median (min)", cpu, times("cpu_ms", cpu, 1)),
    ]
    if all(one["memory_kib"] for one in runtimes.values()):
        titles = tuple(name.replace("_", " ") for name in waiting)
        parts.append(table("peak RSS, KiB", peak, memory(peak)))
        parts.append(table("resident, KiB", titles, memory(waiting)))
    if all(one["instructions"] for one in runtimes.values()):
        rows = {}
        for name, one in runtimes.items():
            counts = [one["instructions"][verb] for verb in VERBS]
            counts += [sum(counts), one["instructions"]["run"]]
            rows[name] = [f"{count / 1e6:.1f}" for count in counts]
        parts.append(table("million instructions", wall, rows))
    for one in runtimes.values():
        traced = one["phases_us"]
        names = dict.fromkeys(name for found in traced.values() for name in found)
        if names:
            rows = {
                name: [f"{found.get(name, 0):.0f}" for found in traced.values()] for name in names
            }
            parts.append(table("phases, wall us: median", tuple(traced), rows))
    if result["parallel"]:
        number, each = result["parallel"]["number"], result["parallel"]["wall_ms"]
        rows = {name: [f"{value:.1f}"] for name, value in each.items()}
        parts.append(table(f"{number} at once, wall ms each", ("run",), rows))
    return "\n\n".join(parts)


def over_budget(result: dict[str, Any]) -> list[str]:
    """Name what breaks the budgets: no slower than runc, waiting init below 1 MiB."""
    runtimes = result["runtimes"]
    if not {"ocirt", "runc"} <= runtimes.keys():
        return ["the budgets compare ocirt with runc: both must take part"]
    faults = []
    for verb in ("sum", "run"):
        ratio = result["ratios"]["ocirt/runc"]["wall_ms"][verb]
        if ratio > 1:
            faults.append(f"{verb}: {ratio:.2f} times the wall time of runc")
    held = runtimes["ocirt"]["memory_kib"].get("waiting_init_rss", 0)
    if held >= BUDGET_INIT_KIB:
        faults.append(f"waiting init: {held} KiB resident")
    return faults


# -- command line ------------------------------------------------------------------------


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30, help="counted rounds (default 30)")
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--samples", action="store_true", help="with json: every sample too")
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="NAME[=PATH]",
        help=f"who takes part, repeatable (default: those of {', '.join(RUNTIMES)} that exist)",
    )
    parser.add_argument(
        "--no-memory", action="store_true", help="leave memory and instructions out"
    )
    parser.add_argument(
        "--parallel", type=int, default=0, metavar="N", help="also time N times `run` at once"
    )
    parser.add_argument("--gate", action="store_true", help="exit 1 when ocirt is over its budgets")
    return parser.parse_args()


def find(name: str) -> str | None:
    """Find a runtime's own file: version-manager shims cost more than a container."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    given = os.environ.get("OCIRT_TEST_RUNTIME", "") if name == "ocirt" else ""
    if os.sep in given:
        return given
    return beside if os.access(beside, os.X_OK) else shutil.which(name, path=ENVIRONMENT["PATH"])


def find_busybox() -> str:
    path = shutil.which("busybox", path=ENVIRONMENT["PATH"])
    if not path:
        raise BenchError("busybox is missing (Debian: busybox-static)")
    return path


def contenders(chosen: list[str] | None, folder: str) -> list[Runtime]:
    found = []
    for item in chosen or RUNTIMES:
        name, _, path = item.partition("=")
        place = os.path.abspath(path) if path else find(name)
        if place:
            found.append(Runtime(name, place, os.path.join(folder, f"root-{name}")))
        elif chosen:
            raise BenchError(f"{name}: no such runtime")
        else:
            print(f"bench: {name} is not installed and does not take part", file=sys.stderr)
    return found


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    enter_private_world(folder)
    bench = Bench(folder, find_busybox(), contenders(args.runtime, folder))
    rounds = 5 if args.quick else args.rounds
    machine = host()
    parallel: dict[str, float] = {}
    try:
        bench.race(rounds)
        if not args.no_memory:
            for runtime in bench.runtimes * 2:
                bench.each_verb(bench.peak, runtime)
                bench.measure_waiting_run(runtime)
            for runtime in bench.runtimes * (3 if bench.perf else 0):
                bench.each_verb(bench.count, runtime)
        for runtime in bench.runtimes:
            bench.measure_phases(runtime, min(rounds, PHASE_ROUNDS))
        if args.parallel:
            for runtime in bench.runtimes:
                parallel[runtime.name] = bench.parallel(runtime, args.parallel)
    finally:
        bench.clean()
    found = {runtime.name: summary(runtime) for runtime in bench.runtimes}
    first, *others = found
    result = {
        "host": machine,
        "rounds": rounds,
        "runtimes": found,
        "ratios": {f"{first}/{other}": ratios(found[first], found[other]) for other in others},
        "parallel": {"number": args.parallel, "wall_ms": parallel} if parallel else None,
    }
    if args.samples:
        result["samples"] = {r.name: {"wall_ms": r.wall, "cpu_ms": r.cpu} for r in bench.runtimes}
    return result


def end(number: int, frame: object) -> None:
    """Handle SIGTERM: what is under way is taken back on the way out."""
    raise BenchError("asked to end")


def in_a_world(work: Callable[[str], int]) -> int:
    """Call `work` with a folder in a child of ours, with which its mounts end; return its code."""
    if os.geteuid() != 0:
        print("bench: needs root (namespaces, cgroups)", file=sys.stderr)
        return 1
    folder = tempfile.mkdtemp(prefix="ocirt-bench-")
    try:
        pid = os.fork()
        # Who is asked to end cleans up; the folder is its, and goes when it is gone.
        signal.signal(signal.SIGTERM, end if pid == 0 else signal.SIG_IGN)
        if pid == 0:
            code = 1
            try:
                code = work(folder)
            except BenchError as error:
                print(f"bench: {error}", file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.rmdir(folder)


def show(result: Any, form: str, report: Callable[[Any], str]) -> None:
    """Print a result as JSON, or as what `report` makes of it."""
    print(json.dumps(result, indent=2) if form == "json" else report(result))


def main() -> int:
    args = options()

    def work(folder: str) -> int:
        result = measure(args, folder)
        show(result, args.format, report)
        faults = over_budget(result) if args.gate else []
        for fault in faults:
            print(f"bench: over budget: {fault}", file=sys.stderr)
        return 1 if faults else 0

    return in_a_world(work)


if __name__ == "__main__":
    sys.exit(main())
