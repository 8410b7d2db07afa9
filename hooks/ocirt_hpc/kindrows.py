"""Rows of kinds.py that a site writes: what they may say."""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc import kinds, parts
from ocirt_hpc.request import WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_hpc.kinds import Row


def check(where: str, row: Row) -> None:
    """Refuse what a row of the site's says and cannot mean; ConfigError names the field.

    where: `device.NAME`.
    """
    name = where.partition(".")[2]
    if name in WORDS or not name.isascii() or not name.replace("-", "").isalnum():
        raise ConfigError(
            where, f'"{name}" cannot be the name of a kind, as ocirt.hpc/{name} asks for it'
        )
    with At(f"{where}.find"):
        words = kinds.field(row, "find").split()
        if words and words[0].startswith("pci:"):
            _number(words.pop(0)[4:], 0)
        elif words == ["amdgpu"]:
            words = []
        for word in words:
            folder, _, last = _node(word).rpartition("/")
            if last.count("#") != 1 or "#" in folder:
                raise ConfigError(
                    f'"{word}" has no # in its last name, which stands for the number'
                )
    for word in kinds.field(row, "with"):
        with At(f"{where}.with"):
            path, equals, number = word.partition("=")
            _node(path)
            if equals:
                _number(number.rpartition(":")[2], 10)
    for path in kinds.field(row, "mounts"):
        with At(f"{where}.mounts"):
            parts.path(path)
    for item in kinds.field(row, "env"):
        if not item.partition("=")[0] or "=" not in item or "\0" in item:
            raise ConfigError(f"{where}.env", f"{item!r} is not NAME=value")
    for each in ("variables", "switches"):
        for item in kinds.field(row, each):
            if not item or "=" in item or "\0" in item:
                raise ConfigError(f"{where}.{each}", f"{item!r} is no name of a variable")


def _node(path: str) -> str:
    parts.path(path)
    if not path.startswith("/dev/"):
        raise ConfigError(f'"{path}" is not below /dev')
    return path


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ConfigError(f'"{text}" is not a number') from None
