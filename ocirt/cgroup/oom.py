"""Hear from the kernel when it kills a process of a container for want of memory.

v1 tells an eventfd that was announced to it; on v2 memory.events itself can be polled.
`open_watch` gives what to poll, `Watch.fired` says after a wake-up whether that was it.

Kernel side: Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control"; cgroup-v2.rst,
"memory.events"
"""

from __future__ import annotations

import select

from ocirt import system as os
from ocirt.cgroup.files import put, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cgroup.fs import Manager


class Watch:
    """fd, mask: what to poll."""

    fd = -1
    mask = select.POLLIN

    def fired(self) -> bool:
        """Whether a process has been killed since the last call."""
        raise NotImplementedError


class V1(Watch):
    def __init__(self, control: str) -> None:
        self._directory = os.path.dirname(control)
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._control = os.open(control, os.O_RDONLY | os.O_CLOEXEC)
        put(f"{self._directory}/cgroup.event_control", f"{self.fd} {self._control}")

    def fired(self) -> bool:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        # The kernel also rings when the cgroup is removed.
        return os.path.exists(self._directory)


class V2(Watch):
    mask = select.POLLPRI

    def __init__(self, events: str) -> None:
        self.fd = os.open(events, os.O_RDONLY | os.O_CLOEXEC)
        self._seen = self._kills()

    def _kills(self) -> int:
        try:
            return word(os.pread(self.fd, 4096, 0).decode(), "oom_kill")
        except OSError:  # the cgroup has been removed
            return 0

    def fired(self) -> bool:
        before, self._seen = self._seen, self._kills()
        return self._seen > before


def open_watch(manager: Manager) -> Watch | None:
    """Start to listen; None where the container has no memory cgroup."""
    path = manager.path_of("memory.events" if manager.version == 2 else "memory.oom_control")
    if path is None or not os.path.exists(path):
        return None
    return V2(path) if manager.version == 2 else V1(path)
