"""Podman drives the runtime, through conmon: the calls differ from Docker's.

No plain `delete`, no `--root`, error texts read from the log as one JSON object.  What a flag
means inside is the matter of test_docker.py where Docker has it, too; here it is the way there,
and what only Podman asks for.
"""

from __future__ import annotations

import concurrent.futures
import json
import os

import pytest

from tests.integration import engines
from tests.integration.support import (
    UNIFIED,
    eventually,
    find_runtime,
)

RUNTIME = find_runtime()
MISSING = engines.missing("podman", "conmon", "nsenter")
FLAVOUR = engines.flavour(RUNTIME) if RUNTIME and os.geteuid() == 0 else None

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]
in_our_words = pytest.mark.skipif(FLAVOUR == "crun", reason="crun words it in its own way")

TRAPS = """
trap 'echo term; exit 5' TERM; trap 'echo usr1' USR1
echo up; while :; do usleep 9999; done"""


@pytest.fixture(scope="session")
def engine(base):
    with engines.serving(engines.Podman(os.path.join(base, "podman"), RUNTIME)) as podman:
        yield podman


podman = engines.lent("engine")


def status(text, field):
    """Return a field of /proc/PID/status."""
    return next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":"))


# --- the program: output, status, streams


def test_run_prints_what_the_program_prints(podman):
    assert podman.run("", "echo", "hi") == "hi"


@pytest.mark.parametrize("code", [1, 42, 125])
def test_the_exit_code_is_the_programs(podman, code):
    assert podman.try_run("", "sh", "-c", f"exit {code}").code == code


def test_stdout_and_stderr_stay_apart(podman):
    result = podman.try_run("", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_piped_stdin_reaches_the_program(podman):
    assert podman.run("-i", "cat", input="one\ntwo") == "one\ntwo"


def test_a_terminal_has_its_size_and_its_name(podman):
    script = 'tty; until test "$(stty size 2> /dev/null)" = "33 111"; do :; done; exit 7'
    command = podman.command("--rm -it", ("sh", "-c", script))
    result = podman.on_terminal(*command, rows=33, columns=111)
    assert result.out.split() == ["/dev/pts/0"]
    assert result.code == 7


def test_logs(podman):
    container = podman.detached("", "sh", "-c", "echo one; echo two; sleep 100")
    assert container.says("two")
    assert container.logs.split() == ["one", "two"]


# --- errors: Podman decides by their words


@in_our_words
@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("/nosuch", 127, "attempted to invoke a command that was not found"),
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc/passwd", 126, "OCI permission denied"),
    ],
)
def test_a_program_that_cannot_start_is_named(podman, program, code, text):
    result = podman.try_run("", program)
    assert result.code == code, str(result)
    assert text in result.err


@in_our_words
def test_any_other_failure_to_create_is_told(podman):
    result = podman.try_run("--sysctl net.ipv4.no_such_thing=1", "true")
    assert result.code in (125, 126, 127), str(result)
    assert "no_such_thing" in result.err
    assert engines.gone(podman.leftovers) == []


def test_a_mistake_on_the_command_line_is_125(podman):
    assert podman.try_run("--no-such-option", "true").code == 125


# --- limits

LIMITS = [
    ("--memory 64m", "memory/memory.limit_in_bytes", "memory.max", "67108864"),
    ("--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max", "50000"),
    ("--pids-limit 20", "pids/pids.max", "pids.max", "20"),
]


def limit(container, v1, v2):
    """Read a file of the container's cgroup on the host."""
    place = f"{container.client.cgroups.name}/libpod-{container.id}"
    controller, _, name = v1.partition("/")
    path = f"{place}/{v2}" if UNIFIED else f"{controller}/{place}/{name}"
    with open(f"/sys/fs/cgroup/{path}") as file:
        return file.read().split()[0]


@pytest.mark.parametrize(("option", "v1", "v2", "value"), LIMITS)
def test_limits_stand_in_the_containers_cgroup(podman, option, v1, v2, value):
    assert limit(podman.detached(option, "sleep", "1000"), v1, v2) == value


