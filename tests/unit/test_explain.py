"""The reasons behind a refusal of the kernel's."""

from __future__ import annotations

import os
import shutil
import tempfile
from errno import EACCES, EPERM, EROFS

import pytest

from ocirt.explain import explain
from ocirt.plan.ops import Op


def config(*destinations, uid=4242):
    return {
        "mounts": [{"destination": one} for one in destinations],
        "linux": {
            f"{kind}Mappings": [
                {"containerID": 0, "hostID": 0, "size": 0},
                {"containerID": 0, "hostID": uid, "size": 1},
            ]
            for kind in ("uid", "gid")
        },
    }


def bind(source, dest):
    return Op("bind", (source, "", dest, 0, 0, 0, 3), "mounts[0]", f"{source} on {dest}")


def test_a_mount_point_that_cannot_be_made(tmp_path):
    (tmp_path / "there").mkdir()
    words = "/missing is missing and cannot be made in the root file system"
    for errno in (EACCES, EROFS):
        assert explain(bind("/etc", "/missing"), errno, config(), str(tmp_path)) == words
    for op in (
        Op("mount", ("tmpfs", "none", "/missing", 0, "", 1)),
        Op("mkdir", ("/missing", 1, 1)),
    ):
        assert explain(op, EACCES, config(), str(tmp_path)) == words
    assert explain(bind("/etc", "/there"), EACCES, config(), str(tmp_path)) == ""
    assert explain(bind("/etc", "/missing"), EPERM, config(), str(tmp_path)) == ""
    # What lies on a mount of the config is not to be found in the rootfs.
    assert explain(bind("/etc", "/dev/x"), EACCES, config("/dev/"), str(tmp_path)) == ""


@pytest.fixture
def door():
    """A directory that everybody can walk to, with one in it."""
    top = tempfile.mkdtemp(dir="/tmp")
    os.chmod(top, 0o755)
    os.makedirs(f"{top}/door/in")
    yield f"{top}/door"
    os.chmod(f"{top}/door", 0o755)
    shutil.rmtree(top)


@pytest.mark.parametrize("mode", [0o700, 0o701, 0o710, 0o666])
@pytest.mark.parametrize("uid", [4242, os.geteuid()])
def test_a_closed_directory_is_named(door, mode, uid):
    os.chmod(door, mode)
    passes = mode & (0o100 if uid == os.geteuid() else 0o001)
    words = "" if passes else f"{door} is closed to uid {uid}, the container's root"
    for op in (bind(f"{door}/in", "/etc"), Op("rootfs", (f"{door}/in", 1))):
        assert explain(op, EACCES, config(uid=uid), "/") == words


def test_nothing_is_said_of_other_steps_and_without_a_mapped_root():
    assert explain(Op("identity", (0, 0, b"", 1)), EACCES, config(), "/") == ""
    assert explain(Op("rootfs", ("/root/x", 1)), EACCES, {"linux": {}}, "/") == ""
    assert explain(Op("mount", ("tmpfs", "none", "/x", 0, "", 1)), EPERM, config(), "/") == ""
