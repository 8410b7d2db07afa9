"""The verbs that act on a container that exists: start, kill, pause, delete, each step by step.

Nothing here prints; failures are raised as ocirt.errors.Error.  Making a container is create.py.
"""

from __future__ import annotations

from ocirt import cgroup as groups
from ocirt import state
from ocirt import system as os
from ocirt.errors import (
    ConfigError,
    HookError,
    KernelError,
    NotFound,
    NotRunning,
    StateError,
)
from ocirt.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cgroup.fs import Manager
    from ocirt.state import Container


def start(root: str, container_id: str) -> None:
    """Open the gate, wait until the program has taken over, then run the poststart hooks."""
    container = locked(root, container_id)
    status = container.status()
    if status == state.STOPPED:
        raise StateError("cannot start a container that has stopped")
    if status == state.RUNNING:
        raise StateError("cannot start an already running container")
    if status != state.CREATED:
        raise StateError(f"cannot start a container in the {status} state")
    listener = None
    if container.record.get("notify"):
        from ocirt import notify

        listener = notify.listen(container)
    gate = open_gate(container)
    let_go(container, gate)
    wait_for_exec(gate)
    poststart(container)
    if listener:
        container.unlock()  # a program may take its time, and others may want to end it
        listener.wait(container)


def open_gate(container: Container) -> int:
    """Return the gate that the init waits at."""
    try:
        return container.open_gate()
    except OSError:  # ENXIO: nobody reads, the init is gone
        raise StateError("cannot start a container that has stopped") from None


def let_go(container: Container, gate: int) -> None:
    """Tell the init at the gate to go on."""
    os.write(gate, b"\0")
    os.unlink(container.fifo)


def wait_for_exec(gate: int) -> None:
    """Wait until the init no longer holds the FIFO: it closes when the program is executed."""
    import select

    poll = select.poll()
    poll.register(gate, 0)
    poll.poll()
    os.close(gate)


def poststart(container: Container) -> None:
    """Run the poststart hooks; when one fails, the container is ended."""
    if "poststart" not in container.record["hooks"]:
        return
    from ocirt import lifecycle

    hooks = container.config()["hooks"]["poststart"]
    text = lifecycle.state_text(container, state.RUNNING, container.pid)
    try:
        lifecycle.run(hooks, "poststart", text, container.record)
    except HookError:
        signal_init(container, 9)
        raise


def signal_init(container: Container, number: int) -> None:
    """Send a signal to the very process that is the container's init, or raise NotRunning."""
    if not procfs.send(container.pid, container.record.get("start_time") or 0, number):
        raise NotRunning


def kill(container: Container, number: int, everyone: bool) -> None:
    """Send a signal to the init, or to every process of the container.

    Without a pid namespace of its own the container has no init whose death ends the rest, so
    there every process gets SIGKILL; of any other signal the init makes what it likes.
    """
    manager = manager_of(container)
    # While it is being made, its maker has the say.
    alive = container.alive() and container.record["phase"] != state.CREATING
    if not alive and not everyone:
        raise NotRunning
    if everyone or (number == 9 and not container.record["own_pid_namespace"]):
        _signal_all(container, manager, number)
    elif alive:
        signal_init(container, number)
    if number == 9 and manager and manager.version == 1 and manager.frozen():
        manager.thaw()  # on v1 even SIGKILL waits for the thaw


def _signal_all(container: Container, manager: Manager | None, number: int) -> None:
    """Send a signal to every process that `processes` counts."""
    if manager and manager.directories() and not manager.shared:
        manager.kill(number)
        return
    for pid in processes(container):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def manager_of(container: Container) -> Manager | None:
    """Return the manager of a container's cgroups, None when it has none."""
    record = container.record.get("cgroup")
    return groups.from_record(record) if record else None


def pause(root: str, container_id: str) -> None:
    """Stop every process of a container where it stands."""
    container = locked(root, container_id)
    if container.status() not in (state.CREATED, state.RUNNING):
        raise NotRunning
    _freezer(container).freeze()


def resume(root: str, container_id: str) -> None:
    """Let the processes of a paused container go on."""
    container = locked(root, container_id)
    if container.status() != state.PAUSED:
        raise StateError("container not paused")
    _freezer(container).thaw()


def _freezer(container: Container) -> Manager:
    manager = manager_of(container)
    if manager is None:
        raise StateError("cannot toggle freezer: cgroups not configured for container")
    if manager.shared:
        raise StateError("cannot toggle freezer: other containers share the cgroup")
    return manager


