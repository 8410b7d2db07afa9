"""The way to ocirt_hpc, in a fresh interpreter that knows only what the launcher tells it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent

CODE = """
import sys
ocirt = type(sys)("ocirt")
ocirt.__path__ = [sys.argv[1] + "/ocirt"]
ocirt.SITE = ""
sys.modules["ocirt"] = ocirt
from ocirt import hpc
assert "ocirt_hpc" not in sys.modules
path = list(sys.path)
try:
    hpc.apply({}, "/", "/nowhere", devices=["acme.com/card=0"], directories=["/nonexistent"])
except Exception as error:
    print(error)
print(sys.modules["ocirt_hpc"].__path__[0])
assert sys.path == path
"""


@pytest.mark.parametrize("layout", ["source tree", "installed"])
def test_the_stage_is_found_beside_the_package(tmp_path, layout):
    home = "" if layout == "installed" else "hooks/"
    (tmp_path / "hooks").mkdir()
    (tmp_path / "ocirt").symlink_to(ROOT / "ocirt")
    (tmp_path / f"{home}ocirt_hpc").symlink_to(ROOT / "hooks/ocirt_hpc")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", CODE, str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "acme.com/card=0: no such CDI device (have none in /nonexistent)",
        f"{tmp_path}/{home}ocirt_hpc",
    ], done.stderr


def test_a_variable_that_the_site_names_wakes_the_stage(tmp_path):
    from ocirt import hpc

    assert not hpc.mentioned(["FPGAS=0"], str(tmp_path))
    (tmp_path / "hpc.toml").write_text('[device.fpga]\nvariables = ["FPGAS"]\n')
    assert hpc.mentioned(["A=b", "FPGAS=0"], str(tmp_path))
    assert not hpc.mentioned(["FPGA=0", "S=1"], str(tmp_path))
    (tmp_path / "hpc.d").mkdir()
    (tmp_path / "hpc.d/more.toml").write_text('[device.x]\nvariables = ["XS"]\n')
    assert hpc.mentioned(["XS=1"], str(tmp_path))


def test_an_annotation_of_cdi_wakes_it_where_the_site_speaks_of_them(tmp_path):
    from ocirt import hpc

    annotations = {"cdi.k8s.io/x": "acme.com/card=0", "other": ""}
    (tmp_path / "hpc.toml").write_text("[policy]\nenv-requests = false\n")
    assert not hpc.mentioned([], str(tmp_path), annotations)
    (tmp_path / "hpc.toml").write_text("[policy]\ncdi-annotations = true\n")
    assert hpc.mentioned([], str(tmp_path), annotations)
    assert not hpc.mentioned([], str(tmp_path), {"other": ""})
