"""One more process in a container that exists.

What it enters is read from the container's init as it is now, through one descriptor of its
directory in /proc; what it may do comes from the config as `create` applied it.  Everything that
can be refused is refused before a process is made.
"""

from __future__ import annotations

from errno import EACCES, EBUSY

from ocirt import cgroup as groups
from ocirt import checks, handover, jsonio, plan, shape, state
from ocirt import system as os
from ocirt.cgroup import within
from ocirt.cgroup.files import read
from ocirt.errors import At, ConfigError, Error, KernelError, StateError
from ocirt.kernel import procfs
from ocirt.launch import Init
from ocirt.plan import identity
from ocirt.plan.host import Host
from ocirt.plan.namespaces import TYPES
from ocirt.plan.ops import ASK_READY, ASK_SECCOMP
from ocirt.undo import Undo, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.cgroup.fs import Manager
    from ocirt.state import Container

NS_GET_USERNS = 0xB701  # linux/nsfs.h
LARGEST_ID = (1 << 32) - 2  # the one above means "leave it as it is" to setresuid(2)

# What a process document may leave out without leaving the container's confinement.
INHERITED = (
    "apparmorProfile", "selinuxLabel", "capabilities", "rlimits", "oomScoreAdj", "scheduler",
    "ioPriority", "execCPUAffinity",
)  # fmt: skip


class Wish:
    """What the caller of `exec` wants; see the options of the verb."""

    def __init__(self, container_id: str, root: str) -> None:
        self.container_id = container_id
        self.root = root
        self.process_file = ""
        # Changes to the container's own process; ignored when there is a process file.
        self.args: list[str] = []
        self.cwd = ""
        self.env: list[str] = []
        self.tty = False
        self.user = ""
        self.additional_gids: list[str] = []
        self.process_label = ""
        self.apparmor = ""
        self.no_new_privs = False
        self.capabilities: list[str] = []
        # The rest concerns the runtime.
        self.cgroups: list[str] = []
        self.ignore_paused = False
        self.console_socket = ""
        self.pidfd_socket = ""
        self.pid_file = ""
        self.preserve_fds = 0
        self.detach = False
        self.rootless = False
        self.unprivileged = os.geteuid() != 0
        self.seccomp_cache: str | None = None


class Started:
    """A process that has just been started.

    console: its terminal's master side, or -1.  warnings, notes: as of `create.Made`.
    """

    def __init__(self, init: Init, console: int, warnings: list[str]) -> None:
        self.pid = init.pid
        self.console = console
        self.warnings = warnings
        self.notes = init.warnings

    def end(self) -> None:
        """Kill the process and wait for its end."""
        try:
            os.kill(self.pid, 9)  # our own child, not yet reaped: the pid is its own
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


# --- the process on paper


def process_of(config: dict[str, Any], wish: Wish) -> dict[str, Any]:
    """Return the process to start: from the wish's file, or the container's with changes."""
    base: dict[str, Any] = config.get("process") or {}
    if wish.process_file:
        given = _read(wish.process_file)
        kept = {
            key: base[key]
            for key in INHERITED
            if key in base and (given.get(key) is None or given[key] in ("", []))
        }
        umask = (base.get("user") or {}).get("umask")
        if umask is not None and (given.get("user") or {}).get("umask") is None:
            kept["user"] = {**(given.get("user") or {}), "umask": umask}
        return {**given, **kept}
    if not wish.args:
        raise Error("exec args cannot be empty")
    if not base:
        raise ConfigError("process", "missing in the container's config; give one with --process")
    return _changed(base, wish)


def _read(path: str) -> dict[str, Any]:
    text = jsonio.read(path)
    with At(path):
        given: Any = jsonio.parse(text)
        shape.check(given, shape.PROCESS, "process")
        place = jsonio.find_text(given, lambda item: "\0" in item)
        if place is not None:
            raise ConfigError(f"process.{place}", "holds a NUL character")
    return given  # type: ignore[no-any-return]


def _changed(base: dict[str, Any], wish: Wish) -> dict[str, Any]:
    process = {**base, "args": wish.args, "terminal": wish.tty}
    if wish.cwd:
        process["cwd"] = wish.cwd
    if wish.env:
        process["env"] = [*(base.get("env") or ()), *wish.env]
    user = dict(base.get("user") or {})
    if wish.user:
        uid, colon, gid = wish.user.partition(":")
        user["uid"] = number(uid, f"--user {wish.user}")
        if colon:
            user["gid"] = number(gid, f"--user {wish.user}")
    if wish.additional_gids:
        more = [number(gid, f"--additional-gids {gid}") for gid in wish.additional_gids]
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *more]
    process["user"] = user
    if wish.process_label:
        process["selinuxLabel"] = wish.process_label
    if wish.apparmor:
        process["apparmorProfile"] = wish.apparmor
    if wish.no_new_privs:
        process["noNewPrivileges"] = True
    # Without the object the process has all that root has.
    if wish.capabilities and base.get("capabilities") is not None:
        process["capabilities"] = _raised(base["capabilities"], wish.capabilities)
    return process


