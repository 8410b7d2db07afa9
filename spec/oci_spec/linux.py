"""The `linux` section of config.json.

runtime-spec 1.3, config-linux.md; each class names its section there.
"""

from __future__ import annotations

from pydantic import Field

from oci_spec.base import (
    Document,
    Int64,
    Maybe,
    StringMap,
    Strings,
    Uint16,
    Uint32,
    Uint64,
)
from oci_spec.names import (
    DeviceRuleType,
    DeviceType,
    MemoryPolicyFlag,
    MemoryPolicyMode,
    NamespaceType,
    PersonalityDomain,
    RootfsPropagation,
    SeccompAction,
    SeccompArch,
    SeccompFlag,
    SeccompOperator,
)


class IDMapping(Document):
    """A range of user or group ids ("User namespace mappings")."""

    container_id: Uint32 = Field(
        alias="containerID", description="First id of the range in the container."
    )
    host_id: Uint32 = Field(alias="hostID", description="First id of the range on the host.")
    size: Uint32 = Field(description="Number of ids.")


class Namespace(Document):
    """A namespace to make, or to join ("Namespaces")."""

    type: NamespaceType = Field(description="Kind of namespace.")
    path: str = Field(
        default="",
        description="Absolute path, in the runtime's mount namespace, of a namespace file to "
        "join; without it a new namespace is made.",
    )


class Device(Document):
    """A device node to make in the container ("Devices")."""

    type: DeviceType = Field(description="c and u: character, b: block, p: FIFO.")
    path: str = Field(description="Absolute path in the container.")
    major: Int64 = Field(default=0, description="Major number; required unless the type is p.")
    minor: Int64 = Field(default=0, description="Minor number; required unless the type is p.")
    file_mode: Maybe[Uint32] = Field(
        default=None,
        alias="fileMode",
        description="Permission bits, a decimal number (438 is 0666).",
    )
    uid: Maybe[Uint32] = Field(
        default=None, description="Owner, an id of the container's user namespace."
    )
    gid: Maybe[Uint32] = Field(
        default=None, description="Group, an id of the container's user namespace."
    )


class NetDevice(Document):
    """A network device to move into the container ("Network Devices")."""

    name: str = Field(
        default="", description="Name in the container; empty: the name it has on the host."
    )


class DeviceRule(Document):
    """A rule of the device cgroup ("Allowed Device list"); later rules win."""

    allow: bool = Field(description="Allow or deny.")
    type: DeviceRuleType = Field(
        default="", description="a: all, c: character, b: block; empty means a."
    )
    major: Maybe[Int64] = Field(default=None, description="Major number; absent or -1: any.")
    minor: Maybe[Int64] = Field(default=None, description="Minor number; absent or -1: any.")
    access: str = Field(default="", description="Some of r (read), w (write), m (mknod).")


class Memory(Document):
    """Limits of the memory controller, bytes; -1 lifts a limit ("Memory")."""

    limit: Maybe[Int64] = Field(default=None, description="Memory, bytes.")
    reservation: Maybe[Int64] = Field(default=None, description="Soft limit, bytes.")
    swap: Maybe[Int64] = Field(default=None, description="Memory and swap together, bytes.")
    kernel: Maybe[Int64] = Field(
        default=None, description="Kernel memory, bytes; not recommended, may be ignored."
    )
    kernel_tcp: Maybe[Int64] = Field(
        default=None,
        alias="kernelTCP",
        description="Kernel memory for TCP buffers, bytes; not recommended.",
    )
    swappiness: Maybe[Uint64] = Field(
        default=None, description="Willingness to swap, 0 to 100 (vm.swappiness)."
    )
    disable_oom_killer: Maybe[bool] = Field(
        default=None,
        alias="disableOOMKiller",
        description="Let tasks wait for memory instead of killing one.",
    )
    use_hierarchy: Maybe[bool] = Field(
        default=None, alias="useHierarchy", description="Account for child cgroups as well (v1)."
    )
    check_before_update: Maybe[bool] = Field(
        default=None,
        alias="checkBeforeUpdate",
        description="Refuse to lower a limit below the present usage.",
    )


