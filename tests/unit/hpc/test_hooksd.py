"""Hooks in the form of oci-hooks 1.0.0: when they apply, what is wrong, who wrote them."""

from __future__ import annotations

import json
import os

import pytest
from ocirt_hpc import hooksd

from ocirt.errors import ConfigError, Error
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import Place


@pytest.fixture
def folder(tmp_path):
    for name in ("hooks.d", "more.d"):
        (tmp_path / name).mkdir(mode=0o755)
    program = tmp_path / "hook"
    program.touch(mode=0o755)

    def write(name="hooks.d/a.json", **fields):
        document = {
            "version": "1.0.0",
            "hook": {"path": str(program), "args": ["hook", "x"]},
            "when": {"always": True},
            "stages": ["createRuntime"],
            **fields,
        }
        file = tmp_path / name
        file.touch(mode=0o600)
        file.write_text(json.dumps(document))
        return [f"{tmp_path}/hooks.d", f"{tmp_path}/more.d"]

    return write


CONFIG = {
    "process": {"args": ["/usr/bin/python3", "-V"]},
    "annotations": {"com.example.debug": "true", "other": "no"},
    "mounts": [{"destination": "/d", "source": "/s", "options": ["rbind", "ro"]}],
}


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ({}, False),
        ({"always": True}, True),
        ({"always": False}, False),
        ({"always": True, "commands": ["^/bin/"]}, False),
        ({"commands": ["^/bin/", "python3$"]}, True),
        ({"annotations": {"^com\\.example\\.": "tru"}}, True),
        ({"annotations": {"^com\\.example\\.": "true", "other": "yes"}}, False),
        ({"annotations": {"other": "true"}}, False),
        ({"hasBindMounts": True}, True),
        ({"hasBindMounts": False}, False),
        ({"hasBindMounts": True, "annotations": {"x": "y"}}, False),
    ],
)
def test_all_conditions_have_to_hold(folder, when, met):
    assert bool(hooksd.sections(folder(when=when), CONFIG)) is met


def test_bind_mounts_are_those_of_the_config(folder):
    found = hooksd.sections(folder(when={"hasBindMounts": True}), {**CONFIG, "mounts": []})
    assert found == []


def test_a_hook_goes_to_each_of_its_stages(folder, tmp_path):
    machine = Machine(tmp_path / "machine")
    machine.host()
    place = Place(tmp_path, machine)
    directories = folder(stages=["prestart", "poststop"])
    made = place.ask(f"[hooks]\ndirs = {json.dumps(directories)}\n")
    hook = {"path": f"{tmp_path}/hook", "args": ["hook", "x"]}
    assert made.config["hooks"] == {"prestart": [hook], "poststop": [hook]}
    file = f"{tmp_path}/hooks.d/a.json"
    assert made.name("hooks.prestart[0].path") == f"{file}: prestart.path"
    assert made.report[0] == {
        "edit": "hooks", "what": f"prestart {tmp_path}/hook", "from": f"{file}: prestart",
        "allowed": "hooks.dirs",
    }  # fmt: skip


def test_a_later_directory_replaces_a_file(folder):
    folder()
    assert hooksd.sections(folder("more.d/a.json", when={"always": False}), CONFIG) == []
    found = hooksd.sections(folder("more.d/b.json", stages=["poststart"]), CONFIG)
    assert [section["hooks"][0]["hookName"] for _, section in found] == ["poststart"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": "0.1.0"}, 'a.json: version: "0.1.0" is not 1.0.0'),
        ({"hook": None}, "hook: expected an object"),
        ({"hook": {"path": "hook"}}, 'hook.path: "hook" is not absolute'),
        ({"hook": {}}, 'hook.path: "" is not absolute'),
        ({"hook": {"path": "/nonexistent/hook"}}, "no such file|No such file"),
        ({"hook": {"path": "/bin/true", "timeout": "1"}}, "hook.timeout: expected an integer"),
        ({"when": {"sometimes": True}}, "when.sometimes: unknown setting"),
        ({"when": {"always": 1}}, "when.always: expected true or false"),
        ({"when": {"annotations": {"a": 1}}}, "when.annotations: expected a string"),
        ({"when": {"commands": ["("]}}, r'when: "\(": missing'),
        ({"stages": []}, 'stages: "" is none of prestart'),
        ({"stages": ["preinstall"]}, 'stages: "preinstall" is none of'),
        ({"stages": "prestart"}, "stages: expected a list of strings"),
        ({"extra": 1}, "extra: unknown setting"),
    ],
)
def test_what_is_wrong_is_named(folder, fields, words):
    with pytest.raises(Error, match=words):
        hooksd.sections(folder(**fields), CONFIG)


def test_what_others_can_write_is_refused(folder, tmp_path):
    directories = folder()
    for path, mode in (("hooks.d/a.json", 0o600), ("hook", 0o755), ("hooks.d", 0o755)):
        os.chmod(tmp_path / path, 0o777)
        with pytest.raises(ConfigError, match=f"{tmp_path}/{path} has to belong to root"):
            hooksd.sections(directories, CONFIG)
        os.chmod(tmp_path / path, mode)
    assert hooksd.sections(directories, CONFIG)


def test_a_directory_that_is_not_there_is_named():
    with pytest.raises(Error, match=r"hooks.dirs in hpc.toml: /nonexistent"):
        hooksd.sections(["/nonexistent"], CONFIG)
