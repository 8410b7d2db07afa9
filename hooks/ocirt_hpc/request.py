"""What is asked for: the names of CDI devices, from the option --device and from annotations.

Engines resolve CDI names themselves and leave the annotations in the config, so these count only
where the site says so (--cdi-annotations), and `edits.py` leaves out what is there already.
The environment never counts here: it may come from the image.

CDI specification, SPEC.md, "CDI Annotations": key cdi.k8s.io/WHATEVER, value a list of names.
"""

from __future__ import annotations

from ocirt.errors import At
from ocirt_hpc import rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "cdi.k8s.io/"


def by_option(values: list[str]) -> list[str]:
    """Return the qualified names that --device was given, each once."""
    with At("--device"):
        return _unique(values)


def by_annotations(config: dict[str, Any]) -> list[str]:
    """Return the qualified names that the config's annotations give, each once."""
    names: list[str] = []
    for key, value in (config.get("annotations") or {}).items():
        if key.startswith(PREFIX):
            with At(f"annotations.{key}"):
                names += _unique(value.split(","))
    return list(dict.fromkeys(names))


def _unique(names: list[str]) -> list[str]:
    for name in names:
        rules.split(name)
    return list(dict.fromkeys(names))
