"""Resource limits: how high we may set one."""

from __future__ import annotations

from ocirt.kernel import procfs

UNLIMITED = (1 << 64) - 1  # RLIM_INFINITY as config.json has it
CAP_SYS_RESOURCE = 1 << 24


def highest(name: str) -> int:
    """Return the highest hard limit of a kind (`memlock`) that we may set."""
    import resource

    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    may = int(procfs.field("self", "CapEff") or "0", 16) & CAP_SYS_RESOURCE
    return UNLIMITED if may or hard == resource.RLIM_INFINITY else hard
