"""config.json, the document of a bundle.

runtime-spec 1.3, config.md; the `linux` section is in `oci_spec.linux`, those of the other
platforms are taken as they are.  Required is what the text calls so, except process.user and
its ids: there the Go structs and the official schema agree on 0 as default, and writers rely
on it.
"""

from __future__ import annotations

from pydantic import Field

from oci_spec.base import (
    Anything,
    Document,
    Int32,
    Int64,
    Maybe,
    StringMap,
    Strings,
    Uint32,
    Uint64,
)
from oci_spec.linux import IDMapping, Linux
from oci_spec.names import IOPriorityClass, RlimitType, SchedulerFlag, SchedulerPolicy


class Box(Document):
    """Size of a terminal in characters ("Process")."""

    height: Uint64 = Field(description="Rows.")
    width: Uint64 = Field(description="Columns.")


class User(Document):
    """Whom the program runs as ("User"); ids of the container's user namespace."""

    uid: Uint32 = Field(default=0, description="User id.")
    gid: Uint32 = Field(default=0, description="Group id.")
    umask: Maybe[Uint32] = Field(
        default=None, description="File mode creation mask, a decimal number (18 is 0022)."
    )
    additional_gids: Maybe[list[Uint32]] = Field(
        default=None, alias="additionalGids", description="Supplementary groups."
    )
    username: str = Field(default="", description="User name (Windows).")


class Capabilities(Document):
    """The capability sets of the program ("Linux Process"); names such as CAP_KILL."""

    bounding: Maybe[Strings] = Field(default=None, description="What can ever be gained.")
    effective: Maybe[Strings] = Field(default=None, description="What the kernel checks.")
    inheritable: Maybe[Strings] = Field(default=None, description="Kept across execve(2).")
    permitted: Maybe[Strings] = Field(default=None, description="What may become effective.")
    ambient: Maybe[Strings] = Field(
        default=None, description="Kept across execve(2) of unprivileged programs."
    )


class Rlimit(Document):
    """A resource limit, setrlimit(2) ("POSIX process")."""

    type: RlimitType = Field(description="The resource.")
    hard: Uint64 = Field(description="Ceiling of the soft limit.")
    soft: Uint64 = Field(description="The limit in force.")


class Scheduler(Document):
    """CPU scheduling, sched_setattr(2) ("Linux Process")."""

    policy: SchedulerPolicy = Field(description="The policy.")
    nice: Int32 = Field(default=0, description="Nice value, -20 to 19 (other and batch).")
    priority: Int32 = Field(default=0, description="Static priority (fifo and rr).")
    flags: Maybe[list[SchedulerFlag]] = Field(default=None, description="Flags.")
    runtime: Uint64 = Field(default=0, description="Nanoseconds per period (deadline).")
    deadline: Uint64 = Field(default=0, description="Nanoseconds until it is due (deadline).")
    period: Uint64 = Field(default=0, description="Nanoseconds (deadline).")


class IOPriority(Document):
    """I/O scheduling, ioprio_set(2) ("Linux Process")."""

    class_: IOPriorityClass = Field(alias="class", description="The class.")
    priority: Int64 = Field(default=0, description="0 (highest) to 7.")


class CPUAffinity(Document):
    """CPUs of processes that join the container later ("Linux Process")."""

    initial: str = Field(
        default="",
        description="CPUs of the runtime's helper before it joins the cgroup, such as 0-3,7.",
        json_schema_extra={"pattern": "^[0-9, -]*$"},
    )
    final: str = Field(
        default="",
        description="CPUs of the process itself, such as 0-3,7.",
        json_schema_extra={"pattern": "^[0-9, -]*$"},
    )


class Process(Document):
    """The program and its attributes ("Process")."""

    terminal: bool = Field(default=False, description="Give the program a terminal.")
    console_size: Maybe[Box] = Field(
        default=None, alias="consoleSize", description="Size of the terminal."
    )
    user: User = Field(default_factory=User, description="User and groups.")
    args: Maybe[Strings] = Field(
        default=None, description="The program and its arguments; needed by start."
    )
    command_line: str = Field(
        default="", alias="commandLine", description="The whole command line (Windows)."
    )
    env: Maybe[Strings] = Field(default=None, description="Environment: NAME=value.")
    cwd: str = Field(description="Working directory, absolute.")
    capabilities: Maybe[Capabilities] = Field(
        default=None, description="Capability sets; a set left out is empty."
    )
    rlimits: Maybe[list[Rlimit]] = Field(default=None, description="Resource limits.")
    no_new_privileges: bool = Field(
        default=False,
        alias="noNewPrivileges",
        description="execve(2) grants nothing (PR_SET_NO_NEW_PRIVS).",
    )
    apparmor_profile: str = Field(
        default="", alias="apparmorProfile", description="AppArmor profile."
    )
    oom_score_adj: Maybe[Int64] = Field(
        default=None, alias="oomScoreAdj", description="/proc/PID/oom_score_adj, -1000 to 1000."
    )
    scheduler: Maybe[Scheduler] = Field(default=None, description="CPU scheduling.")
    selinux_label: str = Field(default="", alias="selinuxLabel", description="SELinux label.")
    io_priority: Maybe[IOPriority] = Field(
        default=None, alias="ioPriority", description="I/O scheduling."
    )
    exec_cpu_affinity: Maybe[CPUAffinity] = Field(
        default=None,
        alias="execCPUAffinity",
        description="CPUs of processes that join the container later.",
    )


