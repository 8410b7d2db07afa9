"""The work of nvidia-cdi-hook: which hooks are known, what comes of them, what stays a hook."""

from __future__ import annotations

import json

import pytest
from ocirt_hpc import ldcache, stage
from ocirt_hpc.image import Image
from ocirt_hpc.nvidia import cdihooks

from ocirt import create
from ocirt.errors import ConfigError
from tests.unit.hpc.machines import VERSION, Machine, install, library, workstation
from tests.unit.hpc.sites import BASE, Place

FOLDER = "/usr/lib/x86_64-linux-gnu"
CUDA = f"libcuda.so.{VERSION}"


def hook(*args, program="/usr/bin/nvidia-cdi-hook", **more):
    first = program.rpartition("/")[2]
    return {"path": program, "args": [first, *args], "env": ["NVIDIA_CTK_DEBUG=false"], **more}


@pytest.fixture
def place(tmp_path):
    machine = workstation(tmp_path / "host")
    install(machine)
    machine.host()
    made = Place(tmp_path, machine).with_loader()
    (made.rootfs / "etc").mkdir()
    return made


def of_cdi(*args):
    """Return a hook as a CDI file has it."""
    return {"hookName": "createContainer", **hook(*args)}


def with_hooks(place, *hooks):
    """Return a config as an engine leaves it that has applied a CDI file."""
    source = f"{place.machine.root}{FOLDER}/{CUDA}"
    mount = {"destination": f"{FOLDER}/{CUDA}", "source": source, "options": ["ro", "bind"]}
    nodes = [
        {"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0},
        {"path": "/dev/nvidiactl", "type": "c", "major": 195, "minor": 255},
        {"path": "/dev/dri/card1", "type": "c", "major": 226, "minor": 1},
    ]
    return {
        **BASE,
        "hooks": {"createContainer": list(hooks)},
        "mounts": [*BASE["mounts"], mount],
        "linux": {**BASE["linux"], "devices": nodes},
    }


def ask(place, *hooks, settings="", **options):
    return place.ask(settings, config=with_hooks(place, *hooks), **options)


def left(made):
    return made.config["hooks"]["createContainer"]


# --- one command after the other


@pytest.mark.parametrize(
    ("args", "program"),
    [
        (["create-symlinks", "--link", "a.so.1::/lib/a.so"], "/usr/bin/nvidia-cdi-hook"),
        (["create-symlinks", "--link=a.so.1::/lib/a.so"], "/opt/toolkit/nvidia-cdi-hook"),
        (["hook", "create-symlinks", "-link", "a.so.1::lib/a.so"], "/usr/bin/nvidia-ctk"),
        (["create-symlinks", "--link", "a.so.1::/../../lib//a.so"], "/x/nvidia-cdi-hook"),
    ],
)
def test_links_are_made_by_the_plan(place, args, program):
    made = ask(place, hook(*args, program=program))
    assert made.links == [("/lib/a.so", "a.so.1", "hooks.createContainer[0] create-symlinks")]
    assert left(made) == []


def test_a_link_asked_for_twice_is_made_once_and_a_mount_counts_for_more(place):
    links = ["--link", "a.so.1::/lib/a.so", "--link", f"x::{FOLDER}/{CUDA}"]
    made = ask(place, hook("create-symlinks", *links), hook("create-symlinks", *links))
    assert [(path, target) for path, target, _ in made.links] == [("/lib/a.so", "a.so.1")]


def test_a_link_that_is_none_says_so(place):
    with pytest.raises(ConfigError, match=r'hooks.createContainer\[0\] create-symlinks: "a:b" is'):
        ask(place, hook("create-symlinks", "--link", "a:b"))


def test_the_loader_is_told_of_what_is_mounted(place):
    old = [ldcache.Entry("libcuda.so.1", "/opt/old/libcuda.so.1", 0x303),
           ldcache.Entry("libc.so.6", "/lib64/libc.so.6", 0x303)]  # fmt: skip
    (place.rootfs / "etc/ld.so.cache").write_bytes(ldcache.build(ldcache.merge([], old)))
    made = ask(place, hook("update-ldcache", "--ldconfig-path", "@/sbin/x", "--folder", FOLDER))
    entries = {one.name: one.path for one in ldcache.parse(made.tree.files["ld.so.cache"])}
    assert entries == {"libcuda.so.1": f"{FOLDER}/libcuda.so.1", "libc.so.6": "/lib64/libc.so.6"}
    assert [one[:2] for one in made.links] == [(f"{FOLDER}/libcuda.so.1", CUDA)]
    assert "/etc/ld.so.cache" in [mount["destination"] for mount in made.config["mounts"]]
    assert left(made) == []


def test_a_mount_that_is_no_library_is_passed_over(place):
    config = with_hooks(place, hook("update-ldcache", "--folder", "/x", "--folder", FOLDER))
    noise = place.path / "noise"
    noise.write_bytes(b"\x7fELF" + bytes(100))
    for name, source in (("a.so", noise), ("b.so", "/nonexistent"), ("c.so", place.path)):
        config["mounts"].append({"destination": f"{FOLDER}/{name}", "source": str(source)})
    made = place.ask("", config=config)
    (entry,) = ldcache.parse(made.tree.files["ld.so.cache"])
    assert entry.name == "libcuda.so.1"


def test_an_image_that_nothing_can_be_added_to_gets_no_links(place, monkeypatch):
    monkeypatch.setattr(Image, "readonly", True)
    (place.rootfs / "etc/ld.so.cache").touch()
    hooks = [
        hook("create-symlinks", "--link", "a::/lib/a.so", "--link", "../card1::/dev/dri/x"),
        hook("update-ldcache", "--folder", FOLDER),
    ]
    config = with_hooks(place, *hooks)
    config["mounts"].append({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"})
    made = place.ask("", config=config)
    assert [one[:2] for one in made.links] == [("/dev/dri/x", "../card1")]
    (entry,) = ldcache.parse(made.tree.files["ld.so.cache"])
    assert entry.path == f"{FOLDER}/{CUDA}"


def test_musl_is_told_of_the_folder(place):
    (place.rootfs / "lib").mkdir()
    (place.rootfs / "lib/ld-musl-x86_64.so.1").touch()
    made = ask(place, hook("update-ldcache", "--folder", FOLDER))
    assert made.tree.files["ld-musl.path"].endswith(f"\n{FOLDER}\n".encode())


@pytest.mark.parametrize(
    ("settings", "first"), [("", True), ("[nvidia]\ncuda-compat = false\n", False)]
)
def test_a_newer_libcuda_of_the_image(place, settings, first):
    folder = place.rootfs / "usr/local/cuda/compat"
    folder.mkdir(parents=True)
    (folder / "libcuda.so.560.28.03").write_bytes(library("libcuda.so.1"))
    hooks = [
        hook("update-ldcache", "--folder", FOLDER),
        hook("enable-cuda-compat", f"--host-driver-version={VERSION}"),
    ]
    made = ask(place, *hooks, settings=settings)
    (entry,) = ldcache.parse(made.tree.files["ld.so.cache"])
    assert entry.path.startswith("/usr/local/cuda/compat" if first else FOLDER)
    with pytest.raises(ConfigError, match='"x" is no version of a driver'):
        ask(place, hook("enable-cuda-compat", "--host-driver-version", "x"))


def test_the_parameters_of_the_driver(place, monkeypatch):
    monkeypatch.setattr(cdihooks.container, "params", lambda host: "ModifyDeviceFiles: 0\n")
    config = with_hooks(place, hook("disable-device-node-modification"))
    place.file.write_text("")
    caller = stage.Caller(str(place.rootfs), "/state/hpc")
    caller.site = str(place.file)
    made = stage.run(config, caller)
    assert made.tree.files["nvidia-params"] == b"ModifyDeviceFiles: 0\n"
    (mount,) = [one for one in made.config["mounts"] if one["destination"].startswith("/proc/")]
    assert mount["destination"] == "/proc/driver/nvidia/params"
    assert {"ro", "bind", "nosuid"} <= set(mount["options"])


def test_the_profile_names_the_given_gpus(place):
    config = with_hooks(place, hook("update-application-profile"))
    node = {"path": "/dev/nvidia5", "type": "c", "major": 195, "minor": 5}
    config["linux"]["devices"].append(node)
    made = place.ask("", config=config)
    profile = json.loads(made.tree.files["nvidia-application-profile"])
    assert profile["profiles"][0]["settings"] == ["EGLVisibleDGPUDevices", 0b100001]
    (mount,) = [one for one in made.config["mounts"] if one["destination"].startswith("/etc/nv")]
    assert mount["source"].endswith("/nvidia-application-profile")


def test_folders_above_nodes_have_the_mode_anyway(place):
    made = ask(place, hook("chmod", "--mode", "0755", "--path", "/dev/dri", "--path", "/none"))
    assert left(made) == []


# --- what stays a hook


@pytest.mark.parametrize(
    "one",
    [
        hook("check-requirements", "--x", "y"),
        hook("create-symlinks", "--link", "a::/b", "--debug"),
        hook("create-symlinks", "--link"),
        hook("create-symlinks", "a::/b"),
        hook(),
        {"path": "/usr/bin/nvidia-cdi-hook"},
        hook("create-symlinks", "--link", "a::/b", program="/usr/bin/nvidia-ctk"),
        hook("chmod", "--mode", "0777", "--path", "/dev/dri"),
        hook("chmod", "--mode", "755", "--path", "/etc"),
        hook("create-symlinks", "--link", "a::/b", program="/usr/bin/other-cdi-hook"),
    ],
)
def test_what_is_not_known_runs(place, one):
    made = ask(place, one, hook("create-symlinks", "--link", "a.so::/lib/x.so"))
    assert left(made) == [one]
    assert len(made.links) == 1


def test_the_site_can_have_the_hooks_run(place):
    one = hook("create-symlinks", "--link", "a::/b")
    assert ask(place, one, settings="[nvidia]\nemulate-hooks = false\n") is None


def test_another_runtime_runs_them_itself(place):
    assert ask(place, hook("create-symlinks", "--link", "a::/b"), foreign=True) is None


def test_hooks_of_other_stages_stay(place):
    one = hook("update-ldcache", "--folder", FOLDER)
    config = {**with_hooks(place), "hooks": {"createRuntime": [one]}}
    assert place.ask("", config=config) is None


# --- hooks of a CDI file that we resolve


SPEC = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/nvidia0", "type": "c", "major": 195, "minor": 0}],
                "hooks": [of_cdi("chmod", "--mode", "755", "--path", "/dev")],
            },
        }
    ],
    "containerEdits": {
        "hooks": [
            of_cdi("create-symlinks", "--link", "l.so.1::/lib/l.so"),
            of_cdi("novel"),
            of_cdi("update-ldcache", "--folder", FOLDER),
        ],
    },
}


