"""Kubernetes drives the runtime: pods of containerd's CRI plugin, as a kubelet asks for them.

The runtime handler `hpc` is what `ocirt setup containerd` wrote.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal

import pytest

from tests.integration import engines
from tests.integration.conftest import RUNTIME
from tests.integration.support import (
    UNIFIED,
    eventually,
)

kube = pytest.importorskip("tests.integration.cri", exc_type=ImportError)

MISSING = engines.missing("containerd", "ctr", "containerd-shim-runc-v2", "nsenter")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]
needs_cni = pytest.mark.skipif(
    not os.path.exists(f"{kube.CNI}/bridge"), reason="needs containernetworking-plugins"
)

UNCONFINED = {"profile_type": kube.A.SecurityProfile.Unconfined}
TRAPS = """
trap 'echo term; exit 5' TERM; trap 'echo usr1' USR1
echo up; while :; do usleep 9999; done"""


@pytest.fixture(scope="session")
def daemon(base):
    with engines.serving(kube.Cri(os.path.join(base, "cri"), RUNTIME)) as cri:
        cri.keep(cri.pod())
        yield cri


cri = engines.lent("daemon")


@pytest.fixture
def pod(cri):
    """A pod in the network of the host, which all tests share."""
    return cri.kept


def status(text, field):
    """Return a field of /proc/PID/status."""
    return next(line.split()[1] for line in text.splitlines() if line.startswith(field + ":"))


def refused(words):
    return pytest.raises(kube.grpc.RpcError, match=words)


# --- the program: output, status, streams


def test_run_prints_what_the_program_prints(pod):
    assert pod.run("echo", "hi") == "hi"


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_is_the_programs(pod, code):
    container = pod.container("sh", "-c", f"exit {code}")
    assert container.wait() == code
    assert container.status.reason == ("Error" if code else "Completed")


def test_stdout_and_stderr_stay_apart(pod):
    container = pod.container("sh", "-c", "echo out; echo err >&2; printf rest")
    container.wait()
    assert container.streams() == {"stdout": "out\nrest", "stderr": "err\n"}


def test_logs(pod):
    container = pod.container("sh", "-c", "echo one; echo two; sleep 100")
    assert container.says("two")
    assert container.logs.split() == ["one", "two"]


def test_environment_and_home(pod):
    text = pod.sh("echo $GREETING $PATH $HOME", envs=[{"key": "GREETING", "value": "hello"}])
    assert text == "hello /bin /root"


def test_a_missing_working_directory_is_made(pod):
    assert pod.sh("pwd; stat -c %u:%a .", working_dir="/x/y") == "/x/y\n0:755"


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        ("nosuch", r'exec: "nosuch": executable file not found in \$PATH'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_start_is_named(cri, pod, program, text):
    container = pod.create(program)
    with refused(text):
        container.start()
    assert container.status.state == kube.A.CONTAINER_EXITED
    assert container.status.reason == "StartError"
    assert program in container.status.message
    assert engines.gone(cri.leftovers) == []


def test_any_other_failure_to_create_is_told(cri):
    with refused("no_such_thing"):
        cri.pod(sysctls={"kernel.no_such_thing": "1"}, network=kube.NODE)
    assert engines.gone(cri.leftovers) == []


def test_a_handler_that_nobody_configured(cri):
    with refused('no runtime for "nosuch" is configured'):
        cri.pod(handler="nosuch")


# --- exec


def test_exec_runs_another_program(pod):
    container = pod.container("sleep", "1000", envs=[{"key": "A", "value": "1"}])
    assert container.try_exec("sh", "-c", "echo $A; echo err >&2; exit 6") == (6, "1\n", "err\n")
    with refused("nosuch.*executable file not found"):
        container.try_exec("nosuch")
    with refused("permission denied"):
        container.try_exec("/etc/passwd")


def test_an_exec_with_its_streams_open(pod):
    container = pod.container("sleep", "1000")
    assert container.stream("head", "-n", "1", typed="typed\n") == (0, "typed\n")
    code, text = container.stream("sh", "-c", "read x; tty; exit 3", typed="typed\n", tty=True)
    assert (code, text.split()) == (3, ["typed", "/dev/pts/0"])


def test_an_exec_ends_when_its_time_is_up(pod):
    container = pod.container("sleep", "1000")
    with refused("timeout 1s exceeded"):
        container.try_exec("sleep", "4711", timeout=1)
    assert eventually(lambda: "4711" not in container.exec("ps"))


def test_probes_one_after_the_other(pod):
    container = pod.container("sh", "-c", "mkdir -p /tmp/ok; exec sleep 1000")
    for _ in range(20):
        assert container.exec("stat", "-c", "%F", "/tmp/ok") == "directory"
    # What a probe leaves behind would add up.
    assert len(container.exec("ps", "-o", "pid").split()) == 3
    container.exec("rm", "-r", "/tmp/ok")
    assert container.try_exec("stat", "/tmp/ok")[0] == 1


def test_a_container_is_removed_while_an_exec_runs(pod):
    container = pod.container("sleep", "1000")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(container.try_exec, "sleep", "4711", timeout=60)
        assert eventually(lambda: "4711" in container.exec("ps"))
        container.stop(0)
        container.remove()
        assert running.result()[0] == 137


# --- the life of a container


def test_stop_asks_first(pod):
    container = pod.container("sh", "-c", TRAPS)
    assert container.says("up")
    container.stop(10)
    assert container.status.exit_code == 5
    assert container.logs.split() == ["up", "term"]


def test_stop_kills_when_the_time_is_up(pod):
    container = pod.container("sh", "-c", "trap '' TERM; echo up; sleep 100")
    assert container.says("up")
    container.stop(1)
    assert container.status.exit_code == 137


def test_kill_sends_the_signal_that_was_asked_for(cri, pod):
    container = pod.container("sh", "-c", TRAPS)
    assert container.says("up")
    assert cri("tasks", "kill", "-s", "USR1", container.id).code == 0
    assert container.says("usr1")
    assert cri("tasks", "kill", "-s", "KILL", container.id).code == 0
    assert container.wait() == 137


def test_a_running_container_is_removed_by_force(pod):
    container = pod.container("sleep", "1000")
    pid = container.pid
    container.remove()
    assert not os.path.exists(f"/proc/{pid}")


def test_the_end_of_a_pod_takes_its_containers_along(cri):
    pod = cri.pod()
    containers = [pod.container("sleep", "1000") for _ in range(2)]
    pod.stop()
    assert [container.wait() for container in containers] == [137, 137]
    assert pod.status.state == kube.A.SANDBOX_NOTREADY
    pod.remove()
    assert engines.gone(cri.leftovers) == []


def test_a_sandbox_that_dies_is_told(cri):
    pod = cri.pod()
    pid = json.loads(cri.call("PodSandboxStatus", pod_sandbox_id=pod.id, verbose=True).info["info"])
    os.kill(pid["pid"], signal.SIGKILL)
    assert eventually(lambda: pod.status.state == kube.A.SANDBOX_NOTREADY)


def test_the_engine_restarts_under_running_containers(cri, pod):
    container = pod.container("sh", "-c", TRAPS)
    gone = pod.container("sh", "-c", "usleep 300000; exit 7")
    assert container.says("up")
    pid = container.pid
    cri.crash()
    assert container.pid == pid
    assert container.exec("echo", "there") == "there"
    assert gone.wait() == 7
    container.stop(10)
    assert container.status.exit_code == 5
    assert pod.run("echo", "anew") == "anew"


def test_twenty_at_once_leave_nothing(cri):
    def one(number):
        pod = cri.pod()
        container = pod.container("sh", "-c", f"echo {number}; exit {number}")
        assert container.wait() == number
        assert container.logs == f"{number}\n"
        pod.stop()
        pod.remove()

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(one, range(20)))
    assert engines.gone(cri.leftovers) == []


# --- limits

LIMITS = [
    ("memory_limit_in_bytes", 64 << 20, "memory/memory.limit_in_bytes", "memory.max", "67108864"),
    ("cpu_quota", 50000, "cpu/cpu.cfs_quota_us", "cpu.max", "50000"),
    ("cpu_shares", 512, "cpu/cpu.shares", "cpu.weight", "512"),
    ("cpuset_cpus", "0", "cpuset/cpuset.cpus", "cpuset.cpus", "0"),
]


def limit(container, v1, v2):
    """Read a file of the container's cgroup through its own mount."""
    return container.exec("cat", f"/sys/fs/cgroup/{v2 if UNIFIED else v1}").split()[0]


