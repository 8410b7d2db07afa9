"""What an image demands of driver and GPUs: the variables NVIDIA_REQUIRE_*.

    NVIDIA_REQUIRE_CUDA="cuda>=12.4 brand=tesla,driver>=470,driver<471"

All variables have to hold; of the groups in one value, which spaces part, any; of the terms in
one group, which commas part, all.  Architecture and brand only NVML knows, and it is asked only
where they decide.  What nobody can tell counts as true with a warning: a guess must not keep a
program from its GPU.

Source: NVIDIA container toolkit, user guide, "Constraints"; CUDA release notes, table 3, for the
CUDA version that a branch of the driver supports.
"""

from __future__ import annotations

from ocirt import log
from ocirt.errors import ConfigError, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Ask: TypeAlias = Callable[[], list[dict[str, str]]]

PREFIX = "NVIDIA_REQUIRE_"
NO_CONSTRAINT = "NVIDIA_REQUIRE_JETPACK"  # names files of Jetson boards

# first driver branch -> the CUDA version that it supports
CUDA = {
    410: "10.0", 418: "10.1", 440: "10.2",
    450: "11.0", 455: "11.1", 460: "11.2", 465: "11.3", 470: "11.4", 495: "11.5", 510: "11.6",
    515: "11.7", 520: "11.8",
    525: "12.0", 530: "12.1", 535: "12.2", 545: "12.3", 550: "12.4", 555: "12.5", 560: "12.6",
    565: "12.7", 570: "12.8", 575: "12.9",
    580: "13.0", 590: "13.1",
}  # fmt: skip

# Longest first: "<=" is not "<" with a value of "=".
OPERATORS: dict[str, Callable[[int], bool]] = {
    "<=": lambda order: order <= 0,
    ">=": lambda order: order >= 0,
    "!=": lambda order: order != 0,
    "=": lambda order: order == 0,
    "<": lambda order: order < 0,
    ">": lambda order: order > 0,
}


def facts(driver_version: str) -> dict[str, str]:
    """Return what the version of the driver tells: `driver`, and the `cuda` that it supports."""
    found = {"driver": driver_version}
    branch = int(driver_version.partition(".")[0])
    supported = [cuda for first, cuda in CUDA.items() if first <= branch]
    if supported:
        found["cuda"] = supported[-1]
    return found


def check(env: dict[str, str], known: dict[str, str], ask: Ask | None = None) -> None:
    """Raise ConfigError for the first variable that does not hold.

    known: values of `cuda`, `driver`, `arch` (compute capability), `brand`, as far as one knows.
    ask: what returns such values of each GPU, or raises an Error; called where they decide.
    """
    for name, value in env.items():
        if not name.startswith(PREFIX) or name == NO_CONSTRAINT:
            continue
        verdicts = {group: _holds(name, group, known) for group in value.split()}
        if not verdicts or True in verdicts.values():
            continue
        open_ones = [group for group, verdict in verdicts.items() if verdict is None]
        failing = _failing(name, open_ones, known, ask) if open_ones else known
        if failing is not None:
            has = ", ".join(f"{fact} {failing[fact]}" for fact in failing)
            raise ConfigError(
                f"process.env: {name}={value}",
                f"this host does not satisfy it ({has});"
                " NVIDIA_DISABLE_REQUIRE=true starts the container all the same",
            )


def _failing(
    name: str, groups: list[str], known: dict[str, str], ask: Ask | None
) -> dict[str, str] | None:
    """Return what one knows of the first GPU for which no group holds, or None."""
    gpus = [known]
    if ask is not None:
        try:
            gpus = [{**known, **gpu} for gpu in ask()]
        except Error as error:
            log.warning(f"{name}: {groups[0]} counts as true, since nobody can tell: {error}")
            return None
    for gpu in gpus:
        verdicts = [_holds(name, group, gpu) for group in groups]
        if True not in verdicts and None in verdicts:
            log.warning(f"{name}: {groups[verdicts.index(None)]} counts as true, for nobody knows")
        elif True not in verdicts:
            return gpu
    return None


def legacy(cuda_version: str) -> str:
    """Return the constraint of an image that has CUDA_VERSION alone: at least that CUDA."""
    return "cuda>=" + ".".join(cuda_version.split(".")[:2])


def _holds(name: str, group: str, known: dict[str, str]) -> bool | None:
    """Whether all terms of a group hold; None when that hangs on what is not known."""
    verdicts = [_term(name, term, known) for term in group.split(",") if term]
    return False if False in verdicts else None if None in verdicts else True


def _term(name: str, term: str, known: dict[str, str]) -> bool | None:
    operator = next((one for one in OPERATORS if one in term), None)
    if operator is None:
        raise ConfigError(f"process.env: {name}", f'"{term}" is no constraint')
    fact, _, value = term.partition(operator)
    if fact not in known:
        return None
    if fact == "brand":
        if operator not in ("=", "!="):
            raise ConfigError(f"process.env: {name}", f'"{term}": a brand is = or !=')
        return OPERATORS[operator](known[fact].lower() != value.lower())
    try:
        order = compare(known[fact], value)
    except ValueError:
        raise ConfigError(f"process.env: {name}", f'"{term}" has no version') from None
    return OPERATORS[operator](order)


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1 for two versions; a shorter one compares as if zeros followed.

    ValueError when one is no version.
    """
    first, second = numbers(left), numbers(right)
    length = max(len(first), len(second))
    first, second = first + [0] * (length - len(first)), second + [0] * (length - len(second))
    return (first > second) - (first < second)


def numbers(version: str) -> list[int]:
    """Return the numbers of a version (`550.54.15`); ValueError when it is none."""
    parts = version.split(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise ValueError(version)
    return [int(part) for part in parts]
