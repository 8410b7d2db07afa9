"""Configs for tests: one by hand as an engine writes it, and any number by hypothesis."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import strategies as st

from ocirt import shape

ENGINE = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": False,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [4, 27]},
        "args": ["/bin/sh", "-c", "echo hello"],
        "env": ["PATH=/usr/bin:/bin", "HOME=/root", "EMPTY="],
        "cwd": "/",
        "capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "permitted": ["CAP_CHOWN"],
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2**64 - 1}],
        "noNewPrivileges": True,
        "oomScoreAdj": -500,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1", "final": "0,1"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "web",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/data",
            "type": "bind",
            "source": "/srv",
            "options": ["rbind", "ro"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        },
    ],
    "hooks": {"createRuntime": [{"path": "/bin/true", "args": ["true"], "timeout": 5}]},
    "annotations": {"org.example.key": "value"},
    "linux": {
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "cgroupsPath": "/ocirt-test/web",
        "namespaces": [
            {"type": "pid"},
            {"type": "mount"},
            {"type": "uts"},
            {"type": "ipc"},
            {"type": "network", "path": "/run/netns/web"},
            {"type": "time"},
        ],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438}],
        "resources": {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            ],
            "memory": {"limit": 536870912, "swap": -1, "swappiness": 60},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"},
            "pids": {"limit": 100},
            "blockIO": {
                "weight": 100,
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_0": {"hcaHandles": 3}},
            "unified": {"memory.high": "1073741824"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["personality"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
                },
            ],
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX"},
        "timeOffsets": {"monotonic": {"secs": 5, "nanosecs": 1}},
    },
    "vm": {"kernel": {"path": "/boot/vmlinuz"}},
}


def engine():
    """Return a config that has most of the fields and no fault."""
    return deepcopy(ENGINE)


def put(config, place, value):
    """Set the field at a place such as `process.rlimits[0].soft`; `...` takes it out."""
    *way, last = [
        int(part) if part.isdecimal() else part
        for part in place.replace("[", ".").replace("]", "").split(".")
    ]
    for part in way:
        config = config[part] if isinstance(part, int) else config.setdefault(part, {})
    if value is ...:
        del config[last]
    else:
        config[last] = value


TEXT = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0x2FFF), max_size=8) | (
    st.sampled_from(["", "/", "/proc", "..", "a=b", "=", "rwm", "0-3,7", "eth0", "1.0.2", "NAME"])
)

# What stands where something else belongs.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, 2**64, -(2**31) - 1, -(2**63) - 1, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    st.just([]),
    st.just({}),
    st.lists(st.none() | st.integers() | TEXT, max_size=2),
    st.dictionaries(TEXT, st.none() | st.integers() | TEXT, max_size=2),
)


def valid(rule=(dict, False, shape.CONFIG), depth=0):
    """Return a strategy for values that keep a rule of the tables."""
    kind, nullable, detail = rule
    if kind is str:
        found = TEXT if detail is None else st.sampled_from(sorted(detail[1]))
    elif kind is int:
        least, greatest = detail
        found = st.integers(least, greatest) | st.sampled_from([least, greatest])
    elif kind is bool:
        found = st.booleans()
    elif kind is list:
        found = st.lists(valid(detail, depth + 1), max_size=2)
    elif detail is None:
        found = st.dictionaries(TEXT, TEXT, max_size=2)
    elif detail[0].__class__ is dict:
        found = _object(detail, depth)
    else:
        found = st.dictionaries(TEXT, valid(detail, depth + 1), max_size=2)
    return found | st.none() if nullable else found


def _object(detail, depth):
    fields, required = detail
    inner = {
        name: valid(rule, depth + 1) if depth < 7 or name in required else st.just(...)
        for name, rule in fields.items()
    }

    @st.composite
    def draw_object(draw):
        optional = [name for name in fields if name not in required]
        chosen = draw(st.lists(st.sampled_from(optional), unique=True)) if optional else []
        value = {name: draw(inner[name]) for name in (*required, *chosen)}
        if draw(st.integers(0, 9)) == 0:
            value["unknownToUs"] = draw(ODD)
        return {name: item for name, item in value.items() if item is not ...}

    return draw_object()


def places(value, way=()):
    """Yield the way to every value inside a document."""
    if value.__class__ is dict:
        for name, item in value.items():
            yield (*way, name)
            yield from places(item, (*way, name))
    elif value.__class__ is list:
        for index, item in enumerate(value):
            yield (*way, index)
            yield from places(item, (*way, index))


@st.composite
def mutated(draw, documents):
    """Return a document in which up to three values were replaced, taken out or misnamed."""
    document = deepcopy(draw(documents))
    for _ in range(draw(st.integers(0, 3))):
        ways = list(places(document))
        if not ways:
            break
        *way, last = draw(st.sampled_from(ways))
        held = document
        for part in way:
            held = held[part]
        change = draw(st.sampled_from(["replace", "remove", "rename"]))
        if change == "replace" or last.__class__ is int:
            held[last] = draw(ODD)
        elif change == "remove":
            del held[last]
        else:
            held[last.swapcase()] = held.pop(last)
    return document