class CPU(Document):
    """Limits of the cpu and cpuset controllers ("CPU")."""

    shares: Maybe[Uint64] = Field(
        default=None, description="Relative share of CPU time, 2 to 262144."
    )
    quota: Maybe[Int64] = Field(
        default=None, description="CPU time in one period, microseconds; below 1: no limit."
    )
    burst: Maybe[Uint64] = Field(
        default=None, description="CPU time that may be saved up for a burst, microseconds."
    )
    period: Maybe[Uint64] = Field(
        default=None, description="Length of the period that quota is about, microseconds."
    )
    realtime_runtime: Maybe[Int64] = Field(
        default=None,
        alias="realtimeRuntime",
        description="Time of realtime tasks in one realtime period, microseconds (v1).",
    )
    realtime_period: Maybe[Uint64] = Field(
        default=None,
        alias="realtimePeriod",
        description="Length of the realtime period, microseconds (v1).",
    )
    cpus: str = Field(default="", description="CPUs to run on, a list such as 0-3,7.")
    mems: str = Field(default="", description="Memory nodes to use, a list such as 0-3,7.")
    idle: Maybe[Int64] = Field(
        default=None, description="1: every task as under SCHED_IDLE; 0: the default."
    )


class Pids(Document):
    """Limit of the pids controller ("PIDs")."""

    limit: Maybe[Int64] = Field(default=None, description="Largest number of tasks; -1: no limit.")


class WeightDevice(Document):
    """The block I/O weight of one device ("Block IO")."""

    major: Int64 = Field(description="Major number of the device.")
    minor: Int64 = Field(description="Minor number of the device.")
    weight: Maybe[Uint16] = Field(default=None, description="Weight, 10 to 1000.")
    leaf_weight: Maybe[Uint16] = Field(
        default=None,
        alias="leafWeight",
        description="Weight against child cgroups, 10 to 1000 (v1, CFQ).",
    )


class ThrottleDevice(Document):
    """A block I/O rate limit of one device ("Block IO")."""

    major: Int64 = Field(description="Major number of the device.")
    minor: Int64 = Field(description="Minor number of the device.")
    rate: Uint64 = Field(description="Bytes, or operations, per second.")


class BlockIO(Document):
    """Limits of the blkio (v1) or io (v2) controller ("Block IO")."""

    weight: Maybe[Uint16] = Field(default=None, description="Weight, 10 to 1000.")
    leaf_weight: Maybe[Uint16] = Field(
        default=None,
        alias="leafWeight",
        description="Weight against child cgroups, 10 to 1000 (v1, CFQ).",
    )
    weight_device: Maybe[list[WeightDevice]] = Field(
        default=None, alias="weightDevice", description="Weights per device."
    )
    throttle_read_bps_device: Maybe[list[ThrottleDevice]] = Field(
        default=None,
        alias="throttleReadBpsDevice",
        description="Limits on reading, bytes per second.",
    )
    throttle_write_bps_device: Maybe[list[ThrottleDevice]] = Field(
        default=None,
        alias="throttleWriteBpsDevice",
        description="Limits on writing, bytes per second.",
    )
    throttle_read_iops_device: Maybe[list[ThrottleDevice]] = Field(
        default=None,
        alias="throttleReadIOPSDevice",
        description="Limits on reading, operations per second.",
    )
    throttle_write_iops_device: Maybe[list[ThrottleDevice]] = Field(
        default=None,
        alias="throttleWriteIOPSDevice",
        description="Limits on writing, operations per second.",
    )


class HugepageLimit(Document):
    """A limit on huge pages of one size ("Huge page limits")."""

    page_size: str = Field(
        alias="pageSize",
        description="Size of the pages as the kernel words it: 64KB, 2MB, 1GB.",
        json_schema_extra={"pattern": "^[1-9][0-9]*[KMG]B$"},
    )
    limit: Uint64 = Field(description="Bytes.")