def test_update_changes_limits(podman):
    container = podman.detached("--memory 64m --memory-swap 64m", "sleep", "1000")
    container.do("update", "--memory", "32m", "--memory-swap", "32m", "--cpus", "0.5")
    assert limit(container, "memory/memory.limit_in_bytes", "memory.max") == str(32 << 20)
    assert limit(container, "cpu/cpu.cfs_quota_us", "cpu.max") == "50000"


def test_running_out_of_memory_is_reported(podman):
    container = podman.detached(
        "--memory 16m --memory-swap 16m", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M"
    )
    assert container.wait() == 137
    # Podman 4.3 and conmon 2.1 miss each other: conmon, which watches our cgroup, leaves its
    # message in the working directory, and Podman looks for it in the bundle.
    message = podman.path("work/oom")
    assert eventually(lambda: container.inspect("State.OOMKilled") or os.path.exists(message), 5)


def test_stats_count_memory_and_processes(podman):
    container = podman.detached("--memory 64m", "sh", "-c", "sleep 1000 & sleep 1000")
    (row,) = json.loads(container.do("stats", "--no-stream", "--format", "json"))
    assert row["pids"] == "2"
    assert row["mem_usage"].endswith("/ 67.11MB")
    assert row["mem_usage"].split()[0] != "0B"


def test_top_lists_the_processes(podman):
    container = podman.detached("", "sleep", "4321")
    assert "sleep 4321" in container.do("top")


@pytest.mark.skipif(FLAVOUR == "runc", reason="runc has no --cgroup-manager=disabled")
def test_no_cgroup_at_all(podman):
    options = ("--cgroups", "disabled", "--network", "none")
    container = engines.Container(
        podman, podman.ok("run", "-d", *options, podman.IMAGE, "sleep", "1000")
    )
    with open(f"/proc/{container.pid}/cgroup") as mine, open("/proc/self/cgroup") as ours:
        assert mine.read() == ours.read()
    assert container.exec("echo", "there") == "there"
    container.do("stop", "-t", "0")
    assert container.wait() == 137


def test_a_cgroup_for_the_container_and_none_for_conmon(podman):
    container = podman.detached("--cgroups no-conmon", "sleep", "1000")
    with open(f"/proc/{container.pid}/cgroup") as file:
        assert f"/{podman.cgroups.name}/libpod-{container.id}" in file.read()
    conmon = next(
        pid
        for pid, argv in podman.world.processes().items()
        if container.id in argv and "conmon" in argv
    )
    with open(f"/proc/{conmon}/cgroup") as file:
        assert podman.cgroups.name not in file.read()


# --- files


def test_a_read_only_root(podman):
    script = "touch /x 2>&1; touch /tmp/x && echo tmp; mount | grep -c ' / .*ro,'"
    result = podman.try_run("--read-only", "sh", "-c", script)
    refusal, tmp, count = result.out.splitlines()
    assert "Read-only file system" in refusal
    assert (tmp, count) == ("tmp", "1")
    result = podman.try_run("--read-only --read-only-tmpfs=false", "touch", "/tmp/x")
    assert "Read-only file system" in result.err


def test_a_volume_is_shared_with_the_host(podman, workdir):
    podman.run(f"-v {workdir}:/mnt", "touch", "/mnt/y")
    assert os.path.exists(os.path.join(workdir, "y"))
    result = podman.try_run(f"-v {workdir}:/mnt:ro", "touch", "/mnt/z")
    assert "Read-only file system" in result.err


def test_a_volume_that_is_given_to_the_user(podman, workdir):
    folder = os.path.join(workdir, "volume")
    os.mkdir(folder)
    text = podman.sh(f"-v {folder}:/mnt:U --user alice", "stat -c %U /mnt; touch /mnt/x")
    assert text == "alice"
    assert os.stat(folder).st_uid == 1000


def test_a_volume_that_is_laid_over(podman, workdir):
    folder = os.path.join(workdir, "volume")
    os.mkdir(folder)
    assert podman.sh(f"-v {folder}:/mnt:O", "echo x > /mnt/y; cat /mnt/y") == "x"
    assert os.listdir(folder) == []


