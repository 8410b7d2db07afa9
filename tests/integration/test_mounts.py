"""`mounts`: every option, every kind of source and destination.

runtime-spec, config.md, "Mounts", and its table of options; mount(2), mount_setattr(2).
"""

from __future__ import annotations

import os
import socket
import subprocess
import time

import pytest

from tests.integration.support import (
    MOUNTS,
    SLOWNESS,
    bind,
    cgroup_hierarchies,
    eventually,
    mount_table,
    namespaces,
    needs_v1,
    needs_v2,
    only_ocirt,
    tmpfs,
)


def table(runtime, b):
    return mount_table(runtime.prints(b))


@pytest.fixture
def show(runtime, bundle):
    """Return how a mount of /mnt (or `point`) looks from inside."""

    def show(*mounts, point="/mnt", **patch):
        b = bundle("cat", "/proc/self/mountinfo", more_mounts=mounts, **patch)
        return table(runtime, b)[point]

    return show


@pytest.fixture
def source(workdir):
    """A directory with a file and a submount point, to be bound."""
    path = os.path.join(workdir, "source")
    os.makedirs(f"{path}/sub")
    with open(f"{path}/file", "w") as file:
        file.write("content")
    return path


# --- the table of options

TMPFS_OPTIONS = [
    # option        per mount       superblock
    ("ro", {"ro"}, set()),
    ("rw", {"rw"}, {"rw"}),
    ("nosuid", {"nosuid"}, set()),
    ("nodev", {"nodev"}, set()),
    ("noexec", {"noexec"}, set()),
    ("sync", set(), {"sync"}),
    ("dirsync", set(), {"dirsync"}),
    ("noatime", {"noatime"}, set()),
    ("nodiratime", {"nodiratime", "relatime"}, set()),
    ("relatime", {"relatime"}, set()),
    ("defaults", {"rw", "relatime"}, {"rw"}),
    ("silent", {"rw"}, set()),
    ("loud", {"rw"}, set()),
    ("iversion", {"rw"}, set()),
    ("noiversion", {"rw"}, set()),
    ("lazytime", {"rw"}, {"lazytime"}),
    ("nolazytime", {"rw"}, set()),
    ("mand", {"rw"}, set()),
    ("nomand", {"rw"}, set()),
    ("async", {"rw"}, set()),
    ("suid", {"rw"}, set()),
    ("dev", {"rw"}, set()),
    ("exec", {"rw"}, set()),
    ("atime", {"relatime"}, set()),
    ("diratime", {"relatime"}, set()),
    ("size=64k", {"rw"}, {"size=64k"}),
    ("mode=700", {"rw"}, {"mode=700"}),
    ("uid=5", {"rw"}, {"uid=5"}),
    ("gid=7", {"rw"}, {"gid=7"}),
    ("nr_inodes=77", {"rw"}, {"nr_inodes=77"}),
]
NEWER_OPTIONS = {
    "nosymfollow": {"nosymfollow"},
    "symfollow": {"rw"},
}
UNKNOWN_TO = {  # these take them for data of the file system, which refuses them
    "runc": {"lazytime", "nolazytime", "defaults"},
    "crun": {"silent", "loud", "iversion", "noiversion", "lazytime", "nolazytime"},
}


@pytest.mark.parametrize(
    ("option", "shown", "super_shown"), TMPFS_OPTIONS, ids=[row[0] for row in TMPFS_OPTIONS]
)
def test_an_option_of_a_new_file_system(runtime, show, option, shown, super_shown):
    if option in UNKNOWN_TO.get(runtime.flavour, ()):
        pytest.skip(f"{runtime.flavour} does not know it")
    mount = show(tmpfs("/mnt", option))
    assert shown <= mount.options
    assert super_shown <= mount.super_options


def test_strictatime_is_neither_relatime_nor_noatime(show):
    assert not {"relatime", "noatime"} & show(tmpfs("/mnt", "strictatime")).options


