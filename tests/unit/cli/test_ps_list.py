"""The tables of `ocirt ps` and `ocirt list`."""

from __future__ import annotations

import os

import pytest

from ocirt import state
from ocirt.cli import list as listing
from ocirt.cli import ps
from ocirt.errors import Error
from ocirt.kernel import kin

PS = b"""\
UID        PID  PPID  C STIME TTY          TIME CMD
root         1     0  0 10:00 ?        00:00:00 init
root        12     1  0 10:00 ?        00:00:00 sleep 112
\xff\xfe       112     1  0 10:00 ?        00:00:00 sleep 12
"""


def test_ps_keeps_the_header_and_the_lines_of_its_own():
    assert ps.table(PS, [12]).splitlines() == [PS.splitlines()[0], PS.splitlines()[2]]
    assert ps.table(PS, [112, 1]).splitlines() == [PS.splitlines()[n] for n in (0, 1, 3)]
    assert ps.table(PS, []) == PS.splitlines(keepends=True)[0]


@pytest.mark.parametrize("text", [b"", b"\n", b"CMD\nsleep\n"])
def test_ps_needs_a_column_of_pids(text):
    with pytest.raises(Error, match="couldn't find PID field in ps output"):
        ps.table(text, [12])


def test_ps_refuses_a_column_that_it_cannot_tell():
    with pytest.raises(Error, match="unable to parse pid"):
        ps.table(b"CMD PID\na lot 12\n", [12])


def test_list_pads_columns_as_runc_does():
    rows = [["ID", "PID", "OWNER"], ["a", "7", "root"], ["a-rather-long-name", "123", "x"]]
    assert listing.table(rows) == (
        "ID                   PID         OWNER\n"
        "a                    7           root\n"
        "a-rather-long-name   123         x\n"
    )


def test_owners_without_a_name_are_numbers():
    assert listing.owner(0) == "root"
    assert listing.owner(3999999999) == "#3999999999"


def test_only_directories_with_a_state_are_containers(tmp_path):
    for name in ("b", "a", "with blank", "foreign", ".state.json.1"):
        (tmp_path / name).mkdir()
    for name in ("b", "a", "with blank"):
        (tmp_path / name / "state.json").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert state.ids(str(tmp_path)) == ["a", "b"]


def test_kin_are_descendants():
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.fork()
        os.close(write)
        os.read(read, 1)  # until the parent closes its end
        os._exit(0)
    try:
        os.close(read)
        for _ in range(200):
            found = kin.of(pid, namespace=False)
            if len(found) == 2:
                break
        assert pid in found
        assert len(found) == 2
        assert set(found) < set(kin.of(os.getpid(), namespace=False))
        # This process lives in the namespace, with all that a container of its own would hide.
        assert {pid, os.getpid()} <= set(kin.of(pid, namespace=True))
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def test_who_is_gone_has_no_kin():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert kin.of(pid, namespace=True) == []
