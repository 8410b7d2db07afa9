"""What hatchling calls while it builds: compile the native programs and put them in the wheel.

wheel      ocirt/init/ocirt-init, the embedded interpreter and ocirt/COMMIT as package data,
           `ocirt` as a script, manual pages and completions below share/
editable   the init stays in the source tree; the script is told where the tree is; the
           package is compiled to bytecode here, because ocirt itself never writes any
"""

from __future__ import annotations

import compileall
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
import native
import share


class BuildHook(BuildHookInterface[Any]):
    """Hatchling's view of us."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and tell hatchling what to add."""
        editable = version == "editable"
        init = native.compile_init()
        if editable:
            launcher, embedded = native.compile_editable(), None
        else:
            place = native.ROOT / "build"
            place.mkdir(exist_ok=True)
            # Another Python may find this wheel as good, and then goes without.
            embedded = native.compile_embedded("", native.own_python(), place, sealed=True)
            launcher = native.compile_launcher(embedded=embedded)
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
        build_data["shared_scripts"][str(launcher)] = "ocirt"
        if editable:
            for package in ("ocirt", "spec", "hooks"):
                compileall.compile_dir(native.ROOT / package, quiet=1)
            return
        build_data["force_include"][str(init)] = "ocirt/init/ocirt-init"
        if embedded:
            program = native.ROOT / "build" / embedded.name
            build_data["force_include"][str(program)] = f"ocirt/{embedded.name}"
        for path in share.write(native.ROOT / "build" / "share"):
            below = path.relative_to(native.ROOT / "build")
            build_data["shared_data"][str(path)] = str(below)
        if commit := native.head():
            file = native.ROOT / "build" / "COMMIT"
            file.write_text(commit, encoding="ascii")
            build_data["force_include"][str(file)] = "ocirt/COMMIT"
