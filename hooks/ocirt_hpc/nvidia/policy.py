"""What a site has decided for NVIDIA's own toolkit holds for us as well: its config.toml.

Its keys only narrow what hpc.toml allows, but for volume mounts, which it turns on, and the place
of the driver's files.  Keys that steer the toolkit's own programs mean nothing here, nor does
no-cgroups: device rules are part of the config, and hold where the container's cgroup can.

Source: nvidia-container-toolkit, config.toml.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc import site, toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host

FILE = "/etc/nvidia-container-runtime/config.toml"

CLI, FEATURES = "nvidia-container-cli", "features"
LEGACY = "nvidia-container-runtime.modes.legacy"

KEYS: dict[tuple[str, str], tuple[str, object]] = {
    # table     key                                                    attribute        default
    ("",        "accept-nvidia-visible-devices-envvar-when-unprivileged"): ("env",      True),
    ("",        "accept-nvidia-visible-devices-as-volume-mounts"):     ("volumes",      False),
    ("",        "disable-require"):                                    ("no_require",   False),
    ("",        "supported-driver-capabilities"):                      ("capabilities", ""),
    ("",        "swarm-resource"):                                     ("swarm",        ""),
    (CLI,       "root"):                                               ("root",         ""),
    (LEGACY,    "cuda-compat-mode"):                                   ("compat_mode",  ""),
    (FEATURES,  "disable-cuda-compat-lib-hook"):                       ("no_compat",    False),
    (FEATURES,  "ignore-imex-channel-requests"):                       ("no_channels",  False),
    (FEATURES,  "no-additional-gids-for-device-nodes"):                ("no_gids",      False),
}  # fmt: skip


class Policy:
    """The toolkit's decisions.

    env           whether the environment counts for containers that are not privileged
    volumes       whether mounts below /var/run/nvidia-container-devices name devices
    no_require    whether NVIDIA_REQUIRE_* is left unchecked
    capabilities  words that NVIDIA_DRIVER_CAPABILITIES may hold, or "" for all
    swarm         variables that stand for NVIDIA_VISIBLE_DEVICES where they are set
    root          below what the driver has its files, or "" for the host's root
    compat_mode   disabled: a newer libcuda of the image is left alone, as with no_compat
    no_channels   whether NVIDIA_IMEX_CHANNELS counts for nothing
    no_gids       whether containers do without the groups that may use the nodes
    """

    env: bool
    volumes: bool
    no_require: bool
    capabilities: str
    swarm: str
    root: str
    compat_mode: str
    no_compat: bool
    no_channels: bool
    no_gids: bool

    def __init__(self) -> None:
        for attribute, default in KEYS.values():
            setattr(self, attribute, default)


def load(host: Host) -> Policy:
    """Return the toolkit's decisions, the defaults where it is not installed.

    ConfigError names the file and the key; keys that are none of our business are passed over.
    The file has to be as trustworthy as hpc.toml.
    """
    policy = Policy()
    text = site.text(host.root + FILE, needed=False)
    if text is None:
        return policy
    with At(FILE):
        document = toml.loads(text)
        for (table, key), (attribute, default) in KEYS.items():
            held = _table(document, table)
            if key in held:
                if type(held[key]) is not type(default):
                    wanted = "true or false" if isinstance(default, bool) else "a string"
                    raise ConfigError(f"{table}.{key}".lstrip("."), f"expected {wanted}")
                setattr(policy, attribute, held[key])
    return policy


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a table by its dotted name; one that is not there is empty."""
    held: Any = document
    for part in name.split(".") if name else ():
        held = held.get(part, {})
        if not isinstance(held, dict):
            raise ConfigError(name, "expected a table")
    return dict(held)


def privileged(config: dict[str, Any]) -> bool:
    """Whether a container counts as privileged for the toolkit: its bounding set says so."""
    sets = (config.get("process") or {}).get("capabilities") or {}
    return "CAP_SYS_ADMIN" in (sets.get("bounding") or ())
