#!/usr/bin/env python3
"""Measure what the HPC stage costs a container, on a node that is a directory.

    python3 bench/hpc.py [--rounds N | --quick] [--format json] [--gate]

Each case is a process of its own, a plain interpreter started as the launcher would, which puts
one container on paper (all that `create` decides before anything exists) and writes the files
that the stage makes for it.  The cases take turns within a round, each round in another order:

    off       the stage cannot be reached at all
    plain     a container that asks for nothing
    site      the same, on a host whose /etc/ocirt has settings that do not concern it
    gpus      eight GPUs and eight NICs, from procfs and sysfs
    imports   `plain`, and the modules that `gpus` has loaded: what of its cost is loading code

A case costs the least of its CPU times, and of its instructions in user space, where
perf_event_open(2) counts them: these hardly change when the machine is busy.  `over off` is what
the stage adds.  --gate fails when that is over BUDGET: instructions, or CPU time where they are
not counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import bundle
from lifecycle import show

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "hooks")]
from tests.unit.hpc import machines  # noqa: E402

if TYPE_CHECKING:
    from typing import Any

CASES = ("off", "plain", "site", "gpus", "imports")
ASKING = ("NVIDIA_VISIBLE_DEVICES=all", "OCIRT_RDMA_DEVICES=all")
BUDGET = {"plain": (0.5, 1.0), "site": (1.5, 1.0), "gpus": (50, 30)}  # M instr., CPU ms over `off`

# As packaging/launcher.c starts ocirt; argv: directory, case, bundle, settings, place.
CODE = """
import sys, gc
gc.disable()
here, case, bundle, settings, place, *modules = sys.argv[1:]
m = type(sys)('ocirt')
m.__path__ = [here + '/ocirt']
sys.modules['ocirt'] = m
from ocirt import create
from ocirt.cli import console
if case == 'off':
    create.Draft._edits = lambda self: None
create.SITE = place if case == 'site' else place + '/none'
if case == 'imports':
    from ocirt import hpc
    hpc.put_in_place()
    if 'os' in modules:
        import os  # it and others need each other: they are listed as they were done
    for name in modules:
        __import__(name)
wish = create.Wish('bench', place, bundle)
wish.cgroup_driver = 'disabled'
if case == 'gpus':
    wish.hpc_config = settings
if case == 'list':
    wish.hpc_config = settings
    before = set(sys.modules)
draft = create.Draft(wish)
if case in ('gpus', 'list'):
    # What a machine that is a directory does without: the view of /proc/driver/nvidia.
    from ocirt_hpc.host import Host
    from ocirt_hpc.nvidia import choice, container, driver
    loaded = driver.find(Host(settings.rpartition('/')[0] + '/machine'))
    container.proc_edits(loaded, choice.everything(loaded), draft.edits.tree)
    assert len(draft.edits.config['linux']['devices']) == 8 + 3 + 8 + 1, draft.edits.report
    draft.edits.tree.write()
if case == 'list':
    print(*[name for name in sys.modules if name not in before])
"""

PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
PERF_COUNT_HW_INSTRUCTIONS = 1
# struct perf_event_attr, linux/perf_event.h: bits of its flags
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HV = 1, 1 << 1, 1 << 5, 1 << 6
ENABLE_ON_EXEC = 1 << 12
ATTR_SIZE, FLAGS_AT = 128, 40

libc = ctypes.CDLL(None, use_errno=True)


def counter(pid: int) -> int:
    """Return a descriptor that counts instructions of `pid` from its next execve on, or -1."""
    number = PERF_EVENT_OPEN.get(os.uname().machine)
    if number is None:
        return -1
    attr = bytearray(ATTR_SIZE)
    struct.pack_into("<IIQ", attr, 0, 0, ATTR_SIZE, PERF_COUNT_HW_INSTRUCTIONS)
    flags = DISABLED | INHERIT | EXCLUDE_KERNEL | EXCLUDE_HV | ENABLE_ON_EXEC
    struct.pack_into("<Q", attr, FLAGS_AT, flags)
    held = (ctypes.c_char * ATTR_SIZE).from_buffer(attr)
    return libc.syscall(number, held, pid, -1, -1, 0)


class Case:
    """What one case has cost so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.instructions: list[int] = []

    def take(self, argv: list[str]) -> None:
        """Run the case once."""
        ready, go = os.pipe()
        begin = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            os.read(ready, 1)
            os.execv(argv[0], argv)
        fd = counter(pid)
        os.write(go, b"x")
        _, status, usage = os.wait4(pid, 0)
        wall = (time.perf_counter() - begin) * 1000
        os.close(ready)
        os.close(go)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"bench: case {self.name} ended with {status}")
        self.wall.append(wall)
        self.cpu.append((usage.ru_utime + usage.ru_stime) * 1000)
        if fd >= 0:
            self.instructions.append(struct.unpack("<Q", os.read(fd, 8))[0])
            os.close(fd)

    def row(self) -> dict[str, Any]:
        """Return the least of each; None where instructions cannot be counted."""
        return {
            "cpu_ms": min(self.cpu),
            "wall_ms": min(self.wall),
            "instructions": min(self.instructions, default=None),
        }


