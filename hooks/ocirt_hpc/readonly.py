"""Images that nothing can be added to: a squashfs file that is mounted without a layer above it.

Whatever is mounted at a path needs something there, and where the image lacks it nobody can make
it.  So what the stage adds goes where there is room:

    below /run     a tmpfs on /run, unless the config has a mount there already
    in /usr/bin    PLACE/bin, which PATH gets at its end
    the loader     LD_LIBRARY_PATH, where the image has no cache to lay another over (loader.py)

The rest is left out, with a note.  What a site or a caller wants mounted stays: the runtime says
that there is no place for it.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt_hpc.loader import PLACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.image import Image
    from ocirt_hpc.notes import Notes
    from ocirt_hpc.tree import Tree

RUN = "/run"
PROGRAMS = "/usr/bin"

TMPFS = {
    "containerPath": RUN,
    "hostPath": "tmpfs",
    "type": "tmpfs",
    "options": ["nosuid", "nodev", "mode=755"],
}


def room(config: dict[str, Any], image: Image, path: str) -> bool:
    """Whether something can be mounted at a path: it is there, or below a mount of the config."""
    return image.has(path) or below_a_mount(config, path)


def below_a_mount(config: dict[str, Any], path: str) -> bool:
    """Whether something can be made at a path, since a mount of the config is above it."""
    above = [
        mount
        for mount in config.get("mounts") or ()
        if path.startswith(mount["destination"].rstrip("/") + "/")
    ]
    above.sort(key=lambda mount: len(mount["destination"]))
    return bool(above) and "ro" not in (above[-1].get("options") or ())


def fit(
    sections: list[Section], config: dict[str, Any], image: Image, tree: Tree, notes: Notes
) -> list[Section]:
    """Return the sections with every mount where there is room for it."""
    made: list[Section] = []
    run = False
    for origin, section in sections:
        mounts, programs = [], []
        for mount in section.get("mounts") or ():
            path = mount["containerPath"]
            if room(config, image, path):
                mounts.append(mount)
            elif path.startswith(f"{RUN}/") and image.has(RUN):
                run = True
                mounts.append(mount)
            elif os.path.dirname(path) == PROGRAMS:
                name = os.path.basename(path)
                tree.file(f"bin/{name}")
                programs.append({**mount, "containerPath": f"{PLACE}/bin/{name}"})
            else:
                notes.skip(origin, f"{path}: the image is read-only and has no place for it")
        if "mounts" in section:
            section = {**section, "mounts": mounts + programs}
        if section.get("links"):
            links = [one for one in section["links"] if below_a_mount(config, one["path"])]
            section = {**section, "links": links}
        if programs:
            section["envAppend"] = [*section.get("envAppend", ()), f"PATH={PLACE}/bin"]
        made.append((origin, section))
    if run:
        made.insert(0, (made[0][0], {"mounts": [TMPFS]}))
    return made