@pytest.mark.parametrize(("field", "wanted", "v1", "v2", "value"), LIMITS)
def test_limits_stand_in_the_containers_cgroup(pod, field, wanted, v1, v2, value):
    container = pod.container("sleep", "1000", resources={field: wanted, "cpu_period": 100000})
    found = limit(container, v1, v2)
    assert int(found) < 100 if UNIFIED and "shares" in field else found == value


def test_update_changes_limits(pod):
    resources = {"memory_limit_in_bytes": 64 << 20, "cpu_quota": 50000, "cpu_period": 100000}
    container = pod.container("sleep", "1000", resources=resources)
    wanted = {"memory_limit_in_bytes": 128 << 20, "cpu_quota": 20000, "cpuset_cpus": "0"}
    container.call("UpdateContainerResources", linux=wanted)
    assert limit(container, "memory/memory.limit_in_bytes", "memory.max") == str(128 << 20)
    assert limit(container, "cpu/cpu.cfs_quota_us", "cpu.max") == "20000"
    assert container.exec("nproc") == "1"


def test_running_out_of_memory_is_reported(pod):
    container = pod.container(
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=64M",
        resources={"memory_limit_in_bytes": 16 << 20},
    )
    assert container.wait() == 137
    assert eventually(lambda: container.status.reason == "OOMKilled"), container.status


