"""Who asks for NVIDIA's GPUs, and for what: an annotation, or variables of engines and images.

    ocirt.hpc/gpus              (annotation) which GPUs; decides before the environment
    NVIDIA_VISIBLE_DEVICES      which GPUs: names of choice.py, all, none; empty or void: nothing
    NVIDIA_DRIVER_CAPABILITIES  which files of the driver
    NVIDIA_REQUIRE_*            what the image demands (require.py)
    NVIDIA_IMEX_CHANNELS        channels for memory shared between nodes

Any of these may come from the image, so they select, and never widen what the host's policy
allows.

Source: NVIDIA container toolkit, user guide, "Environment variables (OCI spec)".
"""

from __future__ import annotations

from ocirt.errors import ConfigError
from ocirt_hpc.nvidia import require
from ocirt_hpc.request import GPUS, NO_ENV, Asked, annotation, split, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.notes import Notes

DEVICES = "NVIDIA_VISIBLE_DEVICES"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
DEFAULT_CAPABILITIES = ("utility", "compute")

HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")


class Request:
    """A request for GPUs: which are asked for, the driver's capabilities, the IMEX channels.

    requirements: what the image demands, by the names of its variables.  compat: whether a newer
    libcuda of the image may take the place of the driver's.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.capabilities = list(DEFAULT_CAPABILITIES)
        self.channels: list[str] = []
        self.requirements: dict[str, str] = {}
        self.compat = True

    def limit(self, allowed: list[str]) -> None:
        """Refuse a capability that the site does not allow; `all` means those that it does."""
        if "all" in allowed:
            return
        if "all" in self.capabilities:
            self.capabilities = list(allowed)
        for word in self.capabilities:
            if word not in allowed:
                raise ConfigError(
                    f"process.env: {CAPABILITIES}",
                    f'the site does not allow "{word}" (nvidia.capabilities in hpc.toml)',
                )


def find(config: dict[str, Any], notes: Notes, *, env_requests: bool = True) -> Request | None:
    """Return what an annotation or the environment asks for, or None.

    An image from before NVIDIA_VISIBLE_DEVICES, which has CUDA_VERSION alone, asks for all.
    env_requests: whether the environment counts; what it says of capabilities always does.
    """
    env = variables(config)
    value = env.get(DEVICES)
    legacy = value is None and "CUDA_VERSION" in env and "NVIDIA_REQUIRE_CUDA" not in env
    asked = annotation(config, GPUS)
    if asked is None:
        if legacy:
            asked = Asked("all", "CUDA_VERSION", "process.env: CUDA_VERSION")
        elif value in (None, "", "void"):
            return None
        else:
            asked = Asked(str(value), f"{DEVICES}={value}", f"process.env: {DEVICES}={value}")
        if not env_requests:
            notes.leave_out(asked.origin, NO_ENV)
            return None
    request = Request(asked)
    words = env.get(CAPABILITIES, "")
    if words:
        request.capabilities = split(words)
    elif legacy:
        request.capabilities = ["all"]
    request.channels = [name for name in env.get("NVIDIA_IMEX_CHANNELS", "").split(",") if name]
    if env.get("NVIDIA_DISABLE_REQUIRE", "").lower() not in ("1", "true"):
        request.requirements = {
            name: text for name, text in env.items() if name.startswith(require.PREFIX)
        }
        if legacy:
            request.requirements["NVIDIA_REQUIRE_CUDA"] = require.legacy(env["CUDA_VERSION"])
    return request
