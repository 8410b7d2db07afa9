"""Texts that are ours as a whole: known by their first line, and by a sum as long as untouched."""

from __future__ import annotations

from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt.engines import Edit
    from ocirt.engines.site import Site, Wish

FIRST = '# Written by "ocirt setup {}"; --undo takes it back while its sum is '


def stamp(engine: str, text: str) -> str:
    """Return a text with the line in front that says whose it is."""
    return f"{FIRST.format(engine)}{_sum(text)}\n{text}"


def mine(engine: str, text: str) -> bool:
    """Tell whether `stamp` made a text; refuse one that somebody has changed since."""
    first, _, rest = text.partition("\n")
    head = FIRST.format(engine)
    if not first.startswith(head):
        return False
    if first != head + _sum(rest):
        raise ConfigError("was changed by hand since setup wrote it: move it away first")
    return True


def whole(engine: str, text: Callable[[Wish, Site], str]) -> tuple[Edit, Edit]:
    """Return the edits of a file that is ours alone; `text` may want none."""

    def add(old: str, wish: Wish, site: Site) -> str:
        if old and not mine(engine, old):
            if not text(wish, site):
                return old
            raise ConfigError("is there already and not ours: move it away first")
        new = text(wish, site)
        return stamp(engine, new) if new else ""

    def remove(old: str, wish: Wish, site: Site) -> str:
        return "" if old and mine(engine, old) else old

    return add, remove


def _sum(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:16]
