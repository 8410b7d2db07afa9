"""What the control files say of a container's use of the machine, as `ocirt events` prints it.

The shape is that of runc's `events --stats`, which monitoring tools read: bytes and nanoseconds,
the same keys for v1 and v2.  What a kernel does not count is 0 or left out.  `stats_v1.py` and
`stats_v2.py` know the files; here is what both need.

Kernel side: Documentation/admin-guide/cgroup-v1/, cgroup-v2.rst, Documentation/accounting/psi.rst
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.cgroup.files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroup.fs import Manager

UNLIMITED = (1 << 64) - 1  # how a limit of "max" is spelt, but for pids

CPUSET_FLAGS = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
    "memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def gather(manager: Manager) -> dict[str, Any]:
    """Return the figures of this moment."""
    files = Files(manager)
    if manager.version == 2:
        from ocirt.cgroup import stats_v2

        return stats_v2.gather(files)
    from ocirt.cgroup import stats_v1

    return stats_v1.gather(files)


class Files:
    """The control files of one container, by name; one that is missing reads as nothing."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def text(self, name: str) -> str:
        """Return what a file holds."""
        path = self._manager.path_of(name)
        try:
            return read(path) if path else ""
        except OSError:  # kept from us; io.pressure says so where PSI is switched off
            return ""

    def number(self, name: str, unlimited: int = UNLIMITED) -> int:
        """Return the number that a file holds; 0 where there is none."""
        return whole(self.text(name).strip(), unlimited)

    def table(self, name: str) -> dict[str, int]:
        """Return a file of lines `key value`."""
        return {row[0]: whole(row[1]) for row in self.rows(name) if len(row) == 2}

    def rows(self, name: str) -> list[list[str]]:
        """Return the words of each line."""
        return [line.split() for line in self.text(name).splitlines()]

    def page_sizes(self) -> list[str]:
        """Return the sizes of huge pages that are counted, `2MB`."""
        path = self._manager.path_of("hugetlb.x")
        try:
            names = os.listdir(path.rpartition("/")[0]) if path else []
        except OSError:
            names = []
        return sorted({name.split(".")[1] for name in names if name.startswith("hugetlb.")})


def whole(word: str, unlimited: int = UNLIMITED) -> int:
    """Read one number; `max` is `unlimited`, anything else 0."""
    if word == "max":
        return unlimited
    return int(word) if word.removeprefix("-").isdecimal() else 0


def numbers(text: str) -> list[int]:
    """Return what a list such as `0-3,7` stands for."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return found


def pressure(files: Files, name: str) -> dict[str, Any] | None:
    """Return the stall times of a resource, None where the kernel does not measure them."""
    found: dict[str, Any] = {}
    for kind, *pairs in files.rows(name):
        values = dict(pair.split("=", 1) for pair in pairs)
        found[kind] = {
            key: int(value) if key == "total" else float(value) for key, value in values.items()
        }
    return found or None


def with_pressure(section: dict[str, Any], files: Files, name: str) -> dict[str, Any]:
    """Add the key `psi` to a section where there is something to add."""
    found = pressure(files, name)
    return {**section, "psi": found} if found else section


def counter(device: str, operation: str, value: int) -> dict[str, Any]:
    """Return one line of a block device's counters."""
    major, _, minor = device.partition(":")
    entry = {"major": int(major), "minor": int(minor), "op": operation, "value": value}
    return entry if operation else {key: entry[key] for key in entry if key != "op"}
