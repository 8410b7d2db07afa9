"""Find and read the files of the Container Device Interface, and look devices up in them.

A device is asked for as vendor/class=name.  Directories later in the list have precedence, so
what a driver wrote at boot into /var/run/cdi hides what an admin keeps in /etc/cdi; two files of
one directory that define the same device make it unusable.  A broken file disables only itself:
it is an error where the device might have come from it, and nowhere else.

What a file may say is in rules.py.

CDI specification 1.1.0, SPEC.md.
"""

from __future__ import annotations

from ocirt import jsonio, log
from ocirt import system as os
from ocirt.checks import Faults
from ocirt.errors import ConfigError, Error, KernelError
from ocirt_hpc import optional, rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")

MOST_VALUES = 1 << 18  # in a YAML file; its aliases can make much out of little

S_IFMT, S_IFREG = 0o170000, 0o100000


class File:
    """A CDI file: its kind and its devices by name, or, if it is broken, `fault`.

    Of a broken file kind and devices are what it seems to hold; kind None: nobody can tell.
    """

    def __init__(self, path: str, rank: int) -> None:
        self.path = path
        self.rank = rank
        self.kind: str | None = None
        self.devices: dict[str, dict[str, Any]] = {}
        self.edits: dict[str, Any] = {}
        self.fault: Error | None = None


class Found:
    """A requested device: its qualified name, its own edits, and the file that they are from."""

    def __init__(self, name: str, file: File) -> None:
        self.name = name
        self.file = file
        self.edits: dict[str, Any] = file.devices[name.partition("=")[2]]["containerEdits"]


# --- files


def read(directories: Iterable[str] = DIRECTORIES, root: str = "/") -> list[File]:
    """Return the CDI files of the directories, broken ones too, in the order of precedence."""
    files = []
    for rank, directory in enumerate(directories):
        inside = root.rstrip("/") + directory
        try:
            names = sorted(os.listdir(inside))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            file = File(directory, rank)
            file.fault = KernelError(error.errno or 0)
            files.append(file)
            continue
        files += [
            _file(os.path.join(inside, name), os.path.join(directory, name), rank)
            for name in names
            if name.endswith((".json", ".yaml"))
        ]
    return files


def _file(path: str, shown: str, rank: int) -> File:
    file = File(shown, rank)
    try:
        document = _parse(path)
        _claim(file, document)
        rules.check(document)
    except Error as error:
        if error.segments[0] == path:
            del error.segments[0]
        file.fault = error
    else:
        file.edits = document.get("containerEdits") or {}
    return file


def _claim(file: File, document: Any) -> None:
    """Note what a document holds, as far as one can tell before it is checked."""
    if document.__class__ is not dict or document.get("kind").__class__ is not str:
        return
    file.kind = document["kind"]
    devices = document.get("devices")
    for device in devices if devices.__class__ is list else ():
        if device.__class__ is dict and device.get("name").__class__ is str:
            file.devices[device["name"]] = device


def _parse(path: str) -> Any:
    try:
        if os.stat(path).st_mode & S_IFMT != S_IFREG:
            raise ConfigError("not a regular file")
    except OSError as error:
        raise KernelError(error.errno or 0) from error
    text = jsonio.read(path)
    # JSON is YAML, too, and most tools write it: no need for the big parser then.
    if path.endswith(".json"):
        document = jsonio.parse(text)
    else:
        try:
            document = jsonio.parse(text)
        except ConfigError:
            document = _yaml(text)
    if b"\\" in text and jsonio.find_text(document, _is_unspeakable) is not None:
        raise ConfigError("holds a NUL character or half of a surrogate pair")
    return document


def _is_unspeakable(text: str) -> bool:
    return any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text)


def _yaml(text: bytes) -> Any:
    if len(text) > jsonio.LARGEST:
        raise ConfigError(f"more than {jsonio.LARGEST >> 20} MiB of YAML")
    try:
        yaml = optional.load("yaml")
    except ImportError:
        raise ConfigError("is YAML, for which PyYAML has to be installed") from None
    try:
        document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        where = (f"line {mark.line + 1} column {mark.column + 1}",) if mark else ()
        raise ConfigError(*where, problem) from None
    _refuse_size(document)
    return document


def _refuse_size(document: Any) -> None:
    todo, seen = [document], 0
    while todo:
        held = todo.pop()
        seen += 1
        if seen + len(todo) > MOST_VALUES:
            raise ConfigError(f"holds more than {MOST_VALUES} values")
        if held.__class__ is list:
            todo += held
        elif held.__class__ is dict:
            if any(key.__class__ is not str for key in held):
                raise ConfigError("has a key that is not a string")
            todo += held.values()


# --- look-up


def find(
    names: Iterable[str], directories: Iterable[str] = DIRECTORIES, root: str = "/"
) -> list[Found]:
    """Return the devices of these qualified names; ConfigError names all that there are not."""
    return look_up(names, read(directories, root), directories)


def look_up(names: Iterable[str], files: list[File], directories: Iterable[str]) -> list[Found]:
    """Return the devices of these names in files that are read, for messages from where."""
    directories = tuple(directories)
    found: list[Found] = []
    faults: list[tuple[str, str]] = []
    for name in names:
        got = _find(name, files, directories)
        if isinstance(got, File):
            found.append(Found(name, got))
        else:
            faults += [fault for fault in got if fault not in faults]
    if len(faults) == 1:
        raise ConfigError(*faults[0])
    if faults:
        raise Faults(faults)
    kinds = {None, *(one.file.kind for one in found)}
    for file in files:
        if file.fault and file.kind in kinds:
            log.warning(f"CDI file left out: {file.path}: {file.fault}")
    return found


def _find(
    name: str, files: list[File], directories: tuple[str, ...]
) -> File | list[tuple[str, str]]:
    """Return the file that a device comes from, or why there is none: (place, sentence)s."""
    kind, device = rules.split(name)
    having = [file for file in files if file.kind == kind and device in file.devices]
    if having:
        rank = max(file.rank for file in having)
        first = [file for file in having if file.rank == rank]
        if broken := [file for file in first if file.fault]:
            return [(name, f"{file.path}: {file.fault}") for file in broken]
        if len(first) > 1:
            paths = " and ".join(file.path for file in first)
            return [(name, f"conflicting CDI devices in {paths}")]
        return first[0]
    whole = [file for file in files if not file.fault]
    have = sorted({one for file in whole if file.kind == kind for one in file.devices}, key=_order)
    if not have:
        have = sorted({f"{file.kind}={one}" for file in whole for one in file.devices}, key=_order)
    there = ", ".join(have) or f"none in {', '.join(directories)}"
    faults = [(name, f"no such CDI device (have {there})")]
    # It may have been meant to come from one of these.
    return faults + [
        (file.path, str(file.fault)) for file in files if file.fault and file.kind in (None, kind)
    ]


def _order(name: str) -> tuple[str, int, str]:
    """Sort 2 before 10, and numbers before words."""
    kind, _, device = name.rpartition("=")
    return kind, int(device) if device.isdecimal() and len(device) < 19 else 1 << 64, device
