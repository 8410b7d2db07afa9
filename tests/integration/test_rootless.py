"""Containers of a user who is not root, from bundles by hand: no engine and no daemon between.

With the one id that needs no helper (`single`), and with subordinate ids by newuidmap (`full`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess

import pytest

from tests.integration import engines, users
from tests.integration.support import (
    CONTROLLERS,
    DROP,
    UNIFIED,
    Runtime,
    eventually,
    find_runtime,
    namespaces,
    needs_controllers,
    needs_v2,
    only_ocirt,
)

RUNTIME = find_runtime()
NEWUIDMAP = engines.missing("newuidmap", "newgidmap")
KEEP = "run.oci.keep_original_groups"

pytestmark = pytest.mark.skipif(users.MISSING is not None, reason=str(users.MISSING))


class AsUser(Runtime):
    """The runtime in the hands of an ordinary user; `globals` go before the verb."""

    def __init__(self, path, flavour, workdir, host, user):
        super().__init__(path, flavour, workdir, host)
        self.user = user
        self.globals = ()

    def argv(self, *args):
        _, *words = super().argv()
        return self.user.argv("env", "-i", *self.env(), self.path, *words, *self.globals, *args)

    def env(self):
        return [f"{name}={value}" for name, value in self.user.env.items()]

    def bare(self, *args, **env):
        """Call it without --root and --log."""
        return engines.call(self.user.argv(self.path, *args), env={**self.user.env, **env}, cwd="/")


@pytest.fixture(scope="session")
def user(base):
    folder = os.path.join(base, "user")
    os.mkdir(folder)
    with users.ordinary(folder) as user:
        yield user


@pytest.fixture(scope="session")
def path(base, user):
    folder = os.path.join(base, "reach-hand")
    os.mkdir(folder)
    return users.reachable(user, RUNTIME, folder)


@pytest.fixture
def runtime(host, workdir, user, path):
    user.own(workdir)
    user.groups = ()
    runtime = AsUser(path, engines.flavour(path), workdir, host, user)
    yield runtime
    runtime.close()


def single(user):
    return (
        [{"containerID": 0, "hostID": user.uid, "size": 1}],
        [{"containerID": 0, "hostID": user.gid, "size": 1}],
    )


def full(user):
    return tuple(
        [*own, {"containerID": 1, "hostID": user.subordinate(kind), "size": users.RANGE}]
        for own, kind in zip(single(user), ("uid", "gid"), strict=True)
    )


@pytest.fixture
def rootless(bundle, user):
    """Make bundles of the user: `rootless("id", maps=full)`."""

    def make(*args, maps=single, spaces=("user",), **patch):
        made = bundle(*args)
        uids, gids = maps(user)
        mounts = [
            {**mount, "options": [one for one in mount.get("options", []) if one != "gid=5"]}
            for mount in made.config["mounts"]
        ]
        linux = {
            "cgroupsPath": DROP,
            "resources": DROP,
            "namespaces": namespaces("pid", "network", "ipc", "uts", "mount", *spaces),
            "uidMappings": uids,
            "gidMappings": gids,
        }
        made.patch(mounts=mounts, linux=linux)
        made.patch(**patch)
        user.own(made.path)
        return made

    return make


both = pytest.mark.parametrize(
    "maps",
    [
        single,
        pytest.param(full, marks=pytest.mark.skipif(NEWUIDMAP is not None, reason=str(NEWUIDMAP))),
    ],
)


def sh(script):
    return ("sh", "-c", script)


# --- the verbs


@both
def test_run(runtime, rootless, maps):
    script = "id -u; cat /proc/self/uid_map; echo x > /made"
    lines = runtime.prints(rootless(*sh(script), maps=maps)).split("\n")
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(runtime.user.uid), "1"]
    assert len(lines) == len(maps(runtime.user)[0]) + 1
    assert runtime.run(rootless(*sh("exit 7"), maps=maps)).code == 7


@both
def test_every_verb_of_a_life(runtime, rootless, maps):
    made = rootless("sleep", "1000", maps=maps)
    pid = runtime.create(made)
    assert runtime.status(made) == "created"
    assert os.stat(f"/proc/{pid}").st_uid in (0, runtime.user.uid)
    runtime.start(made)
    assert runtime.status(made) == "running"
    assert runtime.ok("exec", made.id, "id", "-u").out == "0\n"
    assert runtime.ok("exec", made.id, "sh", "-c", "echo $PPID").out == "0\n"
    assert runtime("exec", made.id, "sh", "-c", "exit 9").code == 9
    listed = runtime.ok("list", "--format", "json").json()
    assert [one["id"] for one in listed] == [made.id]
    assert listed[0]["owner"] == runtime.user.name
    runtime.refuses("pause", made.id, saying="freezer", ours="cgroups not configured for container")
    runtime.kill(made, "KILL")
    assert eventually(lambda: runtime.status(made) == "stopped")
    runtime.delete(made)
    runtime.refuses("state", made.id, saying="container does not exist")


@both
@only_ocirt("launch is ours")
def test_the_ranks_of_a_job(runtime, rootless, maps, host):
    made = rootless(*sh("echo $RANK $(id -u)"), maps=maps)
    for whose in ("own", "shared"):
        options = ("--bind", "thread", "--cgroup", whose)
        done = runtime("launch", "-n", "2", "--name", made.id, *options, made.path)
        assert done.code == 0, str(done)
        assert sorted(done.lines) == ["[0] 0 0", "[1] 1 0"]
    assert host.leftovers() == []


@only_ocirt("runc wants a cgroup to find processes by")
def test_ps_lists_the_processes_of_the_pid_namespace(runtime, rootless):
    made = rootless(*sh("sleep 1000 & sleep 1000 & exec sleep 1000"))
    pid = runtime.started(made)
    assert eventually(lambda: len(runtime.ok("ps", "--format", "json", made.id).json()) == 3)
    assert pid in runtime.ok("ps", "--format", "json", made.id).json()
    assert runtime.ok("ps", made.id).out.count("sleep 1000") == 3


def test_killing_the_init_ends_all_of_its_pid_namespace(runtime, rootless):
    made = rootless(*sh("sleep 1000 & sleep 1000 & exec sleep 1000"))
    runtime.started(made)

    def asleep():
        return [one for one in runtime.user.processes().values() if one == "sleep 1000 "]

    assert eventually(lambda: len(asleep()) == 3)
    runtime.delete(made, "--force")
    assert engines.gone(asleep) == []


def test_a_terminal(runtime, rootless):
    made = rootless(*sh("tty; stat -c %u $(tty)"), process={"terminal": True})
    argv = runtime.argv("run", "--bundle", made.path, made.id)
    result = engines.on_terminal(argv)
    assert result.code == 0, str(result)
    assert result.out.split() == ["/dev/pts/0", "0"]


def test_the_config_that_spec_writes_runs(runtime, workdir, rootfs, user):
    path = os.path.join(workdir, "spec")
    user.make(path)
    shutil.copytree(rootfs, os.path.join(path, "rootfs"), symlinks=True, copy_function=os.link)
    user.own(path)
    result = runtime.bare("spec", "--rootless", "--bundle", path)
    assert result.code == 0, str(result)
    with open(os.path.join(path, "config.json")) as file:
        config = json.load(file)
    config["process"].update(terminal=False, args=["sh", "-c", "id -u; ls /sys/class/net"])
    with open(os.path.join(path, "config.json"), "w") as file:
        json.dump(config, file)
    result = runtime("run", "--bundle", path, f"t{os.getpid()}-spec")
    assert result.code == 0, str(result)
    assert result.lines[0] == "0"
    assert "lo" in result.lines


# --- where state is kept


def test_the_default_root_is_the_users_and_sticky(runtime, rootless):
    made = rootless("sleep", "1000")
    where = os.path.join(runtime.user.runtime_dir, runtime.flavour)
    with open(made.out, "w") as out:
        argv = runtime.user.argv(runtime.path, "create", "--bundle", made.path, made.id)
        done = subprocess.run(argv, env=runtime.user.env, stdout=out, stderr=out, timeout=60)
    assert done.returncode == 0, made.output()
    try:
        assert os.path.isdir(os.path.join(where, made.id))
        status = os.stat(where)
        assert stat.S_IMODE(status.st_mode) == 0o1700
        assert status.st_uid == runtime.user.uid
        assert runtime.bare("state", made.id).code == 0
    finally:
        runtime.bare("delete", "--force", made.id)
    assert not os.path.exists(os.path.join(where, made.id))


@pytest.mark.parametrize("verb", ["state", "kill", "delete", "start", "pause", "exec"])
def test_the_containers_of_root_are_out_of_reach(runtime, verb, base):
    """Neither read nor changed: their directory is closed."""
    root = os.path.join(base, f"roots-{verb}")
    os.mkdir(root, 0o700)
    os.mkdir(os.path.join(root, "web"), 0o711)
    with open(os.path.join(root, "web", "state.json"), "w") as file:
        file.write("{}")
    more = ("true",) if verb == "exec" else ()
    result = runtime.bare("--root", root, verb, "web", *more)
    assert result.code != 0
    assert "Traceback" not in result.err
    assert os.listdir(os.path.join(root, "web")) == ["state.json"]
    shutil.rmtree(root)


@only_ocirt("what lies there acts in the name of whoever reads it: hooks, pids, cgroups")
def test_a_state_root_of_somebody_else_is_refused(runtime, rootless, base):
    """XDG_RUNTIME_DIR in a directory where others write: they were there first."""
    shared = os.path.join(base, "shared-xdg")
    os.mkdir(shared)
    os.chmod(shared, 0o1777)
    theirs = os.path.join(shared, "ocirt")
    os.mkdir(theirs)
    os.chmod(theirs, 0o777)
    os.chown(theirs, 65533, 65533)
    made = rootless("true")
    result = runtime.bare("run", "--bundle", made.path, made.id, XDG_RUNTIME_DIR=shared)
    assert result.code == 1, str(result)
    assert f"{theirs}: belongs to another user (65533)" in result.err, str(result)
    assert os.listdir(theirs) == []
    shutil.rmtree(shared)


# --- ids


@pytest.mark.skipif(NEWUIDMAP is not None, reason=str(NEWUIDMAP))
def test_a_range_that_is_not_granted(runtime, rootless):
    made = rootless("true", maps=full)
    made.config["linux"]["uidMappings"][1]["hostID"] = 1 << 31
    made.save()
    runtime.refuses_to_create(made, ours="linux.uidMappings: newuidmap: uid range [1-")
    if runtime.is_ocirt:
        first = runtime.user.subordinate("uid")
        result = runtime.run(made)
        granted = f"/etc/subuid grants {runtime.user.name} ids {first}-{first + users.RANGE - 1}"
        assert granted in result.error
    assert runtime.host.leftovers() == []


def test_the_id_of_somebody_else(runtime, rootless):
    made = rootless("true")
    made.config["linux"]["uidMappings"][0]["hostID"] = 0
    made.save()
    runtime.refuses_to_create(made, ours="linux.uidMappings: ")


@only_ocirt("runc looks for newuidmap at a path of its own making")
def test_without_the_helper_a_range_is_refused_by_name(runtime, rootless):
    made = rootless("true", maps=full)
    runtime.user.env["PATH"] = "/nonexistent"
    try:
        argv = runtime.user.argv(runtime.path, "run", "--bundle", made.path, made.id)
        result = engines.call([shutil.which("setpriv"), *argv[1:]], env=runtime.user.env, cwd="/")
    finally:
        runtime.user.env["PATH"] = users.PATH
    assert result.code == 1
    assert "linux.uidMappings: more than one's own id needs newuidmap (install uidmap" in result.err


@only_ocirt("the privileges are missing in the middle of runc's bootstrap, which cannot say so")
@pytest.mark.skipif(NEWUIDMAP is not None, reason=str(NEWUIDMAP))
def test_without_privileges_to_gain_the_helper_is_not_blamed(runtime, rootless):
    made = rootless("true", maps=full)
    argv = ["setpriv", "--no-new-privs", *runtime.argv("run", "--bundle", made.path, made.id)]
    result = engines.call(argv)
    assert result.code == 1
    assert "its caller has given up gaining any" in result.err, str(result)


@only_ocirt("runc 1.1 wants id 0 mapped")
def test_a_user_other_than_root_alone(runtime, rootless):
    made = rootless(*sh("id -u; id -g"), process={"user": {"uid": 1000, "gid": 100}})
    made.config["linux"]["uidMappings"][0]["containerID"] = 1000
    made.config["linux"]["gidMappings"][0]["containerID"] = 100
    made.save()
    assert runtime.prints(made).split() == ["1000", "100"]


def test_a_container_needs_a_user_namespace(runtime, rootless):
    made = rootless("true", spaces=(), linux={"uidMappings": DROP, "gidMappings": DROP})
    runtime.refuses_to_create(
        made, "rootless container requires user namespaces", "linux.namespaces"
    )


# --- groups


def show_groups(runtime, made):
    return runtime.prints(made).split()[1:]


@both
def test_the_callers_groups(runtime, rootless, maps):
    """One id alone cannot drop them: the kernel forbids it.  With a range they go."""
    runtime.user.groups = (29, 30)
    made = rootless("grep", "Groups", "/proc/self/status", maps=maps)
    kept = show_groups(runtime, made).count("65534")
    assert kept == (2 if maps is single or not runtime.is_ocirt else 0)


@both
def test_the_callers_groups_are_kept_on_request(runtime, rootless, maps, workdir):
    """They open what is theirs, a site's file system as a rule."""
    runtime.user.groups = (30,)
    path = os.path.join(workdir, "shared")
    with open(path, "w") as file:
        file.write("ours")
    os.chown(path, 0, 30)
    os.chmod(path, 0o640)
    mount = {"destination": "/shared", "source": path, "options": ["bind"]}
    made = rootless("cat", "/shared", maps=maps, annotations={KEEP: "1"})
    made.config["mounts"].append(mount)
    made.save()
    assert runtime.prints(made) == "ours"
    if runtime.is_ocirt and maps is full:
        made.patch(annotations=DROP)
        assert runtime.run(made).code == 1


