"""A node with eight GPUs and ten NICs that nobody has, for engines: a directory and /etc/ocirt.

Its device nodes are real, of drivers that are not there: opening one that is allowed says ENXIO,
one that is not EPERM.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.integration import engines
from tests.unit.hpc import machines

# The minors of the GPUs 0, 1, 2 ... are 2, 3, 0, ...
ALL = sorted([*(f"nvidia{minor}" for minor in range(8)), "nvidia-uvm", "nvidia-uvm-tools",
              "nvidiactl"])  # fmt: skip
CONTROL = ["nvidia-uvm", "nvidia-uvm-tools", "nvidiactl"]

LIST = "cd /dev; ls -d nvidia* 2>/dev/null | sort | tr '\\n' ' '"
# Opened: one that was asked for, and one that the container makes itself.
OPEN = "mknod /tmp/other c 195 0; for n in /dev/nvidia2 /tmp/other; do cat $n; done 2>&1"


def furnish(folder, more=""):
    """Make the node and FOLDER/etc/ocirt/hpc.toml, which names it; return the node."""
    node = machines.cluster_node(Path(folder) / "node")
    machines.install(node)
    node.host()
    node.make_nodes()
    settings = Path(folder) / "etc/ocirt/hpc.toml"
    settings.parent.mkdir(parents=True)
    settings.touch(mode=0o644)
    settings.write_text(f'[stage]\nhost-root = "{node.root}"\n{more}')
    return node


def settle(world, folder):
    """Give a world with a /run of its own the settings of `furnish`, where a site has them."""
    upper, work = "/run/etc/upper", "/run/etc/work"
    for path in (upper, work):
        os.makedirs(world.root(path))
    shutil.copytree(f"{folder}/etc", world.root(upper), dirs_exist_ok=True)
    options = f"lowerdir=/etc,upperdir={upper},workdir={work}"
    done = engines.call(world.enter("mount", "-t", "overlay", "-o", options, "overlay", "/etc"))
    assert done.code == 0, str(done)


def opened(text):
    """Return how opening the two of OPEN ended."""
    words = {"No such device or address": "allowed", "Operation not permitted": "denied"}
    return [next((words[one] for one in words if one in line), line) for line in text.splitlines()]


def config(engine, container_id, root="/run/ocirt"):
    """Return the config that a container was made of, edits included."""
    with open(engine.world.root(f"{root}/{container_id}/config.json")) as file:
        return json.load(file)


def explained(engine, container_id):
    """Return what `ocirt hpc explain` says of a container."""
    done = engines.call(engine.world.enter(engine.runtime, "hpc", "explain", container_id))
    assert done.code == 0, str(done)
    return done.out


def doubles(config):
    """Return what a config gives twice: nodes, rules, destinations of mounts, hooks."""
    linux = config["linux"]
    lists = [
        [node["path"] for node in linux["devices"]],
        [json.dumps(rule, sort_keys=True) for rule in linux["resources"]["devices"]],
        [mount["destination"] for mount in config["mounts"]],
        *([json.dumps(hook, sort_keys=True) for hook in hooks]
          for hooks in (config.get("hooks") or {}).values()),
    ]  # fmt: skip
    return [item for items in lists for item in items if items.count(item) > 1]
