#!/usr/bin/env python3
"""Measure the life of one container among many that are alive, and `list` of them all.

    sudo python3 bench/scale.py [--alive 1,100,1000] [--rounds N] [--format json]

Those who are merely there wait at their gate, each in a cgroup of its own; they have no network
namespace, whose thousand-fold end would keep the kernel busy for long.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import signal
import statistics
import sys
import time
from typing import TYPE_CHECKING

import bundle
from lifecycle import (
    CGROUP,
    VERBS,
    Bench,
    contenders,
    enter_private_world,
    find_busybox,
    host,
    in_a_world,
    show,
    table,
)

if TYPE_CHECKING:
    from typing import Any

    from lifecycle import Runtime


class Crowd(Bench):
    """Containers that are alive: {id: pid file}."""

    def __init__(self, folder: str, busybox: str, runtime: Runtime) -> None:
        super().__init__(folder, busybox, [runtime])
        self.runtime = runtime
        self.alive: dict[str, str] = {}

    def grow(self, number: int) -> None:
        """Make containers until that many are alive."""
        names = [self.new_id() for _ in range(number - len(self.alive))]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.make_one, names))

    def make_one(self, name: str) -> None:
        path = bundle.make_bundle(self.folder, name, ["/bin/sleep", "1000"], f"/{CGROUP}/{name}")
        place = os.path.join(path, "config.json")
        with open(place, encoding="utf-8") as file:
            config = json.load(file)
        spaces = config["linux"]["namespaces"]
        config["linux"]["namespaces"] = [one for one in spaces if one["type"] != "network"]
        del config["linux"]["sysctl"]  # which is the network's
        with open(place, "w", encoding="utf-8") as file:
            json.dump(config, file)
        pid_file = os.path.join(path, "pid")
        self.call(self.runtime.command("create", "--bundle", path, "--pid-file", pid_file, name))
        self.alive[name] = pid_file

    def one_life(self) -> dict[str, tuple[float, float]]:
        """Return (wall ms, CPU ms) of each verb."""
        name = self.new_id()
        make = ("--bundle", self.sleeper, "--pid-file", self.pid_file)
        words = {"create": (*make, name), "kill": (name, "KILL")}
        found = {}
        for verb in VERBS:
            if verb == "delete":
                os.waitpid(self.created_pid(), 0)
            spent = self.call(self.runtime.command(verb, *words.get(verb, (name,))))
            found[verb] = (spent.wall_ms, spent.cpu_ms)
        return found

    def measure(self, number: int, rounds: int) -> dict[str, Any]:
        self.grow(number)
        time.sleep(0.5)  # what the last creates have left the kernel to do
        self.one_life()
        each = [self.one_life() for _ in range(rounds)]
        listed = [self.call(self.runtime.command("list", "--quiet")) for _ in range(3)]
        whole = [self.call(self.runtime.command("list")) for _ in range(3)]
        return {
            "wall_ms": {v: statistics.median(one[v][0] for one in each) for v in VERBS},
            "cpu_ms": {v: statistics.median(one[v][1] for one in each) for v in VERBS},
            "list_ms": statistics.median(one.wall_ms for one in whole),
            "list_quiet_ms": statistics.median(one.wall_ms for one in listed),
        }

    def end(self) -> None:
        for pid_file in self.alive.values():
            with open(pid_file, encoding="ascii") as file:
                os.kill(int(file.read()), signal.SIGKILL)
        self.reap()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            commands = [self.runtime.command("delete", name) for name in self.alive]
            list(pool.map(self.call, commands))
        self.alive.clear()


def measure(folder: str, args: argparse.Namespace) -> dict[str, Any]:
    enter_private_world(folder)
    crowd = Crowd(folder, find_busybox(), contenders(args.runtime or ["ocirt"], folder)[0])
    machine = host()
    found = {}
    try:
        for number in map(int, args.alive.split(",")):
            found[str(number)] = crowd.measure(number, args.rounds)
        crowd.end()
    finally:
        crowd.clean()
    return {"host": machine, "rounds": args.rounds, "alive": found}


def report(result: dict[str, Any]) -> str:
    parts = []
    for kind, title in (("wall_ms", "wall ms: median"), ("cpu_ms", "CPU ms: median")):
        rows = {
            f"{number} alive": [
                *(f"{one[kind][verb]:.1f}" for verb in VERBS),
                f"{sum(one[kind].values()):.1f}",
                f"{one['list_ms']:.1f}" if kind == "wall_ms" else "",
            ]
            for number, one in result["alive"].items()
        }
        parts.append(table(title, (*VERBS, "sum", "list"), rows))
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--alive", default="1,100,1000", help="how many (default 1,100,1000)")
    parser.add_argument("--rounds", type=int, default=10, help="lives of each (default 10)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--runtime", action="append", metavar="NAME[=PATH]")
    args = parser.parse_args()

    def work(folder: str) -> int:
        show(measure(folder, args), args.format, report)
        return 0

    return in_a_world(work)


if __name__ == "__main__":
    sys.exit(main())