@both
def test_exec_has_the_groups_of_the_container(runtime, rootless, maps):
    runtime.user.groups = (29, 30)
    made = rootless("sleep", "1000", maps=maps, annotations={KEEP: "1"})
    runtime.started(made)
    text = runtime.ok("exec", made.id, "grep", "Groups", "/proc/self/status").out
    assert text.split()[1:].count("65534") == 2


@pytest.mark.skipif(NEWUIDMAP is not None, reason=str(NEWUIDMAP))
@only_ocirt("runc sets none without root, though the mapping has them")
def test_additional_groups_that_are_mapped(runtime, rootless):
    user = {"uid": 0, "gid": 0, "additionalGids": [5, 65000]}
    made = rootless("grep", "Groups", "/proc/self/status", maps=full, process={"user": user})
    assert show_groups(runtime, made) == ["5", "65000"]


def test_additional_groups_that_cannot_be_had(runtime, rootless):
    user = {"uid": 0, "gid": 0, "additionalGids": [0]}
    runtime.refuses_to_create(
        rootless("true", process={"user": user}),
        "cannot set any additional groups in a rootless container",
        "process.user.additionalGids",
    )


# --- cgroups


@pytest.mark.skipif(UNIFIED, reason="a user may have cgroups of its own on v2")
def test_a_limit_without_a_cgroup_is_refused(runtime, rootless):
    made = rootless("true", linux={"resources": {"memory": {"limit": 64 << 20}}})
    runtime.refuses_to_create(
        made,
        ours="linux.resources.memory.limit: rootless needs no limits + no cgrouppath when no "
        "permission is granted for cgroups",
    )


