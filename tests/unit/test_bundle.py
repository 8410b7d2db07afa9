"""Bundles that are there, that are not, and that are something else."""

from __future__ import annotations

import json
import os

import pytest

from ocirt import bundle
from ocirt.errors import ConfigError, Error, KernelError
from tests.unit.documents import engine


@pytest.fixture
def made(tmp_path):
    """Make a bundle; config: an object, or the bytes of the file."""

    def make(config=None, name="config.json"):
        (tmp_path / "rootfs").mkdir(exist_ok=True)
        text = config if isinstance(config, bytes) else json.dumps(config or engine()).encode()
        (tmp_path / name).write_bytes(text)
        return str(tmp_path)

    return make


def refusal(call, *arguments):
    with pytest.raises(Error) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_bundle_is_read(made):
    assert bundle.load(made()) == engine()


def test_a_bundle_may_be_given_relative_to_the_current_directory(made, monkeypatch):
    monkeypatch.chdir(os.path.dirname(made()))
    assert bundle.load(os.path.basename(made())) == engine()


def test_another_file_may_hold_the_config(made, tmp_path):
    directory = made(name="other.json")
    assert bundle.load(directory, "other.json") == engine()
    assert bundle.load(directory, str(tmp_path / "other.json")) == engine()


def test_a_missing_config_has_runcs_sentence(tmp_path):
    sentence = "JSON specification file config.json not found"
    assert refusal(bundle.load, str(tmp_path)) == sentence


def test_a_missing_bundle(tmp_path):
    path = f"{tmp_path}/none"
    assert refusal(bundle.load, path) == f"{path}: no such file or directory"
    assert refusal(bundle.load, "") == "the path of the bundle is empty"
    assert "NUL" in refusal(bundle.load, "a\0b")


def test_a_bundle_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("{}")
    assert refusal(bundle.load, f"{tmp_path}/file") == f"{tmp_path}/file: not a directory"


def test_a_config_that_is_no_file(tmp_path):
    (tmp_path / "config.json").mkdir()
    assert refusal(bundle.load, str(tmp_path)).endswith("config.json: not a regular file")
    (tmp_path / "config.json").rmdir()
    # Reading would wait for a writer for ever.
    os.mkfifo(tmp_path / "config.json")
    assert refusal(bundle.load, str(tmp_path)).endswith("config.json: not a regular file")


def test_an_unreadable_config(made, monkeypatch):
    directory = made()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(KernelError) as caught:
        bundle.load(directory)
    assert str(caught.value) == f"{directory}/config.json: permission denied"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "holds no JSON"),
        (b'{"ociVersion": "1.0', "line 1 column 16: unterminated string starting at"),
        (b"[]", "expected an object"),
        (b"null", "expected an object"),
        (b"\xff\xfe{\0}\0", "line 1 column 1: not UTF-8"),
        (b" " * ((16 << 20) + 1), "more than 16 MiB of JSON"),
    ],
)
def test_a_broken_config_is_named(made, text, sentence):
    directory = made(text)
    assert refusal(bundle.load, directory) == f"{directory}/config.json: {sentence}"


def test_a_wrong_type_is_refused_with_its_place(made):
    config = engine()
    config["process"]["noNewPrivileges"] = "false"
    sentence = "process.noNewPrivileges: expected true or false"
    assert refusal(bundle.load, made(config)) == sentence


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("process.args[0]", {"process": {"cwd": "/", "args": ["a\0b"]}}),
        ("hostname", {"hostname": "\0"}),
        ("linux.sysctl", {"linux": {"sysctl": {"a\0": "1"}}}),
        ("mounts[0].destination", {"mounts": [{"destination": "/x\0"}]}),
    ],
)
def test_a_nul_character_is_refused(made, place, change):
    sentence = f"{place}: holds a NUL character"
    assert refusal(bundle.load, made({**engine(), **change})) == sentence


def test_a_nul_character_that_reaches_no_kernel_passes(made):
    config = {**engine(), "annotations": {"a": "\0"}}
    assert bundle.load(made(config))["annotations"] == {"a": "\0"}


def test_the_rootfs_is_relative_to_the_bundle_or_absolute(made, tmp_path):
    directory = made()
    expected = f"{tmp_path}/rootfs"
    assert bundle.rootfs({"root": {"path": "rootfs"}}, directory) == expected
    assert bundle.rootfs({"root": {"path": "./x/../rootfs/"}}, directory) == expected
    assert bundle.rootfs({"root": {"path": expected}}, "/elsewhere") == expected


def test_a_rootfs_that_is_not_there_or_no_directory(made, tmp_path):
    directory = made()
    (tmp_path / "link").symlink_to("rootfs")
    (tmp_path / "file").write_text("")

    def said(path):
        return refusal(bundle.rootfs, {"root": {"path": path}}, directory)

    front = f"root.path: invalid rootfs: {tmp_path}"
    assert said("none") == f"{front}/none: no such file or directory"
    assert said("link") == f"{front}/link: is a symbolic link"
    assert said("file") == f"{front}/file: not a directory"
    assert said("") == "root.path: is empty"
    assert refusal(bundle.rootfs, {}, directory) == "root: missing"


def test_null_at_the_top_is_no_config(made):
    with pytest.raises(ConfigError):
        bundle.load(made(b"null"))


def test_the_text_comes_along_unless_it_says_more_than_the_config(made):
    config = json.dumps(engine(), indent=4).encode()
    assert bundle.load_with_text(made(config)) == (engine(), config)
    without = {key: value for key, value in engine().items() if key != "hooks"}
    with_null = json.dumps({**without, "hooks": None}).encode()
    assert bundle.load_with_text(made(with_null)) == (without, b"")
