"""The table of cgroup v2: one case for each field, and for each refusal."""

from __future__ import annotations

import math

import pytest

from ocirt.cgroup import v2
from ocirt.errors import ConfigError


def pairs(resources):
    return [(file, value) for file, value, _ in v2.writes(resources)]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 1 << 20}}, [("memory.max", "1048576")]),
        ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        (
            {"memory": {"limit": 10, "swap": 25}},
            [("memory.swap.max", "15"), ("memory.max", "10")],
        ),
        ({"memory": {"limit": 10, "swap": 10}}, [("memory.swap.max", "0"), ("memory.max", "10")]),
        ({"memory": {"limit": 10, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", "10")]),
        ({"memory": {"swap": -1}}, [("memory.swap.max", "max")]),
        ({"memory": {"reservation": 5}}, [("memory.low", "5")]),
        ({"memory": {"reservation": -1}}, [("memory.low", "max")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "100")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"shares": 1024, "idle": 0}}, [("cpu.idle", "0"), ("cpu.weight", "100")]),
        ({"cpu": {"quota": 50000}}, [("cpu.max", "50000 100000")]),
        ({"cpu": {"quota": 50000, "period": 20000}}, [("cpu.max", "50000 20000")]),
        ({"cpu": {"period": 20000}}, [("cpu.max", "max 20000")]),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000")]),
        (
            {"cpu": {"quota": 9, "burst": 5}},
            [("cpu.max", "9 100000"), ("cpu.max.burst", "5")],
        ),
        ({"cpu": {"cpus": "0-3", "mems": "0"}}, [("cpuset.cpus", "0-3"), ("cpuset.mems", "0")]),
        ({"pids": {"limit": 7}}, [("pids.max", "7")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"blockIO": {"weight": 500}}, [("io.bfq.weight", "500")]),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 7, "leafWeight": 9}]}},
            [("io.bfq.weight", "8:0 7")],
        ),
        (
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1}],
                    "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 3}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}],
                }
            },
            [
                ("io.max", "8:1 rbps=1"),
                ("io.max", "8:1 wbps=2"),
                ("io.max", "8:1 riops=3"),
                ("io.max", "8:1 wiops=max"),
            ],
        ),
        (
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 0}]},
            [("hugetlb.1GB.max", "0"), ("hugetlb.1GB.rsvd.max", "0")],
        ),
        ({"rdma": {"mlx5_0": {"hcaObjects": 9}}}, [("rdma.max", "mlx5_0 hca_object=9")]),
        (
            {"unified": {"memory.max": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
            [("memory.max", "5"), ("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")],
        ),
    ],
)
def test_fields_become_files(resources, expected):
    assert pairs(resources) == expected


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"memory": {}, "cpu": None, "unified": None},
        {"memory": {"limit": 0, "swap": 0, "reservation": 0}},
        {"memory": {"swappiness": 60, "disableOOMKiller": True, "kernel": 1, "kernelTCP": 1}},
        {"cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0}},
        {"network": {"classID": 5, "priorities": [{"name": "eth0", "priority": 5}]}},
    ],
)
def test_zero_and_v1_only_fields_leave_the_kernel_alone(resources):
    assert pairs(resources) == []


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"memory": {"swap": 10}}, "linux.resources.memory.swap: needs memory.limit as well"),
        (
            {"memory": {"limit": 20, "swap": 10}},
            "linux.resources.memory.swap: 10 is below memory.limit 20",
        ),
        (
            {"memory": {"limit": -1, "swap": 10}},
            "linux.resources.memory.swap: 10 is below memory.limit -1, unlimited",
        ),
        (
            {"cpu": {"realtimeRuntime": 5}},
            "linux.resources.cpu.realtimeRuntime: cgroup v2 has no limit on realtime scheduling",
        ),
        (
            {"unified": {"../cgroup.procs": "1"}},
            "linux.resources.unified.../cgroup.procs: is no name of a file in a cgroup",
        ),
    ],
)
def test_a_refusal_names_the_field(resources, message):
    with pytest.raises(ConfigError) as caught:
        v2.writes(resources)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(1, "1"), (2, "1"), (3, "2"), (1024, "100"), (262144, "10000"), (1 << 40, "10000")],
)
def test_known_weights(shares, weight):
    assert v2.weight(shares, None) == weight


def test_the_curve_of_weights_is_the_documented_one():
    last = 0
    for shares in range(3, 262144, 7):
        log = math.log2(shares)
        exact = 10 ** ((log * log + 125 * log) / 612 - 7 / 34)
        weight = int(v2.weight(shares, None))
        assert weight in (math.ceil(exact), math.ceil(exact - 1e-9))
        assert last <= weight <= 10000
        last = weight


@pytest.mark.parametrize(
    ("line", "expected"), [("10", "1"), ("1000", "10000"), ("8:0 505", "8:0 5000")]
)
def test_a_bfq_weight_is_stretched_for_io_weight(line, expected):
    assert v2.io_weight(line) == expected
