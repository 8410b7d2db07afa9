"""The record from which the launcher carries out plain verbs by itself, without Python.

    ROOT/ID/quick

Engines call start, state, kill and delete once each per container, and an interpreter costs
more to start than any of them does.  What these verbs have to decide is decided here, once,
when the container has been made: which may be done at all by one who only carries out, the
text that `state` prints, the file that tells whether the container is frozen, the directories
that `delete` removes.  packaging/quick.c reads it; whatever is not plain, and every surprise,
goes to the verbs in ocirt/cli, which need no record.

Native byte order, so that C reads it as it is:

    char[4] magic "OCQ2" · u32 bytes of the file · u32 flags · u32 count of texts
    s64 pid · u64 start time
    u64 inode · u64 bytes · s64 last change, in ns: of the state.json that it goes with
    then each text: u32 length, the bytes, a NUL; the first is the id
    u32 all before, as one number with the first byte in front, modulo SUM

So a record that was cut off, changed, copied from another container or left behind by a change of
the state is none: the launcher believes it only whole, of our own user, and with its state.json.
"""

from __future__ import annotations

from _struct import Struct

from ocirt import jsonio
from ocirt import system as os
from ocirt.errors import At

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cgroup.fs import Manager
    from ocirt.state import Container

NAME = "quick"
MAGIC = b"OCQ2"
SUM = (1 << 32) - 5  # a prime: no change of one place is a multiple of it
START, KILL, DELETE = 1, 2, 4  # flags: the verb needs no Python

_HEAD = Struct("=4sIIIqQQQq")
_NUMBER = Struct("=I")


def flags(container: Container, manager: Manager | None) -> int:
    """Decide which verbs need no Python."""
    hooks = container.record["hooks"]
    notify = container.record.get("notify")  # `start` waits, and there is a directory to remove
    more = notify or container.record.get("resctrl") or container.record.get("rdma")
    found = 0
    if "poststart" not in hooks and not notify:
        found |= START
    if container.record["own_pid_namespace"]:
        found |= KILL  # else every process of the cgroup gets SIGKILL
    plain = manager is None or (manager.driver == "fs" and not manager.shared)
    if "poststop" not in hooks and container.record["host_mounts"] is None and plain and not more:
        found |= DELETE
    return found


def record(container: Container, manager: Manager | None, state_file: str) -> bytes:
    """Return the record of a container that has been made, and whose state is not to change.

    state_file: the very file that is state.json, or will be.
    """
    document = container.document("created")
    # The id holds neither quotes nor blanks, so that this is found where it belongs.
    split = f'"pid": {container.pid},\n  "status": "created"'
    before, found, after = jsonio.dumps(document, indent=2).partition(split)
    assert found
    texts = [container.id, f'{before}"pid": ', ',\n  "status": "', f'"{after}']
    texts.append((manager.freeze_file() or "") if manager else "")
    texts += manager.directories() if manager else []
    body = b""
    for text in texts:
        data = text.encode("utf-8", "surrogateescape")
        body += _NUMBER.pack(len(data)) + data + b"\0"
    size = _HEAD.size + len(body) + _NUMBER.size
    numbers = (flags(container, manager), len(texts), container.pid, container.record["start_time"])
    state = os.stat(state_file)
    stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
    whole = _HEAD.pack(MAGIC, size, *numbers, *stamp) + body
    return whole + _NUMBER.pack(int.from_bytes(whole, "big") % SUM)


def parse(data: bytes) -> tuple[str, int, int, int, str, list[str]] | None:
    """Return what a whole record says, whatever became of the state; None for any other.

    That is the id, the flags, pid and start time of the init, its freezer's file, its cgroups.
    """
    end = len(data) - _NUMBER.size
    if end < _HEAD.size:
        return None
    magic, size, flags, count, pid, start_time, *_ = _HEAD.unpack_from(data)
    if (magic, size) != (MAGIC, len(data)):
        return None
    if _NUMBER.unpack_from(data, end) != (int.from_bytes(data[:end], "big") % SUM,):
        return None
    texts, place = [], _HEAD.size
    for _ in range(count):
        (length,) = _NUMBER.unpack_from(data, place)
        place += _NUMBER.size
        texts.append(data[place : place + length].decode("utf-8", "surrogateescape"))
        place += length + 1
    container_id, _, _, _, freezer, *directories = texts
    return container_id, flags, pid, start_time, freezer, directories


def forget(container: Container) -> None:
    """Leave every verb to Python from here on."""
    try:
        os.unlink(os.path.join(container.directory, NAME))
    except FileNotFoundError:
        pass


def write(container: Container, manager: Manager | None, state_file: str = "") -> None:
    """Leave the record beside state.json, or beside what is going to be that.

    Not renamed into place: the launcher takes a file of another length than it says for none.
    """
    path = os.path.join(container.directory, NAME)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with At(path):
            os.write(fd, record(container, manager, state_file or container.state_file))
    finally:
        os.close(fd)
