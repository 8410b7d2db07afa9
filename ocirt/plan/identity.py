"""Who the container's process is, and what it may do: everything but its program.

Each function compiles one step of the order in `ocirt/plan/__init__.py`; the facts (names and
numbers) stand in tables.  To support one more name, add it to its table.

runtime-spec, config.md, "Process", "POSIX process", "Linux Process", "User"; config-linux.md,
"Personality", "Memory Policy", "Seccomp"; capabilities(7), credentials(7).
"""

from __future__ import annotations

from _struct import Struct, pack

from ocirt.errors import At, ConfigError
from ocirt.plan import seccomp as filters
from ocirt.plan.namespaces import own_group_only
from ocirt.plan.ops import APPARMOR, SELINUX, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan.host import Host

# An annotation by the name that crun gave it, and that engines and sites use.
KEEP_GROUPS = "run.oci.keep_original_groups"

# linux/capability.h; the number of a capability is its place
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
_NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}

SETS = ("effective", "permitted", "inheritable", "ambient")  # in the order of op `capabilities`

# asm-generic/resource.h: x86, arm, riscv, powerpc and s390 all use these numbers
RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}

# linux/sched.h
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# struct sched_attr of linux/sched/types.h, with the two util fields of 5.3: size policy flags
# nice priority runtime deadline period util_min util_max.  Older kernels take zeros behind theirs.
_SCHED_ATTR = Struct("=IIQiIQQQII")

# linux/ioprio.h
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IO_CLASS_SHIFT = 13

# sys/personality.h
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

# linux/mempolicy.h
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}
LARGEST_CPU = 65535
LARGEST_NODE = 1023  # MAX_NUMNODES of the largest kernels


def _number(table: dict[str, int], name: str, where: str, what: str) -> int:
    """Return the number of `name`, or refuse it as an unknown `what`."""
    number = table.get(name)
    if number is None:
        raise ConfigError(where, f"{what} {name}")
    return number


def bits(text: str, largest: int) -> bytes:
    """Return the bitmap of a list such as `0-3,7`, in words of 64 bits, as the kernel reads it.

    The topmost bit stays free: set_mempolicy(2) reads one bit less than it is told.
    """
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit()) or (dash and not last.isdigit()):
            raise ConfigError(f"{text!r} is not a list such as 0-3,7")
        low, high = int(first), int(last or first)
        if low > high or high > largest:
            raise ConfigError(f"{part.strip()} is not a range within 0-{largest}")
        mask |= (2 << high) - (1 << low)
    words = mask.bit_length() // 64 + 1
    return b"".join(pack("=Q", mask >> 64 * word & (1 << 64) - 1) for word in range(words))


# --- outside, with the runtime's own privileges


def outside(config: dict[str, Any], host: Host, cpus: str = "") -> list[Op]:
    """Set what the child inherits and could not set itself: OOM score, CPU affinity.

    cpus: those that the caller binds it to.
    """
    # Whatever the caller was pinned to, a daemon's cpuset or an interactive shell's, is not the
    # container's: its cpuset cgroup decides.
    mask = bits(cpus, LARGEST_CPU) if cpus else ""
    reset = Op("affinity", (mask,), "", cpus or "all CPUs")
    score = (config.get("process") or {}).get("oomScoreAdj")
    if score is None:
        return [reset]
    write = Op("write", ("/proc/self/oom_score_adj", str(score)), "process.oomScoreAdj", str(score))
    if not host.rootless:
        return [reset, write]
    # To lower the score wants CAP_SYS_RESOURCE; engines ask for it all the same.  The alternative
    # of a `try` has to be something that cannot fail.
    return [Op("try", (), "process.oomScoreAdj"), write, reset, reset]


def rlimits(config: dict[str, Any]) -> list[tuple[int, int, int, str]]:
    """Return (resource, soft, hard, where) for each of process.rlimits, for prlimit(2).

    Values are signed as `resource.prlimit` takes them: -1 is RLIM_INFINITY.
    """
    found = []
    seen = set()
    for index, entry in enumerate((config.get("process") or {}).get("rlimits") or ()):
        where = f"process.rlimits[{index}]"
        name, soft, hard = entry["type"], entry["soft"], entry["hard"]
        number = _number(RLIMITS, name, where, "wrong rlimit value:")
        if number in seen:
            raise ConfigError(where, f"{name} is given twice")
        if soft > hard:
            raise ConfigError(where, f"{name}: soft limit {soft} is above hard limit {hard}")
        seen.add(number)
        found.append((number, _signed(soft), _signed(hard), where))
    return found


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


# --- inside, before READY


