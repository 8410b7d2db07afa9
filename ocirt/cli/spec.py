"""`ocirt spec`: write a config.json to start from, the same that runc users know."""

from __future__ import annotations

from ocirt import system as os
from ocirt.document import SPEC_VERSION
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options]"
WORDS = (0, 0)
OPTIONS = (
    ("bundle", "b", "DIR", "", "write into DIR instead of the current directory"),
    ("config", "f", "FILE", "config.json", "the name of the file"),
    ("rootless", "", "", False, "for a container of a user who is not root"),
)
ABOUT = """\
The file describes a container that runs `sh` on a read-only root file system in the
directory `rootfs` beside it. Its first line to edit is usually process.args."""

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]

MOUNTS = (
    # destination      type      source    options
    ("/proc",          "proc",   "proc",   ""),
    ("/dev",           "tmpfs",  "tmpfs",  "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts",       "devpts", "devpts",
     "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm",       "tmpfs",  "shm",    "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue",    "mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys",           "sysfs",  "sysfs",  "nosuid,noexec,nodev,ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
)  # fmt: skip

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)

READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def run(arguments: Arguments, settings: Settings) -> int:
    """Write the file; one that exists is left alone."""
    from json import dumps

    path = os.path.join(arguments.bundle, arguments.config)
    config = example(unified=os.path.exists("/sys/fs/cgroup/cgroup.controllers"))
    if arguments.rootless:
        config = rootless(config, os.geteuid(), os.getegid())
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(dumps(config, indent="\t", ensure_ascii=False))
    except FileExistsError:
        raise Error(f"File {arguments.config} exists. Remove it first") from None
    return 0


def example(*, unified: bool) -> dict[str, Any]:
    """Return the configuration that `ocirt spec` writes.

    unified: this machine has cgroup v2 alone, so that a cgroup namespace hides the rest.
    """
    namespaces = ["pid", "network", "ipc", "uts", "mount"] + ["cgroup"] * unified
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "ocirt",
        "mounts": [_mount(*row) for row in MOUNTS],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }


def _mount(destination: str, kind: str, source: str, options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = options.split(",")
    return mount


def rootless(config: dict[str, Any], uid: int, gid: int) -> dict[str, Any]:
    """Return `config` changed so that the user `uid` may run it.

    A user namespace maps this one user to root, and what needs more than that goes: the
    network namespace (nobody could connect it), device rules, groups beside the own one,
    and a fresh sysfs, which the kernel only gives to who owns the network namespace.
    """
    mounts = []
    for mount in config["mounts"]:
        if mount["destination"] == "/sys":
            mount = _mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro")
        options = mount.get("options", [])
        kept = [option for option in options if option[:4] not in ("gid=", "uid=")]
        mounts.append({**mount, "options": kept} if kept else mount)
    linux = {key: value for key, value in config["linux"].items() if key != "resources"}
    namespaces = [row for row in linux["namespaces"] if row["type"] != "network"]
    return {
        **config,
        "mounts": mounts,
        "linux": {
            "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
            **linux,
            "namespaces": [*namespaces, {"type": "user"}],
        },
    }
