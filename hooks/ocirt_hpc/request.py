"""What is asked for, and by whom: the command line, annotations, the environment.

    --device vendor/class=name     a CDI device
    ocirt.hpc/gpus                 NVIDIA GPUs (annotation)
    ocirt.hpc/rdma                 RDMA devices (annotation)
    ocirt.hpc/hugepages            a file system of huge pages (annotation)
    NVIDIA_VISIBLE_DEVICES, ...    NVIDIA GPUs: nvidia/request.py
    OCIRT_RDMA_DEVICES, MELLANOX_VISIBLE_DEVICES, NVIDIA_MOFED    RDMA devices

Annotations come from whoever starts the container, the environment may come from its image: it
counts only where the site's policy says so.  For one kind of device the first source that says
anything decides, annotations before the environment.

Engines resolve CDI names themselves and leave the annotations (cdi.k8s.io/*) in the config, so
these count only where the site says so, and `edits.py` leaves out what is there already.

CDI specification, SPEC.md, "CDI Annotations": key cdi.k8s.io/WHATEVER, value a list of names.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc import rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ocirt_hpc.notes import Notes

CDI_PREFIX, PREFIX = "cdi.k8s.io/", "ocirt.hpc/"

# What comes after PREFIX, beside the names of kinds; `files` is what `ocirt hpc inject` leaves.
WORDS = (
    "cpuset", "enabled", "files", "gpus", "hugepages", "imex", "mig-management", "modules", "mps",
    "pmi", "profile", "rdma", "rdma-handles", "rdma-objects", "user",
)  # fmt: skip

GPUS, RDMA, HUGEPAGES = "ocirt.hpc/gpus", "ocirt.hpc/rdma", "ocirt.hpc/hugepages"

# By which containerd and CRI-O tell a pod's sandbox from its containers.
KINDS_OF_CONTAINER = ("io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType")

NO_ENV = "policy.env-requests is false on this host"

# Field of linux.resources.rdma -> annotation that limits it.
RDMA_LIMITS = {"hcaHandles": "ocirt.hpc/rdma-handles", "hcaObjects": "ocirt.hpc/rdma-objects"}

# In the order in which they decide.
RDMA_VARIABLES = ("OCIRT_RDMA_DEVICES", "MELLANOX_VISIBLE_DEVICES")


class Asked:
    """Names of devices of one kind, and what asks for them, for messages.

    explicit: the caller named them, so that it is an error when there are none.
    """

    def __init__(self, value: str, origin: str, where: str) -> None:
        self.names = split(value)
        self.origin = origin
        self.where = where
        self.explicit = any(name not in ("all", "none", "nearest") for name in self.names)


def split(value: str) -> list[str]:
    """Return the items of a list with commas or blanks; Podman 4 lets no comma pass."""
    return [word for item in value.split(",") for word in item.split() or [""]]


def variables(config: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the config's process; of two the last counts, as for runc."""
    env = (config.get("process") or {}).get("env") or ()
    return {name: value for name, _, value in (item.partition("=") for item in env)}


def has_namespace(config: dict[str, Any], kind: str) -> bool:
    """Whether the container has a namespace of this kind beside the host's, be it another's."""
    spaces = (config.get("linux") or {}).get("namespaces") or ()
    return any(space["type"] == kind for space in spaces)


def by_option(values: list[str]) -> list[str]:
    """Return the qualified names that --device was given, each once."""
    with At("--device"):
        return _unique(values)


def by_annotations(config: dict[str, Any], prefixes: Iterable[str] = (CDI_PREFIX,)) -> list[str]:
    """Return the qualified names that the config's annotations give, each once.

    prefixes: of the annotations that count.
    """
    names: list[str] = []
    for key, value in (config.get("annotations") or {}).items():
        if key.startswith(tuple(prefixes)):
            with At(f"annotations.{key}"):
                names += _unique(value.split(","))
    return list(dict.fromkeys(names))