class Root(Document):
    """The root filesystem ("Root")."""

    path: str = Field(description="Directory; absolute, or relative to the bundle.")
    readonly: bool = Field(default=False, description="The container cannot write to it.")


class Mount(Document):
    """A mount, made in the order of the list ("Mounts")."""

    destination: str = Field(description="Absolute path in the container.")
    type: str = Field(default="", description="File system type.")
    source: str = Field(
        default="", description="Device or dummy; of a bind mount: path, relative to the bundle."
    )
    options: Maybe[Strings] = Field(
        default=None, description='Options as of mount(8) ("Linux mount options").'
    )
    uid_mappings: Maybe[list[IDMapping]] = Field(
        default=None, alias="uidMappings", description="User ids of an id-mapped mount."
    )
    gid_mappings: Maybe[list[IDMapping]] = Field(
        default=None, alias="gidMappings", description="Group ids of an id-mapped mount."
    )


class Hook(Document):
    """A program to run at some point of the lifecycle ("POSIX-platform Hooks")."""

    path: str = Field(description="Absolute path of the program.")
    args: Maybe[Strings] = Field(default=None, description="Arguments, its name included.")
    env: Maybe[Strings] = Field(default=None, description="Environment: NAME=value.")
    timeout: Maybe[Int64] = Field(
        default=None, description="Seconds before it is stopped; above 0."
    )


class Hooks(Document):
    """Programs by point of the lifecycle ("POSIX-platform Hooks")."""

    prestart: Maybe[list[Hook]] = Field(
        default=None, description="Deprecated: as createRuntime, before those."
    )
    create_runtime: Maybe[list[Hook]] = Field(
        default=None,
        alias="createRuntime",
        description="During create, before pivot_root, in the runtime's namespaces.",
    )
    create_container: Maybe[list[Hook]] = Field(
        default=None,
        alias="createContainer",
        description="During create, before pivot_root, in the container's namespaces.",
    )
    start_container: Maybe[list[Hook]] = Field(
        default=None,
        alias="startContainer",
        description="During start, before the program, in the container's namespaces.",
    )
    poststart: Maybe[list[Hook]] = Field(
        default=None, description="After the program has started, in the runtime's namespaces."
    )
    poststop: Maybe[list[Hook]] = Field(
        default=None, description="After delete, in the runtime's namespaces."
    )


class Config(Document):
    """config.json."""

    oci_version: str = Field(
        alias="ociVersion",
        description="Version of the specification, SemVer 2.0.0, that the bundle follows.",
    )
    process: Maybe[Process] = Field(
        default=None, description="The program; needed by the time of start."
    )
    root: Maybe[Root] = Field(default=None, description="The root filesystem.")
    hostname: str = Field(default="", description="Host name in the container.")
    domainname: str = Field(default="", description="NIS domain name in the container.")
    mounts: Maybe[list[Mount]] = Field(default=None, description="Mounts besides the root.")
    hooks: Maybe[Hooks] = Field(default=None, description="Lifecycle hooks.")
    annotations: Maybe[StringMap] = Field(
        default=None, description='Metadata, keys in reverse domain notation ("Annotations").'
    )
    linux: Maybe[Linux] = Field(default=None, description="What only Linux has.")
    solaris: Maybe[Anything] = Field(
        default=None, description="What only Solaris has (config-solaris.md)."
    )
    windows: Maybe[Anything] = Field(
        default=None, description="What only Windows has (config-windows.md)."
    )
    vm: Maybe[Anything] = Field(
        default=None, description="Containers in virtual machines (config-vm.md)."
    )
    zos: Maybe[Anything] = Field(default=None, description="What only z/OS has (config-zos.md).")
    freebsd: Maybe[Anything] = Field(
        default=None, description="What only FreeBSD has (config-freebsd.md)."
    )