@pytest.mark.skipif(FLAVOUR == "runc", reason="runc maps the owners of a mount since 1.2")
def test_a_volume_whose_owners_are_mapped(podman, workdir):
    folder = os.path.join(workdir, "volume")
    os.mkdir(folder)
    os.chown(folder, 5, 5)
    options = "--uidmap 0:100000:65536 --gidmap 0:100000:65536"
    assert podman.sh(f"{options} -v {folder}:/mnt:idmap", "stat -c %u:%g /mnt") == "5:5"


def test_secrets(podman):
    podman.ok("secret", "create", "ocirt-test", "-", input="hush")
    try:
        assert podman.run("--secret ocirt-test", "cat", "/run/secrets/ocirt-test") == "hush"
        text = podman.sh("--secret ocirt-test,type=env,target=WORD", "echo $WORD")
        assert text == "hush"
    finally:
        podman.ok("secret", "rm", "ocirt-test")


# --- devices


def test_a_device_is_there_and_opens(podman):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    text = podman.sh("--device /dev/fuse", "stat -c %t:%T /dev/fuse; exec 3<> /dev/fuse; echo ok")
    assert text == "a:e5\nok"


def test_a_device_by_its_name_in_a_cdi_file(podman):
    device = {"path": "/dev/cdinull", "hostPath": "/dev/null"}
    hook = {"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}
    edits = {"env": ["CDI=1"], "deviceNodes": [device], "hooks": [hook]}
    devices = [{"name": "d0", "containerEdits": edits}]
    folder = podman.world.root("/run/cdi")
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/ocirt.json", "w") as file:
        json.dump({"cdiVersion": "0.5.0", "kind": "ocirt.test/dev", "devices": devices}, file)
    text = podman.sh("--device ocirt.test/dev=d0", "echo $CDI; stat -c %t:%T /dev/cdinull")
    assert text.split() == ["1", "1:3"]


# --- who the program is, and what it may


def test_user_by_number_and_by_name(podman):
    assert podman.sh("--user 12345:23456", "id -u; id -g").split() == ["12345", "23456"]
    text = podman.run("--user alice --group-add 4242", "id")
    assert text.startswith("uid=1000(alice) gid=1000(alice)")
    assert "4242" in text
    assert "63(audio)" in text


def test_capabilities_dropped_and_added(podman):
    def effective(options):
        return int(status(podman.run(options, "cat", "/proc/self/status"), "CapEff"), 16)

    assert effective("--cap-drop ALL") == 0
    assert effective("--cap-drop ALL --cap-add SYS_PTRACE") == 1 << 19


def test_options_of_security(podman, workdir):
    profile = os.path.join(workdir, "seccomp.json")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}
    with open(profile, "w") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    paths = "mask=/proc/uptime unmask=/proc/sys"
    # AppArmor's profile, where there is one, keeps /proc/sys closed.
    options = f"no-new-privileges seccomp={profile} {paths} apparmor=unconfined".split()
    script = """
        mkdir /x 2>&1; wc -c < /proc/uptime; grep NoNewPrivs /proc/self/status
        echo box > /proc/sys/kernel/domainname && echo written"""
    flags = " ".join(f"--security-opt {option}" for option in options)
    lines = podman.sh(f"{flags} --cap-add SYS_ADMIN", script).splitlines()
    assert "Disk quota exceeded" in lines[0]
    assert [line.split()[-1] for line in lines[1:]] == ["0", "1", "written"]


def test_seccomp_by_default_and_unconfined(podman):
    assert status(podman.run("", "cat", "/proc/self/status"), "Seccomp") == "2"
    text = podman.run("--security-opt seccomp=unconfined", "cat", "/proc/self/status")
    assert status(text, "Seccomp") == "0"


def test_privileged(podman):
    text = podman.sh("--privileged", "cat /proc/self/status; exec 3<> /dev/net/tun")
    with open("/proc/self/status") as file:
        ours = status(file.read(), "CapEff")
    assert status(text, "CapEff") == ours
    assert status(text, "Seccomp") == "0"


def test_sysctls(podman):
    text = podman.sh(
        "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4321",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
    )
    assert text.split() == ["1", "4321"]


# --- namespaces


