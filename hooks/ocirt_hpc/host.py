"""One look at a machine: its files, device nodes, PCI functions; every path below `root`.

What lies below `root` belongs to the host and is trusted; nothing of a container is read here.
Tests bring machines of their own: a directory, and an `lstat` that knows its device nodes.
"""

from __future__ import annotations

from ocirt import jsonio
from ocirt import system as os
from ocirt.errors import ConfigError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

S_IFMT = 0o170000
TYPES = {0o060000: "b", 0o020000: "c", 0o010000: "p"}

LARGEST = 1 << 20  # bytes; files of procfs and sysfs are small
MOST_LINKS = 40

ABSENT = (FileNotFoundError, NotADirectoryError)


class Node:
    """A device node: path, kind (b, c), numbers, permissions, owner.

    there: whether the host has it.  source: where, if not at the same path.
    """

    def __init__(
        self,
        path: str,
        major: int,
        minor: int,
        *,
        mode: int = 0o666,
        uid: int = 0,
        gid: int = 0,
        kind: str = "c",
        there: bool = False,
        source: str = "",
    ) -> None:
        self.path = path
        self.source = source
        self.kind = kind
        self.major = major
        self.minor = minor
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.there = there


class Pci:
    """A PCI function: address dddd:bb:dd.f, and its directory below /sys/devices."""

    def __init__(self, host: Host, address: str, path: str) -> None:
        self.host = host
        self.address = address
        self.path = path

    def number(self, file: str) -> int | None:
        """Return the number in a file of the function (`vendor`, `numa_node`), or None."""
        return self.host.number(f"{self.path}/{file}")

    def names(self, folder: str) -> list[str]:
        """Return what a folder of the function holds (`drm`, `net`, `infiniband`)."""
        return self.host.names(f"{self.path}/{folder}")


class Host:
    """A machine below `root`, its device nodes below `dev_root` (`root`, when not given)."""

    def __init__(
        self,
        root: str = "/",
        *,
        dev_root: str | None = None,
        lstat: Callable[[str], os.stat_result] = os.lstat,
    ) -> None:
        self.root = root.rstrip("/")
        self.dev_root = self.root if dev_root is None else dev_root.rstrip("/")
        self.lstat = lstat
        self._majors: dict[str, int] | None = None
        self._resolved: dict[str, str] = {}

    def text(self, path: str) -> str | None:
        """Return what a file holds, without the last newline; None when there is none.

        KernelError when it cannot be read: a driver half loaded has to say so.
        """
        try:
            fd = os.open(self.root + path, os.O_RDONLY | os.O_CLOEXEC)
        except ABSENT:
            return None
        except OSError as error:
            raise KernelError(error.errno or 0, path) from error
        try:
            held = jsonio.drain(fd, LARGEST)
        except OSError as error:
            raise KernelError(error.errno or 0, path) from error
        finally:
            os.close(fd)
        if len(held) > LARGEST:
            raise ConfigError(path, f"holds more than {LARGEST} bytes")
        return held.decode("utf-8", "replace").rstrip("\n")

    def number(self, path: str) -> int | None:
        """Return the number in a file, decimal or 0x; None when there is no file or no number."""
        try:
            return int(self.text(path) or "", 0)
        except ValueError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, in order; [] when there is none."""
        try:
            return sorted(os.listdir(self.root + path))
        except ABSENT:
            return []
        except OSError as error:
            raise KernelError(error.errno or 0, path) from error

    def dev_names(self, path: str) -> list[str]:
        """Return the names in a directory of device nodes, in order; [] when there is none."""
        return Host(self.dev_root).names(path) if self.dev_root != self.root else self.names(path)

    def exists(self, path: str) -> bool:
        """Whether something is at a path, its symbolic links taken below `root`."""
        return os.path.lexists(self.root + self.resolve(path))

    def there(self, path: str) -> bool:
        """Whether a path leads to something, its last link taken as well."""
        return os.path.exists(self.root + self.resolve(path))

    def resolve(self, path: str, links: int = 0) -> str:
        """Return a path without symbolic links; absolute targets start at `root`.

        links: how many were taken on the way to it.
        """
        found = self._resolved.get(path)
        if found is not None:
            return found
        above, _, last = path.rpartition("/")
        done = self._resolved.get(above)
        if done is None:
            done = place = ""
            for part in above.split("/"):
                place = f"{place}/{part}"
                if place not in self._resolved:
                    self._resolved[place] = self._step(done, part, links)
                done = self._resolved[place]
        found = self._resolved[path] = self._step(done, last, links)
        return found

    def _step(self, done: str, name: str, links: int) -> str:
        """Return where a name leads in a directory without links."""
        done = done.rstrip("/")
        if name in ("", "."):
            return done or "/"
        if name == "..":
            return done.rpartition("/")[0] or "/"
        here = f"{done}/{name}"
        try:
            target = os.readlink(self.root + here)
        except OSError:
            return here
        if links >= MOST_LINKS:
            raise ConfigError(here, "too many symbolic links")
        while target.startswith("../"):  # sysfs is full of them
            done, target = done.rpartition("/")[0], target[3:]
        return self.resolve(target if target.startswith("/") else f"{done}/{target}", links + 1)

    def major(self, *names: str) -> int | None:
        """Return the number of the first of these character drivers in /proc/devices, or None."""
        if self._majors is None:
            self._majors = {}
            characters = (self.text("/proc/devices") or "").partition("Block devices:")[0]
            for line in characters.splitlines():
                number, _, name = line.strip().partition(" ")
                if number.isdecimal():
                    self._majors.setdefault(name.strip(), int(number))
        return next((self._majors[name] for name in names if name in self._majors), None)

    def node(self, path: str) -> Node | None:
        """Return the device node at a path, or None when there is none."""
        try:
            seen = self.lstat(self.dev_root + path)
        except ABSENT:
            return None
        except OSError as error:
            raise KernelError(error.errno or 0, path) from error
        kind = TYPES.get(seen.st_mode & S_IFMT)
        if kind not in ("b", "c"):
            return None
        return Node(
            path,
            os.major(seen.st_rdev),
            os.minor(seen.st_rdev),
            mode=seen.st_mode & 0o7777,
            uid=seen.st_uid,
            gid=seen.st_gid,
            kind=kind,
            there=True,
            source=self.dev_root and self.dev_root + path,
        )

    def pci(self, address: str) -> Pci | None:
        """Return the PCI function at an address (domain of 4 or 8 digits), or None."""
        address = pci_address(address)
        path = self.resolve(f"/sys/bus/pci/devices/{address}")
        return Pci(self, address, path) if os.path.isdir(self.root + path) else None

    def pcis(self) -> list[Pci]:
        """Return all PCI functions by ascending address."""
        found = (self.pci(name) for name in self.names("/sys/bus/pci/devices"))
        return [one for one in found if one is not None]


def pci_address(text: str) -> str:
    """Return a PCI address as sysfs writes it: lower case, a domain of at least 4 digits.

    NVIDIA's tools write the domain with 8 digits, its procfs with 4 or 8.
    """
    domain, _, rest = text.lower().partition(":")
    return f"{domain.lstrip('0').rjust(4, '0')}:{rest}"