def test_running_out_of_memory_in_an_exec_spares_the_container(pod):
    container = pod.container("sleep", "1000", resources={"memory_limit_in_bytes": 16 << 20})
    code, _, _ = container.try_exec("dd", "if=/dev/zero", "of=/dev/null", "bs=64M")
    assert code == 137
    assert container.running


def test_stats_count_memory_and_processor(pod):
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000"
    container = pod.container("sh", "-c", script)
    assert container.says("done")
    stats = container.call("ContainerStats").stats
    assert stats.cpu.usage_core_nano_seconds.value > 10**6
    assert 0 < stats.memory.working_set_bytes.value < 64 << 20


def test_the_oom_score_can_be_raised(pod):
    assert pod.run("cat", "/proc/self/oom_score_adj", resources={"oom_score_adj": 900}) == "900"


# --- files


def test_a_read_only_root(pod):
    container = pod.container("touch", "/x", security={"readonly_rootfs": True})
    assert container.wait() == 1
    assert "Read-only file system" in container.logs


def test_a_volume_is_shared_with_the_host(pod, workdir):
    folder = os.path.join(workdir, "volume")
    os.mkdir(folder)
    mount = {"container_path": "/mnt", "host_path": folder}
    pod.sh("echo from inside > /mnt/file", mounts=[mount])
    with open(os.path.join(folder, "file")) as file:
        assert file.read() == "from inside\n"
    container = pod.container("touch", "/mnt/other", mounts=[{**mount, "readonly": True}])
    assert container.wait() == 1
    assert "Read-only file system" in container.logs


@pytest.mark.parametrize(
    ("propagation", "in_reaches", "out_reaches"),
    [("PRIVATE", False, False), ("HOST_TO_CONTAINER", True, False), ("BIDIRECTIONAL", True, True)],
)
def test_mounts_made_later_propagate(cri, pod, workdir, propagation, in_reaches, out_reaches):
    folder = os.path.join(workdir, "volume")
    for name in ("host", "container"):
        os.makedirs(os.path.join(folder, name))
    mount = {
        "container_path": "/mnt",
        "host_path": folder,
        "propagation": getattr(kube.A, f"PROPAGATION_{propagation}"),
    }
    security = {"capabilities": {"add_capabilities": ["SYS_ADMIN"]}, "seccomp": UNCONFINED}
    container = pod.container("sleep", "1000", mounts=[mount], security=security)
    place = os.path.join(folder, "host")
    host = cri.world.enter("mount", "-t", "tmpfs", "none", place)
    assert engines.call(host).code == 0
    try:
        assert ("/mnt/host" in container.exec("cat", "/proc/mounts")) == in_reaches
        container.exec("mount", "-t", "tmpfs", "none", "/mnt/container")
        assert (os.path.join(folder, "container") in cri.world.mounts()) == out_reaches
        container.exec("umount", "/mnt/container")
    finally:
        engines.call(cri.world.enter("umount", "-l", place))


def test_masked_and_read_only_paths(pod):
    security = {"masked_paths": ["/proc/keys"], "readonly_paths": ["/proc/sys"]}
    script = """
        cat /proc/keys | wc -c
        echo 1 2> /dev/null > /proc/sys/kernel/domainname || echo refused"""
    assert pod.sh(script, security=security).split() == ["0", "refused"]


# --- devices