def test_a_cgroup_that_is_not_the_users_is_refused(runtime, rootless):
    made = rootless("true", linux={"cgroupsPath": f"/ocirt-test/t{os.getpid()}-no"})
    runtime.refuses_to_create(made, "permission denied", "linux.cgroupsPath")


def test_what_a_container_may_always_be_asked_needs_no_cgroup(runtime, rootless):
    resources = {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": 0},
        "cpu": {"shares": 0},
    }
    assert runtime.prints(rootless("echo", "hi", linux={"resources": resources})) == "hi"


def test_the_oom_score_may_stay_what_it_is(runtime, rootless):
    """Engines ask for less than a user may have."""
    if not runtime.is_ocirt:
        pytest.skip("runc 1.1 dies of it in its bootstrap")
    made = rootless("cat", "/proc/self/oom_score_adj", process={"oomScoreAdj": -500})
    with open("/proc/self/oom_score_adj") as file:
        assert runtime.prints(made) == file.read().strip()


# --- file systems


def test_sys_of_the_host_is_read_only_as_a_whole(runtime, rootless):
    """Without a network namespace the kernel gives no new sysfs."""
    if not runtime.is_ocirt:
        pytest.skip("runc ends here")
    script = "ls /sys/class/net; grep ' /sys' /proc/self/mountinfo"
    made = rootless(*sh(script))
    made.config["linux"]["namespaces"] = namespaces("pid", "ipc", "uts", "mount", "user")
    made.save()
    names, *mounts = runtime.prints(made).split("\n")
    assert "lo" in (names, *mounts)
    rows = [line.split() for line in mounts if " /sys" in line]
    assert len(rows) > 1
    assert all("ro" in row[5].split(",") for row in rows)


