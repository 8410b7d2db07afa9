"""create, start, state, kill, delete, run: every order of the verbs, and what each leaves.

runtime-spec, runtime.md, "Lifecycle" and "Operations"; where the spec is silent, runc's
command line decides, since engines drive that.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import signal
import time

import pytest

from tests.integration.support import (
    DROP,
    HOST_PIDS,
    PATIENCE,
    SLOWNESS,
    UNIFIED,
    cgroup_of,
    eventually,
    namespaces,
    only_ocirt,
)

TRAPS = """
for signal in HUP INT QUIT USR1 USR2 ALRM TERM; do trap "echo $signal; exit 7" $signal; done
echo ready; while :; do usleep 20000; done
"""


def ready(bundle):
    assert eventually(lambda: "ready" in bundle.output())


# --- the states


def test_create_start_and_delete_walk_through_the_states(runtime, bundle):
    b = bundle.sh("read line")
    read, write = os.pipe()
    runtime.create(b, stdin=read)
    os.close(read)
    assert runtime.status(b) == "created"
    runtime.start(b)
    assert runtime.status(b) == "running"
    os.close(write)
    assert runtime.wait(b) == 1
    assert runtime.status(b) == "stopped"
    runtime.delete(b)
    runtime.refuses("state", b.id, saying="does not exist")


def test_the_program_waits_for_start(runtime, bundle):
    b = bundle("echo", "ran")
    runtime.create(b)
    time.sleep(0.2)
    assert b.output() == ""
    runtime.start(b)
    assert runtime.wait(b) == 0
    assert b.output() == "ran\n"


def test_state_prints_what_the_spec_asks_for(runtime, bundle):
    b = bundle.sleeping(annotations={"org.example.key": "a value", "with=sign": "ü"})
    pid = runtime.create(b)
    state = runtime.state(b)
    assert state.pop("created")
    assert re.fullmatch(r"1\.\d+\.\d+\S*", state.pop("ociVersion"))
    assert state.pop("owner", "") == ""
    assert state.pop("rootfs") == b.rootfs
    annotations = state.pop("annotations")
    assert annotations["org.example.key"] == "a value"
    assert state == {"id": b.id, "pid": pid, "status": "created", "bundle": b.path}


@only_ocirt("runc cuts an annotation's key at its first '='")
def test_an_annotation_key_may_hold_an_equals_sign(runtime, bundle):
    b = bundle.sleeping(annotations={"with=sign": "ü<&>"})
    runtime.create(b)
    assert runtime.state(b)["annotations"] == {"with=sign": "ü<&>"}


def test_state_is_written_as_runc_writes_it(runtime, bundle):
    if runtime.flavour == "crun":
        pytest.skip("crun's state has a shape of its own")
    b = bundle.sleeping()
    runtime.create(b)
    text = runtime.ok("state", b.id).out
    parsed = json.loads(text)
    assert list(parsed) == [
        "ociVersion",
        "id",
        "pid",
        "status",
        "bundle",
        "rootfs",
        "created",
        "owner",
    ]
    assert text == json.dumps(parsed, indent=2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", parsed["created"])


def test_a_stopped_container_has_no_pid(runtime, bundle):
    b = bundle("true")
    runtime.started(b)
    runtime.wait(b)
    state = runtime.state(b)
    assert state["status"] == "stopped"
    assert state.get("pid", 0) == 0


def test_a_container_whose_init_is_unreaped_counts_as_stopped(runtime, bundle):
    b = bundle("true")
    pid = runtime.started(b)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert runtime.status(b) == "stopped"
    runtime.delete(b)
    assert os.waitpid(pid, 0)[1] == 0


def test_the_exit_status_reaches_the_subreaper(runtime, bundle):
    b = bundle.sh("exit 42")
    assert runtime.finish(b) == 42


def test_a_program_that_exits_at_once_can_still_be_started(runtime, bundle):
    for _ in range(4):
        b = bundle("true")
        assert runtime.finish(b) == 0


def test_an_init_killed_from_outside_before_start_is_stopped(runtime, bundle):
    b = bundle.sleeping()
    os.kill(runtime.create(b), signal.SIGKILL)
    assert runtime.wait(b) == 128 + 9
    assert runtime.status(b) == "stopped"
    runtime.refuses("start", b.id, saying="cannot start a container that has stopped")


# --- the wrong moment

CREATED, RUNNING, STOPPED, MISSING = "created", "running", "stopped", "missing"

WRONG = [
    # state    verb                   sentence
    (RUNNING, ("start",), "cannot start an already running container"),
    (RUNNING, ("delete",), "cannot delete container {id} that is not stopped: running"),
    (STOPPED, ("start",), "cannot start a container that has stopped"),
    (STOPPED, ("kill",), "container not running"),
    (STOPPED, ("kill", "KILL"), "container not running"),
    (MISSING, ("start",), "container does not exist"),
    (MISSING, ("state",), "container does not exist"),
    (MISSING, ("kill",), "container does not exist"),
    (MISSING, ("kill", "9"), "container does not exist"),
    (MISSING, ("delete",), "container does not exist"),
]


def bring_to(runtime, b, state):
    if state == CREATED:
        runtime.create(b)
    elif state != MISSING:
        runtime.started(b)
        if state == STOPPED:
            runtime.kill(b, "KILL")
            runtime.wait(b)


@pytest.mark.parametrize(
    ("state", "verb", "sentence"), WRONG, ids=[f"{verb[0]}-{state}" for state, verb, _ in WRONG]
)
def test_a_verb_at_the_wrong_moment_is_refused(runtime, bundle, state, verb, sentence):
    b = bundle.sleeping()
    bring_to(runtime, b, state)
    runtime.refuses(verb[0], b.id, *verb[1:], saying=sentence.format(id=b.id))
    if state != MISSING:
        assert runtime.status(b) == state


@pytest.mark.parametrize("state", [CREATED, RUNNING, STOPPED])
def test_an_id_can_be_taken_only_once(runtime, bundle, state):
    b = bundle.sleeping()
    bring_to(runtime, b, state)
    other = bundle.sleeping(container_id=b.id)
    runtime.refuses(
        "create", "--bundle", other.path, b.id, saying="container with given ID already exists"
    )
    runtime.refuses(
        "run", "--bundle", other.path, b.id, saying="container with given ID already exists"
    )
    assert runtime.state(b)["status"] == state
    assert runtime.state(b)["bundle"] == b.path


def test_an_id_is_free_again_after_delete(runtime, bundle):
    b = bundle.sh("exit 3")
    assert runtime.finish(b) == 3
    assert runtime.finish(b) == 3


# --- kill


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ((), "TERM"),
        (("TERM",), "TERM"),
        (("SIGTERM",), "TERM"),
        (("15",), "TERM"),
        (("usr1",), "USR1"),
        (("sigusr2",), "USR2"),
        (("1",), "HUP"),
        (("Int",), "INT"),
    ],
    ids=lambda value: "-".join(value) or "default" if isinstance(value, tuple) else None,
)
def test_kill_knows_a_signal_in_every_form(runtime, bundle, form, name):
    b = bundle.sh(TRAPS)
    runtime.started(b)
    ready(b)
    runtime.kill(b, *form)
    assert runtime.wait(b) == 7
    assert b.output().split() == ["ready", name]


def test_kill_knows_real_time_signals(runtime, bundle):
    b = bundle.sh("probe sleep 1000; echo $?")
    runtime.started(b)
    runtime.kill(b, "34")  # pid 1 of a pid namespace ignores what it has no handler for
    assert runtime.status(b) == "running"


def test_kill_with_signal_0_asks_whether_it_runs(runtime, bundle):
    b = bundle.sleeping()
    pid = runtime.started(b)
    runtime.kill(b, "0")
    assert runtime.status(b) == "running"
    runtime.kill(b, "KILL")
    runtime.wait(b, pid)
    runtime.refuses("kill", b.id, "0", saying="container not running")


@only_ocirt("runc 1.1 knows no RTMIN+n")
def test_kill_knows_real_time_signals_by_name(runtime, bundle):
    b = bundle.sleeping()
    runtime.started(b)
    runtime.kill(b, "RTMIN+3")
    assert runtime.status(b) == "running"


@pytest.mark.parametrize("name", ["FOO", "-1", "1000", "SIG", "9x"])
def test_kill_refuses_a_signal_that_does_not_exist(runtime, bundle, name):
    if runtime.flavour != "ocirt" and name in ("-1", "1000"):
        pytest.skip("runc and crun let the kernel refuse the number")
    b = bundle.sleeping()
    runtime.started(b)
    runtime.refuses("kill", b.id, name, saying="unknown signal" if name != "-1" else "")
    assert runtime.status(b) == "running"


@pytest.mark.parametrize("all_", ["--all", "-a"])
def test_kill_all_of_a_stopped_container_is_no_error(runtime, bundle, all_):
    b = bundle("true")
    runtime.started(b)
    runtime.wait(b)
    runtime.ok("kill", all_, b.id, "KILL")


def test_kill_all_reaches_every_process_of_the_cgroup(runtime, bundle):
    b = bundle.sh(
        "(trap '' TERM; sleep 1000)& sleep 1000& echo ready; wait",
        linux=HOST_PIDS,
    )
    runtime.started(b)
    ready(b)
    runtime.ok("kill", "--all", b.id, "KILL")
    assert runtime.wait(b) == 128 + 9
    runtime.delete(b)
    assert runtime.host.leftovers() == []


def test_a_signal_is_for_the_init_where_pids_are_shared(runtime, bundle):
    """What becomes of its children is up to it; only SIGKILL goes to them as well."""
    b = bundle.sh(
        "sleep 1000 & trap 'kill -0 $! && echo lives' USR1; echo ready; while :; do wait; done",
        linux=HOST_PIDS,
    )
    runtime.started(b)
    ready(b)
    runtime.kill(b, "USR1")
    assert eventually(lambda: b.output().split() == ["ready", "lives"]), b.output()
    runtime.kill(b, "KILL")
    runtime.wait(b)
    runtime.delete(b)
    assert runtime.host.leftovers() == []


ONLY_OUR_USR1 = pytest.param(
    "USR1", marks=only_ocirt("runc 1.1's waiting init often survives USR1")
)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", ONLY_OUR_USR1, "KILL"])
def test_a_created_container_dies_of_a_terminating_signal(runtime, bundle, name):
    if runtime.flavour == "crun" and name != "KILL":
        pytest.skip("crun's waiting init has default dispositions, which pid 1 is spared")
    b = bundle.sleeping()
    runtime.create(b)
    runtime.kill(b, name)
    assert runtime.wait(b) != 0
    assert runtime.status(b) == "stopped"
    runtime.refuses("start", b.id, saying="cannot start a container that has stopped")


@pytest.mark.parametrize("name", ["CHLD", "WINCH", "URG", "CONT"])
def test_a_created_container_survives_a_harmless_signal(runtime, bundle, name):
    b = bundle.sh("exit 5")
    runtime.create(b)
    runtime.kill(b, name)
    time.sleep(0.05)
    assert runtime.status(b) == "created"
    runtime.start(b)
    assert runtime.wait(b) == 5


# --- delete


def test_delete_of_a_created_container_kills_it(runtime, bundle):
    b = bundle.sleeping()
    runtime.create(b)
    runtime.delete(b)
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize("state", [CREATED, RUNNING, STOPPED, MISSING])
@pytest.mark.parametrize("force", ["--force", "-f"])
def test_delete_by_force_works_in_every_state_and_twice(runtime, bundle, state, force):
    b = bundle.sleeping()
    bring_to(runtime, b, state)
    first = runtime.delete(b, force)
    assert runtime.host.leftovers() == []
    second = runtime.delete(b, force)
    assert first.errors == second.errors == []
    assert second.out == second.err == ""


def test_delete_takes_along_what_outlived_the_init(runtime, bundle):
    b = bundle.sh(
        "sleep 1000 & sleep 1000 & exit 0",
        linux=HOST_PIDS,
    )
    runtime.started(b)
    runtime.wait(b)
    assert runtime.status(b) == "stopped"
    runtime.delete(b)
    assert runtime.host.leftovers() == []


def test_delete_by_force_takes_a_container_full_of_processes(runtime, bundle):
    b = bundle.sh("for i in $(seq 30); do sleep 1000 & done; echo ready; wait")
    runtime.started(b)
    ready(b)
    runtime.delete(b, "--force")
    assert runtime.host.leftovers() == []


def test_delete_right_after_sigkill_succeeds(runtime, bundle):
    """containerd deletes as soon as it has seen the exit; docker rm -f hardly waits."""
    b = bundle.sh("for i in $(seq 10); do sleep 1000 & done; echo ready; wait")
    pid = runtime.started(b)
    ready(b)
    runtime.kill(b, "KILL")
    os.waitpid(pid, 0)
    runtime.delete(b)


def test_delete_needs_no_bundle(runtime, bundle):
    b = bundle.sleeping()
    runtime.started(b)
    runtime.kill(b, "KILL")
    runtime.wait(b)
    shutil.rmtree(b.path)
    runtime.delete(b)


def test_delete_removes_cgroups_that_the_container_made_below_its_own(runtime, bundle):
    b = bundle("true")
    runtime.started(b)
    runtime.wait(b)
    os.makedirs(os.path.join(cgroup_of(b, "pids"), "below", "deeper"))
    runtime.delete(b)
    assert runtime.host.leftovers() == []


# --- frozen


def freeze(b, frozen):
    if UNIFIED:
        path, value = "cgroup.freeze", "1" if frozen else "0"
    else:
        path, value = "freezer.state", "FROZEN" if frozen else "THAWED"
    with open(os.path.join(cgroup_of(b, "freezer"), path), "w") as file:
        file.write(value)


def test_a_frozen_container_is_paused_and_delete_by_force_thaws_it(runtime, bundle):
    b = bundle.sleeping()
    runtime.started(b)
    freeze(b, True)
    assert eventually(lambda: runtime.status(b) == "paused")
    runtime.refuses("delete", b.id, saying="cannot delete container")
    freeze(b, False)
    assert eventually(lambda: runtime.status(b) == "running")
    freeze(b, True)
    assert eventually(lambda: runtime.status(b) == "paused")
    runtime.delete(b, "--force")
    assert runtime.host.leftovers() == []


def test_sigkill_reaches_a_frozen_container(runtime, bundle):
    b = bundle.sleeping()
    runtime.started(b)
    freeze(b, True)
    assert eventually(lambda: runtime.status(b) == "paused")
    runtime.kill(b, "KILL")
    assert runtime.wait(b) == 128 + 9


# --- files


def test_the_pid_file_holds_the_pid_and_nothing_else(runtime, bundle):
    b = bundle.sleeping()
    runtime.create(b)
    with open(b.pid_file) as file:
        text = file.read()
    assert text.isdecimal()
    assert runtime.state(b)["pid"] == int(text)
    assert sorted(os.listdir(b.path)) == ["config.json", "out", "pid", "rootfs"]


def test_an_old_pid_file_is_replaced(runtime, bundle):
    b = bundle.sleeping()
    with open(b.pid_file, "w") as file:
        file.write("99999999999999")
    pid = runtime.create(b)
    assert runtime.state(b)["pid"] == pid


def test_a_pid_file_that_cannot_be_written_fails_create(runtime, bundle):
    b = bundle.sleeping()
    runtime.refuses_to_create(
        b, "no such file or directory", options=["--pid-file", "/nowhere/x/pid"]
    )


def test_the_bundle_may_change_once_the_container_is_created(runtime, bundle):
    b = bundle("echo", "old")
    runtime.create(b)
    b.patch(process={"args": ["echo", "new"]})
    runtime.start(b)
    runtime.wait(b)
    assert b.output() == "old\n"


def test_the_bundle_is_the_current_directory_unless_named(runtime, bundle):
    b = bundle.sleeping()
    with open(b.out, "w") as out:
        runtime.ok("create", b.id, cwd=b.path, stdout=out, stderr=out)
    assert runtime.state(b)["bundle"] == b.path


def test_the_bundle_path_is_made_absolute(runtime, bundle):
    b = bundle.sleeping()
    with open(b.out, "w") as out:
        parent, name = os.path.split(b.path)
        runtime.ok(
            "create",
            "-b",
            f"../{os.path.basename(parent)}/{name}",
            b.id,
            cwd=parent,
            stdout=out,
            stderr=out,
        )
    assert runtime.state(b)["bundle"] == b.path
    assert runtime.state(b)["rootfs"] == b.rootfs


def test_the_rootfs_may_have_an_absolute_path(runtime, bundle):
    b = bundle("echo", "hi")
    elsewhere = os.path.join(os.path.dirname(b.path), "elsewhere")
    os.rename(b.rootfs, elsewhere)
    b.patch(root={"path": elsewhere})
    assert runtime.prints(b) == "hi"


# --- run


@pytest.mark.parametrize(("script", "code"), [("true", 0), ("exit 1", 1), ("exit 255", 255)])
def test_run_passes_on_the_exit_status(runtime, bundle, script, code):
    result = runtime.run(bundle.sh(script))
    assert result.code == code
    assert runtime.host.leftovers() == []


def test_run_reports_a_signal_as_128_and_its_number(runtime, bundle):
    # Not as pid 1, which is spared from its own signals.
    b = bundle("probe", "kill", "9", linux={"namespaces": namespaces("ipc", "uts", "mount")})
    assert runtime.run(b).code == 128 + 9


def test_run_keeps_the_three_streams_apart(runtime, bundle):
    b = bundle.sh("read a; echo out $a; echo err $a >&2; read b; echo $?")
    result = runtime.run(b, input="line\n")
    assert (result.code, result.out, result.err) == (0, "out line\n1\n", "err line\n")


def test_run_passes_a_lot_of_data(runtime, bundle):
    b = bundle("cat")
    text = "0123456789abcdef" * 65536
    assert runtime.run(b, input=text).out == text


def test_run_forwards_signals_to_the_program(runtime, bundle):
    b = bundle.sh(TRAPS)
    with open(b.out, "w") as out:
        process = runtime.spawn("run", "--bundle", b.path, b.id, stdout=out)
    ready(b)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=PATIENCE) == 7
    assert b.output().split() == ["ready", "USR1"]


def test_run_keep_leaves_the_stopped_container(runtime, bundle):
    b = bundle.sh("exit 4")
    if "--keep" not in runtime.ok("run", "--help", prefix=False).out:
        pytest.skip("this version knows no --keep")
    assert runtime.run(b, "--keep").code == 4
    assert runtime.status(b) == "stopped"
    runtime.delete(b)


def test_run_detached_returns_at_once_and_leaves_the_container_running(runtime, bundle):
    b = bundle.sh("echo up; sleep 1000")
    pid = runtime.run_detached(b)
    assert runtime.state(b)["pid"] == pid
    assert runtime.status(b) == "running"
    assert eventually(lambda: b.output() == "up\n")


def test_run_writes_the_pid_file_too(runtime, bundle):
    b = bundle.sh("read line")
    assert runtime.run(b, "--pid-file", b.pid_file, input="").code == 1
    assert runtime.pid(b) > 1


def test_a_program_that_the_kernel_cannot_execute_fails_after_start(runtime, bundle):
    b = bundle("/bin/broken")
    b.put("/bin/broken", "\x7fELF but not really", 0o755)
    runtime.create(b)
    runtime.ok("start", b.id)
    code = runtime.wait(b)
    assert code == 255 if runtime.is_ocirt else code != 0
    assert "exec format error" in b.output().lower()


# --- side by side


def test_eight_creates_side_by_side(runtime, bundle):
    bundles = [bundle.sh(f"echo {number}") for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(runtime.finish, bundles))
    assert codes == [0] * 8
    assert [b.output() for b in bundles] == [f"{number}\n" for number in range(8)]


@only_ocirt("runc 1.1 looks before it leaps: two creates may both win")
def test_of_creates_with_one_id_exactly_one_wins(runtime, bundle):
    first = bundle.sleeping()
    bundles = [first, *(bundle.sleeping(container_id=first.id) for _ in range(3))]
    processes = [
        runtime.spawn("create", "-b", b.path, "--pid-file", b.pid_file, b.id, stdout=os.devnull)
        for b in bundles
    ]
    codes = [process.wait(timeout=PATIENCE) for process in processes]
    assert sorted(codes) == [0, 1, 1, 1]
    winner = bundles[codes.index(0)]
    assert runtime.state(winner)["bundle"] == winner.path
    assert runtime.state(winner)["pid"] == runtime.pid(winner)
    runtime.start(winner)


def test_state_does_not_wait_for_a_create_under_way(runtime, bundle):
    b = bundle.sleeping(hooks={"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "2"]}]})
    process = runtime.spawn("create", "-b", b.path, b.id, stdout=os.devnull)
    assert eventually(lambda: os.path.isdir(os.path.join(runtime.root, b.id)))
    began = time.monotonic()
    result = runtime("state", b.id)
    assert time.monotonic() - began < 1.5 * SLOWNESS
    if result.code == 0:
        assert result.json()["status"] in ("creating", "created", "stopped")
    assert process.wait(timeout=PATIENCE) == 0


# --- cgroup, before start


def test_the_container_sits_in_its_cgroup_when_create_returns(runtime, bundle):
    """Engines look for the container's cgroups in /proc/PID/cgroup to watch for OOM."""
    b = bundle.sleeping()
    pid = runtime.create(b)
    with open(f"/proc/{pid}/cgroup") as file:
        lines = file.read().split("\n")
    for name in ("pids", "memory", "devices", "freezer") if not UNIFIED else ("",):
        assert any(f":{name}:/ocirt-test/{b.id}" in line for line in lines), lines


def test_a_config_without_linux_resources_still_runs(runtime, bundle):
    b = bundle("echo", "hi", linux={"resources": DROP})
    assert runtime.prints(b) == "hi"


def rewritten(b, change, **options):
    """Write a bundle's config in another form; return what it was."""
    with open(f"{b.path}/config.json") as file:
        config = json.load(file)
    with open(f"{b.path}/config.json", "w") as file:
        json.dump({**config, **change}, file, **options)
    return config


@only_ocirt("the files of the state are private")
def test_the_config_is_kept_as_it_was_written(runtime, bundle):
    b = bundle.sleeping()
    rewritten(b, {}, indent=8)
    runtime.create(b)
    with open(f"{b.path}/config.json") as file:
        written = file.read()
    with open(f"{runtime.root}/{b.id}/config.json") as file:
        assert file.read() == written


@only_ocirt("the files of the state are private")
def test_the_config_is_kept_without_what_is_null(runtime, bundle):
    b = bundle.sleeping()
    config = rewritten(b, {"hooks": None})
    runtime.create(b)
    with open(f"{runtime.root}/{b.id}/config.json") as ours:
        assert json.load(ours) == config
