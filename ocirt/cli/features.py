"""ocirt features: print what the runtime can do, whatever this machine can.

Engines decide by it whether to ask for recursive read-only mounts, id-mapped mounts and the
like.  Every list comes from the table that the code itself runs on, so that it cannot promise
what is not there.  Needs no root, no container and no state root.

runtime-spec, features.md and features-linux.md.
"""

from __future__ import annotations

import sys

from ocirt import cgroup, checkpoint, checks, cli, handover, hookfiles, jsonio, shape, version
from ocirt.cgroup import systemd_unit, v1
from ocirt.document import SPEC_VERSION
from ocirt.errors import ConfigError
from ocirt.plan import identity, mountopts, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings
    from ocirt.plan.libseccomp import Library

USAGE = ""
WORDS = (0, 0)
OPTIONS = ()

# Annotations of a config that change what the runtime does; a dot at the end makes a prefix.
# Whoever reads one from a config names it here.
UNSAFE_ANNOTATIONS: tuple[str, ...] = (
    identity.KEEP_GROUPS,
    *hookfiles.ANNOTATIONS,
    handover.PIDFD_RECEIVER,
    systemd_unit.ANNOTATION,
    checkpoint.CONFIG_ANNOTATION,
)


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the document."""
    sys.stdout.write(jsonio.dumps(document(), indent=4) + "\n")
    return 0


def document() -> dict[str, Any]:
    """Return what the specification calls the features structure."""
    return {
        "ociVersionMin": "1.0.0",  # checks.version takes any 1.x
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(_fields("hooks")),
        "mountOptions": mountopts.names(),
        "linux": linux(),
        "annotations": extras(),
        "potentiallyUnsafeConfigAnnotations": list(UNSAFE_ANNOTATIONS),
    }


def linux() -> dict[str, Any]:
    """Return the part that only Linux has."""
    rdt, systemd = supports("linux.intelRdt"), "systemd" in cgroup.DRIVERS
    return {
        "namespaces": sorted(namespaces.TYPES),
        "capabilities": list(identity.CAPABILITIES),
        "cgroup": {
            "v1": True,
            "v2": True,
            "systemd": systemd,
            "systemdUser": systemd,
            "rdma": "rdma" in v1.CONTROLLERS,
        },
        "seccomp": seccomp(),
        "apparmor": {"enabled": supports("process.apparmorProfile")},
        "selinux": {"enabled": supports("process.selinuxLabel")},
        "intelRdt": {"enabled": rdt, "schemata": rdt, "monitoring": rdt},
        "memoryPolicy": {
            "modes": list(identity.MEMORY_MODES),
            "flags": list(identity.MEMORY_FLAGS),
        },
        "mountExtensions": {"idmap": {"enabled": "idmap" in mountopts.EXTENSIONS}},
        "netDevices": {"enabled": supports("linux.netDevices")},
    }


def supports(place: str) -> bool:
    """Tell whether a config may have anything there."""
    return place not in [refused for refused, _ in checks.UNSUPPORTED]


def _fields(*path: str) -> Any:
    """Return the fields that the shape of a config has at a place."""
    found: Any = shape.CONFIG
    for name in path:
        _, _, found = found[0][name]
    return found[0]


def seccomp() -> dict[str, Any]:
    """Return the names that a filter may use."""
    from ocirt.plan import seccomp_compile
    from ocirt.plan.libseccomp import COMPARE, Library

    # a list; of strings; of a type that has a name, and these names
    _, _, (_, _, (_, names)) = _fields("linux", "seccomp")["architectures"]
    try:
        library = Library()
    except ConfigError:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(seccomp_compile.ACTIONS),
        "operators": sorted(COMPARE),
        "archs": [name for name in sorted(names) if library.architecture(_short(name))],
        "knownFlags": sorted(seccomp_compile.FLAGS),
        "supportedFlags": [
            name
            for name, flag in sorted(seccomp_compile.FLAGS.items())
            if kernel_takes(flag, library)
        ],
    }


def _short(name: str) -> str:
    return name.removeprefix("SCMP_ARCH_").lower()


def kernel_takes(flag: int, library: Library) -> bool:
    """Ask the kernel for a filter with a flag, but without a filter: is the flag its complaint?"""
    import ctypes
    from errno import EFAULT

    from ocirt.plan.seccomp_compile import WAIT_KILLABLE_RECV

    set_mode_filter, new_listener = 1, 1 << 3  # linux/seccomp.h
    if flag == WAIT_KILLABLE_RECV:  # no use without a listener
        flag |= new_listener
    number = library.syscall_on(library.native(), "seccomp")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(ctypes.c_long(number), set_mode_filter, ctypes.c_ulong(flag), None)
    return ctypes.get_errno() == EFAULT


def extras() -> dict[str, str]:
    """Return what engines want to know beyond the specification."""
    found = {
        "ocirt.version": version.VERSION,
        "ocirt.commit": version.commit(),
        # CRI-O and Podman look for this one, whatever the runtime's name is.
        "org.opencontainers.runc.checkpoint.enabled": str("checkpoint" in cli.COMMANDS).lower(),
    }
    if library := version.libseccomp():
        found["io.github.seccomp.libseccomp.version"] = library
    return found
