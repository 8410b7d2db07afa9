"""Generated from the models by `python3 -m oci_spec.tables`; never edited.

What the tables mean is written in oci_spec/tables.py; ocirt/shape.py walks them.
"""

# fmt: off
UINT64 = (0, 18446744073709551615)
BOX = (
    {
        "height": (int, False, UINT64),
        "width": (int, False, UINT64),
    },
    ("height", "width",),
)
UINT32 = (0, 4294967295)
USER = (
    {
        "uid": (int, False, UINT32),
        "gid": (int, False, UINT32),
        "umask": (int, True, UINT32),
        "additionalGids": (list, True, (int, False, UINT32)),
        "username": (str, False, None),
    },
    (),
)
CAPABILITIES = (
    {
        "bounding": (list, True, (str, False, None)),
        "effective": (list, True, (str, False, None)),
        "inheritable": (list, True, (str, False, None)),
        "permitted": (list, True, (str, False, None)),
        "ambient": (list, True, (str, False, None)),
    },
    (),
)
RLIMIT_TYPE = (
    "RlimitType",
    frozenset((
        "RLIMIT_AS",
        "RLIMIT_CORE",
        "RLIMIT_CPU",
        "RLIMIT_DATA",
        "RLIMIT_FSIZE",
        "RLIMIT_LOCKS",
        "RLIMIT_MEMLOCK",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_NOFILE",
        "RLIMIT_NPROC",
        "RLIMIT_RSS",
        "RLIMIT_RTPRIO",
        "RLIMIT_RTTIME",
        "RLIMIT_SIGPENDING",
        "RLIMIT_STACK",
    )),
)
RLIMIT = (
    {
        "type": (str, False, RLIMIT_TYPE),
        "hard": (int, False, UINT64),
        "soft": (int, False, UINT64),
    },
    ("type", "hard", "soft",),
)
INT64 = (-9223372036854775808, 9223372036854775807)
SCHEDULER_POLICY = (
    "SchedulerPolicy",
    frozenset((
        "SCHED_OTHER",
        "SCHED_FIFO",
        "SCHED_RR",
        "SCHED_BATCH",
        "SCHED_ISO",
        "SCHED_IDLE",
        "SCHED_DEADLINE",
    )),
)
INT32 = (-2147483648, 2147483647)
SCHEDULER_FLAG = (
    "SchedulerFlag",
    frozenset((
        "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_RECLAIM",
        "SCHED_FLAG_DL_OVERRUN",
        "SCHED_FLAG_KEEP_POLICY",
        "SCHED_FLAG_KEEP_PARAMS",
        "SCHED_FLAG_UTIL_CLAMP_MIN",
        "SCHED_FLAG_UTIL_CLAMP_MAX",
    )),
)
SCHEDULER = (
    {
        "policy": (str, False, SCHEDULER_POLICY),
        "nice": (int, False, INT32),
        "priority": (int, False, INT32),
        "flags": (list, True, (str, False, SCHEDULER_FLAG)),
        "runtime": (int, False, UINT64),
        "deadline": (int, False, UINT64),
        "period": (int, False, UINT64),
    },
    ("policy",),
)
IO_PRIORITY_CLASS = (
    "IOPriorityClass",
    frozenset((
        "IOPRIO_CLASS_RT",
        "IOPRIO_CLASS_BE",
        "IOPRIO_CLASS_IDLE",
    )),
)
IO_PRIORITY = (
    {
        "class": (str, False, IO_PRIORITY_CLASS),
        "priority": (int, False, INT64),
    },
    ("class",),
)
CPU_AFFINITY = (
    {
        "initial": (str, False, None),
        "final": (str, False, None),
    },
    (),
)
PROCESS = (
    {
        "terminal": (bool, False, None),
        "consoleSize": (dict, True, BOX),
        "user": (dict, False, USER),
        "args": (list, True, (str, False, None)),
        "commandLine": (str, False, None),
        "env": (list, True, (str, False, None)),
        "cwd": (str, False, None),
        "capabilities": (dict, True, CAPABILITIES),
        "rlimits": (list, True, (dict, False, RLIMIT)),
        "noNewPrivileges": (bool, False, None),
        "apparmorProfile": (str, False, None),
        "oomScoreAdj": (int, True, INT64),
        "scheduler": (dict, True, SCHEDULER),
        "selinuxLabel": (str, False, None),
        "ioPriority": (dict, True, IO_PRIORITY),
        "execCPUAffinity": (dict, True, CPU_AFFINITY),
    },
    ("cwd",),
)
ROOT = (
    {
        "path": (str, False, None),
        "readonly": (bool, False, None),
    },
    ("path",),
)
ID_MAPPING = (
    {
        "containerID": (int, False, UINT32),
        "hostID": (int, False, UINT32),
        "size": (int, False, UINT32),
    },
    ("containerID", "hostID", "size",),
)
MOUNT = (
    {
        "destination": (str, False, None),
        "type": (str, False, None),
        "source": (str, False, None),
        "options": (list, True, (str, False, None)),
        "uidMappings": (list, True, (dict, False, ID_MAPPING)),
        "gidMappings": (list, True, (dict, False, ID_MAPPING)),
    },
    ("destination",),
)
HOOK = (
    {
        "path": (str, False, None),
        "args": (list, True, (str, False, None)),
        "env": (list, True, (str, False, None)),
        "timeout": (int, True, INT64),
    },
    ("path",),
)
HOOKS = (
    {
        "prestart": (list, True, (dict, False, HOOK)),
        "createRuntime": (list, True, (dict, False, HOOK)),
        "createContainer": (list, True, (dict, False, HOOK)),
        "startContainer": (list, True, (dict, False, HOOK)),
        "poststart": (list, True, (dict, False, HOOK)),
        "poststop": (list, True, (dict, False, HOOK)),
    },
    (),
)
DEVICE_RULE_TYPE = (
    "DeviceRuleType",
    frozenset((
        "",
        "a",
        "c",
        "b",
    )),
)
DEVICE_RULE = (
    {
        "allow": (bool, False, None),
        "type": (str, False, DEVICE_RULE_TYPE),
        "major": (int, True, INT64),
        "minor": (int, True, INT64),
        "access": (str, False, None),
    },
    ("allow",),
)
MEMORY = (
    {
        "limit": (int, True, INT64),
        "reservation": (int, True, INT64),
        "swap": (int, True, INT64),
        "kernel": (int, True, INT64),
        "kernelTCP": (int, True, INT64),
        "swappiness": (int, True, UINT64),
        "disableOOMKiller": (bool, True, None),
        "useHierarchy": (bool, True, None),
        "checkBeforeUpdate": (bool, True, None),
    },
    (),
)
CPU = (
    {
        "shares": (int, True, UINT64),
        "quota": (int, True, INT64),
        "burst": (int, True, UINT64),
        "period": (int, True, UINT64),
        "realtimeRuntime": (int, True, INT64),
        "realtimePeriod": (int, True, UINT64),
        "cpus": (str, False, None),
        "mems": (str, False, None),
        "idle": (int, True, INT64),
    },
    (),
)
PIDS = (
    {
        "limit": (int, True, INT64),
    },
    (),
)
UINT16 = (0, 65535)
WEIGHT_DEVICE = (
    {
        "major": (int, False, INT64),
        "minor": (int, False, INT64),
        "weight": (int, True, UINT16),
        "leafWeight": (int, True, UINT16),
    },
    ("major", "minor",),
)
THROTTLE_DEVICE = (
    {
        "major": (int, False, INT64),
        "minor": (int, False, INT64),
        "rate": (int, False, UINT64),
    },
    ("major", "minor", "rate",),
)
BLOCK_IO = (
    {
        "weight": (int, True, UINT16),
        "leafWeight": (int, True, UINT16),
        "weightDevice": (list, True, (dict, False, WEIGHT_DEVICE)),
        "throttleReadBpsDevice": (list, True, (dict, False, THROTTLE_DEVICE)),
        "throttleWriteBpsDevice": (list, True, (dict, False, THROTTLE_DEVICE)),
        "throttleReadIOPSDevice": (list, True, (dict, False, THROTTLE_DEVICE)),
        "throttleWriteIOPSDevice": (list, True, (dict, False, THROTTLE_DEVICE)),
    },
    (),
)
HUGEPAGE_LIMIT = (
    {
        "pageSize": (str, False, None),
        "limit": (int, False, UINT64),
    },
    ("pageSize", "limit",),
)
INTERFACE_PRIORITY = (
    {
        "name": (str, False, None),
        "priority": (int, False, UINT32),
    },
    ("name", "priority",),
)
NETWORK = (
    {
        "classID": (int, True, UINT32),
        "priorities": (list, True, (dict, False, INTERFACE_PRIORITY)),
    },
    (),
)
RDMA = (
    {
        "hcaHandles": (int, True, UINT32),
        "hcaObjects": (int, True, UINT32),
    },
    (),
)
RESOURCES = (
    {
        "devices": (list, True, (dict, False, DEVICE_RULE)),
        "memory": (dict, True, MEMORY),
        "cpu": (dict, True, CPU),
        "pids": (dict, True, PIDS),
        "blockIO": (dict, True, BLOCK_IO),
        "hugepageLimits": (list, True, (dict, False, HUGEPAGE_LIMIT)),
        "network": (dict, True, NETWORK),
        "rdma": (dict, True, (dict, False, RDMA)),
        "unified": (dict, True, (str, False, None)),
    },
    (),
)
NAMESPACE_TYPE = (
    "NamespaceType",
    frozenset((
        "pid",
        "network",
        "mount",
        "ipc",
        "uts",
        "user",
        "cgroup",
        "time",
    )),
)
NAMESPACE = (
    {
        "type": (str, False, NAMESPACE_TYPE),
        "path": (str, False, None),
    },
    ("type",),
)
DEVICE_TYPE = (
    "DeviceType",
    frozenset((
        "c",
        "b",
        "u",
        "p",
    )),
)
DEVICE = (
    {
        "type": (str, False, DEVICE_TYPE),
        "path": (str, False, None),
        "major": (int, False, INT64),
        "minor": (int, False, INT64),
        "fileMode": (int, True, UINT32),
        "uid": (int, True, UINT32),
        "gid": (int, True, UINT32),
    },
    ("type", "path",),
)
NET_DEVICE = (
    {
        "name": (str, False, None),
    },
    (),
)
SECCOMP_ACTION = (
    "SeccompAction",
    frozenset((
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
    )),
)
SECCOMP_ARCH = (
    "SeccompArch",
    frozenset((
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_M68K",
        "SCMP_ARCH_SH",
        "SCMP_ARCH_SHEB",
    )),
)
SECCOMP_FLAG = (
    "SeccompFlag",
    frozenset((
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    )),
)
SECCOMP_OPERATOR = (
    "SeccompOperator",
    frozenset((
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    )),
)
SYSCALL_ARG = (
    {
        "index": (int, False, UINT64),
        "value": (int, False, UINT64),
        "valueTwo": (int, False, UINT64),
        "op": (str, False, SECCOMP_OPERATOR),
    },
    ("index", "value", "op",),
)
SYSCALL = (
    {
        "names": (list, False, (str, False, None)),
        "action": (str, False, SECCOMP_ACTION),
        "errnoRet": (int, True, UINT64),
        "args": (list, True, (dict, False, SYSCALL_ARG)),
    },
    ("names", "action",),
)
SECCOMP = (
    {
        "defaultAction": (str, False, SECCOMP_ACTION),
        "defaultErrnoRet": (int, True, UINT64),
        "architectures": (list, True, (str, False, SECCOMP_ARCH)),
        "flags": (list, True, (str, False, SECCOMP_FLAG)),
        "listenerPath": (str, False, None),
        "listenerMetadata": (str, False, None),
        "syscalls": (list, True, (dict, False, SYSCALL)),
    },
    ("defaultAction",),
)
ROOTFS_PROPAGATION = (
    "RootfsPropagation",
    frozenset((
        "",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
    )),
)
INTEL_RDT = (
    {
        "closID": (str, False, None),
        "schemata": (list, True, (str, False, None)),
        "l3CacheSchema": (str, False, None),
        "memBwSchema": (str, False, None),
        "enableMonitoring": (bool, False, None),
    },
    (),
)
MEMORY_POLICY_MODE = (
    "MemoryPolicyMode",
    frozenset((
        "MPOL_DEFAULT",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_WEIGHTED_INTERLEAVE",
        "MPOL_PREFERRED",
        "MPOL_PREFERRED_MANY",
        "MPOL_LOCAL",
    )),
)
MEMORY_POLICY_FLAG = (
    "MemoryPolicyFlag",
    frozenset((
        "MPOL_F_NUMA_BALANCING",
        "MPOL_F_RELATIVE_NODES",
        "MPOL_F_STATIC_NODES",
    )),
)
MEMORY_POLICY = (
    {
        "mode": (str, False, MEMORY_POLICY_MODE),
        "nodes": (str, False, None),
        "flags": (list, True, (str, False, MEMORY_POLICY_FLAG)),
    },
    ("mode",),
)
PERSONALITY_DOMAIN = (
    "PersonalityDomain",
    frozenset((
        "LINUX",
        "LINUX32",
    )),
)
PERSONALITY = (
    {
        "domain": (str, False, PERSONALITY_DOMAIN),
        "flags": (list, True, (str, False, None)),
    },
    ("domain",),
)
TIME_OFFSET = (
    {
        "secs": (int, False, INT64),
        "nanosecs": (int, False, UINT32),
    },
    (),
)
LINUX = (
    {
        "uidMappings": (list, True, (dict, False, ID_MAPPING)),
        "gidMappings": (list, True, (dict, False, ID_MAPPING)),
        "sysctl": (dict, True, (str, False, None)),
        "resources": (dict, True, RESOURCES),
        "cgroupsPath": (str, False, None),
        "namespaces": (list, True, (dict, False, NAMESPACE)),
        "devices": (list, True, (dict, False, DEVICE)),
        "netDevices": (dict, True, (dict, False, NET_DEVICE)),
        "seccomp": (dict, True, SECCOMP),
        "rootfsPropagation": (str, False, ROOTFS_PROPAGATION),
        "maskedPaths": (list, True, (str, False, None)),
        "readonlyPaths": (list, True, (str, False, None)),
        "mountLabel": (str, False, None),
        "intelRdt": (dict, True, INTEL_RDT),
        "memoryPolicy": (dict, True, MEMORY_POLICY),
        "personality": (dict, True, PERSONALITY),
        "timeOffsets": (dict, True, (dict, False, TIME_OFFSET)),
    },
    (),
)
CONFIG = (
    {
        "ociVersion": (str, False, None),
        "process": (dict, True, PROCESS),
        "root": (dict, True, ROOT),
        "hostname": (str, False, None),
        "domainname": (str, False, None),
        "mounts": (list, True, (dict, False, MOUNT)),
        "hooks": (dict, True, HOOKS),
        "annotations": (dict, True, (str, False, None)),
        "linux": (dict, True, LINUX),
        "solaris": (dict, True, None),
        "windows": (dict, True, None),
        "vm": (dict, True, None),
        "zos": (dict, True, None),
        "freebsd": (dict, True, None),
    },
    ("ociVersion",),
)
