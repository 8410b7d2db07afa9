"""Every verb in every status, and several verbs on one container at the same time.

The sentences are runc's where runc has one: engines search them.  A verb that is refused changes
nothing.  Of verbs that come together each sees the container whole, before or after the other.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.integration.support import (
    DROP,
    HOST_PIDS,
    PATIENCE,
    SLOWNESS,
    cgroup_of,
    eventually,
    only_ocirt,
)

# --- every verb in every status

SAME = "same"  # the verb does its work, and the status stays
GONE = "gone"
LATER = None  # has a test of its own


class Refused(str):
    """The sentence of a refusal; {id} and {status} are filled in."""


NOT_RUNNING = Refused("container not running")
NOT_PAUSED = Refused("container not paused")
NOT_STOPPED = Refused("cannot delete container {id} that is not stopped: {status}")
NO_START = Refused("cannot start a container in the {status} state")
RUNNING = Refused("cannot start an already running container")
STOPPED = Refused("cannot start a container that has stopped")
CREATING_EXEC = Refused("cannot exec in a container in the creating state")
PAUSED_EXEC = Refused("cannot exec in a paused container")
STOPPED_EXEC = Refused("cannot exec in a stopped container")
NO_EVENTS = Refused("container with id {id} is not running")
EXISTS = Refused("container with given ID already exists")

# held: paused before it was started; unreaped: stopped, and its parent has not noticed yet.
CASES = ("creating", "created", "running", "paused", "held", "stopped", "unreaped")
STATUS = {"held": "paused", "unreaped": "stopped"}

MATRIX = {
    # creating, created, running, paused, held, stopped, unreaped
    "state {id}": (SAME,) * 7,
    "list": (SAME,) * 7,
    "start {id}": (NO_START, "running", RUNNING, NO_START, NO_START, STOPPED, STOPPED),
    "kill {id}": (NOT_RUNNING, "stopped", SAME, SAME, SAME, NOT_RUNNING, NOT_RUNNING),
    "kill {id} KILL": (NOT_RUNNING, *["stopped"] * 4, NOT_RUNNING, NOT_RUNNING),
    "kill --all {id} KILL": (LATER, *["stopped"] * 4, SAME, SAME),
    "delete {id}": (NOT_STOPPED, GONE, NOT_STOPPED, NOT_STOPPED, NOT_STOPPED, GONE, GONE),
    "delete --force {id}": (LATER, *[GONE] * 6),
    "pause {id}": (NOT_RUNNING, "paused", "paused", *[NOT_RUNNING] * 4),
    "resume {id}": (*[NOT_PAUSED] * 3, "running", "created", NOT_PAUSED, NOT_PAUSED),
    "exec {id} true": (CREATING_EXEC, SAME, SAME, *[PAUSED_EXEC] * 2, *[STOPPED_EXEC] * 2),
    "ps --format json {id}": (SAME,) * 7,
    "update --pids-limit 33 {id}": (NOT_RUNNING, *[SAME] * 4, NOT_RUNNING, NOT_RUNNING),
    "events --stats {id}": (*[SAME] * 5, NO_EVENTS, NO_EVENTS),
    "create --bundle {bundle} {id}": (EXISTS,) * 7,
    "run --bundle {bundle} {id}": (EXISTS,) * 7,
}

CHANGING = [
    (form, case, outcomes[index])
    for form, outcomes in MATRIX.items()
    for index, case in enumerate(CASES)
    if outcomes[index] not in (SAME, LATER) and not isinstance(outcomes[index], Refused)
]


class Case:
    """A container in one of CASES."""

    def __init__(self, runtime, bundle, case):
        self.runtime = runtime
        self.status = STATUS.get(case, case)
        self.b = bundle.sleeping()
        self.process = None
        if case == "creating":
            self.process = being_made(runtime, self.b)
        else:
            runtime.create(self.b)
            if case not in ("created", "held"):
                runtime.start(self.b)
            if self.status == "paused":
                runtime.ok("pause", self.b.id)
            elif self.status == "stopped":
                runtime.kill(self.b, "KILL")
                if case == "stopped":
                    runtime.wait(self.b)
        assert eventually(lambda: runtime.status(self.b) == self.status)

    def words(self, form):
        names = {"id": self.b.id, "bundle": self.b.path}
        return [word.format(**names) for word in form.split()]

    def refuses(self, form, sentence):
        words = self.words(form)
        code = 255 if words[0] == "exec" else 1
        saying = sentence.format(id=self.b.id, status=self.status)
        self.runtime.refuses(*words, saying=saying, code=code)

    def end(self):
        if self.process:
            go_on(self.b)
            assert self.process.wait(PATIENCE) == 0


def being_made(runtime, b):
    """Start a `create` that a hook holds up until `go_on`; return its process."""
    script = f"until [ -e {b.path}/go ]; do sleep 0.01; done"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    b.patch(hooks={"createRuntime": [hook]})
    process = runtime.spawn("create", "-b", b.path, b.id, stdout=b.out, stderr=b.out)
    assert eventually(
        lambda: any("(sh)" in item for item in runtime.host.grandchildren(process.pid))
    )
    return process


def go_on(b):
    with open(f"{b.path}/go", "w"):
        pass


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("creating", marks=only_ocirt("runc calls it created, or unknown")),
        *CASES[1:],
    ],
)
def test_what_a_status_refuses_and_what_leaves_it_as_it_is(runtime, bundle, case):
    one = Case(runtime, bundle, case)
    try:
        for form, outcomes in MATRIX.items():
            outcome = outcomes[CASES.index(case)]
            if isinstance(outcome, Refused):
                one.refuses(form, outcome)
            elif outcome is SAME:
                runtime.ok(*one.words(form))
            assert runtime.status(one.b) == one.status, form
    finally:
        one.end()


@pytest.mark.parametrize(
    ("form", "case", "after"), CHANGING, ids=[f"{form}-{case}" for form, case, _ in CHANGING]
)
def test_what_a_verb_makes_of_a_status(runtime, bundle, form, case, after):
    one = Case(runtime, bundle, case)
    runtime.ok(*one.words(form))
    if after is GONE:
        runtime.refuses("state", one.b.id, saying="container does not exist")
    else:
        assert eventually(lambda: runtime.status(one.b) == after)


def test_what_is_said_of_nobody(runtime):
    os.makedirs(runtime.root)
    for form in MATRIX:
        words = [word.format(id="nobody", bundle="") for word in form.split()]
        if words[0] in ("create", "run", "list"):
            continue
        if "--force" in words:
            assert runtime.ok(*words).errors == []
        else:
            code = 255 if words[0] == "exec" else 1
            runtime.refuses(*words, saying="container does not exist", code=code)
    assert os.listdir(runtime.root) == []


@only_ocirt("runc deletes what it finds, and leaves the rest to the create")
def test_delete_by_force_waits_for_who_makes_the_container(runtime, bundle, host):
    b = bundle.sleeping()
    create = being_made(runtime, b)
    delete = runtime.spawn("delete", "--force", b.id)
    time.sleep(0.2 * SLOWNESS)
    assert delete.poll() is None
    go_on(b)
    assert (create.wait(PATIENCE), delete.wait(PATIENCE)) == (0, 0)
    assert host.leftovers() == []


@only_ocirt("runc has killed it, and does not say so")
def test_kill_all_ends_a_container_that_is_being_made(runtime, bundle, host):
    b = bundle.sleeping()
    create = being_made(runtime, b)
    runtime.ok("kill", "--all", b.id, "KILL")
    go_on(b)
    assert create.wait(PATIENCE) == 1
    assert "container init ended unexpectedly: signal 9" in b.output()
    assert host.leftovers() == []


# --- several at the same time


def together(runtime, *calls):
    """Run verbs side by side, given as lists of words; return (code, stderr) of each."""
    names = [f"{runtime.log}-{number}" for number in range(len(calls))]
    processes = [
        runtime.spawn(*words, stdout=os.devnull, stderr=name)
        for words, name in zip(calls, names, strict=True)
    ]
    ends = []
    for process, name in zip(processes, names, strict=True):
        code = process.wait(PATIENCE)
        with open(name) as file:
            ends.append((code, file.read()))
    assert not any("internal error" in text or "Traceback" in text for _, text in ends), ends
    return ends


@only_ocirt("runc looks before it leaps: two may win, and one wait for ever")
@pytest.mark.parametrize("hooks", [False, True], ids=["plain", "with a hook"])
def test_of_several_starts_exactly_one_wins(runtime, bundle, hooks):
    """Plain ones are the launcher's own, those with a poststart hook go through Python."""
    wanted = {"poststart": [{"path": "/bin/true"}]} if hooks else DROP
    for _ in range(3):
        b = bundle.sleeping(hooks=wanted)
        runtime.create(b)
        ends = together(runtime, *[["start", b.id]] * 4)
        assert sorted(code for code, _ in ends) == [0, 1, 1, 1], ends
        for code, text in ends:
            assert code == 0 or "cannot start an already running container" in text
        assert runtime.status(b) == "running"


