#!/usr/bin/env python3
"""Run a ready-built OCI runtime-tools validation suite against a runtime and print a table.

The suite is a third party's and no part of this repository: build it elsewhere and name
its folder, which holds `runtimetest`, `rootfs-ARCH.tar.gz` and, anywhere below
`validation/`, the programs (`*.t`).  Each program gets its own scratch directory, its own
runtime root and its own timeout, and whatever it leaves behind is deleted before the next.

    sudo python3 conformance/runtime_tools.py SUITE --runtime ocirt --compare runc,crun

Failures that are understood are listed in `explained.toml`, each with whose fault it is;
the exit status is 1 when the first runtime fails a program in a way not listed there.

The suite speaks TAP.  Three of its habits need care: some programs print several TAP
documents, some say that they failed only in a YAML block after no subtest at all, and
some print nothing and speak by their exit status (SILENT).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

HERE = Path(__file__).resolve().parent
GO_ARCH = {"x86_64": "amd64", "i686": "386", "aarch64": "arm64"}

# Programs that succeed without a word: a refused `create` is all they ask for.
SILENT = ("process_capabilities_fail", "process_rlimits_fail")

# Programs that race with what they test, and lose on a busy machine: one sends a signal as
# soon as the container runs, whether or not its shell has come to its `trap`; the other wants
# the shell to write a line before a hook does.  They get several tries.
RACY = ("killsig", "poststart")
TRIES = 3

# Mounts that a runtime cannot live with, by its name: crun refuses the hybrid layout, in
# which a cgroup v2 tree is mounted beside the v1 hierarchies.  They are taken away in a
# mount namespace of the program's own.
HIDE = {"crun": ("/sys/fs/cgroup/unified",)}

# The suite gives every container that it looks at from outside one and the same cgroup,
# and leaves the parents of the relative one behind.
SHARES_A_CGROUP = ("linux_cgroups_*", "delete_*")
LEFT_CGROUPS = ("testdir", "cgrouptest")

# ok 3 - text # SKIP reason
LINE = re.compile(r"(?P<not>not )?ok\b[ \d]*(- )?(?P<text>.*?)( *# *(?P<tag>SKIP|TODO)\b.*)?$")


@dataclass
class Result:
    """What one program said about one runtime."""

    program: str
    verdict: str  # pass, fail, timeout
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    faults: list[str] = field(default_factory=list)  # what failed, in the program's words
    note: str = ""  # why a pass says less than it seems
    seconds: float = 0.0
    whose: str = ""  # machine, suite, ours; from explained.toml
    reason: str = ""


def parse(text: str) -> tuple[int, int, list[str], bool]:
    """Read TAP: subtests passed, skipped, the texts of those that failed, and "all was said".

    The last is false when a program reports about the inside of a container and the
    container's own TAP has no plan: it never got to its end, and so found no fault.
    """
    passed, skipped, complete = 0, 0, True
    failed: list[str] = []
    errors: list[str] = []
    block: list[str] | None = None
    for line in text.splitlines():
        if line == "  ---":
            block = []
        elif line == "  ..." and block is not None:
            about = json.loads("\n".join(block))  # YAML by name
            complete = complete and "1.." in about.get("stdout", "1..")
            if about.get("error"):
                errors.append(about["error"].splitlines()[0])
            block = None
        elif block is not None:
            block.append(line)
        elif (found := LINE.match(line)) is not None:
            if found["tag"]:
                skipped += 1
            elif found["not"]:
                failed.append(found["text"].strip() or "unnamed subtest")
            else:
                passed += 1
    return passed, skipped, failed if passed or failed or skipped else errors, complete


def judge(program: str, code: int | None, out: str, err: str) -> Result:
    """Turn exit status (None: it ran out of time) and output into a verdict."""
    passed, skipped, faults, complete = parse(out)
    words = last_words(err)
    # The suite often knows no more than that the runtime failed.
    faults = [re.sub(r"\bexit status 1$", lambda _: words or "exit status 1", f) for f in faults]
    note = ""
    if code is None:
        faults.append("ran out of time")
    elif code != 0:
        faults.append(words or f"exit status {code}")
    elif not faults and "1.." not in out and program not in SILENT:
        faults.append(words or "the container said nothing")
    elif not complete:
        note = "the container did not finish its own checks"
    elif not (passed or faults or program in SILENT):
        note = "no subtest"
    verdict = "timeout" if code is None else "fail" if faults else "pass"
    return Result(program, verdict, passed, len(faults), skipped, faults, note)


def last_words(text: str) -> str:
    """Return the line of `text` that says most: the runtime's error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for before, line in itertools.pairwise(["", *lines]):
        if before.startswith("failed to "):  # the suite's words, then the runtime's
            return found[1] if (found := re.search(r'msg="(.*)"', line)) else line
        if line.startswith("panic: "):
            return line
    return next((line for line in reversed(lines) if not line.startswith("Refer to:")), "")


