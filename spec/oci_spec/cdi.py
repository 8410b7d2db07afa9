"""Container Device Interface files: what a vendor's device adds to a container.

CDI specification 1.1.0, SPEC.md.  Stricter than the OCI documents, as that text wants it: an
unknown field is an error, and so is a field that the declared version does not have yet.  Only
a file of a version newer than ours may hold fields that we do not know; they are ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from oci_spec.base import Document, Int64, Maybe, StringMap, Strings, Uint32
from oci_spec.names import DeviceNodeType, HookName

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

# Vendor and class: a letter, then letters, digits, _ - . and at the end no sign.
QUALIFIER = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
# Annotations have the keys of Kubernetes: an optional DNS prefix, and a short name.
ANNOTATION_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
ANNOTATION_PREFIX = re.compile(
    r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
LARGEST_ANNOTATIONS = 256 << 10  # bytes, keys and values together
LARGEST_CLOS_ID = 4096

Text = Annotated[str, Field(min_length=1)]


class Strict(Document):
    """An object that has no other fields than these."""

    model_config = ConfigDict(extra="forbid")


def check_annotations(annotations: dict[str, str] | None) -> dict[str, str] | None:
    """Refuse keys and sizes that Kubernetes would refuse."""
    if not annotations:
        return annotations
    for key in annotations:
        prefix, slash, name = key.rpartition("/")
        if not ANNOTATION_NAME.fullmatch(name):
            raise ValueError(f'"{key}" is not an annotation key')
        if slash and (len(prefix) > 253 or not ANNOTATION_PREFIX.fullmatch(prefix.lower())):
            raise ValueError(f'"{key}" is not an annotation key')
    if sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items()) > LARGEST_ANNOTATIONS:
        raise ValueError(f"annotations are larger than {LARGEST_ANNOTATIONS} bytes")
    return annotations


def check_environment(env: list[str] | None) -> list[str] | None:
    """Refuse what is not NAME=value."""
    for item in env or ():
        if item.find("=") < 1:
            raise ValueError(f'invalid environment variable "{item}"')
    return env


class DeviceNode(Strict):
    """A device node to make in the container."""

    path: Text = Field(description="Path in the container.")
    host_path: str = Field(
        default="", alias="hostPath", description="Path on the host; empty: the same (0.5.0)."
    )
    type: DeviceNodeType = Field(
        default="", description="b block, c and u character, p FIFO; empty: as on the host."
    )
    major: Int64 = Field(default=0, description="Major number; 0: as on the host.")
    minor: Int64 = Field(default=0, description="Minor number.")
    file_mode: Maybe[Uint32] = Field(
        default=None, alias="fileMode", description="Permission bits, a decimal number."
    )
    permissions: str = Field(
        default="",
        description="Some of r, w and m for the device cgroup, or none; empty means rwm.",
    )
    uid: Maybe[Uint32] = Field(default=None, description="Owner in the container.")
    gid: Maybe[Uint32] = Field(default=None, description="Group in the container.")

    @field_validator("permissions")
    @classmethod
    def _permissions(cls, value: str) -> str:
        if value != "none" and value.strip("rwm"):
            raise ValueError(f'invalid permissions "{value}"')
        return value


class NetDevice(Strict):
    """A network device to move into the container (1.1.0)."""

    host_interface_name: Text = Field(alias="hostInterfaceName", description="Name on the host.")
    name: Text = Field(description="Name in the container.")


class Mount(Strict):
    """A mount to add."""

    host_path: Text = Field(alias="hostPath", description="Path on the host.")
    container_path: Text = Field(alias="containerPath", description="Path in the container.")
    options: Maybe[Strings] = Field(default=None, description="Mount options.")
    type: str = Field(default="", description="File system type (0.4.0).")


class Hook(Strict):
    """A lifecycle hook to add."""

    hook_name: HookName = Field(alias="hookName", description="The point of the lifecycle.")
    path: Text = Field(description="Path of the program on the host.")
    args: Maybe[Strings] = Field(default=None, description="Arguments, its name included.")
    env: Maybe[Strings] = Field(default=None, description="Environment: NAME=value.")
    timeout: Maybe[Annotated[int, Field(ge=1, le=2**32 - 1)]] = Field(
        default=None, description="Seconds before it is stopped."
    )

    _env = field_validator("env")(check_environment)


class IntelRdt(Strict):
    """Cache and memory bandwidth allocation (0.7.0)."""

    clos_id: str = Field(default="", alias="closID", description="Class of service.")
    l3_cache_schema: str = Field(default="", alias="l3CacheSchema", description="L3 cache.")
    mem_bw_schema: str = Field(default="", alias="memBwSchema", description="Memory bandwidth.")
    schemata: Maybe[Strings] = Field(
        default=None, description="Lines for the file schemata (1.1.0)."
    )
    enable_monitoring: bool = Field(
        default=False, alias="enableMonitoring", description="Make a monitoring group (1.1.0)."
    )

    @field_validator("clos_id")
    @classmethod
    def _clos_id(cls, value: str) -> str:
        bad = len(value) >= LARGEST_CLOS_ID or value in (".", "..")
        if value != "/" and (bad or "/" in value or "\n" in value):
            raise ValueError(f'invalid closID "{value}"')
        return value


class ContainerEdits(Strict):
    """What to change in a container's config."""

    env: Maybe[Strings] = Field(default=None, description="Environment: NAME=value.")
    device_nodes: Maybe[list[DeviceNode]] = Field(
        default=None, alias="deviceNodes", description="Device nodes."
    )
    net_devices: Maybe[list[NetDevice]] = Field(
        default=None, alias="netDevices", description="Network devices (1.1.0)."
    )
    hooks: Maybe[list[Hook]] = Field(default=None, description="Lifecycle hooks.")
    mounts: Maybe[list[Mount]] = Field(default=None, description="Mounts.")
    intel_rdt: Maybe[IntelRdt] = Field(
        default=None, alias="intelRdt", description="Cache and memory bandwidth (0.7.0)."
    )
    additional_gids: Maybe[list[Uint32]] = Field(
        default=None,
        alias="additionalGids",
        description="Supplementary groups of the process; 0 is ignored (0.7.0).",
    )

    _env = field_validator("env")(check_environment)

    @field_validator("net_devices")
    @classmethod
    def _net_devices(cls, value: list[NetDevice] | None) -> list[NetDevice] | None:
        for attribute in ("host_interface_name", "name"):
            names = [getattr(device, attribute) for device in value or ()]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f'network device "{name}" is given twice')
        return value

    def is_empty(self) -> bool:
        """Whether nothing would change."""
        lists = (
            self.env, self.device_nodes, self.net_devices, self.hooks, self.mounts,
            self.additional_gids,
        )  # fmt: skip
        return self.intel_rdt is None and not any(lists)

    def version(self) -> str:
        """Return the lowest version that has every field in use."""
        rdt = self.intel_rdt
        if self.net_devices or (rdt and (rdt.schemata is not None or rdt.enable_monitoring)):
            return "1.1.0"
        if rdt or self.additional_gids:
            return "0.7.0"
        if any(node.host_path for node in self.device_nodes or ()):
            return "0.5.0"
        if any(mount.type for mount in self.mounts or ()):
            return "0.4.0"
        return VERSIONS[0]


