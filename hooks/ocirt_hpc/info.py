"""The devices of a machine that the stage could give to containers."""

from __future__ import annotations

from ocirt.errors import Error
from ocirt_hpc import kinds, rdma
from ocirt_hpc.nvidia import choice, driver, nvml, require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host
    from ocirt_hpc.nvidia.driver import Driver, Places


def document(
    host: Host, nvml_timeout: int = 0, driver_root: str = "/", places: Places = driver.USUAL
) -> dict[str, Any]:
    """Return what there is, as data; what cannot be told has its reason in `faults`.

    nvml_timeout: seconds that NVML may take to tell what else nobody knows; 0: it is not asked.
    """
    made: dict[str, Any] = {"nvidia": None, "rdma": [], "devices": {}, "faults": []}
    try:
        loaded = driver.find(host, nvml.Nvml(nvml_timeout), driver_root, places)
        made["nvidia"] = _nvidia(loaded, nvml_timeout, made["faults"]) if loaded else None
    except Error as error:
        made["faults"].append(str(error))
    try:
        made["rdma"] = [
            {
                "index": device.index,
                "name": device.name,
                "address": device.pci.address if device.pci else "",
                "nodes": [f"{rdma.FOLDER}/{name}" for name in _names(device)],
                "ports": [
                    {"port": port.number, "layer": port.layer, "active": port.active}
                    for port in device.ports
                ],
            }
            for device in rdma.find(host)
        ]
    except Error as error:
        made["faults"].append(str(error))
    for name, row in kinds.KINDS.items():
        found = [node.path for device in kinds.find(host, row) for node in device.nodes]
        paths = [word.partition("=")[0] for word in kinds.field(row, "with")]
        found += [path for path in paths if host.node(path) is not None]
        if found:
            made["devices"][name] = found
    return made


def _names(device: rdma.Device) -> list[str]:
    return [name for names in device.nodes.values() for name in names]


def _nvidia(loaded: Driver, nvml_timeout: int, faults: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        **require.facts(loaded.version),
        "gpus": [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "address": gpu.address,
                "model": gpu.model,
                "node": gpu.path,
                "mig": [choice.Chosen(gpu, mig).name for mig in gpu.migs],
            }
            for gpu in loaded.gpus
        ],
    }
    if nvml_timeout:
        try:
            facts = loaded.nvml()
            for row in made["gpus"]:
                gpu = facts.gpu(row["address"])
                migs = {f"{row['index']}:{mig.index}": mig.uuid for mig in gpu.migs}
                row["nvml"] = {"arch": gpu.arch, "brand": gpu.brand, "mig": migs}
        except Error as error:
            faults.append(str(error))
    return made


def text(made: dict[str, Any]) -> str:
    """Return the document of `document` for people."""
    lines = []
    nvidia = made["nvidia"]
    if nvidia:
        cuda = f", CUDA {nvidia['cuda']}" if "cuda" in nvidia else ""
        lines.append(f"NVIDIA driver {nvidia['driver']}{cuda}")
        for gpu in nvidia["gpus"]:
            lines.append(f"  {gpu['index']}  {gpu['uuid']}  {gpu['address']}  {gpu['model']}")
            lines += [f"     {name}" for name in gpu["mig"]]
            if "nvml" in gpu:
                lines.append(
                    f"     architecture {gpu['nvml']['arch']}, brand {gpu['nvml']['brand']}"
                )
                lines += [f"     {index}  {uuid}" for index, uuid in gpu["nvml"]["mig"].items()]
    if made["rdma"]:
        lines.append("RDMA devices")
    for device in made["rdma"]:
        ports = ", ".join(
            f"port {port['port']} {port['layer']} {'active' if port['active'] else 'down'}"
            for port in device["ports"]
        )
        lines.append(
            f"  {device['index']}  {device['name']}  {device['address'] or 'no PCI'}  {ports}"
        )
    if made["devices"]:
        lines.append("Other devices")
    lines += [f"  {name}  {' '.join(paths)}" for name, paths in made["devices"].items()]
    lines += [f"cannot be told: {fault}" for fault in made["faults"]]
    return "\n".join(lines or ["no device that the stage knows"]) + "\n"
