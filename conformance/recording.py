"""A pytest plugin that keeps each test's outcome in a file as soon as it is known.

    python -m pytest -p conformance.recording --record FILE …

The first line of FILE tells of the machine and its runtime, each further line of one test:

    {"kernel": "6.1.0", "cgroup": "v2", "lsm": …, "runtime": "runc version …", "engines": …}
    {"test": "tests/integration/test_x.py::test_y[z]", "outcome": "pass", "reason": "", …}

A run that is cut short has told of all tests that it ended.
"""

from __future__ import annotations

import datetime
import fnmatch
import json
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

ENGINES = {
    # engine       the command that tells its version, and which word of the answer is it
    "docker":     (("dockerd", "--version"), 2),
    "podman":     (("podman", "--version"), 2),
    "containerd": (("containerd", "--version"), 2),
    "conmon":     (("conmon", "--version"), 2),
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("recording", "keep outcomes")
    group.addoption("--record", type=Path, metavar="FILE", help="keep outcomes in this file")
    group.addoption("--only", action="append", metavar="GLOB", help="tests to run, by their id")
    group.addoption("--done", type=Path, metavar="FILE", help="ids of tests not to run again")
    group.addoption("--stop-at", type=float, metavar="TIME",
                    help="begin no further test, in seconds since 1970")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if config.option.record:
        config.pluginmanager.register(Recording(config.option), "recording")


class Recording:
    def __init__(self, options: Any) -> None:
        self.path: Path = options.record
        self.only: list[str] = options.only or ["*"]
        self.done = set(options.done.read_text().split("\n")) if options.done else set()
        self.stop_at: float | None = options.stop_at
        self.outcome, self.reason, self.seconds = "", "", 0.0

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        wanted = [
            item
            for item in items
            if item.nodeid not in self.done
            and any(fnmatch.fnmatchcase(item.nodeid, glob) for glob in self.only)
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
        items[:] = wanted

    def pytest_collection_finish(self) -> None:
        # Now, since conftest.py has had its say on how its helpers are imported.
        from tests.integration.support import find_runtime

        self.path.write_text(json.dumps(facts(find_runtime() or "")) + "\n")

    def pytest_runtest_logstart(self) -> None:
        self.outcome, self.reason, self.seconds = "pass", "", 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if report.failed:
            self.outcome, self.reason = "fail", words_of_failure(report)
        elif report.skipped and self.outcome == "pass":
            self.outcome, self.reason = "skip", words_of_skip(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        ended = yield
        row = {"test": item.nodeid, "outcome": self.outcome, "reason": self.reason,
               "seconds": round(self.seconds, 1)}  # fmt: skip
        with self.path.open("a") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if self.stop_at is not None and time.time() > self.stop_at:
            item.session.shouldstop = "no time left for the next test"
        return ended


def words_of_skip(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def words_of_failure(report: pytest.TestReport) -> str:
    """Return the line that says most, with what comes before the test itself named."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if report.when == "call" else f"{report.when}: {line}"


def first_line(argv: tuple[str, ...]) -> str:
    if not shutil.which(argv[0]):
        return ""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return (done.stdout.splitlines() or [""])[0]


def facts(runtime: str) -> dict[str, Any]:
    """Return what the outcomes depend on: the machine, the runtime, the engines."""
    engines = {}
    for name, (argv, position) in ENGINES.items():
        found = first_line(argv).split()
        if len(found) > position:
            engines[name] = found[position].rstrip(",")
    lsm = Path("/sys/kernel/security/lsm")
    bounding = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    return {
        "kernel": platform.release(),
        "cgroup": "v2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
        "apparmor": lsm.exists() and "apparmor" in lsm.read_text(),
        "sys_resource": bool(bounding >> 24 & 1),  # CAP_SYS_RESOURCE
        "runtime": first_line((runtime, "--version")),
        "engines": engines,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
