"""Docker drives the runtime: a real dockerd of our own, from `docker run` to what it leaves.

OCIRT_TEST_RUNTIME chooses the runtime, as everywhere; what a flag of Docker means is seen
from inside the container, and after each test nothing of it may be left: no cgroup, no
mount in dockerd's namespace, no state directory.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest

from tests.integration import engines
from tests.integration.support import (
    CAP_SYS_RESOURCE,
    PATIENCE,
    UNIFIED,
    bounding_set,
    eventually,
    find_runtime,
    needs_v1,
    only_ocirt,
)

RUNTIME = find_runtime()
# Neither the filter of system calls nor AppArmor's profile, where there is one, lets it mount.
MAY_MOUNT = (
    "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
)
VERBS = engines.verbs(RUNTIME) if RUNTIME and os.geteuid() == 0 else set()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        engines.missing("dockerd", "docker", "containerd", "ip", "nsenter") is not None,
        reason=str(engines.missing("dockerd", "docker", "containerd", "ip", "nsenter")),
    ),
]


def needs_verb(verb):
    return pytest.mark.skipif(verb not in VERBS, reason=f"the runtime has no verb {verb}")


@pytest.fixture(scope="session")
def daemon(base):
    with engines.serving(engines.Docker(os.path.join(base, "docker"), RUNTIME)) as docker:
        yield docker


docker = engines.lent("daemon")


def status(text, field):
    """Return a field of /proc/PID/status."""
    return next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":"))


# --- the program: output, status, streams


def test_run_prints_what_the_program_prints(docker):
    assert docker.run("", "echo", "hi") == "hi"


def test_arguments_of_the_runtime_are_passed_on(docker):
    assert docker.run("--runtime hpc-debug", "echo", "hi") == "hi"


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_programs(docker, code):
    assert docker.try_run("", "sh", "-c", f"exit {code}").code == code


def test_stdout_and_stderr_stay_apart(docker):
    result = docker.try_run("", "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out\n", "err\n")


def test_piped_stdin_reaches_the_program(docker):
    assert docker.run("-i", "cat", input="one\ntwo") == "one\ntwo"


def test_a_megabyte_passes_through_both_ways(docker):
    text = "0123456789abcde\n" * (1 << 16)
    assert docker.run("-i", "cat", input=text) == text.strip()


def test_a_terminal_has_its_size_and_its_name(docker):
    # The size comes once the program runs: Docker's client resizes the terminal then.
    script = 'tty; until size=$(stty size) && [ "$size" ]; do :; done; echo $size; exit 7'
    argv = docker.command("--rm -it", ("sh", "-c", script))
    result = docker.on_terminal(*argv, rows=33, columns=111)
    lines = result.out.splitlines()
    assert (lines[0], lines[-1]) == ("/dev/pts/0", "33 111")
    assert result.code == 7


def test_keys_reach_the_program_on_its_terminal(docker):
    script = "trap 'echo interrupted; exit 4' INT; echo ready; while :; do usleep 9999; done"
    argv = docker.command("--rm -it", ("sh", "-c", script))
    result = docker.on_terminal(*argv, typed="\x03")
    assert "interrupted" in result.out
    assert result.code == 4


def test_the_terminal_is_the_console(docker):
    script = "test -c /dev/console && ls -l /dev/console | cut -c1; echo x > /dev/console"
    argv = docker.command("--rm -t", ("sh", "-c", script))
    assert docker.on_terminal(*argv).out.split() == ["c", "x"]


def test_environment_and_home(docker):
    text = docker.sh("-e GREETING=hello", "echo $GREETING $PATH $HOME")
    assert text == "hello /bin /root"
    assert docker.sh("--user alice", "echo $HOME") == "/home/alice"


def test_a_missing_working_directory_is_made(docker):
    assert docker.sh("-w /x/y", "pwd; stat -c %u:%a .") == "/x/y\n0:755"


def test_hostname_and_domainname(docker):
    text = docker.sh(
        "--hostname box --domainname example.org", "hostname; cat /proc/sys/kernel/domainname"
    )
    assert text.splitlines() == ["box", "example.org"]


# --- errors: Docker decides by their words

in_our_words = pytest.mark.skipif(
    bool(VERBS) and engines.flavour(RUNTIME) == "crun",
    reason="crun words it in its own way, which this Docker does not know",
)


@in_our_words
@pytest.mark.parametrize(
    ("program", "code", "text"),
    [
        ("/nosuch", 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_start_is_named(docker, program, code, text):
    result = docker.try_run("", program)
    assert result.code == code, str(result)
    assert text in result.err


@in_our_words
def test_a_directory_is_no_program(docker):
    result = docker.try_run("", "/etc")
    assert result.code == 126, str(result)
    assert 'exec: "/etc": ' in result.err


def test_any_other_failure_to_create_is_125(docker):
    result = docker.try_run("--sysctl net.ipv4.no_such_thing=1", "true")
    assert result.code in (125, 126, 127), str(result)
    assert "no_such_thing" in result.err
    assert engines.gone(docker.leftovers) == []


# --- limits

LIMITS = [
    ("--memory 64m", "memory/memory.limit_in_bytes", "memory.max", "67108864"),
    ("--memory-reservation 32m", "memory/memory.soft_limit_in_bytes", "memory.low", "33554432"),
    ("--cpus 0.5", "cpu/cpu.cfs_quota_us", "cpu.max", "50000"),
    ("--cpu-shares 512", "cpu/cpu.shares", "cpu.weight", "512"),
    ("--pids-limit 20", "pids/pids.max", "pids.max", "20"),
    ("--cpuset-cpus 0", "cpuset/cpuset.cpus", "cpuset.cpus", "0"),
]


@pytest.mark.parametrize(("option", "v1", "v2", "value"), LIMITS)
def test_limits_stand_in_the_containers_cgroup(docker, option, v1, v2, value):
    text = docker.run(option, "cat", f"/sys/fs/cgroup/{v2 if UNIFIED else v1}")
    if UNIFIED and "shares" in option:
        assert int(text) < 100
    else:
        assert text.split()[0] == value


def test_cpuset_counts(docker):
    assert docker.run("--cpuset-cpus 0", "nproc") == "1"


def test_too_many_processes_are_refused(docker):
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"
    result = docker.try_run("--pids-limit 4", "sh", "-c", script)
    assert "fork" in result.err, str(result)


def test_running_out_of_memory_is_reported(docker):
    container = docker.detached(
        "--memory 16m --memory-swap 16m", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M"
    )
    assert container.wait() == 137
    assert eventually(lambda: container.inspect("State.OOMKilled"))
    since = ("--since", "1m", "--until", "0s", "--filter", f"container={container.id}")
    assert eventually(
        lambda: "oom" in docker.ok("events", *since, "--format", "{{.Action}}").split()
    )


@needs_v1
def test_more_limits_on_v1(docker):
    options = "--memory 64m --memory-swappiness 10 --oom-kill-disable --cpuset-mems 0"
    script = "cd /sys/fs/cgroup; cat memory/memory.swappiness cpuset/cpuset.mems; head -1 "
    text = docker.sh(options, script + "memory/memory.oom_control")
    assert text.split() == ["10", "0", "oom_kill_disable", "1"]


def test_another_parent_of_the_cgroup(docker):
    parent = f"/{docker.cgroups.name}/special"
    container = docker.detached(f"--cgroup-parent {parent}", "sleep", "100")
    try:
        with open(f"/proc/{container.pid}/cgroup") as file:
            places = {line.strip().split(":")[1]: line.strip().split(":")[2] for line in file}
        assert places["" if UNIFIED else "pids"] == f"{parent}/{container.id}"
    finally:
        container.do("rm", "--force")
        docker.cgroups.remove()


def test_ulimits(docker):
    text = docker.sh(
        "--ulimit nofile=1024:2048 --ulimit core=0", "ulimit -n; ulimit -Hn; ulimit -c"
    )
    assert text.split() == ["1024", "2048", "0"]


def test_the_oom_score_can_be_raised(docker):
    assert docker.run("--oom-score-adj 500", "cat", "/proc/self/oom_score_adj") == "500"


def test_the_cgroup_mount_is_read_only_and_shows_only_its_own(docker):
    # A file that the root of a hierarchy lacks.
    file = "/sys/fs/cgroup/cgroup.freeze" if UNIFIED else "/sys/fs/cgroup/pids/pids.max"
    script = f"ls -d {file}; mkdir {os.path.dirname(file)}/x 2>&1"
    result = docker.try_run("", "sh", "-c", script)
    assert file in result.out, str(result)
    assert "Read-only file system" in result.out


# --- files


def test_a_read_only_root(docker):
    result = docker.try_run("--read-only", "touch", "/x")
    assert "Read-only file system" in result.err


def test_tmpfs_on_a_read_only_root(docker):
    script = "touch /new/x && stat -c %a /new && df -k /new | tail -1"
    mode, size = docker.sh("--read-only --tmpfs /new:size=1m,mode=1770", script).splitlines()
    assert mode == "1770"
    assert size.split()[1] == "1024"


def test_a_volume_is_shared_with_the_host(docker, workdir):
    folder = os.path.join(workdir, "volume")
    docker.sh(f"-v {folder}:/mnt", "echo from inside > /mnt/file")
    with open(os.path.join(folder, "file")) as file:
        assert file.read() == "from inside\n"
    result = docker.try_run(f"-v {folder}:/mnt:ro", "touch", "/mnt/other")
    assert "Read-only file system" in result.err
    assert docker.run(f"-v {folder}/file:/etc/one:ro", "cat", "/etc/one") == "from inside"


def test_a_named_volume_begins_as_a_copy_and_lasts(docker):
    try:
        assert docker.run("-v ocirt-test:/home/alice", "cat", "/home/alice/note")
        docker.run("-v ocirt-test:/home/alice", "touch", "/home/alice/more")
        text = docker.run("-v ocirt-test:/home/alice", "ls", "/home/alice")
        assert text.split() == ["more", "note"]
    finally:
        docker("volume", "rm", "ocirt-test")


def test_a_mount_that_the_container_makes_later_is_seen_only_there(docker, workdir):
    folder = os.path.join(workdir, "slave")
    os.mkdir(folder)
    before = docker.world.mounts()
    docker.sh(
        f"{MAY_MOUNT} -v {folder}:/mnt:rslave",
        "mount -t tmpfs none /mnt && touch /mnt/x",
    )
    assert os.listdir(folder) == []
    assert docker.world.mounts() == before


def test_options_of_a_tmpfs(docker):
    options = "--tmpfs /a:size=1m,mode=1770,uid=1000,gid=63,noexec --tmpfs /b:exec"
    script = "stat -c %a:%u:%g /a; for d in /a /b; do cp /bin/busybox $d/true; $d/true; done"
    result = docker.try_run(options, "sh", "-c", script)
    assert result.out.strip() == "1770:1000:63"
    assert "/a/true: Permission denied" in result.err or "/a/true: No space" in result.err
    assert "/b/true: Permission denied" not in result.err


def test_a_volume_may_begin_empty(docker):
    mount = "type=volume,src=ocirt-bare,dst=/home/alice,volume-nocopy"
    try:
        assert docker.run(f"--mount {mount}", "ls", "/home/alice") == ""
    finally:
        docker("volume", "rm", "ocirt-bare")


def test_mounts_below_a_bind_mount(docker, workdir):
    """What was mounted before comes along; what comes later, as its propagation says."""
    for name in ("before", "later", "inside"):
        os.makedirs(f"{workdir}/source/{name}")

    def on_the_machine(*argv):
        engines.call(docker.world.enter(*argv))

    source = f"{workdir}/source"
    on_the_machine("mount", "-t", "tmpfs", "none", f"{source}/before")
    try:
        mount = f"type=bind,src={source}"
        container = docker.detached(
            f"{MAY_MOUNT} --mount {mount},dst=/slave,bind-propagation=rslave"
            f" --mount {mount},dst=/shared,bind-propagation=rshared"
            f" --mount {mount},dst=/private,bind-propagation=rprivate"
            f" --mount {mount},dst=/bare,bind-nonrecursive,readonly",
            "sleep",
            "100",
        )
        on_the_machine("mount", "-t", "tmpfs", "none", f"{source}/later")
        container.exec("mount", "-t", "tmpfs", "none", "/shared/inside")
        seen = container.exec("sh", "-c", "grep -o '/[a-z]*/[a-z]* [^ ]*' /proc/self/mountinfo")
        places = {line.split()[0] for line in seen.splitlines()}
        for kind, wanted in (
            ("slave", {"before", "later", "inside"}),
            ("shared", {"before", "later", "inside"}),
            ("private", {"before"}),
            ("bare", set()),
        ):
            found = {place.rpartition("/")[2] for place in places if place.startswith(f"/{kind}/")}
            assert found == wanted, kind
        assert f"{source}/inside" in docker.world.mounts()
        assert docker("exec", container.id, "touch", "/bare/x").code == 1
        container.do("rm", "--force")
    finally:
        for name in ("inside", "later", "before"):
            on_the_machine("umount", "-l", f"{source}/{name}")


def test_shm_size(docker):
    text = docker.sh("--shm-size 32m", "df -k /dev/shm | tail -1; stat -c %a /dev/shm")
    size, mode = text.splitlines()
    assert size.split()[1] == "32768"
    assert mode == "1777"


def test_masked_and_read_only_paths(docker):
    script = """
        cat /proc/keys /proc/timer_list 2> /dev/null | wc -c
        ls -A /sys/firmware | wc -l
        echo 1 2> /dev/null > /proc/sys/kernel/domainname || echo refused"""
    assert docker.sh("", script).split() == ["0", "0", "refused"]


def test_sysctls(docker):
    text = docker.sh(
        "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=4321",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax",
    )
    assert text.split() == ["1", "4321"]


# --- devices


def test_the_default_devices(docker):
    names = docker.run("", "ls", "/dev").split()
    wanted = [
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert set(wanted) <= set(names)
    assert docker.sh("", "stat -c %t:%T:%a /dev/null; readlink /dev/ptmx") == "1:3:666\npts/ptmx"


def test_a_device_is_there_and_opens(docker):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    text = docker.sh("--device /dev/fuse", "stat -c %t:%T /dev/fuse; exec 3<> /dev/fuse; echo ok")
    assert text == "a:e5\nok"


def test_a_device_under_another_name_read_only(docker):
    text = docker.sh("--device /dev/zero:/dev/nought:r", "head -c 3 /dev/nought | wc -c")
    assert text == "3"


def test_a_device_that_was_not_given_does_not_open(docker):
    script = "mknod /fuse c 10 229 && cat < /fuse"
    result = docker.try_run("", "sh", "-c", script)
    assert "Operation not permitted" in result.err, str(result)


def test_a_rule_for_devices_opens_what_the_container_makes_itself(docker):
    script = (
        "mknod /null c 1 3 && echo > /null && mknod /fuse c 10 229 && exec 3<> /fuse && echo ok"
    )
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    assert docker.sh("--device-cgroup-rule 'c 10:229 rwm'", script) == "ok"


# --- who the program is, and what it may


def test_user_by_number_and_by_name(docker):
    assert docker.run("--user 12345:23456", "id").split()[:2] == ["uid=12345", "gid=23456"]
    text = docker.run("--user alice --group-add 4242", "id")
    assert text.startswith("uid=1000(alice) gid=1000(alice)")
    assert "4242" in text
    assert "63(audio)" in text


def test_groups_by_name(docker):
    assert docker.run("--user alice:audio", "id", "-gn") == "audio"
    assert "63(audio)" in docker.run("--user 1234 --group-add audio", "id")
    result = docker.try_run("--user nobodyknows", "true")
    assert result.code in (125, 126), str(result)
    assert "nobodyknows" in result.err


def test_default_capabilities(docker):
    text = docker.run("", "cat", "/proc/self/status")
    assert int(status(text, "CapEff"), 16) == 0xA80425FB & available()
    assert int(status(text, "CapBnd"), 16) == 0xA80425FB & available()
    assert int(status(text, "CapAmb"), 16) == 0


def available():
    return sum(1 << number for number in bounding_set())


def test_capabilities_dropped_and_added(docker):
    def effective(options):
        return int(status(docker.run(options, "cat", "/proc/self/status"), "CapEff"), 16)

    assert effective("--cap-drop ALL") == 0
    assert effective("--cap-drop ALL --cap-add SYS_PTRACE") == 1 << 19
    assert effective("--cap-drop MKNOD") == 0xA80425FB & ~(1 << 27)
    assert effective("--user 1000") == 0


@only_ocirt("gives what the machine has, where others fail for want of CAP_SYS_RESOURCE")
def test_all_capabilities(docker):
    text = docker.run("--cap-add ALL", "cat", "/proc/self/status")
    known = (1 << 38) - 1  # Docker 20.10 asks for no newer ones
    assert int(status(text, "CapEff"), 16) & known == available() & known
    text = docker.run("--cap-add ALL --cap-drop MKNOD", "cat", "/proc/self/status")
    assert int(status(text, "CapEff"), 16) & known == available() & known & ~(1 << 27)


def test_the_last_bars_of_confinement_may_go(docker):
    options = "seccomp=unconfined", "apparmor=unconfined", "label=disable", "systempaths=unconfined"
    text = docker.sh(
        " ".join(f"--security-opt {option}" for option in options),
        "cut -d ' ' -f 5 /proc/self/mountinfo; grep Seccomp: /proc/self/status",
    )
    assert not any(line.startswith(("/proc/", "/sys/firmware")) for line in text.splitlines())
    assert text.split()[-1] == "0"


def test_no_new_privileges(docker):
    text = docker.run("--security-opt no-new-privileges", "cat", "/proc/self/status")
    assert status(text, "NoNewPrivs") == "1"
    assert status(docker.run("", "cat", "/proc/self/status"), "NoNewPrivs") == "0"


def test_seccomp_by_default_and_unconfined(docker):
    assert status(docker.run("", "cat", "/proc/self/status"), "Seccomp") == "2"
    text = docker.run("--security-opt seccomp=unconfined", "cat", "/proc/self/status")
    assert status(text, "Seccomp") == "0"


def test_the_default_profile_refuses_what_it_should(docker):
    assert docker.try_run("", "unshare", "-U", "true").code == 1
    assert docker.try_run("--security-opt seccomp=unconfined", "unshare", "-U", "true").code == 0


def test_seccomp_profile_of_a_file(docker, workdir):
    profile = os.path.join(workdir, "seccomp.json")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}
    with open(profile, "w") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    result = docker.try_run(f"--security-opt seccomp={profile}", "mkdir", "/x")
    assert "Disk quota exceeded" in result.err, str(result)


@pytest.mark.skipif(CAP_SYS_RESOURCE not in bounding_set(), reason="needs CAP_SYS_RESOURCE")
def test_privileged(docker):
    check_privileged(docker)


@only_ocirt("gives what the machine has, where others fail for want of CAP_SYS_RESOURCE")
def test_privileged_with_fewer_capabilities_than_all(docker):
    check_privileged(docker)


def check_privileged(docker):
    text = docker.sh("--privileged", "cat /proc/self/status; touch /sys/x 2>&1; ls /dev/fuse")
    known = (1 << 38) - 1  # Docker 20.10 asks for no newer ones
    assert int(status(text, "CapEff"), 16) & known == available() & known
    assert status(text, "Seccomp") == "0"
    assert "Read-only" not in text


# --- namespaces


def inode(pid, kind):
    return os.readlink(f"/proc/{pid}/ns/{kind}")


@pytest.mark.parametrize(
    ("option", "kind"), [("--pid=host", "pid"), ("--ipc=host", "ipc"), ("--uts=host", "uts")]
)
def test_namespaces_of_the_host(docker, option, kind):
    text = docker.sh(option, "for n in pid ipc uts net mnt; do readlink /proc/self/ns/$n; done")
    inside = dict(line.split(":") for line in text.splitlines())
    for name, number in inside.items():
        same = inode(docker.daemon.pid, name) == f"{name}:{number}"
        assert same == (name == kind), name


def test_the_last_process_of_a_container_on_the_hosts_pids_takes_the_rest_along(docker):
    result = docker.try_run("--pid=host", "sh", "-c", "sleep 4711 & echo $!")
    pid = int(result.out)
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_container_joins_anothers_namespaces(docker):
    first = docker.detached("--ipc shareable", "sleep", "100")
    options = f"--pid container:{first.id} --ipc container:{first.id}"
    text = docker.sh(f"{options} --network container:{first.id}", "readlink /proc/1/exe; pwd")
    for kind in ("pid", "ipc", "net"):
        inside = docker.run(
            f"{options} --network container:{first.id}", "readlink", f"/proc/self/ns/{kind}"
        )
        assert inside == inode(first.pid, kind)
    assert "/" in text


def test_a_private_cgroup_namespace(docker):
    text = docker.run("--cgroupns private", "cat", "/proc/self/cgroup")
    assert {line.rpartition(":")[2] for line in text.splitlines()} == {"/"}


def test_an_init_of_dockers(docker):
    missing = engines.missing("docker-init")
    if missing:
        pytest.skip(missing)
    assert "docker-init" in docker.sh("--init", "cat /proc/1/cmdline | tr '\\0' ' '")


# --- network


def test_no_network(docker):
    assert docker.run("--network none", "ls", "/sys/class/net") == "lo"
    assert "127.0.0.1" in docker.run("--network none", "ip", "addr")


def test_two_containers_meet_on_the_bridge(docker):
    first = docker.detached("--network bridge", "sleep", "100")
    address = first.inspect("NetworkSettings.Networks.bridge.IPAddress")
    assert docker.run("--network bridge", "ls", "/sys/class/net").split() == ["eth0", "lo"]
    text = docker.run("--network bridge", "ping", "-c", "1", "-w", "5", address)
    assert "1 packets received" in text


def test_containers_find_each_other_by_name(docker):
    docker.ok("network", "create", "ocirt-test")
    try:
        docker.detached("--network ocirt-test --name ocirt-first", "sleep", "100")
        text = docker.run("--network ocirt-test", "ping", "-c", "1", "-w", "5", "ocirt-first")
        assert "1 packets received" in text
    finally:
        docker.sweep()
        docker.ok("network", "rm", "ocirt-test")


def test_the_network_of_the_host(docker):
    text = docker.run("--network host", "readlink", "/proc/self/ns/net")
    assert text == inode(docker.daemon.pid, "net")


# --- the life of a container

TRAPS = """
trap 'echo term; exit 5' TERM; trap 'echo usr1' USR1
echo up; while :; do usleep 9999; done"""


def test_logs(docker):
    container = docker.detached("", "sh", "-c", "echo one; echo two; sleep 100")
    assert container.says("two")
    assert container.logs.split() == ["one", "two"]


def test_stop_asks_first(docker):
    container = docker.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("stop", "-t", "10")
    assert container.wait() == 5
    assert container.logs.split() == ["up", "term"]


def test_stop_kills_when_the_time_is_up(docker):
    container = docker.detached("", "sh", "-c", "trap '' TERM; echo up; sleep 100")
    assert container.says("up")
    container.do("stop", "-t", "1")
    assert container.wait() == 137


def test_kill_sends_the_signal_that_was_asked_for(docker):
    container = docker.detached("", "sh", "-c", TRAPS)
    assert container.says("up")
    container.do("kill", "-s", "USR1")
    assert container.says("usr1")
    container.do("kill")
    assert container.wait() == 137


def test_stop_sends_the_signal_of_the_container(docker):
    script = "trap 'exit 6' USR2; trap 'exit 5' TERM; echo up; while :; do usleep 9999; done"
    container = docker.detached("--stop-signal USR2", "sh", "-c", script)
    assert container.says("up")
    container.do("stop", "-t", "10")
    assert container.wait() == 6


def test_another_entrypoint(docker):
    assert docker.run("--entrypoint /bin/echo", "-n", "said") == "said"


def test_restart_begins_anew_with_the_same_id(docker):
    container = docker.detached("", "sh", "-c", f"echo x >> /count; wc -l < /count{TRAPS}")
    assert container.says("up")
    first = container.pid
    container.do("restart", "-t", "0")
    assert container.says("2\n")
    assert container.pid != first
    assert container.says("2\nup")
    assert container.logs.startswith("1\nup\n")


def test_a_restart_policy_tries_again(docker):
    container = docker.detached("--restart on-failure:2", "sh", "-c", "echo x; exit 3")
    assert eventually(lambda: container.logs.split() == ["x"] * 3)
    assert eventually(lambda: container.inspect("State.Status") == "exited")
    assert container.inspect("RestartCount") == 2


def test_create_now_and_start_later(docker):
    container = docker.ok("create", "--network", "none", docker.IMAGE, "echo", "later")
    assert docker.ok("start", "--attach", container) == "later"


def test_a_running_container_is_removed_by_force(docker):
    container = docker.detached("", "sleep", "1000")
    pid = container.pid
    container.do("rm", "--force")
    assert not os.path.exists(f"/proc/{pid}")
    assert engines.gone(docker.leftovers) == []


def test_wait_returns_the_status(docker):
    container = docker.detached("", "sh", "-c", "usleep 300000; exit 9")
    assert container.wait() == 9


def test_many_at_once_leave_nothing(docker, workdir):
    """No cgroup, mount, state directory, network namespace, shim or any other process."""
    before = descriptors(docker)
    docker.crowd(docker.CROWD, f"{workdir}/var")
    assert engines.gone(docker.leftovers, PATIENCE) == []
    # Nor do dockerd and its containerd keep anything open of what is gone.
    assert eventually(lambda: descriptors(docker) < before + docker.CROWD // 2)


def descriptors(docker):
    """Count the open files of dockerd and containerd, but not dockerd's connections.

    Those to clients that are gone it closes when Go next collects garbage.
    """
    found = 0
    for pid in docker.world.processes():
        folder = f"/proc/{pid}/fd"
        with contextlib.suppress(FileNotFoundError):  # the process or the file is gone meanwhile
            links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
            sockets = pid == docker.daemon.pid and sum(link.startswith("socket:") for link in links)
            found += len(links) - sockets
    return found


def test_the_daemon_knows_the_runtime(docker):
    info = json.loads(docker.ok("info", "--format", "{{json .}}"))
    assert info["DefaultRuntime"] == "hpc"
    assert info["Runtimes"]["hpc"]["path"] == RUNTIME


# --- later work of the runtime under test


@needs_verb("exec")
def test_exec_runs_another_program(docker):
    container = docker.detached("-e A=1", "sleep", "100")
    assert docker.ok("exec", "-e", "B=2", container.id, "sh", "-c", "echo $A$B $$") != ""
    assert docker("exec", container.id, "sh", "-c", "exit 6").code == 6
    assert docker.ok("exec", "-i", container.id, "cat", input="piped") == "piped"
    assert docker.ok("exec", "-u", "alice", "-w", "/tmp", container.id, "whoami") == "alice"
    assert docker("exec", container.id, "/nosuch").code in (126, 127)
    assert "/dev/pts/" in docker.on_terminal("exec", "-it", container.id, "tty").out


@needs_verb("exec")
def test_a_health_check(docker):
    container = docker.detached("--health-cmd true --health-interval 1s", "sleep", "100")
    assert eventually(lambda: container.inspect("State.Health.Status") == "healthy")


@needs_verb("pause")
def test_pause_and_unpause(docker):
    container = docker.detached("", "sleep", "100")
    container.do("pause")
    assert container.inspect("State.Status") == "paused"
    container.do("unpause")
    assert container.inspect("State.Status") == "running"


@needs_verb("pause")
def test_files_go_in_and_out_of_a_paused_container(docker, workdir):
    container = docker.detached("", "sleep", "100")
    container.do("pause")
    with open(f"{workdir}/in", "w") as file:
        file.write("carried")
    docker.ok("cp", f"{workdir}/in", f"{container.id}:/carried")
    docker.ok("cp", f"{container.id}:/carried", f"{workdir}/out")
    with open(f"{workdir}/out") as file:
        assert file.read() == "carried"
    result = docker("exec", container.id, "true")
    assert "is paused" in result.err, str(result)
    container.do("unpause")
    assert container.exec("cat", "/carried") == "carried"


@needs_verb("pause")
def test_what_has_changed_becomes_an_image(docker):
    container = docker.detached("", "sh", "-c", "echo new > /made; rm /etc/group; sleep 100")
    assert eventually(lambda: "A /made" in container.do("diff"))
    assert {"D /etc/group", "C /etc"} <= set(container.do("diff").splitlines())
    image = docker.ok("commit", container.id)  # Docker pauses it meanwhile
    try:
        assert container.inspect("State.Status") == "running"
        assert docker.ok("run", "--rm", "--network", "none", image, "cat", "/made") == "new"
    finally:
        docker("rmi", image)


def test_stats_come_from_the_cgroup(docker):
    container = docker.detached(
        "--memory 32m --pids-limit 7", "sh", "-c", "sleep 99 & sleep 99 & wait"
    )
    stats = json.loads(docker.ok("stats", "--no-stream", "--format", "{{json .}}", container.id))
    assert stats["PIDs"] == "3"
    assert stats["MemUsage"].endswith("/ 32MiB")


@needs_verb("exec")
def test_many_programs_leave_nothing_in_the_shim(docker):
    container = docker.detached("", "sleep", "100")
    container.exec("true")

    def held():
        (shim,) = docker.shims()
        return len(os.listdir(f"/proc/{shim}/fd"))

    before = held()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        ends = list(
            pool.map(lambda n: docker("exec", container.id, "sh", "-c", f"exit {n}"), range(6))
        )
    assert [end.code for end in ends] == list(range(6))
    assert eventually(lambda: held() <= before), (before, held())
    assert len(docker.ok("top", container.id).splitlines()) == 2


@needs_verb("exec")
def test_a_container_is_removed_while_programs_run_in_it(docker):
    container = docker.detached("", "sleep", "1000")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(docker, "exec", container.id, "sleep", "999") for _ in range(3)]
        assert eventually(lambda: container.do("top").count("sleep 999") == 3)
        container.do("rm", "--force")
        assert [end.result().code for end in running] == [137] * 3
    assert engines.gone(docker.leftovers) == []


@needs_verb("update")
def test_update_changes_every_limit(docker):
    container = docker.detached("--memory 64m --memory-swap 128m --cpu-shares 99", "sleep", "100")
    options = (
        "--memory 48m --memory-swap 96m --memory-reservation 24m --cpu-shares 512 "
        "--cpu-period 50000 --cpu-quota 25000 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 44"
    )
    container.do("update", *options.split())
    v1 = (
        "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes "
        "memory/memory.soft_limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_period_us "
        "cpu/cpu.cfs_quota_us cpuset/cpuset.cpus cpuset/cpuset.mems pids/pids.max"
    )
    v2 = "memory.max memory.swap.max memory.low cpu.max cpuset.cpus cpuset.mems pids.max"
    files = " ".join(f"/sys/fs/cgroup/{name}" for name in (v2 if UNIFIED else v1).split())
    found = container.exec("sh", "-c", f"cat {files}").split()
    mib = 1 << 20
    if UNIFIED:
        # Docker asks the daemon's own cgroup, and the topmost one knows no limits.
        swap = docker.ok("info", "--format", "{{.SwapLimit}}") == "true"
        wanted = [48 * mib, 48 * mib if swap else "max", 24 * mib, 25000, 50000, 0, 0, 44]
    else:
        wanted = [48 * mib, 96 * mib, 24 * mib, 512, 50000, 25000, 0, 0, 44]
    assert found == [str(number) for number in wanted]


@needs_verb("update")
def test_update_changes_limits(docker):
    container = docker.detached("--memory 64m --memory-swap 64m", "sleep", "100")
    container.do("update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "33")
    folder = next(path for path in docker.cgroups.folders() if UNIFIED or "/memory/" in path)
    name = "memory.max" if UNIFIED else "memory.limit_in_bytes"
    with open(os.path.join(folder, name)) as file:
        assert file.read().strip() == str(32 << 20)


@needs_verb("ps")
def test_top_lists_the_processes(docker):
    container = docker.detached("", "sleep", "4321")
    assert "sleep 4321" in container.do("top")


def test_build_runs_its_steps_through_the_runtime(docker, workdir):
    with open(os.path.join(workdir, "Dockerfile"), "w") as file:
        file.write(f"FROM {docker.IMAGE}\nRUN echo built > /made\n")
    env = {**docker.env, "DOCKER_BUILDKIT": "0"}
    argv = ["docker", "build", "--network", "none", "-q", workdir]
    image = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60)
    name = image.stdout.strip()
    try:
        assert docker.ok("run", "--rm", "--network", "none", name, "cat", "/made") == "built"
    finally:
        docker("rmi", name)


# --- what Docker asks of the runtime


class Calls:
    """The calls that a recorded container causes, as they come."""

    def __init__(self, docker, container_id):
        self.docker, self.id, self.seen = docker, container_id, 0
        tasks = "containerd/daemon/io.containerd.runtime.v2.task/moby"
        bundle = os.path.join(docker.exec_root, tasks, container_id)
        self.names = {"ROOT": docker.state, "BUNDLE": bundle, "ID": container_id}

    def finished(self):
        found = self.docker.recorder.calls(self.id)[self.seen :]
        return [call for call in found if call.code is not None]

    def next(self, *wanted, code=0):
        """The next calls are these, the first of them ends with `code`, and all others with 0."""
        eventually(lambda: len(self.finished()) >= len(wanted))
        calls = self.finished()
        prefix = "--root ROOT --log BUNDLE/log.json --log-format json "
        lines = [call.line(**self.names) for call in calls]
        assert all(line.startswith(prefix) for line in lines), lines
        # Docker 28 spells it --resources=-
        found = [line.removeprefix(prefix).replace("resources=-", "resources -") for line in lines]
        assert found == list(wanted)
        assert [call.code for call in calls] == [code, *[0] * (len(wanted) - 1)][: len(calls)]
        assert {call.caller for call in calls} <= {"containerd-shim", "containerd"}, calls[0].caller
        self.seen += len(calls)
        return calls


CREATE = "create --bundle BUNDLE --pid-file BUNDLE/init.pid ID"
CREATE_ON_TERMINAL = CREATE.replace(" ID", " --console-socket /tmp/ptyN/pty.sock ID")
DELETES = ("delete ID", "delete --force ID")
EXEC = "exec --process /tmp/runc-processN --detach --pid-file BUNDLE/HEX.pid ID"
EXEC_ON_TERMINAL = (
    "exec --process /tmp/runc-processN --console-socket /tmp/ptyN/pty.sock "
    "--detach --pid-file BUNDLE/HEX.pid ID"
)


def recorded(docker, options, *program):
    """Start a container whose calls are recorded; return it, and the calls after its start."""
    container = docker.detached(f"--runtime recorded {options}", *program)
    calls = Calls(docker, container.id)
    calls.next(CREATE, "start ID")
    return container, calls


@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "terminal"])
def test_the_calls_of_a_run(docker, workdir, terminal):
    options = f"--runtime recorded --rm --cidfile {workdir}/id {'-it' if terminal else ''}"
    command = docker.command(options, ("sh", "-c", "exit 3"))
    result = docker.on_terminal(*command) if terminal else docker(*command)
    assert result.code == 3, str(result)
    with open(f"{workdir}/id") as file:
        calls = Calls(docker, file.read())
    first = CREATE_ON_TERMINAL if terminal else CREATE
    create, *_ = calls.next(first, "start ID", *DELETES)
    assert create.document["process"].get("terminal", False) is terminal
    assert create.cwd == calls.names["BUNDLE"]


def test_the_calls_of_a_create_that_fails(docker, workdir):
    result = docker.try_run(f"--runtime recorded --cidfile {workdir}/id", "/nosuch")
    assert result.code == 127, str(result)
    with open(f"{workdir}/id") as file:
        calls = Calls(docker, file.read())
    calls.next(CREATE, "delete --force ID", code=1)


@needs_verb("exec")
def test_the_calls_in_the_life_of_a_container(docker, workdir):
    container, calls = recorded(docker, "--memory 32m --memory-swap 32m", "sh", "-c", TRAPS)
    assert container.exec("echo", "in") == "in"
    calls.next(EXEC)
    assert "/dev/pts/" in docker.on_terminal("exec", "-it", container.id, "tty").out
    calls.next(EXEC_ON_TERMINAL)
    assert docker("exec", container.id, "/nosuch").code in (126, 127)
    calls.next(EXEC, code=255)
    assert "usleep" in container.do("top") or "sh" in container.do("top")
    calls.next(*["ps --format json ID"] * (len(calls.finished()) or 1))
    container.do("pause")
    calls.next("pause ID")
    container.do("unpause")
    calls.next("resume ID")
    container.do("update", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.5")
    (update,) = calls.next("update --resources - ID")
    assert update.document["memory"]["limit"] == 64 << 20
    assert update.document["cpu"] == {"shares": 0, "quota": 50000, "period": 100000}
    container.do("kill", "-s", "USR1")
    calls.next("kill ID 10")
    assert container.says("usr1")
    # All of this is Docker's own, with the help of cgroup files and of the file system.
    container.inspect("State")
    docker.ok("stats", "--no-stream", container.id)
    docker.ok("cp", f"{container.id}:/etc/passwd", f"{workdir}/passwd")
    docker.ok("events", "--since", "1m", "--until", "0s", "--filter", f"container={container.id}")
    docker.ok("diff", container.id)
    calls.next()
    container.do("rm", "--force")
    calls.next("kill ID 9", *DELETES)


def test_the_calls_of_stop_and_restart(docker):
    container, calls = recorded(docker, "", "sh", "-c", "trap '' TERM; echo up; sleep 1000")
    assert container.says("up")
    container.do("restart", "-t", "1")
    calls.next("kill ID 15", "kill ID 9", *DELETES, CREATE, "start ID")
    container.do("stop", "-t", "0")
    # Some versions of Docker do not ask first, when there is no time to answer.
    asked = ["kill ID 15"] if len(calls.finished()) == 4 else []
    calls.next(*asked, "kill ID 9", *DELETES)


def test_the_calls_for_a_container_on_the_hosts_pids(docker, workdir):
    script = "until test -e /go/on; do usleep 9999; done"
    container, calls = recorded(docker, f"--pid=host -v {workdir}:/go", "sh", "-c", script)
    open(f"{workdir}/on", "w").close()
    assert container.wait() == 0
    calls.next("kill --all ID 9", *DELETES)


@needs_verb("exec")
def test_the_calls_of_a_health_check(docker):
    options = "--health-cmd 'exit 1' --health-interval 0.3s --health-retries 2"
    container, calls = recorded(docker, options, "sleep", "100")
    assert eventually(lambda: container.inspect("State.Health.Status") == "unhealthy")
    found = {call.verb for call in calls.finished()}
    assert found == {"exec"}
    assert all(call.code == 0 for call in calls.finished()), "what the check says is its own"


# --- what goes wrong around the runtime

KILLER = """#!/bin/sh
# Kills the runtime a moment after it has begun a verb, once.
if read -r verb moment 2> /dev/null < {folder}/plan; then
    case " $* " in
    *" $verb "*) rm {folder}/plan && exec timeout --foreground -s KILL "$moment" {runtime} "$@" ;;
    esac
