"""Packages that few need, and that need not be installed (the extras of pyproject.toml)."""

from __future__ import annotations

import sys

import ocirt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(name: str) -> Any:
    """Return a module of a package beyond the standard library; ImportError when there is none."""
    try:
        return __import__(name)
    except ImportError:
        # The launcher's interpreter knows nothing but the standard library.
        site = getattr(ocirt, "SITE", "")
        if not site or site in sys.path:
            raise
        sys.path.append(site)
        try:
            return __import__(name)
        finally:
            sys.path.remove(site)
