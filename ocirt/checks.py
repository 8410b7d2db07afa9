"""Refuse what a config must not ask for, before anything on the machine changes.

The shape (types, ranges, names) is right already, see `shape.py`; here is what the fields mean
together.  Each check is a function in CHECKS that calls `say(place, sentence)` for every fault
it finds, so that the user sees all of them at once.  One more check is one more function and
its name in CHECKS.  Where engines or scripts know a refusal, the sentence is runc's.

Not here: mount options, sysctl keys and security labels, which need the tables of `ocirt.plan`
and a look at the host, and limits, which depend on the cgroup version; compiling the plan
refuses those.

runtime-spec, config.md and config-linux.md; what they call MUST is checked, SHOULD is not.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Say: TypeAlias = Callable[[str, str], None]

# Fields of the specification that we know and cannot do.  The sections of other platforms are
# not among them: config.md wants those ignored.
UNSUPPORTED: tuple[tuple[str, str], ...] = (
    # place                     reason
    ("linux.personality.flags", "no personality flag is supported"),
)  # fmt: skip

PROC_NAMES = {"user": "user", "cgroup": "cgroup", "time": "time"}
CLOCKS = ("monotonic", "boottime")
LARGEST_CPU = 65535
UNCHANGED_ID = (1 << 32) - 1  # setresuid(2), setresgid(2)
LARGEST_ERRNO = 4095  # MAX_ERRNO, linux/err.h
UNSET_SWAPPINESS = (1 << 64) - 1  # -1 as some engines write it: leave it alone


class Faults(ConfigError):  # noqa: N818 - the plural of a fault is no Error
    """More than one fault, on one line: callers take a message to be one."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__()
        self.faults = faults

    def __str__(self) -> str:
        return ": ".join([*self.segments, "; ".join(": ".join(fault) for fault in self.faults)])


class Subject:
    """A config with the parts that most checks look at, never None.

    `spaces` has the path of each kind of namespace, "" for a new one.
    """

    __slots__ = ("config", "linux", "process", "spaces", "unprivileged")

    def __init__(self, config: dict[str, Any], unprivileged: bool) -> None:
        self.config = config
        self.process: dict[str, Any] = config.get("process") or {}
        self.linux: dict[str, Any] = config.get("linux") or {}
        self.unprivileged = unprivileged
        self.spaces: dict[str, str] = {}
        for space in self.linux.get("namespaces") or ():
            self.spaces.setdefault(space["type"], space.get("path") or "")


def run(
    config: dict[str, Any],
    *,
    unprivileged: bool = False,
    which: tuple[Callable[[Subject, Say], None], ...] | None = None,
) -> None:
    """Raise ConfigError when the config has faults: one, or `Faults`.

    unprivileged: for a runtime that is not root, not even of a user namespace.
    which: the checks to make, by default all of them.
    """
    found = faults(config, unprivileged=unprivileged, which=which)
    if len(found) == 1:
        raise ConfigError(*found[0])
    if found:
        raise Faults(found)


def faults(
    config: dict[str, Any],
    *,
    unprivileged: bool = False,
    which: tuple[Callable[[Subject, Say], None], ...] | None = None,
) -> list[tuple[str, str]]:
    """Return (place, sentence) for every fault."""
    found: list[tuple[str, str]] = []
    subject = Subject(config, unprivileged)

    def say(place: str, sentence: str) -> None:
        found.append((place, sentence))

    for check in CHECKS if which is None else which:
        check(subject, say)
    return found


# --- the document


def version(subject: Subject, say: Say) -> None:
    """Want a semantic version, and 1 as its major one: another may mean other things."""
    text = subject.config["ociVersion"]
    if not _is_semantic(text):
        say("ociVersion", f'"{text}" is not a semantic version')
    elif not text.startswith("1."):
        say("ociVersion", f"{text} is not supported, only 1.x is")


