"""The validation suite's dialect of TAP, and which of its failures count."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from conformance import runtime_tools as rt

INSIDE = """\
TAP version 13
  ---
  {
    "error": "",
    "stdout": "ok 1 - has expected hostname\\n%s"
  }
  ...
ok 1 - check hostname
1..1
"""


def test_subtests_are_counted_and_named():
    out = "TAP version 13\nok 1 - one\nnot ok 2 - two # three\nok 3 - four # SKIP no disk\n1..3\n"
    assert rt.parse(out) == (1, 1, ["two # three"], True)


def test_several_documents_count_as_one():
    assert rt.parse("TAP version 13\nok 1 - a\n1..1\nTAP version 13\nok 1 - b\n1..1\n")[0] == 2


def test_an_error_block_without_a_subtest_is_a_failure():
    out = 'TAP version 13\n  ---\n  {\n    "error": "hooks\\nReference: x"\n  }\n  ...\n1..0\n'
    assert rt.judge("poststart", 0, out, "").faults == ["hooks"]


def test_an_error_block_after_a_subtest_is_none():
    out = 'ok 1 - must fail\n  ---\n  {\n    "error": "exit status 1"\n  }\n  ...\n1..1\n'
    assert rt.judge("create", 0, out, "").verdict == "pass"


@pytest.mark.parametrize(("plan", "note"), [("1..1\\n", ""), ("", "did not finish")])
def test_a_container_that_never_ended_its_checks_is_noted(plan, note):
    result = rt.judge("hostname", 0, INSIDE % plan, "")
    assert result.verdict == "pass"
    assert note in result.note


@pytest.mark.parametrize(
    ("program", "verdict"), [("process_rlimits_fail", "pass"), ("default", "fail")]
)
def test_only_silent_programs_may_say_nothing(program, verdict):
    assert rt.judge(program, 0, "", "").verdict == verdict


def test_the_runtimes_own_words_replace_an_exit_status():
    err = 'failed to create the container\ntime="x" level=error msg="no such controller"\n'
    assert rt.judge("hostname", 0, "not ok 1 - exit status 1\n1..1\n", err).faults == [
        "no such controller"
    ]


def test_a_program_that_ran_out_of_time_failed():
    assert rt.judge("start", None, "ok 1 - a\n", "").verdict == "timeout"


def test_a_failure_is_explained_only_when_each_fault_is():
    rows = [{"programs": ["del*"], "whose": "ours", "faults": ["stopped"], "reason": "r"}]
    known = rt.Result("delete", "fail", faults=["must be stopped"])
    news = rt.Result("delete", "fail", faults=["must be stopped", "lost"])
    rt.explain([known, news], rows, "ocirt", "v1")
    assert (known.whose, news.whose) == ("ours", "")


def test_every_explanation_is_complete():
    rows = tomllib.loads((Path(rt.__file__).parent / "explained.toml").read_text())["explained"]
    for row in rows:
        assert row["whose"] in {"machine", "suite", "ours"}
        assert row["programs"]
        assert row["reason"].endswith(".")
        assert set(row) <= {"programs", "whose", "reason", "faults", "cgroup", "runtimes"}
