"""The table of engines: runs are merged, cases folded, and what is missing is never a pass."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from conformance import engines

FACTS = {
    "kernel": "6.1.0", "cgroup": "v1", "apparmor": False, "sys_resource": False,
    "engines": {"docker": "20.10"}, "date": "2026-11-22",
}  # fmt: skip
FILE = "tests/integration/test_docker.py"


def keep(folder, name, outcomes, runtime="ocirt version 1", **facts):
    """Write a run's file; outcomes: test → outcome, or (outcome, reason)."""
    head = {**FACTS, "runtime": runtime, **facts}
    rows = [
        {"test": test, "outcome": told[0], "reason": told[1], "seconds": 1.0}
        for test, outcome in outcomes.items()
        for told in [(outcome, "") if isinstance(outcome, str) else outcome]
    ]
    text = "".join(json.dumps(line) + "\n" for line in (head, *rows))
    (folder / name).write_text(text)


@pytest.fixture
def sources(tmp_path):
    """Two engines, one of them also without root."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "test_docker.py").write_text(
        "def test_it_runs(): ...\ndef helper(): ...\ndef test_it_ends(): ...\n"
    )
    (folder / "test_docker_rootless.py").write_text(
        "import os\nfrom tests.integration.test_docker import test_it_runs, helper\n"
    )
    (folder / "test_podman.py").write_text("def test_it_runs(): ...\n")
    (folder / "test_process.py").write_text("def test_no_engine(): ...\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def cell(sources, runs, name="test_it_runs", column=0):
    table = engines.Table(engines.rows(sources), engines.merge(runs))
    return table.cell(table.columns[column], f"{FILE}::{name}"), table.notes


def test_rows_are_the_tests_of_engines_in_words(sources):
    found = engines.rows(sources)
    assert [(row.engine, row.scenario, sorted(ids)) for row, ids in found.items()] == [
        ("docker", "it runs", ["root", "rootless"]),
        ("docker", "it ends", ["root"]),
        ("podman", "it runs", ["root"]),
    ]
    assert found[engines.Row("docker", "it ends")] == {"root": f"{FILE}::test_it_ends"}


def test_the_real_tests_are_found():
    assert {row.engine for row in engines.rows(engines.TESTS)} >= {"docker", "podman", "containerd"}
    assert FILE in engines.files(engines.TESTS, ["docker"])
    assert FILE not in engines.files(engines.TESTS, ["podman"])


def test_of_two_runs_the_later_counts_and_both_are_kept(sources, runs):
    keep(runs, "here-ocirt-2.jsonl", {f"{FILE}::test_it_runs": "fail"})
    keep(runs, "here-ocirt-10.jsonl", {f"{FILE}::test_it_runs": "pass"})
    keep(runs, "here-ocirt-3.jsonl", {f"{FILE}::test_it_ends": "pass"})
    (column,) = engines.merge(runs)
    assert {test: row["outcome"] for test, row in column.results.items()} == {
        f"{FILE}::test_it_runs": "pass",
        f"{FILE}::test_it_ends": "pass",
    }


def test_runtimes_and_places_have_columns_of_their_own(runs):
    keep(runs, "vm-ocirt-1.jsonl", {}, cgroup="v2")
    keep(runs, "here-runc-2.jsonl", {}, "runc version 1.1")
    keep(runs, "here-ocirt-3.jsonl", {})
    titles = [(column.place, column.title) for column in engines.merge(runs)]
    assert titles == [("here", "ocirt, v1"), ("here", "runc, v1"), ("vm", "ocirt, v2")]


def test_a_run_that_was_cut_short_counts_as_far_as_it_went(runs):
    keep(runs, "here-ocirt-1.jsonl", {f"{FILE}::test_it_runs": "pass"})
    with (runs / "here-ocirt-1.jsonl").open("a") as file:
        file.write('{"test": "tests/integ')
    assert len(engines.merge(runs)[0].results) == 1


CASES = [f"{FILE}::test_it_runs[{name}]" for name in "abc"]


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ({f"{FILE}::test_it_runs": "pass"}, "pass"),
        ({f"{FILE}::test_it_runs": "fail"}, "**fail**"),
        ({f"{FILE}::test_it_runs": ("skip", "no such device")}, "skip[^1]"),
        ({f"{FILE}::test_it_ends": "pass"}, "not run"),
        (dict.fromkeys(CASES, "pass"), "3/3"),
        (dict.fromkeys(CASES, "fail"), "**fail**"),
        ({CASES[0]: "pass", CASES[1]: "fail", CASES[2]: "pass"}, "**2/3**"),
        ({CASES[0]: "pass", CASES[1]: ("skip", "x"), CASES[2]: ("skip", "x")}, "1/3[^1]"),
        (dict.fromkeys(CASES, ("skip", "x")), "skip[^1]"),
    ],
)
def test_a_cell_says_how_it_went(sources, runs, outcomes, text):
    keep(runs, "here-ocirt-1.jsonl", outcomes)
    assert cell(sources, runs)[0] == text


def test_cases_known_from_another_column_are_missing_here(sources, runs):
    keep(runs, "here-ocirt-1.jsonl", {CASES[0]: "pass"})
    keep(runs, "here-runc-2.jsonl", dict.fromkeys(CASES, "pass"), "runc version 1.1")
    assert cell(sources, runs)[0] == "1/3, 2 not run"
    assert cell(sources, runs, column=1)[0] == "3/3"


def test_the_document_is_a_table_with_footnotes(sources, runs):
    keep(runs, "here-ocirt-1.jsonl", {f"{FILE}::test_it_runs": "pass"})
    skips = {f"{FILE}::test_it_runs": ("skip", "only ocirt: it can")}
    keep(runs, "here-runc-2.jsonl", skips, "runc version 1.1")
    text = engines.Table(engines.rows(sources), engines.merge(runs)).text()
    head = "| scenario | ocirt, v1 | runc, v1 | ocirt, v1, rootless | runc, v1, rootless |"
    assert head in text
    assert "| it runs | pass | skip[^1] | not run | not run |" in text
    assert "| it ends | not run | not run |  |  |" in text
    assert "[^1]: only ocirt: it can" in text
    assert "| **pass, of all cases** | 1/1 | 0/1 | 0/0 | 0/0 |" in text
    assert "Linux 6.1.0; cgroup v1; AppArmor off; no CAP_SYS_RESOURCE; docker 20.10" in text
    podman = text.partition("## Podman")[2]
    assert "| scenario | ocirt, v1 | runc, v1 |\n" in podman  # it has no tests without root


@pytest.mark.parametrize(
    ("ocirt", "behind"), [("pass", False), ("fail", True), (("skip", "x"), True), (None, True)]
)
def test_what_runc_passes_ocirt_must_pass(sources, runs, ocirt, behind):
    keep(runs, "here-ocirt-1.jsonl", {CASES[0]: ocirt} if ocirt else {})
    keep(runs, "here-runc-2.jsonl", {CASES[0]: "pass"}, "runc version 1.1")
    found = engines.Table(engines.rows(sources), engines.merge(runs)).behind()
    assert bool(found) == behind
    assert all(CASES[0] in line for line in found)


def test_what_runc_fails_or_nobody_tests_any_more_is_no_matter(sources, runs):
    keep(runs, "here-ocirt-1.jsonl", {CASES[0]: "fail"})
    theirs = {CASES[0]: "fail", f"{FILE}::test_of_old": "pass"}
    keep(runs, "here-runc-2.jsonl", theirs, "runc version 1.1")
    assert engines.Table(engines.rows(sources), engines.merge(runs)).behind() == []


def test_another_place_is_no_excuse(sources, runs):
    keep(runs, "here-ocirt-1.jsonl", {CASES[0]: "pass"})
    keep(runs, "vm-runc-2.jsonl", {CASES[0]: "pass"}, "runc version 1.1", cgroup="v2")
    assert len(engines.Table(engines.rows(sources), engines.merge(runs)).behind()) == 1


def test_the_bare_tree_fills_in_what_the_virtual_machine_has_not_run(sources, runs):
    keep(runs, "vm-ocirt-1.jsonl", {CASES[0]: "pass"}, cgroup="v2")
    keep(runs, "tree-ocirt-2.jsonl", {CASES[0]: "fail", CASES[1]: "pass", CASES[2]: "fail"})
    # The third needs controllers, as nobody passes it; the second we should have passed, too.
    bare = {CASES[0]: "pass", CASES[1]: "pass", CASES[2]: "fail"}
    keep(runs, "tree-runc-3.jsonl", bare, "runc version 1.1", cgroup="v2")
    table = engines.Table(engines.rows(sources), engines.merge(runs))
    assert [(column.place, column.title) for column in table.columns] == [
        ("vm", "ocirt, v2"),
        ("vm", "runc, v2"),
    ]
    assert cell(sources, runs)[0] == "2/2°"
    assert cell(sources, runs, column=1)[0] == "2/2°"
    keep(runs, "tree-ocirt-4.jsonl", {CASES[1]: "fail"})
    table = engines.Table(engines.rows(sources), engines.merge(runs))
    assert cell(sources, runs)[0] == "**1/2**°"
    assert [line.split(": ")[1] for line in table.behind()] == [CASES[1]]
    assert "\n°: on the cgroup v2 tree" in table.text()
    assert "* this machine, cgroup v2 tree: " in table.text()
    keep(runs, "vm-ocirt-5.jsonl", dict.fromkeys(CASES, "pass"), cgroup="v2")
    keep(runs, "vm-runc-6.jsonl", dict.fromkeys(CASES, "pass"), "runc version 1.1", cgroup="v2")
    text = engines.Table(engines.rows(sources), engines.merge(runs)).text()
    assert "°" not in text
    assert "cgroup v2 tree" not in text


def test_the_program_checks_and_writes(sources, runs, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engines, "TESTS", sources)
    keep(runs, "here-runc-1.jsonl", {CASES[0]: "pass"}, "runc version 1.1")
    assert engines.main([str(runs), "--check"]) == 1
    assert capsys.readouterr().out == f"this machine: {CASES[0]}: not run\n"
    keep(runs, "here-ocirt-2.jsonl", {CASES[0]: "pass"})
    output = tmp_path / "engines.md"
    assert engines.main([str(runs), "--check", "--output", str(output)]) == 0
    assert "| it runs | pass | pass |" in output.read_text()


# --- how outcomes come about

TESTS = """
import pytest

