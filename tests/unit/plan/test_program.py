"""The environment, the working directory, the lookup of the program and its sentences."""

from __future__ import annotations

import errno

import pytest

from ocirt.errors import ConfigError
from ocirt.plan import program
from ocirt.plan.ops import encode


def config(**process):
    return {"process": {"cwd": "/", "args": ["sh"], "env": [], **process}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["A=1", "B=2"], ["A=1", "B=2"]),
        (["A=1", "B=2", "A=3"], ["B=2", "A=3"]),
        (["A=", "A==", "B=a=b"], ["A==", "B=a=b"]),
        (["HOME=/a", "HOME=/b"], ["HOME=/b"]),
        (["HOME=/a", "HOME="], []),
    ],
)
def test_of_equal_names_the_last_counts_at_its_own_place(given, expected):
    assert program.environment(given) == expected


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("PATH", "missing '='"),
        ("", "missing '='"),
        ("=x", "name cannot be empty"),
        ("A=x\0y", '"A" contains nul byte (\\x00)'),
    ],
)
def test_a_malformed_variable_is_named_by_its_place(item, words):
    with pytest.raises(ConfigError) as error:
        program.environment(["OK=1", item])
    assert str(error.value) == f"process.env[1]: invalid environment variable: {words}"


def test_socket_activation_is_handed_on_to_process_one():
    env = program.environment(["LISTEN_PID=77", "A=1"], listen=2)
    assert env == ["A=1", "LISTEN_FDS=2", "LISTEN_PID=1"]


def test_home_is_asked_for_only_when_it_is_missing():
    (home,) = program.home(config(user={"uid": 7, "gid": 0}))
    assert (home.name, home.args) == ("home", (7,))
    assert program.home(config(env=["HOME=/x"])) == []
    assert len(program.home(config(env=["HOME="]))) == 1


def test_socket_activation_reaches_the_environment():
    (op,) = program.find(config(env=["HOME=/"]), listen=1)
    assert op.args[2] == ["HOME=/", "LISTEN_FDS=1", "LISTEN_PID=1"]


@pytest.mark.parametrize("args", [None, []])
def test_args_must_not_be_empty(args):
    with pytest.raises(ConfigError, match="args must not be empty"):
        program.find(config(args=args))


def test_a_nul_in_an_argument_is_refused_with_its_place():
    ops = program.find(config(args=["sh", "a\0b"], env=["HOME=/"]))
    with pytest.raises(ConfigError, match=r"process\.args"):
        encode(ops, 0, {})


def test_the_working_directory_is_made_and_entered_as_root_then_as_the_user():
    given = config(cwd="/work dir")
    (made,) = program.make_cwd(given)
    assert (made.name, made.args) == ("mkdir", ("/work dir", 0o755, program.MAKE_DIR))
    assert program.make_cwd(config()) == []
    assert program.enter_cwd(given, early=True)[0].args == ("/work dir", 1)
    assert program.enter_cwd(given, early=False)[0].args == ("/work dir", 0)


def test_every_op_can_be_written_down():
    given = config(cwd="/w")
    ops = (
        program.make_cwd(given)
        + program.home(given)
        + program.enter_cwd(given, early=True)
        + program.find(given)
        + program.close(2, 17)
        + program.gate(2, 17)
        + program.run(given)
    )
    names = ["mkdir", "home", "chdir", "program", "close_fds", "gate", "exec"]
    assert [op.name for op in ops] == names
    assert ops[-3].args == (2, 17)
    assert encode(ops, 0, {"fifo": 0})


@pytest.mark.parametrize(
    ("number", "name", "sentence"),
    [
        (errno.ENOENT, "/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        (errno.ENOENT, "nosuch", 'exec: "nosuch": executable file not found in $PATH'),
        (errno.ENOENT, "", 'exec: "": executable file not found in $PATH'),
        (errno.EACCES, "/x", 'exec: "/x": permission denied'),
        (errno.EACCES, "x", 'exec: "x": permission denied'),
        (errno.EISDIR, "/d", 'exec: "/d": is a directory'),
        (errno.ENOTDIR, "/f/x", 'exec: "/f/x": stat /f/x: not a directory'),
        (errno.ENOENT, '/a"b', 'exec: "/a\\"b": stat /a"b: no such file or directory'),
    ],
)
def test_engines_recognise_why_a_program_was_not_found(number, name, sentence):
    assert program.lookup_error(number, name) == sentence
