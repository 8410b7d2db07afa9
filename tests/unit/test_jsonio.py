"""JSON in and out: what Go and the RFC take, bounded, with a place for every refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt import jsonio
from ocirt.errors import ConfigError, Error, KernelError

QUIET = settings(deadline=None, database=None)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip

BROKEN = [
    # text, the whole sentence
    ("", "holds no JSON"),
    (" \n\t", "holds no JSON"),
    ("{", "line 1 column 2: expecting property name enclosed in double quotes"),
    ('{"a"', "line 1 column 5: expecting ':' delimiter"),
    ('{\n  "a": 1\n  "b": 2}', "line 3 column 3: expecting ',' delimiter"),
    ('{"a": }', "line 1 column 7: expected a value"),
    ('\n {"a": nul}', "line 2 column 8: expected a value"),
    ('{"a": "b', "line 1 column 7: unterminated string starting at"),
    ("[1] 2", "line 1 column 5: unexpected text after the value"),
    ("\ufeff{}", "line 1 column 1: expected a value"),
    ("{'a': 1}", "line 1 column 2: expecting property name enclosed in double quotes"),
    ("[NaN]", "NaN is not JSON"),
    ("[-Infinity]", "-Infinity is not JSON"),
    ("[1e999]", "number out of range"),
    ("[" + "9" * 5000 + "]", "number out of range"),
    ('["\\ud800"]', "[0]: holds half of a surrogate pair"),
    ('{"a": {"b": ["", "x\\udcffy"]}}', "a.b[1]: holds half of a surrogate pair"),
    ('{"a": {"\\uD900": 1}}', "a: holds half of a surrogate pair"),
    ('"\\udead"', "the document: holds half of a surrogate pair"),
    (b'{"a":\n "\xff"}', "line 2 column 3: not UTF-8"),
    (b"\xc3", "line 1 column 1: not UTF-8"),
    ("[" * 129 + "]" * 129, "nested more than 128 levels deep"),
    ('{"a":' * 200 + "1" + "}" * 200, "nested more than 128 levels deep"),
    ("[" * 500000, "nested more than 128 levels deep"),
    ('[{"":' * 100000, "nested more than 128 levels deep"),
]


@pytest.mark.parametrize(("text", "sentence"), BROKEN, ids=range(len(BROKEN)))
def test_broken_text_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(ConfigError) as caught:
        jsonio.parse(text)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("text", ["{", '{"a" 1}', '["\x01"]', '["\\x"]'])
def test_the_refusal_needs_no_module_that_is_loaded_by_chance(text):
    code = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
from ocirt import jsonio
assert "json" not in sys.modules
try:
    jsonio.parse({text!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    line = [sys.executable, "-I", "-S", "-B", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("ConfigError line 1 column ")


@QUIET
@given(VALUES)
def test_what_is_written_reads_the_same(value):
    assert jsonio.parse(jsonio.dumps(value)) == value
    assert jsonio.parse(jsonio.dumps(value).encode()) == value


@QUIET
@given(VALUES)
def test_it_reads_and_writes_as_pythons_json_does(value):
    text = json.dumps(value)
    assert jsonio.parse(text) == json.loads(text)
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert jsonio.dumps(value) == compact
    for indent in (2, 4, "\t"):
        assert jsonio.dumps(value, indent) == json.dumps(value, ensure_ascii=False, indent=indent)


def test_integers_stay_exact_and_fractions_stay_floats():
    assert jsonio.parse("[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]
    assert [type(one) for one in jsonio.parse("[1, 1.0, 1e3, -0, true]")] == [
        int, float, float, int, bool,
    ]  # fmt: skip


def test_of_equal_keys_the_last_wins():
    assert jsonio.parse('{"a": 1, "b": 2, "a": 3}') == {"a": 3, "b": 2}


def test_a_whole_surrogate_pair_is_one_character():
    assert jsonio.parse('"\\ud83d\\ude00"') == "\U0001f600"


def test_the_deepest_nesting_is_taken():
    assert jsonio.parse("[" * 128 + "]" * 128)
    assert jsonio.parse(json.dumps([[1]] * 1000)) == [[1]] * 1000


def test_not_a_number_is_not_written():
    with pytest.raises(ValueError, match="JSON"):
        jsonio.dumps(float("nan"))


def test_a_file_is_named_in_front(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"a": 1')
    with pytest.raises(ConfigError) as caught:
        jsonio.load(str(file))
    assert str(caught.value) == f"{file}: line 1 column 8: expecting ',' delimiter"
    with pytest.raises(KernelError) as caught:
        jsonio.load(str(tmp_path / "none"))
    assert str(caught.value) == f"{tmp_path}/none: no such file or directory"
    with pytest.raises(KernelError, match="is a directory"):
        jsonio.load(str(tmp_path))
    with pytest.raises(ConfigError, match="NUL"):
        jsonio.load("a\0b")


def test_a_huge_file_is_not_read_to_its_end(tmp_path):
    with pytest.raises(ConfigError) as caught:
        jsonio.load("/dev/zero")
    assert str(caught.value) == "/dev/zero: more than 16 MiB of JSON"


def test_no_more_is_taken_from_a_descriptor_than_tells_that_it_is_too_much():
    with open("/dev/zero", "rb", buffering=0) as zero:
        assert len(jsonio.drain(zero.fileno(), 200_000)) == 200_001
    reader, writer = os.pipe()
    for piece in (b"ab", b"cd"):
        os.write(writer, piece)
    os.close(writer)
    assert jsonio.drain(reader, 10) == b"abcd"
    os.close(reader)


def test_a_text_may_come_from_a_pipe():
    code = f"import sys; sys.path.insert(0, {os.getcwd()!r}); from ocirt import jsonio; "
    code += "print(jsonio.load('/dev/stdin'))"
    line = [sys.executable, "-I", "-S", "-B", "-c", code]
    done = subprocess.run(line, input=b'{"a": 1}', capture_output=True, timeout=60, check=True)
    assert done.stdout == b"{'a': 1}\n"


@QUIET
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_bytes_give_a_value_or_a_sentence(text):
    sentence = ""
    try:
        jsonio.parse(text)
    except Error as error:
        sentence = str(error)
    assert "\n" not in sentence
