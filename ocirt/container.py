"""The verbs as functions: a table of contents of what each one does, in order.

Nothing here prints.  Failures are raised as ocirt.errors.Error, after everything that had been
done was taken back.
"""

from __future__ import annotations

import os

from ocirt import bundle as bundles
from ocirt import cgroup as groups
from ocirt import checks, lifecycle, plan, state
from ocirt.errors import At, Error, HookError, NotFound, NotRunning, StateError
from ocirt.kernel import procfs
from ocirt.launch import Init
from ocirt.plan import program
from ocirt.plan.hookpoints import state_around_pid
from ocirt.plan.ops import ASK_HOOKS, ASK_MAPS, ASK_READY, ASK_SECCOMP
from ocirt.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup import Manager
    from ocirt.plan.ops import Op
    from ocirt.state import Container


class Wish:
    """What the caller of `create` or `run` wants besides the config; see the options of the verbs."""

    def __init__(self, container_id: str, root: str, bundle: str) -> None:
        self.container_id = container_id
        self.root = root
        self.bundle = bundle
        self.config_name = "config.json"
        self.console_socket = ""
        self.pidfd_socket = ""
        self.pid_file = ""
        self.no_pivot = False
        self.no_new_keyring = False
        self.preserve_fds = 0
        self.rootless = False
        self.cgroup_driver = "fs"
        self.detach = True
        self.gate = True


class Made:
    """A container that has just been made: the record, its init's pid, and the terminal's master or -1."""

    def __init__(self, container: Container, pid: int, console: int, warnings: list[str]) -> None:
        self.container = container
        self.pid = pid
        self.console = console
        self.warnings = warnings