def processes(container: Container) -> list[int]:
    """Return the pids of a container, as its caller sees them.

    Without a cgroup of its own they are told by the pid namespace, or else by descent from the
    init.
    """
    manager = manager_of(container)
    if manager and manager.directories() and not manager.shared:
        return manager.pids()
    if not container.alive():
        return []
    from ocirt.kernel import kin

    return kin.of(container.pid, namespace=container.record["own_pid_namespace"])


def locked(root: str, container_id: str) -> Container:
    """Return a container that no other verb changes until this process ends.

    One that is still being made is returned as it is: a verb refuses it, and does not wait for
    what its hooks are doing.
    """
    container = state.load_own(root, container_id)
    if container.status() == state.CREATING:
        return container
    return _lock(container, root)


def delete(root: str, container_id: str, force: bool) -> list[HookError]:
    """Remove a container and everything made for it; return what its poststop hooks complained of.

    Needs neither bundle nor rootfs.  What a killed verb left half-made is removed as well.
    """
    try:
        container = state.load_own(root, container_id)
        if not force and container.status() == state.CREATING:
            raise _not_stopped(container_id, state.CREATING)
        container = _lock(container, root)
    except NotFound:
        path = os.path.join(root, container_id)
        if state.owner(path) == os.geteuid():
            from ocirt import lost

            if lost.end(path, container_id, force):
                state.remove_directory(path)
            else:
                _sweep(path)
        if force:
            return []
        raise
    except (ConfigError, KernelError):
        if not force:
            raise
        # The record cannot be read: a full disk, a foreign hand.  What it knew is lost, but the
        # id shall not be.
        from ocirt import lost

        path = os.path.join(root, container_id)
        lost.end(path, container_id, force)
        state.remove_directory(path)
        return []
    status = container.status()
    if status == state.CREATING and not container.alive():
        status = state.STOPPED  # its maker is gone: we hold the lock
    if not force and status not in (state.STOPPED, state.CREATED):
        raise _not_stopped(container_id, status)
    return destroy(container)


def _not_stopped(container_id: str, status: str) -> StateError:
    return StateError(f"cannot delete container {container_id} that is not stopped: {status}")


def _lock(container: Container, root: str) -> Container:
    """Wait for the verb that changes the container, and read anew: all may be different now."""
    try:
        container.lock()
    except FileNotFoundError:  # deleted meanwhile
        raise NotFound from None
    fresh = state.load_own(root, container.id)
    fresh._lock, container._lock = container._lock, -1
    return fresh


def _sweep(path: str) -> None:
    """Remove the directory that a killed `create` left without a record, of our own."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:  # another `delete` was faster
        return
    half_written = (".state.json.", ".config.json.")
    left = {name for name in names if not name.startswith(half_written)}
    if left <= {"exec.fifo", "config.json", "quick"}:
        state.remove_directory(path)


def destroy(container: Container) -> list[HookError]:
    """End what still runs, remove cgroup and record; return what the poststop hooks complain of."""
    manager = manager_of(container)
    if container.alive():
        if not container.record["own_pid_namespace"]:
            # While the init lives, those who are told by descent from it still can be.
            _signal_all(container, manager, 9)
        _end(container, manager)
    if manager and manager.shared:
        manager.leave()
    elif manager:
        if not container.record["own_pid_namespace"] or manager.pids():
            manager.kill(9)
            if manager.version == 1 and manager.frozen():
                manager.thaw()
        manager.remove()
    if container.record.get("resctrl"):
        from ocirt import resctrl

        resctrl.Group(container.record["resctrl"]).remove()
    if container.record.get("rdma"):
        from ocirt import rdmadevices

        rdmadevices.give_back(container.record["rdma"])
    if container.record["host_mounts"] is not None:
        from ocirt.kernel import mounts

        mounts.detach(container.record["rootfs"], container.record["host_mounts"])
    if "poststop" not in container.record["hooks"]:
        container.remove()
        return []
    from ocirt import lifecycle

    hooks = container.config()["hooks"]["poststop"]
    container.remove()
    return lifecycle.poststop(container, hooks)


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
        if pause == 0.1 and manager and not manager.shared:
            # A pid namespace ends only when nobody traces those in it any more: a restore that
            # was killed leaves its CRIU behind, in the same cgroup.
            manager.kill(9)
        time.sleep(pause)
    raise StateError("container init still running")
