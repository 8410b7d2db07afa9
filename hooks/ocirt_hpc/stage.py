"""The stage: what a config, a caller and the site ask for, turned into a config with edits.

One screen: gather the requests, turn each into edits, apply all of them to a copy.  Nothing
changes on the machine here; the files that a container needs are in `Applied.tree`, for whoever
makes the container to write.
"""

from __future__ import annotations

from ocirt import log
from ocirt_hpc import cdi, edits, request, site
from ocirt_hpc.host import Host
from ocirt_hpc.image import Image
from ocirt_hpc.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Applied, Section


class Caller:
    """What the command line says, and where things are.

    devices       qualified names of CDI devices
    annotations   whether those that annotations name count as well
    directories   where CDI files are, or () for the usual places
    site          a file instead of the site's own, or ""
    rootfs        the container's root file system
    place         a directory for files of the container, which nobody has made yet
    """

    def __init__(self, rootfs: str, place: str) -> None:
        self.rootfs = rootfs
        self.place = place
        self.devices: list[str] = []
        self.annotations = False
        self.directories: list[str] = []
        self.site = ""
        self.rootless = False


def run(config: dict[str, Any], caller: Caller) -> Applied | None:
    """Return the config with the edits of what is asked for; None when that comes to nothing."""
    here = site.load(caller.site)
    sections = _cdi(config, caller, here)
    tree = Tree(caller.place)
    if here["stage", "enabled"]:
        sections += _nvidia(config, caller, here, tree)
    if not sections:
        return None
    applied = edits.apply(config, sections, rootless=caller.rootless)
    applied.tree = tree or None
    return applied


def _cdi(config: dict[str, Any], caller: Caller, here: site.Site) -> list[Section]:
    names = request.by_option(caller.devices)
    more: list[str] = []
    if caller.annotations or here["policy", "cdi-annotations"]:
        more = [name for name in request.by_annotations(config) if name not in names]
    if not names and not more:
        return []
    found = cdi.find(names + more, caller.directories or cdi.DIRECTORIES)
    # An engine leaves the annotations in the config that it has edited.
    found = [one for one in found if one.name in names or not edits.present(config, one)]
    return edits.of_cdi(found)


def _nvidia(config: dict[str, Any], caller: Caller, here: site.Site, tree: Tree) -> list[Section]:
    from ocirt_hpc.nvidia import request as nvidia

    asked = nvidia.of_env(config)
    if asked is None:
        return []
    if not here["policy", "env-requests"]:
        log.warning(f"{asked.origin}: policy.env-requests is false on this host; left out")
        return []
    from ocirt_hpc.nvidia import stage

    asked.limit(here["nvidia", "capabilities"])
    if here["nvidia", "disable-require"]:
        asked.requirements = {}
    with Image(caller.rootfs) as image:
        return stage.sections(asked, Host(here["stage", "host-root"]), image, tree)