class Draft:
    """A container on paper: everything decided, nothing done yet."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        state.check_id(wish.container_id)
        self.bundle = os.path.abspath(wish.bundle)
        self.config: dict[str, Any] = bundles.load(self.bundle, wish.config_name)
        checks.run(self.config, rootless=wish.rootless)
        self.rootfs = bundles.rootfs(self.config, self.bundle)
        self.linux = self.config.get("linux") or {}
        self.manager = self._manager()
        self.context = self._context()
        self.plan: list[Op] = plan.compile(self.config, self.context)

    def _manager(self) -> Manager | None:
        if self.wish.cgroup_driver == "disabled":
            return None
        return groups.open_manager(
            self.linux.get("cgroupsPath") or "",
            self.wish.container_id,
            rootless=self.wish.rootless,
            driver=self.wish.cgroup_driver,
        )

    def _context(self) -> plan.Context:
        wish, manager = self.wish, self.manager
        context = plan.Context(self.config, wish.container_id, self.bundle, self.rootfs)
        context.rootless = wish.rootless
        context.host = plan.Host(rootless=wish.rootless)
        context.no_pivot = wish.no_pivot
        context.no_new_keyring = wish.no_new_keyring
        context.listen_fds = program.listen_fds(dict(os.environ), os.getpid())
        context.preserve_fds = wish.preserve_fds + context.listen_fds
        context.gate = wish.gate
        context.die_with_runtime = not wish.detach
        context.seccomp_cache = os.path.join(wish.root, ".seccomp")
        if manager is not None:
            context.attach_files = manager.attach_files()
            context.cgroup_word = "cgroup" if manager.cgroup_dir() else ""
            context.cgroup_program = manager.device_program(self.linux.get("resources") or {})
            context.cgroup_mounts = manager.mounts
        return context

    def namespace_files(self) -> list[tuple[str, str]]:
        """Return (word, path) of the namespaces to be joined."""
        return [(f"ns.{kind}", path) for kind, path in self.context.namespaces.joined.items()]


def _check_console(wish: Wish, terminal: bool) -> None:
    if terminal and wish.detach and not wish.console_socket:
        raise Error("cannot allocate tty if ocirt will detach without setting console socket")
    if wish.console_socket and not (wish.detach and terminal):
        raise Error("cannot use console socket if ocirt will not detach or allocate tty")


def create(wish: Wish) -> Made:
    """Make a container whose init waits at the gate (`wish.gate`), or runs its program at once.

    Everything that can be refused is refused before anything on the machine changes; what fails
    later is taken back.
    """
    listen = program.listen_fds(dict(os.environ), os.getpid())
    program.preserved(listen, wish.preserve_fds)  # before any file of ours takes a number
    draft = Draft(wish)
    _check_console(wish, bool((draft.config.get("process") or {}).get("terminal")))
    undo = Undo()
    try:
        return _make(draft, undo)
    except BaseException:
        undo.run()
        raise


def _make(draft: Draft, undo: Undo) -> Made:
    wish, config, manager = draft.wish, draft.config, draft.manager
    record = {
        "version": state.VERSION,
        "id": wish.container_id,
        "bundle": draft.bundle,
        "rootfs": draft.rootfs,
        "created": state.now(),
        "annotations": config.get("annotations") or {},
        "phase": state.CREATING,
        "cgroup": manager.record() if manager else None,
        "own_pid_namespace": "pid" in draft.context.namespaces.new,
        "hooks": [stage for stage in ("poststart", "poststop") if (config.get("hooks") or {}).get(stage)],
    }
    container = state.claim(wish.root, wish.container_id, record)
    undo.add(_poststop, container, (config.get("hooks") or {}).get("poststop") or [])
    undo.add(container.remove)
    container.save()  # a crash from here on leaves what `delete --force` needs to know
    container.save_config(config)

    init = Init(draft.plan, draft.context.slots)
    fds: list[int] = []
    undo.add(_close, fds)
    if manager:
        manager.create(draft.linux.get("resources") or {})
        undo.add(manager.remove)
        undo.add(manager.kill, 9)
    undo.add(init.kill)
    init.spawn()
    outside = [(word, _open(path, os.O_RDONLY, fds)) for word, path in draft.namespace_files()]
    if manager and manager.cgroup_dir():
        outside.append(("cgroup", _open(str(manager.cgroup_dir()), os.O_RDONLY | os.O_DIRECTORY, fds)))
    init.send_outside(outside)
    record["pid"] = init.cloned()

    inside = []
    for word, path in draft.context.attach_files:
        inside.append((word, _open(path, os.O_WRONLY, fds)))
    if wish.gate:
        container.make_gate()
        # Read and write: the init must not see end of file when `start` is yet to come.
        inside.append(("fifo", _open(container.fifo, os.O_RDWR, fds)))
    init.send_inside(inside)
    _close(fds)

    def maps(_: int) -> None:
        from ocirt import usermap

        usermap.write(init.pid, draft.linux)

    def hooks(_: int) -> None:
        _runtime_hooks(container, config, init.pid)

    def ready(_: int) -> None:
        _set_rlimits(init.pid, config)
        _send_descriptors(wish, init)
        found = procfs.stat(init.pid)
        record["start_time"] = found[1] if found else 0
        if not wish.gate:
            record["phase"] = state.CREATED
        container.save()

    def listener(number: int) -> None:
        _send_listener(container, config, init.pid, number)

    at_gate = init.converse(
        {ASK_MAPS: maps, ASK_HOOKS: hooks, ASK_READY: ready, ASK_SECCOMP: listener}
    )
    if wish.gate:
        if not at_gate:
            raise _oom(manager) or init.died()
        record["phase"] = state.CREATED
        container.save()
    elif "start_time" not in record:
        raise _oom(manager) or init.died()
    if wish.pid_file:
        with At("--pid-file"):
            state.write_whole(os.path.abspath(wish.pid_file), str(init.pid), 0o666 & ~_umask())
    console, init.console = init.console, -1
    init.close()
    return Made(container, init.pid, console, init.warnings)


def _oom(manager: Manager | None) -> Error | None:
    if manager and manager.oom_killed():
        return Error("container init was OOM-killed (memory limit too low?)")
    return None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _open(path: str, flags: int, fds: list[int]) -> int:
    with At(path):
        fd = os.open(path, flags | os.O_CLOEXEC)
    fds.append(fd)
    return fd


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


def _state_text(container: Container, status: str, pid: int) -> str:
    before, after = state_around_pid(
        container.id, status, container.record["bundle"], container.record.get("annotations")
    )
    if not pid:
        before = before.removesuffix(',"pid":')
        return before + after
    return f"{before}{pid}{after}"


def _runtime_hooks(container: Container, config: dict[str, Any], pid: int) -> None:
    text = _state_text(container, state.CREATING, pid)
    hooks = config.get("hooks") or {}
    back = os.getcwd()
    os.chdir(container.record["bundle"])
    try:
        for stage in ("prestart", "createRuntime"):
            lifecycle.run(hooks.get(stage) or [], stage, text)
    finally:
        os.chdir(back)


def _poststop(container: Container, hooks: list[dict[str, Any]]) -> list[HookError]:
    return lifecycle.run_all(hooks, "poststop", _state_text(container, state.STOPPED, 0))


def _set_rlimits(pid: int, config: dict[str, Any]) -> None:
    if not (config.get("process") or {}).get("rlimits"):
        return
    from resource import prlimit

    from ocirt.plan.identity import rlimits

    for number, soft, hard, where in rlimits(config):
        try:
            prlimit(pid, number, (soft, hard))
        except PermissionError:
            limit = prlimit(pid, number)[1]
            raise Error(
                where, f"error setting rlimit type {number}: hard limit {hard} is above ours, {limit}",
                "operation not permitted",
            ) from None
        except ValueError as error:
            raise Error(where, str(error)) from None


def _send_descriptors(wish: Wish, init: Init) -> None:
    """Hand over the terminal and the pidfd before the pid file tells the caller to go on."""
    if not (wish.console_socket or wish.pidfd_socket):
        return
    from ocirt import console

    if wish.console_socket:
        console.send_fd(wish.console_socket, init.console, b"/dev/ptmx")
    if wish.pidfd_socket:
        pidfd = os.pidfd_open(init.pid)
        try:
            console.send_fd(wish.pidfd_socket, pidfd, b"standard")
        finally:
            os.close(pidfd)


def _send_listener(container: Container, config: dict[str, Any], pid: int, number: int) -> None:
    """Pass the seccomp listener to the agent that the config names (config-linux.md, "Seccomp")."""
    from ocirt import console, jsonio
    from ocirt.launch import fetch_fd

    section = config["linux"]["seccomp"]
    fd = fetch_fd(pid, number)
    try:
        document = {
            "ociVersion": state.SPEC_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": section.get("listenerMetadata") or "",
            "state": {
                "ociVersion": state.SPEC_VERSION,
                "id": container.id,
                "status": state.CREATING,
                "pid": pid,
                "bundle": container.record["bundle"],
                "annotations": container.record.get("annotations") or {},
            },
        }
        console.send_fd(section["listenerPath"], fd, jsonio.dumps(document).encode())
    finally:
        os.close(fd)


def start(container: Container) -> None:
    """Open the gate, wait until the program has taken over, then run the poststart hooks."""
    container.lock()
    status = container.status()
    if status == state.STOPPED:
        raise StateError("cannot start a container that has stopped")
    if status == state.RUNNING:
        raise StateError("cannot start an already running container")
    if status != state.CREATED:
        raise StateError(f"cannot start a container in the {status} state")
    try:
        gate = os.open(container.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENXIO: nobody reads, the init is gone
        raise StateError("cannot start a container that has stopped") from None
    os.write(gate, b"\0")
    os.unlink(container.fifo)
    _wait_for_exec(gate)
    os.close(gate)
    poststart(container)


def _wait_for_exec(gate: int) -> None:
    """Wait until the init no longer holds the FIFO: it closes when the program is executed."""
    import select

    poll = select.poll()
    poll.register(gate, 0)
    poll.poll()


def poststart(container: Container) -> None:
    """Run the poststart hooks; when one fails, the container is ended."""
    if "poststart" not in container.record["hooks"]:
        return
    hooks = container.config()["hooks"]["poststart"]
    text = _state_text(container, state.RUNNING, container.pid)
    os.chdir(container.record["bundle"])
    try:
        lifecycle.run(hooks, "poststart", text)
    except HookError:
        signal_init(container, 9)
        raise


def signal_init(container: Container, number: int) -> None:
    """Send a signal to the very process that is the container's init, or raise NotRunning."""
    from _signal import pidfd_send_signal

    try:
        pidfd = os.pidfd_open(container.pid)
    except OSError:
        raise NotRunning from None
    try:
        if not container.alive():  # checked with the pidfd in hand: the pid cannot be reused now
            raise NotRunning
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise NotRunning from None
    finally:
        os.close(pidfd)


