"""Checkpoint: save the processes of a container into files, and be done with it.

CRIU freezes, saves and kills them; we tell it what is not the container's own.  A dump that
fails leaves the container running and no half-written images.  Bringing it back is restore.py.
"""

from __future__ import annotations

from ocirt import container as containers
from ocirt import jsonio, log, plan, state
from ocirt import system as os
from ocirt.criu import check, external, options, rpc, swrk
from ocirt.errors import At, ConfigError, Error, HookError, KernelError, StateError
from ocirt.kernel import procfs
from ocirt.plan.namespaces import TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt.cgroup.fs import Manager
    from ocirt.state import Container

DESCRIPTORS = "descriptors.json"  # what stdio was, beside CRIU's images; as runc writes it

LOG_LEVEL = 4  # everything but debug messages of the restorer

CONFIG_FILE = "/etc/criu/runc.conf"  # where CRIU's own documentation tells users to write
CONFIG_ANNOTATION = "org.criu.config"

# Namespaces that a container joins rather than has: the first CRIU to leave them alone, by kind.
JOINED = {"network": 31100, "pid": 31500}


class Wish:
    """What the caller of `checkpoint` or `restore` wants of CRIU.

    criu: the program, by name or path.  image_path, work_path: directories; no work path is the
    image path.  parent_path: of an earlier pre-dump, relative to the image path.  status_fd:
    gets a NUL once pages can be fetched, or -1.  arguments: the options of options.OPTIONS.
    """

    def __init__(self, arguments: Any, criu: str) -> None:
        self.arguments = arguments
        self.criu = criu
        self.image_path = os.path.abspath(arguments.image_path or "checkpoint")
        self.work_path = os.path.abspath(arguments.work_path) if arguments.work_path else ""
        self.parent_path = ""
        self.status_fd = -1
        self.pre_dump = False


class Folders:
    """The directories of a dump or a restore, open, since CRIU gets them as descriptors."""

    def __init__(self, wish: Wish, log_name: str, *, make_images: bool) -> None:
        self.images = wish.image_path
        self.log = os.path.join(wish.work_path or wish.image_path, log_name)
        self._open_at: dict[int, str] = {}
        self.made: list[str] = []
        self.fields: dict[str, Any] = {"log_level": LOG_LEVEL, "log_file": log_name}
        try:
            self._open("images_dir_fd", "--image-path", self.images, make=make_images)
            if wish.work_path:
                self._open("work_dir_fd", "--work-path", wish.work_path, make=True)
        except BaseException:
            self.close()
            raise

    def _open(self, field: str, option: str, path: str, *, make: bool) -> None:
        with At(option):
            if make and not os.path.isdir(path):
                os.makedirs(path, 0o700, exist_ok=True)
                self.made.append(path)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open_at[fd] = path
        self.fields[field] = fd

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors, which CRIU is to inherit."""
        return tuple(self._open_at)

    def reopen(self) -> None:
        """Make the descriptors lead into the mount namespace that this process has moved to."""
        for fd, path in self._open_at.items():
            fresh = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.dup2(fresh, fd)
            os.close(fresh)

    def close(self) -> None:
        """Let go of them."""
        while self._open_at:
            os.close(self._open_at.popitem()[0])


def config_file(annotations: dict[str, str]) -> dict[str, Any]:
    """Return where CRIU finds settings of its own, which win over ours; an empty one: nowhere."""
    path = annotations.get(CONFIG_ANNOTATION, CONFIG_FILE)
    return {"config_file": path} if path else {}


def external_name(kind: str) -> str:
    """Return the key by which a checkpoint and its restore call a joined namespace."""
    return f"extRoot{TYPES[kind][1].capitalize()}NS"


def refuse_uncheckable(joined: Iterable[str], has_mounts: bool) -> None:
    """Refuse containers that CRIU cannot save, or not bring back."""
    if not has_mounts or "mount" in joined:
        raise ConfigError("linux.namespaces", "CRIU needs a mount namespace of the container's own")


def require_external(joined: Iterable[str], version: int) -> None:
    """Refuse a CRIU that would save, or make, a namespace which is not the container's."""
    for kind, since in JOINED.items():
        if kind in joined and version < since:
            name = TYPES[kind][1]
            raise Error(f"criu lacks support for external {name} namespace (old criu version?)")


def failed(error: Error, folders: Folders) -> Error:
    """Return a failure of CRIU's with what its log says."""
    return Error(*error.segments, swrk.complaint(folders.log))


def checkpoint(container: Container, wish: Wish) -> list[HookError]:
    """Save a container; unless it goes on, it is gone afterwards.

    Returns what its poststop hooks complained of.
    """
    status = container.status()
    if status not in (state.RUNNING, state.PAUSED):
        raise StateError(f"Container cannot be checkpointed in {status} state")
    arguments = wish.arguments
    request = options.fields(options.CHECKPOINT, arguments)
    request.update(_parent(wish))
    config = container.config()
    spaces = plan.namespaces.Namespaces(config)
    refuse_uncheckable(spaces.joined, spaces.has("mount"))
    manager = containers.manager_of(container)
    mounted = _mounts(container, config, manager)
    path = swrk.find(wish.criu)
    version = check.version(path)
    options.require(options.CHECKPOINT, arguments, version)
    require_external(spaces.joined, version)
    if wish.pre_dump:
        check.require_feature(path, "mem_track")
    if arguments.lazy_pages:
        check.require_feature(path, "lazy_pages")
        request.update(_status(wish, version))

    folders = Folders(wish, "dump.log", make_images=True)
    before = set(os.listdir(folders.images))
    try:
        request.update(folders.fields)
        request.update(config_file(container.record.get("annotations") or {}))
        request.update(_outside(container, spaces.joined))
        request.update(
            root=container.record["rootfs"], pid=container.pid, manage_cgroups=True,
            notify_scripts=True, orphan_pts_master=True,
        )  # fmt: skip
        freezer = _freezer(manager, version)
        if freezer:
            request["freeze_cgroup"] = freezer
        if not wish.pre_dump:  # that saves memory alone
            request["ext_mnt"] = external.saved(mounted, container.pid)
            _describe(container, folders.images)
        _dump(path, request, wish, folders)
    except BaseException:
        _thaw(manager, status)
        _sweep(folders, before)
        raise
    finally:
        folders.close()
    if wish.pre_dump or arguments.leave_running:
        return []
    return containers.destroy(container)