def _is_semantic(text: str) -> bool:
    """Semantic Versioning 2.0.0, without the `re` module."""
    rest, plus, build = text.partition("+")
    core, dash, pre = rest.partition("-")
    numbers = core.split(".")
    if len(numbers) != 3 or not all(map(_is_number, numbers)):
        return False
    if plus and not all(map(_is_identifier, build.split("."))):
        return False
    if not dash:
        return True
    return all(
        _is_identifier(part) and (_is_number(part) or not part.isdigit()) for part in pre.split(".")
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def _is_identifier(text: str) -> bool:
    return text.isascii() and text.replace("-", "0").isalnum()


def root(subject: Subject, say: Say) -> None:
    """Want a root filesystem; `bundle.rootfs` looks at it."""
    section = subject.config.get("root")
    if section is None:
        say("root", "root must be specified")
    elif not section["path"]:
        say("root.path", "is empty")


def unsupported(subject: Subject, say: Say) -> None:
    """Never pass over in silence what somebody asked for."""
    for place, reason in UNSUPPORTED:
        value: Any = subject.config
        for name in place.split("."):
            value = value.get(name) if value.__class__ is dict else None
        if value is not None and value is not False and value != "" and value != []:
            say(place, reason)


# --- namespaces


def namespaces(subject: Subject, say: Say) -> None:
    """Each kind once; a path is absolute; the kernel has that kind."""
    seen = set()
    for index, space in enumerate(subject.linux.get("namespaces") or ()):
        kind, path = space["type"], space.get("path")
        if kind in seen:
            say(f"linux.namespaces[{index}]", f'malformed spec file: duplicated ns "{kind}"')
        seen.add(kind)
        if path and path[0] != "/":
            say(f"linux.namespaces[{index}].path", f"{path} is not absolute")
        if kind in PROC_NAMES and not os.path.exists(f"/proc/self/ns/{PROC_NAMES[kind]}"):
            say(f"linux.namespaces[{index}]", f"{kind} namespaces aren't enabled in the kernel")


def users(subject: Subject, say: Say) -> None:
    """A new user namespace needs mappings, and mappings need a user namespace."""
    uids, gids = subject.linux.get("uidMappings"), subject.linux.get("gidMappings")
    path = subject.spaces.get("user")
    if path is None:
        for field, mappings in (("uidMappings", uids), ("gidMappings", gids)):
            if mappings:
                say(
                    f"linux.{field}",
                    "user namespace mappings specified, but user namespace isn't enabled "
                    "in the config",
                )
        return
    for field, kind, mappings in (("uidMappings", "uid", uids), ("gidMappings", "gid", gids)):
        if mappings:
            _ranges(f"linux.{field}", mappings, say)
        elif not path:
            if not uids and not gids:
                say(
                    "linux.uidMappings",
                    "user namespaces enabled, but no namespace path to join nor mappings to "
                    "apply specified",
                )
                return
            say(f"linux.{field}", f"user namespaces enabled, but no {kind} mappings found")


def _ranges(place: str, mappings: list[dict[str, int]], say: Say) -> None:
    """user_namespaces(7): ranges lie within 32 bits and do not overlap, on either side."""
    for side in ("containerID", "hostID"):
        end = -1
        for first, size, index in sorted(
            (mapping[side], mapping["size"], index) for index, mapping in enumerate(mappings)
        ):
            if first + size > 1 << 32:
                say(f"{place}[{index}].{side}", f"{first} and {size} ids go beyond 32 bits")
            elif size and first < end:
                say(f"{place}[{index}].{side}", f"{first} lies in the range of another mapping")
            end = max(end, first + size)


def mapped(subject: Subject, say: Say) -> None:
    """The user and the groups of the program exist in a new user namespace."""
    if subject.spaces.get("user") != "":
        return
    user = subject.process.get("user") or {}
    uids, gids = subject.linux.get("uidMappings"), subject.linux.get("gidMappings")
    words = "user namespaces enabled, but no mapping found for"
    uid, gid = user.get("uid", 0), user.get("gid", 0)
    if uids and not _maps(uids, uid):
        say("process.user.uid", f"{words} uid {uid}")
    if gids and not _maps(gids, gid):
        say("process.user.gid", f"{words} gid {gid}")
    for index, gid in enumerate(user.get("additionalGids") or ()):
        if gids and not _maps(gids, gid):
            say(f"process.user.additionalGids[{index}]", f"{words} gid {gid}")


def _maps(mappings: list[dict[str, int]], number: int) -> bool:
    return any(0 <= number - one["containerID"] < one["size"] for one in mappings)


def private(subject: Subject, say: Say) -> None:
    """What would change the runtime's own namespace is refused."""
    spaces = subject.spaces
    if "uts" not in spaces:
        for field in ("hostname", "domainname"):
            if subject.config.get(field):
                say(field, f"unable to set {field} without a private UTS namespace")
    if "mount" not in spaces:
        for field in ("maskedPaths", "readonlyPaths"):
            if subject.linux.get(field):
                say(
                    f"linux.{field}",
                    "unable to restrict sys entries without a private MNT namespace",
                )


def clocks(subject: Subject, say: Say) -> None:
    """Offsets belong to a new time namespace, time_namespaces(7)."""
    offsets = subject.linux.get("timeOffsets")
    if not offsets:
        return
    path = subject.spaces.get("time")
    if path is None:
        say(
            "linux.timeOffsets",
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        )
    elif path:
        say(
            "linux.timeOffsets",
            "time namespace enabled, but both namespace path and time offsets specified -- you "
            "may only provide one",
        )
    for clock, offset in offsets.items():
        if clock not in CLOCKS:
            say(f"linux.timeOffsets.{clock}", f"not a clock of a namespace ({' '.join(CLOCKS)})")
        if offset.get("nanosecs", 0) >= 10**9:
            say(f"linux.timeOffsets.{clock}.nanosecs", "not below one second")


def net_devices(subject: Subject, say: Say) -> None:
    """Devices move into a network namespace of the container, under names the kernel takes."""
    devices = subject.linux.get("netDevices")
    if not devices:
        return
    if "network" not in subject.spaces:
        say("linux.netDevices", "unable to move network devices without a NET namespace")
    if subject.unprivileged:
        say("linux.netDevices", "network devices are not supported for rootless containers")
    seen = set()
    for name, device in devices.items():
        if not _is_interface(name):
            say(f"linux.netDevices.{name}", f'invalid network device name "{name}"')
        inside = device.get("name") or name
        if inside != name and not _is_interface(inside):
            say(f"linux.netDevices.{name}.name", f'invalid network device name "{inside}"')
        elif inside in seen:
            say(f"linux.netDevices.{name}", f'network device name "{inside}" is given twice')
        seen.add(inside)


def _is_interface(name: str) -> bool:
    """dev_valid_name() of the kernel; a % it would take for a pattern, and fill in a number."""
    if not 0 < len(os.fsencode(name)) < 16 or name in (".", ".."):
        return False
    return not any(one in "/:%" or one.isspace() for one in name)


# --- the file system


def mounts(subject: Subject, say: Say) -> None:
    """Destinations that stay where they point, id mappings that are whole."""
    for index, mount in enumerate(subject.config.get("mounts") or ()):
        place = f"mounts[{index}]"
        # A relative one is deprecated, and means relative to "/" (config.md, "Mounts").
        _path(f"{place}.destination", mount["destination"], say, relative=True)
        uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
        if not uids and not gids:
            continue
        if not uids or not gids:
            say(place, "id-mapped mounts must have both uid and gid mappings specified")
        options = mount.get("options") or ()
        if mount.get("type") != "bind" and "bind" not in options and "rbind" not in options:
            say(place, "id-mapped mounts are only supported for bind-mounts")
        if subject.unprivileged:
            say(place, "id-mapped mounts are not supported for rootless containers")
        _ranges(f"{place}.uidMappings", uids or [], say)
        _ranges(f"{place}.gidMappings", gids or [], say)


def paths(subject: Subject, say: Say) -> None:
    """Paths in the container are absolute and climb nowhere."""
    linux = subject.linux
    for field in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(field) or ()):
            if path[:1] != "/" or "/.." in path:
                _path(f"linux.{field}[{index}]", path, say)
    for index, device in enumerate(linux.get("devices") or ()):
        place = f"linux.devices[{index}]"
        _path(f"{place}.path", device["path"], say)
        if device["type"] == "p":
            continue
        for field in ("major", "minor"):
            if field not in device:
                say(f"{place}.{field}", "missing")
            elif not 0 <= device[field] < 1 << 32:
                say(f"{place}.{field}", f"{device[field]} is not a device number")


