#!/usr/bin/env python3
"""Make a node with eight GPUs and ten NICs that nobody has: a directory, and settings that use it.

    python3 examples/make_node.py DIR

DIR/machine then looks like such a node: its procfs, its sysfs, the files of a driver.  With
DIR/hpc.toml ocirt takes it for the host:

    ocirt --hpc-config DIR/hpc.toml hpc topo
    ocirt --hpc-config DIR/hpc.toml run -b BUNDLE gpu    # with NVIDIA_VISIBLE_DEVICES=1 in its env

The device nodes in the container are real ones, of drivers that are not there: opening one that
is allowed says "No such device or address".
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "hooks")]
from tests.unit.hpc import machines  # noqa: E402


def main() -> None:
    """Write the machine and the settings, in place of earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path, metavar="DIR")
    folder = parser.parse_args().dir.absolute()
    shutil.rmtree(folder / "machine", ignore_errors=True)
    machine = machines.cluster_node(folder / "machine")
    machines.install(machine)
    machine.host()
    settings = folder / "hpc.toml"
    settings.unlink(missing_ok=True)
    settings.touch(mode=0o644)
    settings.write_text(f'[stage]\nhost-root = "{folder}/machine"\n')
    print(settings)


if __name__ == "__main__":
    main()