def apparmor(config: dict[str, Any], host: Host) -> list[Op]:
    """Ask for the AppArmor profile of the next exec; refuse a profile that nobody would enforce."""
    profile = (config.get("process") or {}).get("apparmorProfile")
    if not profile:
        return []
    if not host.apparmor():
        raise ConfigError(
            "process.apparmorProfile", "apparmor: config provided but apparmor not supported"
        )
    return [Op("lsm", (APPARMOR, profile), "process.apparmorProfile", f"apparmor {profile}")]


def selinux(config: dict[str, Any], host: Host) -> list[Op]:
    """Ask for the SELinux label of the next exec; refuse labels that nobody would enforce."""
    label = (config.get("process") or {}).get("selinuxLabel")
    mount_label = (config.get("linux") or {}).get("mountLabel")
    if (label or mount_label) and not host.selinux():
        raise ConfigError(
            "process.selinuxLabel" if label else "linux.mountLabel",
            "selinux label is specified in config, but selinux is disabled or not supported",
        )
    return (
        [Op("lsm", (SELINUX, label), "process.selinuxLabel", f"selinux {label}")] if label else []
    )


def no_new_privs(config: dict[str, Any]) -> list[Op]:
    """Give up ever gaining privileges by exec."""
    if (config.get("process") or {}).get("noNewPrivileges"):
        return [Op("no_new_privs", (), "process.noNewPrivileges", "no new privileges")]
    return []


def scheduling(config: dict[str, Any]) -> list[Op]:
    """Set scheduler, I/O priority, personality and memory policy, which the program inherits."""
    process, linux = config.get("process") or {}, config.get("linux") or {}
    ops = []
    if section := process.get("scheduler"):
        ops.append(_scheduler(section))
    if section := process.get("ioPriority"):
        ops.append(_io_priority(section))
    if section := linux.get("personality"):
        ops.append(_personality(section))
    if section := linux.get("memoryPolicy"):
        ops.append(_memory_policy(section))
    return ops


def _scheduler(section: dict[str, Any]) -> Op:
    where = "process.scheduler"
    flags = 0
    for index, name in enumerate(section.get("flags") or ()):
        place = f"{where}.flags[{index}]"
        flags |= _number(SCHED_FLAGS, name, place, "invalid scheduler flag:")
    attr = _SCHED_ATTR.pack(
        _SCHED_ATTR.size,
        _number(POLICIES, section["policy"], f"{where}.policy", "invalid scheduler policy:"),
        flags,
        section.get("nice") or 0,
        section.get("priority") or 0,
        section.get("runtime") or 0,
        section.get("deadline") or 0,
        section.get("period") or 0,
        0,
        0,
    )
    return Op("scheduler", (attr,), where, section["policy"])


def _io_priority(section: dict[str, Any]) -> Op:
    where = "process.ioPriority"
    kind = _number(IO_CLASSES, section["class"], f"{where}.class", "invalid ioPriority.Class:")
    level = section.get("priority") or 0
    return Op(
        "io_priority", (kind << IO_CLASS_SHIFT | level,), where, f"{section['class']} {level}"
    )


def _personality(section: dict[str, Any]) -> Op:
    where = "linux.personality"
    if section.get("flags"):
        raise ConfigError(f"{where}.flags", "no personality flag is supported")
    domain = section["domain"]
    value = _number(PERSONALITIES, domain, f"{where}.domain", "invalid personality domain")
    return Op("personality", (value,), where, domain)


def _memory_policy(section: dict[str, Any]) -> Op:
    where = "linux.memoryPolicy"
    mode = _number(MEMORY_MODES, section["mode"], f"{where}.mode", "invalid memory policy mode")
    for index, name in enumerate(section.get("flags") or ()):
        mode |= _number(MEMORY_FLAGS, name, f"{where}.flags[{index}]", "invalid memory policy flag")
    nodes = section.get("nodes") or ""
    with At(f"{where}.nodes"):
        bitmap = bits(nodes, LARGEST_NODE) if nodes else b""
    return Op("mempolicy", (mode, bitmap), where, f"{section['mode']} {nodes}".strip())


# --- inside, after READY


def capability_sets(config: dict[str, Any], host: Host) -> tuple[dict[str, int] | None, list[str]]:
    """Return the mask of each of the five sets, and the names that the machine does not have.

    A name that nobody knows is refused: it is a slip of the pen, and would go unnoticed.

    None when the config has no `capabilities`: the process then keeps what root has.  An object
    that lacks a set means the empty set.
    """
    section = (config.get("process") or {}).get("capabilities")
    if section is None:
        return None, []
    # A user namespace starts with every capability in the bounding set, whatever its maker had.
    spaces = (config.get("linux") or {}).get("namespaces") or ()
    in_user_namespace = any(space["type"] == "user" for space in spaces)
    available = host.known() if in_user_namespace else host.bounding()
    masks, ignored = {}, set()
    for kind in ("bounding", *SETS):
        mask = 0
        for index, name in enumerate(section.get(kind) or ()):
            where = f"process.capabilities.{kind}[{index}]"
            number = _number(_NUMBERS, name, where, "unknown capability")
            if available >> number & 1:
                mask |= 1 << number
            else:
                ignored.add(name)
        masks[kind] = mask
    return masks, sorted(ignored)


