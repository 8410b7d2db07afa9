"""Where a container's cgroups are, on fake trees with a /proc of their own."""

from __future__ import annotations

import pytest

from ocirt.cgroup import layout
from ocirt.errors import ConfigError


@pytest.mark.parametrize(
    ("cgroups_path", "expected"),
    [
        ("", (False, "/web1")),
        ("/docker/abc", (True, "/docker/abc")),
        ("//docker//abc/", (True, "/docker/abc")),
        ("/../../etc", (True, "/etc")),
        ("a/../../../b", (False, "/b")),
        ("machine.slice:libpod:abc", (False, "/machine.slice:libpod:abc")),
    ],
)
def test_a_path_is_cleaned_and_cannot_escape(cgroups_path, expected):
    assert layout.clean(cgroups_path, "web1") == expected


@pytest.mark.parametrize("cgroups_path", ["/", "..", "/..", ".", "a/.."])
def test_the_root_of_a_hierarchy_is_nobodys_own(cgroups_path):
    with pytest.raises(ConfigError, match=r"^linux\.cgroupsPath: .* leaves no cgroup of its own$"):
        layout.clean(cgroups_path, "web1")


def test_a_nul_is_refused():
    with pytest.raises(ConfigError, match="holds a NUL character"):
        layout.clean("/a\0b", "web1")


def test_v1_is_found_where_everybody_mounts_it(tree):
    tree.v1("cpuset", "cpu,cpuacct", "devices", "name=systemd")
    places, unified = layout.v1_directories("/a/b", "x", tree.root, tree.proc)
    assert places == [
        ("cpuset", f"{tree.root}/cpuset/a/b"),
        ("devices", f"{tree.root}/devices/a/b"),
        ("cpu,cpuacct", f"{tree.root}/cpu,cpuacct/a/b"),
        ("name=systemd", f"{tree.root}/systemd/a/b"),
    ]
    assert unified is None


def test_a_hybrid_has_one_more_directory(tree):
    tree.v1("devices", hybrid=True)
    assert layout.v1_directories("/a", "x", tree.root, tree.proc)[1] == f"{tree.root}/unified/a"


def test_v1_mounted_elsewhere_is_found_in_mountinfo(tree):
    tree.v1("devices")
    tree.say(
        [("devices", "/"), ("cpuacct,cpu", "/"), ("debug", "/")],
        [
            f"30 24 0:25 / {tree.root}/devices rw - cgroup cgroup rw,devices",
            r"31 24 0:26 / /mnt/c\040pu rw shared:9 - cgroup cgroup rw,cpu,cpuacct",
            "32 24 0:27 / /mnt/debug rw - cgroup cgroup rw,debug",
            "33 24 0:28 / /mnt/u rw - cgroup2 cgroup2 rw",
        ],
    )
    assert layout.v1_directories("/a", "x", tree.root, tree.proc)[0] == [
        ("devices", f"{tree.root}/devices/a"),
        ("cpuacct,cpu", "/mnt/c pu/a"),
    ]


def test_a_relative_path_lies_below_the_runtimes_own_cgroup_on_v1(tree):
    tree.v1("devices", "pids")
    tree.say(
        [("devices", "/user/alice"), ("pids", "/docker/123/inner"), ("", "/me")],
        [
            f"30 24 0:25 / {tree.root}/devices rw - cgroup cgroup rw,devices",
            f"31 24 0:26 /docker/123 {tree.root}/pids rw - cgroup cgroup rw,pids",
        ],
    )
    assert layout.v1_directories("", "web1", tree.root, tree.proc)[0] == [
        ("devices", f"{tree.root}/devices/user/alice/web1"),
        ("pids", f"{tree.root}/pids/inner/web1"),
    ]


def test_a_relative_path_lies_beside_the_runtimes_own_cgroup_on_v2(tree):
    tree.v2(own="/user.slice/session")
    found = layout.v2_directory("x/y", "web1", tree.root, tree.proc)
    assert found == f"{tree.root}/user.slice/x/y"


def test_a_relative_path_from_the_root_of_v2(tree):
    tree.v2(own="/")
    assert layout.v2_directory("", "web1", tree.root, tree.proc) == f"{tree.root}/web1"


def test_an_own_cgroup_outside_of_the_namespace_counts_as_its_root(tree):
    tree.v2(own="/../../elsewhere")
    assert layout.own_paths(tree.proc) == {"": "/elsewhere"}


def test_v2_superblock_options_are_found(tree):
    tree.say(
        [("", "/")],
        [
            "24 1 0:20 / / rw - ext4 /dev/vda rw",
            f"30 24 0:25 / {tree.root} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
        ],
    )
    assert layout.v2_options(tree.root, tree.proc) == ["rw", "nsdelegate"]