@only_ocirt("runc 1.1 does not know nosymfollow")
@pytest.mark.parametrize(("option", "shown"), NEWER_OPTIONS.items())
def test_a_newer_option(show, option, shown):
    assert shown <= show(tmpfs("/mnt", option)).options


def test_the_last_of_contrary_options_wins(show):
    shown = show(tmpfs("/mnt", "nosuid", "ro", "noexec", "suid", "rw", "nodev")).options
    assert not {"nosuid", "ro"} & shown
    assert {"noexec", "nodev", "rw"} <= shown


def test_an_unknown_option_reaches_the_kernel_which_refuses_it(runtime, bundle):
    b = bundle("true", more_mounts=[tmpfs("/mnt", "nosiud")])
    runtime.refuses_to_create(b, "invalid argument", ours="mounts[5]")


BIND_OPTIONS = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"]


@pytest.mark.parametrize("option", BIND_OPTIONS)
@pytest.mark.parametrize("kind", ["bind", "rbind"])
def test_an_option_of_a_bind_mount(show, source, kind, option):
    assert option in show(bind(source, "/mnt", kind, option)).options


CLEARING = [
    # the source has  the config says   so the mount no longer has
    ("ro", "rw", "ro"),
    ("nosuid", "suid", "nosuid"),
    ("nodev", "dev", "nodev"),
    ("noexec", "exec", "noexec"),
    ("noatime", "atime", "noatime"),
    ("nodiratime", "diratime", "nodiratime"),
]


@only_ocirt("runc 1.1 leaves a bind mount as it is when options only clear flags")
@pytest.mark.parametrize(("has", "says", "gone"), CLEARING, ids=[row[1] for row in CLEARING])
def test_an_option_clears_what_the_source_had(show, source, host_mount, has, says, gone):
    host_mount("-t", "tmpfs", "-o", has, "none", source)
    shown = show(bind(source, "/mnt", says)).options
    assert gone not in shown


def test_a_bind_without_options_keeps_the_flags_of_its_source(show, source, host_mount):
    host_mount("-t", "tmpfs", "-o", "ro,nosuid,nodev,noexec", "none", source)
    assert {"ro", "nosuid", "nodev", "noexec"} <= show(bind(source, "/mnt")).options


def test_binds_leave_their_source_alone(show, source, host_mount):
    host_mount("-t", "tmpfs", "none", source)
    assert "ro" in show(bind(source, "/mnt", "ro", "nosuid")).options
    with open("/proc/self/mountinfo") as file:
        mine = mount_table(file.read())[source]
    assert not {"ro", "nosuid"} & mine.options


def test_data_on_a_bind_is_passed_over(runtime, bundle, source):
    b = bundle("cat", "/mnt/file", more_mounts=[bind(source, "/mnt", "size=1m")])
    assert runtime.prints(b) == "content"


# --- recursive attributes

RECURSIVE = [
    # option        the submount shows
    ("rro", {"ro"}),
    ("rnosuid", {"nosuid"}),
    ("rnodev", {"nodev"}),
    ("rnoexec", {"noexec"}),
    ("rnodiratime", {"nodiratime"}),
    ("rnoatime", {"noatime"}),
    ("rrelatime", {"relatime"}),
    ("rnosymfollow", {"nosymfollow"}),
]
RECURSIVE_CLEAR = [
    # the submount has  option        so it no longer shows
    ("ro", "rrw", "ro"),
    ("nosuid", "rsuid", "nosuid"),
    ("nodev", "rdev", "nodev"),
    ("noexec", "rexec", "noexec"),
    ("nodiratime", "rdiratime", "nodiratime"),
    pytest.param(
        *("noatime", "ratime", "noatime"),
        marks=only_ocirt("runc 1.1 forgets that any choice of atime clears the others"),
    ),
    ("noatime", "rrelatime", "noatime"),
    ("relatime", "rstrictatime", "relatime"),
    ("nosymfollow", "rsymfollow", "nosymfollow"),
]


