#!/usr/bin/env python3
"""Measure what the kernel asks for each part of making a container, and print it.

    sudo python3 bench/floor.py [--rounds N] [--format json]

floor.c does the parts, one at a time and as cheaply as can be.  How often a container needs each
is read off the plan that ocirt makes of the benchmark's bundle; the sum of the minima is
what no runtime can be faster than, one part after the other: COUNTED says which op of the plan is
which part.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import bundle
from lifecycle import (
    CGROUP,
    ENVIRONMENT,
    Bench,
    BenchError,
    enter_private_world,
    find,
    find_busybox,
    host,
    in_a_world,
    show,
    table,
)

if TYPE_CHECKING:
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))

# Parts that each container needs once, whatever its plan.
ONCE = (
    "execute a static program",  # the init
    "copy the init into sealed memory",
    "clone3, five namespaces",
    "make cgroups, all hierarchies",
    "attach oneself, all hierarchies",
)
COUNTED = {
    # op of the plan: part
    "bind": "bind mount",
    "mask": "bind mount",
    "readonly": "make a mount read-only",
    "set_attr": "make a mount read-only",
    "propagation": "make all mounts slaves",
    "pivot": "pivot_root",
    "seccomp": "load a filter of 300 instructions",
}


def compile_probe(folder: str) -> str:
    """Compile floor.c; musl, since a static program of it starts fastest."""
    path = os.path.join(folder, "floor")
    for compiler in ("musl-gcc", "cc", "gcc"):
        line = [compiler, "-std=c11", "-Os", "-static", "-o", path, f"{HERE}/floor.c"]
        if shutil.which(compiler) and subprocess.run(line, check=False).returncode == 0:
            return path
    raise BenchError("no C compiler, or none that makes static programs")


def hierarchies() -> list[str]:
    """Return a cgroup to be made in each hierarchy: those of v1, or the one of v2."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return [f"/sys/fs/cgroup/{CGROUP}-floor"]
    found = [path for path in glob.glob("/sys/fs/cgroup/*") if not os.path.islink(path)]
    return [f"{path}/{CGROUP}-floor" for path in found if os.path.exists(f"{path}/tasks")]


def parts(probe: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return {part: {"median": us, "minimum": us}}."""
    line = [probe, str(rounds), *hierarchies()]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    rows = [row.split("\t") for row in done.stdout.splitlines()]
    return {
        name: {"median": int(median) / 1000, "minimum": int(least) / 1000}
        for name, median, least in rows
    }


def needs(ocirt: str, path: str) -> dict[str, int]:
    """Return how often the bundle needs each part: {part: times}."""
    line = [ocirt, "plan", path]
    done = subprocess.run(
        line, stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=ENVIRONMENT
    )
    found = dict.fromkeys(ONCE, 1)
    for row in done.stdout.splitlines()[1:]:
        _, op, what, *_ = row.split()
        part = f"mount {what}" if op == "mount" else COUNTED.get(op)
        if part:
            found[part] = found.get(part, 0) + 1
    return found


def measure(folder: str, rounds: int) -> dict[str, Any]:
    enter_private_world(folder)
    ocirt = find("ocirt")
    if not ocirt:
        raise BenchError("ocirt is not installed")
    machine = host()
    bundle.make_files(folder, find_busybox())
    path = bundle.make_bundle(folder, "short", ["/bin/true"], f"/{CGROUP}/short")
    found = parts(compile_probe(folder), rounds)
    wanted = needs(ocirt, path)
    total = sum(found[name]["minimum"] * times for name, times in wanted.items() if name in found)
    Bench.reap()
    return {"host": machine, "parts_us": found, "needs": wanted, "total_us": total}


def report(result: dict[str, Any]) -> str:
    wanted = result["needs"]
    rows = {
        name: [f"{part['median']:.1f}", f"{part['minimum']:.1f}", str(wanted.get(name, ""))]
        for name, part in result["parts_us"].items()
    }
    text = table("kernel, us", ("median", "minimum", "times"), rows)
    return f"{text}\n\nwhat the benchmark's container needs, of minima: {result['total_us']:.0f} us"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args()

    def work(folder: str) -> int:
        show(measure(folder, args.rounds), args.format, report)
        return 0

    return in_a_world(work)


if __name__ == "__main__":
    sys.exit(main())
