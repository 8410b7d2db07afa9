"""The binding against the library itself: what seccomp.h promises, seen from outside."""

from __future__ import annotations

import ctypes

import pytest

from ocirt.errors import ConfigError
from ocirt.plan.libseccomp import COMPARE, NO_SUCH_SYSCALL, PROTOTYPES, Comparison, Library

try:
    LIBRARY = Library()
except ConfigError:
    pytest.skip("libseccomp is not installed", allow_module_level=True)

# The tokens of seccomp.h are the AUDIT_ARCH numbers of linux/audit.h, but for x32.
TOKENS = {
    "x86": 0x40000003,
    "x86_64": 0xC000003E,
    "x32": 0x4000003E,
    "arm": 0x40000028,
    "aarch64": 0xC00000B7,
    "ppc64le": 0xC0000015,
    "s390x": 0x80000016,
    "riscv64": 0xC00000F3,
}


def test_the_library_is_of_the_abi_that_the_prototypes_are_of():
    major, minor, micro = LIBRARY.version()
    assert (major, minor) >= (2, 5)
    assert major == 2
    assert micro >= 0
    assert LIBRARY.path.rpartition("/")[2].startswith("libseccomp.so.2")
    for name in PROTOTYPES:
        assert getattr(LIBRARY._calls, name)


def test_the_comparison_is_laid_out_as_the_header_has_it():
    # unsigned int, enum, two uint64_t
    assert ctypes.sizeof(Comparison) == 24
    assert [getattr(Comparison, name).offset for name, _ in Comparison._fields_] == [0, 4, 8, 16]


def test_the_operators_count_from_one():
    assert sorted(COMPARE.values()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("name", "token"), TOKENS.items())
def test_architectures_have_the_kernels_numbers(name, token):
    assert LIBRARY.architecture(name) == token


def test_an_unknown_architecture_has_none():
    assert LIBRARY.architecture("vax") == 0


@pytest.mark.parametrize(
    ("architecture", "name", "number"),
    [
        ("x86_64", "read", 0),
        ("x86_64", "seccomp", 317),
        ("x86", "read", 3),
        ("x32", "read", 1 << 30),
        ("x32", "execve", 1 << 30 | 520),
        ("aarch64", "read", 63),
        ("x86", "socket", 359),
    ],
)
def test_system_calls_have_the_kernels_numbers(architecture, name, number):
    assert LIBRARY.direct_number(TOKENS[architecture], name) == number


def test_an_unknown_system_call_has_none():
    assert LIBRARY.syscall("nosuch") == NO_SUCH_SYSCALL
    assert LIBRARY.direct_number(TOKENS["x86_64"], "nosuch") == -1
    # known, but not there
    assert LIBRARY.syscall_on(TOKENS["aarch64"], "mkdir") < -1
    assert LIBRARY.direct_number(TOKENS["aarch64"], "mkdir") == -1


def test_a_bad_default_action_is_refused():
    with pytest.raises(ConfigError, match="defaultAction"):
        LIBRARY.filter(0x12345678)


def test_a_refusal_of_the_library_carries_the_kernels_words():
    with LIBRARY.filter(0x7FFF0000) as new, pytest.raises(ConfigError, match="libseccomp: "):
        new.add_architecture(0x99)


def test_adding_an_architecture_twice_is_no_fault():
    with LIBRARY.filter(0x7FFF0000) as new:
        new.add_architecture(LIBRARY.native())
        assert len(new.export()) % 8 == 0
