"""The quick reader of TOML: what it accepts means the same to tomllib, the rest is tomllib's."""

from __future__ import annotations

import random
import tomllib

import pytest
from ocirt_hpc import toml

from ocirt.errors import ConfigError

READ = [
    "",
    "# nothing\n\n",
    "a = 1",
    'a = "x"\nb = true\nc = -7\nd = \'C:#"\'\n',
    "[a]\nb = 1\n[a.c]\nd = 2\n[e]\n",
    "[a.b.c]\nd = 1\n[a]\nx = 2\n[a.b]\ny = 3\n",
    "[[m]]\na = 1\n[[m]]\na = 2\n[m.n]\nb = 1\n[[m.o]]\n[[m.o]]\n",
    "a.b.c = 1\na.b.d = 2\n[x]\na.b = 1\n",
    '"quoted key".\'other\' = "ü#"  # comment\n  [ a . "b.c" ]  # more\n',
    "a = [1, 2, [3],]\nb = [\n  # one\n  'x', # two\n  'y'\n]\nc = []\n",
    "m = [{source = '/a', options = ['ro']}, {source = '/b'}]\nn = {}\n",
    '[module.cvmfs]\nmounts = [{source = "/cvmfs"}]\nrequires = []\n',
    "a = \"\"\nb = ''\n",
]

LEFT = [
    # text, whether it is TOML at all
    ("a = 1.5", True), ("a = 0x1f", True), ("a = 1_000", True), ("a = +1", True),
    ("a = 1979-05-27", True), ('a = "\\u00e9"', True), ('a = """x\ny"""', True),
    ("a = '''x'''", True), ("a = 1\r\nb = 2\r\n", True), ("a = {b.c = 1}", True),
    ("a = 9223372036854775807", True),
    ("a", False), ("a =", False), ("a = 1 b = 2", False), ("a = 1\na = 2", False),
    ("[a]\n[a]", False), ("a = 1\n[a]", False), ("[a]\nb.c = 1\n[a.b]", False),
    ("[a.b]\n[a]\nb.c = 1", False), ("a = []\n[[a]]", False), ("a = {}\n[a.b]", False),
    ("a = {}\n[[a]]", False), ("[[a]]\n[a]", False), ("[a]\n[[a]]", False), ("a = 01", False),
    ("a = [1", False), ("a = [1 2]", False), ("a = {b = 1,}", False), ("a = {b = 1\n}", False),
    ('a = "x', False), ("a = 'x\n'", False), ("[a", False), ("[]", False), ("= 1", False),
    ("a..b = 1", False), ("a = tru", False), ("# \x01", False), ("a = \"\x7f\"", False),
    ("[a]]", False), ("[[a]", False), ("a = -", False), ("é = 1", False), ("a = { , }", False),
    ('a = "" "', False), ("a = {b = 1}\na.c = 2", False), ("a.b = 1\n[a]", False),
]  # fmt: skip


def quick(text):
    """Return what the quick reader makes of a text, or None when it leaves it to tomllib."""
    try:
        return toml._Reader(text).document()
    except toml._UnusualError:
        return None


@pytest.mark.parametrize("text", READ)
def test_what_settings_hold_is_read_without_tomllib(text):
    assert quick(text) == tomllib.loads(text)


@pytest.mark.parametrize(("text", "good"), LEFT)
def test_the_rest_is_left_to_tomllib(text, good):
    assert quick(text) is None
    if good:
        assert toml.loads(text) == tomllib.loads(text)
    else:
        with pytest.raises(ConfigError, match=r"at line|at end"):
            toml.loads(text)


def test_no_nesting_is_too_deep_to_refuse():
    assert (
        toml.loads("a = " + "[" * 80 + "]" * 80)["a"]
        == tomllib.loads("a=" + "[" * 80 + "]" * 80)["a"]
    )
    with pytest.raises(ConfigError, match="nested too deeply"):
        toml.loads("a = " + "[" * 5000 + "]" * 5000)


PIECES = [
    "[a]", "[b]", "[a.b]", "[[a]]", "[[c]]", "[c.d]", "[ a.b.c ]", "a = 1", "b = 'x'", "b.c = 2",
    "a.b = {}", "c = [1, {a = 2}]", "d = {a = 1, b = []}", '"a" = 3', "c.d.e = true", "[[a.b]]",
    "c = []", "x", "= [",
]  # fmt: skip
SIGNS = "ab.=[]{},\"'# \n1-"


def test_no_accepted_text_means_anything_else_to_tomllib():
    dice, accepted = random.Random(1), 0
    for _ in range(6000):
        if dice.random() < 0.7:
            text = "\n".join(dice.choices(PIECES, k=dice.randrange(1, 6)))
        else:
            text = "".join(dice.choices(SIGNS, k=dice.randrange(1, 12)))
        found = quick(text)
        if found is not None:
            accepted += 1
            assert found == tomllib.loads(text), text
    assert accepted > 500
