"""Which GPUs and MIG devices a list of names means.

    index 3 · GPU-UUID · PCI address · MIG-GPU-UUID/GI/CI · 0:1 · MIG-UUID · all · none

The beginning of a UUID means the only GPU that it fits (GPU-fef8089b, as CUDA has it).

The index of a MIG device (0:1) and its MIG-UUID are names that NVML gives: only they wait for it,
and where it does not answer they are refused, with the form that needs none.  Every name is looked
up; one that means nothing is an error that says what there is.

Source: NVIDIA container toolkit, user guide, "GPU Enumeration"; MIG user guide, "Device Names".
"""

from __future__ import annotations

from ocirt.errors import ConfigError, Error
from ocirt_hpc.host import pci_address
from ocirt_hpc.nvidia.driver import PROC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocirt_hpc.nvidia.driver import Driver, Gpu, Mig
    from ocirt_hpc.nvidia.nvml import Facts, MigDevice


SHORTEST = len("GPU-") + 4  # of the beginning of a UUID


class Chosen:
    """A chosen GPU; `mig` is the MIG device on it, or None for the whole GPU."""

    def __init__(self, gpu: Gpu, mig: Mig | None = None) -> None:
        self.gpu = gpu
        self.mig = mig

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and (self.gpu, self.mig) == (other.gpu, other.mig)

    def __hash__(self) -> int:
        return hash((self.gpu, self.mig))

    @property
    def name(self) -> str:
        """How it is called in messages, and in a request that means nothing else."""
        if self.mig is None:
            return self.gpu.uuid or str(self.gpu.index)
        return f"MIG-{self.gpu.uuid}/{self.mig.gi}/{self.mig.ci}"


def choose(driver: Driver, names: Iterable[str]) -> list[Chosen]:
    """Return what the names mean, in their order and each once; ConfigError for one unknown.

    `all`: every GPU and every MIG device, but not as a whole a GPU that is cut into MIG devices.
    """
    chosen: dict[Chosen, None] = {}
    for name in names:
        if name == "all":
            chosen.update(dict.fromkeys(everything(driver)))
        elif name != "none":
            chosen[_one(driver, name)] = None
    return list(chosen)


def everything(driver: Driver) -> list[Chosen]:
    """Return what `all` means."""
    found = []
    for gpu in driver.gpus:
        found += [Chosen(gpu, mig) for mig in gpu.migs] or [Chosen(gpu)]
    return found


def _one(driver: Driver, name: str) -> Chosen:
    if name.upper().startswith("MIG-"):
        return _mig(driver, name)
    if name.isascii() and name.isdecimal():
        if int(name) < len(driver.gpus):
            return Chosen(driver.gpus[int(name)])
    elif name.upper().startswith("GPU-"):
        fitting = [gpu for gpu in driver.gpus if gpu.uuid.lower().startswith(name.lower())]
        if len(fitting) == 1 and len(name) >= SHORTEST:
            return Chosen(fitting[0])
        if len(fitting) > 1:
            raise ConfigError(f'"{name}" is the beginning of the UUIDs of {len(fitting)} GPUs')
        if any("?" in gpu.uuid for gpu in driver.gpus):
            return _by_uuid(driver, name)
    elif name.count(":") == 2:
        for gpu in driver.gpus:
            if gpu.address == pci_address(name):
                return Chosen(gpu)
    elif name.count(":") == 1 and name.replace(":", "").isdecimal():
        return _by_nvml(driver, name)
    raise ConfigError(f'there is no NVIDIA GPU "{name}" ({_there(driver)})')


def _mig(driver: Driver, name: str) -> Chosen:
    parts = name[4:].split("/")
    if len(parts) != 3 or not parts[1].isdecimal() or not parts[2].isdecimal():
        return _by_nvml(driver, name)
    for gpu in driver.gpus:
        if gpu.uuid.lower() == parts[0].lower():
            for mig in gpu.migs:
                if (mig.gi, mig.ci) == (int(parts[1]), int(parts[2])):
                    return Chosen(gpu, mig)
    raise ConfigError(f'there is no MIG device "{name}" ({_there(driver)})')


def _by_uuid(driver: Driver, name: str) -> Chosen:
    """Return a GPU by a UUID that the driver does not know before its first use."""
    try:
        facts = driver.nvml()
    except Error as error:
        raise ConfigError(
            f'"{name}": a GPU does not know its UUID before its first use;'
            " run nvidia-smi on the host once, or name the GPU by its index",
            *error.segments,
        ) from None
    for gpu in driver.gpus:
        for device in facts.gpus:
            if device.address == gpu.address and device.uuid.lower() == name.lower():
                return Chosen(gpu)
    have = ", ".join(device.uuid for device in facts.gpus if device.uuid)
    raise ConfigError(f'there is no NVIDIA GPU "{name}" (have {have})')


def _by_nvml(driver: Driver, name: str) -> Chosen:
    """Return a MIG device by its UUID or its index, which NVML gives."""
    try:
        facts = driver.nvml()
    except Error as error:
        what = "UUID" if name.upper().startswith("MIG-") else "index"
        raise ConfigError(
            f'"{name}": the {what} of a MIG device is known to NVML alone;'
            f" name it as {_form(driver)}",
            *error.segments,
        ) from None
    have = []
    for gpu, one, mig in paired(driver, facts):
        index = f"{gpu.index}:{one.index}"
        have.append(f"{index} {one.uuid}")
        if name.lower() not in (index, one.uuid.lower()):
            continue
        if mig is None:
            raise ConfigError(
                f'"{name}": the driver does not show the MIG device in procfs,'
                f" which NVML has as {one.gi}/{one.ci} of GPU {gpu.index}"
            )
        return Chosen(gpu, mig)
    have += [device.fault for device in facts.gpus if device.fault]
    raise ConfigError(f'there is no MIG device "{name}" (have {", ".join(have) or "none"})')


def need(chosen: Iterable[Chosen]) -> None:
    """Refuse a GPU of which procfs tells nothing; ConfigError names it, and the file."""
    for one in chosen:
        if one.gpu.fault is not None:
            place = f"GPU {one.gpu.index} ({one.gpu.address})"
            raise ConfigError(place, *one.gpu.fault.segments) from one.gpu.fault


def paired(driver: Driver, facts: Facts) -> Iterator[tuple[Gpu, MigDevice, Mig | None]]:
    """Yield each MIG device of NVML with its GPU, and with what procfs has of it, or None."""
    for gpu in driver.gpus:
        by_place = {(mig.gi, mig.ci): mig for mig in gpu.migs}
        for device in facts.gpus:
            for one in device.migs if device.address == gpu.address else ():
                yield gpu, one, by_place.get((one.gi, one.ci))


def _form(driver: Driver) -> str:
    """Show a name of a MIG device that procfs can tell, of this machine if it has one."""
    for one in everything(driver):
        if one.mig is not None:
            return one.name
    return "MIG-GPU-UUID/GI/CI"


def _there(driver: Driver) -> str:
    names = [
        f"{one.gpu.index} {one.name}" if one.mig is None else one.name for one in everything(driver)
    ]
    return "have " + ", ".join(names) if names else f"the driver has none in {PROC}/gpus"
