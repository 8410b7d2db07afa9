"""containerd: a table for the CRI plugin, and `ctr --runc-binary` needs none.

Before containerd 2.0 an imported file that says anything about a plugin takes the place of all
that the main file says about it: a drop-in would wipe out the sandbox image, the CNI and the
other runtimes.  So with configuration version 2, which both know, our table is a block of lines
at the end of config.toml itself; version 3 means containerd 2, where tables are merged and a
drop-in can be imported.

The built-in runtime `runc` vanishes, too, as soon as a file names any runtime, and with it the
default: where nobody defines it, we do.
"""

from __future__ import annotations

from ocirt.engines.site import toml
from ocirt.engines.stamp import FIRST, mine, stamp
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.engines.site import Site, Wish

CONFIG = "/etc/containerd/config.toml"
DROP_IN = "/etc/containerd/conf.d/ocirt.toml"
PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
TABLES = tuple(("plugins", plugin, "containerd", "runtimes") for plugin in PLUGINS.values())
END = '# End of what "ocirt setup containerd" wrote.\n'

# The line, where there was none about imports.
IMPORT = f'imports = ["{DROP_IN}"] # by ocirt setup'

# Annotations are matched as by path.Match: `ocirt.*` would not reach across the slash.
RUNTIME = """\
[plugins."{plugin}".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["ocirt.hpc/*", "cdi.k8s.io/*"]
container_annotations = ["ocirt.hpc/*", "cdi.k8s.io/*"]

[plugins."{plugin}".containerd.runtimes.{name}.options]
BinaryName = "{path}"
SystemdCgroup = {systemd}
"""
RUNC = """
[plugins."{plugin}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def version(document: dict[str, Any]) -> int:
    """Return the version of a config.toml; without a file we write one that every daemon reads."""
    found = document.get("version", 1) if document else 2
    if found not in PLUGINS:
        raise ConfigError(
            f"version {found}", "is not known here (2 and 3 are): see `containerd config migrate`"
        )
    return int(found)


def table(wish: Wish, document: dict[str, Any]) -> str:
    """Return the tables of the runtime for a config.toml that says the rest."""
    plugin = PLUGINS[version(document)]
    section = document.get("plugins", {}).get(plugin, {}).get("containerd", {})
    runtimes = section.get("runtimes", {})
    if wish.name in runtimes:
        raise ConfigError(f"runtimes.{wish.name}", "is there already: choose another --name")
    # Whoever runs the others by systemd's cgroups has a kubelet that expects it of all.
    neighbour = runtimes.get("runc", {}).get("options", {}).get("SystemdCgroup", False)
    systemd = str(bool(wish.systemd or neighbour)).lower()
    text = RUNTIME.format(plugin=plugin, name=wish.name, path=wish.path, systemd=systemd)
    if "runc" not in runtimes and section.get("default_runtime_name", "runc") == "runc":
        text += RUNC.format(plugin=plugin)
    return text


def drop_in(wish: Wish, site: Site) -> str:
    """Return the drop-in, for version 3; otherwise there is none."""
    text, _ = parted(site.read(CONFIG))
    document = toml(text)
    return f"version = 3\n\n{table(wish, document)}" if version(document) == 3 else ""


def add(old: str, wish: Wish, site: Site) -> str:
    """Put our block at the end of config.toml, or have it import our drop-in."""
    text, _ = parted(old)
    document = toml(text)
    if version(document) == 3:
        return with_import(text, document)
    body = table(wish, document) + END
    if not document:
        body = f"version = 2\n\n{body}"
    elif text[-1] != "\n":
        text += "\n"
    new = text + stamp("containerd", body)
    toml(new)  # tables that are written inline cannot be added to
    return new


def remove(old: str, wish: Wish, site: Site) -> str:
    """Take out the block and the import."""
    text, block = parted(old)
    # What setup wrote into an absent file is all that a daemon without one would assume.
    return without_import(text, toml(text)) if text.strip() or not block else ""


def parted(text: str) -> tuple[str, str]:
    """Return config.toml without our block, and the block."""
    start = text.find(FIRST.format("containerd"))
    if start < 0:
        return text, ""
    end = text.find(END, start)
    end = end + len(END) if end >= 0 else len(text)
    block = text[start:end]
    mine("containerd", block)
    return text[:start] + text[end:], block


def with_import(text: str, document: dict[str, Any]) -> str:
    """Return config.toml with our drop-in among its imports."""
    import re
    from fnmatch import fnmatchcase

    given = document.get("imports", [])
    if any(fnmatchcase(DROP_IN, pattern) for pattern in _absolute(given)):
        return text
    if "imports" in document:
        comma = ", " if given else ""
        new = re.sub(
            r"^([ \t]*imports[ \t]*=[ \t]*\[)", rf'\g<1>"{DROP_IN}"{comma}', text,
            count=1, flags=re.MULTILINE,
        )  # fmt: skip
    else:
        line = f"\n{IMPORT}"
        new = re.sub(
            r"^([ \t]*version[ \t]*=[^\n]*)", rf"\g<1>{line}", text, count=1, flags=re.MULTILINE
        )
    return _checked(new, document, [DROP_IN, *given])


def without_import(text: str, document: dict[str, Any]) -> str:
    """Return config.toml without our drop-in among its imports."""
    import re

    given = document.get("imports", [])
    if DROP_IN not in given:
        return text
    left = [pattern for pattern in given if pattern != DROP_IN]
    name = re.escape(f'"{DROP_IN}"')
    new = text.replace(f"\n{IMPORT}", "", 1)
    if new == text:
        new = re.sub(rf"{name}(, )?", "", text, count=1)
        return _checked(new, document, left)
    return _checked(new, document, None)


def _absolute(patterns: list[str]) -> list[str]:
    folder = CONFIG.rpartition("/")[0]
    return [pattern if pattern[:1] == "/" else f"{folder}/{pattern}" for pattern in patterns]


def _checked(text: str, before: dict[str, Any], imports: list[str] | None) -> str:
    """Return an edited text if it says what it should and nothing else has changed."""
    wanted = {key: value for key, value in before.items() if key != "imports"}
    if imports is not None:
        wanted["imports"] = imports
    if toml(text) != wanted:
        raise ConfigError("imports", f"is written in a way that setup does not know: see {DROP_IN}")
    return text
