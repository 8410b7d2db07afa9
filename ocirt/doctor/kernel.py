"""The kernel: its version, what came with later ones, namespaces."""

from __future__ import annotations

from ocirt.doctor.machine import FAILS, LACKS, OK, needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine

# Every architecture but alpha gives them these numbers.  Asked for nothing (-1 or 0 for each
# argument), a kernel that has the call complains about that, one without says ENOSYS.
SYSCALLS = (
    # name                  since     number  asked for             who needs
    ("openat2",             (5, 6),   437,    (-1, 0, 0, 0),        "every container needs"),
    ("mount_setattr",       (5, 12),  442,    (-1, 0, 0, 0, 0),     "every container needs"),
    ("clone3 into cgroup",  (5, 7),   435,    (0, 0),               "containers on v2 need"),
    ("pidfd",               (5, 3),   434,    (0, 0),               ""),
    ("idmapped mounts",     (5, 12),  442,    (-1, 0, 0, 0, 0),     ""),
)  # fmt: skip

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

LIMITS = (
    # file                                            bad   what then
    ("user/max_user_namespaces",                      "0",
     "no user namespaces: sysctl user.max_user_namespaces=65536"),
    ("kernel/unprivileged_userns_clone",              "0",
     "only root makes user namespaces: sysctl kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns",  "1",
     "rootless containers need sysctl kernel.apparmor_restrict_unprivileged_userns=0, "
     "or an AppArmor profile for the engine that allows userns"),
)  # fmt: skip


def version(machine: Machine) -> Iterator[Finding]:
    """What ocirt was written for."""
    release = machine.text("/proc/sys/kernel/osrelease")
    good = machine.kernel() >= (5, 12)
    yield needed("version", good, release or "unknown", "needs Linux 5.12 or later")


def syscalls(machine: Machine) -> Iterator[Finding]:
    """What came with later versions."""
    version = machine.kernel()
    for name, since, number, arguments, user in SYSCALLS:
        has = _answers(number, arguments) if machine.here else version >= since
        if has and version >= since:
            yield name, OK, "", ""
        else:
            # A seccomp filter around us may answer ENOSYS, too.
            value = "blocked here" if version >= since else "missing"
            advice = f"Linux {since[0]}.{since[1]} has it; {user or 'some configs need'} it"
            yield name, FAILS if user == "every container needs" else LACKS, value, advice


def memfd(machine: Machine) -> Iterator[Finding]:
    """Whether a copy in memory may be executed."""
    value = machine.text("/proc/sys/vm/memfd_noexec")
    advice = "the init runs from one: sysctl vm.memfd_noexec=1"
    yield needed("executable memfd", value != "2", "", advice)


def _answers(number: int, arguments: tuple[int, ...]) -> bool:
    import ctypes
    from errno import ENOSYS

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return ctypes.get_errno() != ENOSYS


def namespaces(machine: Machine) -> Iterator[Finding]:
    """Which kinds there are."""
    missing = [kind for kind in NAMESPACES if not machine.host.exists(f"/proc/self/ns/{kind}")]
    for kind in missing:
        yield kind, LACKS, "missing", "the kernel was built without it, or is older than 5.6"
    if not missing:
        yield "kinds", OK, " ".join(NAMESPACES), ""


def limits(machine: Machine) -> Iterator[Finding]:
    """How many of them a user may have."""
    for file, bad, advice in LIMITS:
        value = machine.text(f"/proc/sys/{file}")
        if value:
            status = LACKS if value == bad else OK
            yield file.rpartition("/")[2], status, value, advice if status == LACKS else ""
