#!/usr/bin/env python3
"""Race `ocirt launch -n N` against N times `run` of other runtimes.

    sudo python3 bench/launch.py [--ranks 16,64,256] [--rounds N] [--format json]

The bundle is that of lifecycle.py, its program `true`.  Per round and N: one `launch` with a cgroup
for each rank, one with a cgroup for all, then N times `run` of every other runtime, one after the
other and, with --at-once, all at the same time.  Who comes first changes from round to round.

CPU time is that of the command, of its children and of the containers, which the command waits
for; wall time is until the last one is deleted.  Where `perf` can count, the instructions are told
as well: of one `launch`, and of one `run`, since these are all alike.

What a launcher that waits holds in memory is told beside what N waiting `run`s would.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from lifecycle import (
    Bench,
    BenchError,
    Spent,
    contenders,
    enter_private_world,
    family,
    find_busybox,
    host,
    in_a_world,
    in_turn,
    instructions,
    resident,
    show,
    table,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lifecycle import Runtime

OURS = ("launch", "launch, one cgroup")


class Race(Bench):
    """Costs per container: `costs[N][who]` is a list of (wall ms, CPU ms)."""

    def __init__(self, folder: str, busybox: str, runtimes: list[Runtime]) -> None:
        super().__init__(folder, busybox, runtimes)
        self.ocirt, *self.others = runtimes
        self.costs: dict[int, dict[str, list[tuple[float, float]]]] = {}
        self.counted: dict[int, dict[str, float]] = {}
        self.memory: dict[int, tuple[int, int]] = {}

    def launch(self, number: int, *options: str, path: str = "") -> list[str]:
        name = self.new_id()
        words = ("-n", str(number), "--name", name, *options, path or self.short)
        return self.ocirt.command("launch", *words)

    def entries(self, number: int, at_once: bool) -> dict[str, Callable[[], Spent]]:
        """Return what takes part in a round."""
        found: dict[str, Callable[[], Spent]] = {
            OURS[0]: lambda: self.call(self.launch(number)),
            OURS[1]: lambda: self.call(self.launch(number, "--cgroup", "shared")),
        }
        for runtime in self.others:
            found[f"{runtime.name} run"] = partial(self.in_a_row, runtime, number)
            if at_once:
                found[f"{runtime.name} run, at once"] = partial(self.together, runtime, number)
        return found

    def in_a_row(self, runtime: Runtime, number: int) -> Spent:
        total = Spent(0, 0)
        for _ in range(number):
            one = self.call(runtime.command("run", "--bundle", self.short, self.new_id()))
            total.wall_ms += one.wall_ms
            total.cpu_ms += one.cpu_ms
        return total

    def together(self, runtime: Runtime, number: int) -> Spent:
        before = os.times()
        wall = self.parallel(runtime, number) * number
        after = os.times()
        spent = after.children_user + after.children_system
        return Spent(wall, (spent - before.children_user - before.children_system) * 1000)

    def run_race(self, number: int, rounds: int, at_once: bool) -> None:
        entries = self.entries(number, at_once)
        costs = self.costs[number] = {name: [] for name in entries}
        names = list(entries)
        self.call(self.launch(number))  # fills caches, and is not counted
        for place in range(rounds):
            for name in in_turn(names, place):
                spent = entries[name]()
                costs[name].append((spent.wall_ms / number, spent.cpu_ms / number))
        if self.perf:
            counted = self.counted[number] = {}
            counted[OURS[0]] = self.measure(self.launch(number)) / number
            counted[OURS[1]] = self.measure(self.launch(number, "--cgroup", "shared")) / number
            for runtime in self.others:
                one = runtime.command("run", "--bundle", self.short, self.new_id())
                counted[f"{runtime.name} run"] = self.measure(one)
        self.memory[number] = self.waiting(number)

    def measure(self, argv: list[str]) -> float:
        """Return the millions of instructions of a command and of all that it starts."""
        report = os.path.join(self.folder, "perf")
        self.call([self.perf, "stat", "-x,", "-e", "instructions", "-o", report, "--", *argv])
        return instructions(report) / 1e6

    def waiting(self, number: int) -> tuple[int, int]:
        """Return the KiB, RSS and PSS, of a launcher whose ranks all run."""
        argv = self.launch(number, path=self.sleeper)
        pid = self.spawn(argv)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            inits = [one for one in family(pid) if one != pid]
            if len(inits) == number and all(map(sleeps, inits)):
                break
            time.sleep(0.1)
        else:
            raise BenchError(f"the ranks have not begun after 120 s:\n{self.said()}")
        found = resident([pid])
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        return found


def sleeps(pid: int) -> bool:
    """Whether a process has become the sleeper's program."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().startswith(b"/bin/sleep\0")
    except OSError:
        return False


def summary(race: Race) -> dict[str, Any]:
    """Return medians, and the ratio of CPU time, per container, to that of the others."""
    found: dict[str, Any] = {}
    for number, costs in race.costs.items():
        rows = {
            name: {
                "wall_ms": round(statistics.median(wall for wall, _ in rows), 2),
                "cpu_ms": round(statistics.median(cpu for _, cpu in rows), 2),
                "instructions": round(race.counted.get(number, {}).get(name, 0), 1),
            }
            for name, rows in costs.items()
        }
        rss, pss = race.memory[number]
        found[str(number)] = {"each": rows, "waiting_kib": {"rss": rss, "pss": pss}}
    return found


def report(result: dict[str, Any]) -> str:
    """Return the summary as tables."""
    machine = result["host"]
    parts = [
        f"{result['rounds']} rounds on {machine['cpus']} CPUs, {machine['machine']}, kernel "
        f"{machine['kernel']}, cgroup {machine['cgroup']}, load {machine['load']:.1f}\n"
        + "\n".join(f"{name} {text}" for name, text in result["versions"].items())
    ]
    for number, one in result["ranks"].items():
        base = next((row for name, row in one["each"].items() if name == "crun run"), None)
        rows = {}
        for name, row in one["each"].items():
            rows[name] = [f"{row['wall_ms']:.1f}", f"{row['cpu_ms']:.1f}"]
            rows[name].append(f"{row['instructions']:.1f}" if row["instructions"] else "")
            rows[name].append(f"{row['cpu_ms'] / base['cpu_ms']:.2f}" if base else "")
        columns = ("wall ms", "CPU ms", "M instr.", "CPU/crun")
        memory = one["waiting_kib"]
        parts.append(
            table(f"N = {number}, per container", columns, rows)
            + f"\nwaiting launcher: {memory['rss']} KiB resident, {memory['pss']} proportional"
        )
    return "\n\n".join(parts)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", default="16,64,256", help="the Ns (default 16,64,256)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default 5)")
    parser.add_argument("--at-once", action="store_true", help="also N times `run` side by side")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--runtime", action="append", metavar="NAME[=PATH]", help="ocirt first")
    return parser.parse_args()


def measure(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Run the whole race in a world of our own."""
    enter_private_world(folder)
    race = Race(folder, find_busybox(), contenders(args.runtime, folder))
    machine = host()
    try:
        for number in map(int, args.ranks.split(",")):
            race.run_race(number, args.rounds, args.at_once)
    finally:
        race.clean()
    return {
        "host": machine,
        "rounds": args.rounds,
        "versions": {runtime.name: version(runtime.path) for runtime in race.runtimes},
        "ranks": summary(race),
    }


def main() -> int:
    args = options()

    def work(folder: str) -> int:
        show(measure(args, folder), args.format, report)
        return 0

    return in_a_world(work)


if __name__ == "__main__":
    sys.exit(main())
