#!/usr/bin/env python3
"""Run the engine tests with several runtimes, here and in a virtual machine, into one table.

    python3 conformance/engines.py results --here --vm --output docs/engines.md
    python3 conformance/engines.py results --check

`results` is a folder of the caller's choice, outside of the source tree.  Each run of pytest
leaves a file there (conformance/recording.py), and what a runtime has there already is not run
again: a second call goes on where the first one stopped.  A table can be had at any time.

Rows are the tests of tests/integration/test_ENGINE.py; those of test_ENGINE_rootless.py are the
same engine without root.  Columns are runtimes, on this machine (--here) and on cgroup v2: in
the virtual machine of conformance/vm.py (--vm), which is slow.  A machine whose controllers
belong to v1 mostly has a v2 tree with what is left beside them; --tree runs the tests with that
one in a mount namespace of their own.  It fills in for what the virtual machine has not run.

--check fails when ocirt does not pass something that runc passes.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TESTS = ROOT / "tests" / "integration"

ENGINES = {"docker": "Docker", "podman": "Podman", "containerd": "containerd", "cri": "CRI"}
USERS = ("root", "rootless")
PLACES = {
    "here": "this machine",
    "vm": "virtual machine",
    "tree": "this machine, cgroup v2 tree",
}
BARE_TREE = "/sys/fs/cgroup/unified"

# What tests in the virtual machine read over and over, so that a copy in memory pays there.
PROGRAMS = {
    "docker": "dockerd docker docker-init containerd containerd-shim-runc-v2 iptables",
    "podman": "podman conmon",
    "containerd": "containerd containerd-shim-runc-v2 ctr",
    "cri": "containerd containerd-shim-runc-v2 ctr",
}
MODULES = {
    "": ("pytest", "_pytest", "pluggy", "iniconfig", "packaging"),
    "cri": ("grpc", "google", "cri_api"),
}
KERNEL_MODULES = (
    "br_netfilter nf_nat xt_MASQUERADE xt_addrtype xt_conntrack nf_tables nft_compat nft_chain_nat"
).split()
MARGIN = 150.0  # seconds of a machine's time in which no test begins any more

INTRO = """\
# Engines

What Docker, Podman, containerd and its CRI plugin do with ocirt as their runtime, and with runc
beside it. A row is a test that starts the real engine; `n/m` counts the cases of a test that has
several. The columns say which runtime, and which cgroup version with it.

This file is made by the tests, not by hand:

```
python3 conformance/engines.py DIR --here --vm --output docs/engines.md
```

docs/conformance.md says what that needs. `--check` exits with 1 when there is something that runc
passes and ocirt does not.
"""

# Where there is a ° in the tables.
BARE = """\
°: on the cgroup v2 tree of a machine whose controllers belong to v1, as the virtual machine has not
run it; what every runtime fails there counts as not run.
"""


# --- what there is to run


@dataclass(frozen=True)
class Row:
    """One scenario: the test functions of that name, as root and rootless."""

    engine: str
    scenario: str


def rows(tests: Path) -> dict[Row, dict[str, str]]:
    """Return {row: {user: id of its test function}} from the sources, in their order."""
    found: dict[Row, dict[str, str]] = {}
    for engine in ENGINES:
        for user in USERS:
            path = tests / f"test_{engine}{'' if user == 'root' else '_rootless'}.py"
            if not path.exists():
                continue
            for name in tests_in(path):
                words = name.removeprefix("test_").replace("_", " ")
                function = f"tests/integration/{path.name}::{name}"
                found.setdefault(Row(engine, words), {})[user] = function
    return found


def tests_in(path: Path) -> list[str]:
    """Return the names of a file's test functions, those that it imports included."""
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            names += (alias.asname or alias.name for alias in node.names)
    return [name for name in names if name.startswith("test_")]


def files(tests: Path, engines: Iterable[str]) -> list[str]:
    """Return the files with the tests of these engines."""
    return sorted({ids.partition("::")[0] for row, by_user in rows(tests).items()
                   for ids in by_user.values() if row.engine in engines})  # fmt: skip


# --- what has been run


@dataclass
class Column:
    """What one runtime did in one place, all runs of it taken together."""

    place: str
    runtime: str
    facts: dict[str, Any] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the id of a test

    @property
    def title(self) -> str:
        return f"{self.runtime}, {self.facts.get('cgroup') or '?'}"