@only_ocirt("runc's second one stumbles over what the first has removed already")
def test_of_several_deletes_by_force_none_complains(runtime, bundle, host):
    for script in ("sleep 1000", "true"):
        b = bundle.sh(script)
        runtime.started(b)
        ends = together(runtime, *[["delete", "--force", b.id]] * 4)
        assert [code for code, _ in ends] == [0] * 4, ends
        assert host.leftovers() == []


@only_ocirt("of two, both may have deleted it")
def test_of_several_deletes_exactly_one_wins(runtime, bundle, host):
    for hooks in ({"poststop": [{"path": "/bin/true"}]}, DROP):
        b = bundle("true", hooks=hooks)
        runtime.started(b)
        runtime.wait(b)
        ends = together(runtime, *[["delete", b.id]] * 4)
        assert sorted(code for code, _ in ends) == [0, 1, 1, 1], ends
        assert sum("container does not exist" in text for _, text in ends) == 3, ends
        assert host.leftovers() == []


@only_ocirt("runc may wait in vain for the end of an init that an exec of its own holds up")
@pytest.mark.parametrize("linux", [{}, HOST_PIDS], ids=["own pids", "shared pids"])
def test_delete_by_force_while_others_come_in(runtime, bundle, host, linux):
    for delay in (0, 0.02, 0.05):
        b = bundle.sleeping(linux=linux)
        runtime.started(b)
        entering = [
            runtime.spawn("exec", b.id, "sleep", "1000", stdout=b.out, stderr=b.out)
            for _ in range(3)
        ]
        time.sleep(delay * SLOWNESS)
        runtime.delete(b, "--force")
        ends = [process.wait(PATIENCE) for process in entering]
        assert set(ends) <= {1, 137, 255}, ends
        assert "internal error" not in b.output()
        assert host.leftovers() == []


