"""The Multi-Process Service: the folder by which programs reach a daemon that shares out a GPU.

First of these that says anything:

    ocirt.hpc/mps=true, false      (annotation) whether a container gets the daemon's folder
    CUDA_MPS_PIPE_DIRECTORY        of the runtime's own environment, which a batch system or the
                                   user of the job has set: the folder
    DEFAULT                        where the host has that folder, and the container none of its own

A variable of the container, which its image may set, names no folder of the host: it says only that
the container knows better.  A folder in /tmp may be anybody's, and who has it reads what programs
send to the GPU: it counts only if it belongs to root or to us, and if nobody else can put another
in its place.  It is walked by descriptors, and no link in the way is followed.

Source: CUDA Multi-Process Service, "Environment variables".
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError, KernelError
from ocirt_hpc import parts
from ocirt_hpc.host import ABSENT
from ocirt_hpc.request import flag, has_namespace, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.notes import Notes

ASK = "ocirt.hpc/mps"
PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
DEFAULT = "/tmp/nvidia-mps"

OPTIONS = ("bind", "nosuid", "nodev", "noexec", "private")  # a pipe is written to

# What a container has of its own there.
KEPT = ("/proc", "/sys", "/dev")

S_ISVTX = 0o1000
O_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sections(
    config: dict[str, Any], host: Host, notes: Notes, setting: str, origin: str
) -> list[Section]:
    """Return the edits that let a container reach the daemon; [] where nothing asks for it.

    setting: nvidia.mps.  origin: what asks for GPUs.  ConfigError where an annotation asks for a
    daemon that there is not, whose folder is not to be trusted, or that the site gives nobody.
    """
    asked, named = flag(config, ASK), os.environ.get(PIPE, "")
    if asked is not None and asked.names == ["false"]:
        return []
    if asked is not None and setting == "never":
        raise ConfigError(asked.where, 'the site does not allow it (nvidia.mps is "never")')
    path, who = named or DEFAULT, f"{PIPE}={named}"
    if asked is not None:
        who = asked.origin
    elif setting == "never":
        return []
    elif not named:
        if setting != "auto" or not host.exists(path) or PIPE in variables(config):
            return []
        who = origin
    try:
        check(host, path)
    except (ConfigError, KernelError) as error:
        if asked is not None:
            raise ConfigError(asked.where, *error.segments) from None
        notes.leave_out(who, f"no MPS: {error}")
        return []
    if asked is not None:
        notes.allow(asked)
    elif named:
        notes.rules[who] = "the job's environment"
    made: list[Section] = [(who, {"mounts": [_mount(host, path)]})]
    if who != origin:
        made[0][1]["env"] = [f"{PIPE}={path}"]
        made += _log(host, notes, os.environ.get(LOG, ""), who)
    if has_namespace(config, "ipc"):
        notes.suggest(who, "programs of MPS want the host's IPC namespace (docker run --ipc=host)")
    return made


def _log(host: Host, notes: Notes, path: str, who: str) -> list[Section]:
    """Return the edits for the folder where the daemon writes; programs only read there."""
    if not path:
        return []
    try:
        check(host, path)
    except (ConfigError, KernelError) as error:
        notes.leave_out(f"{LOG}={path}", str(error))
        return []
    mount = _mount(host, path)
    mount["options"].insert(1, "ro")
    return [(who, {"mounts": [mount], "env": [f"{LOG}={path}"]})]


def _mount(host: Host, path: str) -> dict[str, Any]:
    options = list(OPTIONS)
    return {"containerPath": path, "hostPath": host.root + path, "options": options}


def check(host: Host, path: str) -> None:
    """Refuse a folder that is not there, or that somebody else could have put there.

    ConfigError or KernelError begins with the path.
    """
    parts.path(path)
    names = [name for name in path.split("/") if name not in ("", ".")]
    if not names or f"/{names[0]}" in KEPT:
        raise ConfigError(path, "is no place for it")
    owners = {0, os.geteuid()}
    fd = os.open(host.root or "/", O_WALK)
    here = ""
    try:
        for index, name in enumerate(names):
            here += f"/{name}"
            within = os.open(name, O_WALK, dir_fd=fd)
            os.close(fd)
            fd = within
            seen = os.fstat(fd)
            # The daemon lets everybody write into the folder itself.
            above = index < len(names) - 1 and not seen.st_mode & S_ISVTX
            if seen.st_uid not in owners or (above and seen.st_mode & 0o022):
                raise ConfigError(
                    here,
                    "has to belong to root or to us and be writable for nobody else"
                    f" (it belongs to {seen.st_uid}, mode {seen.st_mode & 0o7777:04o})",
                )
    except ABSENT:
        raise ConfigError(here, "is not there, or is a link") from None
    except OSError as error:
        raise KernelError(error.errno or 0, here) from error
    finally:
        os.close(fd)
