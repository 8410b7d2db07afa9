"""What new limits come to together with the old ones."""

from __future__ import annotations

import copy

import pytest

from ocirt.cgroup import v1, v2
from ocirt.update import merged

OLD = {
    "devices": [{"allow": False, "access": "rwm"}],
    "memory": {"limit": 64, "swap": 96, "swappiness": 10},
    "cpu": {"quota": 40000, "period": 100000, "shares": 500, "cpus": "0-1"},
    "pids": {"limit": 40},
    "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 9}],
    "unified": {"memory.high": "50"},
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"memory": {}},
        {"memory": {"limit": 0, "reservation": 0, "kernel": 0}},
        {"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}},
        {"pids": {"limit": 0}},
        {"hugepageLimits": []},
        {"devices": [{"allow": True, "access": "rwm"}]},
        {"devices": []},
        {"blockIO": {"weight": 0, "throttleReadBpsDevice": []}},
    ],
)
def test_what_says_nothing_changes_nothing(change):
    assert merged(OLD, change) == OLD


@pytest.mark.parametrize(
    ("change", "section", "found"),
    [
        ({"pids": {"limit": -1}}, "pids", {"limit": -1}),
        ({"memory": {"limit": 32}}, "memory", {"limit": 32, "swap": 96, "swappiness": 10}),
        ({"memory": {"limit": -1}}, "memory", {"limit": -1, "swap": -1, "swappiness": 10}),
        (
            {"memory": {"limit": -1, "swap": 128}},
            "memory",
            {"limit": -1, "swap": 128, "swappiness": 10},
        ),
        ({"memory": {"swappiness": 0}}, "memory", {"limit": 64, "swap": 96, "swappiness": 0}),
        (
            {"cpu": {"quota": 1}},
            "cpu",
            {"quota": 1, "period": 100000, "shares": 500, "cpus": "0-1"},
        ),
        (
            {"cpu": {"idle": 1}},
            "cpu",
            {"quota": 40000, "period": 100000, "cpus": "0-1", "idle": 1},
        ),
        (
            {"cpu": {"idle": 1, "shares": 7, "burst": 0}},
            "cpu",
            {"quota": 40000, "period": 100000, "cpus": "0-1", "idle": 1, "shares": 7, "burst": 0},
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}]},
            "hugepageLimits",
            [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}],
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 2}]}},
            "blockIO",
            {
                "throttleReadBpsDevice": [
                    {"major": 8, "minor": 0, "rate": 1},
                    {"major": 8, "minor": 1, "rate": 2},
                ]
            },
        ),
        (
            {"unified": {"memory.low": "1"}},
            "unified",
            {"memory.high": "50", "memory.low": "1"},
        ),
        ({"rdma": {"mlx5_0": {"hcaHandles": 2}}}, "rdma", {"mlx5_0": {"hcaHandles": 2}}),
    ],
)
def test_what_is_given_is_merged(change, section, found):
    new = merged(OLD, change)
    assert new[section] == found
    assert {**new, section: None} == {**OLD, section: None}


def test_the_old_limits_are_not_touched():
    old = copy.deepcopy(OLD)
    merged(old, {"memory": {"limit": -1}, "cpu": {"idle": 1}, "unified": {"memory.low": "1"}})
    assert old == OLD


def test_a_config_without_limits_gets_them():
    assert merged({}, {"memory": {"limit": -1}}) == {"memory": {"limit": -1, "swap": -1}}


def test_partners_are_written_together():
    new = merged({k: OLD[k] for k in ("memory", "cpu")}, {"cpu": {"quota": 7}})
    assert ("cpu.max", "7 100000", "linux.resources.cpu.quota") in v2.writes({"cpu": new["cpu"]})
    files = {file: value for file, value, _ in v1.writes({"cpu": new["cpu"]})}
    assert (files["cpu.cfs_quota_us"], files["cpu.cfs_period_us"]) == ("7", "100000")
