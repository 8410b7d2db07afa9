"""What a CRIU is, what it can do, and whether it works on this machine: all without a container.

criu(8), "check"; CRIU: images/rpc.proto.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.criu import rpc, swrk
from ocirt.errors import Error

OLDEST = 30000  # the first version that tells its version


def version(path: str) -> int:
    """Return CRIU's version as one number: 3.17.1 is 31701."""
    service = swrk.Service(path, swrk.mute)
    try:
        found = service.ask({"type": rpc.VERSION}).get("version", {})
    except Error as error:
        raise Error("CRIU version check failed", str(error)) from None
    finally:
        service.close()
    major, minor = found.get("major_number", 0), found.get("minor_number", 0)
    number: int = major * 10000 + minor * 100 + found.get("sublevel", 0)
    return number


def require(found: int, wanted: int = OLDEST) -> None:
    """Refuse a CRIU that is too old."""
    if found < wanted:
        raise Error(f"CRIU version {found} must be {wanted} or higher")


def require_feature(path: str, feature: str) -> None:
    """Refuse a CRIU, or a kernel, without a feature, named as in criu_features."""
    service = swrk.Service(path, swrk.mute)
    try:
        answer = service.ask({"type": rpc.FEATURE_CHECK, "features": {feature: True}})
    except Error as error:
        reason = [complaint(path)]
        raise Error("CRIU feature check failed", str(error), *filter(None, reason)) from None
    finally:
        service.close()
    if not answer.get("features", {}).get(feature):
        raise Error(f"criu is missing features: [{feature}]", "CRIU or this kernel lacks it")


def look(path: str) -> tuple[str, str]:
    """Return CRIU's version ("3.17.1") and why it cannot work here, "" if it can.

    Runs it twice; neither changes anything.
    """
    try:
        number = version(path)
    except Error as error:
        return "unknown", str(error)
    major, rest = divmod(number, 10000)
    words = ".".join(map(str, (major, *divmod(rest, 100)))).removesuffix(".0")
    return words, complaint(path) if number >= OLDEST else "3.0 or later is needed"


def complaint(path: str) -> str:
    """Return what `criu check` finds missing, "" if nothing."""
    code, text = _run([path, "check"])
    if not code:
        return ""
    lines = [line for line in text.splitlines() if line.startswith("Error")]
    return lines[0] if lines else f"criu check: exit {code}"


def _run(argv: list[str]) -> tuple[int, str]:
    """Run a command; return its exit status and all that it printed."""
    output = os.memfd_create("criu-check", os.MFD_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        try:
            pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        except OSError as error:
            return 127, f"Error {error.strerror}"
        _, status = os.waitpid(pid, 0)
        text = os.pread(output, 1 << 16, 0).decode("utf-8", "replace")
        return os.waitstatus_to_exitcode(status), text
    finally:
        os.close(output)
