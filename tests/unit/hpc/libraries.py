"""Libraries for tests whose symbols carry versions, as real ones do, built by a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NamedTuple

GCC = shutil.which("gcc")


class Source(NamedTuple):
    """A library to be built: file, soname, versions it defines, (file, version) it wants, names."""

    file: str
    soname: str
    versions: tuple[str, ...]
    wants: tuple[tuple[str, str], ...] = ()
    symbols: tuple[str, ...] = ()


def build(root, source):
    """Build a library below a root whose symbols carry versions, as real ones do."""
    root = str(root)
    path = f"{root}{source.file}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text, script = "", ""
    before = ""
    for version in source.versions:
        name = f"f_{version.replace('.', '_')}"
        text += f"int {name}(void) {{ return 1; }}\n"
        script += f"{version} {{ global: {name}; }} {before};\n"
        before = version
    calls = [f"f_{version.replace('.', '_')}" for _, version in source.wants]
    text += "".join(f"int {name}(void);\n" for name in calls)
    text += "".join(f"int {name};\n" for name in source.symbols)
    text += f"int g(void) {{ return {' + '.join(f'{name}()' for name in calls) or 0}; }}\n"
    line = [GCC, "-shared", "-fPIC", "-nostdlib", "-Wl,--no-as-needed", "-o", path]
    if source.soname:
        line.append(f"-Wl,-soname,{source.soname}")
    if script:
        with open(f"{path}.map", "w") as file:
            file.write(script)
        line.append(f"-Wl,--version-script={path}.map")
    others = [f"{root}{file}" for file, _ in source.wants]
    line += ["-x", "c", "-", "-x", "none", *others]
    subprocess.run(line, input=text, text=True, check=True, timeout=60)
    link = f"{os.path.dirname(path)}/{source.soname}"
    if source.soname and link != path:
        os.symlink(os.path.basename(path), link)