def _raised(sets: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Add capabilities; never inheritable ones, which a later exec would bring to life
    (CVE-2022-29162), and ambient ones only where the config thought of inheriting."""
    kinds = ["bounding", "effective", "permitted"]
    if sets.get("inheritable"):
        kinds.append("ambient")
    return {**sets, **{kind: [*(sets.get(kind) or ()), *names] for kind in kinds}}


def number(text: str, where: str) -> int:
    """Return a user or group id; anything but digits would be somebody else (CVE-2026-30892)."""
    if not (text.isascii() and text.isdigit() and len(text) < 11) or int(text) > LARGEST_ID:
        raise Error(where, f'"{text}" is not a number from 0 to {LARGEST_ID}')
    return int(text)


class Draft:
    """The process on paper: everything decided, nothing done yet but to open files."""

    def __init__(self, wish: Wish, fds: list[int]) -> None:
        self.wish = wish
        self.container = state.load_own(wish.root, wish.container_id)
        self.status = _usable(self.container, wish.ignore_paused)
        config = self.container.config()
        self.config = {**config, "process": process_of(config, wish)}
        process = self.config["process"]
        checks.run(self.config, which=checks.PROCESS_CHECKS)
        handover.check_console(wish.console_socket, wish.detach, bool(process.get("terminal")))
        record = self.container.record.get("cgroup")
        self.manager: Manager | None = groups.from_record(record) if record else None
        self.proc = _open_init(self.container, fds)
        self.spaces = _spaces(self.proc, fds)
        self.attach, self.directory = self._places()
        self.context = self._context()
        self.plan = plan.compile_entry(self.config, self.context)

    def _places(self) -> tuple[list[tuple[str, str]], str | None]:
        """Return the files to attach by, and the cgroup2 directory to be cloned into."""
        if self.manager is None:
            return [], None
        attach, directory = within.places(self.manager, self.wish.cgroups)
        if attach or not directory or "user" not in self.spaces or self.wish.rootless:
            return attach, directory
        # Who has joined that user namespace may not clone into a cgroup of its root, but attach by
        # a file that was opened out here.  Beware of no room in there, as _clone does.
        if read(f"{directory}/cgroup.subtree_control").strip():
            directory = self.own_cgroup() or directory
        return [("cgroup.procs", f"{directory}/cgroup.procs")], None

    def _context(self) -> plan.Context:
        wish, record = self.wish, self.container.record
        context = plan.Context(self.config, wish.container_id, record["bundle"], record["rootfs"])
        context.unprivileged = wish.unprivileged
        context.host = Host(rootless=wish.rootless, unprivileged=wish.unprivileged)
        if "user" in self.spaces:  # what its maker left it, which no config tells
            context.host.setgroups = procfs.read("setgroups", self.proc).decode().strip()
        context.no_new_keyring = record.get("no_new_keyring", False)
        context.preserve_fds = wish.preserve_fds
        context.gate = False
        context.die_with_runtime = not wish.detach
        context.seccomp_cache = wish.seccomp_cache
        context.joins = tuple(self.spaces)
        context.cgroup_late = _is_late(self.spaces)
        context.attach_files = self.attach
        context.cgroup_word = "cgroup" if self.directory else ""
        return context

    def own_cgroup(self) -> str | None:
        """Return the cgroup that the init has moved to by now, on v2."""
        from ocirt.cgroup.fs_v2 import V2

        if not isinstance(self.manager, V2) or self.wish.cgroups:
            return None
        for line in procfs.read("cgroup", self.proc).decode(errors="replace").splitlines():
            if line.startswith("0::/"):
                return self.manager.root + line[3:].rstrip("/")
        return None


def _usable(container: Container, ignore_paused: bool) -> str:
    status = container.status()
    if status == state.STOPPED:
        raise StateError("cannot exec in a stopped container")
    if status == state.PAUSED and not ignore_paused:
        raise StateError("cannot exec in a paused container (use --ignore-paused to override)")
    if status == state.CREATING:
        raise StateError("cannot exec in a container in the creating state")
    return status


def _open_init(container: Container, fds: list[int]) -> int:
    found = procfs.open_process(container.pid, container.record.get("start_time") or 0)
    if found is None:
        raise StateError("cannot exec in a stopped container")
    fds.append(found)
    return found


def _spaces(proc: int, fds: list[int]) -> dict[str, int]:
    """Open the namespaces of a process that are not our own: {kind: descriptor}."""
    found = {}
    for kind, (_, name) in TYPES.items():
        try:
            own = os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # this kernel has no such kind
        try:
            fd = os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        except (FileNotFoundError, ProcessLookupError):
            raise StateError("cannot exec in a stopped container") from None
        except OSError as error:
            raise KernelError(error.errno or 0, f"the container's {kind} namespace") from None
        fds.append(fd)
        its = os.fstat(fd)
        if (its.st_dev, its.st_ino) != (own.st_dev, own.st_ino):
            found[kind] = fd
    return found


def _is_late(spaces: dict[str, int]) -> bool:
    """Whether the cgroup namespace can be entered from within the user namespace.

    Not if it belongs to a user namespace further up, as one that was joined by path may.
    """
    if "cgroup" not in spaces or "user" not in spaces:
        return True
    from fcntl import ioctl

    try:
        owner = ioctl(spaces["cgroup"], NS_GET_USERNS)
    except PermissionError:
        return False
    try:
        return os.path.sameopenfile(owner, spaces["user"])
    finally:
        os.close(owner)


# --- the process itself


def start(wish: Wish, ready: Callable[[], None]) -> Started:
    """Start the process; `ready` is called when nothing of ours is left to wait for.

    On return the program runs, or has ended already.  Whatever fails, no process is left.
    """
    undo = Undo()
    fds: list[int] = []
    undo.add(close_all, fds)
    try:
        draft = Draft(wish, fds)
        return _start(draft, undo, fds, ready)
    except BaseException:
        undo.run()
        raise


def _start(draft: Draft, undo: Undo, fds: list[int], ready: Callable[[], None]) -> Started:
    wish = draft.wish
    try:
        init = _converse(draft, undo, fds, ready)
    except Error:
        if not draft.container.alive():  # which is why: the kernel ended ours along with it
            raise StateError("cannot exec in a stopped container") from None
        raise
    handover.write_pid_file(wish.pid_file, init.pid)
    close_all(fds)
    console, init.console = init.console, -1
    init.close()
    return Started(init, console, identity.warnings(draft.config, draft.context.host))


def _converse(draft: Draft, undo: Undo, fds: list[int], ready: Callable[[], None]) -> Init:
    wish, config = draft.wish, draft.config
    init = _clone(draft, undo, fds)
    if draft.container.record.get("resctrl"):
        from ocirt import resctrl

        resctrl.Group(draft.container.record["resctrl"]).attach(init.pid)
    inside = [(word, _open(path, os.O_WRONLY, fds)) for word, path in draft.attach]
    if "cgroup" in draft.spaces and draft.context.cgroup_late:
        inside.append(("ns.cgroup", draft.spaces["cgroup"]))
    init.send_inside(inside)
    rlimits = handover.rlimits(config)
    reached = []

    def at_ready(_: int) -> None:
        handover.set_rlimits(init.pid, rlimits)
        handover.send_descriptors(init, wish.console_socket, wish.pidfd_socket, b"setns")
        ready()
        reached.append(True)

    def listener(index: int) -> None:
        handover.send_listener(draft.container, config, draft.status, init.pid, index)

    init.converse({ASK_READY: at_ready, ASK_SECCOMP: listener})
    if not reached:
        death = init.died()
        if draft.manager and draft.manager.oom_killed():
            death.segments.append("possibly OOM-killed")
        raise death
    return init


def _clone(draft: Draft, undo: Undo, fds: list[int]) -> Init:
    """Make the process, in its namespaces and, on v2, in its cgroup.

    A cgroup that hands controllers down may hold no process itself (EBUSY).  Then an init such as
    systemd has made cgroups below it, and the new process goes where that init went.  Users may
    not take a process from one session to another (EACCES); their systemd may.
    """
    try:
        return _attempt(draft, undo, fds, draft.directory)
    except KernelError as error:
        if error.errno == EACCES and draft.manager and draft.manager.driver == "systemd":
            return _attempt(draft, undo, fds, draft.directory, draft.manager)
        other = draft.own_cgroup() if error.errno == EBUSY else None
        if other is None or other == draft.directory:
            raise
        return _attempt(draft, undo, fds, other)


def _attempt(
    draft: Draft, undo: Undo, fds: list[int], directory: str | None, usher: Manager | None = None
) -> Init:
    """Make the process in `directory`; usher: who takes there the one that makes it."""
    late = draft.context.cgroup_late
    outside = [
        (f"ns.{kind}", fd) for kind, fd in draft.spaces.items() if kind != "cgroup" or not late
    ]
    if directory:
        outside.append(("cgroup", _open(directory, os.O_RDONLY | os.O_DIRECTORY, fds)))
    init = Init(draft.plan, {})
    undo.add(init.kill)
    init.spawn()
    if usher:
        usher.attach(init.stage0)
    init.send_outside(outside)
    try:
        init.cloned()
    except KernelError:
        init.kill()
        raise
    return init


def _open(path: str, flags: int, fds: list[int]) -> int:
    with At("cgroup"):
        fd = os.open(path, flags | os.O_CLOEXEC)
    fds.append(fd)
    return fd
