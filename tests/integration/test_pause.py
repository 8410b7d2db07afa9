"""pause and resume: every process stands still, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.integration.support import HOST_PIDS, cgroup_of, eventually, needs_v2, only_ocirt

# What crun does otherwise.
CRUN = {
    "test_a_created_container_may_be_paused": "starts it nevertheless",
    "test_pausing_twice_is_refused": "takes it",
    "test_only_what_is_paused_can_be_resumed": "resumes anything",
    "test_a_paused_container_can_be_killed": "leaves it to the thaw",
    "test_pausing_again_and_again_does_no_harm": "does not wait for the freezer",
}

COUNTING = "i=0; while true; do i=$((i+1)); echo $i > /count; usleep 1000; done"


@pytest.fixture(autouse=True)
def crun_differs(runtime, request):
    reason = CRUN.get(request.node.originalname)
    if reason and runtime.flavour == "crun":
        pytest.skip(f"crun {reason}")


def count(bundle):
    try:
        with open(bundle.inside("/count")) as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def stands_still(bundle):
    before = count(bundle)
    time.sleep(0.2)
    return count(bundle) in (before, 0)


def test_a_paused_container_stands_still_and_goes_on(runtime, bundle):
    made = bundle.sh(COUNTING)
    runtime.started(made)
    assert eventually(lambda: count(made))
    assert runtime.ok("pause", made.id).out == ""
    assert runtime.status(made) == "paused"
    assert stands_still(made)
    before = count(made)
    runtime.ok("resume", made.id)
    assert runtime.status(made) == "running"
    assert eventually(lambda: count(made) > before + 1)


@needs_v2
def test_cgroups_that_the_container_has_made_stand_still_and_are_killed(runtime, bundle):
    made = bundle.sh(COUNTING)
    pid = runtime.started(made)
    top = cgroup_of(made, "")
    os.makedirs(f"{top}/inner/most")
    with open(f"{top}/inner/most/cgroup.procs", "w") as file:
        file.write(str(pid))
    assert eventually(lambda: count(made))
    runtime.ok("pause", made.id)
    with open(f"{top}/inner/most/cgroup.events") as file:
        assert "frozen 1" in file.read()
    assert stands_still(made)
    assert runtime.status(made) == "paused"
    runtime.ok("resume", made.id)
    before = count(made)
    assert eventually(lambda: count(made) > before)
    assert pid in runtime.ok("ps", "--format", "json", made.id).json()
    runtime.ok("pause", made.id)
    runtime.ok("delete", "--force", made.id)
    assert not os.path.exists(top)
    runtime.host.processes()


def test_every_process_stands_still(runtime, bundle):
    made = bundle.sh(f"({COUNTING}) & sleep 1000")
    runtime.started(made)
    assert eventually(lambda: count(made))
    runtime.ok("pause", made.id)
    assert stands_still(made)


def test_a_created_container_may_be_paused(runtime, bundle):
    made = bundle.sleeping()
    runtime.create(made)
    runtime.ok("pause", made.id)
    assert runtime.status(made) == "paused"
    runtime.refuses("start", made.id, saying="cannot start a container in the paused state")
    runtime.ok("resume", made.id)
    assert runtime.status(made) == "created"
    runtime.start(made)
    assert runtime.status(made) == "running"


def test_pausing_twice_is_refused(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    runtime.ok("pause", made.id)
    runtime.refuses("pause", made.id, saying="container not running")
    assert runtime.status(made) == "paused"


def test_only_what_is_paused_can_be_resumed(runtime, bundle):
    made = bundle.sleeping()
    runtime.create(made)
    runtime.refuses("resume", made.id, saying="container not paused")
    runtime.start(made)
    runtime.refuses("resume", made.id, saying="container not paused")


def test_a_stopped_container_can_be_neither(runtime, bundle):
    made = bundle("true")
    runtime.started(made)
    runtime.wait(made)
    runtime.refuses("pause", made.id, saying="container not running")
    runtime.refuses("resume", made.id, saying="container not paused")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_an_unknown_container_is_named_as_such(runtime, verb):
    runtime.refuses(verb, "nobody", saying="does not exist")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_just_one_id_is_wanted(runtime, verb):
    for words in ((), ("a", "b")):
        result = runtime(verb, *words)
        assert result.code == 1
        if runtime.flavour != "crun":
            assert f'"{verb}" requires exactly 1 argument(s)' in result.error


def test_a_paused_container_can_be_killed(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    runtime.ok("pause", made.id)
    runtime.kill(made, "KILL")
    assert runtime.wait(made) == 128 + signal.SIGKILL
    runtime.delete(made)


def test_other_signals_arrive_after_the_pause(runtime, bundle):
    made = bundle.sh("trap 'exit 7' USR1; touch /ready; while true; do usleep 1000; done")
    runtime.started(made)
    assert eventually(lambda: os.path.exists(made.inside("/ready")))
    runtime.ok("pause", made.id)
    runtime.kill(made, "USR1")
    assert runtime.status(made) == "paused"
    runtime.ok("resume", made.id)
    assert runtime.wait(made) == 7


def test_a_paused_container_is_deleted_by_force_alone(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    runtime.ok("pause", made.id)
    runtime.refuses("delete", made.id, saying="that is not stopped: paused")
    runtime.delete(made, "--force")
    runtime.refuses("state", made.id, saying="does not exist")


def test_a_container_that_shares_the_pid_namespace_is_paused_as_a_whole(runtime, bundle):
    made = bundle.sh(
        f"({COUNTING}) & sleep 1000",
        linux=HOST_PIDS,
    )
    runtime.started(made)
    assert eventually(lambda: count(made))
    runtime.ok("pause", made.id)
    assert stands_still(made)
    runtime.delete(made, "--force")


@only_ocirt("runc has no --cgroup-manager")
def test_without_a_cgroup_there_is_nothing_to_pause_by(runtime, bundle):
    made = bundle.sleeping()
    without = ["--cgroup-manager", "disabled", "create", "--bundle", made.path, made.id]
    runtime.ok(*without, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runtime.refuses("pause", made.id, saying="cgroups not configured for container")


def test_pausing_again_and_again_does_no_harm(runtime, bundle):
    made = bundle.sh(f"for n in 1 2 3 4; do ({COUNTING}) & done; wait")
    runtime.started(made)
    assert eventually(lambda: count(made))
    for _ in range(10):
        runtime.ok("pause", made.id)
        assert runtime.status(made) == "paused"
        runtime.ok("resume", made.id)
        assert runtime.status(made) == "running"
