"""Command lines are read as callers of runc expect."""

from __future__ import annotations

import pytest

from ocirt.cli import options
from ocirt.errors import UsageError

TABLE = (
    ("bundle", "b", "DIR", "", "the bundle"),
    ("preserve-fds", "", "N", 0, "descriptors"),
    ("no-pivot", "", "", False, "no pivot"),
    ("tty", "t", "", False, "a terminal"),
    ("interactive", "i", "", False, "stdin"),
    ("env", "e", "K=V", (), "environment"),
    ("secret", "", "X", "", ""),
)


def parse(*argv, **more):
    return options.parse(TABLE, argv, **more)


@pytest.mark.parametrize(
    "argv",
    [
        ("--bundle", "B", "ID"),
        ("-bundle", "B", "ID"),
        ("--bundle=B", "ID"),
        ("-bundle=B", "ID"),
        ("-b", "B", "ID"),
        ("-b=B", "ID"),
        ("--b", "B", "ID"),
        ("ID", "-b", "B"),
        ("ID", "--bundle=B"),
        ("-b", "A", "-b", "B", "ID"),
        ("-b", "B", "--", "ID"),
    ],
)
def test_every_way_to_give_a_value(argv):
    found = parse(*argv)
    assert (found.bundle, found.words) == ("B", ["ID"])


def test_a_value_may_look_like_an_option():
    assert parse("--bundle", "--tty").bundle == "--tty"


def test_an_empty_value_is_a_value():
    assert parse("--bundle=", "ID").words == ["ID"]


def test_what_is_not_given_has_its_default():
    found = parse()
    assert (found.bundle, found.preserve_fds, found.no_pivot, found.env) == ("", 0, False, [])


def test_letters_may_be_bundled():
    found = parse("-ti", "-te", "A=1", "-ie=B=2")
    assert (found.tty, found.interactive, found.env) == (True, True, ["A=1", "B=2"])


def test_only_the_last_letter_of_a_bundle_may_take_a_value():
    with pytest.raises(UsageError, match="flag provided but not defined: -bt"):
        parse("-bt", "x")


def test_options_end_at_the_first_word_where_a_verb_wants_it():
    found = parse("-t", "ID", "-b", "B", "--", "x", options_first=True)
    assert (found.tty, found.bundle, found.words) == (True, "", ["ID", "-b", "B", "--", "x"])


def test_two_dashes_end_the_options():
    assert parse("--", "-t", "--").words == ["-t", "--"]


def test_a_single_dash_is_a_word():
    assert parse("-").words == ["-"]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0", False), ("F", False)])
def test_a_flag_may_be_given_a_truth(text, value):
    assert parse(f"--no-pivot={text}").no_pivot is value


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--nope",), "flag provided but not defined: -nope"),
        (("-x",), "flag provided but not defined: -x"),
        (("--tyi",), "flag provided but not defined: -tyi"),
        (("--ti",), "flag provided but not defined: -ti"),
        (("-b",), "flag needs an argument: -b"),
        (("--bundle",), "flag needs an argument: -bundle"),
        (("---tty",), "bad flag syntax: ---tty"),
        (("-=x",), "bad flag syntax: -=x"),
        (("--tty=maybe",), 'invalid boolean value "maybe" for -tty: parse error'),
        (("--preserve-fds=two",), 'invalid value "two" for flag -preserve-fds: parse error'),
        (("--preserve-fds=1_0",), 'invalid value "1_0" for flag -preserve-fds: parse error'),
        (("--preserve-fds=",), 'invalid value "" for flag -preserve-fds: parse error'),
        (("--preserve-fds=" + "9" * 5000,), "parse error"),
    ],
)
def test_refusals_are_worded_as_callers_know_them(argv, sentence):
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    assert sentence in str(caught.value)


def test_numbers_may_be_negative():
    assert parse("--preserve-fds", "-3").preserve_fds == -3


@pytest.mark.parametrize(
    ("words", "limits", "sentence"),
    [
        ([], (1, 1), 'ocirt: "x" requires exactly 1 argument(s)'),
        (["a", "b"], (1, 1), 'ocirt: "x" requires exactly 1 argument(s)'),
        ([], (1, 2), 'ocirt: "x" requires a minimum of 1 argument(s)'),
        (["a", "b", "c"], (1, 2), 'ocirt: "x" requires a maximum of 2 argument(s)'),
    ],
)
def test_a_wrong_count_is_worded_as_callers_know_it(words, limits, sentence):
    with pytest.raises(UsageError) as caught:
        options.count("x", words, limits)
    assert str(caught.value) == sentence


def test_any_number_of_words_may_be_allowed():
    options.count("x", ["a"] * 100, (1, None))


def test_help_is_printed_from_the_table():
    text = options.table(TABLE)
    assert "   --bundle DIR, -b DIR  the bundle\n" in text
    assert "--help, -h" in text
    assert "secret" not in text
