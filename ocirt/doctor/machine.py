"""The machine that is looked at, and what a look comes to.

A finding is (name, status, value, advice).  Looks go below a root directory, so that a test
brings its machine; only where that is the machine we run on (`here`), system calls and the
engines' `--version` are tried as well.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.engines.site import Site, user_home
from ocirt.errors import Error
from ocirt.plan.host import Host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Finding = tuple[str, str, str, str]  # name, status, value, advice
    Check = Callable[["Machine"], Iterator[Finding]]

# ok: works.  info: there, or not; nothing depends on it.  lacks: something that is not always
# needed will be refused.  fails: ocirt itself needs it.
OK, INFO, LACKS, FAILS = "ok", "info", "lacks", "fails"


class Machine:
    """The machine's files below `root`, as the user `uid` finds them."""

    def __init__(self, root: str = "/", uid: int = 0) -> None:
        self.site = Site(root, user_home() if root == "/" else "")
        self.host = Host(self.site.root)
        self.uid = uid
        self.here = self.site.root == "/"
        self.proc = self.site.at("/proc/self")
        self.cgroups = self.site.at("/sys/fs/cgroup")

    def text(self, path: str) -> str:
        """Return a file's text without the newline; "" when it is not there or not for us."""
        try:
            return self.site.read(path).strip()
        except (OSError, Error):
            return ""

    def names(self, folder: str) -> list[str]:
        """Return what a directory holds, sorted; nothing when it is not there or not for us."""
        try:
            return sorted(os.listdir(self.site.at(folder)))
        except OSError:
            return []

    def may_use(self, path: str) -> bool:
        """Whether the user may read and write a device; on another machine, whether it is there."""
        if not self.here:
            return self.host.exists(path)
        return os.access(path, os.R_OK | os.W_OK)

    def kernel(self) -> tuple[int, int]:
        """Return the kernel's version."""
        parts = self.text("/proc/sys/kernel/osrelease").split("-")[0].split(".")
        numbers = [int(part) for part in parts[:2] if part.isdigit()]
        return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


def needed(name: str, good: bool, value: str, advice: str) -> Finding:
    """Return the finding about something that ocirt cannot do without."""
    return (name, OK, value, "") if good else (name, FAILS, value, advice)


def wanted(name: str, good: bool, value: str, advice: str) -> Finding:
    """Return the finding about something that only some containers need."""
    return (name, OK, value, "") if good else (name, LACKS, value, advice)