@pytest.fixture
def tree(source, host_mount):
    """Return a function that mounts source/sub with some options."""

    def tree(options="rw"):
        host_mount("-t", "tmpfs", "none", source)
        os.mkdir(f"{source}/sub")
        host_mount("-t", "tmpfs", "-o", options, "none", f"{source}/sub")
        return source

    return tree


@pytest.mark.parametrize(("option", "shown"), RECURSIVE, ids=[row[0] for row in RECURSIVE])
def test_a_recursive_option_reaches_the_submount(show, tree, option, shown):
    assert shown <= show(bind(tree(), "/mnt", "rbind", option), point="/mnt/sub").options


@pytest.mark.parametrize(
    ("has", "option", "gone"),
    RECURSIVE_CLEAR,
    ids=[getattr(row, "values", row)[1] for row in RECURSIVE_CLEAR],
)
def test_a_recursive_option_clears_a_flag_of_the_submount(show, tree, has, option, gone):
    shown = show(bind(tree(has), "/mnt", "rbind", option), point="/mnt/sub").options
    assert gone not in shown


def test_a_plain_option_stops_at_the_top(runtime, bundle, tree):
    b = bundle("cat", "/proc/self/mountinfo", more_mounts=[bind(tree(), "/mnt", "rbind", "ro")])
    found = table(runtime, b)
    assert "ro" in found["/mnt"].options
    assert "rw" in found["/mnt/sub"].options


def test_several_recursive_options_work_together(show, tree):
    mount = bind(tree(), "/mnt", "rbind", "rro", "rnosuid", "rnoatime", "rnodiratime")
    shown = show(mount, point="/mnt/sub").options
    assert {"ro", "nosuid", "noatime", "nodiratime"} <= shown


# --- propagation

PROPAGATION = [
    # option       as mountinfo shows it, of a source that is shared
    ("private", "private"),
    ("rprivate", "private"),
    ("slave", "master"),
    ("rslave", "master"),
    ("shared", "master shared"),
    ("rshared", "master shared"),
    ("unbindable", "unbindable"),
    ("runbindable", "unbindable"),
]


@pytest.mark.parametrize(("option", "shown"), PROPAGATION, ids=[row[0] for row in PROPAGATION])
def test_propagation_of_a_mount(show, source, host_mount, option, shown):
    host_mount("-t", "tmpfs", "none", source)
    assert show(bind(source, "/mnt", "rbind", option)).propagation == shown


def test_propagation_of_a_submount_follows_the_recursive_option_only(runtime, bundle, tree):
    path = tree()
    for option, below in (("private", "master"), ("rprivate", "private")):
        mount = bind(path, "/mnt", "rbind", option)
        found = table(runtime, bundle("cat", "/proc/self/mountinfo", more_mounts=[mount]))
        assert found["/mnt"].propagation == "private"
        assert found["/mnt/sub"].propagation == below


def test_a_mount_of_the_host_reaches_a_slave_and_not_a_private_mount(
    runtime, bundle, source, host_mount
):
    host_mount("-t", "tmpfs", "none", source)
    os.mkdir(f"{source}/new")
    b = bundle.sh(
        "echo ready; while ! grep -q ' /slave/new ' /proc/self/mountinfo; do usleep 20000; done; "
        'for kind in private slave; do grep -c " /$kind/new " /proc/self/mountinfo; done',
        more_mounts=[
            bind(source, "/slave", "rbind", "rslave"),
            bind(source, "/private", "rprivate"),
        ],
    )
    runtime.started(b)
    assert eventually(lambda: "ready" in b.output())
    host_mount("-t", "tmpfs", "none", f"{source}/new")
    runtime.wait(b)
    assert b.output().split() == ["ready", "0", "1"]


def test_a_mount_in_a_shared_mount_reaches_the_host(runtime, bundle, source, host_mount):
    """What Kubernetes calls bidirectional: storage plug-ins live on it."""
    host_mount("-t", "tmpfs", "none", source)
    names = ["CAP_SYS_ADMIN"]
    b = bundle.sh(
        "mkdir /mnt/new && mount -t tmpfs none /mnt/new && touch /mnt/new/file",
        more_mounts=[bind(source, "/mnt", "rbind", "rshared")],
        process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names)},
        linux={"rootfsPropagation": "rshared"},
    )
    assert runtime.run(b).code == 0
    assert os.path.exists(f"{source}/new/file")
    subprocess.run(["umount", f"{source}/new"], check=True)


