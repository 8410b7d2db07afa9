"""ocirt checkpoint: save a running container into files, for `ocirt restore`."""

from __future__ import annotations

from ocirt import container, log
from ocirt import system as os
from ocirt.checkpoint import Wish, checkpoint
from ocirt.criu import options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID"
WORDS = (1, 1)
ABOUT = (
    "CRIU does the work; `ocirt doctor` tells whether it can on this machine.  Afterwards the\n"
    "container is gone, unless --leave-running or --pre-dump say otherwise."
)
IMAGES = (
    # long              short  value   default  help
    ("image-path",      "",    "DIR",  "",      "directory of the images (default: checkpoint)"),
    ("work-path",       "",    "DIR",  "",      "directory of CRIU's log (default: there as well)"),
)  # fmt: skip
OPTIONS = (
    *IMAGES,
    ("parent-path",     "",    "DIR",  "",      "an earlier pre-dump, relative to the image path"),
    ("pre-dump",        "",    "",     False,   "save memory only, and let the container go on"),
    ("status-fd",       "",    "N",    -1,      "write a NUL there once --lazy-pages can serve"),
    *options.rows(options.CHECKPOINT),
)  # fmt: skip


def run(arguments: Arguments, settings: Settings) -> int:
    """Save the container; 0, or an Error."""
    if settings.rootless:
        log.warning("ocirt checkpoint is untested with rootless containers")
    wish = Wish(arguments, settings.criu)
    wish.parent_path = arguments.parent_path
    wish.pre_dump = arguments.pre_dump
    wish.status_fd = arguments.status_fd
    if wish.status_fd >= 0:
        try:
            os.set_inheritable(wish.status_fd, False)
        except OSError:
            pass  # closed: said where it is needed
    found = container.locked(settings.root, arguments.words[0])
    for failure in checkpoint(found, wish):
        log.warning(str(failure))
    return 0
