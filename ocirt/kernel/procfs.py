"""What /proc says of a process: enough to know whether it is still the one that was meant.

proc(5), "/proc/pid/stat".
"""

from __future__ import annotations

from ocirt import system as os


def stat(pid: int) -> tuple[str, int] | None:
    """Return (state letter, start time in ticks after boot); None when there is no such pid."""
    try:
        return _parse(read(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _parse(text: bytes) -> tuple[str, int]:
    # The name may hold anything, parentheses too; the fields after the last one are plain.
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def read(path: str, directory: int | None = None) -> bytes:
    """Return what a file holds; with an open directory, that of a path below it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    text = b""
    try:
        while some := os.read(fd, 1 << 16):
            text += some
        return text
    finally:
        os.close(fd)


def open_process(pid: int, start_time: int) -> int | None:
    """Return a descriptor of this very process's directory in /proc, None when it is gone.

    What is opened through it later is of this process or fails: the descriptor stands for the
    process and not for the number, which another may get.
    """
    fd = -1
    try:
        fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        state, started = _parse(read("stat", fd))
    except (FileNotFoundError, ProcessLookupError):
        state, started = "X", -1
    if started == start_time and state not in "ZX":
        return fd
    if fd >= 0:
        os.close(fd)
    return None


def alive(pid: int, start_time: int) -> bool:
    """Whether this very process still runs: same pid, same start time, not a zombie."""
    if pid <= 0:
        return False
    found = stat(pid)
    return found is not None and found[1] == start_time and found[0] not in "ZX"


def send(pid: int, start_time: int, number: int) -> bool:
    """Send a signal to this very process; return whether it was there to get it."""
    from _signal import pidfd_send_signal

    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not alive(pid, start_time):  # with the pidfd in hand: the pid cannot be reused now
            return False
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def field(pid: int | str, name: str, where: str = "status") -> str:
    """Return one line's value of /proc/PID/status (`CapBnd`, `Uid`), or of another such file."""
    for line in read(f"/proc/{pid}/{where}").decode("utf-8", "replace").split("\n"):
        if line.startswith(name + ":"):
            return line[len(name) + 1 :].strip()
    return ""


def stdio(pid: int | str = "self", fds: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    """Return what descriptors of a process are (`pipe:[1234]`), "" for a closed one."""
    found = []
    for number in fds:
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            found.append("")
    return found


def in_user_namespace() -> bool:
    """Whether this process is in a user namespace other than the first (its map is not whole)."""
    try:
        return read("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]
    except OSError:  # a kernel without user namespaces
        return False


def owner() -> int:
    """Return our effective user id as the namespace around ours knows it."""
    uid = os.geteuid()
    try:
        text = read("/proc/self/uid_map")
    except OSError:
        return uid
    rows = [[int(word) for word in row.split()] for row in text.splitlines()]
    for inside, outside, count in rows:
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid


def unescape(field: str) -> str:
    r"""Undo the octal escapes of mountinfo: `\040` is a space."""
    first, *rest = field.split("\\")
    return first + "".join([chr(int(part[:3], 8)) + part[3:] for part in rest])
