"""What a runtime can do, whatever the host can.

runtime-spec 1.3, features.md and features-linux.md.  A field left out means "unknown", never
"no".
"""

from __future__ import annotations

from pydantic import Field

from oci_spec.base import Document, Maybe, StringMap, Strings


class Cgroup(Document):
    """Control groups (features-linux.md, "Cgroup")."""

    v1: Maybe[bool] = Field(default=None, description="Knows cgroup v1.")
    v2: Maybe[bool] = Field(default=None, description="Knows cgroup v2.")
    systemd: Maybe[bool] = Field(default=None, description="Can let systemd make the cgroup.")
    systemd_user: Maybe[bool] = Field(
        default=None, alias="systemdUser", description="The same for a user's systemd."
    )
    rdma: Maybe[bool] = Field(default=None, description="Knows the rdma controller.")


class Seccomp(Document):
    """Filters on system calls (features-linux.md, "Seccomp")."""

    enabled: Maybe[bool] = Field(default=None, description="Knows seccomp.")
    actions: Maybe[Strings] = Field(default=None, description="Actions: SCMP_ACT_...")
    operators: Maybe[Strings] = Field(default=None, description="Comparisons: SCMP_CMP_...")
    archs: Maybe[Strings] = Field(default=None, description="Architectures: SCMP_ARCH_...")
    known_flags: Maybe[Strings] = Field(
        default=None, alias="knownFlags", description="Flags: SECCOMP_FILTER_FLAG_..."
    )
    supported_flags: Maybe[Strings] = Field(
        default=None,
        alias="supportedFlags",
        description="Of these flags the ones that this kernel and libseccomp take.",
    )


class Apparmor(Document):
    """AppArmor (features-linux.md, "AppArmor")."""

    enabled: Maybe[bool] = Field(default=None, description="Knows process.apparmorProfile.")


class Selinux(Document):
    """SELinux (features-linux.md, "SELinux")."""

    enabled: Maybe[bool] = Field(default=None, description="Knows process.selinuxLabel.")


class IntelRdt(Document):
    """Resource Director Technology (features-linux.md, "Intel RDT")."""

    enabled: Maybe[bool] = Field(default=None, description="Knows linux.intelRdt.")
    schemata: Maybe[bool] = Field(default=None, description="Knows its field schemata.")
    monitoring: Maybe[bool] = Field(default=None, description="Knows enableMonitoring.")


class MemoryPolicy(Document):
    """NUMA placement (features-linux.md, "MemoryPolicy")."""

    modes: Maybe[Strings] = Field(default=None, description="Modes: MPOL_...")
    flags: Maybe[Strings] = Field(default=None, description="Flags: MPOL_F_...")


class IDMap(Document):
    """Id-mapped mounts (features-linux.md, "MountExtensions")."""

    enabled: Maybe[bool] = Field(default=None, description="Knows uidMappings of a mount.")


class MountExtensions(Document):
    """Mounts beyond mount(2) (features-linux.md, "MountExtensions")."""

    idmap: Maybe[IDMap] = Field(default=None, description="Id-mapped mounts.")


class NetDevices(Document):
    """Network devices (features-linux.md, "Net Devices")."""

    enabled: Maybe[bool] = Field(default=None, description="Knows linux.netDevices.")


class Linux(Document):
    """What only Linux has (features-linux.md)."""

    namespaces: Maybe[Strings] = Field(default=None, description="Kinds of namespaces.")
    capabilities: Maybe[Strings] = Field(default=None, description="Capabilities: CAP_...")
    cgroup: Maybe[Cgroup] = Field(default=None, description="Control groups.")
    seccomp: Maybe[Seccomp] = Field(default=None, description="Filters on system calls.")
    apparmor: Maybe[Apparmor] = Field(default=None, description="AppArmor.")
    selinux: Maybe[Selinux] = Field(default=None, description="SELinux.")
    intel_rdt: Maybe[IntelRdt] = Field(
        default=None, alias="intelRdt", description="Resource Director Technology."
    )
    memory_policy: Maybe[MemoryPolicy] = Field(
        default=None, alias="memoryPolicy", description="NUMA placement."
    )
    mount_extensions: Maybe[MountExtensions] = Field(
        default=None, alias="mountExtensions", description="Mounts beyond mount(2)."
    )
    net_devices: Maybe[NetDevices] = Field(
        default=None, alias="netDevices", description="Network devices."
    )


class Features(Document):
    """What `features` prints (features.md)."""

    oci_version_min: str = Field(
        alias="ociVersionMin", description="Lowest version of the specification, SemVer 2.0.0."
    )
    oci_version_max: str = Field(
        alias="ociVersionMax", description="Highest version of the specification, SemVer 2.0.0."
    )
    hooks: Maybe[Strings] = Field(default=None, description="Lifecycle hooks.")
    mount_options: Maybe[Strings] = Field(
        default=None,
        alias="mountOptions",
        description="Mount options besides those of the file systems.",
    )
    linux: Maybe[Linux] = Field(default=None, description="What only Linux has.")
    annotations: Maybe[StringMap] = Field(
        default=None, description="What the runtime tells beyond the specification."
    )
    potentially_unsafe_config_annotations: Maybe[Strings] = Field(
        default=None,
        alias="potentiallyUnsafeConfigAnnotations",
        description="Annotations of a config that change what the runtime does, and so must not "
        "come from strangers; one that ends in a dot is a prefix.",
    )
