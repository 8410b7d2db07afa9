"""The front door: exit codes, stdout, stderr and the log as engines read them."""

from __future__ import annotations

import datetime
import json
import types

import pytest

from ocirt import cli, log
from ocirt.errors import ConfigError, Error, KernelError, NotFound, UsageError


@pytest.fixture(autouse=True)
def quiet_log():
    yield
    log.configure()


@pytest.fixture
def verb(monkeypatch):
    """Make a verb whose run() is the given function."""

    def make(run, name="state", **more):
        shape = {"USAGE": "[options] ID", "WORDS": (1, 1), "OPTIONS": (), "run": run, **more}
        monkeypatch.setitem(cli.COMMANDS, name, ("fake", "do as told"))
        monkeypatch.setattr(cli, "load", lambda _: types.SimpleNamespace(**shape))

    return make


def fails(error):
    def run(arguments, settings):
        raise error

    return run


def test_no_command_prints_help(capfd):
    assert cli.main([]) == 0
    out, err = capfd.readouterr()
    assert "USAGE:\n   ocirt [global options] command" in out
    assert err == ""
    assert all(f"   {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"], ["h"], ["--debug", "help"]])
def test_help_is_asked_for_in_many_ways(argv, capfd):
    assert cli.main(argv) == 0
    assert "GLOBAL OPTIONS:" in capfd.readouterr().out


@pytest.mark.parametrize("argv", [["state", "--help"], ["help", "state"], ["state", "x", "-h"]])
def test_help_for_a_verb(argv, capfd, verb):
    verb(None)
    assert cli.main(argv) == 0
    assert "ocirt state [options] ID" in capfd.readouterr().out


@pytest.mark.parametrize("argv", [["nope"], ["help", "nope"]])
def test_an_unknown_command(argv, capfd):
    assert cli.main(argv) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert "No help topic for 'nope'" in err


def test_an_unknown_flag_prints_usage_and_the_reason(capfd, verb):
    verb(None)
    assert cli.main(["state", "--lsm-mount-context"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("Incorrect Usage: flag provided but not defined: -lsm-mount-context\n\n")
    assert 'msg="flag provided but not defined: -lsm-mount-context"' in err


def test_a_wrong_count_prints_usage_and_the_reason(capfd, verb):
    verb(None)
    assert cli.main(["state"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("Incorrect Usage.\n\nNAME:\n   ocirt state")
    assert r"ocirt: \"state\" requires exactly 1 argument(s)" in err


def test_an_unknown_global_flag(capfd):
    assert cli.main(["--nope", "state"]) == 1
    out, err = capfd.readouterr()
    assert "flag provided but not defined: -nope" in out
    assert "GLOBAL OPTIONS:" in out
    assert "level=error" in err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--log-format", "xml", "state", "x"], "invalid log-format: xml"),
        (["--root", "/", "state", "x"], "Option --root argument should not be set to /"),
        (["--root=//", "state", "x"], "Option --root argument should not be set to /"),
        (["--rootless=maybe", "state", "x"], "invalid rootless: maybe"),
        (["--cgroup-manager=x", "state", "x"], "invalid cgroup-manager: x"),
        (["--log", "/no/such/dir/log", "state", "x"], "no such file or directory"),
    ],
)
def test_a_wrong_global_option(argv, sentence, capfd):
    assert cli.main(argv) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert sentence in err


@pytest.mark.parametrize(
    ("name", "prefix", "code"),
    [
        ("state", "", 1),
        ("kill", "", 1),
        ("create", "ocirt create failed: ", 1),
        ("run", "ocirt run failed: ", 1),
        ("exec", "exec failed: ", 255),
    ],
)
def test_where_the_sentence_gets_a_prefix(name, prefix, code, tmp_path, capfd, verb):
    verb(fails(ConfigError("mounts[0]", "no")), name)
    assert cli.main(["--log", str(tmp_path / "log"), name, "x"]) == code
    assert capfd.readouterr().err == f"{prefix}mounts[0]: no\n"


def test_the_json_log_is_one_object(tmp_path, capfd, verb):
    verb(fails(NotFound()))
    file = tmp_path / "log.json"
    assert cli.main(["--log", str(file), "--log-format", "json", "state", "x"]) == 1
    (line,) = file.read_text().splitlines()
    found = json.loads(line)
    assert list(found) == ["level", "msg", "time"]
    assert (found["level"], found["msg"]) == ("error", "container does not exist")
    assert datetime.datetime.fromisoformat(found["time"]).tzinfo is not None
    assert capfd.readouterr().err == "container does not exist\n"


def test_without_a_log_stderr_has_the_formatted_line_alone(capfd, verb):
    verb(fails(NotFound()))
    cli.main(["state", "x"])
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith('level=error msg="container does not exist"')


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (Error("a", "b"), "a: b"),
        (UsageError("both of --a and --b"), "both of --a and --b"),
        (KernelError(13, "/x"), "/x: permission denied"),
        (FileNotFoundError(2, "No such file or directory", "/y"), "/y: no such file or directory"),
        (ValueError("oops"), "internal error: ValueError: oops"),
        (RecursionError("deep"), "internal error: RecursionError: deep"),
    ],
)
def test_every_failure_becomes_a_sentence(error, sentence, tmp_path, capfd, verb):
    verb(fails(error))
    assert cli.main(["--log", str(tmp_path / "log"), "state", "x"]) == 1
    assert capfd.readouterr().err == f"{sentence}\n"


