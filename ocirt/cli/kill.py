"""ocirt kill: send a signal to a container's init, or to all its processes."""

from __future__ import annotations

from ocirt import container, state
from ocirt.kernel import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID [SIGNAL]"
WORDS = (1, 2)
OPTIONS_FIRST = True
OPTIONS = (
    # long  short  value  default  help
    ("all", "a",   "",    False,   "signal every process; one that has ended is no error"),
)  # fmt: skip


def run(arguments: Arguments, settings: Settings) -> int:
    """Send the signal; 0, or an Error."""
    container_id, *rest = arguments.words
    number = signals.parse(rest[0] if rest else "TERM")
    container.kill(state.load_own(settings.root, container_id), number, arguments.all)
    return 0
