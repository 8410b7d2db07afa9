"""The stage: what a config, a caller and the site ask for, turned into a config with edits.

One screen: gather the requests, turn each into edits, apply all of them to a copy.  Nothing
changes on the machine here; the files that a container needs are in `Applied.tree`, for whoever
makes the container to write.
"""

from __future__ import annotations

from ocirt import log
from ocirt.errors import At
from ocirt_hpc import cdi, edits, request, site
from ocirt_hpc.host import Host
from ocirt_hpc.image import Image
from ocirt_hpc.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Applied, Section
    from ocirt_hpc.host import Pci


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
        host = Host(here["stage", "host-root"])
        more, gpus = _nvidia(config, caller, here, host, tree)
        sections += more
        sections += _rdma(config, here, host, gpus, tree)
        sections += _kinds(config, here, host)
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


def _nvidia(
    config: dict[str, Any], caller: Caller, here: site.Site, host: Host, tree: Tree
) -> tuple[list[Section], list[Pci]]:
    """Return the edits for NVIDIA's GPUs, and where these are on the bus."""
    from ocirt_hpc.nvidia import request as nvidia

    asked = nvidia.find(config, env_requests=here["policy", "env-requests"])
    if asked is None:
        return [], []
    from ocirt_hpc.nvidia import stage

    asked.limit(here["nvidia", "capabilities"])
    if here["nvidia", "disable-require"]:
        asked.requirements = {}
    with Image(caller.rootfs) as image:
        sections, chosen = stage.sections(asked, host, image, tree)
    places = (host.pci(one.gpu.address) for one in chosen)
    return sections, [pci for pci in places if pci is not None]


def _kinds(config: dict[str, Any], here: site.Site, host: Host) -> list[Section]:
    from ocirt_hpc import kinds

    rows = {**kinds.KINDS, **here.kinds}
    sections: list[Section] = []
    for name, asked in kinds.asked(config, rows, env_requests=here["policy", "env-requests"]):
        made = kinds.edits(host, name, rows[name], asked)
        if made is None:
            log.warning(f"{asked.origin}: this host has no such device; left out")
            continue
        nodes, more = made
        sections += [(asked.origin, edits.node_edits(nodes)), (asked.origin, more)]
    return sections


def _rdma(
    config: dict[str, Any], here: site.Site, host: Host, gpus: list[Pci], tree: Tree
) -> list[Section]:
    asked = request.rdma(config, env_requests=here["policy", "env-requests"])
    if asked is None and gpus and here["rdma", "with-gpus"] != "none":
        choice = here["rdma", "with-gpus"]
        asked = request.Asked(choice, f"rdma.with-gpus={choice}", "rdma.with-gpus in hpc.toml")
    if asked is None:
        return []
    from ocirt_hpc import rdma

    found = rdma.find(host)
    with At(asked.where):
        chosen = rdma.choose(found, asked.names, gpus)
        nodes = rdma.nodes(host, chosen, management=here["rdma", "management"])
    if not chosen:
        if "none" not in asked.names:
            log.warning(f"{asked.origin}: this host has no RDMA device; left out")
        return []
    sections = [edits.node_edits(nodes)]
    # A machine that is only a directory has no sysfs to cover.
    if here["rdma", "hide-others"] and not host.root:
        sections.append(rdma.view_edits(host, chosen, found, tree))
    sections.append(rdma.memlock_edits(here["rdma", "memlock"]))
    if here["rdma", "hints"]:
        sections.append(rdma.hint_edits(chosen))
    return [(asked.origin, section) for section in sections]
