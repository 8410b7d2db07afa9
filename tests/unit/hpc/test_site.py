"""The site's settings: which there are, who may write them, what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ocirt_hpc import parts, site

from ocirt.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs/devices.md").read_text()


@pytest.fixture
def file(tmp_path):
    """A file that only its owner can write, below directories like that."""
    path = tmp_path / "hpc.toml"
    path.touch(mode=0o600)

    def write(text):
        path.write_text(text)
        return str(path)

    return write


def test_without_a_file_the_defaults_count(tmp_path):
    here = site.load(folder=str(tmp_path / "none")) if not os.path.exists(site.FILE) else None
    if here is not None:
        assert here.values == {key: row[0] for key, row in site.KEYS.items()}
        assert here.files == []


def test_a_setting_overrides_its_default(file):
    here = site.load(file('[policy]\nenv-requests = false\n[nvidia]\ncapabilities = ["compute"]\n'))
    assert here["policy", "env-requests"] is False
    assert here["nvidia", "capabilities"] == ["compute"]
    assert here["stage", "enabled"] is True


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[stage", "hpc.toml: Expected"),
        ("[gpu]\n", r"hpc.toml: gpu: unknown section \(have devices, env, hooks,"),
        ("stage = 1\n", "stage: unknown section"),
        (
            "[stage]\nenable = true\n",
            r"stage.enable: unknown setting \(have default-modules, enabled,",
        ),
        ('[stage]\nenabled = "no"\n', "stage.enabled: expected true or false"),
        ("[stage]\nhost-root = 1\n", "stage.host-root: expected a string"),
        ("[nvidia]\ncapabilities = [1]\n", "nvidia.capabilities: expected a list of strings"),
        ('[stage]\ntrigger = "often"\n', 'stage.trigger: "often" is none of requested, always'),
        ('[stage]\ndefault-modules = ["a"]\n', 'there is no module "a" \\(have none\\)'),
        ('[module.a]\nrequires = ["b"]\n', 'module.a.requires: there is no module "b"'),
        ("[module.a]\nallowed = true\n", "module.a.allowed: unknown setting"),
        ("[module]\na = 1\n", r"module: expected tables: \[module.NAME\]"),
        (
            '[user]\nhome = "bind"\n',
            "user.home in hpc.toml: with user.mode image, images would choose",
        ),
        ('[user]\nmode = "fixed"\n', "user.mode in hpc.toml: fixed needs user.value"),
        ('[profile.p]\nhost-namespaces = ["mount"]\n', 'host-namespaces: "mount" is none of'),
    ],
)
def test_what_is_wrong_is_named(file, text, words):
    with pytest.raises(ConfigError, match=words):
        site.load(file(text))


def test_a_named_file_has_to_exist(tmp_path):
    with pytest.raises(FileNotFoundError):
        site.load(str(tmp_path / "none"))


def test_what_others_can_write_is_refused(file, tmp_path):
    path = file("")
    os.chmod(path, 0o620)
    with pytest.raises(ConfigError, match=r"has to belong to root and be writable for root alone"):
        site.load(path)
    os.chmod(path, 0o600)
    os.chmod(tmp_path, 0o777)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        site.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_a_file_of_another_user_is_refused(file):
    path = file("")
    os.chown(path, 1234, 0)
    with pytest.raises(ConfigError, match="it belongs to 1234"):
        site.load(path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ConfigError, match="is not a regular file"):
        site.load(str(tmp_path / "fifo"))


def test_the_example_of_the_docs_is_good(file):
    text = DOCS.partition("## What the site adds by itself")[2]
    block = text.partition("    [stage]\n")[2].partition("\n`requested`")[0]
    lines = ["[stage]", *[line.removeprefix("    ") for line in block.splitlines()]]
    here = site.load(file("\n".join(lines)))
    (part,) = here.parts
    assert part.row.keys() | here.modules["mpich"].row.keys() == parts.PART.keys()
    assert here.modules["cvmfs"].row.keys() <= parts.MODULE.keys()
    assert here.profiles["wide"].get("modules") == ["cvmfs"]


@pytest.mark.parametrize("key", site.KEYS)
def test_every_setting_is_in_the_docs(key):
    assert f"| `{'.'.join(key)}` |" in DOCS


@pytest.mark.parametrize("value", ["-5", str(1 << 31)])
def test_a_number_out_of_range(tmp_path, value):
    path = tmp_path / "hpc.toml"
    path.touch(mode=0o600)
    path.write_text(f"[rdma]\nhca-handles = {value}\n")
    with pytest.raises(
        ConfigError, match=rf"rdma.hca-handles: {value} is not from 0 to 2147483647"
    ):
        site.load(str(path))
