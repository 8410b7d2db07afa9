"""The figures of `ocirt events`, from control files as kernels write them."""

from __future__ import annotations

import pytest

from ocirt.cgroup import oom, stats

V1 = {
    "cpuacct.usage": "21356750\n",
    "cpuacct.usage_percpu": "1678180 19678570\n",
    "cpuacct.usage_all": "cpu user system\n0 0 4000000\n1 4000000 19831220\n",
    "cpuacct.stat": "user 3\nsystem 1\n",
    "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 1234\n",
    "cpuset.cpus": "0-2,5\n",
    "cpuset.mems": "0\n",
    "cpuset.sched_load_balance": "1\n",
    "cpuset.sched_relax_domain_level": "-1\n",
    "memory.stat": "cache 4096\nrss 53248\ntotal_rss 53248\n",
    "memory.limit_in_bytes": "67108864\n",
    "memory.usage_in_bytes": "438272\n",
    "memory.max_usage_in_bytes": "2248704\n",
    "memory.failcnt": "7\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.usage_in_bytes": "438273\n",
    "memory.kmem.usage_in_bytes": "270336\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "blkio.bfq.io_service_bytes_recursive": "Total 0\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n",
    "blkio.time_recursive": "8:16 99\n",
    "hugetlb.2MB.usage_in_bytes": "2097152\n",
    "hugetlb.2MB.max_usage_in_bytes": "4194304\n",
    "hugetlb.2MB.failcnt": "1\n",
    "hugetlb.2MB.rsvd.failcnt": "0\n",
}

V2 = {
    "cpu.stat": (
        "usage_usec 300\nuser_usec 200\nsystem_usec 100\n"
        "nr_periods 5\nnr_throttled 2\nthrottled_usec 9\n"
    ),
    "cpu.pressure": (
        "some avg10=0.25 avg60=1.00 avg300=0.00 total=12345\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    ),
    "cpuset.cpus.effective": "0-1\n",
    "cpuset.mems.effective": "0\n",
    "memory.stat": "anon 53248\nfile 4096\nkernel 270336\nsock 8192\n",
    "memory.current": "438272\n",
    "memory.max": "67108864\n",
    "memory.peak": "500000\n",
    "memory.swap.current": "1000\n",
    "memory.swap.max": "33554432\n",
    "memory.events": "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n",
    "pids.current": "3\n",
    "pids.max": "20\n",
    "io.stat": "8:0 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.events": "max 3\n",
}


class Manager:
    def __init__(self, version, directory):
        self.version, self.directory = version, directory

    def path_of(self, file):
        return f"{self.directory}/{file}"


@pytest.fixture
def gathered(tmp_path):
    def gather(version, files):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        return stats.gather(Manager(version, tmp_path))

    return gather


def test_v1(gathered):
    assert gathered(1, V1) == {
        "cpu": {
            "usage": {
                "total": 21356750,
                "percpu": [1678180, 19678570],
                "percpu_kernel": [4000000, 19831220],
                "percpu_user": [0, 4000000],
                "kernel": 10000000,
                "user": 30000000,
            },
            "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 1234},
        },
        "cpuset": {
            "cpus": [0, 1, 2, 5],
            "cpu_exclusive": 0,
            "mems": [0],
            "mem_hardwall": 0,
            "mem_exclusive": 0,
            "memory_migrate": 0,
            "memory_spread_page": 0,
            "memory_spread_slab": 0,
            "memory_pressure": 0,
            "sched_load_balance": 1,
            "sched_relax_domain_level": -1,
        },
        "memory": {
            "cache": 4096,
            "usage": {"limit": 67108864, "usage": 438272, "max": 2248704, "failcnt": 7},
            "swap": {"limit": 9223372036854771712, "usage": 438273, "max": 0, "failcnt": 0},
            "kernel": {"limit": 0, "usage": 270336, "max": 0, "failcnt": 0},
            "kernelTCP": {"limit": 0, "usage": 0, "max": 0, "failcnt": 0},
            "raw": {"cache": 4096, "rss": 53248, "total_rss": 53248},
        },
        "pids": {"current": 3, "limit": 0},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": 8, "minor": 0, "op": "Read", "value": 4096},
                {"major": 8, "minor": 0, "op": "Total", "value": 4096},
            ],
            "ioTimeRecursive": [{"major": 8, "minor": 16, "value": 99}],
        },
        "hugetlb": {"2MB": {"usage": 2097152, "max": 4194304, "failcnt": 1}},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def test_v2(gathered):
    found = gathered(2, V2)
    assert found["cpu"] == {
        "usage": {"total": 300000, "kernel": 100000, "user": 200000},
        "throttling": {"periods": 5, "throttledPeriods": 2, "throttledTime": 9000},
        "psi": {
            "some": {"avg10": 0.25, "avg60": 1.0, "avg300": 0.0, "total": 12345},
            "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0},
        },
    }
    assert (found["cpuset"]["cpus"], found["cpuset"]["mems"]) == ([0, 1], [0])
    assert found["memory"] == {
        "cache": 4096,
        "usage": {"limit": 67108864, "usage": 438272, "max": 500000, "failcnt": 4},
        "swap": {"limit": 67108864 + 33554432, "usage": 439272, "max": 0, "failcnt": 0},
        "kernel": {"limit": 0, "usage": 270336, "max": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": 8192, "max": 0, "failcnt": 0},
        "raw": {"anon": 53248, "file": 4096, "kernel": 270336, "sock": 8192},
    }
    assert found["pids"] == {"current": 3, "limit": 20}
    assert found["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "minor": 0, "op": "Read", "value": 4096},
            {"major": 8, "minor": 0, "op": "Write", "value": 512},
            {"major": 8, "minor": 0, "op": "Discard", "value": 0},
        ],
        "ioServicedRecursive": [
            {"major": 8, "minor": 0, "op": "Read", "value": 1},
            {"major": 8, "minor": 0, "op": "Write", "value": 2},
            {"major": 8, "minor": 0, "op": "Discard", "value": 0},
        ],
    }
    assert found["hugetlb"] == {"2MB": {"usage": 2097152, "max": 0, "failcnt": 3}}


