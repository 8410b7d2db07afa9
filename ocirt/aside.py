"""Leave the waiting to a small program, so that no interpreter sits beside each container.

`run`, `exec` and `restore` in the foreground have nothing left to decide while the program runs.
So the launcher takes this process over (packaging/attend.c): the same pid, whose child the
container is.  It deletes the container from its record (quick.py), and where that takes more,
becomes `ocirt ... run --ended CODE ID`.

Without the launcher (`python3 -m ocirt`), or when it cannot be executed, we wait ourselves:
console.Foreground.
"""

from __future__ import annotations

import sys

from ocirt import log
from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def program() -> str:
    """Return the path of the launcher that started us, empty without one."""
    found: str = getattr(sys.modules["ocirt"], "PROGRAM", "")
    return found


class Aside:
    """Who is to wait in our place.

    verb: `run` or `exec`.  root: of the state, empty when the container shall stay.
    settings: the words before the verb, as they were given to us.
    """

    def __init__(
        self, verb: str, container_id: str, root: str = "", settings: Sequence[str] = ()
    ) -> None:
        self._start = [f"ocirt {verb}", container_id, root]
        # The zeros become the exit code.
        end = [program(), *settings, "run", "--ended", "000", "--", container_id]
        self._end = end if root else []

    def become(self, pid: int, master: int, tty: int, saved: bytes) -> None:
        """Become the one who waits for our child `pid`; return only where that cannot be.

        All signals are blocked.  master, tty: the terminals, or -1.  saved: how ours was.
        """
        path = program()
        if not path:
            return
        log.finish()  # what was held back until the verb had succeeded
        open_ones = [fd for fd in (master, tty) if fd >= 0]
        words = [*self._start, str(pid), str(master), str(tty), saved.hex(), *self._end]
        try:
            for fd in open_ones:
                os.set_inheritable(fd, True)
            os.execv(path, words)
        except OSError as error:
            for fd in open_ones:
                os.set_inheritable(fd, False)
            log.debug(f"waiting in Python: {path}: {error.strerror}")
