"""What stands before the verb: where state is kept, where to log, which cgroup driver.

OPTIONS is the table; Settings turns it into decisions.  A decision that has to look at the
machine is made when it is first asked for: `--version` and `spec` never ask.
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.errors import Error
from ocirt.kernel.procfs import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt.cli.options import Arguments, Row

OPTIONS: tuple[Row, ...] = (
    ("root", "", "DIR", "", "keep state in DIR, best on a tmpfs (default: /run/ocirt)"),
    ("log", "", "FILE", "", "write the log to FILE instead of stderr"),
    ("log-format", "", "FORMAT", "text", "text or json"),
    ("log-level", "", "LEVEL", "", "error, warning or debug (default: error)"),
    ("debug", "", "", False, "the same as --log-level debug"),
    ("systemd-cgroup", "", "", False, "let systemd make cgroups; cgroupsPath is slice:prefix:name"),
    ("cgroup-manager", "", "NAME", "", "cgroupfs, systemd or disabled (default: cgroupfs)"),
    ("cdi-spec-dir", "", "DIR", (), "look for CDI files there only; repeatable, the last one wins"),
    ("cdi-annotations", "", "", False, "add the CDI devices that annotations (cdi.k8s.io/*) name"),
    (
        "hpc-config",
        "",
        "FILE",
        "",
        "the site's settings for devices (default: /etc/ocirt/hpc.toml)",
    ),
    ("hpc-profile", "", "NAME", "", "what the site adds: [profile.NAME] of its settings"),
    ("criu", "", "PATH", "criu", "the CRIU that checkpoint and restore use"),
    ("rootless", "", "WHEN", "auto", "go without what only root can do: true, false or auto"),
    ("trace-time", "", "", False, "print on stderr where the time of the verb went"),
    ("version", "v", "", False, "print the version"),
)

DRIVERS = {"": "fs", "cgroupfs": "fs", "systemd": "systemd", "disabled": "disabled"}


class Settings:
    """The decisions of the global options.

    cgroup_driver: "fs", "systemd" or "disabled".  rootless: go without what only root can do.
    criu: the program, by name or path.
    cdi_annotations, cdi_dirs: whether a config may name devices, and where to look for them.
    root_given: the caller named the state root, so that a missing one is an error of his.
    words: the options as they were given, to start another ocirt with.
    """

    def __init__(self, arguments: Arguments, words: Sequence[str] = ()) -> None:
        self.words = words
        if arguments.log_format not in ("text", "json"):
            raise Error(f"invalid log-format: {arguments.log_format}")
        if arguments.log_level and arguments.log_level not in log.LEVELS:
            raise Error(f"invalid log-level: {arguments.log_level}")
        if arguments.cgroup_manager not in DRIVERS:
            raise Error(f"invalid cgroup-manager: {arguments.cgroup_manager}")
        self.debug: bool = arguments.debug or arguments.log_level == "debug"
        self.log: str = arguments.log and os.path.abspath(arguments.log)
        self.log_format: str = arguments.log_format
        self.log_level = log.DEBUG if self.debug else log.LEVELS[arguments.log_level or "error"]
        self.cgroup_driver = DRIVERS[arguments.cgroup_manager]
        if arguments.systemd_cgroup:
            self.cgroup_driver = "systemd"
        self.cdi_annotations: bool = arguments.cdi_annotations
        self.cdi_dirs: list[str] = [os.path.abspath(one) for one in arguments.cdi_spec_dir]
        self.hpc_config: str = arguments.hpc_config and os.path.abspath(arguments.hpc_config)
        self.hpc_profile: str = arguments.hpc_profile
        self.criu: str = arguments.criu
        if arguments.rootless not in ("true", "false", "auto"):
            raise Error(f"invalid rootless: {arguments.rootless}: not true, false or auto")
        self._rootless: bool | None = {"true": True, "false": False}.get(arguments.rootless)
        self._root = ""
        self.root_given = bool(arguments.root)
        if arguments.root:
            self._root = os.path.abspath(arguments.root)
            if self._root.strip("/") == "":
                raise Error("Option --root argument should not be set to /")

    @property
    def rootless(self) -> bool:
        """Tell whether to tolerate what an unprivileged caller cannot do."""
        if self._rootless is None:
            self._rootless = os.geteuid() != 0 or in_user_namespace()
        return self._rootless

    @property
    def root(self) -> str:
        """The directory that holds one directory per container; it may be missing."""
        if not self._root:
            self._root = default_root() or "/run/ocirt"
        return self._root

    @property
    def seccomp_cache(self) -> str:
        """Where compiled filters are kept: one place whatever the state root, so that all share."""
        return (default_root() or "/run/ocirt") + "-seccomp"

    def ensure_root(self) -> str:
        """Make the state root, for its owner alone, and return it.

        One that somebody else has made first, such as in /tmp, is refused: what lies there would
        be his to change.
        """
        root = self.root
        try:
            owner = os.stat(root).st_uid
        except OSError:
            owner = -1
        if owner not in (-1, 0, os.geteuid()):
            raise Error(f"--root {root}: belongs to another user ({owner})")
        if not os.path.isdir(root):
            # One that is left to us lies in XDG_RUNTIME_DIR, where a sticky bit keeps
            # cleaners of old files away (XDG Base Directory Specification).
            sticky = 0o1000 if root == default_root() else 0
            os.makedirs(root, 0o700, exist_ok=True)
            os.chmod(root, 0o700 | sticky)
        return root


def default_root() -> str:
    """Return the state root of a caller who is not really root; empty: of root."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not runtime:
        return ""
    if os.geteuid() == 0 and (os.environ.get("USER") == "root" or not in_user_namespace()):
        return ""
    return f"{runtime}/ocirt"
