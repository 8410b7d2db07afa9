"""What a machine can do for containers, as rows: area, name, status, value, advice.

Each function of CHECKS looks at one area.  All of them look below a root directory, so that a
test brings its machine; only where that is the machine we run on, system calls are tried as
well.  Nothing is changed and nothing is run.
"""

from __future__ import annotations

import os
import sys

from ocirt import engines
from ocirt.cgroup import layout, v1
from ocirt.engines.site import Site, user_home
from ocirt.errors import Error
from ocirt.plan.host import Host
from ocirt.plan.identity import CAPABILITIES
from ocirt.version import LIBRARIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Row = tuple[str, str, str, str, str]  # area, name, status, value, advice
    Finding = tuple[str, str, str, str]  # the same without the area

OK, INFO, LACKS, FAILS = "ok", "info", "lacks", "fails"

INIT = os.path.join(os.path.dirname(__file__), "init", "ocirt-init")

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

DEVICES = (
    # what             where it shows
    ("NVIDIA GPUs",    "/dev/nvidia[0-9]*"),
    ("NVIDIA driver",  "/proc/driver/nvidia/version"),
    ("AMD compute",    "/dev/kfd"),
    ("render nodes",   "/dev/dri/renderD*"),
    ("RDMA",           "/sys/class/infiniband/*"),
    ("RDMA verbs",     "/dev/infiniband/*"),
    ("Slingshot",      "/sys/class/cxi/*"),
)  # fmt: skip

CDI = ("/etc/cdi", "/var/run/cdi")


class Machine:
    """The machine that is looked at: its files below `root`, as the user `uid` finds them."""

    def __init__(self, root: str = "/", uid: int = 0) -> None:
        self.site = Site(root, user_home() if root == "/" else "")
        self.host = Host(self.site.root)
        self.uid = uid
        self.here = self.site.root == "/"
        self.proc = self.site.at("/proc/self")
        self.cgroups = self.site.at("/sys/fs/cgroup")

    def text(self, path: str) -> str:
        """Return a file's text without the newline; "" when it is not there or not for us."""
        try:
            return self.site.read(path).strip()
        except (OSError, Error):
            return ""

    def kernel(self) -> tuple[int, int]:
        """Return the kernel's version."""
        parts = self.text("/proc/sys/kernel/osrelease").split("-")[0].split(".")
        numbers = [int(part) for part in parts[:2] if part.isdigit()]
        return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def examine(machine: Machine) -> list[Row]:
    """Return every row."""
    return [(area, *finding) for area, check in CHECKS for finding in check(machine)]


def kernel(machine: Machine) -> Iterator[Finding]:
    """The version, and what came with later ones."""
    version = machine.kernel()
    release = machine.text("/proc/sys/kernel/osrelease")
    yield _needed("version", version >= (5, 12), release or "unknown", "needs Linux 5.12 or later")
    for name, since, number, arguments, user in SYSCALLS:
        has = _answers(number, arguments) if machine.here else version >= since
        if has and version >= since:
            yield name, OK, "", ""
        else:
            # A seccomp filter around us may answer ENOSYS, too.
            value = "blocked here" if version >= since else "missing"
            advice = f"Linux {since[0]}.{since[1]} has it; {user or 'some configs need'} it"
            needed = user == "every container needs"
            yield name, FAILS if needed else LACKS, value, advice
    memfd = machine.text("/proc/sys/vm/memfd_noexec")
    yield _needed(
        "executable memfd", memfd != "2", "", "the init runs from one: sysctl vm.memfd_noexec=1"
    )


def _answers(number: int, arguments: tuple[int, ...]) -> bool:
    import ctypes
    from errno import ENOSYS

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return ctypes.get_errno() != ENOSYS


def namespaces(machine: Machine) -> Iterator[Finding]:
    """Which there are, and how many a user may have."""
    missing = [kind for kind in NAMESPACES if not machine.host.exists(f"/proc/self/ns/{kind}")]
    for kind in missing:
        yield kind, LACKS, "missing", "the kernel was built without it, or is older than 5.6"
    if not missing:
        yield "kinds", OK, " ".join(NAMESPACES), ""
    for file, bad, advice in LIMITS:
        value = machine.text(f"/proc/sys/{file}")
        if value:
            status = LACKS if value == bad else OK
            yield file.rpartition("/")[2], status, value, advice if status == LACKS else ""


