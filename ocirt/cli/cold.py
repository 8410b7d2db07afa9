"""The door from a verb to third-party packages, for verbs that can afford them.

The launcher gives the interpreter the standard library and our package, nothing else: no
search through site-packages, and nothing there that could stand in for a module of ours.
A verb that needs pydantic or psutil calls `site()` first.
"""

from __future__ import annotations

import sys

import ocirt


def site() -> None:
    """Make oci_spec, ocirt_hpc and the installed packages importable."""
    home = ocirt.__path__[0].rpartition("/")[0]
    # A source tree keeps oci_spec and ocirt_hpc in folders of their own; a wheel beside ocirt.
    for directory in (f"{home}/spec", f"{home}/hooks", home, getattr(ocirt, "SITE", "")):
        if directory and directory not in sys.path:
            sys.path.append(directory)
