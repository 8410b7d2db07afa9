"""Who asks for NVIDIA's GPUs, and for what: the environment that engines and images set.

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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEVICES = "NVIDIA_VISIBLE_DEVICES"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
DEFAULT_CAPABILITIES = ("utility", "compute")

HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")


class Request:
    """A request for GPUs: their names, the driver's capabilities, the IMEX channels.

    origin: what asks, for messages.  explicit: the caller named devices, so that a host without
    them is an error; `all`, which images set by themselves, is not.
    """

    def __init__(self, names: list[str], origin: str) -> None:
        self.names = names
        self.origin = origin
        self.explicit = any(name not in ("all", "none") for name in names)
        self.capabilities = list(DEFAULT_CAPABILITIES)
        self.channels: list[str] = []
        self.requirements: dict[str, str] = {}

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


def variables(config: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the config's process; of two the last counts, as for runc."""
    env = (config.get("process") or {}).get("env") or ()
    return {name: value for name, _, value in (item.partition("=") for item in env)}


def of_env(config: dict[str, Any]) -> Request | None:
    """Return what the environment asks for, or None.

    An image from before NVIDIA_VISIBLE_DEVICES, which has CUDA_VERSION alone, asks for all.
    """
    env = variables(config)
    value = env.get(DEVICES)
    legacy = "CUDA_VERSION" in env and "NVIDIA_REQUIRE_CUDA" not in env
    if value is None and not legacy:
        return None
    if value is None:
        request = Request(["all"], "CUDA_VERSION")
    elif value in ("", "void"):
        return None
    else:
        request = Request([name.strip() for name in value.split(",")], f"{DEVICES}={value}")
    words = env.get(CAPABILITIES, "")
    if words:
        request.capabilities = [word.strip() for word in words.split(",")]
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
