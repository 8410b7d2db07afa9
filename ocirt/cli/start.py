"""ocirt start: let the program of a created container run."""

from __future__ import annotations

from ocirt import container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "ID"
WORDS = (1, 1)
OPTIONS = ()


def run(arguments: Arguments, settings: Settings) -> int:
    """Start the container; 0, or an Error."""
    container.start(settings.root, arguments.words[0])
    return 0
