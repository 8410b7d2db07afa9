"""Values in the text form of GVariant, as annotations carry them."""

from __future__ import annotations

import pytest

from ocirt.cgroup import dbus, gvariant
from ocirt.errors import ConfigError

GOOD = (
    ("true", ("b", True)),
    (" false ", ("b", False)),
    ("5", ("i", 5)),
    ("-5", ("i", -5)),
    ("0x10", ("i", 16)),
    ("010", ("i", 8)),
    ("1.5", ("d", 1.5)),
    ("1e3", ("d", 1000.0)),
    ("uint64 18446744073709551615", ("t", (1 << 64) - 1)),
    ("byte 0xff", ("y", 255)),
    ("int16 -7", ("n", -7)),
    ("double 3", ("d", 3.0)),
    ("'inactive-or-failed'", ("s", "inactive-or-failed")),
    ('"a b"', ("s", "a b")),
    (r"'it\'s \u00e4\n'", ("s", "it's ä\n")),
    ("objectpath '/a'", ("o", "/a")),
    ("b'ab'", ("ay", [97, 98, 0])),
    ("['a', 'b']", ("as", ["a", "b"])),
    ("@as []", ("as", [])),
    ("@as[]", ("as", [])),
    ("[uint64 1, 2]", ("at", [1, 2])),
    ("@at [1, 2]", ("at", [1, 2])),
    ("[('/dev/a', 'rw')]", ("a(ss)", [("/dev/a", "rw")])),
    ("(1,)", ("(i)", (1,))),
    ("{'a': <uint32 1>}", ("a{sv}", [("a", ("u", 1))])),
    ("@a{sv} {}", ("a{sv}", [])),
    ("@(st) ('a', 1)", ("(st)", ("a", 1))),
)


@pytest.mark.parametrize(("text", "found"), GOOD)
def test_a_value_is_read_with_its_type(text, found):
    assert gvariant.parse(text) == found
    signature, value = found
    assert dbus.decode(signature, bytes(dbus.encode(signature, (value,)))) == [value]


BAD = (
    "", " ", "yes", "'open", "1 2", "[1, 'a']", "[]", "()", "{}", "uint64 -1", "byte 256",
    "int32 2147483648", "uint64 'a'", "@zz 1", "@ss 'a'", "[1", "(1", "<1", "{1: 2", "{1}", "1_000",
    "@t", "uint64", "--1", r"'\u00zz'", "0x", "nothing", "just 1", "[" * 100 + "1" + "]" * 100,
)  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_value_is_refused(text):
    with pytest.raises(ConfigError):
        gvariant.parse(text)