def merge(folder: Path) -> list[Column]:
    """Read all runs in `folder`; of a test that was run twice, the later result counts."""
    found: dict[tuple[str, str], Column] = {}
    for path in sorted(folder.glob("*.jsonl"), key=number):
        place = path.name.partition("-")[0]
        head, *rest = lines(path)
        runtime = head["runtime"].partition(" ")[0]
        column = found.setdefault((place, runtime), Column(place, runtime))
        column.facts = {**head, "engines": {**column.facts.get("engines", {}), **head["engines"]}}
        column.results.update({row["test"]: row for row in rest})
    return [found[key] for place in PLACES for key in sorted(found) if key[0] == place]


def fill_in(columns: list[Column]) -> list[Column]:
    """Return the columns of the table: what the bare tree knows goes where the VM knows nothing.

    A case that every runtime fails on the bare tree needs a controller, so that says nothing.
    """
    bare = [column for column in columns if column.place == "tree"]
    able = {test for column in bare for test, row in column.results.items()
            if row["outcome"] != "fail"}  # fmt: skip
    shown = [replace(column, results=dict(column.results)) for column in columns
             if column.place != "tree"]  # fmt: skip
    for column in bare:
        same = (other for other in shown if (other.place, other.runtime) == ("vm", column.runtime))
        target = next(same, None)
        if target is None:
            target = Column("vm", column.runtime, column.facts)
            shown.append(target)
        for test in able & column.results.keys() - target.results.keys():
            target.results[test] = {**column.results[test], "bare": True}
    return shown


def number(path: Path) -> int:
    """Return the number in PLACE-RUNTIME-NUMBER.jsonl: runs are counted."""
    return int(path.stem.rpartition("-")[2])


def lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        if line.endswith("}"):  # the last one may have been cut short
            yield json.loads(line)


# --- the table


@dataclass
class Table:
    """Merged runs against the tests there are."""

    rows: dict[Row, dict[str, str]]
    runs: list[Column]
    columns: list[Column] = field(init=False)
    notes: list[str] = field(default_factory=list)  # in the order of their first use

    def __post_init__(self) -> None:
        self.columns = fill_in(self.runs)

    def cases(self, function: str) -> list[str]:
        """Return the ids of a test's cases, known from the runs that had them."""
        found = {test for column in self.columns for test in column.results
                 if test.partition("[")[0] == function}  # fmt: skip
        return sorted(found)

    def cell(self, column: Column, function: str | None) -> str:
        if function is None:
            return ""
        cases = self.cases(function)
        known = [column.results[case] for case in cases if case in column.results]
        passed = sum(row["outcome"] == "pass" for row in known)
        failed = sum(row["outcome"] == "fail" for row in known)
        missing = len(cases) - len(known)
        if not known:
            return "not run"
        text = "pass" if len(cases) == 1 else f"{passed}/{len(cases)}"
        if failed:
            text = f"**{text if passed else 'fail'}**"
        elif not passed:
            text = "skip"
        if any(row.get("bare") for row in known):
            text += "°"
        if missing:
            text += f", {missing} not run"
        reasons = {row["reason"]: None for row in known if row["outcome"] == "skip"}
        return text + "".join(f"[^{self.note(reason)}]" for reason in reasons)

    def note(self, reason: str) -> int:
        if reason not in self.notes:
            self.notes.append(reason)
        return 1 + self.notes.index(reason)

    def text(self) -> str:
        """Return the whole document."""
        sections = []
        for engine, name in ENGINES.items():
            mine = {row: ids for row, ids in self.rows.items() if row.engine == engine}
            if mine:
                sections.append(f"## {name}\n\n{self.section(mine)}")
        if any("°" in section for section in sections):
            parts = [INTRO, BARE, machines(self.runs), *sections]
        else:
            parts = [INTRO, machines(self.columns), *sections]
        if self.notes:
            reasons = (f"[^{count}]: {text}" for count, text in enumerate(self.notes, 1))
            parts.append("\n".join(reasons) + "\n")
        return "\n".join(parts)

    def section(self, mine: dict[Row, dict[str, str]]) -> str:
        users = [user for user in USERS if any(user in ids for ids in mine.values())]
        pairs = [(user, column) for user in users for column in self.columns]
        head = [f"{column.title}{', rootless' if user == 'rootless' else ''}"
                for user, column in pairs]  # fmt: skip
        table = [["scenario", *head], ["---"] * (1 + len(pairs))]
        for row, ids in mine.items():
            table.append([row.scenario, *(self.cell(column, ids.get(user))
                                          for user, column in pairs)])  # fmt: skip
        table.append(["**pass, of all cases**",
                      *(self.sum(column, user, mine) for user, column in pairs)])  # fmt: skip
        return "".join(f"| {' | '.join(cells)} |\n" for cells in table)

    def sum(self, column: Column, user: str, mine: dict[Row, dict[str, str]]) -> str:
        cases = [case for ids in mine.values() if user in ids for case in self.cases(ids[user])]
        passed = sum(column.results.get(case, {}).get("outcome") == "pass" for case in cases)
        return f"{passed}/{len(cases)}"

    # what --check looks at

    def behind(self, ours: str = "ocirt", theirs: str = "runc") -> list[str]:
        """Say what `theirs` passes and `ours` does not, a line each."""
        found = []
        functions = {function for ids in self.rows.values() for function in ids.values()}
        by_key = {(column.place, column.runtime): column for column in self.columns}
        for (place, runtime), column in by_key.items():
            if runtime != theirs:
                continue
            mine = by_key.get((place, ours))
            for test, row in sorted(column.results.items()):
                if row["outcome"] != "pass" or test.partition("[")[0] not in functions:
                    continue
                own = mine.results.get(test) if mine else None
                if own is None or own["outcome"] != "pass":
                    said = f"{own['outcome']}: {own['reason']}" if own else "not run"
                    found.append(f"{PLACES[place]}: {test}: {said}")
        return found


