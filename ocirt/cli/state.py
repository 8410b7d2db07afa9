"""ocirt state: print the state of a container as the runtime specification words it."""

from __future__ import annotations

import sys

from ocirt import jsonio, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "ID"
WORDS = (1, 1)
OPTIONS = ()


def run(arguments: Arguments, settings: Settings) -> int:
    """Print the state; 0, or NotFound."""
    container = state.load(settings.root, arguments.words[0])
    sys.stdout.write(jsonio.dumps(container.document(), indent=2))
    return 0