def test_mounts_of_the_container_stay_inside(runtime, bundle, host):
    names = ["CAP_SYS_ADMIN"]
    b = bundle.sh(
        "mount -t tmpfs none /tmp && echo up && exec sleep 1000",
        process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names)},
    )
    runtime.started(b)
    assert eventually(lambda: "up" in b.output())
    assert host.mounts() == host.before["mount"]


# --- sources


def test_a_bind_shows_the_source(runtime, bundle, source):
    b = bundle("cat", "/mnt/file", more_mounts=[bind(source, "/mnt")])
    assert runtime.prints(b) == "content"


@pytest.mark.parametrize("kind", ["none", "", "bind", "nonsense"])
def test_the_option_makes_the_bind_whatever_the_type(runtime, bundle, source, kind):
    mount = {**bind(source, "/mnt"), "type": kind}
    assert runtime.prints(bundle("cat", "/mnt/file", more_mounts=[mount])) == "content"


def test_a_relative_source_is_below_the_bundle(runtime, bundle):
    b = bundle("cat", "/mnt/file", more_mounts=[bind("data", "/mnt")])
    os.mkdir(f"{b.path}/data")
    with open(f"{b.path}/data/file", "w") as file:
        file.write("here")
    assert runtime.prints(b) == "here"


def test_bind_leaves_submounts_behind_and_rbind_takes_them_along(runtime, bundle, tree):
    path = tree()
    for kind, count in (("bind", 0), ("rbind", 1)):
        b = bundle("cat", "/proc/self/mountinfo", more_mounts=[bind(path, "/mnt", kind)])
        assert runtime.prints(b).count(" /mnt/sub ") == count


def test_a_missing_source_is_refused(runtime, bundle):
    b = bundle("true", more_mounts=[bind("/nowhere/at/all", "/mnt")])
    runtime.refuses_to_create(b, "no such file or directory", ours="mounts[5]")


def test_a_symlinked_source_is_followed_on_the_host(runtime, bundle, source, workdir):
    os.symlink(source, f"{workdir}/link")
    b = bundle("cat", "/mnt/file", more_mounts=[bind(f"{workdir}/link", "/mnt")])
    assert runtime.prints(b) == "content"


@pytest.mark.parametrize("what", ["file", "fifo", "socket", "device"])
def test_any_kind_of_file_can_be_bound(runtime, bundle, source, what):
    path, shown = f"{source}/{what}", "regular file"
    if what == "fifo":
        os.mkfifo(path)
        shown = "fifo"
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
        shown = "socket"
    elif what == "device":
        path, shown = "/dev/null", "character special file"
    b = bundle("stat", "-c", "%F", "/run/deep/target", more_mounts=[bind(path, "/run/deep/target")])
    assert runtime.prints(b) == shown


def test_a_file_over_a_file(runtime, bundle, source):
    b = bundle("cat", "/etc/passwd", more_mounts=[bind(f"{source}/file", "/etc/passwd")])
    assert runtime.prints(b) == "content"


def test_a_file_over_a_directory_is_refused(runtime, bundle, source):
    b = bundle("true", more_mounts=[bind(f"{source}/file", "/etc")])
    runtime.refuses_to_create(b, "not a directory", ours="mounts[5]")


# --- destinations


def test_a_missing_destination_is_made(runtime, bundle, source):
    b = bundle.sh(
        "stat -c '%a %F' /a /a/b /f /f/g/h",
        more_mounts=[bind(source, "/a/b/c"), bind(f"{source}/file", "/f/g/h")],
    )
    assert runtime.prints(b).splitlines() == [
        "755 directory",
        "755 directory",
        "755 directory",
        "644 regular file",
    ]


