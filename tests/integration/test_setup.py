"""ocirt setup, judged by the engines themselves: what it writes, they read, and lose nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal

import pytest

from tests.integration import engines
from tests.integration.conftest import RUNTIME
from tests.integration.support import eventually, only_ocirt

pytestmark = only_ocirt("has a verb `setup`")


def setup(engine, root, *words):
    line = [RUNTIME, "setup", engine, "--root", root, "--path", os.path.realpath(RUNTIME), *words]
    done = engines.call(line)
    assert done.code == 0, done
    return done.out


def put(root, name, text):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def read(path):
    with open(path) as file:
        return file.read()


@pytest.fixture
def world(machine):
    """Namespaces for one daemon: its mounts and bridges end with it."""
    found = engines.World()
    yield found
    found.close()


@contextlib.contextmanager
def running(world, *argv, log):
    process = world.spawn(*argv, log=log)
    try:
        yield process
    finally:
        engines.stop(process)


def test_docker_learns_the_name_and_forgets_it(world, workdir):
    if reason := engines.missing("dockerd", "docker", "containerd"):
        pytest.skip(reason)
    text = json.dumps({
        "data-root": f"{workdir}/data", "exec-root": f"{workdir}/exec",
        "pidfile": f"{workdir}/pid", "hosts": [f"unix://{workdir}/socket"],
        "iptables": False, "ip6tables": False, "bridge": "none", "storage-driver": "vfs",
        "runtimes": {"other": {"path": "/bin/true"}},
    }, indent=2)  # fmt: skip
    path = put(workdir, "etc/docker/daemon.json", text)
    setup("docker", workdir)
    docker = ["docker", "--host", f"unix://{workdir}/socket", "info", "--format"]

    def runtimes():
        done = engines.call([*docker, "{{json .Runtimes}}"])
        # A daemon that does not answer leaves the names out.
        return json.loads(done.out) or {} if done.code == 0 else {}

    with running(world, "dockerd", "--config-file", path, log=f"{workdir}/log") as daemon:
        assert eventually(runtimes), read(f"{workdir}/log")
        assert runtimes()["hpc"]["path"] == os.path.realpath(RUNTIME)
        assert "other" in runtimes()
        setup("docker", workdir, "--undo")
        daemon.send_signal(signal.SIGHUP)  # what `systemctl reload docker` does
        assert eventually(lambda: "hpc" not in runtimes())
        assert "other" in runtimes()
    assert read(path) == text


def test_dockerd_validates_what_was_merged(workdir):
    if reason := engines.missing("dockerd"):
        pytest.skip(reason)
    if "--validate" not in engines.call(["dockerd", "--help"]).out:
        pytest.skip("this dockerd has no --validate")
    setup("docker", workdir)
    path = os.path.join(workdir, "etc/docker/daemon.json")
    done = engines.call(["dockerd", "--validate", "--config-file", path])
    assert done.code == 0, done


def test_containerd_keeps_its_section_and_its_default_runtime(world, workdir):
    if reason := engines.missing("containerd", "ctr"):
        pytest.skip(reason)
    path = put(workdir, "etc/containerd/config.toml", f"""\
version = 2
root = "{workdir}/root"
state = "{workdir}/state"
[grpc]
  address = "{workdir}/socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "{workdir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{workdir}/cni"
""")  # fmt: skip
    setup("containerd", workdir)
    done = engines.call(["containerd", "--config", path, "config", "dump"])
    assert done.code == 0, done
    for line in (
        "localhost/pause:1", "/usr/lib/cni", "containerd.runtimes.runc]",
        "containerd.runtimes.hpc]", os.path.realpath(RUNTIME), "ocirt.hpc/*",
    ):  # fmt: skip
        assert line in done.out

    def state():
        """Return what has become of the CRI plugin, which checks its runtimes as it starts."""
        listed = engines.call(["ctr", "--address", f"{workdir}/socket", "plugins", "ls"])
        rows = [row.split() for row in listed.out.splitlines()]
        return next((row[-1] for row in rows if row[1:2] == ["cri"]), "")

    with running(world, "containerd", "--config", path, log=f"{workdir}/log"):
        assert eventually(state), read(f"{workdir}/log")
        assert state() == "ok", read(f"{workdir}/log")


def test_podman_finds_the_runtime_beside_its_own(workdir):
    if reason := engines.missing("podman", "conmon"):
        pytest.skip(reason)
    own = os.path.join(workdir, "etc/containers")
    shutil.copytree("/etc/containers", own)
    setup("podman", workdir)
    podman = [
        "unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/containers && exec "$@"', own,
        "podman", "--root", f"{workdir}/root", "--runroot", f"{workdir}/run",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
    ]  # fmt: skip
    shape = ["info", "--format", "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"]
    done = engines.call([*podman, "--runtime", "hpc", *shape])
    assert (done.code, done.out.split()) == (0, ["hpc", os.path.realpath(RUNTIME)]), done
    done = engines.call([*podman, *shape])
    assert done.code == 0, done
    assert "hpc" not in done.out
    # Podman asks its lists here: not each runtime can do without cgroups.
    root = os.path.join(workdir, "rootfs")
    os.mkdir(root)
    create = ["create", "--runtime", "hpc", "--cgroups", "disabled", "--rootfs", root, "true"]
    done = engines.call([*podman, *create])
    assert done.code == 0, done
    done = engines.call([*podman, "rm", done.out.strip()])
    assert done.code == 0, done


def test_a_user_without_rights_sets_up_his_own_engines(workdir, public_runtime):
    if reason := engines.missing("podman", "conmon", "setpriv"):
        pytest.skip(reason)
    uid = 41003
    home = f"{workdir}/home"
    os.mkdir(home)
    os.chown(home, uid, uid)
    env = {"PATH": f"{os.path.dirname(public_runtime)}:/usr/bin:/bin", "HOME": home}

    def user(*argv):
        who = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env", "-C", home]
        return engines.call([*who, *argv], env=env)

    assert user("ocirt", "setup", "podman").code == 0
    assert user("ocirt", "setup", "docker").code == 0
    assert json.loads(read(f"{home}/.config/docker/daemon.json"))["runtimes"]["hpc"]["path"] == (
        public_runtime
    )
    listed = json.loads(user("ocirt", "doctor", "--format", "json").out)
    rows = {row["name"]: row["value"] for row in listed if row["area"] == "engines"}
    assert f"hpc ({public_runtime})" in rows["podman"]
    done = user("ocirt", "setup", "slurm", "--slurm-22")
    assert done.code == 1
    assert "/etc/slurm/oci.conf: permission denied" in done.err
    # Podman starts as root of a user namespace, which asks for more than this test: it is shown
    # the user's files as root's.
    podman = ["podman", "--root", f"{workdir}/root", "--runroot", f"{workdir}/run",
              "--storage-driver", "vfs", "--runtime", "hpc", "info", "--format"]  # fmt: skip
    shape = "{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}"
    root = {**env, "XDG_CONFIG_HOME": f"{home}/.config", "_CONTAINERS_USERNS_CONFIGURED": "done",
            "_CONTAINERS_ROOTLESS_UID": str(uid)}  # fmt: skip
    done = engines.call(["unshare", "--mount", *podman, shape], env=root)
    assert (done.code, done.out.split()) == (0, ["hpc", public_runtime]), done
    assert user("ocirt", "setup", "podman", "--undo").code == 0
    assert user("ocirt", "setup", "docker", "--undo").code == 0
    for place in ("docker", "containers/containers.conf.d"):
        assert os.listdir(f"{home}/.config/{place}") == []
