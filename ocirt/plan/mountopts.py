"""The mount options of config.json, each one row.

`ocirt features` lists these tables, so a new option is a new row and nothing else.  Whatever no
table knows goes to the file system as data, and the kernel refuses what it does not know: a
typing error never vanishes.

runtime-spec, config.md, "Linux mount options"; mount(8), mount_setattr(2).
"""

from __future__ import annotations

from ocirt.kernel import consts as k

# option: (flag of mount(2), whether the option sets it, attribute of mount_setattr(2) or 0)
FLAGS: dict[str, tuple[int, bool, int]] = {
    "async":         (k.MS_SYNCHRONOUS, False, 0),
    "atime":         (k.MS_NOATIME, False, k.MOUNT_ATTR_NOATIME),
    "defaults":      (0, True, 0),
    "dev":           (k.MS_NODEV, False, k.MOUNT_ATTR_NODEV),
    "diratime":      (k.MS_NODIRATIME, False, k.MOUNT_ATTR_NODIRATIME),
    "dirsync":       (k.MS_DIRSYNC, True, 0),
    "exec":          (k.MS_NOEXEC, False, k.MOUNT_ATTR_NOEXEC),
    "iversion":      (k.MS_I_VERSION, True, 0),
    "lazytime":      (k.MS_LAZYTIME, True, 0),
    "loud":          (k.MS_SILENT, False, 0),
    "mand":          (k.MS_MANDLOCK, True, 0),
    "noatime":       (k.MS_NOATIME, True, k.MOUNT_ATTR_NOATIME),
    "nodev":         (k.MS_NODEV, True, k.MOUNT_ATTR_NODEV),
    "nodiratime":    (k.MS_NODIRATIME, True, k.MOUNT_ATTR_NODIRATIME),
    "noexec":        (k.MS_NOEXEC, True, k.MOUNT_ATTR_NOEXEC),
    "noiversion":    (k.MS_I_VERSION, False, 0),
    "nolazytime":    (k.MS_LAZYTIME, False, 0),
    "nomand":        (k.MS_MANDLOCK, False, 0),
    "norelatime":    (k.MS_RELATIME, False, k.MOUNT_ATTR_RELATIME),
    "nostrictatime": (k.MS_STRICTATIME, False, k.MOUNT_ATTR_STRICTATIME),
    "nosuid":        (k.MS_NOSUID, True, k.MOUNT_ATTR_NOSUID),
    "nosymfollow":   (k.MS_NOSYMFOLLOW, True, k.MOUNT_ATTR_NOSYMFOLLOW),
    "relatime":      (k.MS_RELATIME, True, k.MOUNT_ATTR_RELATIME),
    "remount":       (k.MS_REMOUNT, True, 0),
    "ro":            (k.MS_RDONLY, True, k.MOUNT_ATTR_RDONLY),
    "rw":            (k.MS_RDONLY, False, k.MOUNT_ATTR_RDONLY),
    "silent":        (k.MS_SILENT, True, 0),
    "strictatime":   (k.MS_STRICTATIME, True, k.MOUNT_ATTR_STRICTATIME),
    "suid":          (k.MS_NOSUID, False, k.MOUNT_ATTR_NOSUID),
    "symfollow":     (k.MS_NOSYMFOLLOW, False, k.MOUNT_ATTR_NOSYMFOLLOW),
    "sync":          (k.MS_SYNCHRONOUS, True, 0),
}  # fmt: skip

BINDS = {"bind": False, "rbind": True}  # option: recursive

PROPAGATION: dict[str, tuple[int, bool]] = {
    "private":     (k.MS_PRIVATE, False),
    "rprivate":    (k.MS_PRIVATE, True),
    "rshared":     (k.MS_SHARED, True),
    "rslave":      (k.MS_SLAVE, True),
    "runbindable": (k.MS_UNBINDABLE, True),
    "shared":      (k.MS_SHARED, False),
    "slave":       (k.MS_SLAVE, False),
    "unbindable":  (k.MS_UNBINDABLE, False),
}  # fmt: skip

