"""Which CPUs each rank of a job gets: `--bind thread`, `core`, `socket` or `numa`.

    thread   a hardware thread      } for a rank alone
    core     a core, all threads    }
    socket   a processor            } shared by neighbouring ranks, as evenly as can be
    numa     a NUMA node            }

Only CPUs that this process may use itself are given, so a job of Slurm's stays in its allocation.
What the machine looks like is read from sysfs below `root`.

Documentation/admin-guide/cputopology.rst; sched_setaffinity(2).
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.cgroup.files import read
from ocirt.cgroup.stats import numbers
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("thread", "core", "socket", "numa")
ALONE = ("thread", "core")

CPU = "sys/devices/system/cpu/cpu{}/topology/{}"
NODES = "sys/devices/system/node"


def allowed(cpus: str = "") -> list[int]:
    """Return the CPUs that this process may use; of these only `cpus`, where a config says so."""
    own = os.sched_getaffinity(0)
    return sorted(own & set(numbers(cpus)) if cpus else own)


def units(kind: str, cpus: Iterable[int], root: str = "/") -> list[list[int]]:
    """Group CPUs into units of a kind, in the machine's order: nodes, then cores.

    A CPU that sysfs says nothing of is a unit of its own.
    """
    nodes = _nodes(root)
    found: dict[tuple[object, ...], list[int]] = {}
    for cpu in sorted(cpus):
        node = nodes.get(cpu, 0)
        place: tuple[object, ...] = (node,)
        if kind == "socket":
            place = (_text(root, cpu, "physical_package_id"),)
        elif kind == "core":
            place = (node, _first(_text(root, cpu, "core_cpus_list"), cpu))
        elif kind == "thread":
            # Both threads of a core next to each other.
            place = (node, _first(_text(root, cpu, "core_cpus_list"), cpu), cpu)
        found.setdefault(place, []).append(cpu)
    ordered = sorted(found) if kind != "socket" else found
    return [found[place] for place in ordered]


def _nodes(root: str) -> dict[int, int]:
    """Return {CPU: NUMA node}; empty where the kernel knows none."""
    folder = os.path.join(root, NODES)
    try:
        names = [name for name in os.listdir(folder) if name[:4] == "node" and name[4:].isdigit()]
    except OSError:
        return {}
    return {
        cpu: int(name[4:]) for name in names for cpu in numbers(read(f"{folder}/{name}/cpulist"))
    }


def _text(root: str, cpu: int, name: str) -> str:
    text = read(os.path.join(root, CPU.format(cpu, name))).strip()
    # So it is called before Linux 5.3.
    if not text and name == "core_cpus_list":
        return _text(root, cpu, "thread_siblings_list")
    return text


def _first(text: str, cpu: int) -> int:
    return min(numbers(text), default=cpu)


def bind(kind: str, ranks: int, each: int, cpus: list[int], root: str = "/") -> list[list[int]]:
    """Return the CPUs of each rank.

    each: how many units a rank gets, of those that it has alone.  An Error says when there are
    not enough.
    """
    if kind not in KINDS:
        raise Error(f"--bind: {kind}: not {', '.join(KINDS)} or none")
    if kind not in ALONE and each != 1:
        raise Error(f"--cpus-per-rank: goes with --bind {' or '.join(ALONE)} only")
    there = units(kind, cpus, root)
    if kind in ALONE:
        if ranks * each > len(there):
            of = f"{each} {kind}s" if each > 1 else f"a {kind}"
            raise Error(f"--bind {kind}: {ranks} ranks with {of} each, and there are {len(there)}")
        groups = [there[rank * each : (rank + 1) * each] for rank in range(ranks)]
        return [sorted(cpu for unit in group for cpu in unit) for group in groups]
    if ranks > len(cpus):
        raise Error(f"--bind {kind}: {ranks} ranks, and there are {len(cpus)} CPUs")
    return [there[rank * len(there) // ranks] for rank in range(ranks)]


def word(cpus: Iterable[int]) -> str:
    """Write CPUs as the kernel does: `0-3,7`."""
    spans: list[list[int]] = []
    for cpu in sorted(cpus):
        if spans and spans[-1][1] == cpu - 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join([f"{low}-{high}" if high > low else f"{low}" for low, high in spans])