class Runtime:
    """One runtime as the suite sees it: a program without options that keeps its own state."""

    def __init__(self, command: str, hide: Iterable[str] = ()) -> None:
        argv = shlex.split(command)
        found = shutil.which(argv[0])
        if found is None:
            raise SystemExit(f"runtime_tools: {argv[0]}: no such program")
        self.argv = [os.path.abspath(found), *argv[1:]]
        self.name = os.path.basename(argv[0])
        wanted = (*HIDE.get(self.name, ()), *hide)
        self.hide = [path for path in wanted if os.path.ismount(path)]

    def version(self) -> str:
        done = subprocess.run([*self.argv, "--version"], capture_output=True, text=True)
        return (done.stdout.splitlines() or ["unknown"])[0]

    def wrapper(self, scratch: Path) -> Path:
        """Write the one program that the suite calls; it notes each call it passes on."""
        path = scratch / self.name
        call = shlex.join([*self.argv, "--root", str(scratch / "state")])
        calls = shlex.quote(str(scratch / "calls"))
        path.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {call} "$@"\n')
        path.chmod(0o755)
        return path

    def enclose(self, program: Sequence[str], tasks: Iterable[Path]) -> list[str]:
        """Put `program` into our cgroups and into namespaces of its own.

        The suite asks for a container without any namespace, removes the bundle while that
        container's /proc, /sys and /dev/mqueue are still mounted in it, and forgets them.
        """
        steps = [f"echo $$ > {shlex.quote(str(path))}" for path in tasks]
        steps += [f"umount {shlex.quote(path)}" for path in self.hide]
        apart = ("unshare", "--mount", "--ipc", "--propagation", "private", "/bin/sh", "-ec")
        return [*apart, "\n".join([*steps, 'exec "$@"']), "sh", *program]

    def delete_all(self, state: Path) -> None:
        """Remove the containers that a program left behind."""
        for entry in sorted(state.iterdir()) if state.is_dir() else ():
            argv = [*self.argv, "--root", str(state), "delete", "--force", entry.name]
            subprocess.run(self.enclose(argv, ()), capture_output=True, timeout=60)


class OwnCgroups:
    """Cgroups of ours in each v1 hierarchy where we sit below the root.

    A container without a cgroupsPath goes below the cgroup of whoever creates it.  That of
    the caller belongs to the machine, so the suite runs in `/ocirt-conformance` instead.
    """

    def __enter__(self) -> list[Path]:
        self.mounts: list[Path] = []
        self.made: list[Path] = []
        below = set()
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and path != "/":
                below.add(controllers)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            mount, _, rest = line.partition(" - ")
            fstype, _, options = rest.split(" ", 2)
            if not fstype.startswith("cgroup"):
                continue
            self.mounts.append(Path(mount.split(" ")[4]))
            here = set(options.split(","))
            if fstype == "cgroup" and any(set(names.split(",")) <= here for names in below):
                group = self.mounts[-1] / "ocirt-conformance"
                group.mkdir(exist_ok=True)
                self.made.append(group)
        return [group / "tasks" for group in self.made]

    def __exit__(self, *exception: object) -> None:
        left = [mount / name for mount in self.mounts for name in LEFT_CGROUPS]
        for group in self.made + left:
            for folder, *_ in sorted(os.walk(group), reverse=True):
                try:
                    os.rmdir(folder)
                except OSError as error:
                    print(f"runtime_tools: {folder}: {error.strerror}", file=sys.stderr)