def warnings(config: dict[str, Any], host: Host) -> list[str]:
    """Word what is left out and yet no reason to refuse the container."""
    found = []
    _, ignored = capability_sets(config, host)
    if ignored:
        found.append(f"ignoring unavailable capabilities: [{' '.join(ignored)}]")
    if ((config.get("process") or {}).get("user") or {}).get("additionalGids"):
        reason = why_groups_stay(config, host)
        if reason:
            found.append(f"process.user.additionalGids: left out: {reason}")
    return found


def keeps_groups(config: dict[str, Any]) -> bool:
    """Whether the config wants the groups of whoever calls the runtime.

    On clusters they give access to shared file systems and devices.  The container sees them as
    nobody's, the files still let it in.
    """
    return (config.get("annotations") or {}).get(KEEP_GROUPS) == "1"


def why_groups_stay(config: dict[str, Any], host: Host) -> str:
    """Return why the program has the groups of whoever calls the runtime; "": it has its own."""
    if keeps_groups(config):
        return f"{KEEP_GROUPS} keeps the caller's groups"
    linux = config.get("linux") or {}
    spaces = {space["type"]: space.get("path") for space in linux.get("namespaces") or ()}
    if host.denies_groups(spaces.get("user")):
        return "the user namespace denies setgroups(2)"
    new = "user" in spaces and not spaces["user"]
    if new and host.unprivileged and own_group_only(linux.get("gidMappings") or [], host.group):
        return "a user namespace with the caller's group alone denies setgroups(2)"
    return ""


def _names(mask: int) -> str:
    names = [name[4:].lower() for number, name in enumerate(CAPABILITIES) if mask >> number & 1]
    return " ".join(names) or "none"


def bounding(config: dict[str, Any], host: Host) -> list[Op]:
    """Drop from the bounding set what no exec shall ever bring back.

    Before the change of user, which takes CAP_SETPCAP away.
    """
    masks, _ = capability_sets(config, host)
    if masks is None:
        return []
    keep = masks["bounding"]
    return [Op("bounding", (keep,), "process.capabilities.bounding", f"keep {_names(keep)}")]


def become(config: dict[str, Any], host: Host) -> list[Op]:
    """Turn into the user of the config: umask, owner of the stdio, ids, capabilities."""
    user = (config.get("process") or {}).get("user") or {}
    uid, gid = user.get("uid") or 0, user.get("gid") or 0
    groups = user.get("additionalGids") or ()
    settable = not why_groups_stay(config, host)
    if groups and not settable:
        if host.unprivileged and not keeps_groups(config):
            raise ConfigError(
                "process.user.additionalGids",
                "cannot set any additional groups in a rootless container",
            )
        groups = ()
    umask = user.get("umask")
    umask = 0o22 if umask is None else umask
    also = f" groups {','.join(map(str, groups))}" if groups else ""
    ops = [
        Op("umask", (umask,), "process.user.umask", f"{umask:04o}"),
        # While still root, or the new user could not reopen /proc/self/fd/1.
        Op("stdio", (uid,), "process.user.uid", f"owner {uid}"),
        # The kernel clears the effective set here; `capabilities` sets it again.
        Op(
            "identity",
            (uid, gid, pack(f"={len(groups)}I", *groups), int(settable)),
            "process.user",
            f"{uid}:{gid}{also}",
        ),
    ]
    masks, _ = capability_sets(config, host)
    if masks is not None:
        args = tuple(masks[kind] for kind in SETS)
        ops.append(Op("capabilities", args, "process.capabilities", _names(masks["permitted"])))
    return ops


def death_signal(signal: int) -> list[Op]:
    """Have the kernel send `signal` when the runtime dies.

    After `become`: the kernel forgets it at each change of ids.
    """
    return [Op("death_signal", (signal,), "", f"signal {signal}")] if signal else []


def seccomp(config: dict[str, Any], cache_dir: str | None, early: bool) -> list[Op]:
    """Load the system call filter: early without no_new_privs, else as late as possible.

    Without no_new_privs the kernel wants CAP_SYS_ADMIN to load a filter, so it goes in before the
    capabilities go.  With no_new_privs it can wait, and then the profile need not allow the calls
    of our own last steps.
    """
    section = (config.get("linux") or {}).get("seccomp")
    waits = bool((config.get("process") or {}).get("noNewPrivileges"))
    if not section or waits == early:
        return []
    with At("linux.seccomp"):
        program, flags, listener = filters.program(section, cache_dir)
    what = f"{len(program) // 8} instructions, default {section['defaultAction']}"
    return [Op("seccomp", (flags, program, int(listener)), "linux.seccomp", what)]
