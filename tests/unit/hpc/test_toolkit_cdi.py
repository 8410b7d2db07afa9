"""What NVIDIA's config.toml says of CDI: its modes, the kind of a bare name, where files are."""

from __future__ import annotations

import json

import pytest
from ocirt_hpc.nvidia import policy

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine, install, workstation
from tests.unit.hpc.sites import Place

TOML = "/etc/nvidia-container-runtime/config.toml"
RUNTIME = "[nvidia-container-runtime]\n"
CDI = "[nvidia-container-runtime.modes.cdi]\n"
DIRS = f'{CDI}spec-dirs = ["/opt/cdi"]\n'
CDI_MODE = f'{RUNTIME}mode = "cdi"\n{DIRS}'


@pytest.fixture
def place(tmp_path):
    machine = workstation(tmp_path / "host")
    install(machine)
    return Place(tmp_path, machine)


def told(place, text):
    place.machine.write(TOML, text)
    return place


def describe(place, kind, name, folder="/opt/cdi"):
    """Write a CDI file with one device that sets a variable."""
    document = {
        "cdiVersion": "0.5.0",
        "kind": kind,
        "devices": [{"name": name, "containerEdits": {"env": [f"GIVEN={kind}={name}"]}}],
    }
    place.machine.write(f"{folder}/{kind.replace('/', '-')}.json", json.dumps(document))


def given(place, *env, text="", **options):
    """Return the names of the GPUs' nodes, and what a CDI file has set."""
    made = place.ask(text, env=env, **options)
    nodes = made.config.get("linux", {}).get("devices", ()) if made else ()
    variables = dict(one.split("=", 1) for one in made.config["process"]["env"])
    return [node["path"] for node in nodes if node["path"][11:].isdecimal()], variables.get("GIVEN")


def test_a_bare_name_is_that_of_a_file_in_mode_cdi(place):
    describe(place, "nvidia.com/gpu", "0")
    ask = "NVIDIA_VISIBLE_DEVICES=0"
    assert given(told(place, CDI_MODE), ask) == ([], "nvidia.com/gpu=0")
    assert given(told(place, DIRS), ask) == (["/dev/nvidia0"], None)


def test_a_gpu_that_no_file_describes_is_found_on_the_machine(place):
    assert given(told(place, CDI_MODE), "NVIDIA_VISIBLE_DEVICES=0") == (["/dev/nvidia0"], None)


def test_the_kind_of_a_bare_name(place):
    describe(place, "acme.com/gpu", "0")
    told(place, f'{CDI_MODE}default-kind = "acme.com/gpu"\n')
    assert given(place, "NVIDIA_VISIBLE_DEVICES=0") == ([], "acme.com/gpu=0")
    with pytest.raises(ConfigError, match=r"acme.com/gpu=1"):
        place.ask("", env=["NVIDIA_VISIBLE_DEVICES=1"])
    assert given(place, "NVIDIA_VISIBLE_DEVICES=nvidia.com/gpu=0") == (["/dev/nvidia0"], None)


@pytest.mark.parametrize("mode", ["auto", "legacy", "jit-cdi", "csv"])
def test_the_other_modes_find_gpus_on_the_machine(place, mode):
    describe(place, "nvidia.com/gpu", "0")
    told(place, f'{RUNTIME}mode = "{mode}"\n{DIRS}')
    assert given(place, "NVIDIA_VISIBLE_DEVICES=0") == (["/dev/nvidia0"], None)


def test_devices_of_another_kind(place):
    describe(place, "management.nvidia.com/gpu", "all")
    name = "management.nvidia.com/gpu=all"
    told(place, DIRS)
    # An image asks for GPUs, and for nothing else that there may be.
    words = r'process.env: NVIDIA.*: no variable can ask .* the kind "management.nvidia.com/gpu"'
    with pytest.raises(ConfigError, match=words):
        place.ask("", env=[f"NVIDIA_VISIBLE_DEVICES={name}"])
    text = '[nvidia]\ncdi-kinds = ["management.nvidia.com/gpu"]\n'
    assert given(place, f"NVIDIA_VISIBLE_DEVICES={name}", text=text) == ([], name)
    # The caller may, and beside GPUs.
    both = {"ocirt.hpc/gpus": f"0,{name}"}
    assert given(place, annotations=both) == (["/dev/nvidia0"], name)
    with pytest.raises(ConfigError, match=r"annotations.ocirt.hpc/gpus: .*management.*=0"):
        place.ask("", annotations={"ocirt.hpc/gpus": name.replace("=all", "=0")})


def test_where_cdi_files_are(place):
    describe(place, "acme.com/x", "0")
    told(place, DIRS)
    assert given(place, devices=["acme.com/x=0"]) == ([], "acme.com/x=0")
    other = place.path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"acme.com/x=0"):
        place.ask("", devices=["acme.com/x=0"], directories=[str(other)])


@pytest.mark.parametrize(
    ("prefixes", "key", "found"),
    [
        (None, "cdi.k8s.io/x", True),
        (None, "nvidia.cdi.k8s.io/x", False),
        (["nvidia.cdi.k8s.io/"], "nvidia.cdi.k8s.io/x", True),
        (["nvidia.cdi.k8s.io/"], "cdi.k8s.io/x", False),
    ],
)
def test_which_annotations_count(place, prefixes, key, found):
    describe(place, "acme.com/x", "0")
    told(place, DIRS + (f"annotation-prefixes = {json.dumps(prefixes)}\n" if prefixes else ""))
    text = "[policy]\ncdi-annotations = true\n"
    made = place.ask(text, annotations={key: "acme.com/x=0"})
    assert bool(made) is found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'{RUNTIME}mode = "magic"\n', 'nvidia-container-runtime.mode: "magic" is none of auto'),
        (f'{CDI}default-kind = "gpu"\n', r'modes.cdi.default-kind: "gpu=all" is not a CDI'),
        (f'{CDI}spec-dirs = ["cdi"]\n', 'modes.cdi.spec-dirs: "cdi" is not absolute'),
        (f'{CDI}spec-dirs = "/etc/cdi"\n', "modes.cdi.spec-dirs: expected a list of strings"),
    ],
)
def test_a_setting_that_means_nothing(tmp_path, text, words):
    machine = Machine(tmp_path)
    machine.write(TOML, text)
    with pytest.raises(ConfigError, match=words):
        policy.load(machine.host())


def test_the_file_is_where_the_toolkit_looks(tmp_path, monkeypatch):
    from ocirt_hpc.host import Host

    named, home = tmp_path / "named.toml", tmp_path / "home/nvidia-container-runtime/config.toml"
    home.parent.mkdir(parents=True)
    for file in (named, home):
        file.touch(mode=0o600)
    named.write_text('swarm-resource = "NAMED"\n')
    home.write_text('swarm-resource = "HOME"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert policy.load(Host()).swarm == "HOME"
    monkeypatch.setenv("NVIDIA_CTK_CONFIG_FILE_PATH", str(named))
    assert policy.load(Host()).swarm == "NAMED"
    named.chmod(0o622)
    with pytest.raises(ConfigError, match=r"named.toml: .*has to belong to root"):
        policy.load(Host())
    # Of a machine that is a directory it says nothing.
    assert policy.load(Machine(tmp_path / "host").host()).swarm == ""
