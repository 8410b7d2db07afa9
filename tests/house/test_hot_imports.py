"""What the verbs that engines call may load: a fresh interpreter, started as the launcher does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ocirt.cli import COMMANDS
from tests.unit.hpc import machines

ROOT = Path(__file__).resolve().parent.parent.parent

# Built into the interpreter, or C alone; not os, which is dear (ocirt/system.py).
ALLOWED = {
    "__future__",
    "_struct", "_json", "_socket", "_signal", "_blake2", "builtins", "fcntl", "select", "errno",
    "time",
}  # fmt: skip

COLD = {"validate"}  # a person waits for it, not an engine

# Most of what an engine calls; they look at a state and do one thing.
LIGHT = ("start", "state", "kill", "delete", "pause", "resume", "ps", "list", "update")
HEAVY = ("ocirt.plan", "ocirt.launch", "ocirt.checks", "ocirt.shape", "ocirt._generated_shape")

# What few containers ask for: loaded for those alone.
RARE = (
    "ocirt.console", "ocirt.explain", "ocirt.hookfiles", "ocirt.hpc", "ocirt.lifecycle",
    "ocirt.netdevices", "ocirt.notify", "ocirt.resctrl", "ocirt.usermap",
)  # fmt: skip

START = f"""
import sys
ocirt = type(sys)("ocirt")
ocirt.__path__ = ["{ROOT}/ocirt"]
ocirt.SITE = ""
sys.modules["ocirt"] = ocirt
before = set(sys.modules)
from ocirt import cli
"""
END = """
after = set(sys.modules) - before
sys.__stderr__.write("\\n".join(sorted(after)))
"""


def loaded(code):
    """Return the modules that `code` loads in a fresh interpreter."""
    line = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", START + code + END]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rsplit("\0", 1)[-1].split())


def foreign(modules):
    ours = ("ocirt", "ocirt_hpc")
    return {name for name in modules if name.partition(".")[0] not in ours} - ALLOWED


@pytest.mark.parametrize("verb", sorted(set(COMMANDS) - COLD))
def test_a_verb_loads_only_what_is_cheap(verb):
    assert foreign(loaded(f"cli.load({verb!r})")) == set()


@pytest.mark.parametrize("verb", LIGHT)
def test_a_light_verb_does_not_load_what_create_needs(verb):
    assert not {name for name in loaded(f"cli.load({verb!r})") if name.startswith(HEAVY)}


@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_plain_container_does_not_load_what_few_ask_for(verb):
    assert not loaded(f"cli.load({verb!r})") & set(RARE)


@pytest.mark.parametrize("verb", LIGHT)
def test_asking_for_an_unknown_container_loads_nothing_more(verb, tmp_path):
    argv = ["--root", str(tmp_path), "--log", str(tmp_path / "log"), verb, "nobody"]
    modules = loaded(f"cli.main({argv!r}); sys.__stderr__.write(chr(0))")
    assert foreign(modules) == set()


def test_entering_an_unknown_container_loads_nothing_more(tmp_path):
    argv = ["--root", str(tmp_path), "--log", str(tmp_path / "log"), "exec", "nobody", "true"]
    modules = loaded(f"cli.main({argv!r}); sys.__stderr__.write(chr(0))")
    assert foreign(modules) == set()


def make_bundle(tmp_path, **changes):
    (tmp_path / "rootfs").mkdir()
    spec = loaded(f"assert cli.main(['spec', '-b', {str(tmp_path)!r}]) == 0")
    assert "json" in spec  # `spec` is run by people; its import is late
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"]["terminal"] = False
    config["linux"]["cgroupsPath"] = "/ocirt-test/imports"
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))


def stage(modules):
    return {name for name in modules if name.startswith(("ocirt_hpc", "ocirt.hpc"))}


def test_planning_loads_only_what_is_cheap(tmp_path):
    # Annotations that nobody was told to heed ask for nothing.
    make_bundle(tmp_path, annotations={"cdi.k8s.io/x": "acme.com/card=0"})
    modules = loaded(f"assert cli.main(['plan', {str(tmp_path)!r}]) == 0")
    assert foreign(modules) == set()
    assert stage(modules) == set()


def test_what_engines_wait_for_lies_together_in_the_embedded_program(tmp_path):
    make_bundle(tmp_path)
    spec = importlib.util.spec_from_file_location("freeze", ROOT / "packaging/freeze.py")
    freeze = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(freeze)
    hot = freeze.imported(freeze.sources(), freeze.HOT)
    planned = loaded(f"assert cli.main(['plan', {str(tmp_path)!r}]) == 0")
    made = loaded("cli.load('create'); cli.load('run')")
    ours = {name for name in planned | made if name.startswith("ocirt.")}
    assert ours - {"ocirt.cli.plan"} <= set(hot)


def test_a_scope_of_systemd_is_cheap_as_well(tmp_path):
    make_bundle(tmp_path, annotations={"org.systemd.property.TimeoutStopSec": "5"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["linux"]["cgroupsPath"] = "system.slice:ocirt:imports"
    (tmp_path / "config.json").write_text(json.dumps(config))
    argv = ["--systemd-cgroup", "--rootless=false", "plan", str(tmp_path)]
    modules = loaded(f"assert cli.main({argv!r}) == 0; import ocirt.cgroup.systemd_bus")
    assert foreign(modules) == set()
    assert "ocirt.cgroup.gvariant" in modules


def test_asking_for_a_device_loads_the_hpc_stage_and_nothing_dear(tmp_path):
    make_bundle(tmp_path)
    cards = {
        "cdiVersion": "0.5.0",
        "kind": "acme.com/card",
        "devices": [{"name": "0", "containerEdits": {"env": ["A=b"]}}],
    }
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "cards.json").write_text(json.dumps(cards))
    argv = ["--cdi-spec-dir", str(folder), "plan", "--device", "acme.com/card=0", str(tmp_path)]
    modules = loaded(f"assert cli.main({argv!r}) == 0")
    assert foreign(modules) == set()
    assert "ocirt_hpc.edits" in stage(modules)


def test_version_loads_only_what_is_cheap():
    assert foreign(loaded("cli.main(['--version'])")) == set()


def test_giving_devices_loads_only_what_is_cheap(tmp_path):
    """Settings are read, GPUs and NICs are found, for one module of the standard library, in C."""
    machine = machines.eight_and_eight(tmp_path / "machine")
    machines.install(machine)
    machine.write("/etc/nvidia-container-runtime/config.toml", "disable-require = false\n")
    machine.host()
    settings = tmp_path / "hpc.toml"
    settings.touch(mode=0o600)
    settings.write_text(f'[stage]\nhost-root = "{machine.root}"\n')
    env = ["NVIDIA_VISIBLE_DEVICES=all", "OCIRT_RDMA_DEVICES=all"]
    config = {"root": {"path": str(tmp_path)}, "process": {"args": ["true"], "env": env}}
    call = f"hpc.apply({config!r}, {str(tmp_path)!r}, '/place', devices=[], site={str(settings)!r})"
    modules = loaded(
        f"from ocirt import hpc; devices = {call}.config['linux']['devices']; "
        "assert len(devices) == 8 + 3 + 8 + 1, devices; sys.__stderr__.write(chr(0))"
    )
    assert "ocirt_hpc.nvidia.stage" in modules
    assert foreign(modules) == {"resource"}
