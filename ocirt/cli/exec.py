"""ocirt exec: run one more process in a container."""

from __future__ import annotations

from ocirt import log
from ocirt.aside import Aside
from ocirt.errors import Error
from ocirt.exec import Wish, start
from ocirt.handover import check_preserved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings
    from ocirt.console import Foreground

USAGE = "[options] ID COMMAND [ARGUMENT...]\n   ocirt exec [options] --process FILE ID"
WORDS = (1, None)
OPTIONS_FIRST = True
OPTIONS = (
    # long              short  value     default  help
    ("process",         "p",   "FILE",   "",      "all of the process, as config.json words it"),
    ("cwd",             "",    "PATH",   "",      "the working directory"),
    ("env",             "e",   "K=V",    (),      "add to the environment; may be repeated"),
    ("tty",             "t",   "",       False,   "give it a terminal"),
    ("user",            "u",   "UID[:GID]", "",   "the user, by number; GID stays if left out"),
    ("additional-gids", "g",   "GID",    (),      "add a group; may be repeated"),
    ("process-label",   "",    "LABEL",  "",      "the SELinux label"),
    ("apparmor",        "",    "NAME",   "",      "the AppArmor profile"),
    ("no-new-privs",    "",    "",       False,   "no exec of it shall gain privileges"),
    ("cap",             "c",   "CAP",    (),      "add a capability; may be repeated"),
    ("cgroup",          "",    "PATH",   (),      "a cgroup below the container's, or "
                                                  "CONTROLLER[,...]:PATH; may be repeated"),
    ("detach",          "d",   "",       False,   "return once the program runs"),
    ("console-socket",  "",    "PATH",   "",      "socket that gets the terminal's master side"),
    ("pidfd-socket",    "",    "PATH",   "",      "socket that gets a pidfd of the process"),
    ("pid-file",        "",    "PATH",   "",      "write the process id there"),
    ("preserve-fds",    "",    "N",      0,       "hand over descriptors 3 to 2+N as well"),
    ("ignore-paused",   "",    "",       False,   "in a paused container wait, and do not refuse"),
)  # fmt: skip
ABOUT = """\
The process is that of the container's config, but for COMMAND and what the options say.  With
--process, FILE says it all; capabilities, labels and limits that it lacks are the container's.
The exit code is the process's, 128 + the signal that ended it, or 255 if it did not start."""


def run(arguments: Arguments, settings: Settings) -> int:
    """Run the process; the exit code is its own, or 0 when detached."""
    check_preserved(arguments.preserve_fds)  # first: what we open next could take such a number
    wish = _wish(arguments, settings)
    waiting: list[Foreground] = []

    def ready() -> None:
        # Not before: a signal that comes while the process is being made ends us, and it.
        if not wish.detach:
            from ocirt.console import Foreground

            waiting.append(Foreground())

    started = start(wish, ready)
    for warning in started.warnings:
        log.warning(warning)
    for note in started.notes:
        log.debug(note)
    if not waiting:
        return 0
    try:
        aside = Aside("exec", wish.container_id)
        return waiting[0].wait(started.pid, started.console, aside=aside)
    except BaseException:
        started.end()
        raise


def _wish(arguments: Arguments, settings: Settings) -> Wish:
    container_id, *args = arguments.words
    if not (args or arguments.process):
        raise Error("exec args cannot be empty")
    wish = Wish(container_id, settings.root)
    wish.process_file = arguments.process
    wish.args = args
    wish.cwd = arguments.cwd
    wish.env = arguments.env
    wish.tty = arguments.tty
    wish.user = arguments.user
    wish.additional_gids = arguments.additional_gids
    wish.process_label = arguments.process_label
    wish.apparmor = arguments.apparmor
    wish.no_new_privs = arguments.no_new_privs
    wish.capabilities = arguments.cap
    wish.cgroups = arguments.cgroup
    wish.ignore_paused = arguments.ignore_paused
    wish.console_socket = arguments.console_socket
    wish.pidfd_socket = arguments.pidfd_socket
    wish.pid_file = arguments.pid_file
    wish.preserve_fds = arguments.preserve_fds
    wish.detach = arguments.detach
    wish.rootless = settings.rootless
    wish.seccomp_cache = settings.seccomp_cache
    return wish