def test_the_traceback_of_a_bug_goes_to_the_debug_log(tmp_path, capfd, verb):
    verb(fails(ValueError("oops")))
    file = tmp_path / "log"
    cli.main(["--log", str(file), "--log-format=json", "--debug", "state", "x"])
    first, last = [json.loads(line) for line in file.read_text().splitlines()]
    assert "Traceback" in first["msg"]
    assert last["level"] == "error"
    assert "Traceback" not in capfd.readouterr().err


def test_a_verbs_exit_code_is_passed_on(verb):
    verb(lambda arguments, settings: 42)
    assert cli.main(["state", "x"]) == 42


def test_warnings_are_kept_from_the_log_of_a_command_that_fails(tmp_path, verb):
    def run(arguments, settings):
        log.warning("careful")
        raise NotFound

    verb(run)
    file = tmp_path / "log"
    cli.main(["--log", str(file), "--log-format=json", "state", "x"])
    assert [json.loads(line)["level"] for line in file.read_text().splitlines()] == ["error"]


def test_warnings_reach_the_log_of_a_command_that_succeeds(tmp_path, verb):
    def run(arguments, settings):
        log.warning("careful")
        return 0

    verb(run)
    file = tmp_path / "log"
    assert cli.main(["--log", str(file), "--log-format=json", "state", "x"]) == 0
    assert [json.loads(line)["msg"] for line in file.read_text().splitlines()] == ["careful"]


def test_settings_reach_the_verb(tmp_path, verb, monkeypatch):
    seen = []
    verb(lambda arguments, settings: seen.append((arguments, settings)) or 0)
    monkeypatch.chdir(tmp_path)
    cli.main(["--root", "r", "--systemd-cgroup", "--rootless=true", "state", "web"])
    ((arguments, settings),) = seen
    assert arguments.words == ["web"]
    assert settings.root == str(tmp_path / "r")
    assert settings.cgroup_driver == "systemd"
    assert settings.rootless is True


@pytest.mark.parametrize("argv", [["--version"], ["-v"], ["--debug", "-version"]])
def test_version_has_the_lines_that_engines_read(argv, capfd):
    assert cli.main(argv) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("ocirt version ")
    assert lines[1].startswith("commit: ")
    assert lines[2] == "spec: 1.3.0"