def kill(container: Container, number: int, everyone: bool) -> None:
    """Send a signal to the init, or to every process of the container.

    Without a pid namespace of its own the container has no init whose death ends the rest, so
    there every process gets the signal.
    """
    manager = _manager(container)
    alive = container.alive()
    if not alive and not everyone:
        raise NotRunning
    if (everyone or not container.record["own_pid_namespace"]) and manager:
        manager.kill(number)
    elif alive:
        signal_init(container, number)
    if number == 9 and manager and manager.version == 1 and manager.frozen():
        manager.thaw()  # on v1 even SIGKILL waits for the thaw


def _manager(container: Container) -> Manager | None:
    record = container.record.get("cgroup")
    return groups.from_record(record) if record else None


def delete(root: str, container_id: str, force: bool) -> list[HookError]:
    """Remove a container and everything made for it; return what its poststop hooks complained of.

    Needs neither bundle nor rootfs.  What a killed verb left half-made is removed as well.
    """
    try:
        container = state.load(root, container_id)
    except NotFound:
        _sweep(root, container_id)
        if force:
            return []
        raise
    container.lock()
    try:
        container = _reload(container, root)
    except NotFound:
        if force:
            return []
        raise
    status = container.status()
    if status == state.CREATING and not container.alive():
        status = state.STOPPED  # its maker is gone: we hold the lock
    if not force and status not in (state.STOPPED, state.CREATED):
        raise StateError(f"cannot delete container {container_id} that is not stopped: {status}")
    return destroy(container)