def node(folder: Path) -> Path:
    """Make eight GPUs and eight NICs; return the settings that name them."""
    machine = machines.eight_and_eight(folder / "machine")
    machines.install(machine)
    machine.host()
    settings = folder / "hpc.toml"
    settings.write_text(f'[stage]\nhost-root = "{machine.root}"\n')
    return settings


def race(folder: Path, rounds: int, python: str) -> dict[str, Case]:
    """Run all cases in turn; return what they cost."""
    settings = node(folder)
    config = bundle.config(str(folder), ["/bin/true"], "", os.uname().machine)
    (folder / "rootfs/etc").mkdir(parents=True)
    for name, env in (("plain", ()), ("gpus", ASKING)):
        (folder / name).mkdir()
        config["process"]["env"] += env
        (folder / name / "config.json").write_text(json.dumps(config))
    place = folder / "etc"
    place.mkdir(mode=0o755)
    (place / "hpc.toml").write_text('[[mounts]]\nsource = "/scratch"\n[env.set]\nSITE = "here"\n')

    def argv(name: str, *modules: str) -> list[str]:
        which = "gpus" if name in ("gpus", "list") else "plain"
        start = [python, "-I", "-S", "-B", "-X", "utf8", "-c", CODE, str(ROOT), name]
        return [*start, str(folder / which), str(settings), str(place), *modules]

    container = place / "bench"
    container.mkdir()
    done = subprocess.run(argv("list"), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {done.stderr}")
    modules = done.stdout.split()
    cases = {name: Case(name) for name in CASES}
    for number in range(-1, rounds):  # round -1 is not counted
        shift = number % len(CASES)
        for name in CASES[shift:] + CASES[:shift]:
            shutil.rmtree(container / "hpc", ignore_errors=True)
            cases[name].take(argv(name, *(modules if name == "imports" else ())))
            if number < 0:
                cases[name] = Case(name)
    return cases


def report(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table for people."""
    lines = [f"{'':8}{'CPU ms':>9}{'over off':>10}{'wall ms':>9}{'M instr.':>10}{'over off':>10}"]
    off = rows["off"]
    for name, row in rows.items():
        over = row["cpu_ms"] - off["cpu_ms"]
        line = f"{name:8}{row['cpu_ms']:9.1f}{over:10.2f}{row['wall_ms']:9.1f}"
        if row["instructions"] is not None:
            more = (row["instructions"] - off["instructions"]) / 1e6
            line += f"{row['instructions'] / 1e6:10.1f}{more:10.2f}"
        lines.append(line)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="five rounds")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--gate", action="store_true", help="fail when over budget")
    parser.add_argument("--python", default="/usr/bin/python3", help="the interpreter to measure")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ocirt-bench-"))
    try:
        cases = race(folder, 5 if args.quick else args.rounds, args.python)
    finally:
        shutil.rmtree(folder)
    rows = {name: case.row() for name, case in cases.items()}
    show(rows, args.format, report)
    code = 0
    if args.gate:
        for name, (instructions, cpu) in BUDGET.items():
            spent, most, unit = rows[name]["cpu_ms"] - rows["off"]["cpu_ms"], cpu, "ms"
            if rows[name]["instructions"] is not None:
                more = rows[name]["instructions"] - rows["off"]["instructions"]
                spent, most, unit = more / 1e6, instructions, "million instructions"
            if spent > most:
                print(
                    f"bench: over budget: {name}: {spent:.2f} {unit}, not {most}", file=sys.stderr
                )
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
