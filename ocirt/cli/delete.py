"""ocirt delete: remove a stopped container and all that was made for it."""

from __future__ import annotations

from ocirt import container, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID"
WORDS = (1, 1)
OPTIONS = (
    # long    short  value  default  help
    ("force", "f",   "",    False,   "end it first if it runs; one that is unknown is no error"),
)  # fmt: skip


def run(arguments: Arguments, settings: Settings) -> int:
    """Delete the container; failing poststop hooks are warnings, as the specification says."""
    for failure in container.delete(settings.root, arguments.words[0], arguments.force):
        log.warning(str(failure))
    return 0
