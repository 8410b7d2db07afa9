"""What can go wrong, and how it is worded.

    Error                exit 1; segments from general to specific, joined by ": "
    ├─ UsageError        the command line is wrong; cli.main adds one line of advice
    ├─ ConfigError       config.json asks for something we cannot give
    ├─ StateError        the wrong moment: NotFound, Exists, NotRunning
    ├─ KernelError       a system call said no, in Python or in the init; has .errno
    ├─ HookError         a lifecycle hook failed or timed out; has .stage and .index
    └─ InitError         the init died or broke the protocol (our fault)

Leaf code raises the last segment only; whoever knows the place puts it in front with `At`.
Engines search these sentences (docs/design/0005-error-wording.md), so changing one is an
interface change.
"""

from __future__ import annotations

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Error(Exception):
    """A failure with a sentence for the user; `str()` is the finished message."""

    exit_code = 1

    def __init__(self, *segments: str) -> None:
        super().__init__(*segments)
        self.segments = list(segments)

    def __str__(self) -> str:
        return ": ".join(self.segments)


class UsageError(Error):
    """The command line is wrong."""


class ConfigError(Error):
    """config.json, or a device edit, asks for something we cannot give."""


class StateError(Error):
    """The verb does not fit the container's state."""


class NotFound(StateError):  # noqa: N818 - the state, as callers know it
    """No container has this id."""

    def __init__(self) -> None:
        super().__init__("container does not exist")


class Exists(StateError):  # noqa: N818 - the state, as callers know it
    """The id is taken."""

    def __init__(self) -> None:
        super().__init__("container with given ID already exists")


class NotRunning(StateError):  # noqa: N818 - the state, as callers know it
    """The container's init is gone."""

    def __init__(self) -> None:
        super().__init__("container not running")


def strerror(number: int) -> str:
    """Word an errno as engines search for it: lower case (`no such file or directory`)."""
    text = os.strerror(number)
    # "Input/output error" -> "input/output error", but never touch "RPC ..." style words.
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


class KernelError(Error):
    """A system call said no; `errno` is the kernel's number."""

    def __init__(self, errno: int, *segments: str) -> None:
        super().__init__(*segments, strerror(errno))
        self.errno = errno

    @classmethod
    def wrap(cls, error: OSError) -> KernelError:
        """Turn a stray OSError into a KernelError that names the file it was about."""
        where = (os.fsdecode(error.filename),) if isinstance(error.filename, (str, bytes)) else ()
        return cls(error.errno or 0, *where)


class HookError(Error):
    """A lifecycle hook failed; `stage` and `index` say which."""

    def __init__(self, stage: str, index: int, what: str) -> None:
        super().__init__(f"error running {stage} hook #{index}", what)
        self.stage = stage
        self.index = index


class InitError(Error):
    """The init died or broke the protocol."""


class At:
    """Put `where` in front of any Error raised inside; turn an OSError into a KernelError.

    >>> with At("mounts[3]"):
    ...     raise ConfigError("needs a destination")
    Traceback (most recent call last):
    ocirt.errors.ConfigError: mounts[3]: needs a destination
    """

    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Error):
            error.segments.insert(0, self.where)
        elif isinstance(error, OSError):
            wrapped = KernelError.wrap(error)
            wrapped.segments.insert(0, self.where)
            raise wrapped from error
