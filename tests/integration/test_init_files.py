"""The init's ops on the file system, one by one: mounts, nodes, masks, and hostile rootfs."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import termios
import threading
from pathlib import Path

import pytest

from ocirt.plan import ops
from tests.integration.init_driver import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    ISOLATED,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_SHARED,
    PIVOT,
    PROC,
    Init,
    asks,
    bind,
    contained,
    make_rootfs,
    mount,
    op,
    output,
    program,
    refused,
)

ATTR_RDONLY, ATTR_NOEXEC = 1, 8


@pytest.fixture(autouse=True)
def nothing_leaks(machine):
    """The session shares its mounts, so whatever gets out of a container shows here."""
    before = Path("/proc/self/mountinfo").read_text()
    yield
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.fixture
def rootfs(machine, tmp_path):
    return make_rootfs(tmp_path / "rootfs")


@pytest.fixture
def outside(tmp_path):
    """A directory of the host that no container may change."""
    path = tmp_path / "outside"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


def mounts(init: Init) -> dict[str, list[str]]:
    """Mount point to options and super options, of the topmost mount there."""
    found = {}
    for line in Path(f"/proc/{init.pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        found[fields[4]] = [*fields[5].split(","), *fields[6:], *right.split()]
    return found


def as_asked(init: Init) -> None:
    assert init.last is not None
    assert init.last.kind == ops.ASK, (init.last, init.last.index - init.first)


# --- mount


def test_a_destination_is_made_with_its_parents(rootfs):
    with contained(rootfs, mount("tmpfs", "/a/b/c", data="mode=700")) as init:
        as_asked(init)
        assert stat.S_IMODE((init.view / "a/b").stat().st_mode) == 0o755
        assert stat.S_IMODE((init.view / "a/b/c").stat().st_mode) == 0o700


def test_a_destination_that_may_not_be_made_is_missing(rootfs):
    assert refused(rootfs, mount("tmpfs", "/a", how=0)) == (0, errno.ENOENT, "")


def test_a_tmpfs_takes_over_the_mode_of_its_directory(rootfs):
    (rootfs / "private").mkdir(mode=0o700)
    plan = [
        mount("tmpfs", "/private", data="size=64k"),
        mount("tmpfs", "/new"),
        mount("tmpfs", "/tmp", data="size=1m,mode=1770"),
    ]
    with contained(rootfs, *plan) as init:
        as_asked(init)
        modes = [stat.S_IMODE((init.view / n).stat().st_mode) for n in ("private", "new", "tmp")]
        assert modes == [0o700, 0o1777, 0o1770]


def test_tmpcopyup_brings_the_content_along(rootfs):
    below = rootfs / "etc"
    (below / "deep" / "er").mkdir(parents=True)
    (below / "deep" / "er" / "file").write_text("text")
    (below / "deep" / "er" / "file").chmod(0o4750)
    os.chown(below / "deep" / "er", 7, 8)
    os.utime(below / "deep", (5, 6))
    (below / "link").symlink_to("/etc/passwd")
    os.mkfifo(below / "fifo", 0o600)
    os.setxattr(below / "deep", "trusted.kept", b"yes")
    for i in range(300):
        (below / f"number {i}").write_text(str(i))
    how = ops.MAKE_DIR | ops.COPY_UP
    with contained(rootfs, mount("tmpfs", "/etc", MS_RDONLY | MS_NODEV, how=how)) as init:
        as_asked(init)
        copy = init.view / "etc"
        assert {p.name for p in copy.iterdir()} == {p.name for p in below.iterdir()}
        assert (copy / "deep/er/file").read_text() == "text"
        assert stat.S_IMODE((copy / "deep/er/file").stat().st_mode) == 0o4750
        assert (copy / "deep/er").stat().st_uid == 7
        assert (copy / "deep").stat().st_mtime == 6
        assert os.getxattr(copy / "deep", "trusted.kept") == b"yes"
        assert os.readlink(copy / "link") == "/etc/passwd"
        assert stat.S_ISFIFO((copy / "fifo").lstat().st_mode)
        assert (copy / "number 299").read_text() == "299"
        with pytest.raises(OSError, match="Read-only"):
            (copy / "new").write_text("")


def test_proc_behind_a_symlink_is_refused(rootfs):
    (rootfs / "proc").rmdir()
    (rootfs / "elsewhere").mkdir()
    (rootfs / "proc").symlink_to("elsewhere")
    assert refused(rootfs, PROC) == (0, errno.ELOOP, "")


def test_what_is_no_procfs_does_not_pass_for_one(rootfs):
    how = ops.MAKE_DIR | ops.VERIFY_PROC
    assert refused(rootfs, mount("tmpfs", "/proc", how=how)) == (0, errno.EXDEV, "")
    how = ops.MAKE_DIR | ops.VERIFY_SYS
    assert refused(rootfs, mount("tmpfs", "/sys", how=how)) == (0, errno.EXDEV, "")


def test_proc_and_sys_are_verified(rootfs):
    sysfs = mount("sysfs", "/sys", MS_RDONLY, how=ops.MAKE_DIR | ops.NO_LINKS | ops.VERIFY_SYS)
    with contained(rootfs, PROC, sysfs) as init:
        as_asked(init)
        assert (init.view / "proc/1/comm").exists()


def test_an_unknown_option_is_the_kernels_to_refuse(rootfs):
    assert refused(rootfs, mount("tmpfs", "/tmp", data="nonsense")) == (0, errno.EINVAL, "")


def test_remount_changes_the_file_system(rootfs):
    plan = [mount("tmpfs", "/tmp", data="size=64k"), op("remount", "/tmp", MS_RDONLY, "size=128k")]
    with contained(rootfs, *plan) as init:
        as_asked(init)
        assert "ro" in mounts(init)["/tmp"]
        assert "size=128k" in mounts(init)["/tmp"][-1]


def test_nothing_is_mounted_inside_of_proc_unless_it_may(rootfs):
    (rootfs / "alias").symlink_to("proc/uptime")
    text = "is inside /proc, and must not be covered"
    for dest in ("/proc/uptime", "/alias", "/tmp/../proc/uptime"):
        assert refused(rootfs, PROC, bind("/etc/hosts", dest)) == (1, 0, text)
    assert refused(rootfs, PROC, mount("tmpfs", "/proc/sys")) == (1, 0, text)
    with contained(rootfs, PROC, bind("/etc/hosts", "/proc/uptime", how=ops.IN_PROC)) as init:
        as_asked(init)
        assert (init.view / "proc/uptime").read_text() == Path("/etc/hosts").read_text()


# --- bind


def test_a_bind_has_its_attributes_from_the_start(rootfs, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("x")
    with contained(
        rootfs, bind(tmp_path / "data", "/data", attr=ATTR_RDONLY | ATTR_NOEXEC)
    ) as init:
        as_asked(init)
        assert {"ro", "noexec"} <= set(mounts(init)["/data"])
        assert (init.view / "data/file").read_text() == "x"


def test_the_destination_is_made_as_what_the_source_is(rootfs, tmp_path):
    (tmp_path / "file").write_text("text")
    with contained(rootfs, bind(tmp_path / "file", "/a/b", how=ops.MAKE_DIR)) as init:
        as_asked(init)
        assert (init.view / "a/b").read_text() == "text"
    assert (rootfs / "a/b").read_text() == ""


def test_a_recursive_bind_brings_submounts(rootfs, tmp_path):
    first = [mount("tmpfs", "/tmp"), mount("tmpfs", "/tmp/sub"), mount("tmpfs", "/tmp/sub/x")]
    below = f"{rootfs}/tmp/sub"
    plan = [*first, bind(below, "/all", recursive=1), bind(below, "/one")]
    with contained(rootfs, *plan) as init:
        as_asked(init)
        assert "/all/x" in mounts(init)
        assert "/one/x" not in mounts(init)


def test_a_missing_source_is_missing(rootfs):
    assert refused(rootfs, bind("/nowhere", "/x")) == (0, errno.ENOENT, "")


def test_trees_opened_outside_are_slaves_of_the_host(rootfs, tmp_path):
    (tmp_path / "data").mkdir()
    plan = [bind("", "/data", tree="tree", recursive=1)]
    with Init() as init:
        init.slots["tree"] = 500
        init.clone(op("open_tree", 500, str(tmp_path / "data"), 1))
        init.send(
            op("propagation", 1 << 19 | MS_REC), op("rootfs", str(rootfs), 1), *plan, PIVOT, asks()
        )
        init.last = init.reply()
        as_asked(init)
        assert not any(word.startswith("shared:") for word in mounts(init)["/data"])


def test_a_slot_is_filled_only_once(rootfs, tmp_path):
    with Init() as init:
        tree = op("open_tree", 500, str(tmp_path), 0)
        init.send(tree, tree)
        assert init.reply()[:3] == (ops.FAIL, 1, errno.EBADSLT)


def test_an_id_mapped_bind_shows_other_owners(rootfs, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "root's").write_text("")
    with Init() as init:
        init.slots["tree"] = 500
        init.clone(
            op("open_tree", 500, str(data), 0),
            op("idmap", 500, "0 1000 10\n", "0 2000 10\n", 0),
            op("open_tree", 501, str(data), 0),
            op("idmap", 501, "0 1000 10\n", "0 2000 10\n", 0),
        )
        init.send(
            op("propagation", 1 << 19 | MS_REC),
            op("rootfs", str(rootfs), 1),
            bind("", "/data", tree="tree"),
            PIVOT,
            asks(),
        )
        init.last = init.reply()
        if init.last.kind == ops.FAIL and init.last.value == errno.EINVAL:
            pytest.skip("this file system takes no id-mapped mounts")
        as_asked(init)
        info = Path(f"/proc/{init.pid}/root/data/root's").stat()
        assert (info.st_uid, info.st_gid) == (1000, 2000)


# --- attributes


def test_attributes_and_propagation_of_a_destination(rootfs):
    plan = [
        mount("tmpfs", "/tmp"),
        mount("tmpfs", "/tmp/sub"),
        op("set_attr", "/tmp", ATTR_RDONLY, 0, MS_SHARED, 0),
        op("set_attr", "/tmp", ATTR_NOEXEC, 0, 0, 1),
    ]
    with contained(rootfs, *plan) as init:
        as_asked(init)
        found = mounts(init)
        assert {"ro", "noexec"} <= set(found["/tmp"])
        assert "noexec" in found["/tmp/sub"]
        assert "ro" not in found["/tmp/sub"][0]
        assert any(word.startswith("shared:") for word in found["/tmp"])


# --- hostile paths


def test_links_of_the_image_end_in_the_image(rootfs, outside):
    (rootfs / "escape").symlink_to(outside)
    (rootfs / "up").symlink_to("../../../../../../../../" + str(outside))
    plan = [
        op("mkdir", "/escape/a", 0o755, 0),
        op("mkdir", "/up/b", 0o755, 0),
        mount("tmpfs", "/escape/c"),
        op("symlink", "x", "/escape/d", 0),
        op("node", "/up/e", 0o20666, 1, 3, 0, 0, "/dev/null", 0),
        bind("/etc/hostname", "/up/f"),
    ]
    with contained(rootfs, *plan) as init:
        as_asked(init)
    inside = rootfs / str(outside).lstrip("/")
    assert {p.name for p in inside.iterdir()} == set("abcdef")


def test_a_dangling_link_gets_its_target_made(rootfs):
    (rootfs / "etc/resolv.conf").symlink_to("../run/a/./resolv.conf")
    with contained(rootfs, bind("/etc/hosts", "/etc/resolv.conf")) as init:
        as_asked(init)
        assert (init.view / "run/a/resolv.conf").read_text() == Path("/etc/hosts").read_text()


def test_links_in_a_circle_come_to_an_end(rootfs):
    (rootfs / "a").symlink_to("b")
    (rootfs / "b").symlink_to("a")
    assert refused(rootfs, op("mkdir", "/a/x", 0o755, 0)) == (0, errno.ELOOP, "")
    (rootfs / "c").symlink_to("c/c")
    assert refused(rootfs, op("mkdir", "/c", 0o755, 0)) == (0, errno.ELOOP, "")


def test_what_does_not_exist_has_no_parent(rootfs):
    plan = op("mkdir", "/missing/../x", 0o755, 0)
    assert refused(rootfs, plan) == (0, errno.ENOENT, "")
    assert not (rootfs / "x").exists()


def test_a_long_path_is_refused(rootfs):
    plan = op("mkdir", "/x" * 3000, 0o755, 0)
    assert refused(rootfs, plan) == (0, errno.ENAMETOOLONG, "")


def test_magic_links_are_not_followed(rootfs, outside):
    plan = [PROC, op("mkdir", "/proc/self/cwd/x", 0o755, 0)]
    assert refused(rootfs, *plan)[:2] == (1, errno.ELOOP)


def test_an_image_whose_dev_is_a_link_gets_no_nodes_elsewhere(rootfs):
    (rootfs / "dev").rmdir()
    (rootfs / "dev").symlink_to("tmp")
    null = op("node", "/dev/null", 0o20666, 1, 3, 0, 0, "/dev/null", 0)
    assert refused(rootfs, null) == (0, errno.ELOOP, "")
    assert refused(rootfs, op("symlink", "x", "/dev/y", 0)) == (0, errno.ELOOP, "")
    assert list((rootfs / "tmp").iterdir()) == []


def test_a_rootfs_that_is_a_link_is_refused(rootfs, tmp_path):
    (tmp_path / "link").symlink_to(rootfs)
    with contained(tmp_path / "link") as init:
        assert init.last.kind == ops.FAIL
        assert init.last.value == errno.ENOTDIR


@pytest.fixture
def swapped(tmp_path, rootfs, outside):
    """rootfs/volume/target is now a directory, now a link to the host, as fast as can be."""
    volume = rootfs / "volume"
    volume.mkdir()
    (volume / "target").mkdir()
    (volume / "other").symlink_to("../" * 12 + str(outside).lstrip("/"))
    done = threading.Event()
    libc = ctypes.CDLL(None)

    def swap():
        names = (os.fsencode(volume / "target"), os.fsencode(volume / "other"))
        while not done.is_set():
            for _ in range(50):
                libc.renameat2(-100, names[0], -100, names[1], 2)  # RENAME_EXCHANGE

    thread = threading.Thread(target=swap)
    thread.start()
    yield volume / "target"
    done.set()
    thread.join()


def test_a_race_for_the_destination_is_not_won(rootfs, swapped, outside):
    """CVE-2021-30465, CVE-2024-45310: the worst that may come of it is an error."""
    plans = (
        mount("tmpfs", "/volume/target"),
        mount("tmpfs", "/volume/target/sub"),
        op("mkdir", "/volume/target/dir", 0o755, 0),
        bind("/etc", "/volume/target"),
        bind("/etc/hosts", "/volume/target/file"),
        op("node", "/volume/target/null", 0o20666, 1, 3, 0, 0, "/dev/null", 0),
        op("mask", "/volume/target"),
    )
    for _ in range(4):
        for plan in plans:
            # Before the pivot the init still sees where on the host it mounted.
            with contained(rootfs, plan, asks(), pivot=False) as init:
                assert init.last.kind in (ops.ASK, ops.FAIL)
                if init.last.kind == ops.ASK:
                    assert not [m for m in mounts(init) if m.startswith(str(outside))]
    # `outside` and `nothing_leaks` look at what came of it.


# --- mkdir, symlink, node


def test_directories_and_links(rootfs):
    (rootfs / "old").mkdir(mode=0o700)
    (rootfs / "kept").write_text("")
    plan = [
        op("mkdir", "/new/deep", 0o1777, 0),
        op("mkdir", "/old", 0o755, 0),
        op("symlink", "/target", "/some/link", 0),
        op("symlink", "/target", "/kept", 0),
    ]
    with contained(rootfs, *plan) as init:
        as_asked(init)
    assert stat.S_IMODE((rootfs / "new/deep").stat().st_mode) == 0o1777
    assert stat.S_IMODE((rootfs / "old").stat().st_mode) == 0o700
    assert os.readlink(rootfs / "some/link") == "/target"
    assert (rootfs / "kept").is_file()


def test_a_link_can_take_the_place_of_a_file_or_a_link(rootfs, outside):
    (rootfs / "same").symlink_to("/target")
    (rootfs / "other").symlink_to(outside)
    (rootfs / "file").write_text("")
    before = (rootfs / "same").lstat().st_ino
    plan = [op("symlink", "/target", f"/{name}", 1) for name in ("same", "other", "file", "new")]
    with contained(rootfs, *plan) as init:
        as_asked(init)
    for name in ("same", "other", "file", "new"):
        assert os.readlink(rootfs / name) == "/target"
    assert (rootfs / "same").lstat().st_ino == before
    assert outside.is_dir()


def test_a_link_takes_the_place_of_no_directory_and_no_mount(rootfs):
    (rootfs / "folder").mkdir()
    assert refused(rootfs, op("symlink", "x", "/folder", 1)) == (0, errno.EISDIR, "")
    (rootfs / "file").write_text("")
    plan = [bind("/etc/hostname", "/file"), op("symlink", "x", "/file", 1)]
    assert refused(rootfs, *plan) == (1, errno.EBUSY, "")


def test_a_file_is_no_directory(rootfs):
    (rootfs / "file").write_text("")
    assert refused(rootfs, op("mkdir", "/file", 0o755, 0)) == (0, errno.ENOTDIR, "")


def test_a_node_has_mode_and_owner_whatever_the_directory_thinks(rootfs):
    os.chown(rootfs / "dev", 0, 44)
    (rootfs / "dev").chmod(0o2775)
    plan = [
        op("node", "/dev/null", 0o20660, 1, 3, 11, 12, "", 0),
        op("node", "/dev/sub/pipe", 0o10600, 0, 0, 0, 0, "", 0),
        op("node", "/dev/loop0", 0o60640, 7, 0, 0, 6, "", 0),
    ]
    with contained(rootfs, *plan) as init:
        as_asked(init)
    null, pipe, loop = ((rootfs / "dev" / n).lstat() for n in ("null", "sub/pipe", "loop0"))
    assert (null.st_mode, null.st_rdev, null.st_uid, null.st_gid) == (0o20660, 0x103, 11, 12)
    assert pipe.st_mode == 0o10600
    assert (loop.st_mode, loop.st_rdev, loop.st_gid) == (0o60640, 0x700, 6)


@pytest.mark.parametrize("what", ["file", "link", "zero", "block"])
def test_another_thing_in_the_place_of_a_node_is_refused(rootfs, what):
    path = rootfs / "dev/null"
    if what == "file":
        path.write_text("")
    elif what == "link":
        path.symlink_to("/dev/null")
    else:
        os.mknod(
            path, 0o20666 if what == "zero" else 0o60666, os.makedev(1, 5 if what == "zero" else 3)
        )
    plan = op("node", "/dev/null", 0o20666, 1, 3, 0, 0, "/dev/null", 0)
    assert refused(rootfs, plan) == (0, errno.EEXIST, "")


def test_the_same_node_of_the_image_stays(rootfs):
    os.mknod(rootfs / "dev/null", 0o20600, os.makedev(1, 3))
    with contained(rootfs, op("node", "/dev/null", 0o20666, 1, 3, 5, 5, "/dev/null", 0)) as init:
        as_asked(init)
    assert (rootfs / "dev/null").stat().st_uid == 0


def test_a_node_can_be_the_hosts(rootfs):
    os.mknod(rootfs / "dev/full", 0o20666, os.makedev(1, 7))
    plan = [
        op("node", f"/dev/{name}", 0o20666, 1, minor, 0, 0, f"/dev/{name}", 1)
        for name, minor in (("null", 3), ("full", 7))
    ]
    with contained(rootfs, *plan) as init:
        as_asked(init)
        assert (init.view / "dev/null").stat().st_rdev == 0x103
        assert {"/dev/null", "/dev/full"} <= set(mounts(init))
    assert (rootfs / "dev/null").is_file()


def test_a_host_node_of_another_device_is_refused(rootfs):
    plan = op("node", "/dev/null", 0o20666, 1, 3, 0, 0, "/dev/zero", 1)
    assert refused(rootfs, plan) == (0, errno.ENODEV, "")
    (rootfs / "dev/tty").symlink_to("/tmp/x")
    plan = op("node", "/dev/tty", 0o20666, 5, 0, 0, 0, "/dev/tty", 1)
    assert refused(rootfs, plan)[:2] == (0, errno.ELOOP)


def test_without_the_right_to_make_a_node_the_hosts_is_taken(rootfs):
    rootfs.parent.chmod(0o755)
    with Init() as init:
        init.clone(flags=CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
        init.send(
            asks("maps"),
            op("root_ids"),
            op("propagation", 1 << 19 | MS_REC),
            op("rootfs", str(rootfs), 1),
            mount("tmpfs", "/dev"),
            op("node", "/dev/null", 0o20666, 1, 3, 0, 0, "/dev/null", 0),
            mount("proc", "/proc"),
            op("mask", "/proc/keys"),
            op("mask", "/proc/acpi"),
            op("readonly", "/proc/sys"),
            PIVOT,
            asks(),
        )
        assert init.reply().value == ops.ASK_MAPS
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{init.pid}/{name}").write_text("0 0 4294967295\n")
        init.answer()
        init.last = init.reply()
        as_asked(init)
        assert Path(f"/proc/{init.pid}/root/dev/null").stat().st_rdev == 0x103
        assert {"/dev/null", "/proc/keys", "/proc/sys"} <= set(mounts(init))


# --- pivot


def test_after_the_pivot_nothing_of_the_host_is_mounted(rootfs):
    with contained(rootfs, PROC) as init:
        as_asked(init)
        assert set(mounts(init)) == {"/", "/proc"}


def test_moving_the_root_leaves_no_procfs_of_the_host(rootfs):
    plan = [PROC, op("pivot", ops.MOVE), *program("cat", "/proc/self/mountinfo")]
    text = output(rootfs, *plan)
    points = [
        line.split()[4] for line in text.splitlines() if " - proc " in line or "sysfs" in line
    ]
    assert points == ["/proc"]


def test_a_chroot_is_a_chroot(rootfs):
    plan = [op("pivot", ops.CHROOT), *program("ls", "/")]
    assert "dev" in output(rootfs, *plan).split()


def test_a_shared_host_hears_nothing_of_a_shared_root(rootfs):
    # nothing_leaks looks at the mounts of the session, which shares all of them.
    with Init() as init:
        init.clone(flags=ISOLATED)
        init.send(
            op("propagation", MS_SHARED | MS_REC),
            op("rootfs", str(rootfs), 1),
            mount("tmpfs", "/tmp"),
            op("mask", "/etc"),
            PIVOT,
            op("set_attr", "/", 0, 0, MS_SHARED, 1),
            asks(),
        )
        init.last = init.reply()
        as_asked(init)


# --- mask, readonly


def test_masked_paths(rootfs):
    for name in ("secret", "secret2"):
        (rootfs / "etc" / name).write_text("secret")
    for name in ("hidden", "hidden2", "hidden3"):
        (rootfs / "etc" / name).mkdir()
        (rootfs / "etc" / name / "file").write_text("secret")
    # CVE-2025-31133: the image's /dev/null is no mask.
    (rootfs / "dev/null").symlink_to("/etc/passwd")
    names = ("secret", "secret2", "hidden", "hidden2", "hidden3", "absent", "secret/below")
    plan = [PIVOT, *(op("mask", f"/etc/{name}") for name in names), asks()]
    with contained(rootfs, *plan, pivot=False) as init:
        as_asked(init)
        for name in ("secret", "secret2"):
            assert (init.view / "etc" / name).stat().st_rdev == os.makedev(1, 3)
        for name in ("hidden", "hidden2", "hidden3"):
            assert list((init.view / "etc" / name).iterdir()) == []
            with pytest.raises(OSError, match="Read-only"):
                (init.view / "etc" / name / "x").write_text("")
        found = mounts(init)
        assert "ro" in found["/etc/hidden2"]
        devices = {(init.view / "etc" / n).stat().st_dev for n in ("hidden", "hidden2", "hidden3")}
        assert len(devices) == 1


def test_a_mask_before_the_pivot_does_as_well(rootfs):
    with contained(rootfs, op("mask", "/etc"), op("mask", "/tmp"), op("mask", "/bin/sh")) as init:
        as_asked(init)
        assert list((init.view / "etc").iterdir()) == []


def test_read_only_paths(rootfs):
    plan = [
        mount("tmpfs", "/etc", MS_NOSUID | MS_NOEXEC | MS_NODEV),
        mount("tmpfs", "/etc/sub"),
        PIVOT,
        op("readonly", "/etc"),
        op("readonly", "/bin/busybox"),
        op("readonly", "/absent"),
        asks(),
    ]
    with contained(rootfs, *plan, pivot=False) as init:
        as_asked(init)
        found = mounts(init)
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(found["/etc"])
        assert "ro" in found["/bin/busybox"]
        assert "rw" in found["/etc/sub"]


def test_a_mask_covers_what_the_link_in_the_image_names(rootfs):
    (rootfs / "etc/secret").write_text("secret")
    (rootfs / "alias").symlink_to("/etc/secret")
    with contained(rootfs, op("mask", "/alias")) as init:
        as_asked(init)
        assert (init.view / "etc/secret").read_text() == ""


# --- terminal, null


def console_ops(bound: int = 1, *, before: bool = False):
    devpts = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    console = op("console", 33, 99, 1000, -1, bound)
    first = [mount("tmpfs", "/dev"), mount("devpts", "/dev/pts", data=devpts), PROC]
    return [*first, console, PIVOT] if before else [*first, PIVOT, console]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_terminal(rootfs, before):
    script = "stat -c %u:%g:%t:%a /dev/console; echo hello >/dev/console; readlink /proc/self/fd/0"
    plan = [*console_ops(before=before), *program("sh", "-c", script)]
    with contained(rootfs, *plan, pivot=False) as init:
        assert init.last[:3] == (ops.FD, init.last.index, ops.FD_CONSOLE), init.last
        (master,) = init.fds
        assert struct.unpack("4H", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))[:2] == (
            33,
            99,
        )
        assert init.reply().kind == ops.ASK
        init.answer()
        assert init.reply() is None
        text = b""
        while text.count(b"\n") < 3:
            text += os.read(master, 1000)
        assert text.split() == [b"1000:5:88:620", b"hello", b"/dev/pts/0"]
        assert init.wait() == 0


def test_a_console_of_the_image_is_covered(rootfs):
    os.mknod(rootfs / "dev/console", 0o20600, os.makedev(5, 1))
    plan = [op("console", 0, 0, 0, -1, 1), asks()]
    devpts = mount("devpts", "/dev/pts", data="newinstance,ptmxmode=0666")
    with contained(rootfs, devpts, PIVOT, *plan, pivot=False) as init:
        assert init.last.kind == ops.FD, init.last
        assert os.major((init.view / "dev/console").stat().st_rdev) == 136


def test_a_terminal_without_a_console(rootfs):
    with contained(rootfs, *console_ops(0), asks(), pivot=False) as init:
        assert init.last.kind == ops.FD
        assert init.reply().kind == ops.ASK
        assert "/dev/console" not in mounts(init)


@pytest.mark.parametrize("what", ["fifo", "link", "null"])
def test_a_multiplexer_that_the_image_brings_is_refused(rootfs, what):
    (rootfs / "dev/pts").mkdir()
    path = rootfs / "dev/pts/ptmx"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to("/dev/ptmx")
    else:
        os.mknod(path, 0o20666, os.makedev(5, 2))
    wanted = errno.ELOOP if what == "link" else errno.ENOTTY
    assert refused(rootfs, op("console", 0, 0, 0, -1, 0))[:2] == (0, wanted)


def test_stdio_on_null_becomes_the_containers_null(rootfs):
    null = op("node", "/dev/null", 0o20666, 1, 3, 0, 0, "", 0)
    plan = [mount("tmpfs", "/dev"), null, PIVOT, op("reopen_null"), asks()]
    with open("/dev/null") as host, contained(rootfs, *plan, pivot=False, stdin=host) as init:
        as_asked(init)
        inside = Path(f"/proc/{init.pid}/fd/0").stat()
        assert inside.st_dev != os.fstat(host.fileno()).st_dev


def test_an_invalid_null_is_named(rootfs):
    (rootfs / "dev/null").write_text("")
    with open("/dev/null") as null:
        reply = refused(rootfs, op("reopen_null"), stdin=null)
    assert reply == (0, errno.ENOENT, "container's /dev/null is invalid")
