"""The directory of a container: state.json, the config it was made from, the start gate, the lock.

    ROOT/ID/state.json    what the verbs need, ours alone and versioned
    ROOT/ID/config.json   the config as it was applied; later edits of the bundle do not matter
    ROOT/ID/exec.fifo     the start gate: there from create to start
    ROOT/ID/hpc.json      what the HPC stage did and why; only where something asked for devices

Files appear whole (written beside, then renamed), so a verb may be killed at any instant.  A pid
counts only together with its start time.  `status` and `load` take no lock and never wait.

runtime-spec, runtime.md, "State", "Lifecycle".
"""

from __future__ import annotations

import fcntl
import time
from errno import ENOENT, ENOTDIR, ENXIO

from ocirt import jsonio
from ocirt import system as os
from ocirt.document import SPEC_VERSION
from ocirt.errors import At, ConfigError, Error, Exists, KernelError, NotFound, StateError
from ocirt.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERSION = 1  # of state.json
HPC_NAME = "hpc.json"

# What every record has, and verbs rely on.
FIELDS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("id", (str,)),
    ("bundle", (str,)),
    ("rootfs", (str,)),
    ("created", (str,)),
    ("phase", (str,)),
    ("pid", (int, type(None))),
    ("start_time", (int, type(None))),
    ("annotations", (dict,)),
    ("hooks", (list,)),
    ("own_pid_namespace", (bool,)),
    ("cgroup", (dict, type(None))),
    ("host_mounts", (list, type(None))),
)

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"

_NOGROUP = 65534
_KIND, _FIFO, _FOLDER = 0o170000, 0o010000, 0o040000  # of st_mode: inode(7)

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")


def check_id(container_id: str) -> None:
    """Refuse an id that could leave the root directory or that engines would not send."""
    if not container_id:
        raise Error("container id cannot be empty")
    if container_id in (".", "..") or not _LETTERS.issuperset(container_id):
        raise Error("invalid container ID format")
    if len(container_id.encode()) > 1024:
        raise Error("invalid container ID format: longer than 1024 bytes")


