"""What cannot be given: one sentence that says who asked, for what, and which file says no."""

from __future__ import annotations

import json

import pytest
from ocirt_hpc import stage

from ocirt.errors import ConfigError, Error
from tests.unit.hpc.machines import UUID, VERSION, install, workstation
from tests.unit.hpc.sites import Place

ASKED = "NVIDIA_VISIBLE_DEVICES=0"
WHO = f"process.env: {ASKED}: "
CAPS = "process.env: NVIDIA_DRIVER_CAPABILITIES: "
LOST = f"{WHO}GPU 0 (0000:65:00.0): "
PROC = "/proc/driver/nvidia"
GPU = f"{PROC}/gpus/0000:65:00.0/information"
CUDA = f"/usr/lib/x86_64-linux-gnu/libcuda.so.{VERSION}"
HAVE = f"(have 0 {UUID.format(0)})"


@pytest.fixture
def place(tmp_path, monkeypatch):
    machine = workstation(tmp_path / "host")
    install(machine)
    monkeypatch.setattr(stage, "Host", lambda root: machine.host())
    return Place(tmp_path, machine)


def refusal(place, *env, settings="", **options):
    with pytest.raises(Error) as caught:
        place.ask(settings, env=env or [ASKED], **options)
    said = str(caught.value)
    assert "\n" not in said
    return said.replace(str(place.machine.root), "HOST").replace(str(place.path), "PLACE")


# --- requests that nothing answers

UNKNOWN = [
    # variables, sentence
    (["NVIDIA_VISIBLE_DEVICES=1"], f'NVIDIA_VISIBLE_DEVICES=1: there is no NVIDIA GPU "1" {HAVE}'),
    (["NVIDIA_VISIBLE_DEVICES=0,9"], f'DEVICES=0,9: there is no NVIDIA GPU "9" {HAVE}'),
    (["NVIDIA_VISIBLE_DEVICES=../../etc"], f'there is no NVIDIA GPU "../../etc" {HAVE}'),
    (["NVIDIA_VISIBLE_DEVICES=/dev/sda"], f'there is no NVIDIA GPU "/dev/sda" {HAVE}'),
    (["NVIDIA_VISIBLE_DEVICES=GPU-x"], f'there is no NVIDIA GPU "GPU-x" {HAVE}'),
    (["NVIDIA_VISIBLE_DEVICES=acme.com/gpu=0"],
     'no variable can ask for devices of the kind "acme.com/gpu" (nvidia.cdi-kinds in hpc.toml)'),
    (["NVIDIA_VISIBLE_DEVICES=MIG-GPU-0/1/2"], f'there is no MIG device "MIG-GPU-0/1/2" {HAVE}'),
    (["NVIDIA_VISIBLE_DEVICES=0:0"], "the index of a MIG device is known to NVML alone; name it"),
    ([ASKED, "NVIDIA_DRIVER_CAPABILITIES=gpu"], f'{CAPS}unknown driver capability "gpu" (have'),
    ([ASKED, "NVIDIA_REQUIRE_CUDA=cuda>=99"],
     "process.env: NVIDIA_REQUIRE_CUDA=cuda>=99: this host does not satisfy it (driver 550.54.15"),
    ([ASKED, "NVIDIA_REQUIRE_CUDA=cuda~9"],
     'process.env: NVIDIA_REQUIRE_CUDA: "cuda~9" is no constraint'),
    ([ASKED, "NVIDIA_IMEX_CHANNELS=0"],
     "process.env: NVIDIA_IMEX_CHANNELS: IMEX channel 0: the loaded NVIDIA driver has none"),
    ([ASKED, "NVIDIA_IMEX_CHANNELS=../x"],
     'process.env: NVIDIA_IMEX_CHANNELS: "../x" is not an IMEX channel'),
    (["MELLANOX_VISIBLE_DEVICES=3"], "process.env: MELLANOX_VISIBLE_DEVICES=3: "),
    (["AMD_VISIBLE_DEVICES=3"], 'AMD_VISIBLE_DEVICES=3: there is no amd device "3" (have none)'),
]  # fmt: skip


@pytest.mark.parametrize(("env", "sentence"), UNKNOWN)
def test_a_device_that_there_is_not(place, env, sentence):
    assert sentence in refusal(place, *env)


# --- a driver that is there by half

