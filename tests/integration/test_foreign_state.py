"""Root looks after containers of users (Slurm deletes as root) without lending them its rights."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.integration import engines
from tests.integration.support import eventually, only_ocirt

pytestmark = only_ocirt("becomes the owner of a container's state")

UID = 41002


class User:
    """A user with a bundle and a state root of his own."""

    def __init__(self, folder, runtime):
        self.folder, self.runtime = folder, runtime
        self.bundle, self.root = f"{folder}/bundle", f"{folder}/root"

    def line(self, *words):
        who = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return [*who, self.runtime, "--root", self.root, *words]

    def __call__(self, *words):
        return engines.call(self.line(*words))

    def from_root(self, *words):
        return engines.call([self.runtime, "--root", self.root, *words])


@pytest.fixture
def user(machine, workdir, rootfs, public_runtime):
    user = User(workdir, public_runtime)
    shutil.copytree(rootfs, f"{user.bundle}/rootfs", symlinks=True)
    os.mkdir(f"{workdir}/told", 0o777)
    os.chmod(f"{workdir}/told", 0o777)
    os.mkdir(user.root)
    engines.call(["chown", "-R", f"{UID}:{UID}", user.bundle, user.root])
    assert user("spec", "--rootless", "--bundle", user.bundle).code == 0
    path = f"{user.bundle}/config.json"
    with open(path) as file:
        config = json.load(file)
    config["process"] |= {"terminal": False, "args": ["sleep", "1000"]}
    told = f"id -u > {workdir}/told/uid; id -G > {workdir}/told/groups"
    config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", told]}]}
    with open(path, "w") as file:
        json.dump(config, file)
    # The container keeps our stdout and stderr: no pipes.
    line = user.line("create", "--bundle", user.bundle, "web")
    with open(f"{workdir}/log", "w+") as log:
        code = subprocess.call(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=20)
        log.seek(0)
        assert code == 0, log.read()
    yield user
    user("delete", "--force", "web")


def told(user, name):
    with open(f"{user.folder}/told/{name}") as file:
        return file.read().split()


def test_a_hook_that_a_user_left_runs_as_that_user(user):
    done = user.from_root("delete", "--force", "web")
    assert done.code == 0, done
    assert told(user, "uid") == [str(UID)]
    assert "0" not in told(user, "groups")
    assert os.listdir(user.root) == []


def test_root_may_list_start_and_kill_them(user):
    assert user.from_root("list", "--quiet").out.split() == ["web"]
    assert json.loads(user.from_root("state", "web").out)["status"] == "created"
    assert user.from_root("start", "web").code == 0
    assert json.loads(user.from_root("state", "web").out)["status"] == "running"
    assert user.from_root("kill", "web", "KILL").code == 0
    assert eventually(lambda: '"stopped"' in user("state", "web").out)


def test_a_process_of_root_is_out_of_reach(user, tmp_path):
    """A record that names a process of root's, changed by the user it belongs to."""
    path = f"{user.root}/web/state.json"
    with open(path) as file:
        record = json.load(file)
    with open("/proc/self/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    forged = {**record, "pid": os.getpid(), "start_time": int(fields[19])}
    with open(path, "w") as file:
        json.dump(forged, file)
    os.unlink(f"{user.root}/web/quick")
    done = user.from_root("kill", "web", "USR1")  # whose default would end these tests
    assert done.code == 1
    assert "operation not permitted" in done.err
    with open(path, "w") as file:
        json.dump(record, file)


def test_a_link_to_a_container_of_root_is_not_followed(user, runtime, bundle):
    b = bundle.sleeping()
    runtime.create(b)
    link = f"{user.root}/{b.id}"
    os.symlink(f"{runtime.root}/{b.id}", link)
    os.lchown(link, UID, UID)
    assert user.from_root("kill", b.id, "KILL").code == 1
    user.from_root("delete", "--force", b.id)
    assert runtime.state(b)["status"] == "created"


def test_a_root_of_somebody_else_is_not_used(user, workdir):
    done = engines.call([user.runtime, "--root", user.root, "run", "--bundle", user.bundle, "x"])
    assert done.code == 1
    assert f"--root {user.root}: belongs to another user ({UID})" in done.err
    assert sorted(os.listdir(user.root)) == ["web"]
