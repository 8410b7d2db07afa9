"""The vocabulary of the plan: every op that the init can perform, and how a plan is written down.

One row of OPS is one op: its number, its name, its arguments.  `python3 -m ocirt.plan.ops`
writes `ocirt/init/ops.h` from the same rows; each op has one case in `ocirt/init/ops.c`, whose
comment says exactly what it does.  Adding an op is a row here and a case there.

A plan is a list of `Op`.  It names files that the runtime opens for the init by a word
("fifo", "cgroup.pids", "ns.network"); `encode` turns the words into slots.

Two parts, one numbering: the ops up to and including CLONE are performed by stage 0, outside,
with the runtime's own privileges and namespaces; the rest by the cloned child, inside.

Wire format, native byte order, everything aligned to 8 bytes:

    part    u32 magic "OCP1" · u32 index of its first op · u32 count · u32 bytes of all ops
    op      u16 code · u16 argument count · u32 bytes (this op, head included)
    int     s64
    fd      s64, a slot: index into the descriptors received so far; -1 for none
    str     u32 length · u32 0 · the bytes, a NUL, padding to 8
    list    u32 length · u32 count · the strings, a NUL after each, padding to 8

and back from the init:

    reply   u32 type · u32 op index · s32 value · u32 length · text of that length
"""

from __future__ import annotations

from _struct import Struct

from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MAGIC = 0x3150434F  # "OCP1"
LARGEST = 64 << 20  # bytes of ops that one part may have; the init refuses more

# Replies of the init
FAIL = 1  # value: errno, or 0; text: what errno cannot say (a hook's output)
ASK = 2  # value: one of the ASK_ kinds; the init waits for four zero bytes
CLONED = 3  # value: pid of the child in the runtime's pid namespace
FD = 4  # value: an FD_ kind; one descriptor rides along
WARN = 5  # value: errno; the plan goes on
DONE = 6  # the gate is reached: nothing that could fail is left but the program itself

ASK_MAPS = 1  # write uid_map and gid_map of the child
ASK_HOOKS = 2  # run the prestart and createRuntime hooks
ASK_READY = 3  # set rlimits, save the state; an answer means: go on to the gate
ASK_SECCOMP = 4  # value of the *index* op is the listener's descriptor number: fetch it
ASK_NETWORK = 5  # move network devices into the child's namespace
ASK_RDMA = 6  # the same for RDMA devices
ASKS = {
    "maps": ASK_MAPS,
    "hooks": ASK_HOOKS,
    "ready": ASK_READY,
    "seccomp": ASK_SECCOMP,
    "network": ASK_NETWORK,
    "rdma": ASK_RDMA,
}

FD_CONSOLE = 1  # the master side of the container's terminal
FD_NETLINK = 2  # a netlink socket

