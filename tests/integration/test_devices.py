"""/dev: the default nodes and links, and `linux.devices`.

runtime-spec, config-linux.md, "Devices", "Default Devices"; runtime-linux.md, "Dev symbolic
links".  What a program may do with a node is the matter of test_cgroups.py.
"""

from __future__ import annotations

import os

import pytest

from tests.integration.support import MOUNTS, bind, namespaces, only_ocirt

NODES = [
    # path           type  major minor (hexadecimal, as stat prints them)
    ("/dev/null", "1", "3"),
    ("/dev/zero", "1", "5"),
    ("/dev/full", "1", "7"),
    ("/dev/random", "1", "8"),
    ("/dev/urandom", "1", "9"),
    ("/dev/tty", "5", "0"),
]
LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
}


def test_the_default_nodes(runtime, bundle):
    paths = [path for path, *_ in NODES]
    b = bundle("stat", "-c", "%n %F %t:%T %a %u:%g", *paths)
    assert runtime.prints(b, umask=0o77).splitlines() == [
        f"{path} character special file {major}:{minor} 666 0:0" for path, major, minor in NODES
    ]


def test_the_default_links(runtime, bundle):
    b = bundle.sh(f"for p in {' '.join(LINKS)}; do readlink $p; done")
    assert runtime.prints(b).splitlines() == list(LINKS.values())


def test_nothing_else_is_in_dev(runtime, bundle):
    names = {os.path.basename(path) for path in [*LINKS, *(path for path, *_ in NODES)]}
    # /dev/core leads to /proc/kcore where the machine has that.
    assert set(runtime.prints(bundle("ls", "/dev")).split()) - {"core"} == names | {"pts", "shm"}


def test_the_default_nodes_work(runtime, bundle):
    b = bundle.sh(
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; "
        "echo x > /dev/full || echo full; echo piped | cat /dev/stdin; echo shown > /dev/stdout"
    )
    assert runtime.run(b).out.split() == ["3", "3", "full", "piped", "shown"]


def test_a_dev_of_the_image_is_filled_too(runtime, bundle):
    """Without a mount on /dev, the nodes go into the directory of the root file system."""
    mounts = [mount for mount in MOUNTS if not mount["destination"].startswith("/dev")]
    b = bundle.sh("stat -c '%F %a' /dev/null; readlink /dev/fd", mounts=mounts)
    assert runtime.prints(b).splitlines() == ["character special file 666", "/proc/self/fd"]


def test_a_dev_of_the_host_is_left_alone(runtime, bundle, workdir):
    os.mkdir(f"{workdir}/dev")
    os.mknod(f"{workdir}/dev/null", 0o20666, os.makedev(1, 3))
    mounts = [*MOUNTS[:1], bind(f"{workdir}/dev", "/dev")]
    assert runtime.prints(bundle("ls", "-A", "/dev", mounts=mounts)) == "null"
    assert os.listdir(f"{workdir}/dev") == ["null"]


# --- linux.devices

FUSE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
LOOP = {"path": "/dev/loop9", "type": "b", "major": 7, "minor": 9}
LARGE = {"path": "/dev/large", "type": "c", "major": 511, "minor": 300}
CHAR, BLOCK = "character special file", "block special file"
ASKED = [
    # entry                                                    stat says
    (FUSE, f"{CHAR} a:e5 666 0:0"),
    ({**FUSE, "type": "u"}, f"{CHAR} a:e5 666 0:0"),
    ({**FUSE, "fileMode": 0o600, "uid": 5, "gid": 7}, f"{CHAR} a:e5 600 5:7"),
    ({**FUSE, "fileMode": 0o20640}, f"{CHAR} a:e5 640 0:0"),
    ({**FUSE, "path": "/dev/deep/down/fuse"}, f"{CHAR} a:e5 666 0:0"),
    ({**FUSE, "path": "/opt/fuse"}, f"{CHAR} a:e5 666 0:0"),
    (LOOP, f"{BLOCK} 7:9 666 0:0"),
    ({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}, "fifo 0:0 600 0:0"),
    (
        {"path": "/dev/big", "type": "c", "major": 511, "minor": 300},
        "character special file 1ff:12c 666 0:0",
    ),
]
ASKED_IDS = [
    "plain",
    "unbuffered",
    "owner",
    "type-in-mode",
    "deep",
    "elsewhere",
    "block",
    "fifo",
    "large",
]


@pytest.mark.parametrize(("entry", "shown"), ASKED, ids=ASKED_IDS)
def test_a_device_is_made_as_asked(runtime, bundle, entry, shown):
    b = bundle("stat", "-c", "%F %t:%T %a %u:%g", entry["path"], linux={"devices": [entry]})
    assert runtime.prints(b, umask=0o77) == shown


def test_an_entry_may_change_a_default_node(runtime, bundle):
    entry = {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 3}
    b = bundle("stat", "-c", "%a %u", "/dev/zero", linux={"devices": [entry]})
    assert runtime.prints(b) in ("600 3", "600 3\n")


def test_a_node_in_dev_of_the_image_must_be_the_one_asked_for(runtime, bundle):
    mounts = [mount for mount in MOUNTS if not mount["destination"].startswith("/dev")]
    b = bundle("stat", "-c", "%t:%T", "/dev/fuse", mounts=mounts, linux={"devices": [FUSE]})
    os.mknod(b.inside("/dev/fuse"), 0o20666, os.makedev(10, 229))
    assert runtime.prints(b) == "a:e5"


@only_ocirt("runc takes whatever lies in the place of a node")
def test_another_node_in_its_place_is_refused(runtime, bundle):
    mounts = [mount for mount in MOUNTS if not mount["destination"].startswith("/dev")]
    b = bundle("true", mounts=mounts, linux={"devices": [FUSE]})
    os.mknod(b.inside("/dev/fuse"), 0o20666, os.makedev(1, 5))
    runtime.refuses_to_create(b, ours="linux.devices[0]")


@pytest.mark.parametrize("kind", ["x", ""])
def test_an_unknown_type_is_refused(runtime, bundle, kind):
    b = bundle("true", linux={"devices": [{**FUSE, "type": kind}]})
    runtime.refuses_to_create(
        b, f'invalid device type "{kind}"' if kind else "", ours="linux.devices[0]"
    )


def test_in_a_user_namespace_the_nodes_are_those_of_the_host(runtime, bundle):
    maps = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    b = bundle(
        "stat",
        "-c",
        "%F %t:%T",
        "/dev/fuse",
        linux={
            "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
            "uidMappings": maps,
            "gidMappings": maps,
            "devices": [FUSE],
        },
    )
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse here")
    assert runtime.prints(b) == "character special file a:e5"
