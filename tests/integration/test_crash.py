"""The runtime dies at any instant; afterwards `delete --force` cleans everything.

An engine that is stopped kills its runtime (shims set PDEATHSIG SIGKILL on it), and nobody comes
back to finish the work.  The instants are spread over the time that the verb takes here, so that
each step is hit on some machine, some day.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.integration.support import PATIENCE, eventually, only_ocirt

INSTANTS = 16

pytestmark = only_ocirt("runc's delete knows nothing of what it made before its state file")


def instants(duration):
    """Return moments from the very beginning to a little after the usual end."""
    return [duration * 1.2 * number / (INSTANTS - 1) for number in range(INSTANTS)]


def killed(runtime, moment, b, *args):
    """Start a verb and kill the runtime `moment` seconds later; return its exit code."""
    process = runtime.spawn(*args, stdout=b.out, stderr=b.out)
    try:
        process.wait(moment)
    except Exception:
        process.send_signal(signal.SIGKILL)
    return process.wait()


def duration_of(runtime, *args, **popen):
    began = time.monotonic()
    runtime.ok(*args, **popen)
    return time.monotonic() - began


def measured_create(runtime, bundle):
    b = bundle.sleeping()
    with open(b.out, "w") as out:
        duration = duration_of(runtime, "create", "-b", b.path, b.id, stdout=out, stderr=out)
    return b, duration


@pytest.mark.parametrize("kind", ["plain", "hooks"])
def test_create_killed_at_any_instant(runtime, bundle, host, kind):
    hooks = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.02"]}]}
    patch = {} if kind == "plain" else {"hooks": hooks}
    first, duration = measured_create(runtime, bundle)
    runtime.delete(first, "--force")
    ends = []
    b = bundle.sleeping(**patch)
    for moment in instants(duration + 0.02 * len(patch)):
        ends.append(killed(runtime, moment, b, "create", "-b", b.path, b.id))
        runtime.ok("delete", "--force", b.id)
        assert host.leftovers() == [], f"killed after {moment * 1000:.1f} ms"
        runtime.refuses("state", b.id, saying="does not exist")
    assert -signal.SIGKILL in ends


def test_the_id_can_be_used_again_after_a_crash_and_a_delete(runtime, bundle):
    first, duration = measured_create(runtime, bundle)
    runtime.delete(first, "--force")
    b = bundle.sh("exit 3")
    for part in (0.3, 0.6, 0.9):
        killed(runtime, duration * part, b, "create", "-b", b.path, b.id)
        runtime.ok("delete", "--force", b.id)
        assert runtime.finish(b) == 3


def test_the_other_verbs_are_sensible_about_what_a_crash_left(runtime, bundle):
    first, duration = measured_create(runtime, bundle)
    runtime.delete(first, "--force")
    b = bundle.sleeping()
    for moment in instants(duration)[::3]:
        killed(runtime, moment, b, "create", "-b", b.path, b.id)
        for words in (["state", b.id], ["start", b.id], ["kill", b.id, "KILL"], None):
            result = runtime(*words) if words else runtime.try_create(b)
            assert result.code in (0, 1), str(result)
            assert "internal error" not in result.error
            assert "Traceback" not in result.err
        runtime.ok("delete", "--force", b.id)
        assert runtime.host.leftovers() == []


def test_the_init_notices_that_the_runtime_died(runtime, bundle, host):
    """Nobody deletes: a half-made container must not wait for ever."""
    hooks = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.5"]}]}
    b = bundle.sleeping(hooks=hooks)
    process = runtime.spawn("create", "-b", b.path, b.id, stdout=b.out, stderr=b.out)
    assert eventually(lambda: any("(sleep)" in item for item in host.grandchildren(process.pid)))
    process.kill()
    process.wait()
    assert eventually(lambda: not host.processes(), 5), host.processes()


@pytest.mark.parametrize("verb", ["start", "delete", "kill"])
def test_a_later_verb_killed_at_any_instant(runtime, bundle, host, verb):
    words = {"start": ["start"], "delete": ["delete", "--force"], "kill": ["kill"]}[verb]
    after = ["KILL"] if verb == "kill" else []
    first, _ = measured_create(runtime, bundle)
    duration = duration_of(runtime, *words, first.id, *after)
    runtime.delete(first, "--force")
    ends = []
    for moment in instants(duration)[::2]:
        b = bundle.sleeping()
        runtime.create(b)
        ends.append(killed(runtime, moment, b, *words, b.id, *after))
        if verb == "start" and runtime("state", b.id).json()["status"] == "created":
            runtime.start(b)
        runtime.ok("delete", "--force", b.id)
        assert host.leftovers() == [], f"killed after {moment * 1000:.1f} ms"
    # The native verbs are mostly over before anybody could kill them.
    assert -signal.SIGKILL in ends or duration < 0.05


def test_run_killed_at_any_instant(runtime, bundle, host):
    first, duration = measured_create(runtime, bundle)
    runtime.delete(first, "--force")
    b = bundle.sleeping()
    for moment in instants(duration)[::2]:
        killed(runtime, moment, b, "run", "-b", b.path, b.id)
        runtime.ok("delete", "--force", b.id)
        assert host.leftovers() == [], f"killed after {moment * 1000:.1f} ms"


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_create_that_is_asked_to_end_leaves_nothing_that_delete_does_not_find(
    runtime, bundle, host, signal_
):
    hooks = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.3"]}]}
    b = bundle.sleeping(hooks=hooks)
    process = runtime.spawn("create", "-b", b.path, b.id, stdout=b.out, stderr=b.out)
    assert eventually(lambda: os.path.isdir(os.path.join(runtime.root, b.id)))
    time.sleep(0.05)
    process.send_signal(signal_)
    process.wait(PATIENCE)
    runtime.ok("delete", "--force", b.id)
    assert host.leftovers() == []
