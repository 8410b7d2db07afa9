"""Shells complete what the tables say."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ocirt import cli
from ocirt.cli import completion, options
from ocirt.cli.settings import OPTIONS as GLOBAL
from ocirt.cli.settings import Settings

ASK = """
ocirt() { [[ "$*" == "--root R list -q" ]] && echo web1 web2; [[ "$*" == "list -q" ]] && echo db; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_ocirt
echo "${COMPREPLY[@]}"
"""


def ask_bash(*words, **popen):
    """Return what bash offers for the last of the words."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("needs bash")
    line = [shell, "--norc", "-c", completion.bash() + ASK, "bash", "ocirt", *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False, **popen)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_bash_offers_every_verb():
    assert ask_bash("") == [*cli.COMMANDS, "help"]
    assert ask_bash("help", "") == [*cli.COMMANDS, "help"]


@pytest.mark.parametrize("verb", cli.COMMANDS)
def test_bash_offers_every_option_of_a_verb(verb):
    rows = (*cli.load(verb).OPTIONS, options.HELP)
    wanted = [f"--{row[0]}" for row in rows if row[4]]
    assert [word for word in ask_bash(verb, "-") if word.startswith("--")] == wanted


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("--log-f",), ["--log-format"]),
        (("--log-format", ""), ["text", "json"]),
        (("--log-format", "=", "j"), ["json"]),
        (("state", ""), ["db"]),
        (("--root", "R", "state", ""), ["web1", "web2"]),
        (("--root", "R", "state", "web2"), ["web2"]),
        (("kill", "--all", "db", "US"), ["USR1", "USR2"]),
        (("events", "--interval", "5s", ""), ["db"]),
        (("events", "--interval", ""), []),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("no-such-verb", ""), []),
    ],
)
def test_bash_knows_what_may_come_next(words, offered):
    assert ask_bash(*words) == offered


def test_bash_offers_directories_and_files(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bytes").touch()
    assert ask_bash("create", "--bundle", "b", cwd=tmp_path) == ["bundle"]
    assert ask_bash("create", "--pid-file", "b", cwd=tmp_path) == ["bundle", "bytes"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_understands_its_script(shell, tmp_path):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text(completion.SHELLS[shell]())
    done = subprocess.run(
        [program, "-n", script], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_script_names_every_verb_and_option(shell):
    script = completion.SHELLS[shell]()
    for verb in completion.verbs():
        assert verb.name in script
        for name, *_ in verb.options:
            assert name in script


@pytest.mark.parametrize("name", ["cgroup-manager", "log-format", "log-level", "rootless"])
def test_what_is_offered_for_a_global_option_is_taken(name):
    for choice in completion.CHOICES[name]:
        Settings(options.parse(GLOBAL, [f"--{name}", choice]))


def test_hidden_options_are_not_offered():
    assert "--no-subreaper" not in ask_bash("create", "--n")


def test_an_unknown_shell_is_refused(capfd):
    assert cli.main(["completion", "tcsh"]) == 1
    assert "unknown shell tcsh: not bash, zsh, fish" in capfd.readouterr().err
