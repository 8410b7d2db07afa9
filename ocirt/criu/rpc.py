"""CRIU's messages as dicts: to bytes and back, by the names and numbers of its rpc.proto.

Protocol buffers have packages for this, none of which an installation of ours can count on, and
the handful of messages needs little: a table of fields, numbers of variable length, and bytes.
To use one more field, add it to MESSAGES.

A dict holds what is set and nothing else, so no default of CRIU's is ever repeated here.

protobuf.dev, "Encoding"; CRIU: images/rpc.proto.
"""

from __future__ import annotations

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# criu_req_type
DUMP, RESTORE, CHECK, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 3, 4, 6, 9, 10
TYPES = (
    "EMPTY", "DUMP", "RESTORE", "CHECK", "PRE_DUMP", "PAGE_SERVER", "NOTIFY", "CPUINFO_DUMP",
    "CPUINFO_CHECK", "FEATURE_CHECK", "VERSION", "WAIT_PID", "PAGE_SERVER_CHLD", "SINGLE_PRE_DUMP",
)  # fmt: skip

# criu_cg_mode, by the words of criu(8); "" is what CRIU does by itself
CGROUP_MODES = {"": 6, "ignore": 0, "soft": 3, "full": 4, "strict": 5}

# criu_network_lock_method
NETWORK_LOCKS = {"iptables": 1, "nftables": 2, "skip": 3}

INT, UINT, BOOL, STRING = "int32", "uint32", "bool", "string"  # an enum is an INT

# message: {field: (number, type)}; the type may be another message, and a * says "repeated"
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "criu_req": {
        "type": (1, INT),
        "opts": (2, "criu_opts"),
        "notify_success": (3, BOOL),
        "features": (5, "criu_features"),
    },
    "criu_opts": {
        "images_dir_fd": (1, INT),
        "pid": (2, INT),
        "leave_running": (3, BOOL),
        "ext_unix_sk": (4, BOOL),
        "tcp_established": (5, BOOL),
        "evasive_devices": (6, BOOL),
        "shell_job": (7, BOOL),
        "file_locks": (8, BOOL),
        "log_level": (9, INT),
        "log_file": (10, STRING),
        "ps": (11, "criu_page_server_info"),
        "notify_scripts": (12, BOOL),
        "root": (13, STRING),
        "parent_img": (14, STRING),
        "track_mem": (15, BOOL),
        "auto_dedup": (16, BOOL),
        "work_dir_fd": (17, INT),
        "link_remap": (18, BOOL),
        "ext_mnt": (23, "ext_mount_map*"),
        "manage_cgroups": (24, BOOL),
        "cg_root": (25, "cgroup_root*"),
        "rst_sibling": (26, BOOL),
        "inherit_fd": (27, "inherit_fd*"),
        "ext_masters": (30, BOOL),
        "manage_cgroups_mode": (34, INT),
        "external": (37, "string*"),
        "empty_ns": (38, UINT),
        "join_ns": (39, "join_namespace*"),
        "freeze_cgroup": (44, STRING),
        "tcp_skip_in_flight": (46, BOOL),
        "lazy_pages": (48, BOOL),
        "status_fd": (49, INT),
        "orphan_pts_master": (50, BOOL),
        "config_file": (51, STRING),
        "tcp_close": (52, BOOL),
        "lsm_profile": (53, STRING),
        "lsm_mount_context": (63, STRING),
        "network_lock": (64, INT),
    },
    "criu_page_server_info": {"address": (1, STRING), "port": (2, INT)},
    "ext_mount_map": {"key": (1, STRING), "val": (2, STRING)},
    "cgroup_root": {"ctrl": (1, STRING), "path": (2, STRING)},
    "inherit_fd": {"key": (1, STRING), "fd": (2, INT)},
    "join_namespace": {"ns": (1, STRING), "ns_file": (2, STRING)},
    "criu_features": {"mem_track": (1, BOOL), "lazy_pages": (2, BOOL)},
    "criu_resp": {
        "type": (1, INT),
        "success": (2, BOOL),
        "restore": (4, "criu_restore_resp"),
        "notify": (5, "criu_notify"),
        "cr_errno": (7, INT),
        "features": (8, "criu_features"),
        "version": (10, "criu_version"),
    },
    "criu_restore_resp": {"pid": (1, INT)},
    "criu_notify": {"script": (1, STRING), "pid": (2, INT)},
    "criu_version": {
        "major_number": (1, INT),
        "minor_number": (2, INT),
        "sublevel": (4, INT),
    },
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are long out of use


def encode(message: str, values: dict[str, Any]) -> bytes:
    """Return a message; the fields in the order of the table, as CRIU's own library writes them."""
    fields = MESSAGES[message]
    assert fields.keys() >= values.keys(), values.keys() - fields.keys()
    data = b""
    for name, (number, kind) in sorted(fields.items(), key=lambda item: item[1]):
        if name in values:
            repeated = kind[-1] == "*"
            for value in values[name] if repeated else (values[name],):
                data += _field(number, kind.removesuffix("*"), value)
    return data


def _field(number: int, kind: str, value: Any) -> bytes:
    if kind in (INT, UINT, BOOL):
        # A negative number takes ten bytes: its two's complement in 64 bits.
        return _varint(number << 3 | _VARINT) + _varint(int(value) & 0xFFFFFFFFFFFFFFFF)
    data = value.encode("utf-8", "surrogateescape") if kind == STRING else encode(kind, value)
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def decode(message: str, data: bytes) -> dict[str, Any]:
    """Return what a message sets; fields that the table lacks are passed over.

    Raises Error for what is no message of this kind.
    """
    known = {number: (name, kind) for name, (number, kind) in MESSAGES[message].items()}
    found: dict[str, Any] = {}
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == _VARINT:
            value, place = _read_varint(data, place)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
            if wire == _BYTES:
                size, place = _read_varint(data, place)
            elif not size:
                raise _garbage(f"wire type {wire}")
            if size > len(data) - place:
                raise _garbage("cut short")
            value, place = data[place : place + size], place + size
        if number in known:
            name, kind = known[number]
            _keep(found, name, kind, wire, value)
    return found


def _keep(found: dict[str, Any], name: str, kind: str, wire: int, value: Any) -> None:
    kind = kind.removesuffix("*")
    if wire != (_VARINT if kind in (INT, UINT, BOOL) else _BYTES):
        raise _garbage(f"{name} of wire type {wire}")
    if kind == BOOL:
        value = value != 0
    elif kind in (INT, UINT):
        value &= 0xFFFFFFFF
        if kind == INT and value > 0x7FFFFFFF:
            value -= 1 << 32
    elif kind == STRING:
        value = value.decode("utf-8", "surrogateescape")
    else:
        value = decode(kind, value)
    found[name] = value


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(data):
            raise _garbage("cut short")
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise _garbage("a number without end")


def _garbage(what: str) -> Error:
    return Error("criu sent what is no message", what)
