"""Libraries of the host in place of the image's: an MPI or a libfabric that knows the machine.

    [module.mpich.libraries]
    replace = ["/opt/mpich/lib/libmpi.so.12"]     what the image has to have, too
    add = ["/opt/mpich/lib/libfabric.so.1"]       what nothing names as needed: plugins and so on
    compatibility = "major"                       or full, strict

The numbers in the name of a file, libmpi.so.12.3.4, say what it is compatible with: the first is
another for every break, the second grows with what is new.

    strict   first and second number are the image's
    full     the second is the image's or higher; a lower one goes in, with a warning
    major    the first is the image's

The host's file is seen in place of each that it replaces, for programs that know where theirs is,
and the loader's cache names it and what it needs before all others.  No file of the image changes.

Source: libtool manual, "Updating library version information"; MPICH ABI Compatibility Initiative.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc import loader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc import elf
    from ocirt_hpc.edits import Section
    from ocirt_hpc.hostlibs import Library, Shelf
    from ocirt_hpc.loader import Libraries
    from ocirt_hpc.notes import Notes
    from ocirt_hpc.tree import Tree

FIELDS: dict[str, tuple[object, str]] = {
    # field            default   what it says
    "replace":       ([],      "libraries of the host for those of the image"),
    "add":           ([],      "libraries of the host that nothing names"),
    "compatibility": ("major", "what has to be equal: major, full, strict"),
}  # fmt: skip
COMPATIBILITY = ("major", "full", "strict")

GOOD, PARTLY, BAD = range(3)


def sections(
    wish: dict[str, Any],
    origin: str,
    shelf: Shelf,
    tree: Tree,
    libraries: Libraries,
    notes: Notes,
) -> list[Section]:
    """Return the edits that replace libraries; ConfigError in one sentence when they do not fit."""
    how = wish.get("compatibility", FIELDS["compatibility"][0])
    replaced = [shelf.library(path) for path in wish.get("replace", ())]
    over: list[tuple[str, Library]] = []
    met = False
    for one in replaced:
        verdicts = [
            (compare(one, path, there, how), path) for path, there in _candidates(shelf, one)
        ]
        met = met or bool(verdicts)
        over += [(path, one) for verdict, path in verdicts if verdict == GOOD]
        partly = [path for verdict, path in verdicts if verdict == PARTLY]
        if verdicts and not partly and all(verdict == BAD for verdict, _ in verdicts):
            raise ConfigError(
                f"{one.source} of the host cannot replace {verdicts[0][1]} of the image: "
                + _why(one, shelf, verdicts[0][1], how)
            )
        for path in partly:
            notes.leave_out(
                origin, f"what {path} of the image has and the older {one.source} has not"
            )
    if replaced and not met:
        names = ", ".join(_stem(one.name)[0] for one in replaced)
        raise ConfigError(
            f"the image has no {names} to replace; if it has, its loader's cache does not say so"
        )
    found = shelf.with_needs([*wish.get("replace", ()), *wish.get("add", ())])
    edits, entries = shelf.give(found, tree)
    edits["mounts"] += [shelf.mount(one.source, path) for path, one in over]
    libraries.add(origin, entries, loader.folders(tree))
    return [(origin, edits)]


def _candidates(shelf: Shelf, one: Library) -> list[tuple[str, elf.Library]]:
    """Return (path without links, library) of what the image has under the same name."""
    stem = _stem(one.name)[0]
    found: dict[str, elf.Library] = {}
    flags = one.entry.flags if one.entry else None
    for name in shelf.names_in_image():
        if name != stem and not name.startswith(f"{stem}."):
            continue
        path = shelf.in_image(name, flags)
        real = shelf.image.resolve(path) if path else None
        there = shelf.of_image(real) if real else None
        if real and there and (there.machine, there.bits) == (one.elf.machine, one.elf.bits):
            found[real] = there
    return list(found.items())


def compare(one: Library, path: str, there: elf.Library, how: str) -> int:
    """Return how a library of the host fits one of the image: GOOD, PARTLY, BAD."""
    ours, theirs = _numbers(one.name), _numbers(os.path.basename(path))
    if ours[:1] != theirs[:1] or _open_mpi(one.elf) != _open_mpi(there):
        return BAD
    if how == "strict" and ours[:2] != theirs[:2]:
        return BAD
    if how == "full" and ours[1:2] < theirs[1:2]:
        return PARTLY
    return GOOD


def _why(one: Library, shelf: Shelf, path: str, how: str) -> str:
    there = shelf.of_image(path)
    if there is not None and _open_mpi(one.elf) != _open_mpi(there):
        return "one of the two is Open MPI, the other is not"
    count = 2 if how == "strict" else 1
    ours, theirs = _numbers(one.name)[:count], _numbers(os.path.basename(path))[:count]
    return f"its ABI is {'.'.join(map(str, ours))}, the image's {'.'.join(map(str, theirs))}"


def _open_mpi(library: elf.Library) -> bool:
    """Whether it is Open MPI, whose numbers mean something else (libmpi.so.12 of Open MPI 1.10)."""
    return library.mentions("ompi_mpi_comm_world")


def _stem(name: str) -> tuple[str, str]:
    stem, found, numbers = name.partition(".so")
    return stem + found, numbers.lstrip(".")


def _numbers(name: str) -> list[int]:
    """Return the numbers of libNAME.so.X.Y.Z; ConfigError when it has none to compare."""
    numbers = _stem(name)[1].split(".")
    if not all(part.isascii() and part.isdecimal() for part in numbers):
        raise ConfigError(f"{name} is not named libNAME.so.X.Y.Z, which would tell its ABI")
    return [int(part) for part in numbers]
