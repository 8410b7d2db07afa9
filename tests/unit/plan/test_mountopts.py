"""The options of a mount, sorted into what each system call wants."""

from __future__ import annotations

import pytest

from ocirt.kernel import consts as k
from ocirt.plan import mountopts


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (["nosuid", "noexec", "nodev"], k.MS_NOSUID | k.MS_NOEXEC | k.MS_NODEV),
        (["ro", "rw"], 0),
        (["rw", "ro"], k.MS_RDONLY),
        (["defaults"], 0),
        (["strictatime", "lazytime"], k.MS_STRICTATIME | k.MS_LAZYTIME),
        (["sync", "dirsync", "mand"], k.MS_SYNCHRONOUS | k.MS_DIRSYNC | k.MS_MANDLOCK),
        (["noatime", "atime"], 0),
    ],
)
def test_later_options_win_over_earlier_ones(options: list[str], flags: int) -> None:
    assert mountopts.parse(options).flags == flags


def test_a_bind_names_only_the_attributes_it_was_given() -> None:
    found = mountopts.parse(["rbind", "ro", "nosuid", "dev"])
    assert found.bind is True
    assert found.set == k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID
    assert found.clear == k.MOUNT_ATTR_NODEV


@pytest.mark.parametrize("option", ["noatime", "relatime", "strictatime", "atime", "norelatime"])
def test_an_access_time_option_clears_the_whole_field(option: str) -> None:
    assert mountopts.parse(["bind", option]).clear == k.MOUNT_ATTR__ATIME


@pytest.mark.parametrize("option", ["rnoatime", "rrelatime", "ratime", "rnostrictatime"])
def test_so_does_a_recursive_one(option: str) -> None:
    found = mountopts.parse(["rbind", option])
    assert found.rclear == k.MOUNT_ATTR__ATIME
    assert found.rchange


def test_propagation_keeps_its_order() -> None:
    found = mountopts.parse(["rbind", "rslave", "shared"])
    assert found.propagation == [(k.MS_SLAVE, True), (k.MS_SHARED, False)]


def test_what_no_table_knows_is_data() -> None:
    assert mountopts.parse(["mode=755", "nosiud", "size=1k"]).data == "mode=755,nosiud,size=1k"


def test_rbind_stays_recursive_after_bind() -> None:
    assert mountopts.parse(["rbind", "bind"]).bind is True


def test_every_option_of_the_specification_is_known() -> None:
    # runtime-spec, config.md, "Linux mount options": the table that runtimes SHOULD know.
    table = """async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime
        nodev nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid nosymfollow
        private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec
        rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared
        rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid
        symfollow sync tmpcopyup unbindable idmap ridmap rnodev"""
    assert set(table.split()) <= set(mountopts.names())
