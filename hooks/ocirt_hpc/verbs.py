"""The user-space side of RDMA, of the host: libibverbs, librdmacm and the providers of devices.

The kernel's side is stable, so an image with a rdma-core of its own needs nothing from the host; a
provider and libibverbs however must be of one build, which the version of its private symbols
tells.  So an image gets all of the host's or nothing:

    rdma.userland = "never"    nothing
                    "auto"     if it has no libibverbs, or none with a provider for a chosen device
                    "always"   in any case

libibverbs loads what /etc/libibverbs.d names; ours there name the providers by their place.

Source: rdma-core, libibverbs/init.c and dynamic_driver.c.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc import loader, rdma

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.host import Host
    from ocirt_hpc.hostlibs import Library, Shelf
    from ocirt_hpc.loader import Libraries
    from ocirt_hpc.rdma import Chosen
    from ocirt_hpc.tree import Tree

SETTINGS = "/etc/libibverbs.d"
VERBS = "libibverbs.so.1"
MANAGEMENT = "libibumad.so.3"
SONAMES = (VERBS, "librdmacm.so.1")

# driver of the kernel -> provider, where their names are not the same (without _core, _ib)
PROVIDERS = {
    "bnxt_en": "bnxt_re",
    "hfi1": "hfi1verbs",
    "hns3": "hns",
    "hns_roce_hw_v2": "hns",
    "ice": "irdma",
    "i40e": "irdma",
    "ib_qib": "ipathverbs",
    "qede": "qedr",
}


def provider(host: Host, chosen: Chosen) -> str:
    """Return the name of a device's provider: mlx5; a soft device is called after its own."""
    name = chosen.device.name
    if chosen.device.pci is None:
        return name.rstrip("0123456789")
    driver = rdma.driver(host, chosen.device)
    return PROVIDERS.get(driver, driver.removesuffix("_core").removesuffix("_ib"))


def missing(shelf: Shelf, wanted: Iterable[str]) -> str:
    """Return what the image lacks to use devices of these providers, or nothing."""
    path = shelf.in_image(VERBS)
    verbs = shelf.of_image(path) if path else None
    if path is None or verbs is None:
        return f"the image has no {VERBS}"
    folder = f"{os.path.dirname(path)}/libibverbs"
    for name in wanted:
        fits = False
        for file in shelf.image.names(folder):
            if file.startswith(f"lib{name}-rdmav") and file.endswith(".so"):
                found = shelf.of_image(f"{folder}/{file}")
                fits = fits or bool(found and found.wants.get(VERBS, set()) <= verbs.versions)
        if not fits:
            return f"the image's {VERBS} has no provider {name} of its own build"
    return ""


def edits(
    shelf: Shelf, wanted: list[str], tree: Tree, libraries: Libraries, origin: str
) -> dict[str, Any]:
    """Return the edits that give the host's user-space side to an image.

    ConfigError in one sentence when the host lacks a part, or the image's C library is too old.
    """
    paths = []
    for soname in SONAMES:
        path = shelf.on_host(soname)
        if path is None:
            raise ConfigError(f"this host has no {soname} to give")
        paths.append(path)
    folder = f"{os.path.dirname(paths[0])}/libibverbs"
    files = {name: _file(shelf, folder, name) for name in wanted}
    found = shelf.with_needs([*paths, *files.values()])
    mine, private = found[0], _private(found[0])
    for path in files.values():
        theirs = shelf.library(path).elf.wants.get(VERBS, set())
        if not theirs <= mine.elf.versions:
            raise ConfigError(f"{path} is of another build than {mine.source} ({private})")
    mounts, entries = shelf.give([one for one in found if not _plugin(one)], tree)
    for name, path in files.items():
        # Where libibverbs looks for it; a link where the provider is a library by itself, too.
        source = shelf.host.resolve(path)
        place = f"{loader.FOLDERS[mine.elf.bits]}/libibverbs/{os.path.basename(path)}"
        tree.file(place)
        mounts["mounts"].append(shelf.mount(source, f"{loader.PLACE}/{place}"))
        text = f"driver {loader.PLACE}/{os.path.dirname(place)}/lib{name}\n"
        tree.file(f"libibverbs.d/{name}.driver", text.encode())
    mounts["mounts"].append(
        {
            "containerPath": SETTINGS,
            "hostPath": f"{tree.place}/libibverbs.d",
            "options": loader.OPTIONS,
        }
    )
    libraries.add(origin, entries, loader.folders(tree))
    return mounts


def _plugin(one: Library) -> bool:
    return "-rdmav" in one.name


def _private(one: Library) -> str:
    return ", ".join(sorted(version for version in one.elf.versions if "PRIVATE" in version))


def _file(shelf: Shelf, folder: str, name: str) -> str:
    for file in shelf.host.names(shelf.host.resolve(folder)):
        if file.startswith(f"lib{name}-rdmav") and file.endswith(".so"):
            return f"{folder}/{file}"
    raise ConfigError(f"this host's {VERBS} has no provider {name} in {folder}")