@only_ocirt("runc mounts a new procfs, which the kernel refuses")
def test_proc_of_the_host_in_its_pid_namespace(runtime, rootless):
    made = rootless(*sh("echo $$; readlink /proc/self"))
    made.config["linux"]["namespaces"] = namespaces("network", "ipc", "uts", "mount", "user")
    made.save()
    shell, link = runtime.prints(made).split()
    assert int(shell) > 1
    assert int(link) > 1


def test_proc_is_not_the_hosts_in_a_pid_namespace_of_ones_own(runtime, rootless):
    made = rootless(*sh("echo $$; exec ls -d /proc/[0-9]*"))
    assert runtime.prints(made).split() == ["1", "/proc/1"]


def test_a_masked_proc_of_the_runtime_lets_no_other_be_mounted(runtime, rootless, host_mount):
    """As in a container of Docker's: what it hides would be seen in a new procfs."""
    host_mount("-t", "tmpfs", "none", "/proc/sysvipc")
    result = runtime.run(rootless("true"))
    assert result.code == 1, str(result)
    assert "operation not permitted" in result.error
    if runtime.is_ocirt:
        text = "mounts[0]: proc on /proc: a new procfs would show what is hidden from the runtime ("
        assert text in result.error


def test_devices_are_bound_and_open(runtime, rootless):
    devices = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    script = "head -c 3 /dev/zero | wc -c; echo x > /dev/null; test -c /dev/fuse && echo fuse"
    made = rootless(*sh(script), linux={"devices": devices})
    assert runtime.prints(made).split() == ["3", "fuse"]


