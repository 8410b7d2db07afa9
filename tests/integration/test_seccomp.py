"""`linux.seccomp`: what a filtered system call meets, and who is told.

runtime-spec, config-linux.md, "Seccomp"; seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import struct
import threading

import pytest

from tests.integration.support import PATIENCE, only_ocirt

ARCHITECTURES = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]


def rule(action, *names, **fields):
    return {"names": list(names), "action": action, **fields}


def filtered(*rules, default="SCMP_ACT_ALLOW", **fields):
    """Return a patch with this filter."""
    return {"linux": {"seccomp": {"defaultAction": default, "syscalls": list(rules), **fields}}}


def argument(index, value, op, **fields):
    return {"index": index, "value": value, "op": op, **fields}


# --- actions

ACTIONS = [
    # rule                                                     what acct(0) brings
    (rule("SCMP_ACT_ERRNO", "acct"), "EPERM"),
    (rule("SCMP_ACT_ERRNO", "acct", errnoRet=13), "EACCES"),
    (rule("SCMP_ACT_ERRNO", "acct", errnoRet=38), "ENOSYS"),
    (rule("SCMP_ACT_ERRNO", "acct", errnoRet=0), "0"),
    (rule("SCMP_ACT_TRACE", "acct", errnoRet=1), "ENOSYS"),  # nobody traces
]
ACTION_IDS = ["errno", "errno-13", "errno-38", "errno-0", "trace"]


@pytest.mark.parametrize(("given", "shown"), ACTIONS, ids=ACTION_IDS)
@pytest.mark.parametrize("nnp", [True, False], ids=["nnp", "privileged"])
def test_an_action(runtime, bundle, given, shown, nnp):
    if runtime.flavour == "crun" and given.get("errnoRet") == 0:
        pytest.skip("crun takes 0 for unset")
    b = bundle("probe", "call", "acct", "0", process={"noNewPrivileges": nnp}, **filtered(given))
    assert runtime.prints(b) == shown


@pytest.mark.parametrize(
    ("action", "number"),
    [
        ("SCMP_ACT_KILL", signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", signal.SIGSYS),
        ("SCMP_ACT_TRAP", signal.SIGSYS),
    ],
)
def test_a_fatal_action(runtime, bundle, action, number):
    b = bundle.sh("probe call acct 0; echo $?", **filtered(rule(action, "acct")))
    assert runtime.prints(b) == str(128 + number)


@pytest.mark.parametrize("action", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_a_harmless_action(runtime, bundle, action):
    b = bundle(
        "probe", "call", "getpid", **filtered(rule(action, "getpid"), default="SCMP_ACT_LOG")
    )
    assert runtime.prints(b) == "1"


def test_the_filter_is_in_force(runtime, bundle):
    b = bundle("grep", "Seccomp:", "/proc/self/status", **filtered(rule("SCMP_ACT_ERRNO", "acct")))
    assert runtime.prints(b).split() == ["Seccomp:", "2"]


def test_without_a_filter_there_is_none(runtime, bundle):
    b = bundle("grep", "Seccomp:", "/proc/self/status")
    assert runtime.prints(b).split() == ["Seccomp:", "0"]


# --- default action

ALLOWED = (
    "access arch_prctl brk close execve exit exit_group faccessat2 fcntl fstat futex getcwd "
    "getdents64 getegid geteuid getgid getpid getppid getrandom getuid ioctl lseek mmap mprotect "
    "munmap newfstatat open openat openat2 pread64 prctl prlimit64 read readlink readv "
    "rt_sigaction rt_sigprocmask rt_sigreturn sched_yield set_robust_list set_tid_address "
    "sigaltstack stat uname write writev capget capset setgid setgroups setuid setresgid "
    "setresuid chdir dup2 dup3 epoll_create1 epoll_ctl epoll_pwait fchdir getppid gettid "
    "nanosleep pipe2 rseq statfs statx sysinfo tgkill umask wait4 fstatfs seccomp close_range "
    "fchown eventfd2 fstatat64 clone clone3 madvise kill faccessat rt_sigtimedwait unlinkat "
    "unlink sendmsg recvmsg sendto recvfrom execveat timer_create timer_settime timer_delete "
    "vfork waitid"
).split()

LISTED = rule("SCMP_ACT_ALLOW", *ALLOWED)


def test_a_default_of_errno_allows_only_what_is_listed(runtime, bundle):
    b = bundle(
        "probe",
        "call",
        "acct",
        "0",
        **filtered(LISTED, default="SCMP_ACT_ERRNO"),
    )
    assert runtime.prints(b) == "EPERM"


def test_the_errno_of_the_default_can_be_chosen(runtime, bundle):
    b = bundle(
        "probe",
        "call",
        "acct",
        "0",
        **filtered(LISTED, default="SCMP_ACT_ERRNO", defaultErrnoRet=13),
    )
    assert runtime.prints(b) == "EACCES"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, marks=only_ocirt("runc 1.1 looks after listed architectures only")),
        {"architectures": ARCHITECTURES},
    ],
    ids=["native", "listed"],
)
def test_a_system_call_newer_than_the_profile_does_not_exist(runtime, bundle, given):
    """glibc falls back on ENOSYS, and on nothing else."""
    if runtime.flavour == "crun":
        pytest.skip("crun has no such stub")
    b = bundle("probe", "call", "4000", **filtered(LISTED, default="SCMP_ACT_ERRNO", **given))
    assert runtime.prints(b) == "ENOSYS"


def test_a_kill_by_default_does_not_spare_what_is_not_listed(runtime, bundle):
    b = bundle.sh(
        "probe call acct 0; echo $?",
        **filtered(LISTED, default="SCMP_ACT_KILL_PROCESS"),
    )
    assert runtime.prints(b) == str(128 + signal.SIGSYS)


# --- arguments

COMPARISONS = [
    # op                  value         valueTwo      refused         allowed
    ("SCMP_CMP_EQ", 5, 0, [5], [4, 6, 1 << 32 | 5]),
    ("SCMP_CMP_NE", 5, 0, [4, 6], [5]),
    ("SCMP_CMP_LT", 5, 0, [4, 0], [5, 6]),
    ("SCMP_CMP_LE", 5, 0, [5, 4], [6]),
    ("SCMP_CMP_GT", 5, 0, [6, 1 << 40], [5, 4]),
    ("SCMP_CMP_GE", 5, 0, [5, 6], [4]),
    ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, [0x2F, 0x120], [0x3F, 0]),
    ("SCMP_CMP_EQ", (1 << 64) - 1, 0, [(1 << 64) - 1], [(1 << 63) - 1]),
]
COMPARISON_IDS = [f"{op[9:]}-{value:x}" for op, value, *_ in COMPARISONS]


@pytest.mark.parametrize(
    ("op", "value", "second", "refused", "allowed"),
    COMPARISONS,
    ids=COMPARISON_IDS,
)
def test_a_comparison_of_an_argument(runtime, bundle, op, value, second, refused, allowed):
    """getpid looks at no argument, so that any can be given."""
    condition = argument(2, value, op, valueTwo=second)
    given = rule("SCMP_ACT_ERRNO", "getpid", errnoRet=13, args=[condition])
    script = "; ".join(f"probe call getpid 0 0 {n}" for n in [*refused, *allowed])
    shown = runtime.prints(bundle.sh(script, **filtered(given))).split()
    assert shown[: len(refused)] == ["EACCES"] * len(refused)
    assert all(pid.isdigit() for pid in shown[len(refused) :])
    assert len(shown) == len(refused) + len(allowed)


def test_conditions_on_two_arguments_must_both_hold(runtime, bundle):
    conditions = [argument(0, 1, "SCMP_CMP_EQ"), argument(1, 2, "SCMP_CMP_EQ")]
    given = rule("SCMP_ACT_ERRNO", "getpid", errnoRet=13, args=conditions)
    script = "probe call getpid 1 2; probe call getpid 1 3; probe call getpid 0 2"
    shown = runtime.prints(bundle.sh(script, **filtered(given))).split()
    assert [word == "EACCES" for word in shown] == [True, False, False]


def test_two_conditions_on_one_argument_are_alternatives(runtime, bundle):
    conditions = [argument(0, 1, "SCMP_CMP_EQ"), argument(0, 2, "SCMP_CMP_EQ")]
    given = rule("SCMP_ACT_ERRNO", "getpid", errnoRet=13, args=conditions)
    script = "probe call getpid 1; probe call getpid 2; probe call getpid 3"
    shown = runtime.prints(bundle.sh(script, **filtered(given))).split()
    assert [word == "EACCES" for word in shown] == [True, True, False]


def test_a_large_profile_with_all_architectures(runtime, bundle):
    many = rule("SCMP_ACT_ALLOW", *ALLOWED, "acct", "swapon", "no_such_call_ever")
    b = bundle(
        "echo", "hi", **filtered(many, default="SCMP_ACT_ERRNO", architectures=ARCHITECTURES)
    )
    assert runtime.prints(b) == "hi"


def test_a_name_that_no_kernel_knows_is_passed_over(runtime, bundle):
    given = rule("SCMP_ACT_ERRNO", "no_such_call_ever", "acct")
    assert runtime.prints(bundle("probe", "call", "acct", "0", **filtered(given))) == "EPERM"


# --- flags


@only_ocirt("runc 1.1 knows no flags")
@pytest.mark.parametrize("flag", ["LOG", "TSYNC", "SPEC_ALLOW"])
def test_a_flag_is_accepted(runtime, bundle, flag):
    given = filtered(rule("SCMP_ACT_ERRNO", "acct"), flags=[f"SECCOMP_FILTER_FLAG_{flag}"])
    assert runtime.prints(bundle("probe", "call", "acct", "0", **given)) == "EPERM"


def test_an_empty_list_of_flags(runtime, bundle):
    given = filtered(rule("SCMP_ACT_ERRNO", "acct"), flags=[])
    assert runtime.prints(bundle("probe", "call", "acct", "0", **given)) == "EPERM"


# --- refusals

ACCT = rule("SCMP_ACT_ERRNO", "acct")
ODD_ARGUMENT = rule("SCMP_ACT_ERRNO", "acct", args=[argument(0, 1, "SCMP_CMP_XX")])
ODD_FLAG = pytest.param(
    *("SECCOMP_FILTER_FLAG_XX", "linux.seccomp.flags"),
    filtered(ACCT, flags=["SECCOMP_FILTER_FLAG_XX"]),
    marks=only_ocirt("runc 1.1 knows no flags"),
)
REFUSED = [
    # saying            and ours, the place
    ("SCMP_ACT_FOO", "linux.seccomp.defaultAction", filtered(default="SCMP_ACT_FOO")),
    ("SCMP_ACT_FOO", "linux.seccomp.syscalls[0]", filtered(rule("SCMP_ACT_FOO", "acct"))),
    ("SCMP_ARCH_X", "linux.seccomp.architectures", filtered(ACCT, architectures=["SCMP_ARCH_X"])),
    ("SCMP_CMP_XX", "linux.seccomp.syscalls[0].args[0]", filtered(ODD_ARGUMENT)),
    ODD_FLAG,
    ("", "linux.seccomp", filtered(rule("SCMP_ACT_NOTIFY", "acct"))),
    ("", "linux.seccomp", filtered(rule("SCMP_ACT_NOTIFY", "write"), listenerPath="/nowhere")),
    ("", "linux.seccomp", filtered(default="SCMP_ACT_NOTIFY", listenerPath="/nowhere")),
]
REFUSED_IDS = "default action arch operator flag notify-alone notify-write notify-default".split()


@pytest.mark.parametrize(("saying", "ours", "patch"), REFUSED, ids=REFUSED_IDS)
def test_a_section_that_makes_no_sense_is_refused(runtime, bundle, saying, ours, patch):
    runtime.refuses_to_create(bundle("true", **patch), saying, ours=ours)


# --- notify

_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")  # struct seccomp_notif_resp
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
EHWPOISON = 133  # an errno that nothing else brings


class Agent(threading.Thread):
    """Listens on a socket; takes the descriptor, answers every call with EHWPOISON."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.state, self.calls = None, 0
        self.start()

    def run(self):

        with self.listener, self.listener.accept()[0] as connection:
            data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4))
            fds = array.array("i", ancillary[0][2])
            self.state = json.loads(data)
            buffer = bytearray(_NOTIFICATION.size)
            try:
                while True:
                    buffer[:] = bytes(len(buffer))
                    fcntl.ioctl(fds[0], NOTIF_RECV, buffer)
                    number = _NOTIFICATION.unpack(buffer)[0]
                    self.calls += 1
                    fcntl.ioctl(
                        fds[0], NOTIF_SEND, bytearray(_ANSWER.pack(number, 0, -EHWPOISON, 0))
                    )
            except OSError:
                pass  # the last process under the filter is gone
            finally:
                os.close(fds[0])


