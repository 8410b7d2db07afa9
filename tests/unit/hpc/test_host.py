"""One look at a machine: paths below a root, whose links lead nowhere else."""

from __future__ import annotations

import os

import pytest
from ocirt_hpc.host import Host

from ocirt.errors import ConfigError


@pytest.fixture
def host(tmp_path):
    (tmp_path / "usr/lib64/deep").mkdir(parents=True)
    (tmp_path / "usr/lib64/file").touch()
    for name, target in {
        "lib64": "usr/lib64",
        "usr/lib": "lib64",
        "absolute": "/usr/lib/deep",
        "above": "../../../../etc",
        "usr/lib64/deep/back": "../../../absolute/../file",
        "chain": "lib64/deep/back",
        "gone": "nowhere/at/all",
        "loop": "pool/x",
        "pool": "/loop",
        "self": "self",
    }.items():
        os.symlink(target, tmp_path / name)
    return Host(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", "/"),
        ("/usr//./lib64/", "/usr/lib64"),
        ("usr/lib", "/usr/lib64"),
        ("/lib64/file", "/usr/lib64/file"),
        ("/usr/lib/deep/..", "/usr/lib64"),
        ("/absolute", "/usr/lib64/deep"),
        ("/absolute/../file", "/usr/lib64/file"),
        ("/above/passwd", "/etc/passwd"),
        ("/../../etc", "/etc"),
        ("/chain", "/usr/lib64/file"),
        ("/gone/x", "/nowhere/at/all/x"),
        ("/usr/lib64/file/x", "/usr/lib64/file/x"),
        ("/new/folder", "/new/folder"),
    ],
)
def test_a_path_without_links(host, path, expected):
    assert host.resolve(path) == expected
    assert host.resolve(path) == expected  # what is known already
    assert Host(host.root).resolve(path + "/more") == expected.rstrip("/") + "/more"


@pytest.mark.parametrize("path", ["/loop", "/pool", "/self/x", "/usr/../loop/y"])
def test_links_that_end_nowhere(host, path):
    with pytest.raises(ConfigError, match="too many symbolic links"):
        host.resolve(path)


def test_a_very_long_path_is_only_long(host):
    path = "/usr" + "/x" * 3000
    assert host.resolve(path) == path
