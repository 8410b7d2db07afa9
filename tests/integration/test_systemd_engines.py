"""Docker and Podman with systemd as their cgroup driver.  They need a systemd that is pid 1:

python3 conformance/vm.py --systemd -- python3 -m pytest tests/integration/test_systemd_engines.py
"""

from __future__ import annotations

import concurrent.futures
import os

import pytest

from tests.integration import engines, users
from tests.integration.support import eventually, find_runtime, needs_systemd, needs_v2
from tests.integration.test_podman_rootless import MISSING as NO_ROOTLESS
from tests.integration.test_podman_rootless import Rootless
from tests.integration.test_systemd import call, cgroup_of, read, show

RUNTIME = find_runtime()
PODMAN, DOCKER = "podman", "docker"
SCOPES = {PODMAN: "libpod-{}.scope", DOCKER: "docker-{}.scope"}
MISSING = {
    PODMAN: engines.missing("podman", "conmon", "nsenter"),
    DOCKER: engines.missing("dockerd", "docker", "containerd", "iptables", "nsenter"),
}
LIMITS = "--memory 64m --cpus 0.5 --pids-limit 30"
PROPERTIES = {  # of a scope, and what files say of the same limits
    "ActiveState": "active",
    "Delegate": "yes",
    "MemoryMax": str(64 << 20),
    "CPUQuotaPerSecUSec": "500ms",
    "TasksMax": "30",
}
FILES = {"memory.max": str(64 << 20), "cpu.max": "50000 100000", "pids.max": "30"}

pytestmark = [needs_systemd, needs_v2]


def make(kind, folder):
    if kind == PODMAN:
        return engines.Podman(folder, RUNTIME, manager="systemd")
    driver = ["native.cgroupdriver=systemd"]
    return engines.Docker(folder, RUNTIME, **{"exec-opts": driver, "cgroup-parent": "ocirt.slice"})


@pytest.fixture(scope="module", params=[PODMAN, DOCKER])
def served(request, base):
    kind = request.param
    if MISSING[kind]:
        pytest.skip(MISSING[kind])
    with engines.serving(make(kind, os.path.join(base, f"systemd-{kind}"))) as engine:
        yield engine


def units():
    listed = call("systemctl", "list-units", "--all", "--plain", "--no-legend", "*.scope")
    names = (line.split()[0] for line in listed.splitlines())
    return {name for name in names if name.startswith(("libpod-", "docker-"))}


@pytest.fixture
def engine(served):
    with engines.used(served):
        yield served
    # Those of conmon are Podman's own, and end when conmon does.
    assert eventually(lambda: not units()), units()


def scope(box):
    """Return the unit of a container."""
    return SCOPES[box.client.kind].format(box.id)


def test_a_container_is_a_scope_with_its_limits(engine):
    box = engine.detached(LIMITS, "sleep", "1000")
    assert cgroup_of(box.pid) == f"/ocirt.slice/{scope(box)}"
    assert show(scope(box), "Slice", *PROPERTIES) == {"Slice": "ocirt.slice", **PROPERTIES}
    assert {name: read(box.pid, name) for name in FILES} == FILES


def test_another_program_runs_in_the_scope(engine):
    box = engine.detached("", "sleep", "1000")
    box.exec("sleep", "999", options=("-d",))
    assert eventually(lambda: len(read(box.pid, "cgroup.procs").split()) == 2)


def test_new_limits_outlive_a_reload(engine):
    box = engine.detached("--memory 64m", "sleep", "1000")
    options = ("--memory", "96m", *(("--memory-swap", "96m") if engine.kind == DOCKER else ()))
    engine.ok("update", *options, box.id)
    call("systemctl", "daemon-reload")
    assert show(scope(box), "MemoryMax") == {"MemoryMax": str(96 << 20)}
    assert read(box.pid, "memory.max") == str(96 << 20)


def test_a_reload_takes_no_device_away_nor_does_a_restart(engine):
    opens = "head -c 1 /dev/given > /dev/null && echo opens"
    forbidden = "mknod /tmp/other c 10 229; : < /tmp/other"  # /dev/fuse
    box = engine.detached("--device /dev/zero:/dev/given --cap-add MKNOD", "sleep", "1000")

    def holds():
        assert box.exec("sh", "-c", opens) == "opens"
        denied = engine("exec", box.id, "sh", "-c", f"rm -f /tmp/other; {forbidden}")
        assert "not permitted" in denied.err, str(denied)

    holds()
    call("systemctl", "daemon-reload")
    holds()
    box.do("restart", "--time", "0")
    holds()
    call("systemctl", "daemon-reload")
    holds()
    assert cgroup_of(box.pid) == f"/ocirt.slice/{scope(box)}"