def test_a_device_is_there_and_opens(pod):
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    device = {"container_path": "/dev/fuse", "host_path": "/dev/fuse", "permissions": "rwm"}
    script = "stat -c %t:%T /dev/fuse; exec 3<> /dev/fuse; echo ok"
    assert pod.sh(script, devices=[device]) == "a:e5\nok"


def test_a_device_that_was_not_given_does_not_open(pod):
    security = {"capabilities": {"add_capabilities": ["MKNOD"]}}
    container = pod.container("sh", "-c", "mknod /fuse c 10 229 && cat < /fuse", security=security)
    assert container.wait() == 1
    assert "Operation not permitted" in container.logs


# --- who the program is, and what it may


def test_user_by_number_and_by_name(pod):
    security = {"run_as_user": {"value": 12345}, "run_as_group": {"value": 23456}}
    assert pod.run("id", security=security).split()[:2] == ["uid=12345", "gid=23456"]
    text = pod.run("id", security={"run_as_username": "alice", "supplemental_groups": [4242]})
    assert text.startswith("uid=1000(alice) gid=1000(alice)")
    assert "4242" in text
    assert "63(audio)" in text


def test_capabilities_dropped_and_added(pod):
    def effective(**capabilities):
        text = pod.run("cat", "/proc/self/status", security={"capabilities": capabilities})
        return int(status(text, "CapEff"), 16)

    assert effective(drop_capabilities=["ALL"]) == 0
    assert effective(drop_capabilities=["ALL"], add_capabilities=["SYS_PTRACE"]) == 1 << 19


def test_no_new_privileges(pod):
    text = pod.run("cat", "/proc/self/status", security={"no_new_privs": True})
    assert status(text, "NoNewPrivs") == "1"
    assert status(pod.run("cat", "/proc/self/status"), "NoNewPrivs") == "0"


def test_seccomp_by_default_and_unconfined(pod):
    default = {"seccomp": {"profile_type": kube.A.SecurityProfile.RuntimeDefault}}
    assert status(pod.run("cat", "/proc/self/status", security=default), "Seccomp") == "2"
    container = pod.container("unshare", "-U", "true", security=default)
    assert container.wait() == 1
    open_ = {"seccomp": UNCONFINED}
    assert status(pod.run("cat", "/proc/self/status", security=open_), "Seccomp") == "0"


def test_seccomp_profile_of_a_file(pod, workdir):
    profile = os.path.join(workdir, "seccomp.json")
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}
    with open(profile, "w") as file:
        json.dump({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, file)
    kind = kube.A.SecurityProfile.Localhost
    seccomp = {"profile_type": kind, "localhost_ref": profile}
    container = pod.container("mkdir", "/x", security={"seccomp": seccomp})
    assert container.wait() == 1
    assert "Disk quota exceeded" in container.logs


def test_privileged(cri):
    pod = cri.pod(security_context={"privileged": True})
    # A device of the host that nobody named, and a place that is read-only otherwise.
    script = "cat /proc/self/status; exec 3<> /dev/net/tun; exec 3> /proc/sys/kernel/domainname"
    text = pod.sh(script, security={"privileged": True})
    with open(f"/proc/{cri.daemon.pid}/status") as file:
        assert status(text, "CapEff") == status(file.read(), "CapEff")
    assert status(text, "Seccomp") == "0"


# --- namespaces


def test_each_container_has_its_own_pids(pod):
    container = pod.container("sleep", "1000")
    assert container.exec("cat", "/proc/1/cmdline") == "sleep\x001000\x00"


def test_a_container_joins_anothers_namespaces(pod):
    first = pod.container("sleep", "4711")
    options = {"pid": kube.A.TARGET, "target_id": first.id}
    second = pod.container("sleep", "1000", security={"namespace_options": options})
    assert "4711" in second.exec("cat", "/proc/1/cmdline")
    for kind in ("ipc", "net", "uts"):
        assert first.exec("readlink", f"/proc/self/ns/{kind}") == second.exec(
            "readlink", f"/proc/self/ns/{kind}"
        )


def test_containers_of_a_pod_may_share_its_pids(cri):
    pod = cri.pod(pid=kube.POD)
    security = {"namespace_options": {"pid": kube.POD}}
    first = pod.container("sleep", "4711", security=security)
    second = pod.container("sleep", "4712", security=security)
    text = second.exec("ps")
    assert "1000000" in text
    assert "4711" in text
    first.stop(0)
    assert second.running
    assert "4711" not in second.exec("ps")


def test_namespaces_of_the_host(cri):
    pod = cri.pod(pid=kube.NODE)
    container = pod.container("sleep", "1000", security={"namespace_options": {"pid": kube.NODE}})
    for kind in ("pid", "net"):
        assert container.exec("readlink", f"/proc/self/ns/{kind}") == os.readlink(
            f"/proc/{cri.daemon.pid}/ns/{kind}"
        )


def test_the_last_process_of_a_container_on_the_hosts_pids_takes_the_rest_along(cri):
    pod = cri.pod(pid=kube.NODE)
    container = pod.container(
        "sh", "-c", "sleep 4711 & echo $!", security={"namespace_options": {"pid": kube.NODE}}
    )
    container.wait()
    pid = int(container.logs)
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))