@only_ocirt("runc looks for the node under the container's name for it")
def test_a_device_is_bound_under_another_name(runtime, rootless):
    devices = [{"path": "/dev/nought", "type": "c", "major": 1, "minor": 5}]
    made = rootless(*sh("head -c 3 /dev/nought | wc -c"), linux={"devices": devices})
    assert runtime.prints(made) == "3"


def test_a_device_that_is_not_the_hosts_is_refused(runtime, rootless):
    devices = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]
    made = rootless("true", linux={"devices": devices})
    if runtime.is_ocirt:
        runtime.refuses_to_create(made, ours="linux.devices[0]: /dev/null")


@only_ocirt("runc leaves noatime out when it tries again")
@pytest.mark.parametrize("options", [["bind"], ["rbind", "ro"], ["bind", "noexec"]])
def test_locked_flags_of_a_source_stay(runtime, rootless, host_mount, workdir, options):
    source = os.path.join(workdir, "locked")
    os.mkdir(source)
    host_mount("-t", "tmpfs", "-o", "nosuid,nodev,noatime,mode=755", "none", source)
    made = rootless("grep", " /there ", "/proc/self/mountinfo")
    made.config["mounts"].append({"destination": "/there", "source": source, "options": options})
    made.save()
    flags = runtime.prints(made).split()[5].split(",")
    assert {"nosuid", "nodev", "noatime"} <= set(flags)
    assert ("ro" in flags) == ("ro" in options)
    assert ("noexec" in flags) == ("noexec" in options)


