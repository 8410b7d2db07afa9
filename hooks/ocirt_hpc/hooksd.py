"""Hooks that a site gives to containers: directories of files in the form of oci-hooks 1.0.0.

    {"version": "1.0.0", "hook": {"path": "/usr/libexec/hook", "args": [...]},
     "when": {"annotations": {"^com\\\\.example$": "true"}}, "stages": ["prestart"]}

All conditions of `when` have to hold, and there has to be one.  Patterns may match anywhere.  A
file of a later directory replaces one of the same name.  Files, hooks, and the directories above
them must be the site's, as hpc.toml has to be: they run with our rights.

Format: containers/common, pkg/hooks/docs/oci-hooks.5.md; Podman, CRI-O and Sarus read the same.
"""

from __future__ import annotations

from ocirt import jsonio
from ocirt import system as os
from ocirt.errors import At, ConfigError, KernelError
from ocirt_hpc import parts, site
from ocirt_hpc.edits import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Section

STAGES = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
HOOK: dict[str, object] = {"path": "", "args": [], "env": [], "timeout": 0}
WHEN: dict[str, object] = {
    "always": False, "annotations": {}, "commands": [], "hasBindMounts": False
}  # fmt: skip
FIELDS = {"version", "hook", "when", "stages"}


def sections(directories: list[str], config: dict[str, Any]) -> list[Section]:
    """Return the hooks whose conditions a config meets; ConfigError names a file that is wrong."""
    files: dict[str, str] = {}
    for directory in directories:
        with At("hooks.dirs in hpc.toml"):
            parts.path(directory)
            try:
                names = os.listdir(directory)
            except OSError as error:
                raise KernelError(error.errno or 0, directory) from error
        files.update({name: f"{directory}/{name}" for name in names if name.endswith(".json")})
    made: list[Section] = []
    for name in sorted(files):
        held = site.text(files[name]) or ""  # names the file itself
        with At(files[name]):
            document = _read(held)
            if _meets(document["when"], config):
                hook = document["hook"]
                made += [
                    (Place(f"{files[name]}: {stage}"), {"hooks": [{"hookName": stage, **hook}]})
                    for stage in document["stages"]
                ]
    return made


def _read(held: str) -> dict[str, Any]:
    """Return what a file holds, as the format has it."""
    document = jsonio.parse(held.encode())
    if not isinstance(document, dict):
        raise ConfigError("is not a JSON object")
    version = document.get("version")
    if version != "1.0.0":
        raise ConfigError("version", f'"{version}" is not 1.0.0')
    for name in document.keys() - FIELDS:
        raise ConfigError(name, f"unknown setting (have {', '.join(sorted(FIELDS))})")
    for name, known in (("hook", HOOK), ("when", WHEN)):
        value = document.get(name)
        if not isinstance(value, dict):
            raise ConfigError(name, "expected an object")
        parts.settings(value, known, f"{name}.")
    with At("when.annotations"):
        for value in document["when"].get("annotations", {}).values():
            parts.fit(value, "")
    stages = document.get("stages")
    with At("stages"):
        parts.fit(stages, [])
        for stage in stages or [""]:
            if stage not in STAGES:
                raise ConfigError(f'"{stage}" is none of {", ".join(STAGES)}')
    with At("hook.path"):
        parts.path(document["hook"].get("path", ""))
        site.trust(os.stat(document["hook"]["path"]), document["hook"]["path"])
    return document


def _meets(when: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether all conditions hold, and there is one."""
    import re

    def fits(pattern: str, text: str) -> bool:
        try:
            return re.search(pattern, text) is not None
        except re.error as error:
            raise ConfigError("when", f'"{pattern}": {error}') from None

    results = []
    if "always" in when:
        results.append(when["always"])
    if "hasBindMounts" in when:
        binds = [
            mount
            for mount in config.get("mounts") or ()
            if {"bind", "rbind"} & {*(mount.get("options") or ()), mount.get("type")}
        ]
        results.append(bool(binds) and when["hasBindMounts"])
    if when.get("annotations"):
        held = (config.get("annotations") or {}).items()
        results += [
            any(fits(key, one) and fits(value, other) for one, other in held)
            for key, value in when["annotations"].items()
        ]
    if when.get("commands"):
        args = (config.get("process") or {}).get("args") or [""]
        results.append(any(fits(pattern, args[0]) for pattern in when["commands"]))
    return bool(results) and all(results)