def is_sandbox(config: dict[str, Any]) -> bool:
    """Whether this is the sandbox of a pod: it gets the pod's annotations, and only waits."""
    annotations = config.get("annotations") or {}
    return any(annotations.get(key) == "sandbox" for key in KINDS_OF_CONTAINER)


def annotation(config: dict[str, Any], key: str) -> Asked | None:
    """Return what an annotation asks for, or None."""
    value = (config.get("annotations") or {}).get(key)
    return Asked(value, f"{key}={value}", f"annotations.{key}") if value is not None else None


# What comes after PREFIX -> the words that it may hold
VALUES = {"user": ("keep",), "cpuset": ("nearest", "none")}

# What comes after PREFIX, and has no sense alone -> with what
GO_WITH = {
    "imex": "GPUs", "mig-management": "GPUs", "mps": "GPUs",
    "rdma-handles": "RDMA devices", "rdma-objects": "RDMA devices",
}  # fmt: skip


def check(config: dict[str, Any], kinds: Iterable[str]) -> None:
    """Refuse an annotation of ours that means nothing: whoever wrote it asked for something.

    kinds: names of kinds of devices, which are annotations as well.
    """
    known = {*WORDS, *kinds}
    for key in config.get("annotations") or {}:
        if key.startswith(PREFIX) and key.removeprefix(PREFIX) not in known:
            there = ", ".join(sorted(known))
            raise ConfigError(f"annotations.{key}", f"unknown annotation (have {there})")
        asked = annotation(config, key) if key.startswith(PREFIX) else None
        if asked is not None and "none" in asked.names and len(asked.names) > 1:
            raise ConfigError(asked.where, 'has "none" beside others')
    for name, words in VALUES.items():
        asked = annotation(config, PREFIX + name)
        if asked is not None and asked.names not in [[word] for word in words]:
            raise ConfigError(asked.where, f"expected {' or '.join(words)}")


def alone(config: dict[str, Any], notes: Notes, has: Mapping[str, bool]) -> None:
    """Tell of annotations that come to nothing; has: whether the container gets such devices."""
    for name, what in GO_WITH.items():
        asked = annotation(config, PREFIX + name)
        if asked is not None and not has[what]:
            notes.leave_out(asked.origin, f"the container gets no {what}")


def flag(config: dict[str, Any], key: str) -> Asked | None:
    """Return what an annotation says that is true or false; ConfigError for anything else."""
    asked = annotation(config, key)
    if asked is not None and asked.names not in (["true"], ["false"]):
        raise ConfigError(asked.where, "expected true or false")
    return asked


def rdma(config: dict[str, Any], notes: Notes, *, env_requests: bool) -> Asked | None:
    """Return which RDMA devices are asked for, or None."""
    asked = annotation(config, RDMA)
    if asked is not None:
        return asked
    env = variables(config)
    for name in RDMA_VARIABLES:
        value = env.get(name, "")
        if value not in ("", "void", "none"):
            asked = Asked(value, f"{name}={value}", f"process.env: {name}={value}")
            break
    else:
        if env.get("NVIDIA_MOFED") == "enabled":
            asked = Asked("all", "NVIDIA_MOFED=enabled", "process.env: NVIDIA_MOFED")
    if asked is not None and not env_requests:
        notes.leave_out(asked.origin, NO_ENV)
        return None
    return asked


def rdma_limits(config: dict[str, Any]) -> dict[str, int]:
    """Return what annotations say of linux.resources.rdma, field -> number; 0 where they do not."""
    found = {}
    for field, key in RDMA_LIMITS.items():
        value = (config.get("annotations") or {}).get(key, "0")
        if not (value.isascii() and value.isdecimal() and int(value) < 1 << 31):
            raise ConfigError(f"annotations.{key}", f'"{value}" is not a number')
        found[field] = int(value)
    return found


def _unique(names: list[str]) -> list[str]:
    for name in names:
        rules.split(name)
    return list(dict.fromkeys(names))