def _path(place: str, path: str, say: Say, *, relative: bool = False) -> None:
    if not path:
        say(place, "is empty")
    elif path[0] != "/" and not relative:
        say(place, f"{path} is not absolute")
    elif ".." in path and ".." in path.split("/"):
        say(place, f"{path} climbs by ..")


# --- the process


def process(subject: Subject, say: Say) -> None:
    """Something to run, somewhere to run it; a config without a process ends at its start."""
    section = subject.process
    if not section:
        return
    cwd = section["cwd"]
    if not cwd:
        say("process.cwd", "Cwd property must not be empty")
    elif cwd[0] != "/":
        say("process.cwd", "Cwd must be an absolute path")
    args = section.get("args")
    if not args:
        say("process.args", "args must not be empty")
    elif not args[0]:
        say("process.args[0]", "is empty")
    for index, item in enumerate(section.get("env") or ()):
        if item.find("=") < 1:
            what = "name cannot be empty" if item[:1] == "=" else "missing '='"
            say(f"process.env[{index}]", f"invalid environment variable: {what}")
    umask = (section.get("user") or {}).get("umask") or 0
    if umask > 0o777:
        say("process.user.umask", f"{umask} is more than 0777 (511)")
    for field in ("uid", "gid"):
        # setresuid(2) takes the largest number for "leave it as it is", which is root.
        if (section.get("user") or {}).get(field) == UNCHANGED_ID:
            say(f"process.user.{field}", f"{UNCHANGED_ID} is no {field}")
    score = section.get("oomScoreAdj")
    if score is not None and not -1000 <= score <= 1000:
        say("process.oomScoreAdj", f"{score} is not within -1000 and 1000")
    size = section.get("consoleSize")
    if size and section.get("terminal"):
        for field in ("height", "width"):
            if size[field] > 65535:
                say(f"process.consoleSize.{field}", f"{size[field]} is more than 65535")


