"""Generated from the models by `python3 -m oci_spec.tables cdi`; never edited.

What the tables mean is written in oci_spec/tables.py; ocirt/shape.py walks them.
"""

# fmt: off
DEVICE_NODE_TYPE = (
    "DeviceNodeType",
    frozenset((
        "",
        "b",
        "c",
        "u",
        "p",
    )),
)
INT64 = (-9223372036854775808, 9223372036854775807)
UINT32 = (0, 4294967295)
DEVICE_NODE = (
    {
        "path": (str, False, None),
        "hostPath": (str, False, None),
        "type": (str, False, DEVICE_NODE_TYPE),
        "major": (int, False, INT64),
        "minor": (int, False, INT64),
        "fileMode": (int, True, UINT32),
        "permissions": (str, False, None),
        "uid": (int, True, UINT32),
        "gid": (int, True, UINT32),
    },
    ("path",),
)
NET_DEVICE = (
    {
        "hostInterfaceName": (str, False, None),
        "name": (str, False, None),
    },
    ("hostInterfaceName", "name",),
)
HOOK_NAME = (
    "HookName",
    frozenset((
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    )),
)
POSITIVE_UINT32 = (1, 4294967295)
HOOK = (
    {
        "hookName": (str, False, HOOK_NAME),
        "path": (str, False, None),
        "args": (list, True, (str, False, None)),
        "env": (list, True, (str, False, None)),
        "timeout": (int, True, POSITIVE_UINT32),
    },
    ("hookName", "path",),
)
MOUNT = (
    {
        "hostPath": (str, False, None),
        "containerPath": (str, False, None),
        "options": (list, True, (str, False, None)),
        "type": (str, False, None),
    },
    ("hostPath", "containerPath",),
)
INTEL_RDT = (
    {
        "closID": (str, False, None),
        "l3CacheSchema": (str, False, None),
        "memBwSchema": (str, False, None),
        "schemata": (list, True, (str, False, None)),
        "enableMonitoring": (bool, False, None),
    },
    (),
)
CONTAINER_EDITS = (
    {
        "env": (list, True, (str, False, None)),
        "deviceNodes": (list, True, (dict, False, DEVICE_NODE)),
        "netDevices": (list, True, (dict, False, NET_DEVICE)),
        "hooks": (list, True, (dict, False, HOOK)),
        "mounts": (list, True, (dict, False, MOUNT)),
        "intelRdt": (dict, True, INTEL_RDT),
        "additionalGids": (list, True, (int, False, UINT32)),
    },
    (),
)
DEVICE = (
    {
        "name": (str, False, None),
        "annotations": (dict, True, (str, False, None)),
        "containerEdits": (dict, False, CONTAINER_EDITS),
    },
    ("name", "containerEdits",),
)
SPEC = (
    {
        "cdiVersion": (str, False, None),
        "kind": (str, False, None),
        "annotations": (dict, True, (str, False, None)),
        "devices": (list, False, (dict, False, DEVICE)),
        "containerEdits": (dict, False, CONTAINER_EDITS),
    },
    ("cdiVersion", "kind", "devices",),
)
