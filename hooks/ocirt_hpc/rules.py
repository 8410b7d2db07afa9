"""What a CDI file may say: the rules that each file is held to, and those for names.

Types and names of fields come from the models (`_generated_shape.py`); what the tables do not say
is here, and a test holds both to the same verdicts as `oci_spec.cdi`.  Stricter than for a
config: an unknown field is an error, and so is one that the declared version does not have yet.

CDI specification 1.1.0, SPEC.md; for annotations, Kubernetes.
"""

from __future__ import annotations

from ocirt import shape
from ocirt.errors import At, ConfigError
from ocirt_hpc._generated_shape import SPEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

LARGEST_ANNOTATIONS = 256 << 10  # bytes, keys and values together
LARGEST_CLOS_ID = 4096


def split(name: str) -> tuple[str, str]:
    """Return kind and device of a qualified name; ConfigError when it is none."""
    kind, equals, device = name.partition("=")
    if not equals or not is_kind(kind) or not is_device(device):
        raise ConfigError(f'"{name}" is not a CDI device name (vendor/class=name)')
    return kind, device


def is_kind(kind: str) -> bool:
    """Whether this is vendor/class: each a letter, then letters, digits, _ - . and no sign last."""
    vendor, _, name = kind.partition("/")
    return all(part[:1].isalpha() and _is_word(part, "_-.") for part in (vendor, name))


def is_device(name: str) -> bool:
    """Whether a device may have this name: as a class, but also : in it and a digit first."""
    return name[:1].isalnum() and _is_word(name, "_-.:")


def _is_word(text: str, signs: str) -> bool:
    if not text.isascii() or not text[-1:].isalnum():
        return False
    return all(letter.isalnum() or letter in signs for letter in text)


def check(document: Any) -> None:
    """Raise ConfigError for the first fault of a CDI file, with its place."""
    newer = document.__class__ is dict and _is_newer(document.get("cdiVersion"))
    if not newer:
        _refuse_unknown(document, SPEC, "")
    shape.check(document, SPEC)
    if not is_kind(document["kind"]):
        raise ConfigError("kind", f'invalid vendor/class "{document["kind"]}"')
    version = document["cdiVersion"].removeprefix("v")
    if not newer and version not in VERSIONS:
        raise ConfigError("cdiVersion", f'invalid version "{document["cdiVersion"]}"')
    if not document["devices"]:
        raise ConfigError("devices", "is empty")
    with At("annotations"):
        _check_annotations(document.get("annotations") or {})
    names = set()
    for index, device in enumerate(document["devices"]):
        place = f"devices[{index}]"
        if not is_device(device["name"]):
            raise ConfigError(f"{place}.name", f'invalid device name "{device["name"]}"')
        if device["name"] in names:
            raise ConfigError(f"{place}.name", f'device "{device["name"]}" is given twice')
        names.add(device["name"])
        with At(f"{place}.annotations"):
            _check_annotations(device.get("annotations") or {})
        edits = device["containerEdits"]
        if "intelRdt" not in edits and not any(edits.get(kind) for kind in LISTS):
            raise ConfigError(f"{place}.containerEdits", "empty device edits")
    if not newer:
        for place, least in _needs(document):
            if VERSIONS.index(least) > VERSIONS.index(version):
                raise ConfigError(place, f"needs cdiVersion {least} or later, not {version}")
    for place, edits in _edits(document):
        for kind, checker in CHECKERS.items():
            for index, item in enumerate(edits.get(kind) or ()):
                checker(item, f"{place}.{kind}[{index}]")
        with At(f"{place}.netDevices"):
            _check_net_names(edits.get("netDevices") or [])
        clos = (edits.get("intelRdt") or {}).get("closID", "")
        if clos != "/" and (
            len(clos) >= LARGEST_CLOS_ID or clos in (".", "..") or "/" in clos or "\n" in clos
        ):
            raise ConfigError(f"{place}.intelRdt.closID", f'invalid closID "{clos}"')


LISTS = ("env", "deviceNodes", "netDevices", "hooks", "mounts", "additionalGids")