def rlimits(subject: Subject, say: Say) -> None:
    """Each resource once, and the soft limit below the hard one."""
    seen = set()
    for index, entry in enumerate(subject.process.get("rlimits") or ()):
        kind, soft, hard = entry["type"], entry["soft"], entry["hard"]
        if kind in seen:
            say(f"process.rlimits[{index}]", f"{kind} is given twice")
        seen.add(kind)
        if soft > hard:
            say(f"process.rlimits[{index}].soft", f"{soft} is above the hard limit {hard}")


def scheduling(subject: Subject, say: Say) -> None:
    """sched_setattr(2), ioprio_set(2), set_mempolicy(2), CPU lists."""
    section = subject.process.get("scheduler")
    if section:
        policy, nice = section["policy"], section.get("nice", 0)
        if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= nice <= 19:
            say(
                "process.scheduler.nice",
                f"invalid scheduler.nice: {nice} when scheduler.policy is {policy}",
            )
        if section.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
            say(
                "process.scheduler.priority",
                "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
            )
        if policy != "SCHED_DEADLINE":
            for field in ("runtime", "deadline", "period"):
                if section.get(field):
                    say(
                        f"process.scheduler.{field}",
                        "scheduler runtime/deadline/period can only be specified for "
                        "SchedDeadline policy",
                    )
    section = subject.process.get("ioPriority")
    if section and not 0 <= section.get("priority", 0) <= 7:
        say("process.ioPriority.priority", f"invalid ioPriority.Priority: {section['priority']}")
    section = subject.linux.get("memoryPolicy")
    if section:
        nodes = _members(section.get("nodes", ""))
        if nodes is None:
            say("linux.memoryPolicy.nodes", f'invalid memory policy nodes "{section["nodes"]}"')
        elif section["mode"] in ("MPOL_DEFAULT", "MPOL_LOCAL"):
            if nodes:
                say(
                    "linux.memoryPolicy.nodes",
                    f"memory policy mode requires 0 nodes but got {nodes}",
                )
        elif not nodes and section["mode"] != "MPOL_PREFERRED":
            say(
                "linux.memoryPolicy.nodes",
                "memory policy mode requires at least one node but got 0",
            )
    section = subject.process.get("execCPUAffinity")
    if section:
        for field in ("initial", "final"):
            text = section.get(field)
            if text and not _members(text):
                say(
                    f"process.execCPUAffinity.{field}",
                    f'bad CPUAffinity.{field.capitalize()}: "{text}" is not a list such as 0-3,7',
                )


