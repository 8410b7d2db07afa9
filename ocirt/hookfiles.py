"""Files of the host that take what lifecycle hooks print, named by annotations that crun has.

    run.oci.hooks.stdout, run.oci.hooks.stderr    absolute paths; opened to append

All hooks of all stages write there, inside the container too: those get descriptors.  Without
an annotation the output is kept in memory, for the error message of a hook that fails.
Whoever may set an annotation may have any file of the host written to, so `features` lists these
among the unsafe ones.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ANNOTATIONS = ("run.oci.hooks.stdout", "run.oci.hooks.stderr")
# What the plan calls the descriptors.
WORDS = ("hooks.stdout", "hooks.stderr")


def paths(annotations: Mapping[str, str] | None) -> tuple[str, str]:
    """Return the files for stdout and stderr; an empty name is none."""
    found = [(annotations or {}).get(name, "") for name in ANNOTATIONS]
    for name, path in zip(ANNOTATIONS, found, strict=True):
        if path and path[0] != "/":
            raise ConfigError(f"annotations.{name}", f"{path} is not absolute")
    return found[0], found[1]


def open_output(index: int, path: str) -> int:
    """Open the file of stdout (0) or stderr (1); return a descriptor that no exec inherits."""
    with At(f"annotations.{ANNOTATIONS[index]}"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY
        return os.open(path, flags, 0o600)
