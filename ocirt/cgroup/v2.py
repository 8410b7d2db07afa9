"""Translate `linux.resources` into cgroup v2 file writes.

Nothing here touches /sys/fs/cgroup: `fs_v2.py` carries the writes out, and `ocirt plan` prints
them.  To support one more resource field, add a row to FIELDS or ITEMS and a case to
tests/unit/cgroup/test_v2.py.

Device rules are no files on v2: see `devices.program`.

Spec side:   runtime-spec, config-linux.md, "Control groups"
Kernel side: Documentation/admin-guide/cgroup-v2.rst
"""

from __future__ import annotations

from ocirt.cgroup import fields
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The controllers that work inside a threaded cgroup; the others need a domain.
THREADED = ("cpu", "cpuset", "perf_event", "pids")

# Where the file is missing: without swap accounting, "no swap" is what the container gets anyway.
OFF_AT_ZERO = ("cpu.idle", "cpu.max.burst", "memory.swap.max")

# What v2 has no counterpart for and engines send all the same, as they do on v1.
IGNORED = (
    ("memory", "kernel"),
    ("memory", "kernelTCP"),
    ("memory", "swappiness"),
    ("memory", "disableOOMKiller"),
    ("blockIO", "leafWeight"),
    ("network", "classID"),
    ("network", "priorities"),
)


def limit(value: int) -> str | None:
    """Word a limit: -1 lifts it, 0 means the caller left it alone."""
    return None if not value else "max" if value < 0 else str(value)


def swap_alone(memory_and_swap: int | None, memory: int | None) -> str | None:
    """Take memory out of the spec's memory+swap total; v2 keeps them apart."""
    if not memory_and_swap:
        return "max" if memory == -1 else None
    if memory_and_swap < 0:
        return "max"
    if not memory:
        raise ConfigError("needs memory.limit as well")
    if memory < 0:
        raise ConfigError(f"{memory_and_swap} is below memory.limit -1, unlimited")
    if memory_and_swap < memory:
        raise ConfigError(f"{memory_and_swap} is below memory.limit {memory}")
    return str(memory_and_swap - memory)


def weight(shares: int | None, idle: int | None) -> str | None:
    """Word cpu.shares as cpu.weight: 2 is 1, 1024 is 100, 262144 is 10000, a curve between.

    The kernel refuses a weight while cpu.idle is 1, and sets its own.
    """
    if not shares or idle == 1:
        return None
    if shares <= 2:
        return "1"
    if shares >= 262144:
        return "10000"
    power = _log2(shares)
    exact = 10 ** ((power * power + 125 * power) / 612 - 7 / 34)
    return str(int(-(-(exact - 1e-9) // 1)))


def _log2(value: int) -> float:
    # By squaring; `math` need not be at hand where the interpreter is embedded.
    whole = value.bit_length() - 1
    rest, bit, fraction = value / (1 << whole), 0.5, 0.0
    while bit > 1e-15:
        rest *= rest
        if rest >= 2:
            rest /= 2
            fraction += bit
        bit /= 2
    return whole + fraction


def bandwidth(quota: int | None, period: int | None) -> str | None:
    """Word quota and period together; a quota alone means the kernel's own period, 100 ms."""
    if not quota and not period:
        return None
    return f"{quota if quota and quota > 0 else 'max'} {period or 100000}"


def realtime(value: int) -> None:
    if value:
        raise ConfigError("cgroup v2 has no limit on realtime scheduling")


def io_weight(line: str) -> str:
    """Turn a line for io.bfq.weight (10 to 1000) into one for io.weight (1 to 10000)."""
    *device, value = line.split()
    return " ".join([*device, str(1 + (int(value) - 10) * 9999 // 990)])


# The same knob under another name, and how its value is worded there: for a missing file.
ALIASES = {"io.bfq.weight": ("io.weight", io_weight)}


def device_weight(item: dict[str, Any]) -> str | None:
    value = item.get("weight")
    return f"{fields.device(item)} {value}" if value else None


def rate(key: str) -> Callable[[dict[str, Any]], str]:
    def convert(item: dict[str, Any]) -> str:
        # 0 lifts a limit on v1; here the word is max, and 0 is refused.
        return f"{fields.device(item)} {key}={item['rate'] or 'max'}"

    return convert


FIELDS: fields.Fields = (
    # section   fields                cgroup v2 file     value
    ("cpu",     ("cpus",),            "cpuset.cpus",     fields.text),
    ("cpu",     ("mems",),            "cpuset.mems",     fields.text),
    ("memory",  ("swap", "limit"),    "memory.swap.max", swap_alone),
    ("memory",  ("limit",),           "memory.max",      limit),
    ("memory",  ("reservation",),     "memory.low",      limit),
    ("cpu",     ("idle",),            "cpu.idle",        fields.exact),
    ("cpu",     ("shares", "idle"),   "cpu.weight",      weight),
    ("cpu",     ("quota", "period"),  "cpu.max",         bandwidth),
    ("cpu",     ("burst",),           "cpu.max.burst",   fields.exact),
    ("cpu",     ("realtimePeriod",),  "",                realtime),
    ("cpu",     ("realtimeRuntime",), "",                realtime),
    ("pids",    ("limit",),           "pids.max",        fields.tasks),
    ("blockIO", ("weight",),          "io.bfq.weight",   fields.given),
)  # fmt: skip

ITEMS: fields.Items = (
    # section         list                        cgroup v2 file               value
    ("blockIO",        "weightDevice",            "io.bfq.weight",             device_weight),
    ("blockIO",        "throttleReadBpsDevice",   "io.max",                    rate("rbps")),
    ("blockIO",        "throttleWriteBpsDevice",  "io.max",                    rate("wbps")),
    ("blockIO",        "throttleReadIOPSDevice",  "io.max",                    rate("riops")),
    ("blockIO",        "throttleWriteIOPSDevice", "io.max",                    rate("wiops")),
    ("hugepageLimits", "",                        "hugetlb.{pageSize}.max",      fields.page_limit),
    ("hugepageLimits", "",                        "hugetlb.{pageSize}.rsvd.max", fields.page_limit),
    ("rdma",           "",                        "rdma.max",                  fields.handles),
)  # fmt: skip


def writes(resources: dict[str, Any]) -> list[fields.Write]:
    """Return the (file, value, where) that put `resources` into force."""
    rows = fields.writes(FIELDS, ITEMS, resources)
    # `unified` is the user's own wording of v2 files, so it comes last and wins.
    for file, value in (resources.get("unified") or {}).items():
        where = f"linux.resources.unified.{file}"
        if not file or "/" in file or file in (".", "..") or "\0" in file:
            raise ConfigError(where, "is no name of a file in a cgroup")
        rows += [(file, line, where) for line in value.splitlines()]
    return rows
