"""Parts of hpc.toml that a site adds to containers: mounts, variables, nodes, limits.

A part is the top of a file, a [module.NAME] or a [profile.NAME].  `check` holds it to the tables
below when the file is read, so that a fault shows before anybody needs the part; `sections` turns
it into edits, each under the name of its place (`hpc.toml: module.cvmfs.mounts[0]`).

Mounts are nosuid and nodev unless they say suid or dev, and rslave unless they say otherwise:
what the host mounts below them later shows up inside, and nothing comes back.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError
from ocirt_hpc import edits, swap
from ocirt_hpc.choice import NO
from ocirt_hpc.limits import UNLIMITED, highest
from ocirt_hpc.request import NO_ENV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host, Node
    from ocirt_hpc.image import Image
    from ocirt_hpc.notes import Notes

MOUNT: dict[str, tuple[object, str]] = {
    # field          default  what it says
    "source":      ("",      "a path of the host"),
    "destination": ("",      "where it is in the container; the same path, when not given"),
    "options":     ([],      "as for mount(8); rbind, rslave, nosuid, nodev"),
    "if-exists":   (False,   "whether a host that lacks the source is no error"),
    "when":        ({},      "conditions, which all have to hold"),
}  # fmt: skip

WHEN: dict[str, tuple[object, str]] = {
    "env":         ("",      "NAME: a variable of any value but false, no, off, 0, none and void;"
                             " or NAME=VALUE"),
    "path":        ("",      "a path that the image has"),
    "profile":     ("",      "the profile that the container has asked for"),
    "device":      ("",      "a kind of devices that it gets: nvidia, rdma, amd, a CDI kind"),
}  # fmt: skip

DEVICE: dict[str, tuple[object, str]] = {
    "path":        ("",      "a node of the host, or a pattern of its last name"),
    "access":      ("rw",    "letters of r, w, m"),
    "optional":    (False,   "whether a host that lacks it is no error"),
}  # fmt: skip

# table of [env] -> kind of edit
ENV = {
    "set":     "env",
    "default": "envDefault",
    "prepend": "envPrepend",
    "append":  "envAppend",
}  # fmt: skip

# As the module `resource` has them: all but RLIMIT_LOCKS, which Linux does not look at.
LIMITS = (
    "as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip

# config-linux.md, "Namespaces"; mount and user namespaces keep a container a container.
NAMESPACES = ("cgroup", "ipc", "network", "pid", "uts")

PART: dict[str, tuple[object, str]] = {
    "mounts":  ([], "paths of the host"),
    "env":     ({}, "variables"),
    "devices": ([], "nodes of the host"),
    "limits":  ({}, "limits of the program"),
    "libraries": ({}, "libraries of the host for the image's"),
    "pmi":     (False, "whether a launcher's PMI and PMIx go in"),
}  # fmt: skip
MODULE: dict[str, tuple[object, str]] = {
    **PART,
    "requires":    ([],   "modules that come before it"),
    "conflicts":   ([],   "modules that it cannot be with"),
    "gpus":        ("",   "NVIDIA GPUs of a container that names none itself"),
    "trigger-env": ([],   "variables that ask for it, as policy.env-requests allows"),
}  # fmt: skip
PROFILE: dict[str, tuple[object, str]] = {
    **PART,
    "modules":         ([],   "modules that come with it"),
    "gpus":            ("",   "NVIDIA GPUs of a container that names none itself"),
    "host-namespaces": ([],   "namespaces that the container shares with the host"),
    "own-ids":         (False, "whether a user whose ids are all that a container maps keeps them"),
    "allowed":         (True, "whether an annotation may ask for it; False: only --hpc-profile"),
}  # fmt: skip

# What ranks of one job need of each other: shared memory, signals, the fabric's addresses.
PROFILES: dict[str, dict[str, Any]] = {
    "hpc-job": {
        "host-namespaces": list(NAMESPACES),
        "mounts": [{"source": "/dev/shm", "options": ["bind", "rw"], "if-exists": True}],
        "pmi": True,
        "own-ids": True,  # a server of PMIx knows its ranks by them
        "allowed": False,
    }
}

PROPAGATION = {"private", "rprivate", "slave", "rslave"}
REFUSED = {"shared", "rshared", "unbindable", "runbindable", "remount", "move"}


class Part:
    """What one place of hpc.toml adds.

    where: what stands before the names of its parts, such as `hpc.toml: ` or
    `hpc.toml: module.cvmfs.`.
    """

    def __init__(self, where: str, row: dict[str, Any]) -> None:
        self.where = where
        self.row = row

    def get(self, name: str) -> Any:
        """Return one field, or nothing of its kind."""
        return self.row.get(name, {**MODULE, **PROFILE}[name][0])


# --- holding a part to the tables


def check(row: dict[str, Any], known: dict[str, tuple[object, str]], where: str = "") -> None:
    """Refuse what a part says and cannot mean; ConfigError names the place below `where`."""
    settings(row, {name: known[name][0] for name in sorted(known)}, where, ("mounts", "devices"))
    for name, fields in (("mounts", MOUNT), ("devices", DEVICE)):
        for index, item in enumerate(row.get(name, ())):
            place = f"{where}{name}[{index}]"
            settings(item, {field: default for field, (default, _) in fields.items()}, f"{place}.")
            (_mount if name == "mounts" else _device)(item, place)
    _env(row.get("env", {}), f"{where}env")
    _libraries(row.get("libraries", {}), f"{where}libraries")
    for name, value in row.get("limits", {}).items():
        with At(f"{where}limits.{name}"):
            limit(name, value)
    for name in row.get("host-namespaces", ()):
        if name not in NAMESPACES:
            raise ConfigError(
                f"{where}host-namespaces", f'"{name}" is none of {", ".join(NAMESPACES)}'
            )


def settings(
    row: dict[str, Any], known: dict[str, object], where: str, tables: tuple[str, ...] = ()
) -> None:
    """Refuse a setting that is not known, or not of the type of its default.

    known: defaults by name, in the order in which a message tells them.  where: what stands before
    the name of a setting.  tables: those that are lists of tables, not of strings.
    """
    for name, value in row.items():
        with At(f"{where}{name}"):
            if name not in known:
                raise ConfigError(f"unknown setting (have {', '.join(known)})")
            fit(value, known[name], tables=name in tables)


def fit(value: object, default: object, *, tables: bool = False) -> None:
    """Hold a value to the type of the default."""
    words = {
        bool: "true or false",
        str: "a string",
        int: "an integer",
        list: "tables" if tables else "a list of strings",
        dict: "a table",
    }
    wanted, item = type(default), dict if tables else str
    fits = type(value) is wanted and (
        not isinstance(value, list) or all(isinstance(one, item) for one in value)
    )
    if not fits:
        raise ConfigError(f"expected {words[wanted]}")


def path(value: str) -> None:
    """Refuse what is no plain absolute path."""
    if not value.startswith("/"):
        raise ConfigError(f'"{value}" is not absolute')
    if ".." in value.split("/"):
        raise ConfigError(f'"{value}" holds ".."')
    if any(ord(letter) < 32 for letter in value):
        raise ConfigError(f"{value!r} holds a control character")


def _mount(item: dict[str, Any], where: str) -> None:
    with At(f"{where}.source"):
        path(item.get("source", ""))
    with At(f"{where}.destination"):
        to = item.get("destination") or item["source"]
        path(to)
        if os.path.normpath(to).strip("/") == "":
            raise ConfigError("the container's root is not to be covered")
    for option in item.get("options", ()):
        if option in REFUSED:
            raise ConfigError(
                f"{where}.options", f'"{option}" would let the container change the host\'s mounts'
            )
    when = item.get("when")
    if when is not None:
        _when(when, f"{where}.when")


def _when(when: dict[str, Any], where: str) -> None:
    settings(when, {field: default for field, (default, _) in WHEN.items()}, f"{where}.")
    for field, value in when.items():
        with At(f"{where}.{field}"):
            if not value.partition("=")[0]:
                raise ConfigError("names nothing")
            if field == "path":
                path(value)
    if not when:
        raise ConfigError(where, f"has no condition (have {', '.join(WHEN)})")


def _device(item: dict[str, Any], where: str) -> None:
    with At(f"{where}.path"):
        path(item.get("path", ""))
        if not item["path"].startswith("/dev/"):
            raise ConfigError(f'"{item["path"]}" is not below /dev')
        if set("*?[") & set(os.path.dirname(item["path"])):
            raise ConfigError(f'"{item["path"]}": only the last name can be a pattern')
    access = item.get("access", "rw")
    if not access or set(access) - set("rwm") or len(set(access)) < len(access):
        raise ConfigError(f"{where}.access", f'"{access}" is not made of r, w, m')


def _libraries(held: dict[str, Any], where: str) -> None:
    for field, value in held.items():
        with At(f"{where}.{field}"):
            if field not in swap.FIELDS:
                raise ConfigError(f"unknown setting (have {', '.join(swap.FIELDS)})")
            fit(value, swap.FIELDS[field][0])
            for one in value if field != "compatibility" else ():
                path(one)
            if field == "compatibility" and value not in swap.COMPATIBILITY:
                raise ConfigError(f'"{value}" is none of {", ".join(swap.COMPATIBILITY)}')


def _env(held: dict[str, Any], where: str) -> None:
    settings(held, {**{table: {} for table in ENV}, "unset": []}, f"{where}.")
    for table, values in held.items():
        for name in values:
            if not name or "=" in name or "\0" in name:
                raise ConfigError(f"{where}.{table}", f"{name!r} is no name of a variable")
            if table != "unset":
                with At(f"{where}.{table}.{name}"):
                    fit(values[name], "")
                    if "\0" in values[name]:
                        raise ConfigError("holds a null byte")


def limit(name: str, value: object) -> dict[str, Any]:
    """Return a limit of the program: unlimited, a number, or "SOFT:HARD" of these."""
    if name not in LIMITS:
        raise ConfigError(f"unknown limit (have {', '.join(LIMITS)})")
    words = str(value).split(":") if type(value) in (int, str) else []
    numbers = [
        UNLIMITED if word == "unlimited" else int(word)
        for word in words
        if word == "unlimited" or (word.isascii() and word.isdecimal() and len(word) <= 20)
    ]
    if len(numbers) != len(words) or len(numbers) not in (1, 2) or max(numbers) > UNLIMITED:
        raise ConfigError('expected a number, "unlimited" or "SOFT:HARD" of these')
    soft, hard = numbers[0], numbers[-1]
    if soft > hard:
        raise ConfigError("the soft limit is above the hard one")
    return {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}


# --- edits


def sections(part: Part, host: Host, notes: Notes) -> list[Section]:
    """Return the edits of a part; ConfigError when the host lacks what is not optional."""
    made: list[Section] = []
    if part.get("host-namespaces"):
        where = edits.Place(f"{part.where}host-namespaces")
        made.append((where, {"dropNamespaces": part.get("host-namespaces")}))
    for index, item in enumerate(part.get("mounts")):
        if not item.get("when"):
            made += _mounted(edits.Place(f"{part.where}mounts[{index}]"), item, host, notes)
    for table, values in part.get("env").items():
        for name in values:
            where = edits.Place(f"{part.where}env.{table}.{name}")
            if table == "unset":
                made.append((where, {"envUnset": [name]}))
            else:
                made.append((where, {ENV[table]: [f"{name}={values[name]}"]}))
    for index, item in enumerate(part.get("devices")):
        where = edits.Place(f"{part.where}devices[{index}]")
        found = nodes(host, item["path"])
        if found:
            section = edits.node_edits(found)
            for node in section["deviceNodes"]:
                node["permissions"] = item.get("access", "rw")
            made.append((where, section))
        elif item.get("optional"):
            notes.skip(where, f"this host has no {item['path']}")
        else:
            raise ConfigError(where, f"this host has no device {item['path']}")
    for name, value in part.get("limits").items():
        where = edits.Place(f"{part.where}limits.{name}")
        wanted, most = limit(name, value), highest(name)
        if wanted["hard"] > most:
            notes.skip(where, f"what is above {most}, our own hard limit")
        for end in ("soft", "hard"):
            wanted[end] = min(wanted[end], most)
        made.append((where, {"rlimits": [wanted]}))
    return made


class Facts:
    """What conditions are about: one container.

    env: its variables, or None where none may decide.  profile: the one it has asked for, or "".
    devices: the kinds of those that it gets.
    """

    def __init__(
        self, env: dict[str, str] | None, image: Image, profile: str, devices: Collection[str]
    ) -> None:
        self.env = env
        self.image = image
        self.profile = profile
        self.devices = devices

    def against(self, when: dict[str, str]) -> str:
        """Return why the conditions do not hold, or "" where they do."""
        for field, wanted in when.items():
            if field == "env":
                name, equals, value = wanted.partition("=")
                if self.env is None:
                    return NO_ENV
                held = self.env.get(name, "")
                if equals and held != value:
                    return f"{name} is not {value}"
                if not equals and held.strip().lower() in NO:
                    return f"{name} is not set"
            elif field == "path" and not self.image.has(wanted):
                return f"the image has no {wanted}"
            elif field == "profile" and wanted != self.profile:
                return f"the profile is {self.profile or 'none'}"
            elif field == "device" and wanted not in self.devices:
                return f"the container gets no device of the kind {wanted}"
        return ""


def conditional(part: Part, host: Host, notes: Notes, facts: Facts) -> list[Section]:
    """Return the edits of the mounts of a part whose conditions hold, as `sections` does."""
    made: list[Section] = []
    for index, item in enumerate(part.get("mounts")):
        if item.get("when"):
            where = edits.Place(f"{part.where}mounts[{index}]")
            why = facts.against(item["when"])
            if why:
                notes.skip(where, f"{item['source']}: {why}")
            else:
                made += _mounted(where, item, host, notes)
    return made


def _mounted(where: edits.Place, item: dict[str, Any], host: Host, notes: Notes) -> list[Section]:
    if host.there(item["source"]):
        return [(where, {"mounts": [bind(host, item)]})]
    if not item.get("if-exists"):
        raise ConfigError(where, f"this host has no {item['source']}")
    notes.skip(where, f"this host has no {item['source']}")
    return []


def bind(host: Host, item: dict[str, Any]) -> dict[str, Any]:
    """Return the edit that mounts a path of the host."""
    options = list(item.get("options") or ["rbind"])
    options[:0] = [] if {"bind", "rbind"} & set(options) else ["rbind"]
    options += [] if PROPAGATION & set(options) else ["rslave"]
    for option, contrary in (("nosuid", "suid"), ("nodev", "dev")):
        if not {option, contrary} & set(options):
            options.append(option)
    return {
        "containerPath": item.get("destination") or item["source"],
        "hostPath": host.root + item["source"],
        "options": options,
    }


def nodes(host: Host, pattern: str) -> list[Node]:
    """Return the host's nodes at a path, or those whose last name fits the pattern there."""
    folder, _, last = pattern.rpartition("/")
    paths = [pattern]
    if set("*?[") & set(last):
        from fnmatch import fnmatchcase

        names = [name for name in host.dev_names(folder) if fnmatchcase(name, last)]
        paths = [f"{folder}/{name}" for name in names]
    return [node for node in map(host.node, paths) if node is not None]
