"""What the stage decided and why, for `ocirt hpc explain`: what was given, what was left out.

A request is allowed by one of RULES, which the place that it came from decides.
"""

from __future__ import annotations

from ocirt import log
from ocirt.errors import ConfigError
from ocirt_hpc.edits import has_cpuset, is_dropped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.request import Asked

COMMAND_LINE = "the command line is the caller's"
ANNOTATIONS = "annotations are the caller's"
ENV = "policy.env-requests"
OTHER = "policy.cdi-annotations"
SITE = "a setting of the site"

# beginning of the place of a request -> what allows it
RULES = (
    ("--device",     COMMAND_LINE),
    ("annotations.cdi.k8s.io/", OTHER),
    ("annotations.", ANNOTATIONS),
    ("process.env",  ENV),
    ("mounts",       "accept-nvidia-visible-devices-as-volume-mounts"),
    ("rdma.",        SITE),
    ("nvidia.",      SITE),
)  # fmt: skip


class Notes:
    """The decisions for one container."""

    def __init__(self, on_missing: str = "auto") -> None:
        self.on_missing = on_missing
        self.rules: dict[str, str] = {}
        self.left_out: list[tuple[str, str]] = []
        self.advice: list[tuple[str, str]] = []

    def allow(self, asked: Asked) -> None:
        """Note what allows a request."""
        found = (rule for start, rule in RULES if asked.where.startswith(start))
        self.rules[asked.origin] = next(found, OTHER)

    def leave_out(self, origin: str, why: str) -> None:
        """Note and tell that a request, or a part of it, comes to nothing."""
        log.warning(f"{origin}: {why}; left out")
        self.left_out.append((origin, why))

    def missing(self, asked: Asked, why: str) -> None:
        """Tell that the host has nothing of a kind; ConfigError where stage.on-missing says so.

        `auto`: an error for devices that were named, a warning for all of nothing.
        """
        how = self.on_missing
        if how == "error" or (how == "auto" and asked.explicit):
            raise ConfigError(why)
        if how == "ignore":
            self.skip(asked.origin, why)
        else:
            self.leave_out(asked.origin, why)

    def skip(self, origin: str, why: str) -> None:
        """Note what the site's settings let a host lack: nobody has to be told."""
        log.debug(f"{origin}: {why}; left out")
        self.left_out.append((origin, why))

    def suggest(self, origin: str, what: str) -> None:
        """Note what would do the container good, and is not done."""
        self.advice.append((origin, what))

    def warn(self, origin: str, what: str) -> None:
        """Note and tell what the container is not kept from."""
        log.warning(f"{origin}: {what}")
        self.advice.append((origin, what))

    def report(self, sections: list[Section], config: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a row for each edit of a config: what it is, who asked for it, what allowed it."""
        rows = []
        hooks = config.get("hooks") or {}
        process = config.get("process") or {}
        own = {
            "envDefault": {item.partition("=")[0] for item in process.get("env") or ()},
            "rlimits": {limit["type"] for limit in process.get("rlimits") or ()},
            "cpuset": {"cpus"} if has_cpuset(config) else (),
        }
        for origin, section in sections:
            rule = self.rules.get(origin, COMMAND_LINE)
            for kind, items in section.items():
                if kind == "dropMounts":
                    continue  # they were a way to ask, and nothing more
                if kind == "dropHooks":
                    items = [
                        which
                        for which in items
                        if any(is_dropped(hook, which) for hook in hooks.get(which["hookName"], ()))
                    ]
                for item in items if isinstance(items, list) else [items]:
                    what = describe(kind, item)
                    if what.partition("=" if kind == "envDefault" else " ")[0] in own.get(kind, ()):
                        what += " (the config's own stays)"
                    rows.append({"edit": kind, "what": what, "from": origin, "allowed": rule})
        for origin, why in self.left_out:
            rows.append({"edit": "", "what": why, "from": origin, "allowed": "left out"})
        for origin, what in self.advice:
            rows.append({"edit": "", "what": what, "from": origin, "allowed": "advice"})
        return rows


def _hook(item: dict[str, Any]) -> str:
    what = item.get("program") or " ".join([item["path"], *item.get("args", ())[1:3]])
    return f"{item['hookName']} hook {what} is left out: its work is done"


def _limits(item: dict[str, Any]) -> str:
    return " ".join(item[key] if key == "device" else f"{key}={item[key]}" for key in item)


def _mount(item: dict[str, Any]) -> str:
    options = ",".join(item.get("options") or ())
    return f"{item['hostPath']} on {item['containerPath']} ({options})"


def _node(item: dict[str, Any]) -> str:
    numbers = f" {item['major']}:{item.get('minor', 0)}" if item.get("major") else ""
    return f"{item['path']}{numbers} {item.get('permissions') or 'rwm'}"


_WORDS: dict[str, Callable[[Any], str]] = {
    "cpuset": lambda item: f"cpus {item['cpus']}, mems {item['mems']}",
    "deviceNodes": _node,
    "dropHooks": _hook,
    "dropNamespaces": lambda item: f"no {item} namespace of its own",
    "hooks": lambda item: f"{item['hookName']} {item['path']}",
    "keepPmi": lambda item: f"the launcher's socket {item} stays open",
    "links": lambda item: f"{item['path']} -> {item['target']}",
    "mounts": _mount,
    "netDevices": lambda item: f"{item['hostInterfaceName']} as {item['name']}",
    "ownIds": lambda item: "{uid}:{gid}, as on the host".format(**item["user"]),
    "rdmaDevices": lambda item: f"{item} moves into the container's network namespace",
    "rdmaLimits": _limits,
    "rlimits": lambda item: f"{item['type']} {item['soft']}:{item['hard']}",
    "user": lambda item: f"{item['uid']}:{item['gid']}",
}


def describe(kind: str, item: Any) -> str:
    """Word one item of an edit."""
    return _WORDS.get(kind, str)(item)
