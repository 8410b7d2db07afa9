"""ocirt validate: every fault, each with its place, and nothing else on stdout."""

from __future__ import annotations

import json
import types

import pytest

pytest.importorskip("pydantic")

from ocirt.cli import options, validate
from ocirt.errors import ConfigError
from tests.unit.documents import engine

SETTINGS = types.SimpleNamespace(
    rootless=False,
    root="/run/ocirt",
    seccomp_cache=None,
    cgroup_driver="disabled",
    cdi_annotations=False,
    cdi_dirs=[],
    hpc_config="/site/hpc.toml",
    hpc_profile="mpi",
)


@pytest.fixture
def judge(tmp_path, capsys):
    """Run the verb on a config; return exit code, lines on stdout, lines on stderr."""

    def run(config, *argv):
        (tmp_path / "rootfs").mkdir(exist_ok=True)
        (tmp_path / "config.json").write_text(json.dumps(config))
        arguments = options.parse(validate.OPTIONS, [*argv, str(tmp_path)])
        code = validate.run(arguments, SETTINGS)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def plain(monkeypatch):
    """Leave out the last step, which looks at this machine."""
    monkeypatch.setattr(validate, "undoable", lambda *_: [])


def test_a_good_config_gives_no_line(judge, plain):
    assert judge(engine()) == (0, [], [])


def test_what_has_the_wrong_shape_is_all_found(judge, plain):
    config = engine()
    config["process"]["user"]["uid"] = "0"
    config["process"]["noNewPrivileges"] = "false"
    config["process"]["rlimits"][0]["type"] = "RLIMIT_FOO"
    config["linux"]["seccomp"]["syscalls"][0]["action"] = "SCMP_ACT_FOO"
    config["linux"]["resources"]["blockIO"]["weight"] = 70000
    config["linux"]["sysctl"]["x"] = None
    del config["mounts"][1]["destination"]
    code, out, _ = judge(config)
    assert code == 1
    assert sorted(out) == [
        "linux.resources.blockIO.weight: expected an integer from 0 to 65535",
        "linux.seccomp.syscalls[0].action: string SCMP_ACT_FOO is not a valid action for seccomp",
        "linux.sysctl.x: expected a string",
        "mounts[1].destination: missing",
        "process.noNewPrivileges: expected true or false",
        "process.rlimits[0].type: wrong rlimit value: RLIMIT_FOO",
        "process.user.uid: expected an integer",
    ]


def test_what_makes_no_sense_is_all_found(judge, plain):
    config = engine()
    config["process"]["cwd"] = "srv"
    config["linux"]["maskedPaths"] = ["x"]
    code, out, _ = judge(config)
    assert code == 1
    assert out == [
        "linux.maskedPaths[0]: x is not absolute",
        "process.cwd: Cwd must be an absolute path",
    ]


def test_what_this_machine_cannot_do_comes_last(judge, monkeypatch):
    def refuse(wish):
        raise ConfigError("mounts[1]", "no")

    from ocirt import create

    monkeypatch.setattr(create, "Draft", refuse)
    assert judge(engine()) == (1, ["mounts[1]: no"], [])


def test_it_is_judged_under_the_settings_that_create_would_have(judge, monkeypatch):
    from ocirt import create

    seen = []
    monkeypatch.setattr(create, "Draft", seen.append)
    assert judge(engine()) == (0, [], [])
    for name, value in vars(SETTINGS).items():
        assert getattr(seen[0], name) == value, name


def test_a_field_is_explained_when_asked(judge, plain):
    config = engine()
    config["process"]["user"]["uid"] = "0"
    _, out, _ = judge(config, "--explain")
    assert out == ["process.user.uid: expected an integer", "    User id."]


def test_a_field_in_the_wrong_case_gets_a_hint(judge, plain):
    config = engine()
    config["process"]["NoNewPrivileges"] = True
    config["linux"]["Namespaces"] = []
    config["mounts"][0]["Options"] = []
    config["annotations"]["OCIVERSION"] = "fine"
    config["other"] = {}
    code, out, err = judge(config)
    assert (code, out) == (0, [])
    assert err == [
        "hint: process.NoNewPrivileges: ignored; the specification writes noNewPrivileges",
        "hint: mounts[0].Options: ignored; the specification writes options",
        "hint: linux.Namespaces: ignored; the specification writes namespaces",
    ]


def test_hints_survive_any_shape(judge, plain):
    code, out, _ = judge({"process": [], "mounts": {"a": 1}, "linux": {"namespaces": "x"}})
    assert code == 1
    assert "process: expected an object" in out


def test_without_pydantic_the_fast_check_answers(judge, plain, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "oci_spec.config", None)
    config = engine()
    config["process"]["user"]["uid"] = "0"
    assert judge(config)[:2] == (1, ["process.user.uid: expected an integer"])


def test_a_text_that_is_no_json_is_an_error(judge, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="line 1 column 2"):
        validate.run(options.parse(validate.OPTIONS, [str(tmp_path)]), SETTINGS)
