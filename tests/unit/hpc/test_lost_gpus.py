"""Machines whose GPUs are there by half, and requests as engines and scripts word them."""

from __future__ import annotations

import pytest
from ocirt_hpc import stage

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import UUID, VERSION, Machine, eight, install
from tests.unit.hpc.sites import Place

UTILITY = "NVIDIA_DRIVER_CAPABILITIES=utility"
PROC = "/proc/driver/nvidia"
LOST = f"{PROC}/gpus/0000:27:00.0/information"  # of GPU 1
ASK = "NVIDIA_VISIBLE_DEVICES="


@pytest.fixture
def place(tmp_path, monkeypatch):
    machine = eight(tmp_path / "host")
    install(machine)
    monkeypatch.setattr(stage, "Host", lambda root: machine.host())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Place(tmp_path, machine)


def gpus(place, value, *env, **options):
    made = place.ask("", env=[ASK + value, UTILITY, *env], **options)
    held = made.config.get("linux", {}).get("devices", ()) if made else ()
    return [int(node["path"][11:]) for node in held if node["path"][11:].isdecimal()]


def said(place, value, *env, text="", capabilities=UTILITY):
    made = place.ask(text, env=[ASK + value, capabilities, *env])
    return [row["what"] for row in made.report if not row["edit"]]


def lose(place, how):
    file = place.machine.root / LOST.lstrip("/")
    file.unlink()
    if how == "directory":
        file.mkdir()  # reading it fails, as that of a GPU that has fallen off the bus
    elif how:
        file.write_text(how)


# --- the machine


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("directory", "is a directory"),
        ("", "is not there"),
        ("Model: A100\nDevice Minor: ?\n", "names no device minor"),
    ],
)
def test_a_gpu_that_has_fallen_off_the_bus(place, how, sentence):
    lose(place, how)
    where = r"process.env: NVIDIA_VISIBLE_DEVICES=(1|all): GPU 1 \(0000:27:00.0\): "
    for value in ("1", "all"):
        with pytest.raises(ConfigError, match=f"^{where}{LOST}: {sentence}$"):
            gpus(place, value)
    # The others work, by the numbers that they had.
    assert gpus(place, "0") == [2]
    assert gpus(place, "2," + UUID.format(1)) == [0, 1]


def test_it_matters_only_to_the_job_that_has_it(place, monkeypatch):
    lose(place, "directory")
    monkeypatch.setenv("SLURM_JOB_GPUS", "0,1")
    assert gpus(place, "all") == [0, 1]


def test_a_driver_without_a_gpu(tmp_path, monkeypatch):
    machine = Machine(tmp_path / "host")
    machine.driver()
    install(machine)
    place = Place(tmp_path, machine)
    none = f"the NVIDIA driver {VERSION} has no GPU ({PROC}/gpus has none)"
    assert said(place, "all") == [none]
    assert gpus(place, "all") == []
    with pytest.raises(ConfigError, match=r"^process.env: NVIDIA_VISIBLE_DEVICES=0: the NVIDIA"):
        gpus(place, "0")
    with pytest.raises(ConfigError, match="has no GPU"):
        place.ask('[stage]\non-missing = "error"\n', env=[f"{ASK}all"])
    # The driver's files need none.
    assert place.ask("", env=[f"{ASK}none", UTILITY]) is not None


@pytest.mark.parametrize(
    ("furnish", "words"),
    [
        (lambda one: one.node("/dev/dxg", 10, 125), r": GPUs of WSL \(/dev/dxg\)"),
        (lambda one: one.write("/etc/nv_tegra_release", "R36"), ": those of Tegra"),
        (
            lambda one: one.pci("0000:65:00.0", vendor="0x10de", **{"class": "0x030200"}),
            ": the GPU at 0000:65:00.0 waits for one; as root: modprobe nvidia$",
        ),
        (lambda one: one.pci("0000:65:00.0", vendor="0x10de", **{"class": "0x0c0330"}), "$"),
    ],
)
def test_why_no_driver_is_loaded(tmp_path, monkeypatch, furnish, words):
    machine = Machine(tmp_path / "host")
    furnish(machine)
    monkeypatch.setattr(stage, "Host", lambda root: machine.host())
    with pytest.raises(ConfigError, match=f"no NVIDIA driver is loaded on this host{words}"):
        gpus(Place(tmp_path, machine), "0")