class InterfacePriority(Document):
    """Priority of the traffic that leaves by one interface ("Network")."""

    name: str = Field(description="Interface in the runtime's network namespace.")
    priority: Uint32 = Field(description="Priority.")


class Network(Document):
    """The net_cls and net_prio controllers, v1 only ("Network")."""

    class_id: Maybe[Uint32] = Field(
        default=None, alias="classID", description="Class that packets are tagged with."
    )
    priorities: Maybe[list[InterfacePriority]] = Field(
        default=None, description="Priorities per interface."
    )


class Rdma(Document):
    """Limits on one RDMA device ("RDMA")."""

    hca_handles: Maybe[Uint32] = Field(
        default=None, alias="hcaHandles", description="Largest number of HCA handles."
    )
    hca_objects: Maybe[Uint32] = Field(
        default=None, alias="hcaObjects", description="Largest number of HCA objects."
    )


class Resources(Document):
    """What the container's cgroup allows ("Control groups")."""

    devices: Maybe[list[DeviceRule]] = Field(
        default=None, description="Rules of the device cgroup, in order; later rules win."
    )
    memory: Maybe[Memory] = Field(default=None, description="Memory.")
    cpu: Maybe[CPU] = Field(default=None, description="CPU time, CPUs and memory nodes.")
    pids: Maybe[Pids] = Field(default=None, description="Number of tasks.")
    block_io: Maybe[BlockIO] = Field(default=None, alias="blockIO", description="Block I/O.")
    hugepage_limits: Maybe[list[HugepageLimit]] = Field(
        default=None, alias="hugepageLimits", description="Huge pages, per size."
    )
    network: Maybe[Network] = Field(default=None, description="Network classes (v1).")
    rdma: Maybe[dict[str, Rdma]] = Field(
        default=None, description="RDMA limits by device name (mlx5_0)."
    )
    unified: Maybe[StringMap] = Field(
        default=None, description='cgroup v2 files and what to write to them ("Unified").'
    )


class SyscallArg(Document):
    """A condition on one argument of a system call ("Seccomp")."""

    index: Uint64 = Field(description="Which argument, 0 to 5.")
    value: Uint64 = Field(description="What it is compared with; the mask of MASKED_EQ.")
    value_two: Uint64 = Field(
        default=0, alias="valueTwo", description="What the masked argument must equal."
    )
    op: SeccompOperator = Field(description="How it is compared.")


class Syscall(Document):
    """A rule about some system calls ("Seccomp")."""

    names: Strings = Field(description="System calls, by name; at least one.")
    action: SeccompAction = Field(description="What happens when the rule matches.")
    errno_ret: Maybe[Uint64] = Field(
        default=None,
        alias="errnoRet",
        description="errno of SCMP_ACT_ERRNO, message of SCMP_ACT_TRACE; default EPERM.",
    )
    args: Maybe[list[SyscallArg]] = Field(
        default=None, description="Conditions that must all hold."
    )


class Seccomp(Document):
    """The filter on system calls ("Seccomp")."""

    default_action: SeccompAction = Field(
        alias="defaultAction", description="What happens when no rule matches."
    )
    default_errno_ret: Maybe[Uint64] = Field(
        default=None,
        alias="defaultErrnoRet",
        description="errno of a default action that has one; default EPERM.",
    )
    architectures: Maybe[list[SeccompArch]] = Field(
        default=None, description="Architectures besides the native one."
    )
    flags: Maybe[list[SeccompFlag]] = Field(default=None, description="Flags of seccomp(2).")
    listener_path: str = Field(
        default="",
        alias="listenerPath",
        description="Unix socket that gets the descriptor of SCMP_ACT_NOTIFY.",
    )
    listener_metadata: str = Field(
        default="",
        alias="listenerMetadata",
        description="Text passed on to the listener unread.",
    )
    syscalls: Maybe[list[Syscall]] = Field(default=None, description="The rules.")


