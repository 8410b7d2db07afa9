"""The figures of cgroup v1, file by file; the shape of the answer is told in stats.py.

Kernel side: Documentation/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from ocirt.cgroup.stats import CPUSET_FLAGS, counter, numbers, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup.stats import Files

TICK = 10_000_000  # nanoseconds of cpuacct.stat's unit, USER_HZ

MEMORY = (
    # key        part of the file's name
    ("usage",     ""),
    ("swap",      "memsw."),
    ("kernel",    "kmem."),
    ("kernelTCP", "kmem.tcp."),
)  # fmt: skip

BLKIO = (
    # key                      file below blkio., blkio.bfq. or blkio.throttle.
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive",     "io_serviced_recursive"),
    ("ioQueueRecursive",        "io_queued_recursive"),
    ("ioServiceTimeRecursive",  "io_service_time_recursive"),
    ("ioWaitTimeRecursive",     "io_wait_time_recursive"),
    ("ioMergedRecursive",       "io_merged_recursive"),
    ("ioTimeRecursive",         "time_recursive"),
    ("sectorsRecursive",        "sectors_recursive"),
)  # fmt: skip


def gather(files: Files) -> dict[str, Any]:
    """Return the figures of this moment."""
    return {
        "cpu": cpu(files),
        "cpuset": cpuset(files),
        "memory": memory(files),
        "pids": {
            "current": files.number("pids.current"),
            "limit": files.number("pids.max", unlimited=0),
        },
        "blkio": blkio(files),
        "hugetlb": {
            size: {
                "usage": files.number(f"hugetlb.{size}.usage_in_bytes"),
                "max": files.number(f"hugetlb.{size}.max_usage_in_bytes"),
                "failcnt": files.number(f"hugetlb.{size}.failcnt"),
            }
            for size in files.page_sizes()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def cpu(files: Files) -> dict[str, Any]:
    """Return times of use and of throttling."""
    ticks = files.table("cpuacct.stat")
    by_cpu = [row for row in files.rows("cpuacct.usage_all") if len(row) == 3 and row[0] != "cpu"]
    throttled = files.table("cpu.stat")
    return {
        "usage": {
            "total": files.number("cpuacct.usage"),
            "percpu": [whole(word) for word in files.text("cpuacct.usage_percpu").split()],
            "percpu_kernel": [whole(row[2]) for row in by_cpu],
            "percpu_user": [whole(row[1]) for row in by_cpu],
            "kernel": ticks.get("system", 0) * TICK,
            "user": ticks.get("user", 0) * TICK,
        },
        "throttling": {
            "periods": throttled.get("nr_periods", 0),
            "throttledPeriods": throttled.get("nr_throttled", 0),
            "throttledTime": throttled.get("throttled_time", 0),
        },
    }


def cpuset(files: Files) -> dict[str, Any]:
    """Return where the container may run, and how its cpuset is set up."""
    found: dict[str, Any] = {name: files.number(f"cpuset.{name}") for name in CPUSET_FLAGS}
    found["cpus"] = numbers(files.text("cpuset.cpus"))
    found["mems"] = numbers(files.text("cpuset.mems"))
    return found


def memory(files: Files) -> dict[str, Any]:
    """Return use and limits of memory, and the kernel's own statistics."""
    raw = files.table("memory.stat")
    found: dict[str, Any] = {"cache": raw.get("cache", 0)}
    for key, part in MEMORY:
        found[key] = {
            "limit": files.number(f"memory.{part}limit_in_bytes"),
            "usage": files.number(f"memory.{part}usage_in_bytes"),
            "max": files.number(f"memory.{part}max_usage_in_bytes"),
            "failcnt": files.number(f"memory.{part}failcnt"),
        }
    found["raw"] = raw
    return found


def blkio(files: Files) -> dict[str, Any]:
    """Return the counters of block devices, of the scheduler that has any."""
    found: dict[str, Any] = {}
    for key, name in BLKIO:
        for part in ("", "bfq.", "throttle."):
            rows = [row for row in files.rows(f"blkio.{part}{name}") if ":" in row[0]]
            entries = [
                counter(row[0], row[1] if len(row) == 3 else "", whole(row[-1])) for row in rows
            ]
            if entries:
                found[key] = entries
                break
    return found
