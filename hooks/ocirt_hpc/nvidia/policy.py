"""What a site has decided for NVIDIA's own toolkit holds for us as well: its config.toml.

Its keys only narrow what hpc.toml allows, but for volume mounts, which it turns on, the place of
the driver's files, and what concerns CDI: where its files are, which annotations name devices, and
what a name without a kind means in mode cdi.  In the modes auto, legacy and jit-cdi GPUs are found
on the machine; mode csv is for Tegra, whose lists of files nobody reads here.  Keys that steer the
toolkit's own programs mean nothing here, nor does no-cgroups: device rules are part of the config,
and hold where the container's cgroup can.

It is looked for where the toolkit does: NVIDIA_CTK_CONFIG_FILE_PATH and XDG_CONFIG_HOME of our own
environment, then FILE.

Source: nvidia-container-toolkit, config.toml.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError
from ocirt_hpc import parts, rules, site, toml
from ocirt_hpc.request import CDI_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host

BELOW = "nvidia-container-runtime/config.toml"
FILE = f"/etc/{BELOW}"
NAMED = "NVIDIA_CTK_CONFIG_FILE_PATH"

CLI, FEATURES = "nvidia-container-cli", "features"
RUNTIME = "nvidia-container-runtime"
LEGACY, CDI = f"{RUNTIME}.modes.legacy", f"{RUNTIME}.modes.cdi"

KIND = "nvidia.com/gpu"
MODES = ("auto", "cdi", "csv", "jit-cdi", "legacy")

KEYS: dict[tuple[str, str], tuple[str, object]] = {
    # table     key                                                    attribute        default
    ("",        "accept-nvidia-visible-devices-envvar-when-unprivileged"): ("env",      True),
    ("",        "accept-nvidia-visible-devices-as-volume-mounts"):     ("volumes",      False),
    ("",        "disable-require"):                                    ("no_require",   False),
    ("",        "supported-driver-capabilities"):                      ("capabilities", ""),
    ("",        "swarm-resource"):                                     ("swarm",        ""),
    (CLI,       "root"):                                               ("root",         ""),
    (RUNTIME,   "mode"):                                               ("mode",         "auto"),
    (CDI,       "default-kind"):                                       ("kind",         KIND),
    (CDI,       "spec-dirs"):                                          ("directories",  []),
    (CDI,       "annotation-prefixes"):                                ("prefixes", [CDI_PREFIX]),
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
    mode          cdi: names of devices are those of CDI files, if these have any of that kind
    kind          of a name that has none, in mode cdi
    directories   of CDI files, the host's root included; the usual ones, when empty
    prefixes      of annotations that name CDI devices
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
    mode: str
    kind: str
    directories: list[str]
    prefixes: list[str]
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
    path, text = _read(host)
    if text is None:
        return policy
    with At(path):
        document = toml.loads(text)
        for (table, key), (attribute, default) in KEYS.items():
            held = _table(document, table)
            if key in held:
                with At(f"{table}.{key}".lstrip(".")):
                    parts.fit(held[key], default)
                setattr(policy, attribute, held[key])
        with At(f"{RUNTIME}.mode"):
            if policy.mode not in MODES:
                raise ConfigError(f'"{policy.mode}" is none of {", ".join(MODES)}')
        with At(f"{CDI}.default-kind"):
            rules.split(f"{policy.kind}=all")
        with At(f"{CDI}.spec-dirs"):
            for directory in policy.directories:
                parts.path(directory)
        policy.directories = [host.root + directory for directory in policy.directories]
    return policy


def _read(host: Host) -> tuple[str, str | None]:
    """Return the file that counts and what it holds, None for none.

    One that the environment names has to exist; for a machine that is a directory none does.
    """
    named, home = os.environ.get(NAMED), os.environ.get("XDG_CONFIG_HOME")
    if named and not host.root:
        return named, site.text(named)
    if home and not host.root:
        text = site.text(f"{home}/{BELOW}", needed=False)
        if text is not None:
            return f"{home}/{BELOW}", text
    return FILE, site.text(host.root + FILE, needed=False)


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
