"""Our own parts: the interpreter that runs, the init, and programs that some verbs call."""

from __future__ import annotations

import sys

import ocirt
from ocirt import system as os
from ocirt.criu import check, swrk
from ocirt.doctor.machine import INFO, LACKS, OK, needed
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt.doctor.machine import Finding, Machine

INIT = os.path.join(ocirt.__path__[0], "init", "ocirt-init")


def own(machine: Machine) -> Iterator[Finding]:
    """What every container needs of us."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield needed("python", sys.version_info >= (3, 11), f"{version}, {sys.executable}", "")
    value, good = init_facts(INIT)
    yield needed("init", good, value, "build it: make init, or install the package again")
    yield embedded(ocirt.__path__[0])


def embedded(package: str) -> Finding:
    """Whether the program that starts less of the interpreter is there, and our modules in it.

    In a source tree it takes a module from itself while the file is as old as it was; what an
    installer puts in place has any time.
    """
    name = f"ocirt-python{sys.version.split()[0]}"
    tree = os.path.dirname(package)
    source = os.path.exists(os.path.join(tree, "packaging", "embed.c"))
    advice = "make launcher" if source else "install the package again beside libpython3-dev"
    try:
        built = os.stat(os.path.join(package, name)).st_mtime
    except OSError:
        return "embedded", INFO, f"no {name}: create and run start slower", advice
    places = (package, os.path.join(tree, "hooks", "ocirt_hpc")) if source else ()
    later = [
        file
        for place in places
        for folder, _, files in os.walk(place)
        for file in files
        if file.endswith(".py") and os.stat(os.path.join(folder, file)).st_mtime > built
    ]
    if later:
        return "embedded", INFO, f"{len(later)} modules are younger: they start slower", advice
    return "embedded", OK, name, ""


def criu(machine: Machine) -> Iterator[Finding]:
    """What `checkpoint` and `restore` call, and whether it works with this kernel."""
    path = machine.site.program("criu")
    if machine.here:
        try:
            path = swrk.find("criu")
        except Error:
            path = ""
    if not path:
        yield "criu", INFO, "not found; checkpoint and restore need it", ""
        return
    if not machine.here:
        yield "criu", INFO, path, ""
        return
    version, reason = check.look(path)
    value = f"{version}, {path}"
    if machine.uid and not reason:
        yield "criu", INFO, f"{value}; it needs root", ""
    elif reason:
        advice = "a later CRIU may know this kernel: install one, or name it with --criu"
        yield "criu", LACKS, f"{value}: {reason}", advice
    else:
        yield "criu", OK, value, ""


def init_facts(path: str) -> tuple[str, bool]:
    """Return what the init's ELF header tells, and whether it can run from a memfd anywhere."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return f"{path}: {os.strerror(error.errno or 0)}", False
    if data[:6] != b"\x7fELF\x02\x01" or not os.access(path, os.X_OK):
        return f"{path}: not an executable of this kind of machine", False
    start, size = int.from_bytes(data[32:40], "little"), int.from_bytes(data[54:56], "little")
    count, interpreter = int.from_bytes(data[56:58], "little"), 3  # elf(5): PT_INTERP
    kinds = [int.from_bytes(data[start + size * index :][:4], "little") for index in range(count)]
    linked = "dynamic" if interpreter in kinds else "static"
    return f"{linked}, {len(data)} bytes", True