def _members(text: str) -> int | None:
    """Count the members of a list such as 0-3,7; None when it is no such list."""
    count = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first and not dash:
            continue
        if not first.isascii() or not first.isdigit() or len(first) > 5:
            return None
        if dash and (not last.isascii() or not last.isdigit() or len(last) > 5):
            return None
        low, high = int(first), int(last or first)
        if low > high or high > LARGEST_CPU:
            return None
        count += high - low + 1
    return count


def hooks(subject: Subject, say: Say) -> None:
    """A hook is an absolute path, with time to run (config.md, "POSIX-platform Hooks")."""
    for stage, entries in (subject.config.get("hooks") or {}).items():
        if stage not in HOOKS:
            continue
        for index, hook in enumerate(entries):
            place = f"hooks.{stage}[{index}]"
            path, timeout = hook["path"], hook.get("timeout")
            if path[:1] != "/":
                say(f"{place}.path", f"{path} is not absolute" if path else "is empty")
            if timeout is not None and timeout <= 0:
                say(f"{place}.timeout", f"{timeout} is not above zero")
            for number, item in enumerate(hook.get("env") or ()):
                if item.find("=") < 1:
                    say(f"{place}.env[{number}]", "invalid environment variable: missing '='")


HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip


# --- limits and filters


def resources(subject: Subject, say: Say) -> None:
    """What no cgroup version takes."""
    section = subject.linux.get("resources")
    if not section:
        return
    place = "linux.resources"
    for index, rule in enumerate(section.get("devices") or ()):
        where = f"{place}.devices[{index}]"
        access = rule.get("access", "")
        if not access:
            say(f"{where}.access", f"device access at {index} field cannot be empty")
        elif access.strip("rwm"):
            say(f"{where}.access", f"{access} has more than r, w and m")
        for field in ("major", "minor"):
            if not -1 <= rule.get(field, -1) < 1 << 32:
                say(f"{where}.{field}", f"{rule[field]} is not a device number")
    swappiness = section.get("memory", _NONE).get("swappiness", 0)
    if swappiness > 100 and swappiness != UNSET_SWAPPINESS:
        say(f"{place}.memory.swappiness", f"{swappiness} is not within 0 and 100")
    block = section.get("blockIO")
    if block:
        _weights(f"{place}.blockIO", block, say)
        for index, device in enumerate(block.get("weightDevice") or ()):
            _weights(f"{place}.blockIO.weightDevice[{index}]", device, say)
    for index, limit in enumerate(section.get("hugepageLimits") or ()):
        size = limit["pageSize"]
        digits = size[:-2]
        if size[-2:] not in ("KB", "MB", "GB") or not _is_number(digits) or digits == "0":
            say(f"{place}.hugepageLimits[{index}].pageSize", f"{size} is not like 64KB, 2MB, 1GB")
    for name in section.get("unified") or ():
        if not name or "/" in name or name in (".", ".."):
            say(f"{place}.unified.{name}", "not the name of a file in a cgroup")