# Attributes that reach every mount below as well, by mount_setattr(2): option: (attribute, set)
RECURSIVE: dict[str, tuple[int, bool]] = {
    "ratime":         (k.MOUNT_ATTR_NOATIME, False),
    "rdev":           (k.MOUNT_ATTR_NODEV, False),
    "rdiratime":      (k.MOUNT_ATTR_NODIRATIME, False),
    "rexec":          (k.MOUNT_ATTR_NOEXEC, False),
    "rnoatime":       (k.MOUNT_ATTR_NOATIME, True),
    "rnodev":         (k.MOUNT_ATTR_NODEV, True),
    "rnodiratime":    (k.MOUNT_ATTR_NODIRATIME, True),
    "rnoexec":        (k.MOUNT_ATTR_NOEXEC, True),
    "rnorelatime":    (k.MOUNT_ATTR_RELATIME, False),
    "rnostrictatime": (k.MOUNT_ATTR_STRICTATIME, False),
    "rnosuid":        (k.MOUNT_ATTR_NOSUID, True),
    "rnosymfollow":   (k.MOUNT_ATTR_NOSYMFOLLOW, True),
    "rrelatime":      (k.MOUNT_ATTR_RELATIME, True),
    "rro":            (k.MOUNT_ATTR_RDONLY, True),
    "rrw":            (k.MOUNT_ATTR_RDONLY, False),
    "rstrictatime":   (k.MOUNT_ATTR_STRICTATIME, True),
    "rsuid":          (k.MOUNT_ATTR_NOSUID, False),
    "rsymfollow":     (k.MOUNT_ATTR_NOSYMFOLLOW, False),
}  # fmt: skip

EXTENSIONS = {"idmap": False, "ridmap": True, "tmpcopyup": False}

# The attributes that share one field of the mount: a change of one names them all.
_ATIME = {"atime", "noatime", "relatime", "norelatime", "strictatime", "nostrictatime"}
_RATIME = {"r" + name for name in _ATIME}


class Options:
    """What the options of one mount come to.

    flags           for mount(2), after all sets and clears, without MS_BIND
    set, clear      for mount_setattr(2) on a bind mount: only what the options name, so that
                    nosuid, nodev and the like of the source stay unless they are cleared by name
    bind            None, or whether the bind is recursive
    propagation     [(type, recursive)], in the order given
    rset, rclear    recursive attributes; both 0 when there are none
    rchange         whether there is any recursive attribute
    idmap           None, or whether the id mapping is recursive
    copy_up         tmpcopyup was asked for
    data            what is left for the file system, joined by commas; on a bind mount the kernel
                    ignores it, and so do runc 1.1, crun and we: engines send it
    """

    __slots__ = (
        "bind", "clear", "copy_up", "data", "flags", "idmap",
        "propagation", "rchange", "rclear", "rset", "set",
    )  # fmt: skip

    def __init__(self) -> None:
        self.flags = self.set = self.clear = self.rset = self.rclear = 0
        self.bind: bool | None = None
        self.idmap: bool | None = None
        self.copy_up = self.rchange = False
        self.propagation: list[tuple[int, bool]] = []
        self.data = ""


def parse(options: list[str]) -> Options:
    """Sort the options of one mount; later ones win over earlier ones."""
    found = Options()
    data = []
    for option in options:
        row = FLAGS.get(option)
        if row is not None:
            flag, sets, attribute = row
            found.flags = found.flags | flag if sets else found.flags & ~flag
            if option in _ATIME:
                _atime(found, attribute, sets)
            elif attribute:
                found.set, found.clear = _change(found.set, found.clear, attribute, sets)
        elif option in BINDS:
            found.bind = BINDS[option] or bool(found.bind)
        elif option in PROPAGATION:
            found.propagation.append(PROPAGATION[option])
        elif option in RECURSIVE:
            found.rchange = True
            attribute, sets = RECURSIVE[option]
            if option in _RATIME:
                found.rset = found.rset & ~k.MOUNT_ATTR__ATIME | (attribute if sets else 0)
                found.rclear |= k.MOUNT_ATTR__ATIME
            else:
                found.rset, found.rclear = _change(found.rset, found.rclear, attribute, sets)
        elif option in ("idmap", "ridmap"):
            found.idmap = EXTENSIONS[option]
        elif option == "tmpcopyup":
            found.copy_up = True
        elif option:
            data.append(option)
    found.data = ",".join(data)
    return found


def _change(sets: int, clears: int, attribute: int, on: bool) -> tuple[int, int]:
    if on:
        return sets | attribute, clears & ~attribute
    return sets & ~attribute, clears | attribute


def _atime(found: Options, attribute: int, sets: bool) -> None:
    """Access times are one field with three values, not three bits (mount_setattr(2))."""
    found.clear |= k.MOUNT_ATTR__ATIME
    if sets:
        found.set = found.set & ~k.MOUNT_ATTR__ATIME | attribute


def names() -> list[str]:
    """Return every option that the runtime itself understands, sorted, for `ocirt features`."""
    return sorted([*FLAGS, *BINDS, *PROPAGATION, *RECURSIVE, *EXTENSIONS])
