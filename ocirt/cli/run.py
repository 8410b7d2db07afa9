"""ocirt run: create a container, start it, and, unless detached, wait for it and delete it."""

from __future__ import annotations

from ocirt import container, log
from ocirt.aside import Aside
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
    ("ended",           "",    "CODE", -1,      ""),  # of aside.py: only the end is left to do
)  # fmt: skip


def run(arguments: Arguments, settings: Settings) -> int:
    """Run the container; the exit code is the program's, or 128 + the signal that ended it."""
    if arguments.ended >= 0:
        from ocirt.console import Signals

        Signals().unblock()  # the waiter has left them blocked
        return _delete(settings.root, arguments.words[0], arguments.ended)
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
    return attend(made, foreground, settings, keep=arguments.keep)


def attend(made: Made, foreground: Foreground, settings: Settings, *, keep: bool = False) -> int:
    """See a running container through to its end and delete it; return what `run` exits with.

    Where the launcher does the waiting, this returns only when something fails.
    """
    container_id, root = made.container.id, settings.root
    try:
        container.poststart(made.container)
    except BaseException:
        container.destroy(made.container)
        raise
    made.container.unlock()  # others may want to end it
    aside = Aside("run", container_id, "" if keep else root, settings.words)
    try:
        code = foreground.wait(made.pid, made.console, made.listener, aside)
    except BaseException:
        container.delete(root, container_id, force=True)
        raise
    return code if keep else _delete(root, container_id, code)


def _delete(root: str, container_id: str, code: int) -> int:
    for failure in container.delete(root, container_id, force=True):
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
