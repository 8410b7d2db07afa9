"""The document of `make performance`: what it says of numbers, and of those that are missing."""

from __future__ import annotations

import runpy
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent.parent.parent / "bench"
VERBS = ("create", "start", "state", "kill", "delete")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def load(monkeypatch):
    """Return the names of one of the programs, which are no package."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield lambda name: runpy.run_path(str(BENCH / f"{name}.py"))
    for name in set(sys.modules) - before:
        if (BENCH / f"{name}.py").exists():
            del sys.modules[name]


def times(factor):
    each = {verb: {"median": factor * 1.0, "minimum": factor * 0.5} for verb in VERBS}
    return {**each, **{name: {"median": factor * 5.0, "minimum": 4.0} for name in ("sum", "run")}}


WAITING = ("waiting_init_rss", "waiting_init_pss", "waiting_run_rss", "waiting_run_pss")


def runtime(factor):
    return {
        "version": "1",
        "wall_ms": times(factor),
        "cpu_ms": times(factor),
        "memory_kib": dict.fromkeys((*VERBS, "run", *WAITING), 64 * factor),
        "instructions": {},
        "phases_us": {"create": {"check": 90.0, "total": 90.0}} if factor == 1 else {},
    }


def race():
    runtimes = {"ocirt": runtime(1), "runc": runtime(4), "crun": runtime(2)}
    ratio = {"sum": 0.25, "run": 0.25}
    half = {"sum": 0.5, "run": 1.5}
    return {
        "host": {"cgroup": "v1", "load": 0.1}, "rounds": 3, "runtimes": runtimes, "parallel": None,
        "ratios": {"ocirt/runc": {"wall_ms": ratio, "cpu_ms": ratio},
                   "ocirt/crun": {"wall_ms": half, "cpu_ms": half}},
    }  # fmt: skip


def numbers(**changes):
    alive = {"wall_ms": dict.fromkeys(VERBS, 2.0), "cpu_ms": dict.fromkeys(VERBS, 1.0),
             "list_ms": 4.0, "list_quiet_ms": 3.0}  # fmt: skip
    rank = {"wall_ms": 1.0, "cpu_ms": 1.0}
    found = {
        "machine": {"CPU": "2 × one & <two>"}, "options": [], "seconds": 7,
        "race 1": race(), "race 2": race(), "race 3": race(), "memory": race(),
        "launch": {"ranks": {"16": {"each": {"launch": rank, "crun run": {"wall_ms": 4.0,
                                                                          "cpu_ms": 2.0}}}}},
        "floor": {"parts_us": {"bind mount": {"median": 20.0, "minimum": 10.0}},
                  "needs": {"bind mount": 24}, "total_us": 240.0},
        "docker": {"docker": "28", "rounds": 2, "races": [{
            "slower": 1,
            "median_ms": {"ocirt": 1.0, "runc": 2.0},
            "wall_ms": {"ocirt": [1.0, 1.5], "runc": [2.0, 1.4]}}]},
        "scale": {"rounds": 2, "alive": {"1": alive, "1000": alive}},
    }  # fmt: skip
    return {**found, **changes}


def written(load, tmp_path, **changes):
    load("performance")["write"](numbers(**changes), str(tmp_path / "performance.md"))
    return (tmp_path / "performance.md").read_text()


def test_every_plot_that_the_document_shows_is_there_and_is_svg(load, tmp_path):
    text = written(load, tmp_path)
    shown = {part.partition(")")[0] for part in text.split("](performance/")[1:]}
    assert shown == {path.name for path in (tmp_path / "performance").iterdir()}
    assert len(shown) == 6
    for name in shown:
        assert ET.parse(tmp_path / "performance" / name).getroot().tag == f"{SVG}svg"


def test_a_goal_is_met_only_when_it_is_in_every_run(load, tmp_path):
    worse = race()
    worse["ratios"]["ocirt/runc"]["wall_ms"] = {"sum": 0.31, "run": 0.2}
    text = written(load, tmp_path, **{"race 2": worse})
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert rows["| create → start → state → kill → delete, of runc's"].endswith("| not always |")
    assert rows["| `run`, of runc's"].endswith("| 0.25 | 0.20 | 0.25 | 0.40 | yes |")
    assert rows["| `run`, of crun's"].endswith("| no |")
    assert rows["| `launch -n 16`, wall of crun's"].endswith("| 0.25 | 0.3333 | yes |")
    assert rows["| `launch -n 16`, CPU of crun's"].endswith("| 0.5 | 0.3333 | no |")
    assert rows["| `docker run` slower than with runc, of 2, race 1"].endswith("| no |")


@pytest.mark.parametrize("part", ["memory", "launch", "floor", "docker", "scale"])
def test_a_part_that_is_missing_says_why_and_harms_no_other(load, tmp_path, part):
    text = written(load, tmp_path, **{part: {"missing": "no such program"}})
    assert "Not measured: no such program." in text
    assert "## How it is measured" in text


def test_without_any_race_there_is_still_a_document(load, tmp_path):
    gone = {f"race {number}": {"missing": "no runc"} for number in (1, 2, 3)}
    assert "Not measured: no runc." in written(load, tmp_path, **gone)


def test_plots_of_an_earlier_document_go(load, tmp_path):
    written(load, tmp_path)
    written(load, tmp_path, docker={"missing": "no dockerd"})
    assert not (tmp_path / "performance" / "docker.svg").exists()


def test_bars_are_as_long_as_their_values(load):
    svg = load("svg")
    root = ET.fromstring(svg["bars"]("a & b", "ms", {"<one>": {"x": 1, "y": 3}, "two": {"x": 2}}))
    widths = [
        float(r.get("width")) for r in root.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None
    ]
    assert widths[1] == pytest.approx(3 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(2 * widths[0], abs=0.2)
    assert sum(widths[:2]) == pytest.approx(svg["WIDTH"] - svg["LEFT"] - svg["RIGHT"], abs=0.2)


@pytest.mark.parametrize("most", [0.05, 0.9, 1, 7, 10, 99, 153, 2000, 1e6])
def test_a_scale_has_a_handful_of_lines(load, most):
    assert 1 < most / load("svg")["nice"](most) <= 6 or most < 0.1


def test_the_floor_counts_the_parts_of_a_plan(load, tmp_path):
    plan = tmp_path / "ocirt"
    plan.write_text("""#!/bin/sh
echo ' #   op       what          from'
echo '  0  cgroup   pids.max = 1  linux.resources.pids.limit'
echo '  1  mount    proc on /proc (nodev)  mounts[0]'
echo '  2  bind     /a on /b  mounts[1]'
echo '  3  mask     /proc/kcore  linux.maskedPaths[0]'
echo '  4  set_attr /b read-only (ro)  mounts[1]'
""")
    plan.chmod(0o755)
    found = load("floor")["needs"](str(plan), "bundle")
    assert found["mount proc"] == 1
    assert found["bind mount"] == 2
    assert found["make a mount read-only"] == 1
    assert found["clone3, five namespaces"] == 1


def test_the_phases_of_a_verb_are_read_back(load):
    from ocirt.cli import trace

    spent = {**{phase: 0 for phase, _ in trace.PHASES}, "HPC stage": 5_000, "init ops": 7_000}
    assert load("lifecycle")["phases"](trace.table("run", spent)) == {
        "HPC stage": 5, "init ops": 7, "total": 12,
    }  # fmt: skip