def test_pause_and_unpause(engine):
    box = engine.detached("", "sleep", "1000")
    box.do("pause")
    assert read(box.pid, "cgroup.freeze") == "1"
    box.do("unpause")
    assert read(box.pid, "cgroup.freeze") == "0"


def test_running_out_of_memory_ends_it(engine):
    limits = "--memory 16m --memory-swap 16m"
    box = engine.detached(limits, "sh", "-c", "head -c 100m /dev/zero | tail")
    assert box.wait() != 0
    if engine.kind == DOCKER:
        assert box.inspect("State.OOMKilled") is True


def test_a_container_that_cannot_start_leaves_no_unit(engine):
    assert engine.try_run("", "/no/such/program").code == 127
    assert eventually(lambda: not units()), units()


def test_many_at_once(engine):
    def life(number):
        return engine.run("--memory 32m", "echo", str(number))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(life, range(8))) == [str(number) for number in range(8)]


def test_members_of_a_pod_share_its_slice(engine):
    if engine.kind != PODMAN:
        pytest.skip("Docker has no pods")
    infra = ("--infra-image", engine.IMAGE, "--infra-command", "/bin/sleep 1000")
    pod = engine.ok("pod", "create", "--cgroup-parent=ocirt.slice", "--network=none", *infra)
    name = engine.ok("run", "-d", "--pod", pod, engine.IMAGE, "sleep", "1000")
    path = cgroup_of(engines.Container(engine, name).pid)
    assert path == f"/ocirt.slice/ocirt-libpod_pod_{pod}.slice/libpod-{name}.scope"


# --- Podman without root, and the systemd of its user


@pytest.fixture(scope="module")
def session(base):
    """A user with a systemd and a message bus of his own, as after a login."""
    if NO_ROOTLESS:
        pytest.skip(NO_ROOTLESS)
    if not os.path.exists("/run/systemd/system/user@.service"):
        pytest.skip("no user's systemd can be started: conformance/vm.py --systemd")
    folder = os.path.join(base, "systemd-user")
    os.mkdir(folder)
    with users.ordinary(folder) as user:
        unit = f"user@{user.uid}.service"
        call("systemctl", "start", unit)
        try:
            user.env["XDG_RUNTIME_DIR"] = user.runtime_dir = f"/run/user/{user.uid}"
            started = user.call("systemctl", "--user", "start", "dbus.socket")
            assert started.code == 0, str(started)
            user.env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={user.runtime_dir}/bus"
            yield user
        finally:
            call("systemctl", "stop", unit)


@pytest.fixture(scope="module")
def rootless(base, session):
    os.mkdir(os.path.join(base, "systemd-reach"))
    runtime = users.reachable(session, RUNTIME, os.path.join(base, "systemd-reach"))
    folder = os.path.join(base, "systemd-rootless")
    with engines.serving(Rootless(folder, runtime, session, manager="systemd")) as podman:
        yield podman


@pytest.fixture
def own(rootless):
    with engines.used(rootless):
        yield rootless


def session_cgroup(user):
    return f"/user.slice/user-{user.uid}.slice/user@{user.uid}.service/user.slice"


def test_a_users_container_is_a_scope_of_his_own_systemd(own):
    box = own.detached(f"--cgroups=enabled --network=none {LIMITS}", "sleep", "1000")
    assert cgroup_of(box.pid) == f"{session_cgroup(own.user)}/{scope(box)}"
    wanted = f"-p{','.join(PROPERTIES)}"
    shown = own.user.call("systemctl", "--user", "show", wanted, scope(box))
    assert dict(line.split("=", 1) for line in shown.out.splitlines()) == PROPERTIES
    assert {name: read(box.pid, name) for name in FILES} == FILES


def test_a_users_container_lives_through_every_verb(own):
    box = own.detached("--cgroups=enabled --network=none --memory 64m", "sleep", "1000")
    assert box.exec("echo", "inside") == "inside"
    box.exec("sleep", "999", options=("-d",))
    assert eventually(lambda: len(read(box.pid, "cgroup.procs").split()) == 2)
    own.ok("update", "--memory", "96m", box.id)
    own.user.call("systemctl", "--user", "daemon-reload")
    assert read(box.pid, "memory.max") == str(96 << 20)
    assert box.exec("sh", "-c", "echo > /dev/null; head -c 1 /dev/zero | wc -c") == "1"
    folder = f"/sys/fs/cgroup{cgroup_of(box.pid)}"
    box.do("stop", "--time", "0")
    box.do("rm")
    assert eventually(lambda: not os.path.exists(folder))