def test_kill_and_delete_at_once(runtime, bundle, host):
    for delay in (0, 0.001, 0.003):
        b = bundle.sleeping()
        runtime.started(b)
        process = runtime.spawn("kill", b.id, "KILL", stderr=b.out)
        time.sleep(delay)
        result = runtime("delete", b.id)
        assert result.code == 0 or "that is not stopped: running" in result.error, str(result)
        assert process.wait(PATIENCE) in (0, 1)
        assert "internal error" not in b.output()
        runtime.delete(b, "--force")
        assert host.leftovers() == []


@only_ocirt("runc's delete may come before the state of its create")
def test_create_and_delete_by_force_at_once(runtime, bundle, host):
    b = bundle.sleeping()
    for delay in (0.01, 0.02, 0.03, 0.04, 0.06, 0.1):
        create = runtime.spawn("create", "-b", b.path, b.id, stdout=b.out, stderr=b.out)
        time.sleep(delay)
        runtime.delete(b, "--force")
        assert create.wait(PATIENCE) in (0, 1)
        assert "internal error" not in b.output()
        runtime.delete(b, "--force")
        assert host.leftovers() == [], f"after {delay} s"


@only_ocirt("runc has no lock between start and delete")
def test_start_and_delete_by_force_at_once(runtime, bundle, host):
    for _ in range(3):
        b = bundle.sleeping()
        runtime.create(b)
        ends = together(runtime, ["start", b.id], ["delete", "--force", b.id], ["start", b.id])
        assert ends[1][0] == 0, ends
        for code, text in (ends[0], ends[2]):
            refusals = ("does not exist", "already running", "that has stopped")
            assert code == 0 or any(one in text for one in refusals), ends
        assert host.leftovers() == []


def test_pause_and_resume_in_a_crowd(runtime, bundle):
    b = bundle.sleeping()
    runtime.started(b)
    for _ in range(3):
        calls = [["pause", b.id], ["resume", b.id], ["exec", b.id, "true"]]
        # A process that came in and stands still there would keep its caller waiting.
        entering = runtime.spawn(*calls.pop(), stdout=os.devnull, stderr=os.devnull)
        for code, text in together(runtime, *calls, calls[0]):
            assert code == 0 or "not running" in text or "not paused" in text, text
        if runtime.status(b) == "paused":
            runtime.ok("resume", b.id)
        assert entering.wait(PATIENCE) in (0, 255)
    assert runtime.status(b) == "running"
    runtime.ok("exec", b.id, "true")


def knob(b, controller, v1, v2):
    """Return the words of a file of the cgroup, by its name on v1 and on v2."""
    path = f"{cgroup_of(b, controller)}/{v2}"
    with open(path if os.path.exists(path) else f"{cgroup_of(b, controller)}/{v1}") as file:
        return file.read().split()


@only_ocirt("of two updates runc may lose one")
def test_of_several_updates_none_is_lost(runtime, bundle):
    b = bundle.sleeping(linux={"resources": {"pids": {"limit": 100}, "cpu": {"shares": 200}}})
    runtime.started(b)
    for number in range(3):
        calls = [
            ["update", "--pids-limit", f"{50 + number}", b.id],
            ["update", "--memory-reservation", f"{16 + number}M", b.id],
            ["update", "--cpu-period", f"{50000 + number}", "--cpu-quota", "25000", b.id],
        ]
        assert [code for code, _ in together(runtime, *calls)] == [0, 0, 0]
        assert knob(b, "pids", "pids.max", "pids.max") == [f"{50 + number}"]
    # What has been saved is what the next one starts from: the quota stays with its new period.
    runtime.ok("update", "--cpu-quota", "30000", b.id)
    assert knob(b, "cpu", "cpu.cfs_period_us", "cpu.max")[-1] == "50002"