@pytest.mark.parametrize(
    ("option", "kind"), [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts")]
)
def test_namespaces_of_the_host(podman, option, kind):
    text = podman.run(option, "readlink", f"/proc/self/ns/{kind}")
    assert text == os.readlink(f"/proc/{podman.world.keeper.pid}/ns/{kind}")


def test_a_container_joins_anothers_namespaces(podman):
    first = podman.detached("--ipc shareable", "sleep", "4711")
    options = " ".join(f"--{kind} container:{first.id}" for kind in ("pid", "ipc", "net"))
    script = "for n in pid ipc net; do readlink /proc/self/ns/$n; done; cat /proc/1/cmdline"
    *inside, first_line = podman.sh(options, script).splitlines()
    assert inside == [os.readlink(f"/proc/{first.pid}/ns/{kind}") for kind in ("pid", "ipc", "net")]
    assert "4711" in first_line


def test_a_user_namespace_of_its_own(podman):
    options = "--uidmap 0:100000:65536 --gidmap 0:100000:65536"
    container = podman.detached(options, "sleep", "1000")
    assert container.exec("cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]
    assert os.stat(f"/proc/{container.pid}").st_uid == 100000
    assert container.exec("id", "-u", options=("--user", "alice")) == "1000"


def test_a_user_namespace_that_podman_chooses(podman, workdir):
    upper, work = os.path.join(workdir, "upper"), os.path.join(workdir, "work")
    for folder in (upper, work):
        os.mkdir(folder)
    for name in ("subuid", "subgid"):
        with open(os.path.join(upper, name), "w") as file:
            file.write("containers:2000000:1000000\n")
    # The whole of /etc: whoever adds a user to the machine would take a file off our mount.
    layers = f"lowerdir=/etc,upperdir={upper},workdir={work}"
    mount = podman.world.enter("mount", "-t", "overlay", "-o", layers, "none", "/etc")
    assert engines.call(mount).code == 0
    try:
        text = podman.run("--userns auto:size=4096", "cat", "/proc/self/uid_map")
    finally:
        engines.call(podman.world.enter("umount", "/etc"))
    inside, outside, size = map(int, text.split())
    assert (inside, size) == (0, 4096)
    assert 2000000 <= outside < 3000000


def test_a_private_cgroup_namespace(podman):
    text = podman.run("--cgroupns private", "cat", "/proc/self/cgroup")
    assert {line.rpartition(":")[2] for line in text.splitlines()} == {"/"}


def test_an_init_of_podmans(podman):
    if not os.path.exists("/usr/libexec/podman/catatonit"):
        pytest.skip("catatonit is not installed")
    assert podman.run("--init", "cat", "/proc/1/comm") == "podman-init"


def test_a_container_for_systemd(podman):
    script = "echo $container; df /run | tail -n 1; grep -c ' /sys/fs/cgroup' /proc/mounts"
    name, run, count = podman.sh("--systemd always", script).splitlines()
    assert name == "podman"
    assert run.startswith("tmpfs")
    assert int(count) > 0


# --- the life of a container


def test_stop_asks_first(podman):
    container = podman.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("stop", "-t", "10")
    assert container.wait() == 5
    assert container.logs.split() == ["up", "term"]


def test_stop_kills_when_the_time_is_up(podman):
    container = podman.detached("", "sh", "-c", "trap '' TERM; echo up; sleep 100")
    assert container.says("up")
    container.do("stop", "-t", "1")
    assert container.wait() == 137


def test_kill_sends_the_signal_that_was_asked_for(podman):
    container = podman.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("kill", "-s", "USR1")
    assert container.says("usr1")
    container.do("kill")
    assert container.wait() == 137


def test_restart_begins_anew_with_the_same_id(podman):
    container = podman.detached("", "sh", "-c", f"echo x >> /count; wc -l < /count{TRAPS}")
    assert container.says("up")
    first = container.pid
    container.do("restart", "-t", "0")
    assert container.says("2\nup")
    assert container.pid != first


def test_a_restart_policy_tries_again(podman):
    container = podman.detached("--restart on-failure:2", "sh", "-c", "echo x; exit 3")
    assert eventually(lambda: container.logs.split() == ["x"] * 3)
    assert eventually(lambda: container.inspect("State.Status") == "exited")


def test_pause_and_unpause(podman):
    container = podman.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("pause")
    assert container.inspect("State.Status") == "paused"
    assert podman("exec", container.id, "true").code != 0
    container.do("unpause")
    assert container.inspect("State.Status") == "running"
    assert container.exec("echo", "there") == "there"


def test_create_now_and_start_later(podman):
    _, *command = podman.command("", ("echo", "x"))
    container = podman.ok("create", *command)
    podman.ok("init", container)
    assert podman.ok("start", "--attach", container) == "x"


def test_a_running_container_is_removed_by_force(podman):
    container = podman.detached("", "sleep", "1000")
    pid = container.pid
    container.do("rm", "--force", "--time", "0")
    assert not os.path.exists(f"/proc/{pid}")
    assert engines.gone(podman.leftovers) == []


def test_fifty_at_once_leave_nothing(podman, workdir):
    podman.crowd(50, f"{workdir}/var")
    assert engines.gone(podman.leftovers) == []


def test_the_engine_knows_the_runtime(podman):
    info = json.loads(podman.ok("info", "--format", "{{json .Host.OCIRuntime}}"))
    assert info["path"] == RUNTIME
    version = engines.call([RUNTIME, "--version"]).out
    assert info["version"].splitlines() == version.splitlines()


# --- exec


def test_exec_runs_another_program(podman):
    container = podman.detached("-e A=1", "sleep", "1000")
    show = "echo $A$B; pwd; whoami"
    how = ("-e", "B=2", "-w", "/tmp", "-u", "alice")
    assert container.exec("sh", "-c", show, options=how).split() == ["12", "/tmp", "alice"]
    name = container.id
    assert podman("exec", name, "sh", "-c", "exit 6").code == 6
    assert podman.ok("exec", "-i", name, "cat", input="piped") == "piped"
    assert podman("exec", name, "nosuch").code == 127
    assert podman("exec", name, "/etc/passwd").code == 126
    assert "/dev/pts/" in podman.on_terminal("exec", "-it", name, "tty").out
    assert container.exec("sh", "-c", "echo done > /tmp/done", options=("--detach",)) != ""
    assert eventually(lambda: podman("exec", name, "cat", "/tmp/done").out == "done\n")


def test_a_container_is_removed_while_an_exec_runs(podman):
    container = podman.detached("", "sleep", "1000")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(podman, "exec", container.id, "sleep", "4711")
        assert eventually(lambda: "4711" in container.do("top"))
        container.do("rm", "--force", "--time", "0")
        assert running.result().code != 0
    assert engines.gone(podman.leftovers) == []


def test_a_health_check(podman):
    options = "--health-cmd 'test -e /ok' --health-interval disable --health-retries 1"
    container = podman.detached(options, "sleep", "1000")
    assert podman("healthcheck", "run", container.id).code == 1
    assert container.inspect("State.Health.Status") == "unhealthy"
    container.exec("touch", "/ok")
    assert podman("healthcheck", "run", container.id).code == 0
    assert container.inspect("State.Health.Status") == "healthy"


# --- pods


def needs_pods(podman):
    """Skip where no runtime can make members of a pod."""
    version = podman.ok("--version").split()[-1]
    if UNIFIED and podman.RUN and version.startswith("4.3."):
        pytest.skip(
            "on cgroup v2, without systemd, Podman 4.3 lets a pod use no device, not /dev/null"
        )


@pytest.fixture
def pod(podman):
    infra = ("--infra-image", podman.IMAGE, "--infra-command", "/bin/sleep 1000")
    parent = f"--cgroup-parent=/{podman.cgroups.name}"
    share = ("--share", "ipc,uts", "--network=none")
    return podman.ok("pod", "create", parent, "--name", "pd", *infra, *share)


def test_members_of_a_pod_share_namespaces(podman, pod):
    needs_pods(podman)
    script = "for kind in ipc uts; do readlink /proc/self/ns/$kind; done"
    one, two = (podman.sh("--pod pd", script) for _ in range(2))
    assert one == two


def test_the_end_of_a_pod_takes_its_containers_along(podman, pod):
    needs_pods(podman)
    members = [podman.detached("--pod pd", "sh", "-c", TRAPS) for _ in range(2)]
    assert all(member.says("up") for member in members)
    # Podman sends the signals of both at the same time.
    podman.ok("pod", "stop", "-t", "3", "pd")
    assert [member.wait() for member in members] == [5, 5]
    podman.ok("pod", "start", "pd")
    assert all(member.says("term\nup") for member in members)
    podman.ok("pod", "kill", "pd")
    assert [member.wait() for member in members] == [137, 137]
    podman.ok("pod", "rm", "-f", "-t", "0", "pd")
    assert engines.gone(podman.leftovers) == []


def test_a_pod_from_a_manifest_of_kubernetes(podman, workdir):
    needs_pods(podman)
    podman.detached("--name ocirt-source --cap-add SYS_PTRACE", "sleep", "4321")
    text = podman.ok("generate", "kube", "ocirt-source")
    podman.sweep()
    manifest = os.path.join(workdir, "pod.yaml")
    with open(manifest, "w") as file:
        file.write(text)
    podman.ok("kube", "play", "--network", "none", manifest)
    name = next(
        row["Names"][0]
        for row in json.loads(podman.ok("ps", "--format", "json"))
        if not row["IsInfra"]
    )
    capabilities = int(status(podman.ok("exec", name, "cat", "/proc/1/status"), "CapBnd"), 16)
    assert capabilities >> 19 & 1
    podman.ok("kube", "down", manifest)
    assert engines.gone(podman.leftovers) == []


# --- what the runtime is asked


def asked(podman, container):
    """Return (caller, arguments) of each call for a container."""
    bundle = podman.path("root/overlay-containers", container, "userdata")
    run = podman.path("run/overlay-containers", container, "userdata")
    names = {"ID": container, "BUNDLE": bundle, "RUN": run}
    return [(call.caller, call.line(**names)) for call in podman.recorder.calls(container)]


def test_what_each_action_asks_of_the_runtime(podman):
    script = "trap '' TERM; echo up; sleep 1000"
    container = podman.detached("--runtime recorded", "sh", "-c", script)
    assert container.says("up")
    container.exec("true")
    podman.on_terminal("exec", "-it", container.id, "true")
    for action in ("pause", "unpause", "top", "logs", "inspect"):
        container.do(action)
    container.do("update", "--memory", "64m")
    container.do("kill", "-s", "USR2")
    container.do("restart", "-t", "1")
    container.do("rm", "-f", "-t", "0")
    create = [
        ("conmon", "--log-format=json --log RUN/oci-log create --bundle BUNDLE "
                   "--pid-file RUN/pidfile ID"),
        ("podman", "start ID"),
    ]  # fmt: skip
    execute = (
        "--log-format=json --log BUNDLE/HEX/oci-log exec --pid-file BUNDLE/HEX/exec_pid "
        "--process BUNDLE/HEX/exec-process-N --detach"
    )
    # Newer conmons leave it out: the process says that it wants a terminal.
    lines = [(who, line.replace(" --tty", "")) for who, line in asked(podman, container.id)]
    assert lines == [
        *create,
        ("conmon", f"{execute} ID"),
        ("conmon", f"{execute} --console-socket /tmp/conmon-term.N ID"),
        ("podman", "pause ID"),
        ("podman", "resume ID"),
        ("podman", "update --resources=/var/tmp/podmanN ID"),
        ("podman", "kill ID 12"),
        ("podman", "kill ID 15"),
        ("podman", "kill ID 9"),
        ("podman", "delete --force ID"),
        *create,
        ("podman", "kill ID 9"),
        ("podman", "delete --force ID"),
    ]
    update = next(call for call in podman.recorder.calls(container.id) if call.verb == "update")
    assert update.document["memory"]["limit"] == 64 << 20


def test_what_a_failing_create_asks_of_the_runtime(podman):
    assert podman.try_run("--runtime recorded", "/nosuch").code == 127
    create, delete = podman.recorder.calls()[-2:]
    assert (create.caller, create.verb, create.code) == ("conmon", "create", 1)
    assert (delete.caller, delete.line()) == ("podman", "delete --force HEX")
    # Nothing was there any more.
    assert delete.code == 0
