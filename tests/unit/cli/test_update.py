"""The options of `ocirt update` become a part of linux.resources."""

from __future__ import annotations

import pytest

from ocirt import resctrl
from ocirt.cli import options, update
from ocirt.errors import ConfigError, Error


def change(*argv):
    return update.from_options(options.parse(update.OPTIONS, argv))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0", 0),
        ("-1", -1),
        ("123", 123),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("64m", 64 << 20),
        ("64mb", 64 << 20),
        ("64MiB", 64 << 20),
        ("64 m", 64 << 20),
        ("2g", 2 << 30),
        ("1t", 1 << 40),
        ("1p", 1 << 50),
        ("1.5g", 3 << 29),
        ("0.5k", 512),
        ("10b", 10),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes(text, found):
    assert update.size(text) == found


@pytest.mark.parametrize(
    "text",
    ["m", "", "-2", "-1k", "1x", "1..5m", ".5m", "5.m", "1mm", "1bi", "0x10", "１", "1e3",
     "9999999p", "9" * 41, "1,5m", " 1m", "nan", "1_000"],
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="invalid size"):
        update.size(text)


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        ((), {}),
        (("--memory", "64m"), {"memory": {"limit": 64 << 20}}),
        (("--memory-swap", "-1"), {"memory": {"swap": -1}}),
        (("--cpu-quota", "-1"), {"cpu": {"quota": -1}}),
        (("--cpu-idle", "0"), {"cpu": {"idle": 0}}),
        (("--cpuset-cpus", "0-3,7"), {"cpu": {"cpus": "0-3,7"}}),
        (("--pids-limit", "-1"), {"pids": {"limit": -1}}),
        (("--pids-limit", "0"), {}),
        (("--blkio-weight", "500"), {"blockIO": {"weight": 500}}),
        (
            ("--cpu-period=1000", "--cpu-share=2", "--cpu-burst", "5", "--memory-reservation=1k"),
            {"cpu": {"period": 1000, "shares": 2, "burst": 5}, "memory": {"reservation": 1024}},
        ),
        (
            ("--cpu-rt-period", "1", "--cpu-rt-runtime", "-1"),
            {"cpu": {"realtimePeriod": 1, "realtimeRuntime": -1}},
        ),
    ],
)
def test_options_become_fields(argv, found):
    assert change(*argv) == found


def test_every_field_has_an_option():
    known = {name for name, *_ in update.OPTIONS}
    assert {option for option, *_ in update.FIELDS} <= known
    assert set(update.RDT) <= known
    assert set(update.RDT.values()) == {field for field, *_ in resctrl.OPTIONS}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--cpu-share", "-1"), 'invalid value for cpu-share: parsing "-1": invalid syntax'),
        (("--cpu-quota", "x"), 'invalid value for cpu-quota: parsing "x": invalid syntax'),
        (("--memory", "x"), "invalid value for memory: invalid size: 'x'"),
        (("--cpu-idle", "9" * 20), "invalid value for cpu-idle: parsing"),
    ],
)
def test_what_cannot_be_read_is_named(argv, sentence):
    with pytest.raises(Error) as caught:
        change(*argv)
    assert sentence in str(caught.value)


def test_a_file_is_checked_like_a_config(tmp_path):
    path = tmp_path / "resources.json"
    path.write_text('{"pids": {"limit": null}, "memory": null, "unknown": 1}')
    assert update.from_file(str(path)) == {"pids": {}}
    path.write_text('{"cpu": {"shares": "12"}}')
    with pytest.raises(ConfigError, match=r"linux\.resources\.cpu\.shares: expected an integer"):
        update.from_file(str(path))
