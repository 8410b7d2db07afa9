"""A CDI file that describes the machine's NVIDIA GPUs, for engines that resolve CDI themselves.

Under ocirt nobody needs one: the stage looks at the machine each time.  Libraries keep the host's
paths here, and lie under their sonames as well, so images whose loader looks there find them.

CDI specification 1.1.0; the file declares the lowest version that has what it uses.
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.errors import Error
from ocirt_hpc import edits
from ocirt_hpc.nvidia import choice, container, driver, files
from ocirt_hpc.nvidia.nvml import Nvml
from ocirt_hpc.nvidia.policy import KIND

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host
    from ocirt_hpc.nvidia.driver import Driver, Places


def document(
    host: Host,
    capabilities: list[str],
    driver_root: str = "/",
    nvml_timeout: int = 0,
    places: Places = driver.USUAL,
) -> dict[str, Any] | None:
    """Return the CDI file, or None when no driver is loaded.

    Each GPU, and each MIG device that NVML has, is a device by its index and its UUID; `all` is
    all of them.  nvml_timeout: seconds that NVML may take; without it MIG devices have no names.
    """
    loaded = driver.find(host, Nvml(nvml_timeout), driver_root, places)
    if loaded is None:
        return None
    wanted = files.capabilities(capabilities)
    common = {node.path for node in container.nodes(loaded, [], wanted)}
    names = {"all": choice.everything(loaded)}
    for one in choice.everything(loaded):
        if one.mig is None:
            names[str(one.gpu.index)] = [one]
            if one.gpu.uuid and "?" not in one.gpu.uuid:
                names[one.gpu.uuid] = [one]
    if any(gpu.migs for gpu in loaded.gpus):
        try:
            for gpu, device, mig in choice.paired(loaded, loaded.nvml()):
                if mig is not None:
                    made_of = [choice.Chosen(gpu, mig)]
                    names[f"{gpu.index}:{device.index}"] = names[device.uuid] = made_of
        except Error as error:
            log.warning(f"MIG devices have no names of their own: {error}")
    devices: list[dict[str, Any]] = []
    for name, chosen in sorted(names.items(), key=_order):
        nodes = container.nodes(loaded, chosen, wanted)
        own = [node for node in nodes if node.path not in common]
        devices.append({"name": name, "containerEdits": _clean(edits.node_edits(own))})
    shared = edits.node_edits(container.nodes(loaded, [], wanted))
    shared["mounts"] = _mounts(loaded, wanted)
    # Whoever has applied the file must not be given the same again.
    shared["env"] = ["NVIDIA_VISIBLE_DEVICES=void"]
    made: dict[str, Any] = {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": devices,
        "containerEdits": _clean(shared),
    }
    if any("additionalGids" in one["containerEdits"] for one in (made, *devices)):
        made["cdiVersion"] = "0.7.0"
    return made


def _order(item: tuple[str, Any]) -> tuple[bool, int, str]:
    name = item[0]
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _mounts(loaded: Driver, wanted: set[str]) -> list[dict[str, Any]]:
    mounts = []
    for file in files.find(loaded.files, loaded.version, wanted, loaded.places):
        options = [*container.OPTIONS[file.kind]]
        places = [file.destination or file.source]
        if file.kind == "library" and file.soname and file.soname != file.name:
            places.append(f"{os.path.dirname(file.source)}/{file.soname}")
        mounts += [
            {
                "hostPath": loaded.files.root + file.source,
                "containerPath": place,
                "options": options,
            }
            for place in places
        ]
    return mounts


def _clean(section: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, and owners that are root, as CDI assumes."""
    for node in section.get("deviceNodes", ()):
        for field in ("uid", "gid"):
            if not node[field]:
                del node[field]
    return {kind: items for kind, items in section.items() if items}
