#!/usr/bin/env python3
"""Docker's own view: `docker run --rm` with ocirt and with runc, in turn.

    sudo python3 bench/docker_run.py [--races N] [--rounds N] [--format json]

A dockerd of our own, as the tests start it (tests/integration/engines.py): own state, on a tmpfs,
own network and mount namespaces.  The image is one static busybox, the container has no network.
Who comes first changes from round to round.  Wall time is what the user of the client waits.  The
first rounds of each race are not counted: a dockerd is busy with itself for a while.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from lifecycle import (
    BenchError,
    end,
    find,
    host,
    in_turn,
    show,
    table,
    version,
    work_in_memory,
)

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from tests.integration import engines

if TYPE_CHECKING:
    from typing import Any

NEEDED = ("dockerd", "docker", "containerd", "ip", "nsenter", "setpriv", "busybox")
UNCOUNTED = 3


def race(docker: engines.Docker, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Return the wall milliseconds of each call: {runtime: one a round}."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-UNCOUNTED, rounds):
        for name in in_turn(names, number):
            begin = time.perf_counter()
            docker.run(f"--runtime {name}", "true")
            if number >= 0:
                found[name].append((time.perf_counter() - begin) * 1000)
    return found


def outcome(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return what a race has come to; the first runtime is ours."""
    return {
        "wall_ms": times,
        "median_ms": {name: statistics.median(each) for name, each in times.items()},
        "slower": sum(ours > theirs for ours, theirs in zip(*times.values(), strict=True)),
    }


def measure(folder: str, races: int, rounds: int) -> dict[str, Any]:
    lacking = engines.missing(*NEEDED)
    if lacking:
        raise BenchError(lacking)
    paths = {name: find(name) for name in ("ocirt", "runc")}
    runtimes = {name: {"path": path} for name, path in paths.items() if path}
    if len(runtimes) < len(paths):
        raise BenchError("both ocirt and runc must be installed")
    # Docker's own runc cannot be named anew, so it gets another name.
    runtimes["debian-runc"] = runtimes.pop("runc")
    machine = host()
    work_in_memory(folder)
    docker = engines.Docker(
        os.path.join(folder, "docker"),
        paths["ocirt"],
        "bench",
        runtimes=runtimes,
        **{"default-runtime": "ocirt"},
    )
    with engines.serving(docker):
        client = docker.ok("version", "--format", "{{.Server.Version}}")
        outcomes = [outcome(race(docker, list(runtimes), rounds)) for _ in range(races)]
    return {
        "host": machine,
        "docker": client,
        "versions": {name: version(one["path"]) for name, one in runtimes.items()},
        "rounds": rounds,
        "races": outcomes,
    }


def report(result: dict[str, Any]) -> str:
    parts = []
    for one in result["races"]:
        rows = {
            name: [f"{one['median_ms'][name]:.0f}", f"{min(each):.0f}", f"{max(each):.0f}"]
            for name, each in one["wall_ms"].items()
        }
        head = f"docker {result['docker']} run --rm, wall ms"
        parts.append(table(head, ("median", "min", "max"), rows))
        parts.append(f"ocirt slower in {one['slower']} of {result['rounds']} rounds")
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--races", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, end)
    folder = tempfile.mkdtemp(prefix="ocirt-bench-")
    os.chmod(folder, 0o755)
    try:
        show(measure(folder, args.races, args.rounds), args.format, report)
        return 0
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
