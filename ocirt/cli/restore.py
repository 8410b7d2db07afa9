"""ocirt restore: bring a container back from the files of `ocirt checkpoint`, running."""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.checkpoint import Wish as Images
from ocirt.cli import checkpoint, create
from ocirt.cli.run import attend
from ocirt.create import Wish
from ocirt.criu import options
from ocirt.restore import restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID"
WORDS = (1, 1)
OPTIONS = (
    *checkpoint.IMAGES,
    # long              short  value   default  help
    ("bundle",          "b",   "DIR",  "",      "the bundle; without it the current directory"),
    ("console-socket",  "",    "PATH", "",      "socket that gets the terminal's master side"),
    ("pid-file",        "",    "PATH", "",      "write the init's process id there"),
    ("detach",          "d",   "",     False,   "return once the container runs"),
    ("no-pivot",        "",    "",     False,   ""),  # CRIU changes the root as it did before
    ("no-subreaper",    "",    "",     False,   ""),  # what is restored is our own child anyway
    *options.rows(options.RESTORE),
)  # fmt: skip


def run(arguments: Arguments, settings: Settings) -> int:
    """Restore the container; in the foreground the exit code is the program's."""
    if settings.rootless:
        log.warning("ocirt restore is untested with rootless containers")
    wish = Wish(arguments.words[0], settings.root, arguments.bundle or os.getcwd())
    wish.console_socket = arguments.console_socket
    wish.pid_file = arguments.pid_file
    wish.detach = arguments.detach
    wish.gate = False
    wish.notify = False  # the program said so long ago
    create.settle(wish, settings)
    images = Images(arguments, settings.criu)
    settings.ensure_root()
    if wish.detach:
        create.report(restore(wish, images))
        return 0
    from ocirt.console import Foreground

    foreground = Foreground()  # before the container, so that no signal falls between
    made = restore(wish, images)
    create.report(made)
    return attend(made, foreground, settings)