class IntelRdt(Document):
    """Cache and memory bandwidth allocation through resctrl ("IntelRdt")."""

    clos_id: str = Field(
        default="", alias="closID", description="Class of service: a directory of resctrl."
    )
    schemata: Maybe[Strings] = Field(
        default=None, description="Lines for the file schemata; they come after the next two."
    )
    l3_cache_schema: str = Field(
        default="", alias="l3CacheSchema", description="L3 cache: L3:<id>=<mask>;..."
    )
    mem_bw_schema: str = Field(
        default="",
        alias="memBwSchema",
        description="Memory bandwidth: MB:<id>=<percent or MBps>;...",
    )
    enable_monitoring: bool = Field(
        default=False,
        alias="enableMonitoring",
        description="Make a monitoring group for the container.",
    )


class MemoryPolicy(Document):
    """NUMA placement, the arguments of set_mempolicy(2) ("Memory policy")."""

    mode: MemoryPolicyMode = Field(description="The policy.")
    nodes: str = Field(default="", description="Memory nodes, a list such as 0-3,7.")
    flags: Maybe[list[MemoryPolicyFlag]] = Field(default=None, description="Mode flags.")


class Personality(Document):
    """The execution domain, personality(2) ("Personality")."""

    domain: PersonalityDomain = Field(description="LINUX, or LINUX32 for 32-bit uname.")
    flags: Maybe[Strings] = Field(default=None, description="None are defined so far.")


class TimeOffset(Document):
    """Offset of one clock ("Offset for Time Namespace")."""

    secs: Int64 = Field(default=0, description="Seconds.")
    nanosecs: Uint32 = Field(default=0, description="Nanoseconds to add.")


class Linux(Document):
    """What only Linux has (config.md, "Platform-specific configuration")."""

    uid_mappings: Maybe[list[IDMapping]] = Field(
        default=None, alias="uidMappings", description="User ids of the user namespace."
    )
    gid_mappings: Maybe[list[IDMapping]] = Field(
        default=None, alias="gidMappings", description="Group ids of the user namespace."
    )
    sysctl: Maybe[StringMap] = Field(
        default=None, description='Kernel parameters to set in the container ("Sysctl").'
    )
    resources: Maybe[Resources] = Field(default=None, description="Limits.")
    cgroups_path: str = Field(
        default="",
        alias="cgroupsPath",
        description='The container\'s cgroup ("Cgroups Path"): absolute below the cgroup mount, '
        "relative to a place of the runtime's choice, or slice:prefix:name for systemd.",
    )
    namespaces: Maybe[list[Namespace]] = Field(
        default=None, description="Namespaces; a kind not listed is shared with the runtime."
    )
    devices: Maybe[list[Device]] = Field(default=None, description="Device nodes to make.")
    net_devices: Maybe[dict[str, NetDevice]] = Field(
        default=None,
        alias="netDevices",
        description="Network devices to move in, by their name on the host.",
    )
    seccomp: Maybe[Seccomp] = Field(default=None, description="Filter on system calls.")
    rootfs_propagation: RootfsPropagation = Field(
        default="",
        alias="rootfsPropagation",
        description='Propagation of the container\'s root ("Rootfs Mount Propagation").',
    )
    masked_paths: Maybe[Strings] = Field(
        default=None,
        alias="maskedPaths",
        description='Paths that the container cannot read ("Masked Paths").',
    )
    readonly_paths: Maybe[Strings] = Field(
        default=None,
        alias="readonlyPaths",
        description='Paths that the container cannot write ("Readonly Paths").',
    )
    mount_label: str = Field(
        default="", alias="mountLabel", description='SELinux context of mounts ("Mount Label").'
    )
    intel_rdt: Maybe[IntelRdt] = Field(
        default=None, alias="intelRdt", description="Intel Resource Director Technology."
    )
    memory_policy: Maybe[MemoryPolicy] = Field(
        default=None, alias="memoryPolicy", description="NUMA memory policy."
    )
    personality: Maybe[Personality] = Field(default=None, description="Execution domain.")
    time_offsets: Maybe[dict[str, TimeOffset]] = Field(
        default=None,
        alias="timeOffsets",
        description="Offsets of the clocks monotonic and boottime in a new time namespace.",
    )