BROKEN = [
    # file, its content or None for a directory in its place, sentence
    (
        f"{PROC}/version",
        "NVRM version: ?\n",
        f"{WHO}{PROC}/version: names no version of the driver",
    ),
    (f"{PROC}/version", None, f"{WHO}{PROC}/version: is a directory"),
    (f"{PROC}/version", b"\xff\xfe\x00", f"{WHO}{PROC}/version: names no version of the driver"),
    (GPU, "", f"{LOST}{GPU}: names no device minor"),
    (GPU, None, f"{LOST}{GPU}: is a directory"),
    (GPU, "x" * (1 << 20) + "y", f"{LOST}{GPU}: holds more than 1048576 bytes"),
    (f"{PROC}/params", None, f"{WHO}{PROC}/params: is a directory"),
    (CUDA, "GROUP (x)", f"{WHO}{CUDA}: not an ELF file"),
    (CUDA, b"\x7fELF", f"{WHO}{CUDA}: not an ELF file"),
    (CUDA, None, f"{WHO}{CUDA}: is a directory"),
]


@pytest.mark.parametrize(("path", "content", "sentence"), BROKEN)
def test_a_driver_half_there(place, path, content, sentence):
    file = place.machine.root / path.lstrip("/")
    file.unlink()
    if content is None:
        file.mkdir()
    else:
        place.machine.write(path, content)
    assert refusal(place).startswith(sentence)


def test_a_module_that_is_not_loaded(place):
    del place.machine.devices["nvidia-uvm"]
    assert refusal(place) == (
        f"{WHO}/proc/devices: nvidia-uvm is not there; as root on the host: nvidia-modprobe -u -c 0"
    )


def test_a_node_of_another_boot(place):
    place.machine.node("/dev/nvidia-uvm", 509, 0)
    said = f"{WHO}/dev/nvidia-uvm: is device 509:0, the loaded driver's is 510:0; remove the node"
    assert refusal(place) == said


def test_a_driver_that_was_replaced(place):
    for path in (place.machine.root / "usr/lib/x86_64-linux-gnu").glob(f"*.so.{VERSION}"):
        path.rename(str(path).replace(VERSION, "555.42.02"))
    library = "/usr/lib/x86_64-linux-gnu/libcuda.so.555.42.02"
    assert refusal(place) == (
        f"{WHO}{library}: is not of the loaded NVIDIA driver {VERSION};"
        " reboot, or load the driver that is installed"
    )


def test_no_driver_at_all(place):
    (place.machine.root / "proc/driver/nvidia/version").unlink()
    why = "no NVIDIA driver is loaded on this host: the GPU at 0000:65:00.0 waits for one"
    assert refusal(place).startswith(f"{WHO}{why}")
    assert refusal(place, "A=1", annotations={"ocirt.hpc/gpus": "0"}).startswith(
        f"annotations.ocirt.hpc/gpus: {why}"
    )
    assert place.ask("", env=["NVIDIA_VISIBLE_DEVICES=all"]).config["process"]["env"]


# --- policies that contradict themselves, or the request

POLICIES = [
    # hpc.toml, variables, sentence
    ('[nvidia]\ncapabilities = ["gpu"]\n', [ASKED],
     'nvidia.capabilities in hpc.toml: unknown driver capability "gpu"'),
    ('[nvidia]\ncapabilities = ["graphics"]\n', [ASKED],
     'process.env: NVIDIA_DRIVER_CAPABILITIES: the site does not allow "utility"'),
    ('[nvidia]\ncapabilities = "all"\n', [ASKED],
     "PLACE/hpc.toml: nvidia.capabilities: expected a list of strings"),
    ("[nvidia]\nnvml-timeout = true\n", [ASKED],
     "PLACE/hpc.toml: nvidia.nvml-timeout: expected an integer"),
    ("[nvidia]\nnvml = 1\n", [ASKED], "PLACE/hpc.toml: nvidia.nvml: unknown setting (have "),
    ("[gpus]\nall = true\n", [ASKED], "PLACE/hpc.toml: gpus: unknown section (have "),
    ("[nvidia\n", [ASKED], "PLACE/hpc.toml: "),
    ('[user]\nmode = "image"\nhome = "bind"\n', [ASKED],
     "user.home in hpc.toml: with user.mode image, images would choose whose home"),
    ('[user]\nmode = "fixed"\n', [ASKED], "user.mode in hpc.toml: fixed needs user.value"),
    ('[stage]\ndefault-modules = ["x"]\n', [ASKED],
     'stage.default-modules in hpc.toml: there is no module "x" (have none)'),
    ('[stage]\ntrigger = "always"\ndefault-modules = ["a", "b"]\n'
     '[module.a]\nconflicts = ["b"]\n[module.b]\n',
     [ASKED], 'hpc.toml: module.a.conflicts: module "a" cannot be with module "b"'),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "env", "sentence"), POLICIES)
