"""`root` and what lies over it: read-only root, propagation, masked and read-only paths.

runtime-spec, config.md, "Root"; config-linux.md, "Rootfs Mount Propagation", "Masked Paths",
"Readonly Paths".
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.integration.support import MOUNTS, bind, mount_table, namespaces, only_ocirt, tmpfs

# --- the root


def test_the_root_is_writable_unless_asked_otherwise(runtime, bundle):
    b = bundle.sh("echo new > /file")
    runtime.prints(b)
    with open(b.inside("/file")) as file:
        assert file.read() == "new\n"


def test_a_read_only_root_cannot_be_written(runtime, bundle):
    b = bundle("probe", "open", "/file", "c", root={"readonly": True})
    assert runtime.prints(b) == "EROFS"


def test_mounts_on_a_read_only_root_stay_writable(runtime, bundle, workdir):
    os.mkdir(f"{workdir}/data")
    b = bundle.sh(
        "probe open /mnt/file c; probe open /tmp/file c; probe open /dev/shm/file c",
        root={"readonly": True},
        more_mounts=[bind(f"{workdir}/data", "/mnt"), tmpfs("/tmp")],
    )
    assert runtime.prints(b).split() == ["ok"] * 3


def test_missing_mount_points_are_made_below_a_read_only_root(runtime, bundle):
    b = bundle.sh(
        "echo ok > /new/deep/x; cat /new/deep/x",
        root={"readonly": True},
        more_mounts=[tmpfs("/new/deep")],
    )
    assert runtime.prints(b) == "ok"


@only_ocirt("runc 1.1 loses nosuid and nodev of the mount below")
def test_a_read_only_root_keeps_the_flags_of_its_mount(runtime, bundle, workdir, host_mount):
    b = bundle("/bin/cat", "/proc/self/mountinfo", root={"readonly": True})
    host_mount("--bind", b.rootfs, b.rootfs)
    subprocess.run(["mount", "-o", "remount,bind,nosuid,nodev", b.rootfs], check=True)
    assert {"ro", "nosuid", "nodev"} <= mount_table(runtime.prints(b))["/"].options


def test_the_host_is_out_of_reach(runtime, bundle):
    assert "rootfs" not in runtime.prints(bundle("ls", "-a", "/..")).split()
    found = mount_table(runtime.prints(bundle("cat", "/proc/self/mountinfo")))
    assert set(found) == {"/", *(mount["destination"] for mount in MOUNTS)}


@pytest.mark.parametrize("options", [[], ["--no-pivot"]], ids=["pivot", "no-pivot"])
def test_the_root_is_the_rootfs_with_and_without_pivot(runtime, bundle, options):
    b = bundle.sh("cat /etc/passwd | head -1; ls /..")
    lines = runtime.prints(b, *options).splitlines()
    assert lines[0] == "root:x:0:0:root:/root:/bin/sh"
    assert "rootfs" not in lines


def test_a_rootfs_that_is_a_mount_of_its_own(runtime, bundle, host_mount):
    b = bundle("echo", "hi")
    host_mount("--bind", b.rootfs, b.rootfs)
    assert runtime.prints(b) == "hi"


# --- its propagation

UNSHARED = "runc 1.1 leaves the root private after the pivot"
UNBINDABLE = "runc 1.1 cannot bind a root that it has just made unbindable"
PROPAGATION = [
    (None, "master"),
    ("slave", "master"),
    ("rslave", "master"),
    ("private", "private"),
    ("rprivate", "private"),
    pytest.param("shared", "shared", marks=only_ocirt(UNSHARED)),
    pytest.param("rshared", "shared", marks=only_ocirt(UNSHARED)),
    pytest.param("unbindable", "unbindable", marks=only_ocirt(UNBINDABLE)),
    pytest.param("runbindable", "unbindable", marks=only_ocirt(UNBINDABLE)),
]


@pytest.mark.parametrize(("value", "shown"), PROPAGATION, ids=lambda v: str(v))
def test_propagation_of_the_root(runtime, bundle, value, shown):
    """Whatever is asked for, nothing of the container shows up outside."""
    b = bundle("cat", "/proc/self/mountinfo")
    if value:
        b.patch(linux={"rootfsPropagation": value})
    found = mount_table(runtime.prints(b))["/"].propagation
    if shown == "master":
        # The mount below is made private so that the root can be pivoted: then nothing is left
        # that the root could be a slave of.
        assert found in ("master", "private")
    else:
        assert shown in found


def test_an_unknown_propagation_is_refused(runtime, bundle):
    b = bundle("true", linux={"rootfsPropagation": "sideways"})
    runtime.refuses_to_create(b, "sideways", ours="linux.rootfsPropagation")


# --- masked


@pytest.fixture
def hidden(bundle):
    """A bundle with a file, a directory, a link and a fifo to mask below /data."""

    def hidden(script, **patch):
        b = bundle.sh(script, **patch)
        b.put("/data/file", "secret")
        b.put("/data/dir/inner", "secret")
        os.symlink("file", b.inside("/data/link"))
        return b

    return hidden


def test_a_masked_file_reads_as_empty(runtime, hidden):
    b = hidden("cat /data/file; probe open /data/file r", linux={"maskedPaths": ["/data/file"]})
    assert runtime.prints(b) == "ok"


def test_a_masked_file_swallows_what_is_written(runtime, hidden):
    b = hidden("echo x > /data/file; cat /data/file", linux={"maskedPaths": ["/data/file"]})
    assert runtime.prints(b) == ""
    with open(b.inside("/data/file")) as file:
        assert file.read() == "secret"


def test_a_masked_directory_is_empty_and_read_only(runtime, hidden):
    b = hidden("ls -A /data/dir; probe open /data/dir/x c", linux={"maskedPaths": ["/data/dir"]})
    assert runtime.prints(b) == "EROFS"


def test_what_a_masked_link_leads_to_is_masked(runtime, hidden):
    b = hidden("cat /data/file; cat /data/link", linux={"maskedPaths": ["/data/link"]})
    assert runtime.prints(b) == ""


def test_paths_that_the_root_lacks_are_passed_over(runtime, bundle):
    missing = ["/nowhere", "/nowhere/deep", "/etc/passwd/below"]
    b = bundle("echo", "hi", linux={"maskedPaths": missing[:2], "readonlyPaths": missing[:2]})
    assert runtime.prints(b) == "hi"


@only_ocirt("runc 1.1 minds ENOTDIR")
def test_paths_below_a_file_are_passed_over(runtime, bundle):
    paths = ["/etc/passwd/below"]
    b = bundle("echo", "hi", linux={"maskedPaths": paths, "readonlyPaths": paths})
    assert runtime.prints(b) == "hi"


def test_many_directories_can_be_masked(runtime, bundle):
    names = [f"/many/{number}" for number in range(50)]
    b = bundle.sh("ls /many | wc -l; ls /many/*/ | grep -c secret", linux={"maskedPaths": names})
    for name in names:
        b.put(f"{name}/secret", "")
    assert runtime.run(b).out.split() == ["50", "0"]


DEFAULT_MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
]  # fmt: skip
DEFAULT_READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def test_the_usual_masks_of_proc_and_sys(runtime, bundle):
    b = bundle.sh(
        "for p in $PATHS; do if [ -d $p ]; then ls -A $p; elif [ -e $p ]; then cat $p; fi; done; "
        "probe open /proc/sys/kernel/domainname w",
        process={"env": ["PATH=/bin", f"PATHS={' '.join(DEFAULT_MASKED)}"]},
        linux={"maskedPaths": DEFAULT_MASKED, "readonlyPaths": DEFAULT_READONLY},
    )
    assert runtime.prints(b).split() == ["EROFS"]


# --- read-only paths


def test_a_read_only_path_cannot_be_written_and_its_neighbour_can(runtime, hidden):
    b = hidden(
        "probe open /data/dir/new c; probe open /data/dir/inner w; probe open /data/new c",
        linux={"readonlyPaths": ["/data/dir"]},
    )
    assert runtime.prints(b).split() == ["EROFS", "EROFS", "ok"]


def test_a_read_only_file(runtime, hidden):
    b = hidden("probe open /data/file w; cat /data/file", linux={"readonlyPaths": ["/data/file"]})
    assert runtime.prints(b).split() == ["EROFS", "secret"]


def test_a_read_only_path_keeps_the_flags_of_its_mount(runtime, bundle):
    b = bundle(
        "cat",
        "/proc/self/mountinfo",
        more_mounts=[tmpfs("/data", "nosuid", "nodev", "noexec")],
        linux={"readonlyPaths": ["/data"]},
    )
    shown = mount_table(runtime.prints(b))["/data"].options
    assert {"ro", "nosuid", "nodev", "noexec"} <= shown


def test_a_path_below_a_read_only_path_can_be_masked(runtime, hidden):
    b = hidden(
        "cat /data/dir/inner; probe open /data/dir/x c",
        linux={"readonlyPaths": ["/data"], "maskedPaths": ["/data/dir/inner"]},
    )
    assert runtime.prints(b) == "EROFS"


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_hiding_needs_a_mount_namespace(runtime, bundle, field):
    listed = namespaces("pid", "ipc", "uts")
    b = bundle("true", linux={"namespaces": listed, field: ["/proc/kcore"]})
    runtime.refuses_to_create(b, ours=f"linux.{field}")


@only_ocirt("runc 1.1 takes it for a path below the working directory")
@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_a_relative_path_to_hide_is_refused(runtime, bundle, field):
    b = bundle("true", linux={field: ["proc/kcore"]})
    runtime.refuses_to_create(b, ours=f"linux.{field}[0]")