def _weights(place: str, section: dict[str, Any], say: Say) -> None:
    for field in ("weight", "leafWeight"):
        weight = section.get(field)
        if weight and not 10 <= weight <= 1000:  # engines write 0 for: leave it alone
            say(f"{place}.{field}", f"{weight} is not within 10 and 1000")


def seccomp(subject: Subject, say: Say) -> None:
    """A filter that libseccomp can build and the init can live under."""
    section = subject.linux.get("seccomp")
    if not section:
        return
    place = "linux.seccomp"
    notifies = section["defaultAction"] == "SCMP_ACT_NOTIFY"
    if notifies:
        # Our own way to the listener would wait for the listener.
        say(f"{place}.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    if section.get("defaultErrnoRet", 0) > LARGEST_ERRNO:
        say(f"{place}.defaultErrnoRet", f"{section['defaultErrnoRet']} is not an errno")
    for index, rule in enumerate(section.get("syscalls") or ()):
        action = rule["action"]
        if action == "SCMP_ACT_NOTIFY":
            notifies = True
            if "write" in rule["names"]:
                say(
                    f"{place}.syscalls[{index}].names",
                    "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                )
        if "" in rule["names"]:
            say(f"{place}.syscalls[{index}].names", "empty string is not a valid syscall")
        errno = rule.get("errnoRet")
        if errno is not None and errno > (65535 if action == "SCMP_ACT_TRACE" else LARGEST_ERRNO):
            say(f"{place}.syscalls[{index}].errnoRet", f"{errno} is not an errno")
        for number, arg in enumerate(rule.get("args") or ()):
            if arg["index"] > 5:
                say(
                    f"{place}.syscalls[{index}].args[{number}].index",
                    f"{arg['index']} is not within 0 and 5",
                )
    if notifies and not section.get("listenerPath"):
        say(f"{place}.listenerPath", "SCMP_ACT_NOTIFY needs a listener")


def intel_rdt(subject: Subject, say: Say) -> None:
    """A class of service is one directory of resctrl; the root group is `/`."""
    name = (subject.linux.get("intelRdt") or {}).get("closID", "")
    if name in (".", "..") or (len(name) > 1 and ("/" in name or "\n" in name)):
        say("linux.intelRdt.closID", f'invalid intelRdt.ClosID "{name}"')


# --- without privileges


def rootless(subject: Subject, say: Say) -> None:
    """What a runtime without privileges cannot give."""
    if not subject.unprivileged:
        return
    path = subject.spaces.get("user")
    uids, gids = subject.linux.get("uidMappings"), subject.linux.get("gidMappings")
    if path is None:
        say("linux.namespaces", "rootless container requires user namespaces")
    elif not path:
        if not uids:
            say("linux.uidMappings", "rootless containers requires at least one UID mapping")
        if not gids:
            say("linux.gidMappings", "rootless containers requires at least one GID mapping")
    for index, mount in enumerate(subject.config.get("mounts") or ()):
        for number, option in enumerate(mount.get("options") or ()):
            kind, _, value = option.partition("=")
            mappings = uids if kind == "uid" else gids
            if kind not in ("uid", "gid") or not (value.isascii() and value.isdigit()):
                continue
            if mappings and not _maps(mappings, int(value[:20])):
                say(
                    f"mounts[{index}].options[{number}]",
                    f"cannot specify {option} mount option for rootless container",
                )


_NONE: dict[str, Any] = {}

CHECKS = (
    version,
    root,
    unsupported,
    namespaces,
    users,
    mapped,
    private,
    clocks,
    net_devices,
    mounts,
    paths,
    process,
    rlimits,
    scheduling,
    hooks,
    resources,
    seccomp,
    intel_rdt,
    rootless,
)

# What is about `process` alone: for another process in a container that has passed the rest.
PROCESS_CHECKS = (mapped, process, rlimits, scheduling)
