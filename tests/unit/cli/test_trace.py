"""Where the time of a verb goes: the phases, their functions, and that nobody else pays."""

from __future__ import annotations

import builtins
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocirt.cli import trace

ROOT = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.parametrize(("phase", "module", "functions"), trace.POINTS)
def test_every_point_is_a_function_of_its_own_module(phase, module, functions):
    assert phase in dict(trace.PHASES)
    found = importlib.import_module(module)
    for name in functions.split():
        holder, _, last = name.rpartition(".")
        owner = getattr(found, holder) if holder else found
        assert callable(owner.__dict__[last]), name
        assert owner.__dict__[last].__module__ == module


def test_a_phase_has_its_time_less_that_of_phases_within(monkeypatch):
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(trace.time, "monotonic_ns", lambda: next(clock))
    watch = trace.Stopwatch("other")
    inner = watch.timed("hooks", lambda: 7)
    assert watch.timed("init ops", lambda: inner() + inner())() == 14
    assert watch.spent["hooks"] == 200
    assert watch.spent["init ops"] == 300
    assert watch.spent["other"] == 100


def test_a_failing_phase_ends_as_well():
    watch = trace.Stopwatch("other")
    with pytest.raises(ZeroDivisionError):
        watch.timed("check", lambda: 1 / 0)()
    watch.leave()
    assert watch._stack == []


def test_the_table_adds_up_and_leaves_out_what_did_not_happen():
    spent = {**{phase: 0 for phase, _ in trace.PHASES}, "check": 1_500_000, "other": 2_000_000}
    lines = trace.table("create", spent).splitlines()
    assert lines[0] == "ocirt: create: where the time went"
    assert [line.split()[:2] for line in lines[1:]] == [
        ["check", "1500"],
        ["other", "2000"],
        ["total", "3500"],
    ]


def ocirt(*argv, code="", env=None):
    start = "from ocirt import cli; import sys; code = cli.main(sys.argv[1:])\n"
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]\n"
         + start + code + "\nsys.exit(code)", *argv],
        capture_output=True, text=True, timeout=60, check=False, env=env,
    )  # fmt: skip


def phases(text):
    rows = [line.split(" us")[0].rsplit(None, 1) for line in text.splitlines() if " us" in line]
    return {name.strip(): int(value) for name, value in rows}


def test_a_verb_prints_its_phases_once_and_on_stderr(tmp_path):
    done = ocirt("--root", str(tmp_path), "--trace-time", "list", "-f", "json")
    assert (done.returncode, json.loads(done.stdout)) == (0, None)
    found = phases(done.stderr)
    total = found.pop("total")
    assert done.stderr.count("where the time went") == 1
    assert found["modules"] > 0
    assert abs(sum(found.values()) - total) <= len(found)


def test_a_failing_verb_prints_them_too(tmp_path):
    done = ocirt("--root", str(tmp_path), "--trace-time", "state", "nobody")
    assert done.returncode == 1
    assert "container does not exist" in done.stderr
    assert phases(done.stderr)["total"] > 0


def test_without_the_option_nothing_is_loaded_or_wrapped(tmp_path):
    code = (
        "import builtins\n"
        "assert 'ocirt.cli.trace' not in sys.modules\n"
        "assert type(builtins.__import__).__name__ == 'builtin_function_or_method'\n"
        "assert 'timed' not in repr(sys.modules['ocirt.state'].load)"
    )
    env = {trace.BEGUN: "1 1"}
    done = ocirt("--root", str(tmp_path), "list", "-q", code=code, env=env)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("said", ["", "x y", "1", "1 2 3", "-1 5", "9" * 5000 + " x"])
def test_an_odd_variable_is_no_beginning(monkeypatch, said):
    monkeypatch.setenv(trace.BEGUN, said)
    before = builtins.__import__
    found = trace.Trace("state", time.monotonic_ns())
    try:
        assert found._watch.spent["exec"] == found._watch.spent["interpreter"] == 0
    finally:
        builtins.__import__ = before