@needs_cni
def test_two_pods_meet_on_the_bridge(cri):
    first = cri.pod(network=kube.POD)
    address = first.status.network.ip
    one = first.container("sleep", "1000")
    assert address in one.exec("ip", "addr")
    second = cri.pod(network=kube.POD)
    text = second.sh(f"ls /sys/class/net; hostname; ping -c 1 -w 5 {address}")
    assert text.split()[:3] == ["eth0", "lo", second.config.hostname]
    assert "1 packets received" in text


@needs_cni
def test_sysctls(cri):
    wanted = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321"}
    pod = cri.pod(network=kube.POD, sysctls=wanted)
    text = pod.run("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax")
    assert text.split() == ["1", "4321"]


# --- what the runtime is asked

ROOT = "--root /run/containerd/runc/k8s.io --log BUNDLE/log.json --log-format json "


def asked(cri, task):
    """Return the calls for a task without what all have in front."""
    bundle = cri.path("state", "io.containerd.runtime.v2.task", "k8s.io", task)
    lines = cri.recorder.lines(task, ID=task, BUNDLE=bundle)
    assert {line.startswith(ROOT) for line in lines} == {True}, lines
    return [line.removeprefix(ROOT) for line in lines]


def test_annotations_reach_the_sandbox_and_the_containers(cri):
    pod = cri.pod(annotations={"ocirt.hpc/enabled": "false", "other": "1"})
    own = {"ocirt.hpc/gpus": "none"}
    container = pod.container("sleep", "1000", annotations=own)
    for spec in (pod.spec(), container.spec()):
        assert spec["annotations"]["ocirt.hpc/enabled"] == "false"
        assert "other" not in spec["annotations"]
    assert container.spec()["annotations"]["ocirt.hpc/gpus"] == "none"
    assert container.spec()["annotations"]["io.kubernetes.cri.container-type"] == "container"
    assert pod.spec()["annotations"]["io.kubernetes.cri.container-type"] == "sandbox"


def test_what_each_action_asks_of_the_runtime(cri):
    pod = cri.pod(handler="recorded")
    container = pod.create("sh", "-c", "trap '' TERM; while :; do usleep 9999; done")
    assert cri.recorder.calls(container.id) == []
    container.start()
    container.exec("true")
    container.call("ContainerStats")
    wanted = {"cpu_quota": 50000, "cpu_period": 100000, "memory_limit_in_bytes": 64 << 20}
    container.call("UpdateContainerResources", linux=wanted)
    container.stop(1)
    container.remove()
    pod.stop()
    pod.remove()
    create = ["create --bundle BUNDLE --pid-file BUNDLE/init.pid ID", "start ID"]
    delete = ["delete ID", "delete --force ID"]
    assert asked(cri, pod.id) == [*create, "kill ID 9", "kill --all ID 9", *delete]
    assert asked(cri, container.id) == [
        *create,
        "exec --process /tmp/runc-processN --detach --pid-file BUNDLE/HEX.pid ID",
        "update --resources - ID",
        *("kill ID 15", "kill ID 9", "kill --all ID 9"),
        *delete,
    ]
    update = next(call for call in cri.recorder.calls(container.id) if call.verb == "update")
    assert update.document["cpu"]["quota"] == 50000
    assert update.document["memory"]["limit"] == 64 << 20


def test_what_a_failing_create_asks_of_the_runtime(cri):
    pod = cri.pod(handler="recorded")
    container = pod.create("/nosuch")
    with refused("/nosuch"):
        container.start()
    assert cri.recorder.verbs(container.id) == ["create", "delete"]
    create, delete = cri.recorder.calls(container.id)
    assert create.code == 1
    assert delete.code == 0
