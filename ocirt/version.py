"""Who we are: our version, and the commit we were built from."""

from __future__ import annotations

from ocirt import system as os

VERSION = "0.1.0"

# Where libseccomp's real name is looked for; the file that the name leads to carries the version.
LIBRARIES = ("/usr/lib/{}-linux-gnu", "/usr/lib64", "/usr/lib", "/lib64", "/lib")


def commit() -> str:
    """Return the commit that the build recorded beside this file, or `unknown`."""
    try:
        with open(__file__.rpartition("/")[0] + "/COMMIT", "rb", buffering=0) as file:
            return file.read(80).decode("ascii").strip() or "unknown"
    except (OSError, ValueError):
        return "unknown"


def libseccomp() -> str:
    """Return the version of the machine's libseccomp, or an empty string.

    Read off the library's file name: loading the library would need ctypes.
    """
    machine = os.uname().machine
    for directory in LIBRARIES:
        real = os.path.realpath(f"{directory.format(machine)}/libseccomp.so.2")
        _, found, version = real.rpartition("/libseccomp.so.")
        if found and version != "2":
            return version
    return ""


def text() -> str:
    """Return what `--version` prints.

    dockerd splits the first line at "version" and looks for "commit: "; go-runc reads
    the lines commit and spec as well.
    """
    from ocirt.document import SPEC_VERSION

    lines = [f"ocirt version {VERSION}", f"commit: {commit()}", f"spec: {SPEC_VERSION}"]
    if seccomp := libseccomp():
        lines.append(f"libseccomp: {seccomp}")
    return "\n".join(lines) + "\n"