def machines(columns: list[Column]) -> str:
    """Return what was measured on what, a line per place."""
    told = []
    for place, name in PLACES.items():
        here = [column for column in columns if column.place == place]
        if not here:
            continue
        facts = here[0].facts
        engines: dict[str, str] = {}
        for column in here:
            engines |= column.facts["engines"]
        parts = [
            f"Linux {facts['kernel'].partition('-')[0]}",
            f"cgroup {facts['cgroup']}",
            f"AppArmor {'on' if facts['apparmor'] else 'off'}",
            "all capabilities" if facts["sys_resource"] else "no CAP_SYS_RESOURCE",
            *(f"{engine} {version}" for engine, version in sorted(engines.items())),
            *(column.facts["runtime"] for column in here),
            max(column.facts["date"] for column in here),
        ]
        told.append(f"* {name}: {'; '.join(parts)}")
    return "Run on\n" + "\n".join(told) + "\n" if told else "Nothing has been run yet.\n"


# --- running


def pytest_argv(record: Path, done: Path, options: argparse.Namespace, until: float) -> list[str]:
    """Return the run of pytest; it works here and in the virtual machine."""
    argv = [sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    argv += ["--continue-on-collection-errors"]
    argv += ["-p", "conformance.recording", "--record", str(record), "--done", str(done)]
    for glob in options.only or ():
        argv += ["--only", glob]
    if until:
        argv += ["--stop-at", str(round(until))]
    return [*argv, *files(TESTS, options.engine)]


def run(place: str, runtime: str, options: argparse.Namespace) -> None:
    """Run what `runtime` has not been tested with in `place`; the outcomes are kept."""
    program = shutil.which(runtime)
    if program is None:
        raise SystemExit(f"engines: {runtime}: no such program")
    program = os.path.abspath(program)
    label = Path(program).name
    runs = [number(path) for path in options.folder.glob("*.jsonl")]
    record = options.folder / f"{place}-{label}-{max(runs, default=0) + 1}.jsonl"
    done = options.folder / f"{place}-{label}.done"
    known = [column for column in merge(options.folder)
             if (column.place, column.runtime) == (place, label)]  # fmt: skip
    again = options.again or ()
    done.write_text("".join(
        f"{test}\n" for column in known for test in column.results
        if not any(fnmatch.fnmatchcase(test, glob) for glob in again)
    ) + "".join(f"{test}\n" for test in options.without or ()))  # fmt: skip
    env = {"OCIRT_TEST_RUNTIME": program}
    if place != "vm":
        argv = pytest_argv(record, done, options, 0)
        if place == "tree":
            argv = on_bare_tree(argv)
        subprocess.run(argv, cwd=ROOT, env={**os.environ, **env}, check=False)
    else:
        env |= {"OCIRT_TEST_PATIENCE": str(options.patience), "TMPDIR": "/mnt/tmp"}
        until = time.time() + options.timeout - MARGIN
        inside = pytest_argv(record, done, options, until)
        subprocess.run(in_vm(inside, env, options), cwd=ROOT, check=False)


def on_bare_tree(argv: list[str]) -> list[str]:
    """Return the command that runs `argv` where the bare tree is all there is of cgroups."""
    if not os.path.exists(f"{BARE_TREE}/cgroup.controllers"):
        raise SystemExit(f"engines: {BARE_TREE}: no cgroup v2 tree")
    script = f'mount --bind {BARE_TREE} /sys/fs/cgroup && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *argv]


def in_vm(argv: list[str], env: dict[str, str], options: argparse.Namespace) -> list[str]:
    """Return the command that runs `argv` in the virtual machine of vm.py."""
    named = shlex.join([f"{name}={value}" for name, value in env.items()])
    script = f"mkdir -p /mnt/tmp && exec env {named} {shlex.join(argv)}"
    vm = [sys.executable, str(HERE / "vm.py"), "--share", str(options.folder),
          "--timeout", str(options.timeout), "--cwd", str(ROOT)]  # fmt: skip
    if options.uml:
        vm += ["--uml", str(options.uml)]
    if options.vng:
        vm += ["--vng", options.vng]
    for module in KERNEL_MODULES:
        vm += ["--module", module]
    for path in worth_a_copy(env["OCIRT_TEST_RUNTIME"], options.engine):
        vm += ["--copy", str(path)]
    return [*vm, "--", "sh", "-c", script]


def worth_a_copy(runtime: str, engines: Iterable[str]) -> list[Path]:
    """Return what the tests read over and over: this tree, Python, programs."""
    found = [ROOT, Path(sysconfig.get_path("stdlib")), Path(sys.executable).resolve()]
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        folder, name = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
        found.append(Path(folder, name))
    for module in (name for engine in ("", *engines) for name in MODULES.get(engine, ())):
        spec = find_spec(module)
        found += map(Path, (spec.submodule_search_locations or ()) if spec else ())
    programs = " ".join(PROGRAMS[engine] for engine in engines).split()
    named = ("busybox", runtime, *programs)
    found += [Path(where) for name in named if (where := shutil.which(name))]
    kept: dict[Path, None] = {}
    for path in found:
        path = path.resolve()
        if not any(path.is_relative_to(other) for other in kept):
            kept[path] = None
    return list(kept)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the runs' results are kept")
    parser.add_argument("--here", action="store_true", help="run the tests on this machine")
    parser.add_argument("--vm", action="store_true", help="run them in the virtual machine")
    parser.add_argument("--tree", action="store_true",
                        help="on a cgroup v2 tree without controllers")  # fmt: skip
    parser.add_argument("--runtime", action="append", metavar="CMD",
                        help="a program to test; default: ocirt, and runc")  # fmt: skip
    parser.add_argument("--engine", action="append", choices=ENGINES, help="default: all")
    parser.add_argument("--only", action="append", metavar="GLOB", help="tests, by pytest's id")
    parser.add_argument("--again", action="append", metavar="GLOB",
                        help="of these, those that have a result, too")  # fmt: skip
    parser.add_argument("--without", action="append", metavar="ID",
                        help="not this test, now")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=7200, metavar="S",
                        help="for each start of the virtual machine")  # fmt: skip
    parser.add_argument("--patience", type=float, default=100, metavar="S",
                        help="what a step of a test may take in there")  # fmt: skip
    parser.add_argument("--vng", metavar="FILE", help="as for conformance/vm.py")
    parser.add_argument("--uml", type=Path, metavar="FILE", help="as for conformance/vm.py")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the document there")
    parser.add_argument("--check", action="store_true",
                        help="exit with 1 when runc passes more than ocirt")  # fmt: skip
    options = parser.parse_args(None if arguments is None else list(arguments))
    options.engine = options.engine or list(ENGINES)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    for place in PLACES:
        if getattr(options, place):
            for runtime in options.runtime or ("ocirt", "runc"):
                run(place, runtime, options)
    table = Table(rows(TESTS), merge(options.folder))
    text = table.text()
    if options.output:
        options.output.write_text(text)
    elif not options.check:
        print(text)
    if options.check:
        behind = table.behind()
        print("\n".join(behind) or "all that runc passes, ocirt passes")
        return 1 if behind else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
