"""ocirt run: create a container, start it, and, unless detached, wait for it and delete it."""

from __future__ import annotations

from ocirt import container, log
from ocirt.cli import create
from ocirt.create import create as create_container
from ocirt.errors import HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings
    from ocirt.console import Foreground
    from ocirt.create import Made, Wish

USAGE = "[options] ID"
WORDS = (1, 1)
OPTIONS = (
    *create.OPTIONS,
    # long              short  value   default  help
    ("detach",          "d",   "",     False,   "return once the program runs"),
    ("keep",            "",    "",     False,   "do not delete the container when it has ended"),
)  # fmt: skip


def run(arguments: Arguments, settings: Settings) -> int:
    """Run the container; the exit code is the program's, or 128 + the signal that ended it."""
    wish = create.wish(arguments, settings)
    wish.detach = arguments.detach
    wish.gate = False
    settings.ensure_root()
    if wish.detach:
        made = _create(wish)
        create.report(made)
        container.poststart(made.container)
        if made.listener:
            made.container.unlock()
            made.listener.wait(made.container)
        return 0
    from ocirt.console import Foreground

    foreground = Foreground()  # before the container, so that no signal falls between
    made = _create(wish)
    create.report(made)
    return attend(made, foreground, wish.root, keep=arguments.keep)


def attend(made: Made, foreground: Foreground, root: str, *, keep: bool = False) -> int:
    """See a running container through to its end and delete it; return what `run` exits with."""
    try:
        container.poststart(made.container)
        code = foreground.wait(made.pid, made.console, made.listener)
    except BaseException:
        container.destroy(made.container)
        raise
    made.container.unlock()
    if not keep:
        for failure in container.delete(root, made.container.id, force=True):
            log.warning(str(failure))
    return code


def _create(wish: Wish) -> Made:
    """Create the container; a failing startContainer hook counts as one of the program."""
    try:
        return create_container(wish)
    except HookError as error:
        if error.stage == "startContainer":
            error.exit_code = 255
        raise