@only_ocirt("runc resolves it inside the rootfs")
def test_a_destination_that_climbs_is_refused(runtime, bundle, source):
    b = bundle("true", more_mounts=[bind(source, "/mnt/../mnt2")])
    runtime.refuses_to_create(b, ours="mounts[5].destination")


@pytest.mark.parametrize("destination", ["/./mnt2/", "//mnt2"])
def test_a_destination_is_cleaned(runtime, bundle, source, destination):
    b = bundle("cat", "/mnt2/file", more_mounts=[bind(source, destination)])
    os.mkdir(b.inside("/mnt"))
    assert runtime.prints(b) == "content"


def test_a_relative_destination_is_below_the_root(runtime, bundle, source):
    """The spec asks for an absolute path; old configs have others, so runc only warns."""
    b = bundle("cat", "/mnt/file", process={"cwd": "/tmp"}, more_mounts=[bind(source, "mnt")])
    assert runtime.prints(b) == "content"


def test_a_symlinked_destination_is_followed_inside_the_root(runtime, bundle, source):
    b = bundle("cat", "/real/deep/file", more_mounts=[bind(source, "/link/deep")])
    os.makedirs(b.inside("/real"))
    os.symlink("/real", b.inside("/link"))
    assert runtime.prints(b) == "content"


def test_mounts_are_made_in_the_order_of_the_list(runtime, bundle, source):
    b = bundle.sh(
        "ls /mnt /mnt/inner",
        more_mounts=[bind(source, "/mnt"), tmpfs("/mnt", "size=1m"), bind(source, "/mnt/inner")],
    )
    assert runtime.prints(b).split() == ["/mnt:", "inner", "/mnt/inner:", "file", "sub"]


@only_ocirt("runc 1.1 mounts over the root, unseen")
def test_a_mount_on_the_root_is_refused(runtime, bundle, source):
    b = bundle("true", more_mounts=[bind(source, "/")])
    runtime.refuses_to_create(b, ours="mounts[5]")


PROC_FILES = ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg"]


@pytest.mark.parametrize("name", PROC_FILES)
def test_a_file_of_proc_may_be_covered_as_lxcfs_does(runtime, bundle, source, name):
    b = bundle("cat", f"/proc/{name}", more_mounts=[bind(f"{source}/file", f"/proc/{name}")])
    assert runtime.prints(b) == "content"


@pytest.mark.parametrize(
    "destination", ["/proc/sys", "/proc/self", "/proc/self/attr", "/proc/1", "/proc/kcore"]
)
def test_nothing_else_of_proc_may_be_covered(runtime, bundle, source, destination):
    b = bundle("true", more_mounts=[bind(source, destination)])
    runtime.refuses_to_create(b, "/proc", ours="mounts[5]")


# --- tmpfs


def test_a_tmpfs_takes_over_the_mode_of_its_place(runtime, bundle):
    b = bundle("stat", "-c", "%a", "/place", more_mounts=[tmpfs("/place")])
    os.mkdir(b.inside("/place"))
    os.chmod(b.inside("/place"), 0o2751)
    assert runtime.prints(b) in ("2751", "751")


@only_ocirt("runc 1.1 prefers the mode of the place to the mode asked for")
def test_a_tmpfs_with_a_mode_has_that_mode(runtime, bundle):
    b = bundle("stat", "-c", "%a", "/place", more_mounts=[tmpfs("/place", "mode=1700")])
    os.mkdir(b.inside("/place"))
    assert runtime.prints(b) == "1700"


def test_tmpcopyup_starts_with_what_was_there(runtime, bundle):
    b = bundle.sh(
        "cat /place/file /place/dir/inner; readlink /place/link; stat -c '%a %u:%g' /place/file; "
        "echo new > /place/file; grep -c ' /place ' /proc/self/mountinfo",
        more_mounts=[tmpfs("/place", "tmpcopyup", "size=1m")],
    )
    b.put("/place/file", "one\n", 0o666)
    b.put("/place/dir/inner", "two\n")
    os.symlink("/nowhere", b.inside("/place/link"))
    os.chown(b.inside("/place/file"), 5, 7)
    assert runtime.prints(b).splitlines() == ["one", "two", "/nowhere", "666 5:7", "1"]
    with open(b.inside("/place/file")) as file:
        assert file.read() == "one\n"


