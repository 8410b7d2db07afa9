"""linux.intelRdt on paper; tests/integration/test_resctrl.py carries it out."""

from __future__ import annotations

import pytest

from ocirt import resctrl
from ocirt.errors import ConfigError, Error


@pytest.fixture
def machine(tmp_path):
    """A machine with resctrl, as the `root` that everything takes."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "23 22 0:9 / /sys/fs/re\\040sctrl rw,nosuid shared:7 - resctrl resctrl rw,mba_MBps\n"
    )
    for name in ("info/L3", "info/MB", "gold"):
        (tmp_path / "sys/fs/re sctrl" / name).mkdir(parents=True)
    (tmp_path / "sys/fs/re sctrl/gold/schemata").write_text("    L3:0=0ff;1=f\n    MB:0= 50\n")
    return str(tmp_path)


def test_the_mount_point_is_looked_up(machine, tmp_path):
    assert resctrl.mount_point(machine) == f"{machine}/sys/fs/re sctrl"
    (tmp_path / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 resctrl rw\n")
    assert resctrl.mount_point(machine) == ""


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ({}, []),
        ({"l3CacheSchema": "", "schemata": None}, []),
        ({"memBwSchema": "MB:0=1", "l3CacheSchema": "L3:0=f"}, ["L3:0=f", "MB:0=1"]),
        ({"memBwSchema": "MB:0=1", "l3CacheSchema": "MB:0=2\nL3:0=f\n"}, ["L3:0=f", "MB:0=1"]),
        ({"l3CacheSchema": "L3:0=f\nMB:0=2"}, ["L3:0=f", "MB:0=2"]),
        ({"schemata": ["L2:0=1", ""], "l3CacheSchema": "L3:0=f"}, ["L3:0=f", "L2:0=1"]),
    ],
)
def test_the_lines_of_a_section(section, rows):
    assert resctrl.lines(section) == rows


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("L3:0=f", ("L3", {"0": "f"})),
        ("  MB:00= 050; 1=100 ", ("MB", {"0": "50", "1": "100"})),
        ("L3CODE:0=00F0;1=0", ("L3CODE", {"0": "f0", "1": "0"})),
    ],
)
def test_a_line_is_compared_by_its_values(row, found):
    assert resctrl.parse(row) == found


def test_a_class_is_named_after_the_container_unless_it_has_a_name(machine):
    top = f"{machine}/sys/fs/re sctrl"
    for section, path, ours in (
        ({}, f"{top}/web", True),
        ({"closID": "gold"}, f"{top}/gold", False),
        ({"closID": "new", "schemata": ["L3:0=f"]}, f"{top}/new", False),
        ({"closID": "/"}, top, False),
    ):
        group = resctrl.draft(section, "web", machine)
        assert group.record == {"root": top, "path": path, "monitor": "", "ours": ours}


def test_what_create_will_do_is_said_beforehand(machine):
    top = f"{machine}/sys/fs/re sctrl"
    assert (
        resctrl.draft({"closID": "gold", "schemata": ["L3:1=00f"]}, "web", machine).describe() == []
    )
    group = resctrl.draft({"memBwSchema": "MB:0=10"}, "web", machine)
    assert group.describe() == [f"{top}/web", f"{top}/web/schemata = MB:0=10"]


@pytest.mark.parametrize(
    "section",
    [
        {"closID": "bronze"},
        {"closID": "gold", "schemata": ["L3:0=f"]},
        {"closID": "gold", "schemata": ["L3:2=f"]},
        {"schemata": ["L2:0=f"]},
        {"schemata": ["L3"]},
        {"enableMonitoring": True},
    ],
)
def test_what_cannot_be_is_refused_on_paper(machine, section):
    with pytest.raises(ConfigError, match=r"^linux\.intelRdt"):
        resctrl.draft(section, "web", machine)


def test_an_update_without_resctrl_is_refused_in_runcs_words(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text("")
    for field, sentence in (
        ("l3CacheSchema", "Intel RDT/CAT: l3 cache schema is not enabled"),
        ("memBwSchema", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ):
        with pytest.raises(Error) as caught:
            resctrl.changed(None, {field: "x"}, "web", str(tmp_path))
        assert str(caught.value) == sentence
