"""Translate what a container's cgroup files are to hold into properties of its systemd unit.

systemd writes these files itself, again and again: whenever something about the unit changes, or
it reads its configuration anew.  What it is not told it takes for unlimited, so the properties
must say what `v1.py` or `v2.py` say; they are made from the very same rows.  To support one more
file, add a row to V2 or V1.  Nothing here touches a file or a bus.

systemd.resource-control(5); org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from ocirt.cgroup import devices, v2
from ocirt.errors import At, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ocirt.cgroup.fields import Write

    Properties = dict[str, tuple[str, Any]]  # name -> (type, value)

INFINITY = (1 << 64) - 1
PERIOD = 100000  # the kernel's own, microseconds
STEP = 10000  # systemd counts in percents of a CPU: microseconds of a second

# What came when.
PERIODS = 242  # CPUQuotaPeriodUSec
CPUSETS = 244  # AllowedCPUs, AllowedMemoryNodes
IDLE = 252  # CPUWeight=idle
OOM = 253  # OOMPolicy of scopes

_SUFFIXES = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}


def number(text: str) -> int:
    """Read a number as the kernel does: `max`, `-1`, `512M`."""
    text = text.strip().upper()
    if text in ("MAX", "-1"):
        return INFINITY
    shift = _SUFFIXES.get(text[-1:], 0)
    digits = text[:-1] if shift else text
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 21):
        raise ConfigError(f"{text!r} is no number")
    return min(int(digits) << shift, INFINITY)


def amount(name: str) -> Callable[[str, int], Properties]:
    return lambda text, _: {name: ("t", number(text))}


def weight(text: str, _: int) -> Properties:
    return {"CPUWeight": ("t", number(text))}


def idle(text: str, version: int) -> Properties:
    return {"CPUWeight": ("t", 0)} if text.strip() == "1" and version >= IDLE else {}


def bandwidth(text: str, version: int) -> Properties:
    """Word `QUOTA PERIOD`; systemd wants the quota of one second, in whole percents."""
    quota_text, _, period_text = text.strip().partition(" ")
    quota, period = number(quota_text), number(period_text or str(PERIOD)) or PERIOD
    each = INFINITY
    if quota != INFINITY:
        each = -(-(quota * 1000000 // period) // STEP) * STEP
    found: Properties = {"CPUQuotaPerSecUSec": ("t", each)}
    if version >= PERIODS:
        found["CPUQuotaPeriodUSec"] = ("t", period)
    return found


def members(name: str) -> Callable[[str, int], Properties]:
    """Word a list such as 0-3,7 as a bit mask, lowest byte first."""

    def convert(text: str, version: int) -> Properties:
        if version < CPUSETS:
            return {}
        mask = 0
        for part in text.strip().split(","):
            first, dash, last = part.strip().partition("-")
            low, high = number(first), number(last if dash else first)
            if not low <= high < 1 << 16:
                raise ConfigError(f"{text!r} is no list of numbers")
            mask |= (1 << high + 1) - (1 << low)
        return {name: ("ay", list(mask.to_bytes(mask.bit_length() // 8 + 1, "little")))}

    return convert


def io_weight(text: str, _: int) -> Properties:
    """Word io.weight, `default 100` or `100`; what is for one device stays in its file."""
    words = text.split()
    if len(words) == 2 and words[0] != "default":
        return {}
    return {"IOWeight": ("t", number(words[-1]))}


def bfq_weight(text: str, version: int) -> Properties:
    return io_weight(v2.io_weight(text), version)


def oom(text: str, version: int) -> Properties:
    policy = "kill" if text.strip() == "1" else "continue"
    return {"OOMPolicy": ("s", policy)} if version >= OOM else {}


V2: dict[str, Callable[[str, int], Properties]] = {
    # cgroup v2 file    property
    "memory.max":       amount("MemoryMax"),
    "memory.high":      amount("MemoryHigh"),
    "memory.low":       amount("MemoryLow"),
    "memory.min":       amount("MemoryMin"),
    "memory.swap.max":  amount("MemorySwapMax"),
    "memory.oom.group": oom,
    "pids.max":         amount("TasksMax"),
    "cpu.max":          bandwidth,
    "cpu.weight":       weight,
    "cpu.idle":         idle,
    "cpuset.cpus":      members("AllowedCPUs"),
    "cpuset.mems":      members("AllowedMemoryNodes"),
    "io.weight":        io_weight,
    "io.bfq.weight":    bfq_weight,
}  # fmt: skip

V1: dict[str, Callable[[str, int], Properties]] = {
    "memory.limit_in_bytes": amount("MemoryLimit"),
    "pids.max":              amount("TasksMax"),
    "cpu.shares":            amount("CPUShares"),
    "cpu.max":               bandwidth,
    "blkio.weight":          amount("BlockIOWeight"),
}  # fmt: skip


def limits(rows: Iterable[Write], cgroup_version: int, version: int) -> Properties:
    """Return what writing `rows` comes to, for a systemd of `version`; later rows win."""
    table, rows = V2, list(rows)
    if cgroup_version == 1:
        table, rows = V1, _joined(rows)
    found: Properties = {}
    for file, value, where in rows:
        if file in table:
            with At(where):
                found.update(table[file](value, version))
    return found


def _joined(rows: list[Write]) -> list[Write]:
    """Make one row of v1's two about the CPU bandwidth."""
    values = {file: (value, where) for file, value, where in rows}
    nothing = "", ""
    period, where = values.get("cpu.cfs_period_us", nothing)
    quota, where = values.get("cpu.cfs_quota_us", ("-1", where))
    if where:
        rows = [*rows, ("cpu.max", f"{quota} {period}", where)]
    return rows


def device_rules(rules: Iterable[dict[str, Any]], cgroup_version: int) -> Properties:
    """Return DevicePolicy and DeviceAllow for linux.resources.devices.

    What is open by default and closed by exception cannot be said; then systemd stays out of it.
    A rule for a minor number of any major cannot be said either.  On v2 more may be allowed here
    than is meant, since our own program has to agree; on v1 there is none.
    """
    allow, exceptions = devices.reduce(rules)
    if allow:
        return {"DevicePolicy": ("s", "auto")}
    listed = []
    for kind, major, minor, access, _ in exceptions:
        letters = devices.line(kind, major, minor, access).rpartition(" ")[2]
        name = {"b": "block", "c": "char"}[kind]
        if major is None:
            if minor is None or cgroup_version == 2:
                listed.append((f"{name}-*", letters))
        elif minor is None:
            listed.append((f"{name}-{major}", letters))
        else:
            listed.append((f"/dev/{name}/{major}:{minor}", letters))
    return {"DevicePolicy": ("s", "strict"), "DeviceAllow": ("a(ss)", listed)}


def scope(parent: str, description: str, pid: int, cgroup_version: int, version: int) -> Properties:
    """Return what every scope of ours has: its place, its first process, what is counted."""
    yes = ("b", True)
    found: Properties = {
        "Description": ("s", description),
        "Slice": ("s", parent),
        "Delegate": yes,
        "PIDs": ("au", [pid]),
        "MemoryAccounting": yes,
        "CPUAccounting": yes,
        "TasksAccounting": yes,
        ("IOAccounting" if cgroup_version == 2 else "BlockIOAccounting"): yes,
        # Else it would be stopped at shutdown before the engine that looks after it.
        "DefaultDependencies": ("b", False),
    }
    # systemd would end the whole scope when the kernel has killed one process of it.
    found.update(oom("0", version))
    return found
