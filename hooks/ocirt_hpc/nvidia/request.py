"""Who asks for NVIDIA's GPUs, and for what: an annotation, or variables of engines and images.

    nvidia.com/gpu=0            (--device, cdi.k8s.io/*) where no CDI file has that kind
    ocirt.hpc/gpus              (annotation) which GPUs
    mounts below VOLUMES        which GPUs, where NVIDIA's config.toml says so
    NVIDIA_VISIBLE_DEVICES      which GPUs: names of choice.py, all, none; empty or void: nothing
    NVIDIA_DRIVER_CAPABILITIES  which files of the driver
    NVIDIA_REQUIRE_*            what the image demands (require.py)
    ocirt.hpc/imex, NVIDIA_IMEX_CHANNELS    channels for memory shared between nodes
    ocirt.hpc/mig-management    config, monitor: the capabilities that MIG is managed by

Any of these may come from the image, so they select, and never widen what the host's policy
allows.

Source: NVIDIA container toolkit, user guide, "Environment variables (OCI spec)".
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc.nvidia import require
from ocirt_hpc.nvidia.policy import FILE, KIND, privileged
from ocirt_hpc.request import GPUS, NO_ENV, Asked, annotation, split, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ocirt_hpc.notes import Notes
    from ocirt_hpc.nvidia.driver import Places
    from ocirt_hpc.nvidia.policy import Policy

DEVICES = "NVIDIA_VISIBLE_DEVICES"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
CHANNELS, IMEX = "NVIDIA_IMEX_CHANNELS", "ocirt.hpc/imex"
MIG_VARIABLES = ("NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES")
MANAGEMENT = "ocirt.hpc/mig-management"
DEFAULT_CAPABILITIES = ("utility", "compute")

# Names of a CDI kind that need no CDI file.
KINDS = (KIND, f"runtime.{KIND}")

VOLUMES = "/var/run/nvidia-container-devices/"

HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-toolkit")


class Request:
    """A request for GPUs: which are asked for, the driver's capabilities, the IMEX channels, the
    management of MIG.

    requirements: what the image demands, by the names of its variables.  compat: whether a newer
    libcuda of the image may take the place of the driver's.  nvml_timeout: seconds that NVML may
    take, where nothing else can tell; 0: it is never asked.  driver_root: below what the driver has
    its files.  new_nodes: whether nodes that the host lacks can be made for the container.  gids:
    whether it gets the groups that may use the nodes.  by_site: nobody asked, but the site gives
    `all`, or what the `job` has.  native: whether the driver's libraries go where the image's
    distribution has its own.  places: where they are looked for.  by_file: names of devices that
    are those of CDI files.  local: CUDA_VISIBLE_DEVICES of the container.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.capabilities = list(DEFAULT_CAPABILITIES)
        self.channels: Asked | None = None
        self.management: Asked | None = None
        self.requirements: dict[str, str] = {}
        self.compat = True
        self.nvml_timeout = 0
        self.driver_root = "/"
        self.new_nodes = True
        self.gids = True
        self.by_site = ""
        self.native = False
        self.by_file: list[str] = []
        self.local = ""
        self.places: Places | None = None

    def limit(self, allowed: list[str], where: str = "nvidia.capabilities in hpc.toml") -> None:
        """Refuse a capability that the site does not allow; `all` means those that it does."""
        if "all" in allowed:
            return
        if "all" in self.capabilities:
            self.capabilities = list(allowed)
        for word in self.capabilities:
            if word not in allowed:
                raise ConfigError(
                    f"process.env: {CAPABILITIES}",
                    f'the site does not allow "{word}" ({where})',
                )