def test_good(): ...
def test_bad(): assert 1 == 2, "not so"
@pytest.mark.skip(reason="not here")
def test_skipped(): ...
@pytest.fixture
def broken(): raise OSError("no such thing")
def test_of_broken(broken): ...
@pytest.fixture
def messy():
    yield
    raise OSError("left behind")
def test_messy(messy): ...
@pytest.mark.parametrize("n", [1, 2])
def test_cases(n): ...
"""


@pytest.fixture
def record(tmp_path):
    """Return a function that runs those tests, and returns what was kept."""
    path = tmp_path / "test_some.py"
    path.write_text(TESTS)

    def record(*more):
        kept = tmp_path / "here-x-1.jsonl"
        argv = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conformance.recording"]
        subprocess.run(
            [sys.executable, *argv, "--record", kept, *more, path], capture_output=True,
            cwd=engines.ROOT, timeout=120, check=False,
        )  # fmt: skip
        head, *rows = engines.lines(kept)
        assert {"kernel", "cgroup", "runtime", "engines", "date"} <= head.keys()
        return {row["test"].rpartition("::")[2]: (row["outcome"], row["reason"]) for row in rows}

    return record


def test_outcomes_are_kept(record):
    assert record() == {
        "test_good": ("pass", ""),
        "test_bad": ("fail", "AssertionError: not so"),
        "test_skipped": ("skip", "not here"),
        "test_of_broken": ("fail", "setup: OSError: no such thing"),
        "test_messy": ("fail", "teardown: OSError: left behind"),
        "test_cases[1]": ("pass", ""),
        "test_cases[2]": ("pass", ""),
    }


def test_only_some_and_not_what_is_done(record, tmp_path):
    first = record("--only", "*::test_[cg]*")
    assert sorted(first) == ["test_cases[1]", "test_cases[2]", "test_good"]
    done = tmp_path / "done"
    kept = engines.lines(tmp_path / "here-x-1.jsonl")
    done.write_text("\n".join(row["test"] for row in kept if "[2]" not in row.get("test", "[2]")))
    assert sorted(record("--only", "*::test_[cg]*", "--done", done)) == ["test_cases[2]"]


def test_no_test_begins_when_time_is_up(record):
    assert list(record("--stop-at", "1")) == ["test_good"]
