"""`--cgroup-manager disabled`: a container stays in the cgroups of its caller, as crun has it."""

from __future__ import annotations

import pytest

from tests.integration.support import HOST_PIDS, eventually, only_ocirt

pytestmark = only_ocirt("crun alone has the option, and words some things otherwise")


@pytest.fixture
def runtime(runtime, monkeypatch):
    plain = runtime.argv

    def argv(*args):
        making = args[0] in ("create", "run")
        return plain(*(["--cgroup-manager", "disabled"] if making else []), *args)

    monkeypatch.setattr(runtime, "argv", argv)
    return runtime


def cgroups(pid):
    with open(f"/proc/{pid}/cgroup") as file:
        return file.read()


def test_no_cgroup_is_made_or_joined(runtime, bundle):
    box = bundle.sleeping()
    pid = runtime.started(box)
    assert cgroups(pid) == cgroups("self")
    assert runtime.host.cgroups() == runtime.host.before["cgroup"]
    assert cgroups(runtime.pid(box)) == cgroups("self")
    assert runtime.ok("exec", box.id, "echo", "hello").out == "hello\n"
    runtime.kill(box, "KILL")
    runtime.wait(box)
    runtime.delete(box)


def test_limits_that_are_left_out_are_told(runtime, bundle):
    box = bundle("true", linux={"resources": {"pids": {"limit": 5}}})
    result = runtime.try_create(box)
    assert result.code == 0, str(result)
    assert "linux.resources: not put into force" in " ".join([row["msg"] for row in result.log])
    runtime.delete(box)


def test_processes_are_told_by_their_namespace(runtime, bundle):
    box = bundle.sh("sleep 1000 & exec sleep 1000")
    runtime.started(box)
    assert eventually(lambda: len(runtime.ok("ps", "--format", "json", box.id).json()) == 2)
    runtime.delete(box, "--force")


def test_all_of_them_get_a_signal(runtime, bundle):
    child = "(trap 'echo two; exit' USR1; echo up; while :; do sleep 0.1; done)"
    box = bundle.sh(f"trap 'echo one' USR1; {child} & wait; wait")
    runtime.started(box)
    assert eventually(lambda: "up" in box.output())
    runtime.ok("kill", "--all", box.id, "USR1")
    assert eventually(lambda: {"one", "two"} <= set(box.output().split()))
    runtime.delete(box, "--force")


def test_a_shared_pid_namespace_is_left_empty(runtime, bundle):
    box = bundle.sh("sleep 1000 & exec sleep 1000")
    box.patch(linux=HOST_PIDS)
    runtime.started(box)
    assert eventually(lambda: len(runtime.ok("ps", "--format", "json", box.id).json()) == 2)
    runtime.delete(box, "--force")  # the fixture looks for what is left


@pytest.mark.parametrize(
    ("verb", "words", "saying"),
    [
        ("pause", (), "cannot toggle freezer: cgroups not configured for container"),
        ("update", ("--pids-limit", "5"), "cgroups not configured for container"),
        ("events", ("--stats",), "cgroups not configured for container"),
    ],
)
def test_what_needs_a_cgroup_says_so(runtime, bundle, verb, words, saying):
    box = bundle.sleeping()
    runtime.started(box)
    runtime.refuses(verb, *words, box.id, saying=saying)
    runtime.delete(box, "--force")