def now() -> str:
    """Return the time as the state wants it: RFC 3339, UTC, nanoseconds."""
    stamp = time.time_ns()
    seconds, rest = divmod(stamp, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def write_whole(path: str, text: str | bytes, mode: int = 0o600) -> None:
    """Write a file beside `path` and rename it into place, so that nobody sees half of it."""
    rename(write_beside(path, text, mode), path)


def write_beside(path: str, text: str | bytes, mode: int = 0o600) -> str:
    """Write the file that is to be renamed to `path`; return where it is."""
    folder, name = os.path.split(path)
    beside = os.path.join(folder, f".{name}.{os.getpid()}")
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.close(fd)
        fd = -1
    except BaseException as error:
        if fd >= 0:
            os.close(fd)
        _withdraw(beside, path, error)
    return beside


def rename(beside: str, path: str) -> None:
    """Put a file that `write_beside` has written into its place."""
    try:
        os.rename(beside, path)
    except BaseException as error:
        _withdraw(beside, path, error)


def _withdraw(beside: str, path: str, error: BaseException) -> NoReturn:
    os.unlink(beside)
    if isinstance(error, OSError):
        raise KernelError(error.errno or 0, path) from error
    raise error


class Container:
    """One container's directory and record.

    record: id, bundle, rootfs, created, annotations, pid, start_time (clock ticks after boot),
    phase ("creating" until everything that can fail has been done), cgroup (the manager's own
    record, or None), own_pid_namespace, hooks (names of the stages still to come).
    """

    def __init__(self, root: str, container_id: str, record: dict[str, Any]) -> None:
        self.id = container_id
        self.directory = os.path.join(root, container_id)
        self.record = record
        self._lock = -1

    @property
    def state_file(self) -> str:
        """Path of the record that the verbs read."""
        return os.path.join(self.directory, "state.json")

    @property
    def fifo(self) -> str:
        """Path of the start gate."""
        return os.path.join(self.directory, "exec.fifo")

    @property
    def pid(self) -> int:
        """The init's pid in the runtime's pid namespace; 0 before there is one."""
        pid: int = self.record.get("pid") or 0
        return pid

    def lock(self) -> None:
        """Keep other verbs that change this container out until this process ends or `unlock`s."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
        self._lock = fd

    def unlock(self) -> None:
        """Let others in again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def save(self) -> None:
        """Write state.json."""
        write_whole(self.state_file, jsonio.dumps(self.record))

    def draft(self) -> str:
        """Write what is to be state.json; return where, for `adopt`."""
        return write_beside(self.state_file, jsonio.dumps(self.record))

    def adopt(self, draft: str) -> None:
        """Make a draft state.json."""
        rename(draft, self.state_file)

    def save_config(self, config: dict[str, Any], text: bytes = b"") -> None:
        """Keep the config for the verbs to come; text: what says the same, where there is such."""
        write_whole(os.path.join(self.directory, "config.json"), text or jsonio.dumps(config))

    def save_report(self, rows: list[dict[str, Any]]) -> None:
        """Keep what the HPC stage did and why, for `ocirt hpc explain`."""
        write_whole(os.path.join(self.directory, HPC_NAME), jsonio.dumps(rows))

    def config(self) -> dict[str, Any]:
        """Return the config as create applied it."""
        config: dict[str, Any] = jsonio.load(os.path.join(self.directory, "config.json"))
        return config

    def make_gate(self) -> None:
        """Make the FIFO that the init waits on."""
        with At(self.fifo):
            os.mkfifo(self.fifo, 0o600)

    def open_gate(self) -> int:
        """Open the FIFO for writing; OSError where no init holds its other end."""
        fd = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(fd).st_mode & _KIND != _FIFO:
            os.close(fd)
            raise OSError(ENXIO, "not a FIFO", self.fifo)
        return fd

    def alive(self) -> bool:
        """Whether the init still runs: same pid, same start time, no zombie."""
        return procfs.alive(self.pid, self.record.get("start_time") or 0)

    def status(self) -> str:
        """Work out the status from the process, the gate and the freezer.

        A container that is still being made, or whose maker died at it, is `creating` while its
        init lives or was never started by a live maker, `stopped` after.
        """
        if not self.alive():
            if self.record.get("phase") == CREATING and self._being_made():
                return CREATING
            return STOPPED
        if self.record.get("phase") == CREATING:
            return CREATING
        cgroup = self.record.get("cgroup")
        if cgroup:
            from ocirt import cgroup as groups

            if groups.from_record(cgroup).frozen():
                return PAUSED
        return CREATED if self._waits() else RUNNING

    def _waits(self) -> bool:
        """Whether the init still holds the gate; a `start` killed half way leaves one unheld."""
        try:
            os.close(self.open_gate())
        except OSError:  # ENOENT: opened and gone; ENXIO: nobody reads it any more
            return False
        return True

    def _being_made(self) -> bool:
        """Whether the process that makes this container holds its lock."""
        try:
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # Shared: two who look at the same time do not take each other for the maker.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def document(self, status: str | None = None) -> dict[str, Any]:
        """Return the state as `ocirt state` prints it, keys in runc's order."""
        status = status or self.status()
        record = self.record
        document = {
            "ociVersion": SPEC_VERSION,
            "id": self.id,
            "pid": 0 if status == STOPPED else self.pid,
            "status": status,
            "bundle": record["bundle"],
            "rootfs": record["rootfs"],
            "created": record["created"],
        }
        if record.get("annotations"):
            document["annotations"] = record["annotations"]
        document["owner"] = ""
        return document

    def remove(self) -> None:
        """Delete the directory with all it holds; nothing outside of it."""
        remove_directory(self.directory)


def remove_directory(path: str) -> None:
    """Delete a state directory, whatever a killed verb left in it; a missing one is fine."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        entry = os.path.join(path, name)
        try:
            os.unlink(entry)
        except IsADirectoryError:
            remove_directory(entry)
        except FileNotFoundError:
            pass
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass


def claim(root: str, container_id: str, record: dict[str, Any]) -> Container:
    """Take an id: make its directory, locked, or raise Exists."""
    check_id(container_id)
    try:
        os.makedirs(root, 0o700, exist_ok=True)
    except FileExistsError:
        raise Error(f"--root {root}: not a directory") from None
    container = Container(root, container_id, record)
    try:
        os.mkdir(container.directory, 0o711)
    except FileExistsError:
        raise Exists from None
    try:
        container.lock()
    except FileNotFoundError:  # a `delete` came between and took it for a leftover
        raise StateError("deleted while it was being created") from None
    except OSError:
        remove_directory(container.directory)
        raise
    return container


def ids(root: str) -> list[str]:
    """Return the ids below a root, sorted; what else lies there is none of ours.

    Slurm keeps the containers of a user right in /run/user/UID.
    """
    found = []
    with os.scandir(root) as entries:
        for entry in entries:
            if _LETTERS.issuperset(entry.name) and entry.is_dir(follow_symlinks=False):
                try:
                    os.stat(f"{entry.path}/state.json")
                except (FileNotFoundError, NotADirectoryError):
                    continue  # foreign, or half written
                except OSError:
                    pass  # whoever loads it will say why not
                found.append(entry.name)
    return sorted(found)


def owner(directory: str) -> int | None:
    """Return the user id that a state directory belongs to; None where there is no such thing.

    A symbolic link is none: it would lead to another container, or out of the state root.
    """
    try:
        found = os.lstat(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_uid if found.st_mode & _KIND == _FOLDER else None


def become_owner(directory: str) -> None:
    """Go on as the user whom a state directory belongs to: root can, others are refused.

    What is kept there names hooks, processes and paths, and must not borrow root's rights.  Slurm
    before 23.02 deletes the containers of users as root.
    """
    uid, own = owner(directory), os.geteuid()
    if uid is None or uid == own:
        return
    if own == 0:
        import pwd

        try:
            # Not the directory's group, which its owner may have borrowed.
            gid = pwd.getpwuid(uid).pw_gid
        except KeyError:
            gid = _NOGROUP
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            return
        except OSError:  # not mapped into our user namespace
            pass
    raise StateError(f"{directory}: belongs to user {uid}, who alone may change it")


def load_own(root: str, container_id: str) -> Container:
    """Read the record of a container that is to be changed, as its owner.

    What a record says is acted upon: processes killed, directories removed.
    """
    check_id(container_id)
    become_owner(os.path.join(root, container_id))
    return load(root, container_id)


def load(root: str, container_id: str) -> Container:
    """Read a container's record; NotFound when there is none."""
    check_id(container_id)
    directory = os.path.join(root, container_id)
    uid = owner(directory)
    if uid is None:
        raise NotFound
    path = os.path.join(directory, "state.json")
    try:
        record = jsonio.load(path)
        written_by = os.lstat(path).st_uid
    except FileNotFoundError:
        raise NotFound from None
    except KernelError as error:
        if error.errno in (ENOENT, ENOTDIR):
            raise NotFound from None
        raise
    if record.__class__ is not dict:
        raise ConfigError(path, "expected an object")
    if record.get("version") != VERSION:
        other = "version of ocirt" if "version" in record else "runtime"
        raise StateError(f"{path}: written by another {other}")
    for field, kinds in FIELDS:
        if record.get(field).__class__ not in kinds:
            raise ConfigError(path, field, "missing, or of another type than was written")
    if record["phase"] != CREATING and None in (record.get("pid"), record.get("start_time")):
        raise ConfigError(path, "start_time: missing, or of another type than was written")
    if record["id"] != container_id:
        raise ConfigError(path, "id", f"of another container, {record['id']}")
    if written_by != uid:
        raise StateError(f"{path}: belongs to user {written_by}, its directory to user {uid}")
    return Container(root, container_id, record)
