"""Compiled filters against the profile they came from, the stub, the cache, and the kernel."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocirt.errors import ConfigError
from ocirt.plan import seccomp, seccomp_compile, seccomp_front
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
        "MASKED_EQ": value & wanted == condition["valueTwo"] & wanted,
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
    if name in seccomp_compile.WITH_DATA:
        return action | (errno.EPERM if data is None else data)
    return action


def meaning(profile, token, name, args):
    """Return what a profile says of a system call by name, on an architecture that it covers."""
    default = number_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    number = LIBRARY.syscall_on(token, name)
    known = [
        LIBRARY.syscall_on(token, other)
        for entry in profile["syscalls"]
        for other in entry["names"]
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
VALUES = [
    0, 1, 7, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 8, 1 << 63, (1 << 64) - 1,
]  # fmt: skip
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
        chosen = names[start : start + size]
        start += size
        action, number = draw(actions)
        more = {} if number is None else {"errnoRet": number}
        # Alternatives of one action do not depend on their order.
        alternatives = draw(st.lists(st.lists(conditions(), max_size=3), min_size=1, max_size=3))
        rules += [rule(chosen, action, args, **more) for args in alternatives if chosen]
    profile = section(*rules, default=default)
    if default_errno is not None:
        profile["defaultErrnoRet"] = default_errno
    return profile


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(profile=profiles(), seed=st.integers(0, 1 << 32))
def test_a_program_says_what_its_profile_says(profile, seed):
    code = compiled(profile)
    used = {condition["value"] for entry in profile["syscalls"] for condition in entry["args"]}
    near = sorted({(value + step) % (1 << 64) for value in used for step in (-1, 0, 1)} | {*VALUES})
    choice = random.Random(seed).choices
    for name in NAMES:
        number = LIBRARY.syscall_on(NATIVE, name)
        for _ in range(8):
            args = choice(near, k=6)
            assert bpf.run(code, NATIVE, number, args) == meaning(profile, NATIVE, name, args)


def outcomes(code, name, *firsts, arch=NATIVE, token=NATIVE):
    number = LIBRARY.direct_number(token, name)
    return [bpf.run(code, arch, number, (first, 0, 0, 0, 0, 0)) for first in firsts]


EPERM = 0x00050000 | errno.EPERM


def test_conditions_of_one_rule_have_all_to_hold():
    code = compiled(section(rule(["read"], args=[(0, "EQ", 5, 0), (1, "EQ", 0, 0)]), rule(NAMES)))
    # ... but an entry without conditions outweighs it
    assert outcomes(code, "read", 5, 6) == [ALLOW, ALLOW]
    code = compiled(
        section(rule(["read"], args=[(0, "EQ", 5, 0), (1, "EQ", 1, 0)]), rule(["openat"]))
    )
    assert outcomes(code, "read", 5) == [EPERM]


def test_conditions_on_one_argument_are_alternatives():
    code = compiled(section(rule(["read"], args=[(0, "EQ", 5, 0), (0, "EQ", 7, 0)]), rule(["bpf"])))
    assert outcomes(code, "read", 5, 6, 7) == [ALLOW, EPERM, ALLOW]


@pytest.mark.parametrize(
    ("entries", "allowed", "refused"),
    [
        # libseccomp 2.5.4 lets 0xFFFFFFFF pass here ...
        ([[(0, "GE", 1 << 63, 0)], [(0, "LT", 1 << 31, 0)]], [0, 1 << 63], [0xFFFFFFFF, 1 << 32]),
        # ... and never returns from adding the second of these
        (
            [
                [(0, "GE", 1 << 32, 0), (1, "EQ", 0, 0)],
                [(0, "GE", 1 << 32, 0), (2, "LE", 0x5829_9999_0EA0_0000, 0)],
            ],
            [1 << 32, 1 << 63],
            [0, 0xFFFFFFFF],
        ),
        ([[(0, "NE", 16, 0)], [(1, "NE", 0, 0)]], [0, 1 << 32 | 16], [16]),
    ],
)
def test_rules_that_libseccomp_gets_wrong_hold_all_the_same(entries, allowed, refused):
    profile = section(*[rule(["read"], args=args) for args in entries], rule(["bpf"]))
    code = compiled(profile)
    assert outcomes(code, "read", *allowed) == [ALLOW] * len(allowed)
    assert outcomes(code, "read", *refused) == [EPERM] * len(refused)


@pytest.mark.skipif(NATIVE != X86_64, reason="is about x86")
def test_tangled_rules_hold_on_every_architecture_of_the_profile():
    profile = section(
        rule(["socket"], "SCMP_ACT_ERRNO", [(0, "EQ", 16, 0), (2, "EQ", 0, 0)], errnoRet=22),
        rule(["socket"], args=[(2, "NE", 0, 0)]),
        rule(["socket"], args=[(0, "NE", 16, 0)]),
        rule(["clone3"]),
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    )
    code = compiled(profile)
    expected = [0x00050000 | 22, ALLOW]
    assert outcomes(code, "socket", 16, 2) == expected
    assert outcomes(code, "socket", 16, 2, arch=X86, token=X86) == expected
    assert outcomes(code, "socket", 16, 2, arch=X86_64, token=X32) == expected
    # By way of socketcall the arguments are out of sight.
    assert bpf.run(code, X86, 102, (1, 16, 0, 0, 0, 0)) == ALLOW


@pytest.mark.parametrize("entries", [1, 40])
def test_a_large_profile_is_searched_by_halves_and_stays_right(entries):
    names = {}
    for number in range(440):
        name = LIBRARY._calls.seccomp_syscall_resolve_num_arch(NATIVE, number)
        if name:
            names[number] = name.decode()
    kept = {number: name for number, name in names.items() if number % 7}
    values = list(kept.values())
    size = len(values) // entries
    code = compiled(section(*[rule(values[at : at + size]) for at in range(0, len(values), size)]))
    for number in names:
        expected = ENOSYS if number > max(kept) else ALLOW if number in kept else EPERM
        assert bpf.run(code, NATIVE, number) == expected
    # From first to last the program would make as many steps as there are names.
    assert max(len(bpf.trace(code, NATIVE, number)) for number in kept) < len(kept) // 4


# --- ENOSYS beyond the profile


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({}, ENOSYS),
        ({"default": "SCMP_ACT_KILL_PROCESS"}, ENOSYS),
        ({"defaultErrnoRet": errno.ENOSYS}, ENOSYS),
        ({"defaultErrnoRet": errno.EACCES}, ENOSYS),
        ({"default": "SCMP_ACT_LOG"}, 0x7FFC0000),
        ({"default": "SCMP_ACT_TRACE"}, 0x7FF00000 | errno.EPERM),
    ],
)
def test_a_call_beyond_the_profile_does_not_exist(more, answer):
    code = compiled(section(rule(["read", "openat"]), **more))
    assert bpf.run(code, NATIVE, LIBRARY.syscall_on(NATIVE, "clone3")) == answer


def test_an_allowing_default_allows_what_is_new():
    code = compiled(section(rule(["openat"], "SCMP_ACT_ERRNO"), default="SCMP_ACT_ALLOW"))
    assert outcomes(code, "clone3", 0) == [ALLOW]


@pytest.mark.skipif(NATIVE != X86_64, reason="is about x86")
def test_each_architecture_has_its_own_last_call():
    every = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    # personality: 135, on x86 136; execve: 59, on x86 11, on x32 520
    code = compiled(section(rule(["personality", "execve"]), architectures=every))
    cases = [
        (X86_64, 134, EPERM),
        (X86_64, 135, ALLOW),
        (X86_64, 136, ENOSYS),
        (X86, 135, EPERM),
        (X86, 136, ALLOW),
        (X86, 137, ENOSYS),
        (X86_64, 1 << 30 | 59, EPERM),
        (X86_64, 1 << 30 | 520, ALLOW),
        (X86_64, 1 << 30 | 521, ENOSYS),
        (X86_64, -1, ENOSYS),
        (AARCH64, 1, KILL),
    ]
    for arch, number, action in cases:
        assert bpf.run(code, arch, number) == action, (hex(arch), number)


@pytest.mark.skipif(NATIVE != X86_64, reason="is about x86")
def test_an_architecture_that_is_not_in_the_profile_is_killed():
    code = compiled(section(rule(["read", "clone3"])))
    assert bpf.run(code, X86_64, 0) == ALLOW
    assert bpf.run(code, X86, 3) == KILL
    assert bpf.run(code, X86_64, 1 << 30) == KILL


def test_the_native_architecture_is_always_covered():
    code = compiled(section(rule(["read", "clone3"]), architectures=["SCMP_ARCH_X86_64"]))
    assert outcomes(code, "read", 0) == [ALLOW]


def test_s390_shows_a_call_beyond_its_table_as_zero():
    s390x = seccomp_front.AUDIT_ARCH_S390X
    tail = bytes.fromhex("0600 0000 0000 ff7f".replace(" ", ""))
    code = bpf.decode(seccomp_front.front({s390x: 300}, {}, 0) + tail)
    assert [bpf.run(code, s390x, number) for number in (0, 1, 300, 301)] == [
        ENOSYS,
        ALLOW,
        ALLOW,
        ENOSYS,
    ]
    assert bpf.run(code, X86_64, 0) == ALLOW


def test_a_profile_without_rules_has_no_last_call():
    code = compiled(section(default="SCMP_ACT_KILL"))
    assert outcomes(code, "read", 0) == [KILL]


# --- flags, and what is refused


FLAG = "SECCOMP_FILTER_FLAG_"


@pytest.mark.parametrize(
    ("names", "flags"),
    [
        (None, 4),
        ([], 0),
        (["TSYNC"], 0),
        (["LOG"], 2),
        (["SPEC_ALLOW", "LOG", "TSYNC"], 6),
        (["WAIT_KILLABLE_RECV", "LOG"], 2),
    ],
)
def test_flags_are_those_of_the_kernel(names, flags):
    more = {} if names is None else {"flags": [FLAG + name for name in names]}
    _, found, listener = seccomp.program(section(rule(["read"]), **more), None)
    assert (found, listener) == (flags, False)


def test_a_rule_that_notifies_makes_a_listener():
    profile = section(
        rule(["mkdir"], "SCMP_ACT_NOTIFY"),
        default="SCMP_ACT_ALLOW",
        listenerPath="/run/agent.sock",
        flags=[FLAG + "WAIT_KILLABLE_RECV"],
    )
    program, flags, listener = seccomp.program(profile, None)
    assert (flags, listener) == (32, True)
    code = bpf.decode(program)
    assert bpf.run(code, NATIVE, LIBRARY.syscall_on(NATIVE, "mkdir")) == 0x7FC00000


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        (
            section(default="SCMP_ACT_NOTIFY", listenerPath="/x"),
            "defaultAction: SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (
            section(rule(["write"], "SCMP_ACT_NOTIFY"), listenerPath="/x"),
            "syscalls[0]: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            section(rule(["mkdir"], "SCMP_ACT_NOTIFY")),
            "listenerPath: is needed for SCMP_ACT_NOTIFY",
        ),
        (section(default="SCMP_ACT_FOO"), "string SCMP_ACT_FOO is not a valid action for seccomp"),
        (
            section(rule(["read"], "SCMP_ACT_FOO")),
            "syscalls[0]: string SCMP_ACT_FOO is not a valid action for seccomp",
        ),
        (
            section(rule(["read"], args=[(0, "FOO", 0, 0)])),
            "syscalls[0]: args[0]: string SCMP_CMP_FOO is not a valid operator for seccomp",
        ),
        (
            section(rule(["read"], args=[(6, "EQ", 0, 0)])),
            "syscalls[0]: args[0]: index: 6 is not within 0-5",
        ),
        (
            section(rule(["read"]), architectures=["SCMP_ARCH_VAX"]),
            "architectures[0]: string SCMP_ARCH_VAX is not a valid arch for seccomp",
        ),
        (section(flags=[FLAG + "X"]), f"flags[0]: seccomp flag {FLAG}X is not known to ocirt"),
        (
            section(rule(["read"], errnoRet=1)),
            "syscalls[0]: errnoRet: SCMP_ACT_ALLOW takes no errno",
        ),
        (
            section(rule(["read"], "SCMP_ACT_ERRNO", errnoRet=5000)),
            "syscalls[0]: errnoRet: 5000 is not an errno",
        ),
        (
            section(
                rule(["read"], args=[(0, "EQ", 1, 0)]),
                rule(["read"], "SCMP_ACT_TRAP", [(0, "EQ", 1, 0)]),
            ),
            "syscalls: read: has another action for the same arguments already",
        ),
    ],
)
def test_a_profile_that_cannot_be_meant_is_refused(profile, sentence):
    with pytest.raises(ConfigError) as error:
        seccomp.program(profile, None)
    assert str(error.value) == sentence


def test_unknown_system_calls_are_left_out():
    plain = section(rule(["read", "openat"]))
    assert seccomp.program(section(rule(["read", "openat", "nosuch"])), None) == seccomp.program(
        plain, None
    )


def test_a_rule_that_says_what_the_default_says_is_left_out():
    code = compiled(section(rule(["read"], "SCMP_ACT_ERRNO"), rule(["openat"]), defaultErrnoRet=1))
    assert outcomes(code, "read", 0) == [EPERM]


def test_a_missing_library_says_what_to_install(monkeypatch):
    def missing(name):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(ConfigError, match=r"needs libseccomp\.so\.2, .* install libseccomp2"):
        seccomp.program(section(rule(["read"])), None)


# --- the cache


PROFILE = section(rule(["read", "write", "exit_group", "clone3"]))


@pytest.fixture
def cache(tmp_path):
    """A cache directory with the entry of PROFILE in it; a dict with what there is to play with."""
    directory = tmp_path / "cache"
    result = seccomp.program(PROFILE, str(directory))
    (entry,) = directory.iterdir()
    return {"directory": directory, "entry": entry, "result": result}


@pytest.fixture
def compilations(monkeypatch):
    """How often a filter was compiled."""
    calls = []
    build = seccomp_compile.build
    monkeypatch.setattr(seccomp_compile, "build", lambda s: calls.append(s) or build(s))
    return calls


def test_a_second_time_the_program_comes_from_the_cache(cache, compilations):
    assert seccomp.program(PROFILE, str(cache["directory"])) == cache["result"]
    assert compilations == []
    assert oct(cache["directory"].stat().st_mode) == "0o40700"
    assert oct(cache["entry"].stat().st_mode) == "0o100600"


def test_a_hit_loads_neither_ctypes_nor_the_compiler(cache):
    check = (
        "import sys; from ocirt.plan import seccomp; "
        f"seccomp.program({PROFILE!r}, {str(cache['directory'])!r}); "
        "print(sorted({'ctypes', 'ocirt.plan.seccomp_compile', 'struct', 're'} & {*sys.modules}))"
    )
    root = Path(seccomp.__file__).parents[2]
    command = [sys.executable, "-S", "-c", check]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_listener_is_no_part_of_the_program(cache, compilations):
    def notifying(path):
        return {
            **section(rule(["mkdir"], "SCMP_ACT_NOTIFY"), default="SCMP_ACT_ALLOW"),
            "listenerPath": path,
            "listenerMetadata": path,
        }

    first = seccomp.program(notifying("/a"), str(cache["directory"]))
    assert seccomp.program(notifying("/b"), str(cache["directory"])) == first
    assert len(compilations) == 1
    # ... but that there is one matters
    with pytest.raises(ConfigError):
        seccomp.program(notifying(""), str(cache["directory"]))


def spoil_truncate(cache):
    os.truncate(cache["entry"], cache["entry"].stat().st_size - 8)


def spoil_empty(cache):
    os.truncate(cache["entry"], 0)


def spoil_flip(cache):
    data = bytearray(cache["entry"].read_bytes())
    data[-3] ^= 1
    cache["entry"].write_bytes(data)


def spoil_lengthen(cache):
    with cache["entry"].open("ab") as file:
        file.write(bytes(8))


def spoil_magic(cache):
    cache["entry"].write_bytes(b"X" + cache["entry"].read_bytes()[1:])


def spoil_mode(cache):
    cache["entry"].chmod(0o622)


def spoil_link(cache):
    elsewhere = cache["directory"].parent / "elsewhere"
    cache["entry"].rename(elsewhere)
    cache["entry"].symlink_to(elsewhere)


def spoil_fifo(cache):
    cache["entry"].unlink()
    os.mkfifo(cache["entry"], 0o600)


def spoil_library(cache):
    """The entry of another build of libseccomp, whole and ours."""
    old = cache["entry"].read_bytes()
    mark = seccomp.library_mark(LIBRARY.path)
    body = old[40:].replace(mark.encode(), mark[:-1].encode() + b"x")
    digest = seccomp.blake2b(body, digest_size=32).digest()
    cache["entry"].write_bytes(old[:8] + digest + body)


SPOILERS = [
    spoil_truncate,
    spoil_empty,
    spoil_flip,
    spoil_lengthen,
    spoil_magic,
    spoil_mode,
    spoil_link,
    spoil_fifo,
    spoil_library,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_an_odd_entry_is_compiled_anew_and_replaced(cache, compilations, spoil):
    spoil(cache)
    assert seccomp.program(PROFILE, str(cache["directory"])) == cache["result"]
    assert seccomp.program(PROFILE, str(cache["directory"])) == cache["result"]
    assert len(compilations) == 1
    assert list(cache["directory"].iterdir()) == [cache["entry"]]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_entry_of_somebody_else_is_not_believed(cache, compilations):
    os.chown(cache["entry"], 1000, -1)
    assert seccomp.program(PROFILE, str(cache["directory"])) == cache["result"]
    assert len(compilations) == 1
    assert cache["entry"].stat().st_uid == 0


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_cache_that_others_can_reach_is_neither_read_nor_written(cache, compilations, mode):
    cache["directory"].chmod(mode)
    before = cache["entry"].stat().st_mtime_ns
    for _ in range(2):
        assert seccomp.program(PROFILE, str(cache["directory"])) == cache["result"]
    assert len(compilations) == 2
    assert cache["entry"].stat().st_mtime_ns == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_cache_of_somebody_else_is_neither_read_nor_written(cache, compilations):
    os.chown(cache["directory"], 1000, -1)
    seccomp.program(PROFILE, str(cache["directory"]))
    assert len(compilations) == 1


def test_a_cache_behind_a_link_is_not_used(cache, compilations, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(cache["directory"])
    assert seccomp.program(PROFILE, str(link)) == cache["result"]
    assert len(compilations) == 1


def test_without_a_place_for_the_cache_filters_are_compiled_all_the_same(tmp_path, compilations):
    for _ in range(2):
        seccomp.program(PROFILE, str(tmp_path / "missing/cache"))
    assert len(compilations) == 2
    assert list(tmp_path.iterdir()) == []


def test_another_kernel_or_profile_has_an_entry_of_its_own(cache, monkeypatch):
    seccomp.program(
        section(rule(["write", "read", "exit_group", "clone3"])), str(cache["directory"])
    )
    assert len(list(cache["directory"].iterdir())) == 2
    fake = os.uname_result(("Linux", "host", "99.0", "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: fake)
    seccomp.program(PROFILE, str(cache["directory"]))
    assert len(list(cache["directory"].iterdir())) == 3


def test_the_oldest_entries_make_room(cache, monkeypatch):
    monkeypatch.setattr(seccomp, "MOST", 3)
    for number in range(5):
        more = section(rule(["read"]), rule(["bpf"], "SCMP_ACT_ERRNO", errnoRet=40 + number))
        seccomp.program(more, str(cache["directory"]))
        time.sleep(0.005)
    assert len(list(cache["directory"].iterdir())) == 3
    assert not cache["entry"].exists()


# --- the kernel


def in_child(act):
    """Run `act` in a forked child; return its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(act())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program, flags):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    argument = _Program(len(program) // 8, program)
    number = LIBRARY.syscall_on(NATIVE, "seccomp")
    return libc, libc.syscall(number, 1, flags, ctypes.byref(argument))


def test_the_kernel_takes_a_program_and_does_what_it_says():
    profile = section(
        rule(["mkdir", "mkdirat"], "SCMP_ACT_ERRNO", errnoRet=errno.EDOM),
        rule(["personality"], "SCMP_ACT_ERRNO", [(0, "GE", 1 << 63, 0)], errnoRet=errno.EXDEV),
        rule(["personality"], "SCMP_ACT_ERRNO", [(0, "LT", 8, 0)], errnoRet=errno.ERANGE),
        default="SCMP_ACT_ALLOW",
    )
    program, flags, _ = seccomp.program(profile, None)

    def act():
        libc, result = load(program, flags)
        if result:
            return 1
        try:
            os.mkdir("/nowhere/at/all")
        except OSError as error:
            if error.errno != errno.EDOM:
                return 2
        number = LIBRARY.syscall_on(NATIVE, "personality")
        wrong = 0
        for value, expected in ((7, errno.ERANGE), (1 << 63, errno.EXDEV), (0xFFFFFFFF, None)):
            failed = libc.syscall(number, ctypes.c_ulong(value)) < 0
            wrong += failed != (expected is not None)
            wrong += failed and ctypes.get_errno() != expected
        return 10 + wrong

    assert in_child(act) == 10


def test_the_kernel_kills_and_shows_new_calls_as_missing():
    profile = section(
        rule(["getppid"], "SCMP_ACT_KILL_PROCESS"),
        rule(["exit_group", "futex", "mmap", "munmap", "rt_sigaction", "write", "brk"]),
        default="SCMP_ACT_ERRNO",
    )
    program, flags, _ = seccomp.program(profile, None)

    def act(number):
        libc, result = load(program, flags)
        if result:
            return 1
        libc.syscall(number)
        return ctypes.get_errno()

    assert in_child(lambda: act(450)) == errno.ENOSYS
    assert in_child(lambda: act(LIBRARY.syscall_on(NATIVE, "getppid"))) == -31  # SIGSYS