def test_the_hooks_of_a_cdi_file(place):
    folder = place.path / "cdi"
    folder.mkdir()
    spec = json.loads(json.dumps(SPEC))
    program = place.path / "nvidia-cdi-hook"
    for one in spec["containerEdits"]["hooks"]:
        one["path"] = str(program)
    spec["containerEdits"]["mounts"] = [
        {
            "hostPath": f"{place.machine.root}{FOLDER}/{CUDA}",
            "containerPath": f"{FOLDER}/{CUDA}",
            "options": ["ro", "bind"],
        }
    ]
    (folder / "nvidia.json").write_text(json.dumps(spec))
    options = {"devices": ["nvidia.com/gpu=0"], "directories": [str(folder)]}
    with pytest.raises(ConfigError) as caught:
        place.ask("", **options)
    assert str(caught.value) == f"nvidia.com/gpu: hooks[1]: {program}: no such file or directory"
    program.touch()
    made = place.ask("", **options)
    assert [one["args"][1] for one in left(made)] == ["novel"]
    assert made.name("hooks.createContainer[0]") == "nvidia.com/gpu: hooks[1]"
    assert {(path, target) for path, target, _ in made.links} == {
        ("/lib/l.so", "l.so.1"),
        (f"{FOLDER}/libcuda.so.1", CUDA),
    }
    assert "ld.so.cache" in made.tree.files
    rows = [row for row in made.report if row["edit"] == "links"]
    assert {row["allowed"] for row in rows} == {"nvidia.emulate-hooks"}
    assert {row["from"] for row in rows} == {"nvidia.com/gpu: hooks[0]", "nvidia.com/gpu: hooks[2]"}


# --- the gate


def test_the_hooks_wake_the_stage():
    assert create.CDI_HOOKS == stage.HOOKS
    assert {f"/{cdihooks.PROGRAM}", f"/{cdihooks.TOOLKIT}"} == set(stage.HOOKS)


def test_a_machine_without_a_driver_needs_none(tmp_path):
    place = Place(tmp_path, Machine(tmp_path / "host"))
    place.machine.host()
    config = {**BASE, "hooks": {"createContainer": [hook("create-symlinks", "--link", "a::/b")]}}
    assert place.ask("", config=config).links[0][:2] == ("/b", "a")