def _reload(container: Container, root: str) -> Container:
    fresh = state.load(root, container.id)
    fresh._lock, container._lock = container._lock, -1
    return fresh


def _sweep(root: str, container_id: str) -> None:
    """Remove the directory that a killed `create` left without a record."""
    path = os.path.join(root, container_id)
    if os.path.isdir(path) and set(os.listdir(path)) <= {"exec.fifo", "config.json"} | _half_written(path):
        state.remove_directory(path)


def _half_written(path: str) -> set[str]:
    return {name for name in os.listdir(path) if name.startswith((".state.json.", ".config.json."))}


def destroy(container: Container) -> list[HookError]:
    """End what still runs, remove cgroup and record, run the poststop hooks; return their complaints."""
    manager = _manager(container)
    if container.alive():
        _end(container, manager)
    if manager:
        if not container.record["own_pid_namespace"] or manager.pids():
            manager.kill(9)
            if manager.version == 1 and manager.frozen():
                manager.thaw()
        manager.remove()
    hooks = container.config()["hooks"]["poststop"] if "poststop" in container.record["hooks"] else []
    container.remove()
    return _poststop(container, hooks)


def _end(container: Container, manager: Manager | None) -> None:
    """Kill the init and wait for its death, 10 seconds at most."""
    import time

    try:
        signal_init(container, 9)
    except NotRunning:
        return
    if manager and manager.version == 1 and manager.frozen():
        manager.thaw()
    for pause in (*(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02), *[0.1] * 100):
        if not container.alive():
            return
        time.sleep(pause)
    raise StateError("container init still running")
