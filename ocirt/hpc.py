"""The door to the HPC stage, which nobody pays for who does not ask for a device.

The launcher puts the package `ocirt` in place and nothing else; `ocirt_hpc` gets the same way:
its directory is known, and no search path can put another package there.
"""

from __future__ import annotations

import sys

import ocirt
from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.cdi import File
    from ocirt_hpc.edits import Applied

NAME = "ocirt_hpc"


def apply(
    config: dict[str, Any],
    rootfs: str,
    place: str,
    *,
    devices: list[str],
    annotations: bool = False,
    directories: list[str] | None = None,
    site: str = "",
    profile: str = "",
    rootless: bool = False,
    foreign: bool = False,
) -> Applied | None:
    """Return the config with the edits of what is asked for; None when that comes to nothing.

    Arguments as for `ocirt_hpc.stage.Caller`.
    """
    put_in_place()
    from ocirt_hpc import stage

    caller = stage.Caller(rootfs, place)
    caller.devices = devices
    caller.annotations = annotations
    caller.directories = directories or []
    caller.site = site
    caller.profile = profile
    caller.rootless = rootless
    caller.foreign = foreign
    return stage.run(config, caller)


# What a file of the site's has to hold to concern containers that ask for nothing: its trigger
# may be `always`, it may have hooks or GPUs for all; or a string may hide a name.
FOR_ALL = (b"always", b"hooks", b"request-default", b"\\", b'"""', b"'''")

CDI = "cdi.k8s.io/"  # in annotations that count where the site has said a word about them
CDI_SETTING = b"cdi-annotations"

GLANCE = 1 << 16  # bytes; a longer file may say anything


def mentioned(env: Iterable[str], folder: str, annotations: Iterable[str] = ()) -> bool:
    """Whether a file of the site's settings may concern a container with these.

    It does if it holds the quoted name of a variable, or a word of FOR_ALL.  Not parsed: the stage
    does that, and refuses what is wrong, once it is awake; waking it in vain costs time alone.
    """
    noted = any(CDI in key for key in annotations)
    telling = (*FOR_ALL, CDI_SETTING) if noted else FOR_ALL
    names = "\n".join([item.partition("=")[0] for item in env]).encode("utf-8", "surrogateescape")
    # Either quote ends a word, in a name as well: one pass over the file, however many variables.
    words = set(names.replace(b"\n", b'"').replace(b"'", b'"').split(b'"')) - {b""}
    for path in (f"{folder}/hpc.toml", f"{folder}/hpc.d"):
        try:
            files = [f"{path}/{name}" for name in os.listdir(path)] if path[-2:] == ".d" else [path]
        except OSError:
            continue
        for file in files:
            try:
                fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    text = os.read(fd, GLANCE)
                finally:
                    os.close(fd)
            except OSError:
                continue
            if len(text) == GLANCE or any(word in text for word in telling):
                return True
            if not words.isdisjoint(text.replace(b"'", b'"').split(b'"')):
                return True
    return False


def cdi_files(root: str = "/") -> list[File]:
    """Return the machine's CDI files, broken ones too."""
    put_in_place()
    from ocirt_hpc import cdi

    return cdi.read(root=root)


def put_in_place() -> None:
    """Put the package in place, unless it is there."""
    if NAME in sys.modules:
        return
    home = os.path.dirname(ocirt.__path__[0])
    # A source tree keeps it in a folder of its own; an installation beside ocirt.
    for directory in (f"{home}/hooks/{NAME}", f"{home}/{NAME}"):
        if os.path.exists(f"{directory}/__init__.py"):
            module = type(sys)(NAME)
            module.__path__ = [directory]
            sys.modules[NAME] = module
            return