def test_a_locked_flag_cannot_be_taken_away(runtime, rootless, host_mount, workdir):
    source = os.path.join(workdir, "locked")
    os.mkdir(source)
    host_mount("-t", "tmpfs", "-o", "ro,nosuid,mode=755", "none", source)
    made = rootless("true")
    mount = {"destination": "/there", "source": source, "options": ["bind", "rw"]}
    made.config["mounts"].append(mount)
    made.save()
    result = runtime.run(made)
    if runtime.is_ocirt:
        assert result.code == 1
        assert f"mounts[5]: {source} on /there: operation not permitted" in result.error


@only_ocirt("runc takes the flags it was not told of for flags to clear")
def test_a_locked_mount_is_remounted_read_only(runtime, rootless, host_mount, workdir):
    source = os.path.join(workdir, "locked")
    os.mkdir(source)
    host_mount("-t", "tmpfs", "-o", "nosuid,nodev,mode=755", "none", source)
    made = rootless("grep", " /there ", "/proc/self/mountinfo")
    made.config["mounts"] += [
        {"destination": "/there", "source": source, "options": ["bind"]},
        {"destination": "/there", "options": ["remount", "bind", "ro"]},
    ]
    made.save()
    assert {"ro", "nosuid", "nodev"} <= set(runtime.prints(made).split()[5].split(","))


def test_a_mount_point_that_cannot_be_made(runtime, rootless, workdir):
    """The root file system is another's: what it lacks cannot be added."""
    made = rootless("true")
    for top, folders, files in os.walk(made.rootfs):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                os.lchown(os.path.join(top, name), 0, 0)
    os.lchown(made.rootfs, 0, 0)
    assert runtime.run(made).code == 0
    mount = {"destination": "/missing/here", "source": workdir, "options": ["bind"]}
    made.config["mounts"].append(mount)
    made.save()
    runtime.refuses_to_create(made, "permission denied", "mounts[5]: ")
    if runtime.is_ocirt:
        error = runtime.run(made).error
        assert "/missing/here" in error
        assert "cannot be made in the root file system" in error


@only_ocirt("runc wants to give its fifo to the container's root, and may not")
@pytest.mark.skipif(NEWUIDMAP is not None, reason=str(NEWUIDMAP))
def test_a_rootfs_behind_a_closed_door(runtime, rootless, workdir):
    """Root of the container is a stranger there: the error says where the way ends."""
    made = rootless("true", maps=full)
    uids = made.config["linux"]["uidMappings"]
    uids[:] = [{"containerID": 0, "hostID": runtime.user.subordinate("uid"), "size": 1000}]
    made.save()
    os.chmod(workdir, 0o700)
    try:
        who = f"uid {uids[0]['hostID']}, the container's root"
        runtime.refuses_to_create(made, "permission denied", f"{workdir} is closed to {who}")
    finally:
        os.chmod(workdir, 0o755)


# --- joined user namespaces


@pytest.fixture
def space(runtime):
    """A process in a user namespace of the user: its pid."""
    argv = runtime.user.argv("unshare", "--user", "--map-root-user", "sleep", "1000")
    process = subprocess.Popen(argv, env=runtime.user.env)
    runtime.host.known.add(process.pid)

    def mapped():
        with open(f"/proc/{process.pid}/uid_map") as file:
            return len(file.read().split()) == 3

    assert eventually(mapped)
    yield process.pid
    process.kill()
    process.wait()


def joining(rootless, pid, *args, **patch):
    made = rootless(*args, **patch)
    made.config["linux"]["namespaces"] = [
        *namespaces("pid", "network", "ipc", "uts", "mount"),
        {"type": "user", "path": f"/proc/{pid}/ns/user"},
    ]
    made.save()
    return made


def test_a_user_namespace_is_joined_by_path(runtime, rootless, space):
    made = joining(rootless, space, "readlink", "/proc/self/ns/user")
    made.patch(linux={"uidMappings": DROP, "gidMappings": DROP})
    if not runtime.is_ocirt:
        pytest.skip("runc 1.1 wants mappings, later ones refuse them")
    assert runtime.prints(made) == os.readlink(f"/proc/{space}/ns/user")


def test_mappings_beside_the_path_have_to_be_its_own(runtime, rootless, space):
    made = joining(rootless, space, "readlink", "/proc/self/ns/user")
    assert runtime.prints(made) == os.readlink(f"/proc/{space}/ns/user")
    if runtime.is_ocirt:
        made.config["linux"]["gidMappings"][0]["containerID"] = 1
        made.save()
        runtime.refuses_to_create(made, "", "linux.gidMappings: user namespaces enabled, but both")