OPS: tuple[tuple[int, str, str, str], ...] = (
    # code  name        argument types and names
    # i int, f fd (a word in the plan), s str, l list of str
    # --- outside, by stage 0
    (1,  "join",        "fii",     "fd nstype may_retry"),
    (2,  "open_tree",   "isi",     "slot path recursive"),
    (3,  "idmap",       "issi",    "slot uid_map gid_map recursive"),
    (4,  "devices",     "fs",      "cgroup program"),
    (5,  "write",       "ss",      "path data"),
    (6,  "affinity",    "s",       "mask"),
    (7,  "clone",       "if",      "flags cgroup"),
    (8,  "netlink",     "i",       "protocol"),
    (9,  "rdma_move",   "fi",      "namespace index"),
    # --- anywhere
    (10, "attach",      "f",       "tasks"),
    (11, "ask",         "i",       "kind"),
    (12, "try",         "",        ""),
    (13, "fail",        "i",       "errno"),
    # --- inside: the namespaces
    (20, "root_ids",    "",        ""),
    (21, "unshare",     "i",       "flags"),
    (22, "time_offsets", "s",      "offsets"),
    (23, "hostname",    "s",       "name"),
    (24, "domainname",  "s",       "name"),
    (25, "loopback",    "",        ""),
    (26, "keyring",     "s",       "name"),
    # --- inside: the file system
    (30, "propagation", "i",       "flags"),
    (31, "rootfs",      "si",      "path bind"),
    (32, "mount",       "sssisi",  "fstype source dest flags data how"),
    (33, "bind",        "sfsiiii", "source tree dest recursive set clear how"),
    (34, "set_attr",    "siiii",   "dest set clear propagation recursive"),
    (35, "remount",     "sis",     "dest flags data"),
    (36, "mkdir",       "sii",     "path mode how"),
    (37, "symlink",     "ssi",     "target path replace"),
    (38, "node",        "siiiiisi", "path mode major minor uid gid source bind"),
    (39, "hook",        "sllsssii", "path argv env before after label index timeout"),
    (40, "pivot",       "i",       "how"),
    (41, "sysctl",      "ss",      "key value"),
    (42, "mask",        "s",       "path"),
    (43, "readonly",    "s",       "path"),
    (44, "console",     "iiiii",   "height width uid gid bind"),
    (45, "reopen_null", "",        ""),
    (46, "hook_output", "ff",      "stdout stderr"),
    # --- inside: the process
    (50, "lsm",         "is",      "kind label"),
    (51, "no_new_privs", "",       ""),
    (52, "scheduler",   "s",       "attr"),
    (53, "io_priority", "i",       "value"),
    (54, "personality", "i",       "value"),
    (55, "mempolicy",   "is",      "mode nodes"),
    (56, "umask",       "i",       "value"),
    (57, "bounding",    "i",       "keep"),
    (58, "identity",    "iisi",    "uid gid groups set_groups"),
    (59, "capabilities", "iiii",   "effective permitted inheritable ambient"),
    (60, "seccomp",     "isi",     "flags program listener"),
    (61, "stdio",       "i",       "uid"),
    (62, "chdir",       "si",      "path early"),
    (63, "death_signal", "i",      "signal"),
    (64, "home",        "i",       "uid"),
    (65, "program",     "sll",     "name argv env"),
    (66, "gate",        "fii",     "fifo preserve keep"),
    (67, "close_fds",   "ii",      "preserve keep"),
    (68, "exec",        "",        ""),
    (69, "exit",        "i",       "status"),
)  # fmt: skip

# `how` of mount, bind and mkdir: what to make of the destination
MAKE_DIR = 1  # create a missing destination as a directory, with its parents
MAKE_FILE = 2  # create a missing destination as an empty file, with its parents
NO_LINKS = 4  # no component may be a symbolic link (/proc, /sys)
COPY_UP = 8  # mount of tmpfs: start with a copy of what the destination holds
VERIFY_PROC = 16  # afterwards the destination must be the root of a procfs
VERIFY_SYS = 32  # afterwards the destination must be a sysfs
IN_PROC = 64  # the destination may lie on a procfs; without it that is refused
ALL_OF_IT = 128  # bind: the attributes are for every mount of the tree, not the top alone

# `how` of pivot
PIVOT, MOVE, CHROOT = 0, 1, 2

# `kind` of lsm
APPARMOR, SELINUX = 0, 1

CODES = {name: (code, types) for code, name, types, _ in OPS}

_HEAD = Struct("=4I")
_OP = Struct("=HHI")
_INT = Struct("=q")
_UINT = Struct("=Q")
_LEN = Struct("=II")


class Op(tuple):  # type: ignore[type-arg] # subscripting costs an import
    """One step: `name`, its `args`, `where` in config.json it comes from, `what` it is about.

    `what` is the subject that an error message names ("/proc"), and the text of `ocirt plan`.
    """

    def __new__(cls, name: str, args: tuple[Any, ...] = (), where: str = "", what: str = "") -> Op:
        return tuple.__new__(cls, (name, args, where, what))

    written = b""  # as `encode` writes it, where that is kept

    name = property(lambda self: self[0])
    args = property(lambda self: self[1])
    where = property(lambda self: self[2])
    what = property(lambda self: self[3])


