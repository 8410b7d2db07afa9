"""Translate `linux.resources` into cgroup v1 file writes.

Nothing here touches /sys/fs/cgroup: `fs_v1.py` carries the writes out, and `ocirt plan` prints
them.  The part of a file name before its first dot is its controller.  To support one more
resource field, add a row to FIELDS or ITEMS and a case to tests/unit/cgroup/test_v1.py.

The order of the rows is the order of the writes where the kernel looks at one value while it
takes another; a write that comes too early is tried again after the rest (`fs.carry_out`).

Spec side:   runtime-spec, config-linux.md, "Control groups"
Kernel side: Documentation/admin-guide/cgroup-v1/, Documentation/scheduler/sched-bwc.rst
"""

from __future__ import annotations

from ocirt.cgroup import devices, fields
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The order in which the hierarchies are made and joined.  cpuset first: it may refuse a task
# for want of cpus, and then nothing else has happened yet.
CONTROLLERS = (
    "cpuset", "devices", "memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb", "net_cls",
    "net_prio", "perf_event", "freezer", "rdma", "name=systemd", "misc",
)  # fmt: skip

# The same knob under another scheduler's name, and how its value is worded there: for a missing
# file.
ALIASES = {
    "blkio.weight": ("blkio.bfq.weight", str),
    "blkio.weight_device": ("blkio.bfq.weight_device", str),
}

OFF_AT_ZERO = ("cpu.idle", "cpu.cfs_burst_us")

# The kernel takes the value and does nothing with it since 6.1; engines still send it.
IGNORED = (("memory", "kernel"),)


def limit(value: int) -> str | None:
    """Word a limit in bytes: -1 lifts it, 0 means the caller left it alone."""
    return None if not value else str(max(value, -1))


def memory_and_swap(swap: int | None, memory: int | None) -> str | None:
    """Word the total; unlimited memory with a limited total would be refused by the kernel."""
    if not swap:
        return "-1" if memory == -1 else None
    if swap > 0 and memory:
        if memory == -1:
            raise ConfigError(f"{swap} is below memory.limit -1, unlimited")
        if swap < memory:
            raise ConfigError(f"{swap} is below memory.limit {memory}")
    return limit(swap)


def swappiness(value: int) -> str | None:
    """Word a percentage; 0 is a value of its own."""
    if value in (-1, fields.UNSIGNED_MINUS_ONE):
        return None
    if value > 100:
        raise ConfigError(f"{value} is not between 0 and 100")
    return str(value)


def one(value: bool) -> str | None:
    return "1" if value else None


def shares(value: int | None, idle: int | None) -> str | None:
    """Word cpu.shares; the kernel would clamp silently, and refuses any while idle is 1."""
    if not value or idle == 1:
        return None
    if value < 2:
        raise ConfigError("the minimum allowed cpu-shares is 2")
    if value > 262144:
        raise ConfigError("the maximum allowed cpu-shares is 262144")
    return str(value)


def quota(value: int) -> str | None:
    return None if not value else str(max(value, -1))


def weight(item: dict[str, Any]) -> str | None:
    value = item.get("weight")
    return f"{fields.device(item)} {value}" if value else None


def leaf_weight(item: dict[str, Any]) -> str | None:
    value = item.get("leafWeight")
    return f"{fields.device(item)} {value}" if value else None


def rate(item: dict[str, Any]) -> str:
    # A rate of 0 lifts the limit; the kernel means the same by it.
    return f"{fields.device(item)} {item['rate']}"


def priority(item: dict[str, Any]) -> str:
    return f"{item['name']} {item['priority']}"


FIELDS: fields.Fields = (
    # section   fields                cgroup v1 file                  value
    ("cpu",     ("cpus",),            "cpuset.cpus",                  fields.text),
    ("cpu",     ("mems",),            "cpuset.mems",                  fields.text),
    ("memory",  ("limit",),           "memory.limit_in_bytes",        limit),
    ("memory",  ("swap", "limit"),    "memory.memsw.limit_in_bytes",  memory_and_swap),
    ("memory",  ("reservation",),     "memory.soft_limit_in_bytes",   limit),
    ("memory",  ("kernelTCP",),       "memory.kmem.tcp.limit_in_bytes", limit),
    ("memory",  ("swappiness",),      "memory.swappiness",            swappiness),
    ("memory",  ("disableOOMKiller",), "memory.oom_control",          one),
    ("cpu",     ("idle",),            "cpu.idle",                     fields.exact),
    ("cpu",     ("shares", "idle"),   "cpu.shares",                   shares),
    ("cpu",     ("period",),          "cpu.cfs_period_us",            fields.given),
    ("cpu",     ("quota",),           "cpu.cfs_quota_us",             quota),
    ("cpu",     ("burst",),           "cpu.cfs_burst_us",             fields.exact),
    ("cpu",     ("realtimePeriod",),  "cpu.rt_period_us",             fields.given),
    ("cpu",     ("realtimeRuntime",), "cpu.rt_runtime_us",            quota),
    ("pids",    ("limit",),           "pids.max",                     fields.tasks),
    ("blockIO", ("weight",),          "blkio.weight",                 fields.given),
    ("blockIO", ("leafWeight",),      "blkio.leaf_weight",            fields.given),
    ("network", ("classID",),         "net_cls.classid",              fields.given),
)  # fmt: skip

ITEMS: fields.Items = (
    # section          list                       cgroup v1 file                       value
    ("blockIO",        "weightDevice",            "blkio.weight_device",               weight),
    ("blockIO",        "weightDevice",            "blkio.leaf_weight_device",          leaf_weight),
    ("blockIO",        "throttleReadBpsDevice",   "blkio.throttle.read_bps_device",    rate),
    ("blockIO",        "throttleWriteBpsDevice",  "blkio.throttle.write_bps_device",   rate),
    ("blockIO",        "throttleReadIOPSDevice",  "blkio.throttle.read_iops_device",   rate),
    ("blockIO",        "throttleWriteIOPSDevice", "blkio.throttle.write_iops_device",  rate),
    ("hugepageLimits", "", "hugetlb.{pageSize}.limit_in_bytes",       fields.page_limit),
    ("hugepageLimits", "", "hugetlb.{pageSize}.rsvd.limit_in_bytes",  fields.page_limit),
    ("network",        "priorities",              "net_prio.ifpriomap",                priority),
    ("rdma",           "",                        "rdma.max",               fields.handles),
)  # fmt: skip


def writes(resources: dict[str, Any]) -> list[fields.Write]:
    """Return the (file, value, where) that put `resources` into force, device rules apart."""
    if resources.get("unified"):
        raise ConfigError("linux.resources.unified", "names files of cgroup v2, this is v1")
    return fields.writes(FIELDS, ITEMS, resources)


def device_writes(resources: dict[str, Any]) -> list[fields.Write]:
    """Return the writes that make the device rules from nothing.

    The reset comes first, so neither the rules of the parent nor those of an earlier user of
    the group matter, and what follows only ever adds.
    """
    allow, exceptions = devices.reduce(resources.get("devices") or ())
    rows = [("devices.allow" if allow else "devices.deny", "a", "linux.resources.devices")]
    file = "devices.deny" if allow else "devices.allow"
    for kind, major, minor, access, where in exceptions:
        rows.append((file, devices.line(kind, major, minor, access), where))
    return rows