def test_exec_into_a_joined_user_namespace(runtime, rootless, space):
    runtime.user.groups = (29,)
    made = joining(rootless, space, "sleep", "1000")
    runtime.started(made)
    text = runtime.ok("exec", made.id, "grep", "Groups", "/proc/self/status").out
    assert "65534" in text  # denied with the namespace's one group


# --- root of a user namespace, as engines without root call the runtime


def nested(runtime, *args, keep="--map-root-user"):
    """Call the runtime as root of a user namespace, mounts and all."""
    inner = ["unshare", "--user", keep, "--mount", "env", *runtime.env(), "USER=x", runtime.path]
    _, *words = Runtime.argv(runtime)
    return engines.call(runtime.user.argv(*inner, *words, *args))


def test_root_of_a_user_namespace_needs_no_other(runtime, rootless):
    made = rootless(*sh("id -u; readlink /proc/self/ns/user; cat /proc/self/setgroups"), spaces=())
    made.patch(linux={"uidMappings": DROP, "gidMappings": DROP})
    result = nested(runtime, "run", "--bundle", made.path, made.id)
    assert result.code == 0, str(result)
    user, _, setgroups = result.out.split()
    assert (user, setgroups) == ("0", "deny")


def test_additional_groups_are_passed_over_where_the_engine_has_denied_them(runtime, rootless):
    """As runc does: engines name the groups of an image's passwd whatever they can give."""
    made = rootless("grep", "Groups", "/proc/self/status", spaces=())
    made.patch(linux={"uidMappings": DROP, "gidMappings": DROP})
    made.patch(process={"user": {"uid": 0, "gid": 0, "additionalGids": [0]}})
    result = nested(runtime, "run", "--bundle", made.path, made.id)
    assert result.code == 0, str(result)


@only_ocirt("runc says no more than that it was not permitted")
def test_a_nested_mapping_that_the_engine_does_not_have(runtime, rootless):
    made = rootless("true", maps=full)
    result = nested(runtime, "run", "--bundle", made.path, made.id)
    assert result.code == 1
    assert "linux.uidMappings: " in result.err
    assert "are not all in the runtime's own user namespace (id 0)" in result.err, str(result)


@pytest.mark.parametrize("choice", ["true", "false", "auto"])
def test_the_option_rootless_is_about_cgroups(runtime, rootless, choice):
    made = rootless("echo", "hi")
    runtime.globals = ("--rootless", choice)
    result = runtime.run(made)
    if choice == "false":
        assert result.code == 1
        assert "permission denied" in result.error
    else:
        assert result.out == "hi\n"


# --- cgroup v2: a subtree that is the user's


WANTED = {"cpu", "memory", "pids"}


@pytest.fixture
def delegated(runtime, user):
    """Give the user a cgroup, in whose `shell` the runtime then runs; return its directory."""
    top = f"/sys/fs/cgroup/ocirt-user-{os.getpid()}"
    shell = os.path.join(top, "shell")
    with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as file:
        file.write(" ".join(f"+{name}" for name in WANTED & set(CONTROLLERS)))
    os.makedirs(shell)
    for path in (top, shell):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(os.path.join(path, name), user.uid, user.gid)
    enter = ["sh", "-c", f'echo 0 > {shell}/cgroup.procs; exec "$@"', "sh"]
    plain = runtime.argv
    runtime.argv = lambda *args: [*enter, *plain(*args)]
    yield top
    runtime.close()
    for path in (shell, top):
        eventually(lambda path=path: not _busy(path), 5)
        os.rmdir(path)


def _busy(path):
    with open(os.path.join(path, "cgroup.procs")) as file:
        return file.read()


LIMITS = {
    "memory": {"limit": 64 << 20},
    "pids": {"limit": 20},
    "cpu": {"quota": 50000, "period": 100000},
}


def knob(top, name, file):
    with open(os.path.join(top, name, file)) as text:
        return text.read().strip()