def test_a_read_only_tmpfs_on_dev_still_gets_its_nodes(runtime, bundle):
    mounts = [
        {**m, "options": [*m.get("options", []), "ro"]} if m["destination"] == "/dev" else m
        for m in MOUNTS
    ]
    b = bundle.sh("test -c /dev/null && touch /dev/x 2>/dev/null || echo ro", mounts=mounts)
    assert runtime.prints(b) == "ro"


# --- id-mapped

MAPS = [{"containerID": 0, "hostID": 1000, "size": 100}]


@only_ocirt("runc 1.1 has no id-mapped mounts")
def test_an_idmapped_mount_shows_other_owners(runtime, bundle, source):
    os.chown(f"{source}/file", 0, 5)
    mount = {**bind(source, "/mnt"), "uidMappings": MAPS, "gidMappings": MAPS}
    b = bundle("stat", "-c", "%u:%g", "/mnt/file", more_mounts=[mount])
    assert runtime.prints(b) == "1000:1005"
    assert os.stat(f"{source}/file").st_uid == 0


@only_ocirt("runc 1.1 has no id-mapped mounts")
@pytest.mark.parametrize(("option", "owner"), [("idmap", "0"), ("ridmap", "1000")])
def test_ridmap_reaches_the_submounts(runtime, bundle, tree, option, owner):
    path = tree()
    mount = {**bind(path, "/mnt", "rbind", option), "uidMappings": MAPS, "gidMappings": MAPS}
    b = bundle("stat", "-c", "%u", "/mnt", "/mnt/sub", more_mounts=[mount])
    assert runtime.prints(b).split() == ["1000", owner]


@only_ocirt("runc 1.1 has no id-mapped mounts")
def test_an_idmapped_mount_without_maps_takes_those_of_the_container(runtime, bundle, source):
    user = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    b = bundle(
        "stat",
        "-c",
        "%u:%g",
        "/mnt/file",
        more_mounts=[bind(source, "/mnt", "idmap")],
        linux={
            "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
            "uidMappings": user,
            "gidMappings": user,
        },
    )
    os.mkdir(b.inside("/mnt"))
    assert runtime.prints(b) == "0:0"


@only_ocirt("runc 1.1 has no id-mapped mounts")
@pytest.mark.parametrize("given", ["uidMappings", "gidMappings"])
def test_an_idmapped_mount_needs_both_maps(runtime, bundle, source, given):
    b = bundle("true", more_mounts=[{**bind(source, "/mnt"), given: MAPS}])
    runtime.refuses_to_create(b, ours="mounts[5]")


@only_ocirt("runc 1.1 passes over the maps")
def test_only_a_bind_can_be_idmapped(runtime, bundle):
    b = bundle("true", more_mounts=[{**tmpfs("/mnt"), "uidMappings": MAPS, "gidMappings": MAPS}])
    runtime.refuses_to_create(b, ours="mounts[5]")


# --- other file systems


def test_mqueue_proc_and_devpts_are_the_containers_own(runtime, bundle):
    mqueue = {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}
    b = bundle("cat", "/proc/self/mountinfo", more_mounts=[mqueue])
    found = table(runtime, b)
    assert found["/dev/mqueue"].fstype == "mqueue"
    assert found["/dev/pts"].fstype == "devpts"
    assert found["/proc"].fstype == "proc"
    assert {"ptmxmode=666", "gid=5", "mode=620"} <= found["/dev/pts"].super_options


def test_an_unknown_file_system_is_refused(runtime, bundle):
    b = bundle("true", more_mounts=[{"destination": "/mnt", "type": "moonfs", "source": "x"}])
    runtime.refuses_to_create(b, "no such device", ours="mounts[5]")


