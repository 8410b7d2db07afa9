"""What a site has decided for NVIDIA's own toolkit holds for us as well: its config.toml.

Its keys only narrow what hpc.toml allows, but for volume mounts, which it turns on.

Source: nvidia-container-toolkit, config.toml.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc import toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host

FILE = "/etc/nvidia-container-runtime/config.toml"

KEYS: dict[str, tuple[str, object]] = {
    # key                                                   attribute        default
    "accept-nvidia-visible-devices-envvar-when-unprivileged": ("env",          True),
    "accept-nvidia-visible-devices-as-volume-mounts":         ("volumes",      False),
    "disable-require":                                        ("no_require",   False),
    "supported-driver-capabilities":                          ("capabilities", ""),
    "swarm-resource":                                         ("swarm",        ""),
}  # fmt: skip


class Policy:
    """The toolkit's decisions.

    env           whether the environment counts for containers that are not privileged
    volumes       whether mounts below /var/run/nvidia-container-devices name devices
    no_require    whether NVIDIA_REQUIRE_* is left unchecked
    capabilities  words that NVIDIA_DRIVER_CAPABILITIES may hold, or "" for all
    swarm         variables that stand for NVIDIA_VISIBLE_DEVICES where they are set
    """

    env: bool
    volumes: bool
    no_require: bool
    capabilities: str
    swarm: str

    def __init__(self) -> None:
        for attribute, default in KEYS.values():
            setattr(self, attribute, default)


def load(host: Host) -> Policy:
    """Return the toolkit's decisions, the defaults where it is not installed.

    ConfigError names the file and the key; keys that are none of our business are passed over.
    """
    policy = Policy()
    text = host.text(FILE)
    if text is None:
        return policy
    with At(FILE):
        document = toml.loads(text)
        for key, (attribute, default) in KEYS.items():
            if key in document:
                if type(document[key]) is not type(default):
                    wanted = "true or false" if isinstance(default, bool) else "a string"
                    raise ConfigError(key, f"expected {wanted}")
                setattr(policy, attribute, document[key])
    return policy


def privileged(config: dict[str, Any]) -> bool:
    """Whether a container counts as privileged for the toolkit: its bounding set says so."""
    sets = (config.get("process") or {}).get("capabilities") or {}
    return "CAP_SYS_ADMIN" in (sets.get("bounding") or ())