@pytest.mark.parametrize(
    "files", [{"memory.max": "max\n"}, {"memory.max": "1\n", "memory.swap.max": "max\n"}]
)
def test_no_limit_on_v2_is_the_largest_number(gathered, files):
    found = gathered(2, {**V2, **files})["memory"]
    assert found["swap"]["limit"] == 18446744073709551615
    if files["memory.max"] == "max\n":
        assert found["usage"]["limit"] == 18446744073709551615


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_is_gone_counts_nothing(gathered, version):
    found = gathered(version, {})
    assert set(found) == set(gathered(1, V1))
    assert found["pids"] == {"current": 0, "limit": 0}
    assert found["blkio"] == {}
    assert found["hugetlb"] == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [("", []), ("\n", []), ("3", [3]), ("0-2,7,9-10\n", [0, 1, 2, 7, 9, 10])],
)
def test_lists_of_cpus(text, found):
    assert stats.numbers(text) == found


def test_a_kill_on_v2_is_told_once(tmp_path):
    events = tmp_path / "memory.events"
    events.write_text("oom 0\noom_kill 3\n")
    watch = oom.open_watch(Manager(2, tmp_path))
    assert not watch.fired()  # what was before does not count
    events.write_text("oom 1\noom_kill 4\n")
    assert watch.fired()
    assert not watch.fired()
    events.write_text("oom 2\noom_kill 4\n")
    assert not watch.fired(), "want alone is no kill"


@pytest.mark.parametrize("version", [1, 2])
def test_without_a_memory_cgroup_there_is_nothing_to_watch(tmp_path, version):
    assert oom.open_watch(Manager(version, tmp_path)) is None
