"""Whatever step fails, nothing remains: every op of a plan, every system call of `create`.

These tests call our own package and not the runtime under test: they have to reach inside.  The
`host` fixture compares mounts, cgroups, processes and files before and after.
"""

from __future__ import annotations

import os

import pytest

from ocirt import container, plan
from ocirt import create as creation
from ocirt.errors import Error
from ocirt.plan.ops import Op
from tests.integration.support import CONTROLLERS, bind

pytestmark = pytest.mark.only_ocirt("reaches inside of ocirt")

EIO = 5

# The calls by which `create` changes the machine, or finds out about it.
CALLS = (
    "mkdir", "makedirs", "open", "write", "rename", "mkfifo", "posix_spawn", "memfd_create",
    "sendfile", "chdir", "waitpid", "stat", "listdir",
)  # fmt: skip


@pytest.fixture
def wish(bundle, workdir, host):
    """A container with a bit of everything: hooks, a bind, devices, limits, a working directory."""
    source = os.path.join(workdir, "data")
    os.mkdir(source)
    hook = {"path": "/bin/true", "timeout": 5}
    limits = {"pids": {"limit": 20}, "memory": {"limit": 64 << 20}}
    made = bundle(
        "true",
        process={"cwd": "/made/here", "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]},
        hooks={"createRuntime": [hook], "createContainer": [hook], "poststop": [hook]},
        more_mounts=[bind(source, "/data/deep")],
        linux={
            "resources": {name: limits[name] for name in limits if name in CONTROLLERS},
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    )
    wish = creation.Wish(made.id, os.path.join(workdir, "state"), made.path)
    wish.pid_file = made.pid_file
    return wish


def leftovers(wish, host):
    """What a failed create has left: in the state directory, of the pid file, on the machine."""
    found = os.listdir(wish.root) if os.path.isdir(wish.root) else []
    if os.path.exists(wish.pid_file):
        found.append(wish.pid_file)
    return found + host.leftovers()


def end(wish, made):
    """Remove a container that was made after all, and reap its init."""
    container.destroy(made.container)
    made.container.unlock()
    os.waitpid(made.pid, 0)
    os.unlink(wish.pid_file)  # the caller's


def test_every_op_may_fail(wish, host, monkeypatch):
    compile_plan = plan.compile
    wanted = 0

    def with_a_failure(config, context):
        ops = compile_plan(config, context)
        ops.insert(wanted, Op("fail", (EIO,), "injected", f"before op {wanted}"))
        return ops

    monkeypatch.setattr(plan, "compile", with_a_failure)
    count = len(creation.Draft(wish).plan) - 1
    gate = [op.name for op in creation.Draft(wish).plan].index("gate")
    assert 40 < gate < count
    for wanted in range(gate):
        with pytest.raises(Error, match=f"injected: before op {wanted}: input/output error"):
            creation.create(wish)
        assert leftovers(wish, host) == [], f"op {wanted}"


@pytest.mark.parametrize("gate", [True, False], ids=["create", "run"])
def test_every_system_call_of_create_may_fail(wish, host, monkeypatch, gate):
    wish.gate = gate
    left = [0]
    names = []

    def failing(name, real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                names.append(name)
                raise OSError(EIO, os.strerror(EIO), "injected")
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    for number in range(1, 1000):
        left[0] = number
        try:
            made = creation.create(wish)
        except (Error, OSError):
            left[0] = 0
            assert leftovers(wish, host) == [], f"call {number}, {names[-1]}"
            continue
        left[0] = 0
        if len(names) < number:
            break  # it got through without reaching the failure
        end(wish, made)
    else:
        pytest.fail("create never ends")
    assert len(names) > 40
    end(wish, made)
    assert leftovers(wish, host) == []
