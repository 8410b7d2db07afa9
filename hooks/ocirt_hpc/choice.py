"""Which parts of hpc.toml a container gets: the trigger, a profile, modules.

    stage.trigger = "requested"    the site's own part for who asks: an annotation
                                   ocirt.hpc/enabled=true, a variable of stage.trigger-env, a
                                   profile, a module
                    "always"       for every container
                    "never"        for none; asking for a profile or a module is an error
    ocirt.hpc/enabled=false        nothing, unless the trigger is always
    ocirt.hpc/profile=NAME         [profile.NAME]; --hpc-profile NAME before the verb
    ocirt.hpc/modules=a,b          [module.NAME] in place of stage.default-modules; none: none

Parts come in this order: the site's own, the profile's, those of modules, each after what it
requires.  Variables choose among what the site offers, and never more: annotations come from
whoever starts the container, the environment may come from its image.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError
from ocirt_hpc.notes import ANNOTATIONS, COMMAND_LINE, ENV
from ocirt_hpc.request import NO_ENV, annotation, flag, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.notes import Notes
    from ocirt_hpc.parts import Part
    from ocirt_hpc.site import Site

ENABLED, MODULES, PROFILE = "ocirt.hpc/enabled", "ocirt.hpc/modules", "ocirt.hpc/profile"

NO = ("", "0", "false", "no", "off", "none", "void")

OPTION = "--hpc-profile"


class Chosen:
    """What a container gets of the site's, and what allows it.

    parts: (part, what allows it).  site: what allows the site's own part; "" when it is not given.
    profile: the name of the one that was asked for, or "".
    """

    def __init__(self) -> None:
        self.parts: list[tuple[Part, str]] = []
        self.site = ""
        self.profile = ""


def choose(
    config: dict[str, Any], site: Site, notes: Notes, *, profile: str = "", rootless: bool = False
) -> Chosen:
    """Return what a container gets; ConfigError for what is not offered, or conflicts.

    profile: the one that the command line names, if the config names none.
    """
    chosen = Chosen()
    trigger = site["stage", "trigger"]
    named = _profile(config, site, profile, rootless=rootless)
    wanted = _modules(config, site, notes)
    enabled = _enabled(config)
    if trigger == "never":
        refused = [where for _, where, rule in wanted if rule == ANNOTATIONS]
        for where in [named[1]] if named else refused:
            raise ConfigError(where, "the site gives nothing (stage.trigger is never in hpc.toml)")
    elif trigger == "always":
        chosen.site = "stage.trigger is always"
    elif enabled is False:
        pass
    elif named or wanted or enabled:
        chosen.site = named[2] if named else wanted[0][2] if wanted else ANNOTATIONS
    elif _variable(config, site, site["stage", "trigger-env"], notes):
        chosen.site = ENV
    if not chosen.site:
        return chosen
    chosen.parts = [(part, chosen.site) for part in site.parts]
    modules: dict[str, str] = {}
    if named:
        part, where, rule = named
        chosen.parts.append((part, rule))
        chosen.profile = next(name for name, one in site.profiles.items() if one is part)
        for name in part.get("modules"):
            _add(modules, site, name, rule)
    # Modules of variables come beside the others: they tell what is in use, not what is wished.
    if annotation(config, MODULES) is None:
        for name in site["stage", "default-modules"]:
            _add(modules, site, name, "stage.default-modules")
    for name, where, rule in wanted:
        with At(where):
            _add(modules, site, name, rule)
    _conflicts(modules, site)
    chosen.parts += [(site.modules[name], rule) for name, rule in modules.items()]
    return chosen


def _enabled(config: dict[str, Any]) -> bool | None:
    asked = flag(config, ENABLED)
    return None if asked is None else asked.names == ["true"]


def _variable(config: dict[str, Any], site: Site, names: list[str], notes: Notes) -> str:
    """Return the first of these variables that asks for something, as NAME=value, or ""."""
    env = variables(config)
    for name in names:
        value = env.get(name, "")
        if value.strip().lower() not in NO:
            if site["policy", "env-requests"]:
                return f"{name}={value}"
            notes.leave_out(f"{name}={value}", NO_ENV)
    return ""


def _profile(
    config: dict[str, Any], site: Site, option: str, *, rootless: bool
) -> tuple[Part, str, str] | None:
    """Return (profile, where it is asked for, what allows it), or None."""
    asked = annotation(config, PROFILE)
    name, where = (option, OPTION) if asked is None else (",".join(asked.names), asked.where)
    if not name:
        return None
    with At(where):
        part = site.profiles.get(name)
        if part is None:
            have = ", ".join(sorted(site.profiles))
            raise ConfigError(f'there is no profile "{name}" (have {have})')
        # Who has no rights gains none: all of it is what the caller could do without us.
        if not (where == OPTION or rootless or part.get("allowed")):
            raise ConfigError(
                f"the site does not allow {name} (profile.{name}.allowed in hpc.toml)"
            )
    return part, where, COMMAND_LINE if where == OPTION else ANNOTATIONS


def _modules(config: dict[str, Any], site: Site, notes: Notes) -> list[tuple[str, str, str]]:
    """Return (module, where it is asked for, what allows it) for those that are asked for."""
    found: list[tuple[str, str, str]] = []
    asked = annotation(config, MODULES)
    if asked is not None and asked.names != ["none"]:
        found = [(name, asked.where, ANNOTATIONS) for name in asked.names]
        for name in asked.names:
            if name not in site.modules:
                there = ", ".join(sorted(site.modules)) or "none"
                raise ConfigError(asked.where, f'there is no module "{name}" (have {there})')
    for name, part in site.modules.items():
        variable = _variable(config, site, part.get("trigger-env"), notes)
        if variable:
            found.append((name, f"process.env: {variable}", ENV))
    return found


def _add(modules: dict[str, str], site: Site, name: str, rule: str) -> None:
    """Put a module after those that it requires; one that requires itself stays where it is."""
    waiting, path = [name], []
    while waiting:
        one = waiting.pop()
        if one in modules:
            continue
        needs = [need for need in site.modules[one].get("requires") if need not in modules]
        if one in path or not needs:
            modules[one] = rule
            continue
        path.append(one)
        waiting += [one, *reversed(needs)]


def _conflicts(modules: dict[str, str], site: Site) -> None:
    for name in modules:
        for other in site.modules[name].get("conflicts"):
            if other in modules and other != name:
                raise ConfigError(
                    f"{site.modules[name].where}conflicts",
                    f'module "{name}" cannot be with module "{other}"',
                )
