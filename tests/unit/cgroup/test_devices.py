"""Device rules: the list, the lines of v1 and the program of v2 must all mean the same."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt.cgroup import devices
from ocirt.errors import ConfigError
from tests.unit.cgroup.rules import ALLOW_ALL, DENY_ALL, meant


def run(program, kind, major, minor, access):
    """Interpret the instructions that devices.py emits, and no others."""
    if program is None:
        return True
    mask = sum(devices.ACCESS[letter] for letter in access)
    context = struct.pack("=III", devices.TYPES[kind] | mask << 16, major, minor)
    code = list(struct.iter_unpack("=BBhi", program))
    register, at = [0] * 11, 0
    while True:
        opcode, registers, offset, value = code[at]
        target, source = registers & 15, registers >> 4
        at += 1
        if opcode == 0x61:
            assert source == 1
            register[target] = struct.unpack_from("=I", context, offset)[0]
        elif opcode == 0xBC:
            register[target] = register[source]
        elif opcode == 0xB4:
            register[target] = value & 0xFFFFFFFF
        elif opcode == 0x54:
            register[target] &= value & 0xFFFFFFFF
        elif opcode == 0x74:
            register[target] >>= value
        elif opcode == 0x15:
            at += offset if register[target] == value else 0
        elif opcode == 0x55:
            at += offset if register[target] != value else 0
        else:
            assert opcode == 0x95
            return bool(register[0])


def lines(rules):
    """What v1 is told: the default, and the exceptions as lines."""
    allow, exceptions = devices.reduce(rules)
    return allow, [devices.line(*exception[:4]) for exception in exceptions]


def kernel_v1(rules, kind, major, minor, letter):
    """Evaluate the lines as devices.allow and devices.deny are, for one letter of access."""
    allow, found = lines(rules)
    for line in found:
        this, numbers, letters = line.split()
        wanted = numbers.split(":")
        if (
            this == kind
            and wanted[0] in ("*", str(major))
            and wanted[1] in ("*", str(minor))
            and letter in letters
        ):
            return not allow
    return allow


NUMBERS = st.sampled_from([-1, 0, 1, 3, 5, 10, 136, 200])
RULES = st.lists(
    st.fixed_dictionaries(
        {"allow": st.booleans()},
        optional={
            "type": st.sampled_from("abc"),
            "major": NUMBERS,
            "minor": NUMBERS,
            "access": st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
        },
    ),
    max_size=6,
)
ASKED = [
    (kind, major, minor, access)
    for kind in "bc"
    for major in (0, 1, 5, 10, 136, 199)
    for minor in (0, 3, 5, 200, 201)
    for access in ("r", "w", "m", "rw")
]


@settings(deadline=None)  # a busy machine is no failure
@given(RULES)
def test_lines_and_program_both_say_what_the_list_says(rules):
    try:
        devices.reduce(rules)
    except ConfigError:
        return
    program = devices.program(rules)
    for kind, major, minor, access in ASKED:
        expected = meant(rules, kind, major, minor, access)
        assert run(program, kind, major, minor, access) == expected
        if len(access) == 1:
            assert kernel_v1(rules, kind, major, minor, access) == expected


def test_nothing_but_the_default_devices_without_rules():
    allow, found = lines([])
    assert not allow
    assert found == [
        "c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
        "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm",
    ]  # fmt: skip


def test_a_rule_for_every_device_starts_over():
    rule = {"allow": True, "type": "c", "major": 8, "minor": 0, "access": "r"}
    assert lines([rule, DENY_ALL]) == lines([])
    assert "c 8:0 r" in lines([DENY_ALL, rule])[1]


def test_allow_all_needs_no_program():
    assert devices.program([ALLOW_ALL]) is None
    assert lines([ALLOW_ALL]) == (True, [])


def test_all_types_but_not_all_access_is_no_fresh_start():
    allow, found = lines([{"allow": True, "type": "a", "access": "r"}])
    assert not allow
    assert found[:2] == ["b *:* rm", "c *:* rm"]  # m: the defaults


def test_a_wider_rule_takes_back_narrower_ones():
    narrow = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    wide = {"allow": False, "type": "c", "access": "rw"}
    assert lines([narrow, wide]) == lines([])


def test_a_denial_of_one_letter_denies_requests_for_more():
    rules = [ALLOW_ALL, {"allow": False, "type": "b", "access": "w"}]
    program = devices.program(rules)
    assert not run(program, "b", 8, 0, "rw")
    assert run(program, "b", 8, 0, "r")


def test_grants_add_up_over_rules():
    rules = [
        {"allow": True, "type": "b", "access": "r"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "w"},
    ]
    assert run(devices.program(rules), "b", 8, 0, "rw")
    assert not run(devices.program(rules), "b", 8, 1, "rw")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [
                {"allow": True, "type": "c", "access": "r"},
                {"allow": False, "type": "c", "major": 1, "minor": 8, "access": "r"},
            ],
            "linux.resources.devices[1]: cannot deny c 1:8 r out of c *:* r"
            " (linux.resources.devices[0])",
        ),
        (
            [ALLOW_ALL, {"allow": False, "type": "c", "major": 1, "access": "rw"}],
            "default devices: cannot allow c 1:3 rwm out of c 1:* rw (linux.resources.devices[1])",
        ),
        (
            [{"allow": True, "type": "p"}],
            "linux.resources.devices[0]: type: 'p' is none of a, b and c",
        ),
        (
            [{"allow": True, "type": "c", "access": "rx"}],
            "linux.resources.devices[0]: access: 'x' is none of r, w and m",
        ),
        (
            [{"allow": True, "type": "c", "major": -2}],
            "linux.resources.devices[0]: major: -2 is no device number",
        ),
    ],
)
def test_what_the_kernel_cannot_hold_is_refused(rules, message):
    with pytest.raises(ConfigError) as caught:
        devices.reduce(rules)
    assert str(caught.value) == message