def mappings(machine: Machine) -> Iterator[Finding]:
    """What a container of a user who is not root can be mapped to."""
    for name in ("newuidmap", "newgidmap"):
        path = machine.site.program(name)
        yield _wanted(
            name, bool(path), path or "not found",
            "containers of users get one id only: install uidmap (Fedora, RHEL: shadow-utils)",
        )  # fmt: skip
    names = _user_names(machine)
    for file in ("subuid", "subgid"):
        rows = [row.split(":") for row in machine.text(f"/etc/{file}").splitlines()]
        rows = [row for row in rows if len(row) == 3 and row[2].isdigit()]
        if machine.uid == 0:
            yield file, INFO, f"ranges of {len({row[0] for row in rows})} users", ""
            continue
        count = sum(int(row[2]) for row in rows if row[0] in names)
        yield _wanted(
            file, count > 0, f"{count} ids of {names[0]}",
            f"as root: usermod --add-{file}s 100000-165535 {names[0]}, with a range of nobody else",
        )  # fmt: skip


def _user_names(machine: Machine) -> list[str]:
    """Return how /etc/subuid may call the user."""
    number = str(machine.uid)
    for row in machine.text("/etc/passwd").splitlines():
        fields = row.split(":")
        if fields[2:3] == [number]:
            return [fields[0], number]
    return [number]


def cgroups(machine: Machine) -> Iterator[Finding]:
    """Who can make them, the hierarchies, their controllers, and what this user may do."""
    yield "drivers", INFO, "fs", ""
    if layout.unified(machine.cgroups):
        yield "mode", OK, "v2", ""
        found = machine.text("/sys/fs/cgroup/cgroup.controllers").split()
        yield from _controllers(found, ("cpu", "cpuset", "io", "memory", "pids"))
        yield from _delegation(machine)
        return
    mounted = layout.v1_mounts(machine.cgroups, machine.proc)
    if not mounted:
        status = FAILS if machine.uid == 0 else LACKS
        yield "mode", status, "none", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return
    hybrid = layout.unified(machine.cgroups + "/unified")
    yield "mode", OK, "v1, with a v2 hierarchy beside it" if hybrid else "v1", ""
    found = [name for names, _, _ in mounted for name in names.split(",")]
    wanted = ("cpu", "cpuset", "devices", "freezer", "memory", "pids")
    yield from _controllers([name for name in found if name in v1.CONTROLLERS], wanted)
    if machine.uid != 0:
        advice = "v1 gives users none: boot with systemd.unified_cgroup_hierarchy=1"
        yield "delegation", LACKS, "none", advice


def _controllers(found: list[str], wanted: tuple[str, ...]) -> Iterator[Finding]:
    missing = [name for name in wanted if name not in found]
    advice = "limits on these are refused: enable them on the kernel's command line or in its build"
    value = " ".join(found) + (f" (no {', '.join(missing)})" if missing else "")
    yield _wanted("controllers", not missing, value, advice)


def _delegation(machine: Machine) -> Iterator[Finding]:
    own = layout.own_paths(machine.proc).get("", "/")
    path = machine.cgroups + own
    if machine.uid == 0:
        yield _wanted(
            "delegation", _owned(machine.cgroups + "/cgroup.procs", 0), "root",
            "this is a container's view of cgroups: give it a writable one",
        )  # fmt: skip
        return
    # A user's engines make their cgroups below the nearest one that is theirs.
    while path != machine.cgroups and not _owned(path + "/cgroup.subtree_control", machine.uid):
        path = os.path.dirname(path)
    if path == machine.cgroups:
        advice = "log in by a session of systemd (loginctl enable-linger USER), or use systemd-run"
        yield "delegation", LACKS, "none", advice
        return
    given = "cgroup.controllers"
    found = machine.text(f"/sys/fs/cgroup{path[len(machine.cgroups) :]}/{given}").split()
    missing = [name for name in ("cpu", "memory", "pids") if name not in found]
    advice = "[Service] Delegate=cpu cpuset io memory pids in user@.service.d/delegate.conf"
    yield _wanted("delegation", not missing, " ".join(found), advice)


def _owned(path: str, uid: int) -> bool:
    try:
        return os.stat(path).st_uid == uid
    except OSError:
        return False


