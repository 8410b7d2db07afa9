"""Which GPUs a batch system gave to this job: a request goes no further than that.

First of these that says anything:

    SLURM_STEP_GPUS, SLURM_JOB_GPUS    numbers on the node
    the devices cgroup of the job      a node that it forbids cannot be opened (EPERM)
    CUDA_VISIBLE_DEVICES               of the runtime's own environment: PBS, LSF, Flux, ...;
                                       before all others where it names MIG devices

These are variables of the runtime's process, which the batch system set, never of the container,
whose environment may come from its image.

Source: Slurm, gres.conf(5) and srun(1), "OUTPUT ENVIRONMENT VARIABLES"; CUDA programming guide,
"CUDA environment variables".
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc.nvidia import choice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ocirt_hpc.nvidia.choice import Chosen
    from ocirt_hpc.nvidia.driver import Driver, Gpu

SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
LOCAL, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
# `srun --container` of Slurm 22.05 hands a runtime SLURMD_NODENAME and nothing more of the job.
IN_A_JOB = ("SLURM_JOB_ID", "SLURMD_NODENAME", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID",
            "_CONDOR_JOB_AD")  # fmt: skip


class Allocation:
    """The GPUs of a job, by index of nvidia-smi; `source` says who gave them.

    migs: of those that are cut into MIG devices, which of these; None: all of them.
    """

    def __init__(self, indices: list[int], source: str, migs: set[Chosen] | None = None) -> None:
        self.indices = indices
        self.source = source
        self.migs = migs

    def has(self, one: Chosen) -> bool:
        """Whether a GPU, or a MIG device, is the job's."""
        if self.migs is not None:
            return one in self.migs
        return one.gpu.index in self.indices


def find(
    driver: Driver, env: Mapping[str, str], may_open: Callable[[str], bool] | None = None
) -> Allocation | None:
    """Return the job's GPUs, or None when there is no job that limits them.

    env: the runtime's own.  may_open: whether a device node can be opened.
    """
    local = env.get(LOCAL, "")
    if "MIG-" in local and any(env.get(name) for name in (*SLURM, *IN_A_JOB)):
        # Slurm numbers MIG devices as it does GPUs, in an order of its own.
        given = choice.choose(driver, [name.strip() for name in local.split(",")])
        indices = sorted({one.gpu.index for one in given})
        return Allocation(indices, f"{LOCAL}={local}", set(given))
    for name in SLURM:
        if env.get(name):
            return Allocation(_numbers(name, env[name], driver), f"{name}={env[name]}")
    if not any(env.get(name) for name in IN_A_JOB):
        return None
    opens = may_open or _may_open
    there = [gpu for gpu in driver.gpus if driver.host.node(gpu.path) is not None]
    open_ones = [gpu.index for gpu in there if opens(driver.host.dev_root + gpu.path)]
    if len(open_ones) < len(there):
        return Allocation(open_ones, "the job's cgroup")
    if local and local != "NoDevFiles":
        return Allocation(_local(local, driver), f"{LOCAL}={local}")
    return None


def narrow(chosen: list[Chosen], names: list[str], allocation: Allocation) -> list[Chosen]:
    """Return what of a request lies in the allocation; `all` means all of that.

    ConfigError for a GPU that was named and is another job's: never less than what was asked.
    """
    outside = [one for one in chosen if not allocation.has(one)]
    if outside and names != ["all"]:
        given = ", ".join(map(str, allocation.indices)) or "none"
        one = outside[0]
        name = f"MIG device {one.name}" if one.mig is not None else f"GPU {one.gpu.index}"
        raise ConfigError(f"{name} is not of this job ({allocation.source} gives it {given})")
    return [one for one in chosen if one not in outside]


def inside(chosen: list[Chosen]) -> dict[str, Any]:
    """Return the edit of CUDA_VISIBLE_DEVICES: the job's numbers mean nothing in the container.

    A MIG device has no number for CUDA: there is none but the chosen ones, so it takes the first.
    """
    if any(one.mig is not None for one in chosen):
        return {"envUnset": [LOCAL]}
    numbers = renumbered(chosen)
    made = {"env": [f"{LOCAL}={numbers}"]}
    if numbers != ",".join(str(number) for number in range(numbers.count(",") + 1)):
        # By itself CUDA counts from the fastest GPU on.
        made["env"].append(f"{ORDER}=PCI_BUS_ID")
    return made


def stray(value: str, count: int) -> str:
    """Return the first number of a CUDA_VISIBLE_DEVICES that none of so many GPUs has, or ""."""
    words = [word.strip() for word in value.split(",")]
    return next((word for word in words if word.isdecimal() and int(word) >= count), "")


def renumbered(chosen: list[Chosen]) -> str:
    """Return CUDA_VISIBLE_DEVICES for inside the container, which counts from 0 there.

    The numbers follow the bus there as well, so a request in another order keeps its order.
    """
    gpus = sorted({one.gpu.index for one in chosen})
    return ",".join(str(gpus.index(one.gpu.index)) for one in chosen)


def _numbers(name: str, value: str, driver: Driver) -> list[int]:
    """Return Slurm's numbers: `0,2-3`, in the order of the minors of the nodes."""
    found: list[int] = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f'{name}={value}: "{part}" is no GPU number')
        found += range(int(first), int(last or first) + 1)[: len(driver.gpus) + 1]
    # gres.conf lists the files /dev/nvidiaN, whose N is the minor.
    by_minor = {gpu.minor: gpu.index for gpu in driver.gpus}
    for number in found:
        if number not in by_minor:
            raise ConfigError(f"{name}={value}: this host has no /dev/nvidia{number}")
    return sorted(by_minor[number] for number in found)


def _local(value: str, driver: Driver) -> list[int]:
    names = [name.strip() for name in value.split(",")]
    return [gpu.index for gpu in driver.gpus if any(_same(gpu, name) for name in names)]


def _same(gpu: Gpu, name: str) -> bool:
    if name.isdecimal():
        return gpu.index == int(name)
    # CUDA takes the beginning of a UUID, and of a MIG device its parent's.
    uuid = name.removeprefix("MIG-").partition("/")[0].lower()
    return len(uuid) > 4 and gpu.uuid.lower().startswith(uuid)


def _may_open(path: str) -> bool:
    """Whether the job's cgroup lets us open a node; other failures are not its doing."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except PermissionError:
        return False
    except OSError:
        return True
    return True
