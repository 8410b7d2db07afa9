"""What README shows of GPUs without hardware: examples/make_node.py, and what a container gets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.support import only_ocirt

pytestmark = only_ocirt("other runtimes leave GPUs to hooks")

ROOT = Path(__file__).resolve().parent.parent.parent
LDCONFIG = shutil.which("ldconfig", path="/sbin:/usr/sbin")


@pytest.fixture
def demo(workdir):
    folder = Path(workdir) / "node"
    line = [sys.executable, str(ROOT / "examples/make_node.py"), str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (f"{folder}\n", "")
    return folder


def ask(runtime, demo, *words):
    return runtime.ok("--hpc-config", str(demo / "hpc.toml"), *words).out


def test_the_node_is_drawn(runtime, demo):
    text = ask(runtime, demo, "hpc", "topo")
    assert "GPU4    0000:87:00.0  NVIDIA A100-SXM4-80GB" in text
    assert "GPU4  mlx5_4       PIX  32-63,96-127  1" in text


def test_the_container_is_explained(runtime, demo):
    text = ask(runtime, demo, "hpc", "explain", str(demo / "bundle"))
    assert "ocirt.hpc/gpus=1 4  (annotations are the caller's)" in text
    assert "UCX_NET_DEVICES=mlx5_1:1,mlx5_4:1" in text


@pytest.mark.skipif(LDCONFIG is None, reason="needs glibc's ldconfig")
def test_the_container_has_what_it_asked_for(runtime, demo):
    text = ask(runtime, demo, "run", "-b", str(demo / "bundle"), f"demo-{os.getpid()}")
    lines = text.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("crw")] == [
        "/dev/infiniband/rdma_cm", "/dev/infiniband/uverbs1", "/dev/infiniband/uverbs4",
        "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia3", "/dev/nvidia6",
        "/dev/nvidiactl",
    ]  # fmt: skip
    assert "head: /dev/nvidia3: No such device or address" in lines
    assert "head: /dev/infiniband/uverbs1: No such device or address" in lines
    assert "head: /dev/shm/other: Operation not permitted" in lines
    assert any(
        line.split()[0] == "libcuda.so.1" and line.endswith("/run/ocirt/hpc/lib64/libcuda.so.1")
        for line in lines
        if line.startswith("\t")
    )
    assert "UCX_NET_DEVICES=mlx5_1:1,mlx5_4:1" in lines
    assert lines[-1] == "stand-in for nvidia-smi: I see nvidia3 nvidia6"
