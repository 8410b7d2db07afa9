"""Compiled filters against the profile they came from, the stub, the cache, and the kernel."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocirt.errors import ConfigError
from ocirt.plan import seccomp, seccomp_compile
from ocirt.plan.libseccomp import Library

_spec = importlib.util.spec_from_file_location("bpf", Path(__file__).with_name("bpf.py"))
bpf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bpf)

try:
    LIBRARY = Library()
except ConfigError:
    pytest.skip("libseccomp is not installed", allow_module_level=True)

X86_64, X86, X32, AARCH64 = 0xC000003E, 0x40000003, 0x4000003E, 0xC00000B7
ALLOW, KILL, ENOSYS = 0x7FFF0000, 0, 0x00050000 | errno.ENOSYS
NATIVE = LIBRARY.native()


def rule(names, action="SCMP_ACT_ALLOW", args=(), **more):
    conditions = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two}
        for index, op, value, two in args
    ]
    return {"names": list(names), "action": action, "args": conditions, **more}


def section(*rules, default="SCMP_ACT_ERRNO", **more):
    return {"defaultAction": default, "syscalls": list(rules), **more}


def compiled(profile):
    return bpf.decode(seccomp.program(profile, None)[0])


# --- the meaning of a profile, read straight off


def holds(condition, args):
    value, wanted = args[condition["index"]], condition["value"]
    return {
        "NE": value != wanted,
        "LT": value < wanted,
        "LE": value <= wanted,
        "EQ": value == wanted,
        "GE": value >= wanted,
        "GT": value > wanted,
        "MASKED_EQ": value & wanted == condition["valueTwo"],
    }[condition["op"].removeprefix("SCMP_CMP_")]


def matches(entry, args):
    conditions = entry["args"]
    if not conditions:
        return True
    indexes = [condition["index"] for condition in conditions]
    quantify = all if len(set(indexes)) == len(indexes) else any
    return quantify(holds(condition, args) for condition in conditions)


def number_of(name, data):
    action = seccomp_compile.ACTIONS[name]
    return action | (errno.EPERM if data is None else data) if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else action


def meaning(profile, token, name, args):
    """Return what a profile says of a system call by name, on an architecture that it covers."""
    default = number_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    number = LIBRARY.syscall_on(token, name)
    known = [
        LIBRARY.syscall_on(token, other) for entry in profile["syscalls"] for other in entry["names"]
    ]
    permissive = profile["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    if not permissive and max(known, default=-1) >= 0 and number > max(known):
        return ENOSYS
    for entry in profile["syscalls"]:
        action = number_of(entry["action"], entry.get("errnoRet"))
        if name in entry["names"] and action != default and matches(entry, args):
            return action
    return default


# What a program can do wrong hides around the edges of the two halves of an argument.
VALUES = [0, 1, 7, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 8, 1 << 63, (1 << 64) - 1]
NAMES = [
    "read", "write", "close", "mmap", "ioctl", "socket", "clone", "personality", "prctl", "futex",
    "openat", "bpf", "clone3", "getpid",
]  # fmt: skip
OPS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]

values = st.sampled_from(VALUES) | st.integers(0, (1 << 64) - 1)
actions = st.sampled_from(
    [
        ("SCMP_ACT_ALLOW", None),
        ("SCMP_ACT_ERRNO", None),
        ("SCMP_ACT_ERRNO", 38),
        ("SCMP_ACT_ERRNO", 13),
        ("SCMP_ACT_TRAP", None),
        ("SCMP_ACT_KILL", None),
        ("SCMP_ACT_KILL_PROCESS", None),
        ("SCMP_ACT_TRACE", 7),
        ("SCMP_ACT_LOG", None),
    ]
)


@st.composite
def conditions(draw):
    op = draw(st.sampled_from(OPS))
    value = draw(values)
    two = draw(values) & value if op == "MASKED_EQ" else 0
    return (draw(st.integers(0, 5)), op, value, two)


@st.composite
def profiles(draw):
    default, default_errno = draw(actions)
    names = draw(st.permutations(NAMES))
    rules, start = [], 0
    for size in draw(st.lists(st.integers(1, 4), max_size=5)):
        action, number = draw(actions)
        entry = rule(names[start : start + size], action, draw(st.lists(conditions(), max_size=3)))
        if number is not None:
            entry["errnoRet"] = number
        if entry["names"]:
            rules.append(entry)
        start += size
    profile = section(*rules, default=default)
    if default_errno is not None:
        profile["defaultErrnoRet"] = default_errno
    return profile


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(profile=profiles(), data=st.data())
def test_a_program_says_what_its_profile_says(profile, data):
    code = compiled(profile)
    used = {condition["value"] for entry in profile["syscalls"] for condition in entry["args"]}
    near = {(value + step) % (1 << 64) for value in used for step in (-1, 0, 1)}
    argument = st.sampled_from(sorted(near | set(VALUES))) | values
    for name in NAMES:
        for _ in range(4):
            args = data.draw(st.tuples(*[argument] * 6))
            number = LIBRARY.syscall_on(NATIVE, name)
            expected = meaning(profile, NATIVE, name, args)
            assert bpf.run(code, NATIVE, number, args) == expected, (name, args)
