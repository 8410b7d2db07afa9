"""The program: where it starts, with what environment, how it is found, and the exec itself.

The init looks the program up inside the container, as the user it will run as; what it reports
is an errno, and `lookup_error` words it.

Descriptors: 0 to 2 are the program's; then come those of socket activation (LISTEN_FDS), then
those of --preserve-fds, then the one of --pmi-fd, which keeps its number; all else is closed by the
exec.

runtime-spec, config.md, "Process"; sd_listen_fds(3).
"""

from __future__ import annotations

from _json import encode_basestring as quote
from errno import EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR

from ocirt.errors import ConfigError, strerror
from ocirt.plan.ops import MAKE_DIR, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENV = "process.env"


def environment(env: list[str], listen: int = 0) -> list[str]:
    """Return the variables as the program gets them: of equal names the last, at its own place.

    listen: how many descriptors of socket activation follow 2.  An empty HOME counts as none, so
    that the one of /etc/passwd takes its place.
    """
    if listen:
        # The container's first process is 1 wherever the question makes sense.
        env = [*env, f"LISTEN_FDS={listen}", "LISTEN_PID=1"]
    last: dict[str, int] = {}
    for index, item in enumerate(env):
        name, equals, _ = item.partition("=")
        if not equals:
            raise _invalid(index, "missing '='")
        if not name:
            raise _invalid(index, "name cannot be empty")
        if "\0" in item:
            raise _invalid(index, f"{quote(name)} contains nul byte (\\x00)")
        last[name] = index
    return [
        item
        for index, item in enumerate(env)
        if last[item.partition("=")[0]] == index and item != "HOME="
    ]


def _invalid(index: int, what: str) -> ConfigError:
    return ConfigError(f"{ENV}[{index}]", "invalid environment variable", what)


def make_cwd(config: dict[str, Any]) -> list[Op]:
    """Create a missing working directory, owned by root."""
    cwd = _cwd(config)
    return [] if cwd in ("", "/") else [Op("mkdir", (cwd, 0o755, MAKE_DIR), "process.cwd", cwd)]


def enter_cwd(config: dict[str, Any], early: bool) -> list[Op]:
    """Change to the working directory.

    Twice: early as root, who may enter what is closed to the user; then, only if root was refused
    (a home on NFS that squashes root), as the user.
    """
    cwd = _cwd(config)
    return [Op("chdir", (cwd, int(early)), "process.cwd", cwd)] if cwd else []


def _cwd(config: dict[str, Any]) -> str:
    """Return the working directory; nothing for a config that has no process."""
    cwd: str = (config.get("process") or {}).get("cwd") or ""
    return cwd


def home(config: dict[str, Any]) -> list[Op]:
    """Look up $HOME if the environment lacks it.

    While still root, and before any filter: a profile older than openat2 would forbid it.
    """
    process = config.get("process")
    if not process:
        return []
    if any(item.startswith("HOME=") and item != "HOME=" for item in process.get("env") or ()):
        return []
    uid = (process.get("user") or {}).get("uid") or 0
    return [Op("home", (uid,), ENV, f"HOME of uid {uid}")]


def find(config: dict[str, Any], listen: int = 0) -> list[Op]:
    """Look up the program; listen: descriptors of socket activation."""
    process = config.get("process")
    if not process:
        return []
    args = process.get("args")
    if not args:
        raise ConfigError("process.args", "args must not be empty")
    env = environment(process.get("env") or [], listen)
    return [Op("program", (args[0], args, env), "process.args", args[0])]


def close(preserve: int, keep: int) -> list[Op]:
    """Let the exec close every descriptor that is not the program's (CVE-2024-21626).

    keep: one more that is, or -1.
    """
    but = f" but {keep}" if keep >= 0 else ""
    return [Op("close_fds", (preserve, keep), "", f"all from {3 + preserve}{but}")]


def gate(preserve: int, keep: int) -> list[Op]:
    """Wait for `start`."""
    return [Op("gate", ("fifo", preserve, keep), "", "wait for start")]


def run(config: dict[str, Any]) -> list[Op]:
    """Become the program.

    A config may lack the process until `start` (config.md, "Process").  Such a container ends as
    soon as it is started, as with crun; runc refuses to create it.
    """
    if not config.get("process"):
        return [Op("exit", (0,), "process", "no process")]
    return [Op("exec", (), "process.args", " ".join(config["process"]["args"]))]


def lookup_error(errno: int, name: str) -> str:
    """Word why the program cannot be run; engines search these sentences."""
    head = f"exec: {quote(name)}"
    if errno == ENOENT and "/" not in name:
        return f"{head}: executable file not found in $PATH"
    if errno == EISDIR:
        return f"{head}: is a directory"
    if errno in (ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG):
        return f"{head}: stat {name}: {strerror(errno)}"
    return f"{head}: {strerror(errno)}"
