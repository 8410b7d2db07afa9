#!/usr/bin/env python3
"""Make a node with eight GPUs and ten NICs that nobody has, and a container that asks for some.

    python3 examples/make_node.py DIR        # as root, as all below

DIR/machine then looks like such a node: its procfs, its sysfs, the files of a driver.  With
DIR/hpc.toml ocirt takes it for the host.  DIR/bundle asks for two GPUs and the NICs nearest to
them, and shows what it got:

    ocirt --hpc-config DIR/hpc.toml hpc topo
    ocirt --hpc-config DIR/hpc.toml hpc explain DIR/bundle
    ocirt --hpc-config DIR/hpc.toml run -b DIR/bundle gpus

The device nodes in the container are real ones, of drivers that are not there: opening one that
is allowed says "No such device or address", one that is not "Operation not permitted".
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import make_bundle

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "hooks")]
from tests.unit.hpc import machines  # noqa: E402

ASKED = {"ocirt.hpc/gpus": "1 4", "ocirt.hpc/rdma": "nearest"}

SMI = """\
#!/bin/sh
echo "stand-in for nvidia-smi: I see $(cd /dev; echo nvidia[0-9]*)"
"""

SCRIPT = """\
echo "--- nodes"; ls -l /dev/nvidia* /dev/infiniband/* | cut -c 1-10,24-
echo "--- what happens when they are opened, and another GPU that the program makes itself"
mknod /dev/shm/other c 195 7
for node in /dev/nvidia3 /dev/infiniband/uverbs1 /dev/shm/other; do head -c 1 $node; done
echo "--- what the loader knows (ldconfig -p)"; ldconfig -p | grep -E 'cuda|nvidia'
echo "--- variables"; env | grep -E 'UCX|NCCL|CUDA'
echo "--- programs"; nvidia-smi
"""


def node(folder: Path) -> None:
    """Write the machine and the settings that name it."""
    machine = machines.cluster_node(folder / "machine")
    machines.install(machine)
    machine.write("/usr/bin/nvidia-smi", SMI).chmod(0o755)
    machine.host()
    settings = folder / "hpc.toml"
    settings.touch(mode=0o644)
    settings.write_text(f'[stage]\nhost-root = "{folder}/machine"\n')


def bundle(folder: Path) -> None:
    """Write a bundle with a loader and its ldconfig, if this machine has glibc's."""
    make_bundle.make(folder, ["sh", "-c", f"exec 2>&1\n{SCRIPT}"])
    rootfs = folder / "rootfs"
    shell = shutil.which("sh") or "/bin/sh"
    for library in make_bundle.libraries(shell):
        if Path(library).name.startswith("ld-linux"):
            target = rootfs / library[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    # Ubuntu's ldconfig is a script around the real one.
    for path in map(Path, ("/sbin/ldconfig.real", "/sbin/ldconfig")):
        if path.exists():
            (rootfs / "bin/ldconfig").unlink(missing_ok=True)
            shutil.copy(path, rootfs / "bin/ldconfig")
            break
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["annotations"] = ASKED
    config["linux"]["cgroupsPath"] = "/ocirt-demo"
    capabilities = config["process"]["capabilities"]
    for kind in ("bounding", "effective", "permitted"):  # for the node that is not allowed
        capabilities[kind] = [*capabilities[kind], "CAP_MKNOD"]
    shm = next(mount for mount in config["mounts"] if mount["destination"] == "/dev/shm")
    shm["options"] = [option for option in shm["options"] if option != "nodev"]
    file.write_text(json.dumps(config, indent="\t") + "\n")


def main() -> None:
    """Write everything, in place of what an earlier call wrote."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path, metavar="DIR")
    folder = parser.parse_args().dir.absolute()
    for name in ("machine", "bundle"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "hpc.toml").unlink(missing_ok=True)
    node(folder)
    bundle(folder / "bundle")
    print(folder)


if __name__ == "__main__":
    main()
