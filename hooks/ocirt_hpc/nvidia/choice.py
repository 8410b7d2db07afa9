"""Which GPUs and MIG devices a list of names means.

    index 3 · GPU-UUID · PCI address · MIG-GPU-UUID/GI/CI · all · none

A plain index of a MIG device (0:1) and its MIG-UUID are names that NVML gives; without it they
are refused, with the form to use.  Every name is looked up; one that means nothing is an error
that says what there is.

Source: NVIDIA container toolkit, user guide, "GPU Enumeration"; MIG user guide, "Device Names".
"""

from __future__ import annotations

from ocirt.errors import ConfigError
from ocirt_hpc.host import pci_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_hpc.nvidia.driver import Driver, Gpu, Mig


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
        for gpu in driver.gpus:
            if gpu.uuid.lower() == name.lower():
                return Chosen(gpu)
        if any("?" in gpu.uuid for gpu in driver.gpus):
            raise ConfigError(
                f'"{name}": a GPU does not know its UUID before its first use;'
                " run nvidia-smi on the host once, or name the GPU by its index"
            )
    elif name.count(":") == 2:
        for gpu in driver.gpus:
            if gpu.address == pci_address(name):
                return Chosen(gpu)
    elif name.count(":") == 1 and name.replace(":", "").isdecimal():
        raise ConfigError(
            f'"{name}": the index of a MIG device is known to NVML alone;'
            f" name it as {_form(driver)}"
        )
    raise ConfigError(f'there is no NVIDIA GPU "{name}" ({_there(driver)})')


def _mig(driver: Driver, name: str) -> Chosen:
    parts = name[4:].split("/")
    if len(parts) != 3 or not parts[1].isdecimal() or not parts[2].isdecimal():
        raise ConfigError(
            f'"{name}": the UUID of a MIG device is known to NVML alone; name it as {_form(driver)}'
        )
    for gpu in driver.gpus:
        if gpu.uuid.lower() == parts[0].lower():
            for mig in gpu.migs:
                if (mig.gi, mig.ci) == (int(parts[1]), int(parts[2])):
                    return Chosen(gpu, mig)
    raise ConfigError(f'there is no MIG device "{name}" ({_there(driver)})')


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
    return "have " + ", ".join(names) if names else "the driver has none"
