"""conformance/vm.py: what it starts; that the machines come up is seen by using them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VM = Path(__file__).resolve().parents[3] / "conformance" / "vm.py"

# Stands in for a kernel: shows how it was started, and ends as a machine does that was told to.
KERNEL = """#!{python}
import pathlib, subprocess, sys
init = pathlib.Path(sys.argv[-1])
print("argv:", *sys.argv[1:])
script = next(line for line in init.read_text().splitlines() if line.endswith(".vm/script"))
text = init.with_name("script").read_text().splitlines()
keep = [line for line in text if not line.startswith(("mount", "modprobe", "ip ", "sync"))]
subprocess.run(["bash", "-c", "\\n".join(keep)], check=True)
"""


def vm(*arguments):
    return subprocess.run(
        [sys.executable, VM, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def kernel(tmp_path):
    path = tmp_path / "linux"
    path.write_text(KERNEL.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_a_command_and_its_status_come_back(kernel, tmp_path):
    share = tmp_path / "share"
    done = vm("--uml", kernel, "--share", share, "--cpus", "3", "--append", "quiet", "--",
              "sh", "-c", "echo out; exit 7")  # fmt: skip
    assert (done.stdout, done.returncode) == ("out\n", 7), done.stderr
    said = (share / ".vm" / "console").read_text()
    for word in ("ncpus=3", "seccomp=on", "rootfstype=hostfs", " ro ", " quiet ", "init=/bin/bash"):
        assert word in said


def test_a_kernel_that_ends_without_a_word(tmp_path):
    kernel = tmp_path / "linux"
    kernel.write_text("#!/bin/sh\necho Kernel panic\n")
    kernel.chmod(0o755)
    done = vm("--uml", kernel, "--", "true")
    assert done.returncode == 125
    assert "Kernel panic" in done.stderr


def test_a_kernel_that_is_not_there(tmp_path):
    done = vm("--uml", tmp_path / "nothing", "--", "true")
    assert (done.returncode, done.stderr) == (3, f"vm: {tmp_path}/nothing: no program\n")