fi
exec {runtime} "$@"
"""


class Fragile(engines.Docker):
    """A dockerd that may go away under its containers; the state directory has little room."""

    def __init__(self, folder, runtime):
        killer = os.path.join(folder, "killer")
        runtimes = {"hpc": {"path": runtime}, "killer": {"path": killer}}
        live = {"live-restore": True, "runtimes": runtimes}
        super().__init__(folder, runtime, kind="fragile", **live)
        self.write("killer", KILLER.format(folder=folder, runtime=runtime))
        os.chmod(killer, 0o755)

    def start(self):
        os.makedirs(self.state, 0o700)
        for argv in (
            ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "none", self.state],
            ["chmod", "711", self.exec_root],
        ):
            assert engines.call(self.world.enter(*argv)).code == 0
        super().start()

    def leftovers(self):
        # Docker's handle for the network of a container that it could not start, with any runtime.
        handle = f"mount: {self.exec_root}/netns/"
        return [one for one in super().leftovers() if not one.startswith(handle)]

    def kill_at(self, verb, moment):
        """Let the next call of this verb by the runtime `killer` live for some seconds only."""
        self.write("plan", f"{verb} {moment:.3f}\n")

    def within(self, script):
        """Run a shell script on the machine as dockerd sees it."""
        return engines.call(self.world.enter("sh", "-c", script))


@pytest.fixture(scope="session")
def fragile_daemon(base):
    with engines.serving(Fragile(os.path.join(base, "fragile"), RUNTIME)) as docker:
        yield docker


fragile = engines.lent("fragile_daemon")


COUNT = "trap 'echo term; exit 5' TERM; n=0; while :; do n=$((n+1)); echo $n; usleep 99999; done"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_containers_outlive_the_daemon(fragile, how):
    """live-restore: what runs goes on, and obeys the new daemon; what ended meanwhile is known."""
    running = fragile.detached("", "sh", "-c", COUNT)
    paused = fragile.detached("", "sleep", "1000")
    paused.do("pause")
    ending = fragile.detached("", "sh", "-c", "until [ -e /go ]; do usleep 9999; done; exit 7")
    pids = running.pid, paused.pid, ending.pid
    root = f"/proc/{ending.pid}/root"
    if how == "stopped":
        engines.stop(fragile.daemon)
    else:
        fragile.crash()
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    with open(f"{root}/go", "w"):
        pass
    assert eventually(lambda: not os.path.exists(f"/proc/{pids[2]}"))
    fragile.serve()
    assert (running.pid, paused.pid) == pids[:2]
    assert ending.wait() == 7
    assert running.exec("echo", "in") == "in"
    assert paused.inspect("State.Status") == "paused"
    paused.do("unpause")
    assert paused.exec("echo", "in") == "in"
    count = len(running.logs.split())
    assert eventually(lambda: len(running.logs.split()) > count), "it is still heard"
    assert "usleep" in running.do("top") or "sh" in running.do("top")
    running.do("update", "--pids-limit", "44")
    running.do("stop", "-t", "10")
    assert running.wait() == 5
    assert running.logs.endswith("term")
    paused.do("restart", "-t", "0")
    assert paused.exec("echo", "anew") == "anew"


def test_a_shim_that_is_killed_takes_its_container_along(fragile):
    container = fragile.detached("", "sleep", "1000")
    pid = container.pid
    (shim,) = fragile.shims()
    os.kill(shim, signal.SIGKILL)
    assert eventually(lambda: container.inspect("State.Status") == "exited")
    assert engines.ended(pid)
    container.do("start")
    assert container.exec("echo", "anew") == "anew"


def test_a_full_disk_under_the_state_is_said(fragile):
    running = fragile.detached("", "sleep", "1000")
    fragile.within(f"cat /dev/zero > {fragile.state}/filler")
    try:
        result = fragile.try_run("", "echo", "hi")
        assert result.code != 0
        if engines.flavour(RUNTIME) == "ocirt":  # runc has no words for it
            assert "no space left on device" in result.err, str(result)
        # What needs no room goes on.
        assert running.exec("echo", "in") == "in"
        running.do("pause")
        running.do("unpause")
        running.do("stop", "-t", "0")
        assert running.wait() == 137
    finally:
        fragile.within(f"rm {fragile.state}/filler")
    running.do("rm")
    assert engines.gone(fragile.leftovers) == []
    assert fragile.run("", "echo", "hi") == "hi"


def killed_in(docker, verb, moment, *command):
    """Run a command of Docker, and kill the runtime some seconds after it has begun a verb."""
    docker.kill_at(verb, moment)
    docker(*command)
    assert not os.path.exists(docker.path("plan")), f"no {verb} was called"


only_ocirts_delete = only_ocirt("runc's delete knows nothing of what it made before its state file")


@only_ocirts_delete
@pytest.mark.parametrize(
    ("verb", "moments"),
    [
        ("create", (0.01, 0.03, 0.05, 0.08, 0.12)),
        ("start", (0.001, 0.003)),
        ("delete", (0.001, 0.003)),
    ],
)
def test_the_runtime_is_killed_in_the_middle(fragile, verb, moments):
    """Whatever is left half done, `docker rm -f` removes it, and Docker works on."""
    for moment in moments:
        run = fragile.command("--runtime killer -d", ("sleep", "1000"))
        if verb == "delete":
            container = fragile.ok(*run)
            killed_in(fragile, verb, moment, "stop", "-t", "0", container)
        else:
            killed_in(fragile, verb, moment, *run)
        fragile.sweep()
        if verb != "create":  # Docker forgets what it could not start or delete, with any runtime
            for shim in fragile.shims():
                os.kill(shim, signal.SIGKILL)
                engines.ended(shim)
        assert engines.gone(fragile.leftovers) == [], f"killed after {moment} s"
    assert fragile.run("", "echo", "hi") == "hi"


@needs_verb("exec")
def test_exec_is_killed_in_the_middle(fragile):
    container = fragile.detached("--runtime killer", "sleep", "1000")
    for moment in (0.02, 0.04, 0.06, 0.1):
        killed_in(fragile, "exec", moment, "exec", container.id, "sleep", "0")
        assert container.exec("echo", "works on") == "works on"
    assert eventually(lambda: len(container.do("top").splitlines()) == 2), container.do("top")


# --- Docker's own user namespace


class Remapped(engines.Docker):
    """A dockerd whose containers are root only by name."""

    FIRST = 200000

    def __init__(self, folder, runtime):
        super().__init__(folder, runtime, kind="remapped", **{"userns-remap": "remapped"})

    def start(self):
        # All of /etc: whoever replaces one file of the machine's takes a mount on it away.
        etc = shutil.copytree("/etc", self.path("etc"), symlinks=True)
        for name, line in (
            ("passwd", "remapped:x:4242:4242::/:/bin/false"),
            ("group", "remapped:x:4242:"),
            ("subuid", f"remapped:{self.FIRST}:65536"),
            ("subgid", f"remapped:{self.FIRST}:65536"),
        ):
            with open(f"{etc}/{name}", "a") as file:
                file.write(line + "\n")
        assert engines.call(self.world.enter("mount", "--bind", etc, "/etc")).code == 0
        super().start()


@pytest.fixture(scope="session")
def remapped_daemon(base):
    with engines.serving(Remapped(os.path.join(base, "remapped"), RUNTIME)) as docker:
        yield docker


remapped = engines.lent("remapped_daemon")


def test_root_of_a_remapped_container_is_nobody_outside(remapped):
    first = Remapped.FIRST
    options = "-v ocirt-remapped:/data --tmpfs /tmp --memory 64m"
    script = "id -u; cat /proc/self/uid_map; touch /data/file; mknod /x c 1 3 2>&1; sleep 100"
    container = remapped.detached(options, "sh", "-c", script)
    try:
        assert eventually(lambda: len(container.logs.splitlines()) == 3)
        user, line, denied = container.logs.splitlines()
        assert user == "0"
        assert line.split() == ["0", str(first), "65536"]
        assert "Operation not permitted" in denied
        assert os.stat(f"/proc/{container.pid}/root/data/file").st_uid == first
        with open(f"/proc/{container.pid}/status") as file:
            assert status(file.read(), "Uid") == str(first)
        if "exec" in VERBS:
            assert container.exec("id", "-u") == "0"
            assert container.exec("id", "-u", options=["-u", "alice"]) == "1000"
            assert container.exec("cat", "/proc/self/uid_map").split()[1] == str(first)
        container.do("pause")
        container.do("unpause")
    finally:
        remapped.sweep()
        remapped("volume", "rm", "ocirt-remapped")


def test_a_remapped_container_on_the_bridge_and_one_that_is_not_remapped(remapped):
    names = remapped.run("--network bridge", "ls", "/sys/class/net").split()
    assert names == ["eth0", "lo"]
    line = remapped.run("--userns=host", "cat", "/proc/self/uid_map")
    assert line.split() == ["0", "0", "4294967295"]
