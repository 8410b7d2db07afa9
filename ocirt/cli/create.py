"""ocirt create: make a container whose program waits for `ocirt start`."""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.create import Made, Wish, create
from ocirt.handover import check_preserved, listen_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID"
WORDS = (1, 1)
OPTIONS = (
    # long              short  value   default  help
    ("bundle",          "b",   "DIR",  "",      "the bundle; without it the current directory"),
    ("config",          "f",   "FILE", "config.json", "the configuration, relative to the bundle"),
    ("console-socket",  "",    "PATH", "",      "socket that gets the terminal's master side"),
    ("pidfd-socket",    "",    "PATH", "",      "socket that gets a pidfd of the init"),
    ("pid-file",        "",    "PATH", "",      "write the init's process id there"),
    ("no-pivot",        "",    "",     False,   "move the root file system instead of pivot_root"),
    ("no-new-keyring",  "",    "",     False,   "keep the session keyring of the caller"),
    ("preserve-fds",    "",    "N",    0,       "hand over descriptors 3 to 2+N as well"),
    ("pmi-fd",          "",    "",     False,   "hand over the socket that PMI_FD names"),
    ("device",          "",    "NAME", (),      "add a CDI device: vendor/class=name; repeatable"),
    ("no-subreaper",    "",    "",     False,   ""),  # crun's spelling for create; nothing to do
)  # fmt: skip


def wish(arguments: Arguments, settings: Settings) -> Wish:
    """Turn the options that create and run share into a wish."""
    # First: what we open next could take such a number.
    check_preserved(arguments.preserve_fds, listen_fds())
    made = Wish(arguments.words[0], settings.root, arguments.bundle or os.getcwd())
    made.config_name = arguments.config
    made.console_socket = arguments.console_socket
    made.pidfd_socket = arguments.pidfd_socket
    made.pid_file = arguments.pid_file
    made.no_pivot = arguments.no_pivot
    made.no_new_keyring = arguments.no_new_keyring
    made.preserve_fds = arguments.preserve_fds
    made.pmi_fd = arguments.pmi_fd
    made.devices = arguments.device
    settle(made, settings)
    return made


def settle(made: Wish, settings: Settings) -> None:
    """Add to a wish what stands before the verb."""
    made.rootless = settings.rootless
    made.seccomp_cache = settings.seccomp_cache
    made.cgroup_driver = settings.cgroup_driver
    made.cdi_annotations = settings.cdi_annotations
    made.cdi_dirs = settings.cdi_dirs
    made.hpc_config = settings.hpc_config
    made.hpc_profile = settings.hpc_profile


def run(arguments: Arguments, settings: Settings) -> int:
    """Create the container; 0, or an Error."""
    request = wish(arguments, settings)
    settings.ensure_root()
    report(create(request))
    return 0


def report(made: Made) -> None:
    """Log what was left out; what the kernel refused without harm, only for those who look."""
    for warning in made.warnings:
        log.warning(warning)
    for note in made.notes:
        log.debug(note)