def find(
    config: dict[str, Any],
    notes: Notes,
    policy: Policy,
    *,
    env_requests: bool = True,
    by_name: Asked | None = None,
    by_part: Asked | None = None,
    default: str = "none",
    kinds: Iterable[str] = (),
) -> Request | None:
    """Return what is asked for, or None; the first source that says anything decides.

    by_name: names of CDI devices of ours, which come first.  by_part: what a module or a profile of
    the site gives to who names none.  env_requests: whether the
    environment counts; what it says of capabilities always does.  An image from before
    NVIDIA_VISIBLE_DEVICES, which has CUDA_VERSION alone, asks for all.  default: what the site asks
    for, where nothing else does: none, job, all.  kinds: of CDI devices that a variable may name
    beside GPUs.
    """
    env = variables(config)
    asked = by_name or annotation(config, GPUS) or (volumes(config) if policy.volumes else None)
    value = _value(env, policy.swarm)
    legacy = value is None and "CUDA_VERSION" in env and "NVIDIA_REQUIRE_CUDA" not in env
    by_env = env_requests and (policy.env or privileged(config))
    by_site = asked is None and value is None and not legacy and default != "none"
    if by_part is not None and asked is None and value is None and not legacy:
        asked, by_site = by_part, False
    if by_site:
        where = "nvidia.request-default"
        asked = Asked("all", f"{where}={default}", f"{where} in hpc.toml")
    if asked is None:
        if legacy:
            asked = Asked("all", "CUDA_VERSION", "process.env: CUDA_VERSION")
        elif value is None or value[1] in ("", "void"):
            return None
        else:
            asked = Asked(value[1], f"{value[0]}={value[1]}", f"process.env: {value[0]}={value[1]}")
        if not env_requests:
            notes.leave_out(asked.origin, NO_ENV)
            return None
        if not by_env:
            notes.leave_out(asked.origin, f"{FILE} lets no variable ask for GPUs")
            return None
    # "0," is what scripts make of a list; of nothing but commas nobody knows what is meant.
    asked.names = [name for name in asked.names if name] or asked.names
    named = _by_kind(asked, policy, kinds)
    asked.names = [unqualified(name) for name in asked.names if name not in named]
    request = Request(asked)
    request.by_file = [name if "=" in name else f"{policy.kind}={name}" for name in named]
    request.by_site = default if by_site else ""
    request.local = env.get("CUDA_VISIBLE_DEVICES", "")
    words = env.get(CAPABILITIES, "")
    if words:
        request.capabilities = [word for word in split(words) if word]
    elif legacy:
        request.capabilities = ["all"]
    if policy.capabilities:
        request.limit(split(policy.capabilities), f"supported-driver-capabilities in {FILE}")
    channels = _channels(config, env, policy)
    if channels is not None and channels.origin == CHANNELS and not by_env:
        notes.leave_out(CHANNELS, NO_ENV if not env_requests else f"{FILE} lets no variable ask")
    elif channels is not None and policy.no_channels:
        notes.leave_out(channels.origin, f"ignore-imex-channel-requests in {FILE}")
    elif channels is not None:
        notes.allow(channels)
        request.channels = channels
    request.management = annotation(config, MANAGEMENT)
    for name in MIG_VARIABLES:
        if env.get(name):
            notes.leave_out(name, f"no variable can ask for it; the annotation {MANAGEMENT} can")
    request.compat = not policy.no_compat and policy.compat_mode != "disabled"
    request.gids = not policy.no_gids
    request.driver_root = os.path.normpath("/" + policy.root.lstrip("/"))
    if env.get("NVIDIA_DISABLE_REQUIRE", "").lower() not in ("1", "true") and not policy.no_require:
        request.requirements = {
            name: text for name, text in env.items() if name.startswith(require.PREFIX)
        }
        if legacy:
            request.requirements["NVIDIA_REQUIRE_CUDA"] = require.legacy(env["CUDA_VERSION"])
    return request


def _by_kind(asked: Asked, policy: Policy, kinds: Iterable[str]) -> list[str]:
    """Return the names that are those of CDI files; ConfigError for a kind that is not offered.

    An image may ask for GPUs, and for nothing else that an administrator has described.
    """
    by_image = asked.where.startswith("process.env")
    offered = {*KINDS, *kinds, *((policy.kind,) if policy.mode == "cdi" else ())}
    found = []
    for name in asked.names:
        kind, equals, _ = name.partition("=")
        if equals and "/" in kind and by_image and kind not in offered:
            raise ConfigError(
                asked.where,
                f'no variable can ask for devices of the kind "{kind}"'
                " (nvidia.cdi-kinds in hpc.toml)",
            )
        other = equals and "/" in kind and kind not in KINDS
        if other or (policy.mode == "cdi" and name not in ("", "none")):
            found.append(name)
    return found


def _value(env: dict[str, str], swarm: str) -> tuple[str, str] | None:
    """Return the variable that names devices, and its value; Swarm's come first, all of them."""
    names = [name for name in split(swarm) if env.get(name)]
    if names:
        return ",".join(names), ",".join(env[name] for name in names)
    return (DEVICES, env[DEVICES]) if DEVICES in env else None


def applied(config: dict[str, Any]) -> bool:
    """Whether an engine has resolved a CDI file of GPUs: these say so, lest it be done twice."""
    return variables(config).get(DEVICES) == "void"


def unqualified(name: str) -> str:
    """Return the device of a qualified name of ours (nvidia.com/gpu=0); others as they are."""
    kind, equals, device = name.partition("=")
    return device if equals and kind in KINDS else name


def volumes(config: dict[str, Any]) -> Asked | None:
    """Return the devices that mounts of /dev/null below VOLUMES name, as Kubernetes does."""
    names = [name for name in _below(config) if not name.startswith("imex/")]
    for index, name in enumerate(names):
        if name.startswith("cdi/"):
            qualified = name.removeprefix("cdi/")
            kind, _, device = qualified.rpartition("/")
            names[index] = qualified if "=" in qualified else f"{kind}={device}"
    return Asked(",".join(names), f"mounts below {VOLUMES}", "mounts") if names else None


def _below(config: dict[str, Any]) -> list[str]:
    return [
        mount["destination"].removeprefix(VOLUMES).strip("/")
        for mount in config.get("mounts") or ()
        if mount["destination"].startswith(VOLUMES) and mount.get("source") == "/dev/null"
    ]


def _channels(config: dict[str, Any], env: dict[str, str], policy: Policy) -> Asked | None:
    """Return the IMEX channels that are asked for; the first source that says anything decides."""
    asked = annotation(config, IMEX)
    if asked is None and policy.volumes:
        names = [name.removeprefix("imex/") for name in _below(config) if name.startswith("imex/")]
        if names:
            asked = Asked(",".join(names), f"mounts below {VOLUMES}imex", "mounts")
    if asked is None and env.get(CHANNELS, "") not in ("", "none", "void"):
        asked = Asked(env[CHANNELS], CHANNELS, f"process.env: {CHANNELS}")
    return asked