def test_notify_hands_the_calls_to_a_listener(runtime, bundle, workdir):
    agent = Agent(f"{workdir}/agent")
    given = rule("SCMP_ACT_NOTIFY", "acct")
    b = bundle.sh(
        "probe call acct 0; probe call acct 0",
        **filtered(given, listenerPath=f"{workdir}/agent", listenerMetadata="for the agent"),
    )
    pid = runtime.started(b)
    assert runtime.wait(b) == 0
    assert b.output().split() == [f"E{EHWPOISON}"] * 2
    state = agent.state
    assert state["fds"] == ["seccompFd"]
    assert state["pid"] == pid
    assert state["metadata"] == "for the agent"
    assert state["ociVersion"]
    assert state["state"]["id"] == b.id
    assert state["state"]["pid"] == pid
    assert state["state"]["bundle"] == b.path
    assert state["state"]["status"] in ("creating", "created")
    runtime.delete(b)
    agent.join(5)


def test_notify_without_a_listener_at_the_path_fails_create(runtime, bundle, workdir):
    given = filtered(rule("SCMP_ACT_NOTIFY", "acct"), listenerPath=f"{workdir}/nobody")
    b = bundle("true", **given)
    runtime.refuses_to_create(b, "no such file or directory")


def test_the_notification_descriptor_stays_with_the_agent(runtime, bundle, workdir):
    agent = Agent(f"{workdir}/agent")
    given = filtered(rule("SCMP_ACT_NOTIFY", "acct"), listenerPath=f"{workdir}/agent")
    text = runtime.prints(bundle("probe", "fds", **given))
    assert [line.split()[0] for line in text.splitlines()] == ["0", "1", "2"]
    agent.join(5)
