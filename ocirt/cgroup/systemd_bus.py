"""Ask systemd for scopes: start, change, join, stop.

The manager of the machine has a socket of its own, for root alone, which works before there is a
message bus and goes on when that is restarted; a user's manager has one, too.  The bus is the
second choice.  A connection that breaks, as all do when systemd is replaced by a new version of
itself, is made once more.

org.freedesktop.systemd1(5), "The Manager Object".
"""

from __future__ import annotations

import time

from ocirt import system as os
from ocirt.cgroup import dbus
from ocirt.errors import Error
from ocirt.kernel.procfs import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.cgroup.systemd_props import Properties

NAME, PATH = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
MANAGER = (NAME, PATH, NAME + ".Manager")
PROPERTIES = (NAME, PATH, "org.freedesktop.DBus.Properties")
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
REMOVED = "JobRemoved"
MATCH = f"type='signal',sender='{NAME}',path='{PATH}',interface='{NAME}.Manager',member='{REMOVED}'"

ABSENT = "systemd not running on this host, cannot use systemd cgroups manager"
USER_ABSENT = (
    "no systemd of this user answers: loginctl enable-linger starts one, and XDG_RUNTIME_DIR says "
    "where it is"
)
EXISTS = NAME + ".UnitExists"
MISSING = NAME + ".NoSuchUnit"


class Failed(Error):  # noqa: N818 - systemd's own word
    """systemd tried to, and could not."""


def addresses(user: bool) -> list[tuple[str, bool]]:
    """Return the sockets to try, each with: is it a bus?  An abstract one starts with NUL."""
    if not user:
        bus = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/dbus/system_bus_socket")
        return [("/run/systemd/private", False), *_sockets(bus)]
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{owner()}"
    return [
        (f"{runtime}/systemd/private", False),
        *_sockets(os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")),
        (f"{runtime}/bus", True),
    ]


def _sockets(addresses: str) -> list[tuple[str, bool]]:
    """Return the UNIX sockets in a list such as `unix:path=/run/bus,guid=…;tcp:…`."""
    found = []
    for address in addresses.split(";"):
        transport, _, rest = address.partition(":")
        for part in rest.split(",") if transport == "unix" else ():
            key, _, value = part.partition("=")
            if key in ("path", "abstract"):
                found.append(("\0" * (key == "abstract") + _unescape(value), True))
    return found


def _unescape(value: str) -> str:
    first, *rest = value.split("%")
    return first + "".join([chr(int(part[:2], 16)) + part[2:] for part in rest])


class Bus:
    """A manager of units: the machine's, or that of the user who runs us."""

    def __init__(self, user: bool) -> None:
        self.user = user
        self.version = 0  # of systemd; known once it has been spoken to
        self._connection: dbus.Connection | None = None

    def start(self, unit: str, properties: Callable[[int], Properties]) -> None:
        """Make a transient unit, of the properties for a version, and wait until it is there."""
        try:
            self._job(self._start_unit, unit, properties)
        except dbus.Refused as error:
            if error.name != EXISTS:
                raise
            # Left over from a unit that has failed, perhaps.
            self.reset(unit)
            self._job(self._start_unit, unit, properties)
        except Failed:
            self.reset(unit)
            raise

    def _start_unit(self, unit: str, properties: Callable[[int], Properties]) -> Any:
        self._link()
        values: Any = (unit, "replace", list(properties(self.version).items()), [])
        return self._call(MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", values)

    def stop(self, unit: str) -> None:
        """Stop a unit, wait for that, and have systemd forget that it failed; none is fine."""
        try:
            self._job(self._call, MANAGER, "StopUnit", "ss", (unit, "replace"))
        except dbus.Refused as error:
            if error.name != MISSING:
                raise
        self.reset(unit)

    def reset(self, unit: str) -> None:
        """Forget that a unit failed; one that did not, or is unknown, is fine."""
        try:
            self._call(MANAGER, "ResetFailedUnit", "s", (unit,))
        except dbus.Refused:
            pass

    def set(self, unit: str, properties: Callable[[int], Properties]) -> None:
        """Give a unit the properties for a version, until it ends."""
        self._link()
        values = list(properties(self.version).items())
        if values:
            self._call(MANAGER, "SetUnitProperties", "sba(sv)", (unit, True, values))

    def attach(self, unit: str, pid: int) -> None:
        """Put a process of ours into a unit."""
        self._call(MANAGER, "AttachProcessesToUnit", "ssau", (unit, "", [pid]))

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._connection:
            self._connection.close()
            self._connection = None

    # --- how

    def _job(self, ask: Callable[..., Any], *arguments: Any) -> None:
        """Ask for a job, and wait until it is done."""
        (job,) = ask(*arguments)
        end = time.monotonic() + dbus.PATIENCE
        assert self._connection
        while True:
            values = self._connection.signal(end).values()
            if len(values) == 4 and values[1] == job:
                if values[3] != "done":
                    raise Failed(f"the job for {values[2]} ended with: {values[3]}")
                return

    def _call(
        self, to: tuple[str, str, str], member: str, signature: str, values: Any
    ) -> list[Any]:
        try:
            return self._ask(to, member, signature, values)
        except dbus.Closed:
            self.close()
            return self._ask(to, member, signature, values)

    def _ask(self, to: tuple[str, str, str], member: str, signature: str, values: Any) -> list[Any]:
        connection = self._link()
        return connection.answer(connection.send(to, member, signature, values))

    def _link(self) -> dbus.Connection:
        """Return the connection; make it if there is none."""
        if self._connection:
            return self._connection
        tried = []
        for path, is_bus in addresses(self.user):
            try:
                return self._dial(path, is_bus)
            except dbus.Closed as error:
                tried.append(str(error))
        raise dbus.Closed(USER_ABSENT if self.user else ABSENT, *tried)

    def _dial(self, path: str, is_bus: bool) -> dbus.Connection:
        connection = dbus.connect(path, (REMOVED,))
        try:
            if is_bus:  # else we are told of every signal unasked
                hello = connection.send(BUS, "Hello")
                connection.send(BUS, "AddMatch", "s", (MATCH,))
                connection.send(MANAGER, "Subscribe")
                connection.answer(hello)
            asked = connection.send(PROPERTIES, "Get", "ss", (MANAGER[2], "Version"))
            ((_, text),) = connection.answer(asked)
        except BaseException:
            connection.close()
            raise
        self.version = version(text)
        self._connection = connection
        return connection


def version(text: str) -> int:
    """Return the number in a version such as `252.39-1~deb12u1` or `v257-rc1`."""
    digits = ""
    for letter in str(text).removeprefix("systemd ").removeprefix("v"):
        if not ("0" <= letter <= "9"):
            break
        digits += letter
    return int(digits[:6] or "0")
