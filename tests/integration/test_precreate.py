"""The stage as a precreate hook of Podman, whose runtime is another: runc and crun give GPUs, too.

oci-hooks(5): a hook of the stage precreate gets the config on stdin, and prints the one to use.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.integration import engines, gpu_node
from tests.integration.conftest import RUNTIME
from tests.integration.support import UNIFIED, only_ocirt

MISSING = engines.missing("podman", "conmon", "nsenter", "runc")

pytestmark = [
    pytest.mark.slow,
    only_ocirt("the hook is ours, whatever runs the container"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


@pytest.fixture(scope="module", params=["runc", "crun"])
def engine(base, request):
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"needs {request.param}")
    if request.param == "crun" and not UNIFIED:
        pytest.skip("crun refuses the hybrid layout of this machine's cgroups")
    folder = os.path.join(base, f"precreate-{request.param}")
    with engines.serving(engines.Podman(folder, path, f"pre-{request.param}")) as podman:
        gpu_node.furnish(folder)
        gpu_node.settle(podman.world, folder)
        os.mkdir(podman.world.root("/run/ocirt-hpc"))
        os.mkdir(podman.path("hooks.d"))
        for stage, action in (("precreate", "inject"), ("poststop", "clean")):
            args = [
                "ocirt",
                "--log",
                podman.path("hook.log"),
                "hpc",
                action,
                "--place",
                "/run/ocirt-hpc",
            ]
            document = {
                "version": "1.0.0",
                "hook": {"path": os.path.realpath(RUNTIME), "args": args},
                "when": {"always": True},
                "stages": [stage],
            }
            podman.write(f"hooks.d/{stage}.json", json.dumps(document))
        yield podman


@pytest.fixture
def podman(engine, monkeypatch):
    argv = engine.argv

    def hooked(*args):
        found = argv(*args)
        at = found.index("podman") + 1
        return [*found[:at], "--hooks-dir", engine.path("hooks.d"), *found[at:]]

    monkeypatch.setattr(engine, "argv", hooked)
    with engines.used(engine):
        yield engine
    assert os.listdir(engine.world.root("/run/ocirt-hpc")) == []


def test_another_runtime_gives_gpus(podman):
    nodes = podman.sh("-e NVIDIA_VISIBLE_DEVICES=0", gpu_node.LIST).split()
    assert nodes == sorted([*gpu_node.CONTROL, "nvidia2"])


def test_only_these_may_be_used(podman):
    result = podman.try_run("-e NVIDIA_VISIBLE_DEVICES=0", "sh", "-c", gpu_node.OPEN)
    assert gpu_node.opened(result.out) == ["allowed", "denied"]


def test_the_driver_comes_along(podman):
    text = podman.sh("-e NVIDIA_VISIBLE_DEVICES=0", "ls /run/ocirt/hpc/lib64 /usr/bin")
    assert {"libcuda.so.1", "nvidia-smi"} <= set(text.split())


def test_who_asks_for_nothing_gets_nothing(podman):
    assert podman.sh("", gpu_node.LIST) == ""


def test_a_gpu_that_there_is_not(podman):
    result = podman.try_run("-e NVIDIA_VISIBLE_DEVICES=8", "true")
    assert result.code != 0
    # Podman keeps what a hook says to itself.
    with open(podman.path("hook.log")) as file:
        assert 'there is no NVIDIA GPU \\"8\\"' in file.read()
