"""Podman: containers.conf.d/ocirt.conf.

A list in a later file takes the place of an earlier one, so ours repeats what was in force.
Podman looks a runtime up in these lists by the last part of the name it was called by; one
that is missing there gets no JSON log, and its errors lose their exit codes.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.engines.site import toml
from ocirt.errors import At

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.engines.site import Site, Wish

DROP_IN = "/etc/containers/containers.conf.d/ocirt.conf"
SOURCES = (
    "/usr/share/containers/containers.conf",
    "/etc/containers/containers.conf",
    "/etc/containers/containers.conf.d/*.conf",
)
# Of a user, below ~/.config; they come after those of the machine.
OWN_DROP_IN = "containers/containers.conf.d/ocirt.conf"
OWN = ("containers/containers.conf", "containers/containers.conf.d/*.conf")

LISTS = {
    # as Podman reads it          built into it; a name that it does not know is harmless
    "runtime_supports_json":     ("crun", "runc", "kata", "runsc", "youki", "krun", "ocijail"),
    # containers.conf(5) writes it with an s at the end, which no Podman since 2.0 looks for.
    "runtime_supports_nocgroup": ("crun", "krun"),
}  # fmt: skip


def drop_in(wish: Wish, site: Site) -> str:
    """Return our file."""
    names = [wish.name, os.path.basename(wish.path)]
    text = "[engine]\n"
    for key, usual in LISTS.items():
        words = dict.fromkeys([*in_force(key, usual, site), *names])
        text += f"{key} = [{', '.join([_quoted(word) for word in words])}]\n"
    return f"{text}\n[engine.runtimes]\n{wish.name} = [{_quoted(wish.path)}]\n"


def in_force(key: str, usual: tuple[str, ...], site: Site) -> list[str]:
    """Return a list as the machine's other files, and the user's own, leave it."""
    found = list(usual)
    patterns, mine = list(SOURCES), DROP_IN
    if site.home:
        patterns += [f"{site.home}/{path}" for path in OWN]
        mine = f"{site.home}/{OWN_DROP_IN}"
    for path in [path for pattern in patterns for path in site.glob(pattern) if path != mine]:
        with At(path):
            given = toml(site.read(path)).get("engine", {}).get(key)
            if given is None:
                continue
            # {append = true} among the items: Podman 5.
            found = found * any(isinstance(item, dict) for item in given)
            found += [item for item in given if isinstance(item, str)]
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
