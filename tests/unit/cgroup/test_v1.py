"""The table of cgroup v1: one case for each field, and for each refusal."""

from __future__ import annotations

import pytest

from ocirt.cgroup import v1
from ocirt.errors import ConfigError


def pairs(resources):
    return [(file, value) for file, value, _ in v1.writes(resources)]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"memory": {"limit": 1 << 20}}, [("memory.limit_in_bytes", "1048576")]),
        (
            {"memory": {"limit": -1}},
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        ),
        (
            {"memory": {"limit": 10, "swap": 20}},
            [("memory.limit_in_bytes", "10"), ("memory.memsw.limit_in_bytes", "20")],
        ),
        (
            {"memory": {"limit": 10, "swap": -1}},
            [("memory.limit_in_bytes", "10"), ("memory.memsw.limit_in_bytes", "-1")],
        ),
        ({"memory": {"swap": 20}}, [("memory.memsw.limit_in_bytes", "20")]),
        ({"memory": {"reservation": 5}}, [("memory.soft_limit_in_bytes", "5")]),
        ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")]),
        ({"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")]),
        ({"memory": {"kernel": 5, "kernelTCP": 0, "useHierarchy": True}}, []),
        ({"memory": {"kernelTCP": 5}}, [("memory.kmem.tcp.limit_in_bytes", "5")]),
        ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")]),
        ({"cpu": {"shares": 1024, "idle": 1}}, [("cpu.idle", "1")]),
        ({"cpu": {"shares": 1024, "idle": 0}}, [("cpu.idle", "0"), ("cpu.shares", "1024")]),
        (
            {"cpu": {"quota": 50000, "period": 100000, "burst": 0}},
            [
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_burst_us", "0"),
            ],
        ),
        ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")]),
        (
            {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950000}},
            [("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "950000")],
        ),
        (
            {"cpu": {"cpus": "0-3", "mems": "0"}},
            [("cpuset.cpus", "0-3"), ("cpuset.mems", "0")],
        ),
        ({"pids": {"limit": 7}}, [("pids.max", "7")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        (
            {"blockIO": {"weight": 100, "leafWeight": 50}},
            [("blkio.weight", "100"), ("blkio.leaf_weight", "50")],
        ),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 7, "leafWeight": 9}]}},
            [("blkio.weight_device", "8:0 7"), ("blkio.leaf_weight_device", "8:0 9")],
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 600}]}},
            [("blkio.throttle.read_bps_device", "8:1 600")],
        ),
        (
            {"blockIO": {"throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 0}]}},
            [("blkio.throttle.write_bps_device", "8:1 0")],
        ),
        (
            {
                "blockIO": {
                    "throttleReadIOPSDevice": [{"major": 8, "minor": 1, "rate": 1}],
                    "throttleWriteIOPSDevice": [
                        {"major": 8, "minor": 1, "rate": 2},
                        {"major": 8, "minor": 2, "rate": 3},
                    ],
                }
            },
            [
                ("blkio.throttle.read_iops_device", "8:1 1"),
                ("blkio.throttle.write_iops_device", "8:1 2"),
                ("blkio.throttle.write_iops_device", "8:2 3"),
            ],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854771712}]},
            [
                ("hugetlb.2MB.limit_in_bytes", "9223372036854771712"),
                ("hugetlb.2MB.rsvd.limit_in_bytes", "9223372036854771712"),
            ],
        ),
        (
            {"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}},
            [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5")],
        ),
        (
            {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 0}, "rxe0": {}}},
            [("rdma.max", "mlx5_0 hca_handle=3 hca_object=0")],
        ),
    ],
)
def test_fields_become_files(resources, expected):
    assert pairs(resources) == expected


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"memory": {}, "cpu": None, "pids": {}, "blockIO": {}, "network": {}, "rdma": {}},
        {"memory": {"limit": 0, "swap": 0, "reservation": 0, "disableOOMKiller": False}},
        {"memory": {"swappiness": (1 << 64) - 1}},
        {"cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""}},
        {"cpu": {"realtimePeriod": 0, "realtimeRuntime": 0}},
        {
            "blockIO": {
                "weight": 0,
                "leafWeight": 0,
                "weightDevice": [],
                "throttleReadBpsDevice": [],
            }
        },
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
        {"network": {"classID": 0}},
        {"unified": {}},
    ],
)
def test_zero_and_empty_leave_the_kernel_alone(resources):
    assert pairs(resources) == []


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            {"memory": {"limit": 20, "swap": 10}},
            "linux.resources.memory.swap: 10 is below memory.limit 20",
        ),
        (
            {"memory": {"limit": -1, "swap": 10}},
            "linux.resources.memory.swap: 10 is below memory.limit -1, unlimited",
        ),
        (
            {"memory": {"swappiness": 101}},
            "linux.resources.memory.swappiness: 101 is not between 0 and 100",
        ),
        ({"cpu": {"shares": 1}}, "linux.resources.cpu.shares: the minimum allowed cpu-shares is 2"),
        (
            {"cpu": {"shares": 262145}},
            "linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144",
        ),
        (
            {"unified": {"memory.high": "1"}},
            "linux.resources.unified: names files of cgroup v2, this is v1",
        ),
        (
            {"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]},
            "linux.resources.hugepageLimits[0]: pageSize:"
            " '../2MB' is no page size such as 64KB, 2MB or 1GB",
        ),
        (
            {"rdma": {"mlx5 hca_handle=9": {"hcaHandles": 1}}},
            "linux.resources.rdma.mlx5 hca_handle=9:"
            " 'mlx5 hca_handle=9' is no name of an RDMA device",
        ),
    ],
)
def test_a_refusal_names_the_field(resources, message):
    with pytest.raises(ConfigError) as caught:
        v1.writes(resources)
    assert str(caught.value) == message


def test_each_write_knows_its_place_in_the_config():
    resources = {
        "memory": {"limit": 10, "swap": 20},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 6}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "rdma": {"rxe0": {"hcaHandles": 1}},
    }
    assert [where for _, _, where in v1.writes(resources)] == [
        "linux.resources.memory.limit",
        "linux.resources.memory.swap",
        "linux.resources.blockIO.throttleReadBpsDevice[0]",
        "linux.resources.hugepageLimits[0]",
        "linux.resources.hugepageLimits[0]",
        "linux.resources.rdma.rxe0",
    ]


def test_every_file_belongs_to_a_controller_that_is_joined():
    files = [file for _, _, file, _ in (*v1.FIELDS, *v1.ITEMS)]
    assert {file.partition(".")[0] for file in files} <= set(v1.CONTROLLERS)


def test_device_rules_start_from_a_reset():
    rows = v1.device_writes({"devices": [{"allow": False, "access": "rwm"}]})
    assert rows[0] == ("devices.deny", "a", "linux.resources.devices")
    assert ("devices.allow", "c 1:3 rwm", "default devices") in rows
    assert {file for file, _, _ in rows[1:]} == {"devices.allow"}


def test_a_privileged_container_gets_one_line():
    rows = v1.device_writes({"devices": [{"allow": True, "access": "rwm"}]})
    assert rows == [("devices.allow", "a", "linux.resources.devices")]
