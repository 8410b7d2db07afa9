"""`docker run` with GPUs, on a machine that is a directory: --gpus, variables, and nothing asked.

Docker offers --gpus when it finds a program called nvidia-container-runtime-hook; it then adds a
prestart hook, whose work the stage does.  Here that program fails, so a container that starts
shows that nobody called it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration import engines
from tests.integration.support import find_runtime, only_ocirt
from tests.unit.hpc import machines

NEEDED = ("dockerd", "docker", "containerd", "ip", "nsenter")

pytestmark = [
    pytest.mark.slow,
    only_ocirt("other runtimes leave GPUs to hooks"),
    pytest.mark.skipif(engines.missing(*NEEDED) is not None, reason=str(engines.missing(*NEEDED))),
]


@pytest.fixture(scope="module")
def daemon(base):
    folder = os.path.join(base, "docker-gpus")
    runtime = find_runtime()
    engine = engines.Docker(folder, runtime, "docker-gpus")
    node = machines.cluster_node(Path(folder) / "node")
    machines.install(node)
    node.host()
    settings = node.write("/hpc.toml", f'[stage]\nhost-root = "{node.root}"\n')
    settings.chmod(0o600)
    engine.config["runtimes"]["hpc"]["runtimeArgs"] = ["--hpc-config", str(settings)]
    hook = node.write("/bin/nvidia-container-runtime-hook", "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    engine.env["PATH"] = f"{hook.parent}:{engine.env['PATH']}"
    with engines.serving(engine) as docker:
        yield docker


docker = engines.lent("daemon")


LIST = "cd /dev; ls -d nvidia[0-9]* 2>/dev/null | sort | tr '\\n' ' '"
# The minors of the GPUs 0, 1, 2 ... are 2, 3, 0, ...
ALL = " ".join(f"nvidia{minor}" for minor in range(8))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ""),
        ("-e NVIDIA_VISIBLE_DEVICES=void", ""),
        ("-e NVIDIA_VISIBLE_DEVICES=all", ALL),
        ("-e NVIDIA_VISIBLE_DEVICES=0", "nvidia2"),
        (f"-e NVIDIA_VISIBLE_DEVICES={machines.UUID.format(5)}", "nvidia5"),
        ("--gpus all", ALL),
        ("--gpus 2", "nvidia2 nvidia3"),
        ("--gpus '\"device=2\"'", "nvidia0"),
    ],
)
def test_the_gpus_that_docker_was_asked_for(docker, options, expected):
    assert docker.sh(options, LIST).split() == expected.split()


def test_only_these_may_be_used(docker):
    script = "mknod /tmp/other c 195 0; for n in /dev/nvidia2 /tmp/other; do cat $n; done"
    result = docker.try_run("-e NVIDIA_VISIBLE_DEVICES=0", "sh", "-c", script)
    first, second = result.err.splitlines()[:2]
    assert "No such device or address" in first  # allowed, and no driver
    assert "Operation not permitted" in second


def test_the_driver_comes_by_capability(docker):
    script = "ls /run/ocirt/hpc/lib64 | grep -c nvidia-ml; ls /run/ocirt/hpc/lib64 | grep -c cuda"
    options = "-e NVIDIA_VISIBLE_DEVICES=0 -e NVIDIA_DRIVER_CAPABILITIES=utility"
    result = docker.try_run(options, "sh", "-c", script)
    assert result.out.split() == ["2", "0"]


def test_a_nic_near_the_gpu(docker):
    options = "-e NVIDIA_VISIBLE_DEVICES=3 -e OCIRT_RDMA_DEVICES=nearest"
    text = docker.sh(options, "ls /dev/infiniband; echo $UCX_NET_DEVICES")
    assert text.split() == ["rdma_cm", "uverbs3", "mlx5_3:1"]


def test_a_gpu_that_there_is_not(docker):
    result = docker.try_run("-e NVIDIA_VISIBLE_DEVICES=8", "true")
    assert result.code == 125
    assert 'there is no NVIDIA GPU "8" (have 0 GPU-' in result.err


def test_exec_and_restart_keep_the_gpus(docker):
    container = docker.detached("-e NVIDIA_VISIBLE_DEVICES=1", "sleep", "1000")
    assert container.exec("sh", "-c", LIST).split() == ["nvidia3"]
    container.do("restart", "-t", "0")
    assert container.exec("sh", "-c", LIST).split() == ["nvidia3"]