def _edits(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every containerEdits with its place."""
    yield "containerEdits", document.get("containerEdits") or {}
    for index, device in enumerate(document["devices"]):
        yield f"devices[{index}].containerEdits", device["containerEdits"]


def _refuse_unknown(value: Any, detail: Any, place: str) -> None:
    """Refuse a field that the tables do not have; what has the wrong type is not looked into."""
    if value.__class__ is list and detail[0] is dict:
        for index, item in enumerate(value):
            _refuse_unknown(item, detail[2], f"{place}[{index}]")
    elif value.__class__ is dict and detail[0].__class__ is dict:
        for name, item in value.items():
            where = f"{place}.{name}".removeprefix(".")
            rule = detail[0].get(name)
            if rule is None:
                raise ConfigError(where, "unknown field")
            if rule[2] is not None:
                _refuse_unknown(item, rule[2], where)


def _is_newer(version: Any) -> bool:
    """Whether this is a released version that came after the last one we know."""
    if version.__class__ is not str:
        return False
    parts = version.removeprefix("v").split(".")
    if len(parts) != 3 or not all(
        part.isascii() and part.isdigit() and len(part) < 7 for part in parts
    ):
        return False
    return [int(part) for part in parts] > [int(part) for part in VERSIONS[-1].split(".")]


def _needs(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (place, version that brought it) of what the earliest version does not have."""
    if document.get("annotations"):
        yield "annotations", "0.6.0"
    if "." in document["kind"].partition("/")[2]:
        yield "kind", "0.6.0"
    for index, device in enumerate(document["devices"]):
        if device.get("annotations"):
            yield f"devices[{index}].annotations", "0.6.0"
        if device["name"][0].isdigit():
            yield f"devices[{index}].name", "0.5.0"
    for place, edits in _edits(document):
        if edits.get("netDevices"):
            yield f"{place}.netDevices", "1.1.0"
        if edits.get("additionalGids"):
            yield f"{place}.additionalGids", "0.7.0"
        if "intelRdt" in edits:
            rdt = edits["intelRdt"]
            late = "schemata" in rdt or rdt.get("enableMonitoring")
            yield f"{place}.intelRdt", "1.1.0" if late else "0.7.0"
        for index, node in enumerate(edits.get("deviceNodes") or ()):
            if node.get("hostPath"):
                yield f"{place}.deviceNodes[{index}].hostPath", "0.5.0"
        for index, mount in enumerate(edits.get("mounts") or ()):
            if mount.get("type"):
                yield f"{place}.mounts[{index}].type", "0.4.0"


def _check_env(item: str, place: str) -> None:
    if item.find("=") < 1:
        raise ConfigError(place, f'invalid environment variable "{item}"')


def _check_node(node: dict[str, Any], place: str) -> None:
    _refuse_empty(node, place, "path")
    access = node.get("permissions", "")
    if access != "none" and access.strip("rwm"):
        raise ConfigError(f"{place}.permissions", f'invalid permissions "{access}"')


def _check_net_device(device: dict[str, Any], place: str) -> None:
    _refuse_empty(device, place, "hostInterfaceName", "name")


def _check_hook(hook: dict[str, Any], place: str) -> None:
    _refuse_empty(hook, place, "path")
    for index, item in enumerate(hook.get("env") or ()):
        _check_env(item, f"{place}.env[{index}]")


def _check_mount(mount: dict[str, Any], place: str) -> None:
    _refuse_empty(mount, place, "hostPath", "containerPath")


CHECKERS: dict[str, Callable[[Any, str], None]] = {
    "env": _check_env,
    "deviceNodes": _check_node,
    "netDevices": _check_net_device,
    "hooks": _check_hook,
    "mounts": _check_mount,
}


def _refuse_empty(held: dict[str, Any], place: str, *fields: str) -> None:
    for field in fields:
        if not held[field]:
            raise ConfigError(f"{place}.{field}", "is empty")


def _check_net_names(devices: list[dict[str, Any]]) -> None:
    for field in ("hostInterfaceName", "name"):
        names = [device[field] for device in devices]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f'network device "{name}" is given twice')


def _check_annotations(annotations: dict[str, str]) -> None:
    """Refuse keys and sizes that Kubernetes would refuse: an optional DNS prefix, a short name."""
    for key in annotations:
        prefix, slash, name = key.rpartition("/")
        good = len(name) <= 63 and name[:1].isalnum() and _is_word(name, "_-.")
        if good and slash:
            parts = prefix.lower().split(".")
            good = len(prefix) <= 253 and all(
                part[:1].isalnum() and _is_word(part, "-") for part in parts
            )
        if not good:
            raise ConfigError(f'"{key}" is not an annotation key')
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > LARGEST_ANNOTATIONS:
        raise ConfigError(f"larger than {LARGEST_ANNOTATIONS} bytes")
