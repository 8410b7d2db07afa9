"""A request for NVIDIA's GPUs, turned into edits: the whole way on one screen."""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At
from ocirt_hpc import ldcache, loader
from ocirt_hpc.edits import node_edits
from ocirt_hpc.nvidia import allocation, choice, compat, container, driver, files, require
from ocirt_hpc.nvidia.nvml import Nvml
from ocirt_hpc.nvidia.request import CAPABILITIES, HOOKS, VOLUMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.image import Image
    from ocirt_hpc.loader import Libraries
    from ocirt_hpc.notes import Notes
    from ocirt_hpc.nvidia.choice import Chosen
    from ocirt_hpc.nvidia.driver import Driver
    from ocirt_hpc.nvidia.request import Request
    from ocirt_hpc.tree import Tree


def sections(
    request: Request, host: Host, image: Image, tree: Tree, notes: Notes, libraries: Libraries
) -> tuple[list[Section], list[Chosen]]:
    """Return the edits for a request, under the name of what asked for it, and the chosen GPUs.

    A host without the driver is an error when devices were named, and a warning when `all` was:
    images ask for that by themselves.  libraries: where the driver's are added.
    """
    asked = request.asked
    with At(asked.where):
        nvml = Nvml(request.nvml_timeout)
        places = request.places or driver.USUAL
        loaded = driver.find(host, nvml, request.driver_root, places, whole=False)
        why = driver.absent(host) if loaded is None else ""
        if loaded is not None and not loaded.gpus and asked.names != ["none"]:
            why = f"the NVIDIA driver {loaded.version} has no GPU ({driver.PROC}/gpus has none)"
        if loaded is None or why:
            if request.by_site:
                notes.skip(asked.origin, why)
            else:
                notes.missing(asked, why)
            return [], []
        chosen = choice.choose(loaded, asked.names)
        job = allocation.find(loaded, os.environ)
        if request.by_site == "job" and job is None:
            return [], []
        if job is not None:
            before, chosen = chosen, allocation.narrow(chosen, asked.names, job)
            for one in before:
                if one not in chosen:
                    notes.skip(asked.origin, f"GPU {one.name} is not of this job")
        choice.need(chosen)
        if request.by_site and not chosen:
            return [], []
    with At(f"process.env: {CAPABILITIES}"):
        wanted = files.capabilities(request.capabilities)
    require.check(
        request.requirements, require.facts(loaded.version), lambda: _by_gpu(loaded, chosen)
    )
    for one in chosen:
        if one.mig is None and one.gpu.migs:
            notes.warn(
                asked.origin,
                f"GPU {one.name} is cut into MIG devices: as a whole it runs no programs",
            )

    with At(asked.where):
        nodes = container.nodes(loaded, chosen, wanted)
        found = files.find(loaded.files, loaded.version, wanted, loaded.places)
        for word, stem in files.MAIN.items():
            library = f"/{stem}.so."
            if word in wanted and all(library not in file.source for file in found):
                what = f"this host has no {stem}.so.{loaded.version}, of the capability {word}"
                notes.warn(asked.origin, what)
        own = None
        if request.native and not image.readonly:
            from ocirt_hpc.nvidia.native import Native

            own = Native(image)
        mounts, entries = container.file_edits(loaded.files.root, found, tree, own)
    made = node_edits(nodes)
    extra: list[Section] = []
    for more, make in (
        (request.channels, container.channels),
        (request.management, container.management),
    ):
        if more is not None:
            with At(more.where):
                others = make(loaded, more.names)
            extra.append((more.origin, node_edits(others)))
            nodes += others
    if not request.new_nodes:
        with At(asked.where):
            container.need(nodes)
    # A machine that is only a directory has no procfs to cover.
    managed = request.management.names if request.management else ()
    overlay = {} if host.root else container.proc_edits(loaded, chosen, tree, managed)
    profile = (
        container.profile_edits((one.gpu.minor for one in chosen), tree)
        if wanted & container.GRAPHIC
        else {}
    )
    if request.compat and "compute" in wanted:
        entries = ldcache.merge(compat.find(image, loaded.version), entries)
    if request.native and own is None:
        notes.leave_out('nvidia.layout="native"', "nothing can be added to the image")
    libraries.add(asked.origin, entries, [*(own.folders if own else ()), *loader.folders(tree)])
    if not request.gids:
        for section in (made, *(section for _, section in extra)):
            del section["additionalGids"]
    edits = [
        made,
        container.drm_links(loaded, chosen) if wanted & container.GRAPHIC else {},
        {} if own else loader.place(tree),
        mounts,
        overlay,
        profile,
        {"dropHooks": [{"hookName": "prestart", "program": name} for name in HOOKS]},
        {"dropMounts": [VOLUMES]},
    ]
    if job is not None:
        edits.append(allocation.inside(chosen))
    elif chosen:
        stray = allocation.stray(request.local, len({one.gpu.index for one in chosen}))
        if stray:
            what = f"{allocation.LOCAL} names GPU {stray}, but inside they count from 0"
            notes.warn(asked.origin, what)
    return [*((asked.origin, section) for section in edits), *extra], chosen


def _by_gpu(loaded: Driver, chosen: list[Chosen]) -> list[dict[str, str]]:
    """Return architecture and brand of each chosen GPU; ConfigError when NVML does not tell."""
    facts = loaded.nvml()
    found = [facts.gpu(one.gpu.address) for one in chosen]
    return [{"arch": gpu.arch, "brand": gpu.brand} for gpu in found]