class Device(Strict):
    """A device that can be asked for by name."""

    name: str = Field(description="Name, unique in the file.")
    annotations: Maybe[StringMap] = Field(default=None, description="Metadata (0.6.0).")
    container_edits: ContainerEdits = Field(
        alias="containerEdits", description="What it changes; not empty."
    )

    _annotations = field_validator("annotations")(check_annotations)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f'invalid device name "{value}"')
        return value

    @field_validator("container_edits")
    @classmethod
    def _edits(cls, value: ContainerEdits) -> ContainerEdits:
        if value.is_empty():
            raise ValueError("empty device edits")
        return value

    def version(self) -> str:
        """Return the lowest version that has every field in use."""
        least = self.container_edits.version()
        if self.annotations:
            least = _newest(least, "0.6.0")
        return _newest(least, "0.5.0") if self.name[0].isdigit() else least


class Spec(Strict):
    """A CDI file: the devices of one kind."""

    version: str = Field(alias="cdiVersion", description="Version of the CDI specification.")
    kind: str = Field(description="vendor/class; a device is asked for as vendor/class=name.")
    annotations: Maybe[StringMap] = Field(default=None, description="Metadata (0.6.0).")
    devices: Annotated[list[Device], Field(min_length=1)] = Field(description="The devices.")
    container_edits: ContainerEdits = Field(
        default_factory=ContainerEdits,
        alias="containerEdits",
        description="What every device of the file changes; applied once.",
    )

    _annotations = field_validator("annotations")(check_annotations)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Check a parsed file; raises pydantic.ValidationError with every fault."""
        extra: Literal["ignore"] | None = None
        if isinstance(document, dict) and _is_newer(document.get("cdiVersion")):
            extra = "ignore"
        return cls.model_validate(document, by_alias=True, by_name=False, extra=extra)

    @field_validator("kind")
    @classmethod
    def _kind(cls, value: str) -> str:
        vendor, _, name = value.partition("/")
        if not QUALIFIER.fullmatch(vendor) or not QUALIFIER.fullmatch(name):
            raise ValueError(f'invalid vendor/class "{value}"')
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [device.name for device in self.devices]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'device "{name}" is given twice')
        declared = self.version.removeprefix("v")
        if declared not in VERSIONS:
            if _is_newer(declared):
                return self
            raise ValueError(f'invalid version "{self.version}"')
        least = self.least_version()
        if _newest(declared, least) != declared:
            raise ValueError(f"the spec version must be at least v{least}")
        return self

    def least_version(self) -> str:
        """Return the lowest version that has every field in use, which is the one to declare."""
        least = self.container_edits.version()
        for device in self.devices:
            least = _newest(least, device.version())
        if self.annotations or "." in self.kind.partition("/")[2]:
            least = _newest(least, "0.6.0")
        return least


def _newest(one: str, other: str) -> str:
    return max(one, other, key=VERSIONS.index)


def _is_newer(version: Any) -> bool:
    """Whether this is a released version that came after the last one we know."""
    if not isinstance(version, str):
        return False
    match = re.fullmatch(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})", version)
    return match is not None and tuple(map(int, match.groups())) > (1, 1, 0)
