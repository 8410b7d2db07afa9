"""The figures of cgroup v2, file by file; the shape of the answer is told in stats.py.

Kernel side: Documentation/admin-guide/cgroup-v2.rst
"""

from __future__ import annotations

from ocirt.cgroup.stats import CPUSET_FLAGS, UNLIMITED, counter, numbers, whole, with_pressure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup.stats import Files

USEC = 1000  # nanoseconds

IO = {
    # key of io.stat: (key, operation)
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "dbytes": ("ioServiceBytesRecursive", "Discard"),
    "rios":   ("ioServicedRecursive",     "Read"),
    "wios":   ("ioServicedRecursive",     "Write"),
    "dios":   ("ioServicedRecursive",     "Discard"),
}  # fmt: skip


def gather(files: Files) -> dict[str, Any]:
    """Return the figures of this moment."""
    return {
        "cpu": with_pressure(cpu(files), files, "cpu.pressure"),
        "cpuset": {
            **dict.fromkeys(CPUSET_FLAGS, 0),
            "cpus": numbers(files.text("cpuset.cpus.effective")),
            "mems": numbers(files.text("cpuset.mems.effective")),
        },
        "memory": with_pressure(memory(files), files, "memory.pressure"),
        "pids": {
            "current": files.number("pids.current"),
            "limit": files.number("pids.max", unlimited=0),
        },
        "blkio": with_pressure(blkio(files), files, "io.pressure"),
        "hugetlb": {
            size: {
                "usage": files.number(f"hugetlb.{size}.current"),
                "max": 0,
                "failcnt": files.table(f"hugetlb.{size}.events").get("max", 0),
            }
            for size in files.page_sizes()
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def cpu(files: Files) -> dict[str, Any]:
    """Return times of use and of throttling."""
    stat = files.table("cpu.stat")
    return {
        "usage": {
            "total": stat.get("usage_usec", 0) * USEC,
            "kernel": stat.get("system_usec", 0) * USEC,
            "user": stat.get("user_usec", 0) * USEC,
        },
        "throttling": {
            "periods": stat.get("nr_periods", 0),
            "throttledPeriods": stat.get("nr_throttled", 0),
            "throttledTime": stat.get("throttled_usec", 0) * USEC,
        },
    }


def memory(files: Files) -> dict[str, Any]:
    """Return use and limits of memory; swap counts memory in, as it did on v1."""
    raw = files.table("memory.stat")
    used, limit = files.number("memory.current"), files.number("memory.max")
    swap = files.number("memory.swap.max")
    nothing = {"limit": 0, "usage": 0, "max": 0, "failcnt": 0}
    return {
        "cache": raw.get("file", 0),
        "usage": {
            "limit": limit,
            "usage": used,
            "max": files.number("memory.peak"),
            "failcnt": files.table("memory.events").get("max", 0),
        },
        "swap": {
            "limit": UNLIMITED if UNLIMITED in (swap, limit) else swap + limit,
            "usage": used + files.number("memory.swap.current"),
            "max": 0,
            "failcnt": files.table("memory.swap.events").get("max", 0),
        },
        "kernel": {**nothing, "usage": raw.get("kernel", 0)},
        "kernelTCP": {**nothing, "usage": raw.get("sock", 0)},
        "raw": raw,
    }


def blkio(files: Files) -> dict[str, Any]:
    """Return the counters of block devices."""
    found: dict[str, Any] = {}
    for device, *pairs in files.rows("io.stat"):
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name in IO:
                key, operation = IO[name]
                found.setdefault(key, []).append(counter(device, operation, whole(value)))
    return found