def test_overlay_can_be_mounted(runtime, bundle, workdir):
    for name in ("lower", "upper", "work"):
        os.mkdir(f"{workdir}/{name}")
    with open(f"{workdir}/lower/file", "w") as file:
        file.write("below")
    mount = {
        "destination": "/mnt",
        "type": "overlay",
        "source": "overlay",
        "options": [f"{name}dir={workdir}/{name}" for name in ("lower", "upper", "work")],
    }
    b = bundle.sh("cat /mnt/file; echo x > /mnt/new", more_mounts=[mount])
    result = runtime.run(b)
    if result.code and "no such device" in result.error:
        pytest.skip("no overlayfs here")
    assert result.out == "below"
    assert os.path.exists(f"{workdir}/upper/new")


CGROUP = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}


@needs_v1
@pytest.mark.parametrize("private", [False, True], ids=["host", "private"])
def test_a_v1_cgroup_mount_shows_every_hierarchy_from_its_own_place(runtime, bundle, private):
    listed = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if private else [])]
    b = bundle.sh(
        "cat /sys/fs/cgroup/pids/cgroup.procs | head -1; cat /proc/self/mountinfo",
        more_mounts=[CGROUP],
        linux={"namespaces": namespaces(*listed)},
    )
    first, _, text = runtime.prints(b).partition("\n")
    assert first == "1"
    found = mount_table(text)
    names = {os.path.basename(path) for path in cgroup_hierarchies()} - {"unified"}
    shown = {name for name in names if f"/sys/fs/cgroup/{name}" in found}
    assert shown == names
    assert found["/sys/fs/cgroup"].fstype == "tmpfs"
    assert {"nosuid", "noexec", "nodev"} <= found["/sys/fs/cgroup"].options
    if runtime.is_ocirt:  # runc 1.1 leaves the tmpfs above the hierarchies writable
        assert "ro" in found["/sys/fs/cgroup"].options
    assert all("ro" in found[f"/sys/fs/cgroup/{name}"].options for name in names)


@needs_v1
def test_a_writable_v1_cgroup_mount_can_be_written(runtime, bundle):
    mount = {**CGROUP, "options": ["nosuid", "noexec", "nodev"]}
    b = bundle.sh(
        "mkdir /sys/fs/cgroup/pids/inner && rmdir /sys/fs/cgroup/pids/inner && echo ok",
        more_mounts=[mount],
    )
    assert runtime.prints(b) == "ok"


@needs_v2
@pytest.mark.parametrize("private", [False, True], ids=["host", "private"])
def test_a_v2_cgroup_mount(runtime, bundle, private):
    listed = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if private else [])]
    b = bundle.sh(
        "grep ^0: /proc/self/cgroup; cat /proc/self/mountinfo; ls /sys/fs/cgroup",
        more_mounts=[CGROUP],
        linux={"namespaces": namespaces(*listed)},
    )

    def machines():
        with open("/proc/self/mountinfo") as file:
            return mount_table(file.read())["/sys/fs/cgroup"].super_options

    before = machines()
    text = runtime.prints(b)
    assert machines() == before, "a mount has changed the options that the machine's shares with it"
    own = text.partition("\n")[0]
    found = mount_table("\n".join(line for line in text.splitlines() if " - " in line))
    assert own == ("0::/" if private else f"0::/ocirt-test/{b.id}")
    assert found["/sys/fs/cgroup"].fstype == "cgroup2"
    assert {"ro", "nosuid", "noexec", "nodev"} <= found["/sys/fs/cgroup"].options
    assert ("ocirt-test" in text.split()) is not private
    assert "cgroup.procs" in text.split()


def test_many_mounts_do_not_overflow_anything(runtime, bundle, source):
    """A list of more than 64 KiB once overflowed runc's bootstrap (CVE-2021-43784)."""
    long = "x" * 200
    mounts = [bind(source, f"/m/{long}/{long}/{number}") for number in range(200)]
    b = bundle.sh(f"ls /m/{long}/{long} | wc -l", more_mounts=mounts)
    began = time.monotonic()
    assert runtime.prints(b) == "200"
    assert time.monotonic() - began < 15 * SLOWNESS