def test_a_policy_that_contradicts(place, settings, env, sentence):
    assert refusal(place, *env, settings=settings).startswith(sentence)


def test_a_toolkit_that_was_told_nonsense(place):
    file = "/etc/nvidia-container-runtime/config.toml"
    place.machine.write(file, "disable-require = 1\n")
    assert refusal(place) == f"{file}: disable-require: expected true or false"
    place.machine.write(file, 'supported-driver-capabilities = "video"\n')
    assert refusal(place).endswith(f'not allow "utility" (supported-driver-capabilities in {file})')


# --- CDI files

CDI = [
    # content, sentence
    ('{"cdiVersion": "9", "kind": "nvidia.com/gpu", "devices": []}', "nvidia.json: "),
    ({"devices": []}, "nvidia.json: devices: is empty"),
    ({"devices": [{"name": "0", "containerEdits": {}}]},
     "nvidia.json: devices[0].containerEdits: empty device edits"),
    ({"devices": [{"name": "0", "containerEdits": {"env": ["A"]}}]},
     'nvidia.json: devices[0].containerEdits.env[0]: invalid environment variable "A"'),
    ({"devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}] * 2},
     'nvidia.json: devices[1].name: device "0" is given twice'),
    ({"devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/none"}]}}]},
     "nvidia.com/gpu=0: deviceNodes[0]: /dev/none: no such file or directory"),
    ({"devices": [{"name": "0", "containerEdits": {"hooks": [
        {"hookName": "createContainer", "path": "/x/nvidia-cdi-hook",
         "args": ["x", "create-symlinks", "--link", "odd"]}]}}]},
     'nvidia.com/gpu=0: hooks[0]: "odd" is not TARGET::LINK'),
    ({"devices": [{"name": "1", "containerEdits": {"env": ["A=1"]}}]},
     "nvidia.com/gpu=0: no such CDI device (have 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), CDI)
def test_a_cdi_file_that_is_wrong(place, content, sentence):
    folder = place.path / "cdi"
    folder.mkdir()
    if isinstance(content, dict):
        content = json.dumps({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", **content})
    (folder / "nvidia.json").write_text(content)
    options = {"devices": ["nvidia.com/gpu=0"], "directories": [str(folder)]}
    assert sentence in refusal(place, "A=1", **options)


@pytest.mark.parametrize("content", ["{", "[]", '{"cdiVersion": "0.5.0"}'])
def test_a_cdi_file_that_nobody_can_make_out_is_told_of(place, content, capfd):
    folder = place.path / "cdi"
    folder.mkdir()
    (folder / "nvidia.json").write_text(content)
    options = {"devices": ["nvidia.com/gpu=0"], "directories": [str(folder)]}
    # The stage knows this kind by itself, and no other.
    made = place.ask("", **options)
    assert "/dev/nvidia0" in [node["path"] for node in made.config["linux"]["devices"]]
    assert f"CDI file left out: {folder}/nvidia.json: " in capfd.readouterr().err
    options["devices"] = ["acme.com/gpu=0"]
    assert "PLACE/cdi/nvidia.json: " in refusal(place, "A=1", **options)


def test_nothing_is_written_before_a_refusal(place):
    refusal(place, "NVIDIA_VISIBLE_DEVICES=9")
    assert not (place.path / "files").exists()
    with pytest.raises(ConfigError):
        place.ask("", env=["NVIDIA_VISIBLE_DEVICES=9"])


def test_a_loop_in_sysfs_is_told_with_who_asked(place):
    place.machine.nic("mlx5_0", "0000:41:00.0")
    link = place.machine.root / "sys/class/infiniband/mlx5_0"
    link.unlink()
    link.symlink_to("mlx5_0")
    assert refusal(place, "OCIRT_RDMA_DEVICES=mlx5_0") == (
        "process.env: OCIRT_RDMA_DEVICES=mlx5_0: /sys/class/infiniband/mlx5_0:"
        " too many symbolic links"
    )
