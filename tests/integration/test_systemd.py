"""Containers whose cgroups systemd makes.  They need a systemd that is pid 1:

python3 conformance/vm.py --systemd -- python3 -m pytest tests/integration/test_systemd.py
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess

import pytest

from tests.integration import test_checkpoint as checkpoint
from tests.integration import test_hpc_site
from tests.integration.support import (
    PATIENCE,
    UNIFIED,
    Runtime,
    eventually,
    needs_systemd,
    only_ocirt,
)

pytestmark = needs_systemd

# What a site gives, and a kind of devices that it knows.
site, acme = test_hpc_site.site, test_hpc_site.acme

RULES = [
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"},
    {"allow": True, "type": "c", "major": 239, "access": "rwm"},
    {"allow": True, "type": "b", "major": 202, "minor": 3, "access": "r"},
]
# No driver answers to these numbers, so that opening them says ENXIO, unless it is forbidden.
NODES = {
    "allowed": ("c", 195, 0, errno.ENXIO),
    "other-minor": ("c", 195, 1, errno.EPERM),
    "whole-major": ("c", 239, 77, errno.ENXIO),
    "block": ("b", 202, 3, errno.ENXIO),
    "other-block": ("b", 202, 4, errno.EPERM),
}


def call(*argv):
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=PATIENCE, check=False
    ).stdout.strip()


def show(unit, *names):
    """Return properties of a unit, as `systemctl show` words them."""
    lines = call("systemctl", "show", *[f"--property={name}" for name in names], unit)
    return dict(line.split("=", 1) for line in lines.splitlines())


def units():
    text = call("systemctl", "list-units", "--all", "--plain", "--no-legend", "ocirt-t*")
    return {line.split()[0] for line in text.splitlines()}


def unit_of(bundle):
    return f"ocirt-{bundle.id}.scope"


def cgroup_of(pid):
    with open(f"/proc/{pid}/cgroup") as file:
        rows = [line.rstrip().split(":", 2) for line in file]
    return next(path for _, names, path in rows if names in ("", "name=systemd"))


def read(pid, file):
    with open(f"/sys/fs/cgroup{cgroup_of(pid)}/{file}") as opened:
        return opened.read().strip()


@pytest.fixture
def runtime(runtime, monkeypatch):
    """The runtime, told once that systemd makes the cgroups: later verbs have to remember."""
    before, plain = units(), runtime.argv

    def argv(*args):
        making = args[0] in ("create", "run", "restore")
        return plain(*(["--systemd-cgroup"] if making else []), *args)

    monkeypatch.setattr(runtime, "argv", argv)
    yield runtime
    runtime.close()
    assert eventually(lambda: units() <= before), units() - before


@pytest.fixture
def scoped(bundle):
    def build(*args, parent="system.slice", resources=None, **patch):
        made = bundle(*(args or ("sleep", "1000")), **patch)
        rules = (resources or {}).get("devices", [{"allow": False, "access": "rwm"}])
        made.patch(
            linux={
                "cgroupsPath": f"{parent}:ocirt:{made.id}",
                "resources": {**(resources or {}), "devices": rules},
            }
        )
        return made

    return build


def test_every_verb_knows_the_scope(runtime, scoped):
    box = scoped()
    pid = runtime.create(box)
    assert cgroup_of(pid) == f"/system.slice/{unit_of(box)}"
    assert show(unit_of(box), "ActiveState", "Slice", "Delegate", "DefaultDependencies") == {
        "ActiveState": "active",
        "Slice": "system.slice",
        "Delegate": "yes",
        "DefaultDependencies": "no",
    }
    runtime.start(box)
    assert runtime.ok("ps", "--format", "json", box.id).json() == [pid]
    runtime.ok("pause", box.id)
    assert runtime.status(box) == "paused"
    runtime.ok("resume", box.id)
    inside = runtime.ok("exec", box.id, "cat", "/proc/self/cgroup").out
    assert unit_of(box) in inside
    assert "stats" in runtime.ok("events", "--stats", box.id).out
    runtime.kill(box, "KILL")
    runtime.wait(box)
    runtime.delete(box)
    assert show(unit_of(box), "LoadState", "ActiveState")["ActiveState"] == "inactive"


@pytest.mark.skipif(not UNIFIED, reason="the properties of cgroup v2")
def test_limits_are_both_in_the_unit_and_in_the_files(runtime, scoped):
    resources = {
        "memory": {"limit": 64 << 20, "reservation": 16 << 20},
        "cpu": {"shares": 512, "quota": 12345, "period": 50000, "cpus": "0"},
        "pids": {"limit": 20},
        "unified": {"memory.high": "33554432"},
    }
    box = scoped(resources=resources)
    pid = runtime.create(box)
    names = (
        "MemoryMax", "MemoryLow", "MemoryHigh", "CPUWeight", "CPUQuotaPerSecUSec",
        "CPUQuotaPeriodUSec", "AllowedCPUs", "TasksMax", "MemoryAccounting", "CPUAccounting",
        "TasksAccounting", "IOAccounting",
    )  # fmt: skip
    found = show(unit_of(box), *names)
    weight = found.pop("CPUWeight")
    assert found == {
        "MemoryMax": str(64 << 20),
        "MemoryLow": str(16 << 20),
        "MemoryHigh": str(32 << 20),
        "CPUQuotaPerSecUSec": "250ms",
        "CPUQuotaPeriodUSec": "50ms",
        "AllowedCPUs": "0",
        "TasksMax": "20",
        "MemoryAccounting": "yes",
        "CPUAccounting": "yes",
        "TasksAccounting": "yes",
        "IOAccounting": "yes",
    }
    assert weight == read(pid, "cpu.weight")
    assert read(pid, "memory.max") == str(64 << 20)
    assert read(pid, "cpu.max") == "12345 50000"
    assert read(pid, "pids.max") == "20"
    assert read(pid, "memory.high") == str(32 << 20)
    runtime.delete(box, "--force")


@pytest.mark.skipif(not UNIFIED, reason="the files of cgroup v2")
def test_new_limits_outlive_a_reload_of_systemd(runtime, scoped):
    box = scoped(resources={"memory": {"limit": 64 << 20}})
    pid = runtime.started(box)
    runtime.ok("update", "--memory", "128m", "--pids-limit", "30", box.id)
    assert show(unit_of(box), "MemoryMax", "TasksMax") == {
        "MemoryMax": str(128 << 20),
        "TasksMax": "30",
    }
    call("systemctl", "daemon-reload")
    assert read(pid, "memory.max") == str(128 << 20)
    assert read(pid, "pids.max") == "30"
    runtime.delete(box, "--force")


@pytest.mark.skipif(not UNIFIED, reason="the files of cgroup v2")
def test_every_limit_outlives_a_reload_of_systemd(runtime, scoped):
    resources = {
        "memory": {"limit": 64 << 20, "reservation": 16 << 20, "swap": 80 << 20},
        # systemd counts whole percents of a CPU: another quota is rounded up by a reload.
        "cpu": {"shares": 512, "quota": 12500, "period": 50000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 20},
        "unified": {"memory.high": "33554432", "memory.min": "4096"},
    }
    box = scoped(resources=resources)
    pid = runtime.started(box)
    files = (
        "memory.max", "memory.low", "memory.swap.max", "memory.high", "memory.min", "cpu.max",
        "cpu.weight", "cpuset.cpus", "cpuset.mems", "pids.max",
    )  # fmt: skip
    before = {name: read(pid, name) for name in files}
    assert before["memory.swap.max"] == str(16 << 20)
    call("systemctl", "daemon-reload")
    assert {name: read(pid, name) for name in files} == before
    # And whatever makes systemd write its files again.
    call("systemctl", "set-property", "--runtime", unit_of(box), "TasksMax=21")
    assert {name: read(pid, name) for name in files} == {**before, "pids.max": "21"}
    runtime.delete(box, "--force")


# What no two units have in common, and what systemd counts.
MOMENTARY = frozenset(
    """Id Names InvocationID Description ControlGroup ControlGroupId MemoryCurrent MemoryAvailable
    TasksCurrent CPUUsageNSec EffectiveCPUs EffectiveMemoryNodes IOReadBytes IOReadOperations
    IOWriteBytes IOWriteOperations""".split()
)

LIKE_RUNC = {
    "nothing": {},
    "everything": {
        "memory": {"limit": 64 << 20, "reservation": 16 << 20, "swap": 96 << 20},
        "cpu": {"shares": 262144, "quota": 12345, "period": 50000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 20},
        "unified": {"memory.high": "33554432", "memory.min": "4096"},
    },
    "unlimited": {"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}},
    "no period": {"cpu": {"quota": 150000, "shares": 2}},
    "unified": {
        "unified": {"cpu.max": "max 50000", "pids.max": "max", "memory.swap.max": "0"},
    },
    "devices": {"devices": RULES},
    "all devices": {"devices": [{"allow": True, "access": "rwm"}]},
}


def shown(unit):
    """Return all properties of a unit; those that may come twice as a set."""
    found, allowed = {}, set()
    for line in call("systemctl", "show", "--all", unit).splitlines():
        name, _, value = line.partition("=")
        if name == "DeviceAllow":
            allowed.add(value)
        elif name not in MOMENTARY and "Timestamp" not in name:
            found[name] = value
    return found, allowed


@only_ocirt("it is compared with runc")
@pytest.mark.skipif(not UNIFIED or not shutil.which("runc"), reason="needs cgroup v2 and runc")
@pytest.mark.parametrize("name", LIKE_RUNC)
def test_a_unit_is_as_runc_makes_it(runtime, scoped, workdir, name):
    box = scoped(resources=LIKE_RUNC[name])
    runc = ["runc", "--root", os.path.join(workdir, "runc")]
    with open(box.out, "w") as out:
        subprocess.run(
            [*runc, "--systemd-cgroup", "create", "--bundle", box.path, box.id],
            stdout=out, stderr=out, check=True, timeout=PATIENCE,
        )  # fmt: skip
    theirs, their_devices = shown(unit_of(box))
    subprocess.run([*runc, "delete", "--force", box.id], check=True, timeout=PATIENCE)
    assert eventually(lambda: unit_of(box) not in units())
    runtime.create(box)
    ours, our_devices = shown(unit_of(box))
    runtime.delete(box, "--force")

    differ = {key for key in theirs | ours if theirs.get(key) != ours.get(key)}
    # runc sets each property twice; the second time makes files that systemd wants to read again.
    differ -= {"DropInPaths", "NeedDaemonReload"}
    if "quota" in LIKE_RUNC[name].get("cpu", {}) and "period" not in LIKE_RUNC[name]["cpu"]:
        assert ours["CPUQuotaPeriodUSec"] == "100ms"  # the kernel's own; runc leaves it unsaid
        differ -= {"CPUQuotaPeriodUSec"}
    assert not differ, {key: (theirs.get(key), ours.get(key)) for key in differ}
    # The same by its number, since /proc/devices has three names for some.
    pseudo_terminals = {"char-pts rwm": "char-136 rwm"}
    their_devices = {pseudo_terminals.get(row, row) for row in their_devices}
    assert their_devices <= our_devices
    # runc leaves out what has no node on the host, and a reload of systemd takes it away then.
    wanted = {"/dev/char/195:0 rw", "char-239 rwm", "/dev/block/202:3 r"}
    assert our_devices - their_devices <= (wanted if name == "devices" else set())


def opened(runtime, box):
    """Return what the container hears when it opens each of its nodes."""
    found = {}
    for name in NODES:
        result = runtime("exec", box.id, "sh", "-c", f"cat < /{name}")
        word = result.err.lower()
        found[name] = (
            errno.EPERM
            if "operation not permitted" in word
            else errno.ENXIO
            if "no such device or address" in word
            else word
        )
    return found


def test_a_reload_of_systemd_takes_no_device_away(runtime, scoped):
    box = scoped(resources={"devices": RULES})
    for name, (kind, major, minor, _) in NODES.items():
        mode = {"c": 0o020666, "b": 0o060666}[kind]
        os.mknod(box.inside(name), mode, os.makedev(major, minor))
    runtime.started(box)
    wanted = {name: number for name, (_, _, _, number) in NODES.items()}
    assert opened(runtime, box) == wanted
    call("systemctl", "daemon-reload")
    assert opened(runtime, box) == wanted
    # Whatever changes a property makes systemd attach its program again, too.
    runtime.ok("update", "--pids-limit", "50", box.id)
    call("systemctl", "daemon-reload")
    assert opened(runtime, box) == wanted
    assert (
        runtime("exec", box.id, "sh", "-c", "echo > /dev/null; cat /dev/zero | head -c 1").code == 0
    )
    runtime.delete(box, "--force")


@only_ocirt("other runtimes have no site of their own")
def test_a_reload_takes_no_device_of_the_stage_away(runtime, scoped, site, acme):
    box = test_hpc_site.asks_for_one(scoped())
    test_hpc_site.started(runtime, ("--systemd-cgroup", *site(acme)), box)
    assert test_hpc_site.opened(runtime, box) == test_hpc_site.OPENED
    for change in ((), ("update", "--pids-limit", "50", box.id)):
        if change:
            runtime.ok(*change)
        call("systemctl", "daemon-reload")
        assert test_hpc_site.opened(runtime, box) == test_hpc_site.OPENED
    runtime.delete(box, "--force")


@only_ocirt("runc's own threads are too many")
def test_a_limit_of_one_process(runtime, scoped):
    box = scoped(
        "sh", "-c", "echo alone; (true); echo not reached", resources={"pids": {"limit": 1}}
    )
    pid = runtime.create(box)
    assert show(unit_of(box), "TasksMax") == {"TasksMax": "1"}
    assert read(pid, "pids.max") == "1"
    runtime.start(box)
    runtime.wait(box)
    assert box.output().startswith("alone")
    assert "not reached" not in box.output()
    runtime.delete(box)


def test_annotations_set_properties(runtime, scoped):
    box = scoped(
        annotations={
            "org.systemd.property.TimeoutStopUSec": "uint64 123000000",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
        }
    )
    runtime.create(box)
    assert show(unit_of(box), "TimeoutStopUSec", "CollectMode") == {
        "TimeoutStopUSec": "2min 3s",
        "CollectMode": "inactive-or-failed",
    }
    runtime.delete(box, "--force")


def test_a_slice_in_a_slice(runtime, scoped):
    box = scoped(parent="ocirt-test.slice")
    pid = runtime.create(box)
    assert cgroup_of(pid) == f"/ocirt.slice/ocirt-test.slice/{unit_of(box)}"
    runtime.delete(box, "--force")
    call("systemctl", "stop", "ocirt.slice")


def test_without_a_path_the_scope_is_named_after_the_container(runtime, scoped):
    box = scoped()
    box.patch(linux={"cgroupsPath": ""})
    pid = runtime.create(box)
    assert cgroup_of(pid) == f"/system.slice/{runtime.flavour}-{box.id}.scope"
    runtime.delete(box, "--force")


@pytest.mark.parametrize("path", ["/a/b", "a:b"])
def test_a_path_of_another_form(runtime, scoped, path):
    box = scoped()
    box.patch(linux={"cgroupsPath": path})
    runtime.refuses_to_create(
        box, saying='expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups'
    )


def test_a_property_that_there_is_not(runtime, scoped):
    box = scoped(annotations={"org.systemd.property.NoSuchThing": "true"})
    runtime.refuses_to_create(box, saying="NoSuchThing")
    assert unit_of(box) not in units()


def test_a_unit_of_that_name_is_left_alone(runtime, scoped):
    box = scoped()
    run = ["systemd-run", "--scope", "--property=DefaultDependencies=no", f"--unit={unit_of(box)}"]
    with subprocess.Popen([*run, "sleep", "1000"], stderr=subprocess.DEVNULL) as other:
        try:
            assert eventually(lambda: show(unit_of(box), "ActiveState")["ActiveState"] == "active")
            runtime.host.known.add(other.pid)
            runtime.refuses_to_create(box, saying="already")
            assert other.poll() is None
            assert show(unit_of(box), "ActiveState")["ActiveState"] == "active"
        finally:
            other.kill()


@pytest.mark.skipif(not UNIFIED, reason="on v1 systemd does not see it")
def test_the_name_of_a_unit_that_failed_can_be_taken(runtime, scoped):
    box = scoped()
    script = "head -c 100m /dev/zero | tail"
    run = ["systemd-run", "--scope", "--property=DefaultDependencies=no", f"--unit={unit_of(box)}"]
    limits = ["--property=MemoryMax=8M", "--property=MemorySwapMax=0"]
    subprocess.run([*run, *limits, "sh", "-c", script], capture_output=True, check=False)
    if not eventually(lambda: show(unit_of(box), "ActiveState")["ActiveState"] == "failed", 5):
        pytest.skip("this systemd does not let a scope fail when memory runs out")
    runtime.create(box)
    runtime.delete(box, "--force")


def test_a_container_that_fails_leaves_no_unit(runtime, scoped):
    box = scoped("/no/such/program")
    runtime.refuses_to_create(box, saying="no such file or directory")
    assert unit_of(box) not in units()


def test_a_scope_that_ended_by_itself_is_deleted(runtime, scoped):
    box = scoped("true")
    runtime.started(box)
    runtime.wait(box)
    assert eventually(lambda: unit_of(box) not in units())
    runtime.delete(box)


def test_all_processes_of_a_shared_pid_namespace_end(runtime, scoped):
    box = scoped("sh", "-c", "sleep 1000 & exec sleep 1000")
    box.config["linux"]["namespaces"] = [
        each for each in box.config["linux"]["namespaces"] if each["type"] != "pid"
    ]
    box.save()
    runtime.started(box)
    assert eventually(lambda: len(runtime.ok("ps", "--format", "json", box.id).json()) == 2)
    runtime.delete(box, "--force")


@pytest.mark.skipif(checkpoint.CRIU is None, reason=str(checkpoint.REASON))
def test_what_was_saved_comes_back_in_a_scope(runtime, scoped, workdir, monkeypatch):
    os.symlink(checkpoint.CRIU, os.path.join(workdir, "criu"))
    monkeypatch.setenv("PATH", f"{workdir}:{os.environ['PATH']}")
    box = scoped("sh", "-c", checkpoint.COUNT, resources={"pids": {"limit": 40}})
    with contextlib.closing(checkpoint.Life(runtime, box)) as life:
        life.start()
        life.checkpoint()
        assert eventually(lambda: unit_of(box) not in units())
        pid = life.restore()
        assert cgroup_of(pid) == f"/system.slice/{unit_of(box)}"
        assert show(unit_of(box), "ActiveState", "TasksMax") == {
            "ActiveState": "active",
            "TasksMax": "40",
        }
        assert read(pid, "pids.max") == "40"
        life.counts_on()
        runtime.delete(box, "--force")


@only_ocirt("crun has the option, runc does not")
def test_the_option_of_crun(runtime, scoped, monkeypatch):
    def argv(*args):
        making = ("--cgroup-manager", "systemd") if args[0] == "create" else ()
        return Runtime.argv(runtime, *making, *args)

    monkeypatch.setattr(runtime, "argv", argv)
    box = scoped()
    runtime.create(box)
    assert unit_of(box) in units()
    runtime.delete(box, "--force")


# --- a user's own systemd: conformance/vm.py --systemd --user UID


@pytest.fixture
def user():
    uid = os.environ.get("OCIRT_TEST_USER")
    if not uid:
        pytest.skip("no user has a systemd of his own: conformance/vm.py --systemd --user 1234")
    if not UNIFIED:
        pytest.skip("a user's systemd makes no cgroups on v1")
    return int(uid)


class Own:
    """A container of a user whose own systemd makes its scope, and the runtime in his hands."""

    def __init__(self, user, box, runtime, state):
        self.user, self.box, self.runtime, self.state = user, box, runtime, state

    def __call__(self, *args, **popen):
        ids = [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        env = {"XDG_RUNTIME_DIR": f"/run/user/{self.user}", "PATH": os.environ["PATH"]}
        popen.setdefault("capture_output", "stdout" not in popen)
        return subprocess.run(
            ["setpriv", *ids, *args], env=env, timeout=PATIENCE, text=True, check=False, **popen
        )

    def ocirt(self, *args, **popen):
        return self(self.runtime, "--root", self.state, *args, **popen)

    def run(self):
        """Run the container detached; return its pid."""
        with open(os.path.join(self.state, "out"), "w+") as out:
            made = self.ocirt(
                "--systemd-cgroup", "run", "-d", "--pid-file", f"{self.state}/pid",
                "-b", self.box.path, self.box.id, stdout=out, stderr=out,
            )  # fmt: skip
            out.seek(0)
            assert made.returncode == 0, out.read()
        with open(f"{self.state}/pid") as file:
            return int(file.read())


@pytest.fixture
def own(user, runtime, scoped, public_runtime, workdir):
    def build(**linux):
        box = scoped("sleep", "1000", parent="user.slice", resources={"pids": {"limit": 15}})
        box.config["process"]["capabilities"] = {}
        box.config["mounts"] = [
            mount for mount in box.config["mounts"] if mount["destination"] == "/proc"
        ]
        ids = [{"containerID": 0, "hostID": user, "size": 1}]
        box.config["linux"].update(uidMappings=ids, gidMappings=ids, **linux)
        box.config["linux"]["namespaces"].append({"type": "user"})
        box.save()
        state = os.path.join(workdir, "user-state")
        os.mkdir(state)
        # The root file system whole: the default devices are made in its /dev.
        for top, _, _ in [*os.walk(box.path), (state, (), ())]:
            os.chown(top, user, user)
        return Own(user, box, public_runtime, state)

    return build


@only_ocirt("the test maps one id alone")
def test_a_user_has_scopes_of_his_own(user, own):
    own = own()
    box, pid = own.box, own.run()
    base = f"/user.slice/user-{user}.slice/user@{user}.service/user.slice"
    assert cgroup_of(pid) == f"{base}/{unit_of(box)}"
    assert read(pid, "pids.max") == "15"
    run = own.ocirt("exec", box.id, "cat", "/proc/self/cgroup")
    assert unit_of(box) in run.stdout, run.stderr
    changed = own.ocirt("update", "--pids-limit", "17", box.id)
    assert changed.returncode == 0, changed.stderr
    assert read(pid, "pids.max") == "17"
    gone = own.ocirt("delete", "--force", box.id)
    assert gone.returncode == 0, gone.stderr
    assert not os.path.exists(f"/sys/fs/cgroup{base}/{unit_of(box)}")


@only_ocirt("the test maps one id alone")
def test_no_reload_takes_a_device_of_a_user_away(own):
    """Of either systemd: that of the machine, and the user's own."""
    if not os.access("/dev/fuse", os.R_OK):
        pytest.skip("no /dev/fuse to hand over")
    fuse = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    own = own(devices=[fuse])
    own.run()
    opens = "exec 3<> /dev/fuse && echo > /dev/null && echo opens"
    for change in ((), ("systemctl", "daemon-reload"), ("systemctl", "--user", "daemon-reload")):
        if change:
            done = own(*change) if "--user" in change else subprocess.run(change, check=False)
            assert done.returncode == 0, done.stderr
        result = own.ocirt("exec", own.box.id, "sh", "-c", opens)
        assert result.stdout == "opens\n", f"{change}: {result.stderr}"
    changed = own.ocirt("update", "--pids-limit", "17", own.box.id)
    assert changed.returncode == 0, changed.stderr
    assert own.ocirt("exec", own.box.id, "sh", "-c", opens).stdout == "opens\n"
    gone = own.ocirt("delete", "--force", own.box.id)
    assert gone.returncode == 0, gone.stderr