def run_program(
    suite: Path, program: Path, runtime: Runtime, tasks: list[Path], options: argparse.Namespace
) -> Result:
    """Run one program of the suite in a scratch directory and judge it."""
    scratch = Path(tempfile.mkdtemp(prefix=f"ocirt-{program.stem}-", dir=options.scratch))
    try:
        for name in ("runtimetest", f"rootfs-{GO_ARCH.get(platform.machine(), 'amd64')}.tar.gz"):
            # A copy, not a link: the suite copies a symlink as a symlink.
            shutil.copy2(suite / name, scratch / name)
        (scratch / "tmp").mkdir()
        env = dict(os.environ, RUNTIME=str(runtime.wrapper(scratch)), TMPDIR=str(scratch / "tmp"))
        argv = runtime.enclose([str(program)], tasks)
        begin = time.monotonic()
        with (scratch / "out").open("w") as out, (scratch / "err").open("w") as err:
            child = subprocess.Popen(
                argv, cwd=scratch, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
            try:
                code: int | None = child.wait(options.timeout)
            except subprocess.TimeoutExpired:
                code = None
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        output = [(scratch / name).read_text(errors="replace") for name in ("out", "err")]
        result = judge(program.stem, code, *output)
        result.seconds = round(time.monotonic() - begin, 1)
        runtime.delete_all(scratch / "state")
    finally:
        if options.keep or f" {scratch}/" in Path("/proc/self/mountinfo").read_text():
            print(f"runtime_tools: {program.stem}: kept {scratch}", file=sys.stderr)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    return result


def run_suite(
    suite: Path, runtime: Runtime, options: argparse.Namespace, save: Callable[[Result], None]
) -> list[Result]:
    """Run the programs that are wanted; each result is saved as soon as it is known."""
    programs = {path.stem: path for path in sorted((suite / "validation").rglob("*.t"))}
    wanted = [name for name in programs if matches(name, options.only or ["*"])]
    if not wanted:
        raise SystemExit(f"runtime_tools: {suite}: no programs named validation/**/*.t")
    one_at_a_time = threading.Lock()

    def work(name: str) -> Result:
        with one_at_a_time if matches(name, SHARES_A_CGROUP) else contextlib.nullcontext():
            for count in range(1, 1 + (TRIES if name in RACY else 1)):
                result = run_program(suite, programs[name], runtime, tasks, options)
                if result.verdict == "pass":
                    result.note = f"at try {count}" if count > 1 else result.note
                    break
        print(f"{runtime.name:8} {name:32} {result.verdict:8} {result.seconds:6.1f} s",
              file=sys.stderr, flush=True)  # fmt: skip
        save(result)
        return result

    with OwnCgroups() as tasks, ThreadPoolExecutor(options.jobs) as pool:
        return list(pool.map(work, wanted))


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def cgroup_version() -> str:
    """v1, or v2 when the unified hierarchy is the only one."""
    return "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1"


def explain(results: list[Result], table: list[dict[str, Any]], runtime: str, cgroup: str) -> None:
    """Mark the failures that `table` accounts for; every fault must be one that it names."""
    for result in results:
        if result.verdict == "pass":
            continue
        for row in table:
            if not matches(result.program, row["programs"]):
                continue
            if not any(runtime.startswith(name) for name in row.get("runtimes", [""])):
                continue
            if cgroup not in row.get("cgroup", [cgroup]):
                continue
            named = row.get("faults", [""])
            if all(any(text in fault for text in named) for fault in result.faults):
                result.whose, result.reason = row["whose"], row["reason"]
                break


def table(runs: dict[str, list[Result]]) -> str:
    """Lay the runs side by side: verdict and subtests for each, then the first fault of each."""
    by_name = {name: {r.program: r for r in results} for name, results in runs.items()}
    programs = sorted({program for results in by_name.values() for program in results})
    lines = [f"{'program':33}" + "".join(f"{name:18}" for name in runs) + "first failure"]
    for program in programs:
        cells, faults = "", []
        for name in runs:
            result = by_name[name].get(program)
            if result is None:
                cells += f"{'-':18}"
                continue
            count = f"{result.passed}/{result.passed + result.failed}"
            mark = result.whose or ("" if result.verdict == "pass" else "UNEXPLAINED")
            word = {"pass": "ok", "fail": "FAIL", "timeout": "TIME"}[result.verdict]
            cells += f"{word:5}{count:7}{mark[:5] if mark else '':6}"
            if result.faults:
                faults.append(f"{name}: {result.faults[0]}" if len(runs) > 1 else result.faults[0])
            elif result.note and len(runs) == 1:
                faults.append(f"({result.note})")
        lines.append(f"{program:33}{cells}{'; '.join(faults)[:160]}".rstrip())
    for name, results in runs.items():
        passed = sum(r.verdict == "pass" for r in results)
        counts = ", ".join(
            f"{len(rows)} {whose or 'unexplained'}"
            for whose in ("machine", "suite", "ours", "")
            if (rows := [r for r in results if r.verdict != "pass" and r.whose == whose])
        )
        lines.append(f"{name}: {passed} of {len(results)} pass; failures: {counts or 'none'}")
    return "\n".join(lines)


def reasons(results: list[Result]) -> str:
    """List why each explained failure is no news, once per reason."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.whose:
            grouped.setdefault((result.whose, result.reason), []).append(result.program)
    return "\n".join(
        f"{whose}: {', '.join(programs)}\n    {reason}"
        for (whose, reason), programs in sorted(grouped.items())
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("suite", type=Path, nargs="?", help="folder of the ready-built suite")
    parser.add_argument("--runtime", default="ocirt", metavar="CMD", help="program, with options")
    parser.add_argument("--compare", default="", metavar="A,B", help="other runtimes, side by side")
    parser.add_argument("--only", action="append", metavar="GLOB", help="programs to run")
    parser.add_argument("--timeout", type=float, default=180, metavar="S", help="per program")
    parser.add_argument("--jobs", "-j", type=int, default=1, metavar="N")
    parser.add_argument("--hide", action="append", default=[], metavar="PATH",
                        help="unmount PATH in a private mount namespace")  # fmt: skip
    parser.add_argument("--scratch", metavar="DIR", help="where scratch directories are made")
    parser.add_argument("--keep", action="store_true", help="keep the scratch directories")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON there as well")
    parser.add_argument("--explained", type=Path, default=HERE / "explained.toml", metavar="FILE")
    parser.add_argument("--show", type=Path, nargs="+", metavar="FILE",
                        help="run nothing, print the table of earlier --output files")  # fmt: skip
    options = parser.parse_args()
    known = tomllib.loads(options.explained.read_text())["explained"]

    runs: dict[str, list[Result]] = {}
    if options.show:
        for path in options.show:
            stored = json.loads(path.read_text())
            for name, run in stored["runs"].items():
                label = f"{name} {stored['cgroup']}"
                runs[label] = [Result(**dict(row, whose="", reason="")) for row in run["results"]]
                explain(runs[label], known, name, stored["cgroup"])
        print(table(runs))
        return 0
    if options.suite is None:
        parser.error("which suite?")
    if os.geteuid() != 0:
        raise SystemExit("runtime_tools: needs root: the suite makes device nodes and cgroups")

    commands = [options.runtime, *filter(None, options.compare.split(","))]
    runtimes = [Runtime(command, options.hide) for command in commands]
    lock = open(os.path.join(tempfile.gettempdir(), "ocirt-conformance.lock"), "w")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX)  # a second suite would use the same cgroup
    report: dict[str, Any] = {"cgroup": cgroup_version(), "kernel": platform.release(), "runs": {}}
    for runtime in runtimes:
        rows: list[dict[str, Any]] = []
        report["runs"][runtime.name] = {"version": runtime.version(), "results": rows}

        def save(result: Result, name: str = runtime.name, rows: list[Any] = rows) -> None:
            explain([result], known, name, report["cgroup"])
            rows.append(asdict(result))
            if options.output:
                options.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")

        runs[runtime.name] = run_suite(options.suite.resolve(), runtime, options, save)
    text = json.dumps(report, indent=1, ensure_ascii=False)
    first = runs[runtimes[0].name]
    print(text if options.format == "json" else f"{table(runs)}\n\n{reasons(first)}".rstrip())
    return int(any(r.verdict != "pass" and not r.whose for r in first))


if __name__ == "__main__":
    sys.exit(main())
