"""The systemd unit of a container: its name, its slice, where its cgroup is.

`linux.cgroupsPath` is SLICE:PREFIX:NAME; the unit is the scope PREFIX-NAME.scope in that slice.
A slice tells by its name where it is: a-b.slice lies in a.slice.

systemd.unit(5), "Description"; systemd.slice(5); runtime-spec, config-linux.md, "Cgroups Path".
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "ocirt"
SLICE, USER_SLICE = "system.slice", "user.slice"  # where nothing else is asked for
ANNOTATION = "org.systemd.property."

_LETTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@"
)  # systemd.unit(5)
_LONGEST = 255


def parse(cgroups_path: str, container_id: str, *, user: bool) -> tuple[str, str]:
    """Return (slice, name of the scope) for linux.cgroupsPath, "" for none."""
    given, prefix, name = "", PREFIX, container_id
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise ConfigError(
                'expected cgroupsPath to be of format "slice:prefix:name" '
                f'for systemd cgroups, got "{cgroups_path}" instead'
            )
        given, prefix, name = parts
    with At("linux.cgroupsPath"):
        if name.endswith(".slice"):
            raise ConfigError(f"{name} is a slice, which holds units: a container needs a scope")
        unit = (f"{prefix}-{name}" if prefix else name) + ".scope"
        if not name or not _LETTERS.issuperset(unit) or len(unit) > _LONGEST:
            raise ConfigError(f"{unit!r} is no name of a systemd unit")
        parent = given or (USER_SLICE if user else SLICE)
        expand(parent)
    return parent, unit


def expand(name: str) -> str:
    """Return the path of a slice below its manager's cgroup: a-b.slice is /a.slice/a-b.slice."""
    stem = name.removesuffix(".slice")
    if stem == "-" and name == "-.slice":
        return ""
    if stem == name or not _LETTERS.issuperset(name) or len(name) > _LONGEST:
        raise ConfigError(f"invalid slice name: {name}")
    path, so_far = "", ""
    for part in stem.split("-"):
        if not part:
            raise ConfigError(f"invalid slice name: {name}")
        path += f"/{so_far}{part}.slice"
        so_far += part + "-"
    return path


def annotated(annotations: dict[str, str]) -> list[tuple[str, tuple[str, Any]]]:
    """Return the properties that annotations org.systemd.property.NAME ask for.

    Their values are in the text form of GVariant.  As in unit files, a name may end in Sec, with
    a number of seconds, where the property proper ends in USec.
    """
    found = []
    for key, text in annotations.items():
        name = key.removeprefix(ANNOTATION)
        if name == key:
            continue
        with At(f"annotations.{key}"):
            if len(name) < 3 or not (name.isascii() and name.isalpha()):
                raise ConfigError(f"{name!r} is no name of a property")
            from ocirt.cgroup import gvariant

            kind, value = gvariant.parse(text)
            stem = name.removesuffix("Sec")
            if stem != name and stem[-1:].islower():
                name = stem + "USec"
                if kind not in (*gvariant.RANGES, "d") or not 0 <= value * 1000000 < 1 << 64:
                    raise ConfigError(f"{text} is no number of seconds")
                kind, value = "t", int(value * 1000000)
        found.append((name, (kind, value)))
    return found