_PADS = [bytes(8 - length) for length in range(8)]  # that of a text, by what is over of its length
_words: dict[int, bytes] = {}  # the same few numbers come again and again


def _word(value: int) -> bytes:
    word = _words[value] = _INT.pack(value) if value < 1 << 63 else _UINT.pack(value)
    return word


def _strings(values: Iterable[str]) -> bytes:
    items = [v.encode("utf-8", "surrogateescape") for v in values]
    data = b"".join([item + b"\0" for item in items])
    return _LEN.pack(len(data), len(items)) + data + bytes(-len(data) % 8)


def encode(ops: list[Op], first: int, slots: dict[str, int], *, again: bool = False) -> bytes:
    """Write `ops` down as one part of a plan.

    first: index of ops[0] in the whole plan.  slots: the slot of each word used as an fd.
    again: whether some of these ops may come again, and are to keep what they come to.
    A str that holds a NUL is refused with ConfigError unless it is given as bytes.
    """
    parts: list[bytes] = []
    total = 0
    for op in ops:
        part = op.written or _written(op, slots, again)
        parts.append(part)
        total += len(part)
    if total > LARGEST:
        raise ConfigError(f"the plan is {total} bytes long, more than {LARGEST}")
    return b"".join([_HEAD.pack(MAGIC, first, len(ops), total), *parts])


def _written(op: Op, slots: dict[str, int], keep: bool) -> bytes:
    code, types = CODES[op[0]]
    args = op[1]
    assert len(args) == len(types)
    parts: list[bytes] = []
    for kind, value in zip(types, args):  # noqa: B905 - `strict` costs more than the loop
        if kind == "i":
            parts.append(_words.get(value) or _word(value))
        elif kind == "f":
            parts.append(_word(slots[value] if value else -1))
            keep = False
        elif kind == "s":
            if value.__class__ is str:
                if "\0" in value:
                    raise ConfigError(op[2], "holds a NUL character")
                value = value.encode("utf-8", "surrogateescape")
            length = len(value)
            parts += (_LEN.pack(length, 0), value, _PADS[length & 7])
        else:
            if any("\0" in item for item in value):
                raise ConfigError(op[2], "holds a NUL character")
            parts.append(_strings(value))
    body = b"".join(parts)
    part = _OP.pack(code, len(types), 8 + len(body)) + body
    if keep:
        op.written = part
    return part


def header() -> str:
    """Return the text of ocirt/init/ops.h: the numbers that both sides must agree on."""
    named = (
        (
            "REPLY_",
            "FAIL ASK CLONED FD WARN DONE ASK_MAPS ASK_HOOKS ASK_READY ASK_SECCOMP ASK_NETWORK "
            "ASK_RDMA FD_CONSOLE FD_NETLINK",
        ),
        ("HOW_", "MAKE_DIR MAKE_FILE NO_LINKS COPY_UP VERIFY_PROC VERIFY_SYS IN_PROC ALL_OF_IT"),
        ("ROOT_", "PIVOT MOVE CHROOT"),
        ("LSM_", "APPARMOR SELINUX"),
    )
    lines = [
        "/* Generated from ocirt/plan/ops.py by `make ops.h`; never edited. */",
        "#pragma once",
        f"#define PLAN_MAGIC 0x{MAGIC:08x}u",
        f"#define PLAN_LARGEST {LARGEST}u",
    ]
    for prefix, names in named:
        lines += [f"#define {prefix}{name} {globals()[name]}" for name in names.split()]
    lines.append(f"#define OP_LARGEST_CODE {max(code for code, *_ in OPS)}")
    lines.append(f"#define OP_MOST_ARGS {max(len(types) for _, _, types, _ in OPS)}")
    lines += [f"#define OP_{name.upper()} {code}" for code, name, _, _ in OPS]
    lines.append("/* X(CODE, handler, argument types) */")
    lines.append("#define OP_TABLE(X) \\")
    rows = [f'  X({code}, {name}, "{types}")' for code, name, types, _ in OPS]
    lines.append(" \\\n".join(rows))
    lines += [f"/* {name}: {names} */" for _, name, _, names in OPS if names]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(header())
