"""Write the lines that engines read: `--log FILE`, `--log-format text|json`, or stderr.

    {"level":"error","msg":"container does not exist","time":"2026-01-02T03:04:05Z"}
    time="2026-01-02T03:04:05Z" level=error msg="container does not exist"

containerd shows its user the last line whose level is error; Podman parses the whole file as
one JSON object.  So a failing command leaves exactly one line there: warnings are held back
until the command has succeeded, unless the caller asks to see them (`--debug`, `--log-level`).
"""

from __future__ import annotations

import fcntl
import sys
import time

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ERROR, WARNING, DEBUG = 0, 1, 2
LEVELS = {"error": ERROR, "warning": WARNING, "debug": DEBUG}
NAMES = ("error", "warning", "debug")

_fd = -1  # of the log file; -1: stderr
_json = False
_level = ERROR
_held: list[bytes] = []
_through: Callable[[bytes], None] | None = None


def configure(path: str = "", *, json: bool = False, level: int = ERROR) -> None:
    """Send what follows to the file `path` (empty: stderr), up to `level`."""
    global _fd, _json, _level
    if _fd >= 0:
        os.close(_fd)
    _fd, _json, _level = -1, json, level
    _held.clear()
    if path:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_SYNC | os.O_CLOEXEC
        fd = os.open(path, flags, 0o644)
        # Out of the way of the descriptors that a caller hands over (--preserve-fds).
        _fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 256)
        os.close(fd)


def through(write: Callable[[bytes], None] | None) -> None:
    """Have `write` write what goes to stderr: for who must not wait for its reader."""
    global _through
    _through = write


def error(message: str) -> None:
    """Write the one line that says why the command failed; plain on stderr, too, beside a log.

    conmon sees nothing but stderr.
    """
    _held.clear()
    _write(_line(ERROR, message))
    if _fd >= 0:
        _write(message.encode("utf-8", "backslashreplace") + b"\n", 2)


def warning(message: str) -> None:
    """Say what went wrong and did not stop the command."""
    line = _line(WARNING, message)
    if _level >= WARNING or _fd < 0:
        _write(line)
    else:
        _held.append(line)


def debug(message: str) -> None:
    """Say what goes on, with the place in our source."""
    if _level >= DEBUG:
        _write(_line(DEBUG, message, sys._getframe(1)))


def debugging() -> bool:
    """Tell whether `debug` writes anything: for messages that are dear to make."""
    return _level >= DEBUG


def finish() -> None:
    """Write the warnings held back: the command has succeeded."""
    for line in _held:
        _write(line)
    _held.clear()


def _line(level: int, message: str, frame: Any = None) -> bytes:
    from _json import encode_basestring as quote

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    fields = [("level", NAMES[level]), ("msg", message), ("time", now)]
    if frame is not None:
        code = frame.f_code
        fields[:0] = [("file", f"{code.co_filename}:{frame.f_lineno}"), ("func", code.co_name)]
    if _json:
        text = "{" + ",".join([f"{quote(key)}:{quote(value)}" for key, value in fields]) + "}"
    else:
        text = f'time="{now}" level={NAMES[level]} msg={quote(message)}'
        text += "".join([f" {key}={quote(value)}" for key, value in fields if key[0] == "f"])
    # A name that is no UTF-8 comes from argv as surrogates, which no reader of JSON accepts.
    return text.encode("utf-8", "replace") + b"\n"


def _write(line: bytes, fd: int = -1) -> None:
    """Write one line with one call, so that lines of two commands never mix."""
    if fd < 0:
        fd = _fd if _fd >= 0 else 2
    if _through and fd == 2:
        _through(line)
        return
    try:
        os.write(fd, line)
    except OSError:
        pass  # Nobody is left to tell, and what failed first counts.
