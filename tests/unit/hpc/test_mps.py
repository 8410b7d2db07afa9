"""The folder of the Multi-Process Service: who gets it, and whose it may be."""

from __future__ import annotations

import os

import pytest

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import install, workstation
from tests.unit.hpc.sites import BASE, Place

GPU = "NVIDIA_VISIBLE_DEVICES=0"
DEFAULT = "/tmp/nvidia-mps"
ASK = {"ocirt.hpc/mps": "true"}
PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in (PIPE, LOG):
        monkeypatch.delenv(name, raising=False)
    machine = workstation(tmp_path / "host")
    install(machine)
    (machine.root / "tmp").mkdir()
    (machine.root / "tmp").chmod(0o1777)
    return Place(tmp_path, machine)


def folder(place, path=DEFAULT, mode=0o777):
    made = place.machine.root / path.lstrip("/")
    made.mkdir(parents=True)
    made.chmod(mode)
    return made


def given(place, text="", env=(GPU,), **options):
    """Return what is mounted, by destination, and the variables."""
    made = place.ask(text, env=env, **options)
    mounts = {one["destination"]: one for one in made.config["mounts"]}
    variables = dict(item.split("=", 1) for item in made.config["process"]["env"])
    return mounts, variables, made.report


def test_where_there_is_none_nothing_is_given(place):
    mounts, variables, _ = given(place)
    assert DEFAULT not in mounts
    assert PIPE not in variables


def test_the_usual_folder_is_for_all_that_compute(place):
    folder(place)
    mounts, variables, _ = given(place)
    assert mounts[DEFAULT]["source"] == f"{place.machine.root}{DEFAULT}"
    assert {"nosuid", "nodev", "noexec"} <= set(mounts[DEFAULT]["options"])
    assert "ro" not in mounts[DEFAULT]["options"]
    assert PIPE not in variables
    assert DEFAULT not in given(place, env=(GPU, "NVIDIA_DRIVER_CAPABILITIES=utility"))[0]
    assert DEFAULT not in given(place, env=("NVIDIA_VISIBLE_DEVICES=none",))[0]
    for setting in ("asked", "never"):
        assert DEFAULT not in given(place, f'[nvidia]\nmps = "{setting}"\n')[0]


def test_the_caller_asks(place):
    folder(place)
    mounts, variables, _ = given(place, '[nvidia]\nmps = "asked"\n', annotations=ASK)
    assert DEFAULT in mounts
    assert variables[PIPE] == DEFAULT
    assert DEFAULT not in given(place, annotations={"ocirt.hpc/mps": "false"})[0]


@pytest.mark.parametrize(
    ("value", "settings", "words"),
    [
        ("yes", "", "expected true or false"),
        ("true", "", f"ocirt.hpc/mps: {DEFAULT}: is not there, or is a link"),
        ("true", '[nvidia]\nmps = "never"\n', 'does not allow it \\(nvidia.mps is "never"'),
    ],
)
def test_what_cannot_be_given_to_who_asks(place, value, settings, words):
    with pytest.raises(ConfigError, match=words):
        place.ask(settings, env=[GPU], annotations={"ocirt.hpc/mps": value})


def test_the_job_names_its_folders(place, monkeypatch):
    folder(place, "/tmp/job/pipe", 0o755)
    folder(place, "/tmp/job/log", 0o755)
    monkeypatch.setenv(PIPE, "/tmp/job/pipe")
    monkeypatch.setenv(LOG, "/tmp/job/log")
    mounts, variables, report = given(place, '[nvidia]\nmps = "asked"\n')
    assert variables[PIPE] == "/tmp/job/pipe"
    assert variables[LOG] == "/tmp/job/log"
    assert "ro" in mounts["/tmp/job/log"]["options"]
    assert "ro" not in mounts["/tmp/job/pipe"]["options"]
    assert "the job's environment" in [row["allowed"] for row in report]


def test_a_variable_of_the_container_names_no_folder_of_the_host(place):
    folder(place)
    folder(place, "/home/other")
    mounts, variables, _ = given(place, env=(GPU, f"{PIPE}=/home/other"))
    assert not {"/home/other", DEFAULT} & mounts.keys()
    assert variables[PIPE] == "/home/other"


@as_root
def test_a_folder_of_another_user_is_left_out(place, monkeypatch):
    os.chown(folder(place), 1234, 1234)
    mounts, _, report = given(place)
    assert DEFAULT not in mounts
    why = f"no MPS: {DEFAULT}: has to belong to root or to us"
    assert [row for row in report if row["what"].startswith(why)]
    with pytest.raises(ConfigError, match="it belongs to 1234, mode 0777"):
        given(place, annotations=ASK)


@as_root
def test_a_folder_below_another_users_is_left_out(place, monkeypatch):
    os.chown(folder(place, "/tmp/their"), 1234, 1234)
    folder(place, "/tmp/their/pipe")
    monkeypatch.setenv(PIPE, "/tmp/their/pipe")
    assert "/tmp/their/pipe" not in given(place)[0]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/loose/pipe", "/loose: has to belong"),
        ("/link", "/link: is not there, or is a link"),
        ("/by/pipe", "/by: is not there, or is a link"),
        ("/", "/: is no place for it"),
        ("/proc/x", "/proc/x: is no place for it"),
        ("/dev/../etc", '"/dev/../etc" holds ".."'),
        ("relative", '"relative" is not absolute'),
        ("/file", "/file: is not there, or is a link"),
    ],
)
def test_no_hostile_path(place, monkeypatch, path, words):
    root = place.machine.root
    folder(place, "/loose", 0o777)
    folder(place, "/loose/pipe", 0o755)
    folder(place, "/etc/secret", 0o755)
    (root / "link").symlink_to("etc/secret")
    (root / "by").symlink_to("loose")
    (root / "file").touch()
    monkeypatch.setenv(PIPE, path)
    mounts, variables, report = given(place)
    assert PIPE not in variables
    assert path not in mounts
    assert any(words in row["what"] for row in report)


def test_a_namespace_of_its_own_is_told(place):
    folder(place)
    said = "programs of MPS want the host's IPC namespace"
    assert any(row["what"].startswith(said) for row in given(place)[2])
    shared = {**BASE, "linux": {"namespaces": [{"type": "mount"}]}}
    assert not any(row["what"].startswith(said) for row in given(place, config=shared)[2])
