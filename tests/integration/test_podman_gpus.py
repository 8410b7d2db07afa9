"""`podman run` with GPUs, on a machine that is a directory: by CDI, which Podman resolves itself,
and by variables and annotations, which it leaves to the runtime.
"""

from __future__ import annotations

import os

import pytest

from tests.integration import engines, gpu_node
from tests.integration.support import find_runtime, only_ocirt

MISSING = engines.missing("podman", "conmon", "nsenter")

pytestmark = [
    pytest.mark.slow,
    only_ocirt("other runtimes leave GPUs to hooks"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


@pytest.fixture(scope="module")
def engine(base):
    folder = os.path.join(base, "podman-gpus")
    with engines.serving(engines.Podman(folder, find_runtime(), "podman-gpus")) as podman:
        gpu_node.furnish(folder, "[policy]\ncdi-annotations = true\n")
        gpu_node.settle(podman.world, folder)
        made = podman.world.enter(podman.runtime, "hpc", "cdi", "generate")
        text = engines.call(made)
        assert text.code == 0, str(text)
        cdi = podman.world.root("/run/cdi")
        os.mkdir(cdi)
        with open(f"{cdi}/nvidia.json", "w") as file:
            file.write(text.out)
        yield podman


podman = engines.lent("engine")


CUDA = "ls /usr/lib/x86_64-linux-gnu /run/ocirt/hpc/lib64 2> /dev/null | grep -c libcuda.so.1"


def nodes(podman, options, script=gpu_node.LIST):
    return podman.sh(options, script).split()


# --- CDI: Podman edits the config, and nothing is left to do


def test_a_gpu_by_its_name_in_a_cdi_file(podman):
    options = "--device nvidia.com/gpu=0"
    assert nodes(podman, options) == sorted([*gpu_node.CONTROL, "nvidia2"])
    assert podman.sh(options, CUDA) == "1"
    assert gpu_node.opened(podman.try_run(options, "sh", "-c", gpu_node.OPEN).out) == [
        "allowed",
        "denied",
    ]


@pytest.mark.parametrize(
    "more",
    [
        "",
        "-e NVIDIA_VISIBLE_DEVICES=0",
        "--annotation cdi.k8s.io/test=nvidia.com/gpu=0",
        "--annotation ocirt.hpc/gpus=0",
    ],
)
def test_asking_twice_gives_nothing_twice(podman, more):
    container = podman.detached(f"--device nvidia.com/gpu=0 {more}", "sleep", "1000")
    config = gpu_node.config(podman, container.id)
    paths = [node["path"] for node in config["linux"]["devices"]]
    assert sorted(path for path in paths if "nvidia" in path) == [
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidia2",
        "/dev/nvidiactl",
    ]
    assert gpu_node.doubles(config) == []


def test_an_annotation_that_podman_has_resolved_is_left_out(podman):
    options = "--device nvidia.com/gpu=0 --annotation cdi.k8s.io/test=nvidia.com/gpu=0"
    container = podman.detached(options, "sleep", "1000")
    text = gpu_node.explained(podman, container.id)
    assert "an engine has put it in already" in text


def test_an_annotation_that_podman_does_not_know_is_resolved(podman):
    options = "--annotation cdi.k8s.io/test=nvidia.com/gpu=1"
    assert nodes(podman, options) == sorted([*gpu_node.CONTROL, "nvidia3"])


# --- variables and annotations: Podman passes them on


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", []),
        ("-e NVIDIA_VISIBLE_DEVICES=void", []),
        ("-e NVIDIA_VISIBLE_DEVICES=0", [*gpu_node.CONTROL, "nvidia2"]),
        ("-e NVIDIA_VISIBLE_DEVICES=all", gpu_node.ALL),
        ("--annotation 'ocirt.hpc/gpus=0 2'", [*gpu_node.CONTROL, "nvidia0", "nvidia2"]),
    ],
)
def test_the_gpus_that_podman_was_asked_for(podman, options, expected):
    assert nodes(podman, options) == sorted(expected)


def test_only_these_may_be_used(podman):
    result = podman.try_run("-e NVIDIA_VISIBLE_DEVICES=0", "sh", "-c", gpu_node.OPEN)
    assert gpu_node.opened(result.out) == ["allowed", "denied"]


def test_the_driver_comes_along(podman):
    assert podman.sh("-e NVIDIA_VISIBLE_DEVICES=0", CUDA) == "1"
    assert "nvidia-smi" in podman.sh("-e NVIDIA_VISIBLE_DEVICES=0", "ls /usr/bin")


def test_exec_and_restart_keep_the_gpus(podman):
    container = podman.detached("-e NVIDIA_VISIBLE_DEVICES=1", "sleep", "1000")
    assert "nvidia3" in container.exec("sh", "-c", gpu_node.LIST)
    container.do("restart", "--time", "0")
    assert "nvidia3" in container.exec("sh", "-c", gpu_node.LIST)


def test_a_gpu_that_there_is_not(podman):
    result = podman.try_run("-e NVIDIA_VISIBLE_DEVICES=8", "true")
    assert result.code in (125, 126, 127)
    assert 'there is no NVIDIA GPU "8"' in result.err
