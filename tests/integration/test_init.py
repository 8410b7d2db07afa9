"""The init as a partner: parts, replies, hooks, the gate, and every way to end."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from ocirt.plan import ops
from tests.integration.init_driver import (
    BINARY,
    ISOLATED,
    PIVOT,
    PROC,
    Init,
    asks,
    build,
    contained,
    make_rootfs,
    mount,
    op,
    program,
    refused,
)

# kB and bytes; with glibc, what it drags along
LARGEST_RSS, LARGEST_BINARY = (150, 100_000) if shutil.which("musl-gcc") else (700, 1_000_000)


@pytest.fixture
def rootfs(machine, tmp_path):
    return make_rootfs(tmp_path / "rootfs")


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    yield path, fd
    os.close(fd)


def eventually(condition) -> bool:
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.005)
    return False


def gone(init: Init) -> bool:
    """Whether the child ends, and not because of us."""
    return init.wait() == 1


# --- replies


def test_a_failure_names_the_op_whichever_it_is(rootfs):
    good = [mount("tmpfs", "/tmp"), op("mkdir", "/x", 0o755, 0), op("umask", 0o22), PROC]
    for at in range(len(good) + 1):
        plan = [*good[:at], op("fail", 40 + at), *good[at:]]
        assert refused(rootfs, *plan) == (at, 40 + at, "")


def test_stage_0_names_its_ops_too():
    with Init() as init:
        init.send(op("affinity", b""), op("fail", 77), op("clone", 0, ""))
        assert init.reply() == (ops.FAIL, 1, 77, "")
        assert init.stage0.wait(10) == 1


def test_indices_go_on_from_part_to_part():
    with Init() as init:
        init.clone(op("affinity", b""), flags=0)
        init.send(asks())
        assert init.reply() == (ops.ASK, 2, ops.ASK_READY, "")
        init.answer()
        init.send(asks("hooks"))
        assert init.reply() == (ops.ASK, 3, ops.ASK_HOOKS, "")


def test_try_takes_the_fallback_only_when_it_must(rootfs):
    plan = [
        *(op("try"), op("mkdir", "/a", 0o755, 0), op("fail", 1)),
        *(op("try"), op("fail", 2), op("mkdir", "/b", 0o755, 0)),
    ]
    with contained(rootfs, *plan) as init:
        assert init.last.kind == ops.ASK
    assert {"a", "b"} <= {p.name for p in rootfs.iterdir()}
    assert refused(rootfs, op("try"), op("fail", 2), op("fail", 3)) == (2, 3, "")


# --- ends


def test_no_socket_no_init():
    for arguments in ([], ["99"], ["3", "4"]):
        assert subprocess.run([build(), *arguments], check=False).returncode == 2


@pytest.mark.parametrize("when", ["at once", "in the head", "in the ops"])
def test_a_runtime_that_dies_ends_stage_0(when):
    data = ops.encode([op("hostname", "x" * 1000)], 0, {})
    with Init() as init:
        init.socket.sendall(data[: {"at once": 0, "in the head": 7, "in the ops": 500}[when]])
        init.socket.shutdown(socket.SHUT_WR)
        assert init.stage0.wait(10) == 1


@pytest.mark.parametrize("kind", ["maps", "ready"])
def test_a_runtime_that_dies_ends_the_child_that_waits(rootfs, kind):
    with contained(rootfs, asks(kind), pivot=False) as init:
        assert init.last.kind == ops.ASK
        init.socket.close()
        assert gone(init)


def test_a_runtime_that_dies_before_the_second_part():
    with Init() as init:
        init.clone(flags=0)
        init.socket.close()
        assert gone(init)


def test_an_answer_may_say_no(rootfs):
    with contained(rootfs) as init:
        init.answer(1)
        assert gone(init)


def noise(rng: random.Random) -> bytes:
    """A part that is nearly one: noise behind a proper head, or a good one with a bit changed."""
    if rng.random() < 0.5:
        body = rng.randbytes(rng.randrange(8, 200))
        return struct.pack("=4I", ops.MAGIC, 0, rng.randrange(4), len(body)) + body
    data = bytearray(
        ops.encode([op("program", "x", ["a"], []), op("fail", 3), op("fail", 4)], 0, {})
    )
    data[rng.randrange(16, len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_noise_ends_the_init_in_order():
    rng = random.Random(1)
    for _ in range(60):
        with Init() as init:
            init.socket.sendall(noise(rng))
            init.socket.shutdown(socket.SHUT_WR)
            assert init.stage0.wait(10) == 1


@pytest.mark.parametrize(
    "head",
    [
        (0, 0, 0, 0),
        (ops.MAGIC, 0, 1, 0),
        (ops.MAGIC, 0, 0, ops.LARGEST + 8),
        (ops.MAGIC, (1 << 32) - 1, 1, 0),
        (ops.MAGIC, 0, (1 << 32) - 1, 64),
    ],
)
def test_a_head_that_cannot_be_is_a_broken_protocol(head):
    with Init() as init:
        init.socket.sendall(struct.pack("=4I", *head) + bytes(64))
        assert init.reply()[2:] == (errno.EPROTO, "")
        assert init.stage0.wait(10) == 1


def test_a_plan_of_many_pages(rootfs):
    plan = [op("mkdir", f"/many/{i}/" + "x" * 200, 0o755, 0) for i in range(500)]
    env = [f"V{i}=" + "y" * 1000 for i in range(1000)]
    check = "test $(env | wc -c) -gt 1000000"
    with contained(rootfs, *plan, PIVOT, *program("sh", "-c", check, env=env), pivot=False) as init:
        assert init.last.kind in (ops.ASK, ops.FAIL)
        # No PATH in env, so the shell is not found: the plan was read to its end.
        assert init.last[1:3] == (init.first + 501, errno.ENOENT)
    assert len(list((rootfs / "many").iterdir())) == 500


# --- hooks


def hook(path, *argv, env=(), state=('{"pid":', "}"), label="createContainer", timeout=0):
    return op("hook", str(path), argv, env, *state, label, 0, timeout)


def sh(script: str, **more):
    return hook("/bin/sh", "sh", "-c", script, **more)


def test_a_hook_gets_state_directory_and_environment(rootfs, tmp_path):
    seen = tmp_path / "seen"
    script = f"{{ cat; echo; pwd; env; echo $0 $1; ls -l /proc/self/fd | wc -l; }} > {seen}"
    before = '{"id":"é","pid":'
    plan = hook("/bin/sh", "sh", "-c", script, "name", "arg", env=("A=b",), state=(before, "}"))
    with contained(rootfs, plan) as init:
        assert init.last.kind == ops.ASK, init.last
    lines = seen.read_text().splitlines()
    assert json.loads(lines[0]) == {"id": "é", "pid": 1}
    assert lines[1] == str(rootfs)
    assert {
        line for line in lines[2:-2] if not line.startswith(("PWD", "SHLVL", "_", "OLDPWD"))
    } == {"A=b"}
    assert lines[-2] == "name arg"
    assert int(lines[-1]) == 5  # a total, 0, 1, 2, and the directory that ls reads


def test_a_hook_without_arguments_has_its_path_as_the_first(rootfs, tmp_path):
    script = tmp_path / "hook"
    script.write_text(f"#!/bin/sh\necho $0 > {tmp_path}/seen\n")
    script.chmod(0o755)
    with contained(rootfs, hook(script)) as init:
        assert init.last.kind == ops.ASK
    assert (tmp_path / "seen").read_text().strip() == str(script)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo out; echo err >&2; exit 3", "exit status 3, stdout: out\n, stderr: err\n"),
        ("exit 1", "exit status 1, stdout: , stderr: "),
        ("kill -9 $$", "signal: killed, stdout: , stderr: "),
        ("kill -TERM $$", "signal: terminated, stdout: , stderr: "),
        ("head -c 9999 /dev/zero; exit 1", "exit status 1, stdout: " + "\0" * 4096 + ", stderr: "),
    ],
)
def test_how_a_hook_fails_is_told(rootfs, script, text):
    assert refused(rootfs, sh(script, env=("PATH=/bin:/usr/bin",))) == (0, 0, text)


def test_a_hook_that_cannot_be_executed_has_an_errno(rootfs, tmp_path):
    assert refused(rootfs, hook(tmp_path / "absent")) == (0, errno.ENOENT, "")
    (tmp_path / "plain").write_text("")
    assert refused(rootfs, hook(tmp_path / "plain")) == (0, errno.EACCES, "")


def test_a_hook_that_takes_too_long_goes_with_its_children(rootfs, tmp_path):
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $! > {pids}; sleep 1000"
    start = time.monotonic()
    plan = sh(script, env=("PATH=/bin:/usr/bin",), timeout=300)
    # Shares our pid namespace, so that the pid is one we can look for.
    reply = refused(rootfs, plan, flags=ISOLATED & ~0x20000000)
    assert reply == (0, 0, "hook ran past specified timeout of 0.3s")
    assert time.monotonic() - start < 5
    pid = int(pids.read_text())
    assert eventually(lambda: not running(pid))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_daemon_of_a_hook_holds_nobody_up(rootfs):
    start = time.monotonic()
    with contained(rootfs, sh("sleep 5 & exit 0", env=("PATH=/bin:/usr/bin",))) as init:
        assert init.last.kind == ops.ASK
    assert time.monotonic() - start < 3


def test_a_hook_that_reads_no_state_is_no_error(rootfs):
    plan = sh("exit 0", state=("x" * 300_000, "y"))
    with contained(rootfs, plan) as init:
        assert init.last.kind == ops.ASK


def test_a_runtime_that_dies_takes_the_hook_along(rootfs, tmp_path):
    pids = tmp_path / "pids"
    plan = sh(f"echo $$ > {pids}; exec sleep 1000", env=("PATH=/bin:/usr/bin",))
    with Init() as init:
        init.clone(flags=ISOLATED & ~0x20000000)
        init.send(op("rootfs", str(rootfs), 0), plan)
        assert eventually(lambda: pids.exists() and pids.read_text().strip())
        init.socket.close()
        assert gone(init)
        assert eventually(lambda: not running(int(pids.read_text())))


# --- the gate


def gated(*after, argv=("sh", "-c", "ls /proc/self/fd"), preserve=0):
    name = op("program", argv[0], argv, ["PATH=/bin"])
    return [PROC, PIVOT, name, asks(), op("gate", "fifo", preserve, -1), *after,
            op("close_fds", preserve, -1), op("exec")]  # fmt: skip


def wait_at_the_gate(init: Init) -> None:
    assert init.last.kind == ops.ASK, init.last
    init.answer()
    assert init.reply().kind == ops.DONE
    assert init.reply() is None
    text = Path(f"/proc/{init.pid}/syscall")
    assert eventually(lambda: text.read_text().split()[0] in ("0", "63"))


def test_the_gate(rootfs, fifo):
    path, fd = fifo
    plan = gated()
    with contained(
        rootfs, *plan, pivot=False, files={"fifo": fd}, stdout=subprocess.PIPE, text=True
    ) as init:
        wait_at_the_gate(init)
        fds = {p.name for p in Path(f"/proc/{init.pid}/fd").iterdir()}
        assert fds == {"0", "1", "2", "3"}
        rollup = Path(f"/proc/{init.pid}/smaps_rollup").read_text().splitlines()
        assert next(int(x.split()[1]) for x in rollup if x.startswith("Rss:")) < LARGEST_RSS
        gate = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(gate, b"x")
        assert init.stage0.stdout.read().split() == ["0", "1", "2", "3"]
        os.close(gate)
        assert init.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_who_waits_can_be_told_to_leave(rootfs, fifo, number):
    with contained(rootfs, *gated(), pivot=False, files={"fifo": fifo[1]}) as init:
        wait_at_the_gate(init)
        os.kill(init.pid, signal.SIGWINCH)
        os.kill(init.pid, signal.SIGCHLD)
        time.sleep(0.02)
        assert running(init.pid)
        os.kill(init.pid, number)
        assert init.wait() == 128 + number


def test_preserved_descriptors_pass_the_gate(rootfs, fifo, tmp_path):
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
    with open(tmp_path / "kept", "w") as kept:
        # 3 and 4 as `--preserve-fds 2` has them; a shell puts them there.
        move = f'exec 3>&{kept.fileno()} 4<&{files[0]} {kept.fileno()}>&- && exec "$@"'
        os.set_inheritable(files[0], True)
        os.set_inheritable(kept.fileno(), True)
        plan = gated(preserve=2, argv=("sh", "-c", "ls /proc/self/fd; echo hello >&3"))
        with contained(
            rootfs, *plan, pivot=False, files={"fifo": fifo[1]}, stdout=subprocess.PIPE, text=True,
            prefix=("bash", "-c", move, "-"), pass_fds=(kept.fileno(), files[0]),
        ) as init:  # fmt: skip
            wait_at_the_gate(init)
            os.write(fifo[1], b"x")
            assert init.stage0.stdout.read().split() == ["0", "1", "2", "3", "4", "5"]
            assert init.wait() == 0
    assert (tmp_path / "kept").read_text() == "hello\n"
    for fd in files:
        os.close(fd)


def test_hooks_behind_the_gate_run_in_the_container(rootfs, fifo):
    where = sh(
        "pwd; cat; echo; readlink /proc/self/fd/3", env=("PATH=/bin",), label="startContainer"
    )
    plan = gated(
        sh("pwd > /tmp/cwd; cat > /tmp/state"), where, argv=("cat", "/tmp/cwd", "/tmp/state")
    )
    with contained(
        rootfs, *plan, pivot=False, files={"fifo": fifo[1]}, stdout=subprocess.PIPE, text=True
    ) as init:
        wait_at_the_gate(init)
        assert not (rootfs / "tmp/cwd").exists()
        os.write(fifo[1], b"x")
        # readlink fails, as there is no descriptor 3: its status is the hook's.
        assert init.wait() == 255


def test_a_start_container_hook_that_works(rootfs, fifo):
    first = sh("pwd > /tmp/cwd; cat > /tmp/state", env=("PATH=/bin",), label="startContainer")
    plan = gated(first, argv=("cat", "/tmp/cwd", "/tmp/state"))
    with contained(
        rootfs, *plan, pivot=False, files={"fifo": fifo[1]}, stdout=subprocess.PIPE, text=True
    ) as init:
        wait_at_the_gate(init)
        os.write(fifo[1], b"x")
        assert init.stage0.stdout.read() == '/\n{"pid":1}'
        assert init.wait() == 0


@pytest.mark.parametrize(
    ("failing", "text"),
    [
        (sh("echo no; exit 4", label="startContainer"),
         "error running startContainer hook #0: exit status 4, stdout: no\n, stderr: "),
        (hook("/absent", label="startContainer"),
         "error running startContainer hook #0: fork/exec /absent: no such file or directory"),
        (op("fail", errno.EPERM), "op 7: operation not permitted"),
    ],
)  # fmt: skip
def test_behind_the_gate_a_failure_goes_to_stderr(rootfs, fifo, failing, text):
    plan = gated(failing)
    with contained(
        rootfs, *plan, pivot=False, files={"fifo": fifo[1]}, stderr=subprocess.PIPE, text=True
    ) as init:
        wait_at_the_gate(init)
        text = text.replace("op 7", f"op {init.first + 5}")
        os.write(fifo[1], b"x")
        assert init.wait() == 255
        assert init.stage0.stderr.read() == f"ocirt: {text}\n"


# --- what the process looks like


def test_stdio_that_was_closed_is_not_taken_by_our_files(rootfs):
    with contained(rootfs, prefix=("sh", "-c", 'exec <&- >&- 2>&-; exec "$@"', "-")) as init:
        assert init.last.kind == ops.ASK
        links = [os.readlink(f"/proc/{init.pid}/fd/{n}") for n in range(3)]
        assert links == ["/dev/null"] * 3


def test_no_path_of_the_build_machine_is_in_the_binary():
    data = build().read_bytes()
    assert str(BINARY.parent).encode() not in data
    assert len(data) < LARGEST_BINARY