def test_a_library_of_the_driver_that_is_missing(place):
    (place.machine.root / f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}").unlink()
    words = f"this host has no libnvidia-ml.so.{VERSION}, of the capability utility"
    assert words in said(place, "0")
    compute = "NVIDIA_DRIVER_CAPABILITIES=compute"
    assert words not in said(place, "0", capabilities=compute)


# --- requests


@pytest.mark.parametrize(
    ("value", "minors"),
    [
        ("0,0," + UUID.format(2), [2]),
        ("0,", [2]),
        (",1,,0 ", [3, 2]),
        ("0,none", [2]),
        ("GPU-00000003", [3]),
        ("gpu-00000003-1111", [3]),
        ("00000000:07:00.0", [2]),
    ],
)
def test_how_requests_are_worded(place, value, minors):
    assert gpus(place, value) == minors


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("GPU-0000000", "is the beginning of the UUIDs of 8 GPUs"),
        ("GPU-", "is the beginning of the UUIDs of 8 GPUs"),
        ("GPU-9999", 'there is no NVIDIA GPU "GPU-9999"'),
        (",", 'there is no NVIDIA GPU ""'),
        ("0,void", 'there is no NVIDIA GPU "void"'),
    ],
)
def test_what_names_no_gpu(place, value, words):
    with pytest.raises(ConfigError, match=words):
        gpus(place, value)


def test_capabilities_with_commas_to_spare(place):
    env = [f"{ASK}0", "NVIDIA_DRIVER_CAPABILITIES=compute, utility,"]
    paths = {node["path"] for node in place.ask("", env=env).config["linux"]["devices"]}
    assert "/dev/nvidia-uvm" in paths


def test_a_number_of_the_host_that_leaked_in(place):
    words = "CUDA_VISIBLE_DEVICES names GPU 3, but inside they count from 0"
    assert words in said(place, "3", "CUDA_VISIBLE_DEVICES=3")
    assert words not in said(place, "3", "CUDA_VISIBLE_DEVICES=0")
    assert words not in said(place, "all", "CUDA_VISIBLE_DEVICES=3")


def test_a_gpu_cut_in_pieces_is_told(place):
    place.machine.mig(2, 9)
    assert any("as a whole it runs no programs" in one for one in said(place, "0"))


@pytest.mark.parametrize(
    ("value", "channels"), [("none", []), ("void", []), ("", []), ("5", [5]), ("all", [0, 2])]
)
def test_channels(place, value, channels):
    place.machine.devices["nvidia-caps-imex-channels"] = 234
    for number in (0, 2):
        path = f"/dev/nvidia-caps-imex-channels/channel{number}"
        place.machine.node(path, 234, number)
        place.machine.write(path, "")
    made = place.ask("", env=[f"{ASK}0", UTILITY, f"NVIDIA_IMEX_CHANNELS={value}"])
    paths = [node["path"] for node in made.config["linux"]["devices"]]
    assert [int(path.partition("channel")[2][len("s/channel"):]) for path in paths
            if "imex" in path] == channels  # fmt: skip


def test_all_of_no_channel(place):
    place.machine.devices["nvidia-caps-imex-channels"] = 234
    with pytest.raises(ConfigError, match="has no IMEX channel in /dev/nvidia-caps-imex"):
        place.ask("", env=[f"{ASK}0", UTILITY, "NVIDIA_IMEX_CHANNELS=all"])