@needs_v2
@pytest.mark.parametrize("named", [False, True])
def test_a_life_in_a_delegated_cgroup(runtime, rootless, delegated, named):
    """Beside the runtime's own cgroup, or where the config says."""
    made = rootless("sleep", "1000")
    name = "named" if named else made.id
    if named:
        made.patch(linux={"cgroupsPath": f"{delegated.removeprefix('/sys/fs/cgroup')}/named"})
    pid = runtime.started(made)
    assert knob(delegated, name, "cgroup.procs") == str(pid)
    quiet = subprocess.DEVNULL
    runtime.ok("exec", "--detach", made.id, "sleep", "1000", stdout=quiet, stderr=quiet)
    pids = sorted(map(int, knob(delegated, name, "cgroup.procs").split()))
    assert len(pids) == 2
    assert sorted(runtime.ok("ps", "--format", "json", made.id).json()) == pids
    runtime.ok("pause", made.id)
    assert runtime.status(made) == "paused"
    assert knob(delegated, name, "cgroup.freeze") == "1"
    runtime.ok("resume", made.id)
    assert runtime.status(made) == "running"
    runtime.kill(made, "KILL")
    # The one that was executed is ours to reap, as it is an engine's.
    assert eventually(lambda: not runtime.host.processes() & {f"{one} (sleep)" for one in pids})
    runtime.delete(made)
    assert not os.path.exists(os.path.join(delegated, name))


@needs_v2
@needs_controllers(*WANTED)
def test_limits_in_a_delegated_cgroup(runtime, rootless, delegated):
    made = rootless("sleep", "1000", linux={"resources": LIMITS})
    name = made.id
    runtime.started(made)
    assert knob(delegated, name, "memory.max") == str(64 << 20)
    assert knob(delegated, name, "pids.max") == "20"
    assert knob(delegated, name, "cpu.max") == "50000 100000"
    runtime.ok("update", "--memory", str(32 << 20), "--pids-limit", "10", made.id)
    assert knob(delegated, name, "memory.max") == str(32 << 20)
    assert knob(delegated, name, "pids.max") == "10"
    stats = runtime.ok("events", "--stats", made.id).json()
    assert stats["data"]["pids"]["limit"] == 10


@needs_v2
@needs_controllers(*WANTED)
def test_running_out_of_memory_in_a_delegated_cgroup(runtime, rootless, delegated):
    limits = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    made = rootless(*sh("tail /dev/zero"), linux={"resources": limits})
    assert runtime.run(made).code == 137


@needs_v2
def test_without_delegation_there_is_no_cgroup_and_no_limit(runtime, rootless):
    made = rootless("cat", "/proc/self/cgroup")
    with open("/proc/self/cgroup") as file:
        assert runtime.prints(made) == file.read().strip()
    made.patch(linux={"resources": {"pids": {"limit": 5}}})
    runtime.refuses_to_create(made, "", "linux.resources.pids.limit: rootless needs no limits")


@needs_v2
@pytest.mark.parametrize("maps", [single, full])
def test_a_container_divides_its_own_cgroup(runtime, rootless, delegated, maps):
    """With a cgroup namespace and a writable mount: the user's cgroup is its root's."""
    script = "cd /sys/fs/cgroup; mkdir part && echo made; rmdir part; stat -c %u . cgroup.freeze"
    made = rootless(*sh(script), maps=maps)
    made.config["linux"]["namespaces"].append({"type": "cgroup"})
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    made.config["mounts"].append(mount)
    made.save()
    assert runtime.prints(made).split() == ["made", "0", "0"]
    assert not os.path.exists(os.path.join(delegated, made.id))


@needs_v2
@only_ocirt("runc 1.1 has them written")
def test_cgroups_of_the_user_cannot_be_written_from_inside(runtime, rootless, delegated):
    """Without a cgroup namespace the whole tree is shown, and some of it is the user's."""
    inside = delegated.removeprefix("/sys/fs/cgroup/")
    script = f"ls /sys/fs/cgroup/{inside}; mkdir /sys/fs/cgroup/{inside}/x 2>&1"
    made = rootless(*sh(script))
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    made.config["mounts"].append(mount)
    made.save()
    result = runtime.run(made)
    assert result.code == 1, str(result)
    assert "Read-only file system" in result.out