def _parent(wish: Wish) -> dict[str, Any]:
    if not wish.parent_path:
        return {}
    if wish.parent_path[0] == "/":
        raise Error("--parent-path must be relative")
    place = os.path.join(wish.image_path, wish.parent_path)
    # The image directory itself may be still to come: then `..` leads nowhere yet.
    if not os.path.isdir(os.path.normpath(place)):
        raise Error("invalid --parent-path", f"{place}: not a directory")
    return {"parent_img": wish.parent_path, "track_mem": True}


def _status(wish: Wish, version: int) -> dict[str, Any]:
    """Check the descriptor for "ready"; only a CRIU that does not notify of that writes itself."""
    if wish.status_fd < 0:
        return {}
    import fcntl

    where = f"invalid --status-fd argument {wish.status_fd}"
    try:
        flags = fcntl.fcntl(wish.status_fd, fcntl.F_GETFL)
    except OSError as error:
        raise KernelError(error.errno or 0, where) from None
    if not flags & (os.O_WRONLY | os.O_RDWR):
        raise Error(where, "not writable")
    return {} if version >= 31500 else {"status_fd": wish.status_fd}


def _mounts(container: Container, config: dict[str, Any], manager: Manager | None) -> list[Any]:
    """Return how the container was mounted, as ops of a plan."""
    record = container.record
    context = plan.Context(config, container.id, record["bundle"], record["rootfs"])
    if manager is not None:
        context.cgroup_mounts = manager.mounts
    ops = plan.compile_mounts(config, context)
    for op in ops:
        if op.name == "idmap":
            raise ConfigError(op.where, "CRIU cannot bring an id-mapped mount back")
    return ops


def _outside(container: Container, joined: dict[str, str]) -> dict[str, Any]:
    """Name the namespaces and the files on stdio that CRIU must leave alone."""
    names = []
    for kind in JOINED:
        if kind in joined:
            name = TYPES[kind][1]
            inode = os.stat(f"/proc/{container.pid}/ns/{name}").st_ino
            names.append(f"{name}[{inode}]:{external_name(kind)}")
    names += [name for name in external.files(container.pid) if name]
    return {"external": names} if names else {}


def _describe(container: Container, images: str) -> None:
    """Leave word of what stdio is, so that a restore can put its own there.

    Pipes as they were at the start: one that the program made itself is its own.
    """
    names = container.record.get("stdio") or procfs.stdio(container.pid)
    files = external.files(container.pid)
    found = [file or name for file, name in zip(files, names, strict=True)]
    state.write_whole(os.path.join(images, DESCRIPTORS), jsonio.dumps(found))


def _freezer(manager: Manager | None, version: int) -> str:
    """Return the cgroup by which CRIU may stop all at once, "" when it has to do without."""
    file = manager.freeze_file() if manager and not manager.shared else None
    if not file or (manager and manager.version == 2 and version < 31400):
        return ""
    return os.path.dirname(file)


def _dump(path: str, request: dict[str, Any], wish: Wish, folders: Folders) -> None:
    kind = rpc.PRE_DUMP if wish.pre_dump else rpc.DUMP

    def notified(script: str, pid: int) -> None:
        if script == "status-ready" and wish.status_fd >= 0:
            try:
                os.write(wish.status_fd, b"\0")
            except OSError as error:
                log.warning(f"--status-fd: {error.strerror}")
            os.close(wish.status_fd)
            wish.status_fd = -1

    keep = (request["status_fd"],) if "status_fd" in request else ()
    service = swrk.Service(path, swrk.mute, (*folders.fds, *keep))
    try:
        service.ask({"type": kind, "opts": request}, notified)
        # After a pre-dump CRIU waits for the next one; there is none, which it calls a failure.
        code = service.close()
        if code and not wish.pre_dump:
            raise swrk.ended(code)
    except Error as error:
        raise failed(error, folders) from None
    finally:
        service.close()


def _thaw(manager: Manager | None, status: str) -> None:
    """Let the container go on: a CRIU that was killed leaves it frozen."""
    if manager is not None and status == state.RUNNING:
        try:
            if manager.frozen():
                manager.thaw()
        except (Error, OSError) as error:
            log.warning(f"cannot thaw: {error}")


def _sweep(folders: Folders, before: set[str]) -> None:
    """Remove what a failed dump has written, but for the log: it could be taken for a whole one."""
    try:
        for name in set(os.listdir(folders.images)) - before:
            if name.endswith(".img") or name in (DESCRIPTORS, "parent", "stats-dump"):
                os.unlink(os.path.join(folders.images, name))
        for path in reversed(folders.made):
            if not os.listdir(path):
                os.rmdir(path)
    except OSError as error:
        log.warning(f"{folders.images}: {error.strerror}")