def security(machine: Machine) -> Iterator[Finding]:
    """Seccomp, security modules, capabilities."""
    actions = machine.text("/proc/sys/kernel/seccomp/actions_avail")
    advice = "the kernel was built without CONFIG_SECCOMP_FILTER"
    yield _wanted("seccomp", bool(actions), actions or "missing", advice)
    library = _libseccomp(machine)
    yield _wanted(
        "libseccomp", bool(library), library or "not found",
        "engines send filters: install libseccomp2 (Fedora, RHEL: libseccomp)",
    )  # fmt: skip
    for name, enabled in (
        ("apparmor", machine.host.apparmor()),
        ("selinux", machine.host.selinux()),
    ):
        yield name, INFO, "on" if enabled else "off", ""
    known, bounding = machine.host.known(), machine.host.bounding()
    missing = [name for bit, name in enumerate(CAPABILITIES) if known & ~bounding & (1 << bit)]
    advice = "containers cannot have them either; start the engine with the whole set"
    status = LACKS if missing and machine.uid == 0 else OK
    value = f"all but {', '.join(missing)}" if missing else "all"
    yield "capabilities", status, value, advice if status == LACKS else ""


def _libseccomp(machine: Machine) -> str:
    """Return the version that the library's file name tells, "0" for one that tells none."""
    for directory in LIBRARIES:
        path = machine.site.at(directory.format(os.uname().machine) + "/libseccomp.so.2")
        if os.path.exists(path):
            name = os.path.basename(os.path.realpath(path))
            return name.partition(".so.")[2]
    return ""


def registrations(machine: Machine) -> Iterator[Finding]:
    """The engines that are installed, and by what name they know ocirt."""
    some = False
    for engine in engines.ENGINES:
        program = engines.installed(engine, machine.site)
        if not program:
            continue
        some = True
        if engine == "kubernetes":
            yield engine, INFO, f"{program}: its RuntimeClass is in the cluster", ""
            continue
        try:
            found = engines.registered(engine, machine.site)
        except (Error, OSError) as error:
            yield engine, LACKS, program, f"its configuration cannot be read: {error}"
            continue
        if found:
            value = ", ".join([f"{name} ({path})" for name, path in found])
            gone = [path for _, path in found if not machine.host.exists(path)]
            advice = f"there is no {gone[0]}: ocirt setup {engine}" if gone else ""
            yield engine, LACKS if gone else OK, value, advice
        else:
            yield engine, LACKS, f"{program} does not know ocirt", f"ocirt setup {engine}"
    if not some:
        yield "none", INFO, "", ""


def parts(machine: Machine) -> Iterator[Finding]:
    """Our own: the interpreter that runs, the init, and programs that some verbs call."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield _needed("python", sys.version_info >= (3, 11), f"{version}, {sys.executable}", "")
    value, good = init_facts(INIT)
    yield _needed("init", good, value, "build it: make init, or install the package again")
    criu = machine.site.program("criu")
    yield "criu", INFO, criu or "not found; checkpoint and restore need it", ""


def init_facts(path: str) -> tuple[str, bool]:
    """Return what the init's ELF header tells, and whether it can run from a memfd anywhere."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return f"{path}: {os.strerror(error.errno or 0)}", False
    if data[:6] != b"\x7fELF\x02\x01" or not os.access(path, os.X_OK):
        return f"{path}: not an executable of this kind of machine", False
    start, size = int.from_bytes(data[32:40], "little"), int.from_bytes(data[54:56], "little")
    count, interpreter = int.from_bytes(data[56:58], "little"), 3  # elf(5): PT_INTERP
    kinds = [int.from_bytes(data[start + size * index :][:4], "little") for index in range(count)]
    linked = "dynamic" if interpreter in kinds else "static"
    return f"{linked}, {len(data)} bytes", True


def devices(machine: Machine) -> Iterator[Finding]:
    """CDI specs, GPUs and fabrics: what there is, no more."""
    for folder in CDI:
        found = machine.site.glob(f"{folder}/*.json") + machine.site.glob(f"{folder}/*.yaml")
        names = ", ".join([os.path.basename(path) for path in found])
        yield f"CDI {folder}", INFO, names or "no specs", ""
    for name, pattern in DEVICES:
        found = machine.site.glob(pattern)
        if found:
            yield name, INFO, ", ".join([os.path.basename(path) for path in found]), ""


def _needed(name: str, good: bool, value: str, advice: str) -> Finding:
    return (name, OK, value, "") if good else (name, FAILS, value, advice)


def _wanted(name: str, good: bool, value: str, advice: str) -> Finding:
    return (name, OK, value, "") if good else (name, LACKS, value, advice)


CHECKS = (
    ("kernel", kernel),
    ("namespaces", namespaces),
    ("id mappings", mappings),
    ("cgroups", cgroups),
    ("security", security),
    ("engines", registrations),
    ("ocirt", parts),
    ("devices", devices),
)
