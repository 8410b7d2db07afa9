"""NVML, asked of a stand-in for the driver's library: a real one, by its real names, in C."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oci_spec.cdi import Spec
from ocirt_hpc import generate, info, optional
from ocirt_hpc.nvidia import choice, driver, nvml, require
from ocirt_hpc.nvidia.nvml import Nvml

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import UUID, VERSION, Machine, install
from tests.unit.hpc.sites import Place

CC = shutil.which("cc") or shutil.which("gcc")
SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}"

pytestmark = [
    pytest.mark.skipif(CC is None, reason="needs a C compiler for the stand-in"),
]


def put_nvml(machine, *macros):
    """Install the stand-in as the driver's NVML."""
    defines = [f"-D{macro}" for macro in macros]
    subprocess.run(
        [CC, "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", *defines,
         "-o", f"{machine.root}{LIBRARY}", SOURCE],
        check=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def cut(tmp_path):
    """Two GPUs; the first is cut into MIG devices, of which procfs has the instances."""
    machine = Machine(tmp_path / "host")
    machine.gpu("0000:01:00.0", 0)
    machine.gpu("0000:02:00.0", 1)
    machine.mig(0, 7)
    machine.mig(0, 8)
    install(machine)
    machine.host()
    return machine


def choose(machine, *names, seconds=20):
    loaded = driver.find(machine.host(), Nvml(seconds))
    return [(one.gpu.index, one.mig and one.mig.gi) for one in choice.choose(loaded, names)]


def fault(machine, name="0:1", seconds=20):
    with pytest.raises(ConfigError) as caught:
        choose(machine, name, seconds=seconds)
    return str(caught.value)


# --- what it tells


@pytest.mark.parametrize(
    ("name", "gi"),
    [
        ("0:0", 7),
        ("0:1", 8),
        ("MIG-bbbbbbbb-0000-5000-8000-000000000008", 8),
        ("mig-AAAAAAAA-0000-5000-8000-000000000007", 7),
    ],
)
def test_a_mig_device_by_what_nvml_alone_knows(cut, name, gi):
    put_nvml(cut)
    assert choose(cut, name) == [(0, gi)]


def test_a_mig_device_that_there_is_not_says_which_there_are(cut):
    put_nvml(cut)
    said = fault(cut, "MIG-cccccccc-0000-5000-8000-000000000009")
    assert 'there is no MIG device "MIG-cccccccc' in said
    assert "have 0:0 MIG-aaaaaaaa-0000-5000-8000-000000000007, 0:1 MIG-bbbb" in said
    assert 'no MIG device "1:0"' in fault(cut, "1:0")


def test_what_procfs_lacks_is_told(cut):
    put_nvml(cut)
    shutil.rmtree(cut.root / "proc/driver/nvidia/capabilities/gpu0/mig/gi8")
    assert "procfs, which NVML has as 8/0 of GPU 0" in fault(cut, "0:1")


def test_a_uuid_before_the_first_use_of_the_gpu(cut):
    put_nvml(cut)
    path = cut.root / "proc/driver/nvidia/gpus/0000:02:00.0/information"
    unknown = "GPU-????????-????-????-????-????????????"
    path.write_text(path.read_text().replace(UUID.format(1), unknown))
    assert choose(cut, UUID.format(1)) == [(1, None)]
    assert f'no NVIDIA GPU "{UUID.format(9)}" (have GPU-' in fault(cut, UUID.format(9))


def test_the_version_where_procfs_has_none(cut):
    put_nvml(cut)
    cut.write("/proc/driver/nvidia/version", "NVRM version: of no number\n")
    cut.link("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", f"libnvidia-ml.so.{VERSION}")
    assert driver.find(cut.host(), Nvml(20)).version == VERSION
    cut.write("/sys/module/nvidia/version", "551.1.1\n")
    assert driver.find(cut.host()).version == "551.1.1"


def test_architecture_and_brand_decide_per_gpu(cut):
    put_nvml(cut)
    loaded = driver.find(cut.host(), Nvml(20))
    asked = []

    def ask():
        asked.append(1)
        facts = loaded.nvml()
        return [{"arch": one.arch, "brand": one.brand} for one in facts.gpus]

    known = {"driver": VERSION, "cuda": "12.4"}
    require.check({"NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=tesla,driver>=470"}, known, ask)
    assert not asked  # the first group holds, whatever the brand
    require.check({"NVIDIA_REQUIRE_CUDA": "cuda>=13 brand=Tesla,driver>=470"}, known, ask)
    require.check({"NVIDIA_REQUIRE_ARCH": "arch>=8.0"}, known, ask)
    with pytest.raises(ConfigError, match=r"arch>=8.6.*arch 8.0, brand tesla"):
        require.check({"NVIDIA_REQUIRE_ARCH": "arch>=8.6"}, known, ask)
    with pytest.raises(ConfigError, match="brand=geforce"):
        require.check({"NVIDIA_REQUIRE_CUDA": "brand=geforce"}, known, ask)


def test_nothing_that_procfs_tells_loads_the_library(cut):
    put_nvml(cut, "CRASH")
    assert choose(cut, "1", UUID.format(1), f"MIG-{UUID.format(0)}/7/0", "all") != []


def test_it_is_asked_once(cut, monkeypatch):
    put_nvml(cut)
    calls, real = [], nvml.ask
    monkeypatch.setattr(nvml, "ask", lambda *args: calls.append(args) or real(*args))
    assert choose(cut, "0:0", "0:1") == [(0, 7), (0, 8)]
    assert len(calls) == 1


def test_info_shows_what_it_tells(cut):
    put_nvml(cut)
    text = info.text(info.document(cut.host(), 20))
    assert "0:1  MIG-bbbbbbbb-0000-5000-8000-000000000008" in text
    assert "architecture 9.0, brand tesla" in text
    assert "architecture" not in info.text(info.document(cut.host()))


def test_a_cdi_file_has_mig_devices_by_index_and_uuid(cut, capfd):
    put_nvml(cut)
    made = generate.document(cut.host(), ["utility"], nvml_timeout=20)
    Spec.model_validate(made)
    nodes = {
        one["name"]: [node["path"] for node in one["containerEdits"]["deviceNodes"]]
        for one in made["devices"]
    }
    uuid = "MIG-bbbbbbbb-0000-5000-8000-000000000008"
    assert nodes["0:1"] == nodes[uuid] != nodes["0:0"]
    assert [path.rpartition("/")[0] for path in nodes[uuid]] == [
        "/dev", "/dev/nvidia-caps", "/dev/nvidia-caps",
    ]  # fmt: skip
    assert "0" not in nodes
    put_nvml(cut, "CRASH")
    made = generate.document(cut.host(), ["utility"], nvml_timeout=20)
    names = ["1", UUID.format(1), "all"]
    assert [one["name"] for one in made["devices"]] == names
    assert "MIG devices have no names of their own" in capfd.readouterr().err


# --- what it does wrong


def test_the_child_has_nothing_of_the_callers(cut, monkeypatch):
    put_nvml(cut, "SEES_ENVIRONMENT")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    with open("/dev/null") as held:
        os.set_inheritable(held.fileno(), True)
        assert choose(cut, "0:0") == [(0, 7)]


@pytest.mark.parametrize(
    ("macro", "words"),
    [
        ("CRASH", "NVML crashed (signal 11)"),
        ("LEAVE", "NVML ended without an answer"),
        ("GARBAGE", "the answer of NVML makes no sense"),
        ("OTHER_SHAPE", "the answer of NVML makes no sense"),
        ("FLOOD", "the answer of NVML makes no sense"),
        ("NO_TEXT", "NVML answers: 'utf-8' codec"),
        ("WRONG_DRIVER", "NVML answers: RM has detected an NVML/RM version mismatch."),
        ("LOST_GPU", "GPU 0: GPU is lost"),
    ],
)
def test_a_broken_library_is_one_sentence(cut, macro, words):
    put_nvml(cut, macro)
    said = fault(cut)
    assert words in said
    assert '"0:1"' in said
    assert "\n" not in said
    if macro != "LOST_GPU":
        assert f": {LIBRARY}: " in said
        assert f"name it as MIG-{UUID.format(0)}/7/0" in said


@pytest.mark.parametrize("macro", ["HANG", "HANG_WITH_CHILD"])
def test_a_library_that_hangs_is_ended_with_what_it_started(cut, macro):
    put_nvml(cut, macro)
    before = time.monotonic()
    assert f"{LIBRARY}: NVML did not answer within 1 s" in fault(cut, seconds=1)
    assert time.monotonic() - before < 15
    # Where tests reap for others, what the library started comes to us as a zombie, without maps.
    assert not [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if maps(pid, cut)]


def maps(pid, machine):
    try:
        return str(machine.root) in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def test_a_library_that_is_none(cut):
    cut.write(LIBRARY, b"no library")
    assert f"{LIBRARY}: file too short" in fault(cut)


def test_a_host_without_the_library(cut):
    (cut.root / LIBRARY.lstrip("/")).unlink()
    assert f"this host has no libnvidia-ml.so.{VERSION}" in fault(cut)


def test_a_site_that_forbids_to_ask(cut):
    put_nvml(cut)
    assert "nvidia.nvml-timeout in hpc.toml forbids to ask NVML" in fault(cut, seconds=0)


def test_without_nvidia_ml_py_there_is_a_sentence(cut, monkeypatch):
    put_nvml(cut)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(optional, "load", missing)
    assert f"{LIBRARY}: nvidia-ml-py is not installed" in fault(cut)
    text = info.text(info.document(cut.host(), 20))
    assert f"cannot be told: {LIBRARY}: nvidia-ml-py is not installed" in text


def test_an_optional_package_is_looked_for_where_the_launcher_says(tmp_path, monkeypatch):
    (tmp_path / "rare_package.py").write_text("HERE = 1\n")
    with pytest.raises(ImportError):
        optional.load("rare_package")
    monkeypatch.setattr("ocirt.SITE", str(tmp_path), raising=False)
    before = list(sys.path)
    assert optional.load("rare_package").HERE == 1
    assert sys.path == before


# --- the whole way


def test_who_asked_and_what_is_named(cut, tmp_path):
    put_nvml(cut, "CRASH")
    place = Place(tmp_path, cut)
    with pytest.raises(ConfigError) as caught:
        place.ask("", env=["NVIDIA_VISIBLE_DEVICES=0:1"])
    assert str(caught.value) == (
        'process.env: NVIDIA_VISIBLE_DEVICES=0:1: "0:1": the index of a MIG device is known to'
        f" NVML alone; name it as MIG-{UUID.format(0)}/7/0: {LIBRARY}: NVML crashed (signal 11)"
    )


def test_a_requirement_that_nobody_can_tell_keeps_nobody_out(cut, tmp_path):
    put_nvml(cut, "CRASH")
    place = Place(tmp_path, cut)
    env = ["NVIDIA_VISIBLE_DEVICES=1", "NVIDIA_REQUIRE_ARCH=arch>=8.6"]
    assert place.ask("", env=env) is not None
    put_nvml(cut)
    assert place.ask("", env=env) is not None
    with pytest.raises(ConfigError, match=r"NVIDIA_REQUIRE_ARCH=arch>=9\.1: this host"):
        place.ask("", env=[env[0], "NVIDIA_REQUIRE_ARCH=arch>=9.1"])


def test_the_nodes_of_a_mig_device_by_its_uuid(cut, tmp_path):
    put_nvml(cut)
    name = "MIG-bbbbbbbb-0000-5000-8000-000000000008"
    made = Place(tmp_path, cut).ask("", env=[f"NVIDIA_VISIBLE_DEVICES={name}"])
    paths = [node["path"] for node in made.config["linux"]["devices"]]
    assert "/dev/nvidia0" in paths
    assert len([path for path in paths if path.startswith("/dev/nvidia-caps/")]) == 2
