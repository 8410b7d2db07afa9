"""`process`: what the program finds when it looks at itself.

runtime-spec, config.md, "Process"; config-linux.md for what only Linux has.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct

import pytest

from tests.integration.support import (
    CAP_SYS_RESOURCE,
    CAPABILITIES,
    DROP,
    EVERY_CAPABILITY,
    bounding_set,
    eventually,
    namespaces,
    needs_sys_resource,
    only_ocirt,
)


def status_fields(text):
    """Parse /proc/self/status."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


# --- args, env, cwd


def test_arguments_and_environment_arrive_unchanged(runtime, bundle):
    b = bundle(
        "probe",
        "self",
        "",
        "two words",
        "ünï",
        "$HOME",
        process={"env": ["PATH=/bin", "EMPTY=", "EQ=a=b", "U=ü", "HOME=/nowhere"]},
    )
    lines = runtime.run(b).lines
    assert [line[5:] for line in lines if line.startswith("argv ")] == [
        "probe",
        "self",
        "",
        "two words",
        "ünï",
        "$HOME",
    ]
    assert sorted(line[4:] for line in lines if line.startswith("env ")) == [
        "EMPTY=",
        "EQ=a=b",
        "HOME=/nowhere",
        "PATH=/bin",
        "U=ü",
    ]


def test_the_environment_of_the_runtime_stays_outside(runtime, bundle):
    b = bundle("probe", "self")
    result = runtime.run(b, env={**os.environ, "SECRET": "1", "LISTEN_FDS": "1", "LISTEN_PID": "1"})
    names = {line[4:].partition("=")[0] for line in result.lines if line.startswith("env ")}
    assert names == {"PATH", "TERM", "HOME"}


def test_the_last_of_two_variables_of_one_name_wins(runtime, bundle):
    b = bundle.sh("echo $X", process={"env": ["PATH=/bin", "X=1", "X=2"]})
    assert runtime.prints(b) == "2"


@pytest.mark.parametrize(
    ("uid", "home"),
    [(0, "/root"), (1000, "/home/alice"), (4242, "/")],
    ids=["root", "alice", "nobody"],
)
def test_home_comes_from_the_passwd_of_the_container(runtime, bundle, uid, home):
    b = bundle.sh("echo $HOME", process={"user": {"uid": uid, "gid": uid}})
    assert runtime.prints(b) == home


lenient = only_ocirt("runc 1.1 takes broken lines of passwd for what they are not")


@pytest.mark.parametrize(
    "passwd",
    [
        None,
        "",
        pytest.param("root:x:0", marks=lenient),
        pytest.param("root:x:zero:0::/wrong:/bin/sh\n", marks=lenient),
    ],
    ids=["missing", "empty", "short", "garbled"],
)
def test_home_is_the_root_without_a_usable_passwd(runtime, bundle, passwd):
    b = bundle.sh("echo $HOME")
    os.unlink(b.inside("/etc/passwd"))
    if passwd is not None:
        b.put("/etc/passwd", passwd)
    assert runtime.prints(b) == "/"


@pytest.mark.parametrize("cwd", ["/", "/tmp", "/usr/bin"])
def test_the_program_starts_in_cwd(runtime, bundle, cwd):
    assert runtime.prints(bundle("pwd", process={"cwd": cwd})) == cwd


def test_a_missing_cwd_is_made(runtime, bundle):
    b = bundle.sh("pwd; stat -c '%a %u' .", process={"cwd": "/new/and/deep"})
    assert runtime.prints(b).splitlines() == ["/new/and/deep", "755 0"]


def test_a_cwd_that_only_the_user_may_enter_works(runtime, bundle):
    b = bundle.sh("pwd", process={"cwd": "/home/alice", "user": {"uid": 1000, "gid": 1000}})
    os.makedirs(b.inside("/home/alice"))
    os.chmod(b.inside("/home/alice"), 0o700)
    os.chown(b.inside("/home/alice"), 1000, 1000)
    assert runtime.prints(b) == "/home/alice"


def test_a_cwd_that_only_root_may_enter_is_entered_before_the_user_changes(runtime, bundle):
    b = bundle.sh("echo here", process={"cwd": "/secret", "user": {"uid": 1000, "gid": 1000}})
    os.makedirs(b.inside("/secret"))
    os.chmod(b.inside("/secret"), 0o700)
    assert runtime.prints(b) == "here"


def test_a_cwd_that_is_a_file_is_refused(runtime, bundle):
    b = bundle.sh("pwd", process={"cwd": "/etc/passwd"})
    runtime.refuses_to_create(b, "not a directory", ours="process.cwd")


# --- the program is looked up

LOOKUP = [
    # argv[0]         what create says
    ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
    ("nosuch", 'exec: "nosuch": executable file not found in $PATH'),
    ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ("./nosuch", 'exec: "./nosuch": stat ./nosuch: no such file or directory'),
    ("/etc/passwd/x", 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
]


@pytest.mark.parametrize(("name", "sentence"), LOOKUP, ids=[name for name, _ in LOOKUP])
def test_a_program_that_cannot_be_found_fails_create(runtime, bundle, name, sentence):
    """Docker and Podman make exit codes 126 and 127 of these sentences."""
    runtime.refuses_to_create(bundle(name), sentence)
    runtime.refuses_to_create(bundle(name), sentence, verb="run")


def test_a_directory_is_no_program(runtime, bundle):
    sentence = 'exec: "/etc": ' + ("is a directory" if runtime.is_ocirt else "permission denied")
    runtime.refuses_to_create(bundle("/etc"), sentence)


def test_without_path_a_bare_name_is_not_found(runtime, bundle):
    b = bundle("true", process={"env": ["X=1"]})
    runtime.refuses_to_create(b, 'exec: "true": executable file not found in $PATH')


def test_the_program_is_looked_up_in_the_path_of_the_container(runtime, bundle):
    b = bundle("tool", process={"env": ["PATH=/nowhere:/opt/bin"]})
    b.put("/opt/bin/tool", "#!/bin/sh\necho tool\n", 0o755)
    assert runtime.prints(b) == "tool"


def test_path_search_passes_over_what_cannot_be_executed(runtime, bundle):
    b = bundle("tool", process={"env": ["PATH=/a:/b:/c"]})
    b.put("/a/tool", "no", 0o644)
    os.makedirs(b.inside("/b/tool"))
    b.put("/c/tool", "#!/bin/sh\necho third\n", 0o755)
    assert runtime.prints(b) == "third"


def test_a_program_on_a_noexec_mount_is_refused(runtime, bundle, workdir):
    b = bundle(
        "/mnt/tool",
        more_mounts=[
            {
                "destination": "/mnt",
                "type": "bind",
                "source": workdir,
                "options": ["bind", "noexec"],
            }
        ],
    )
    with open(f"{workdir}/tool", "w") as file:
        file.write("#!/bin/sh\n")
    os.chmod(f"{workdir}/tool", 0o755)
    if runtime.is_ocirt:
        runtime.refuses_to_create(b, 'exec: "/mnt/tool": permission denied')
    else:
        assert runtime.run(b).code != 0


def test_a_program_that_only_its_owner_may_execute_is_refused_to_others(runtime, bundle):
    b = bundle("/tool", process={"user": {"uid": 1000, "gid": 1000}})
    b.put("/tool", "#!/bin/sh\n", 0o700)
    runtime.refuses_to_create(b, "permission denied", ours='exec: "/tool"')


# --- user


def test_uid_and_gid_are_the_ones_asked_for(runtime, bundle):
    b = bundle("cat", "/proc/self/status", process={"user": {"uid": 1000, "gid": 1001}})
    fields = status_fields(runtime.prints(b))
    assert fields["Uid"] == "1000\t1000\t1000\t1000"
    assert fields["Gid"] == "1001\t1001\t1001\t1001"


@pytest.mark.parametrize("gids", [[], [5], [7, 5, 100000]], ids=str)
def test_additional_gids_are_all_the_groups_there_are(runtime, bundle, gids):
    user = {"uid": 1000, "gid": 1001, "additionalGids": gids}
    fields = status_fields(
        runtime.prints(bundle("cat", "/proc/self/status", process={"user": user}))
    )
    assert fields["Groups"].split() == [str(gid) for gid in sorted(gids)]


def test_the_groups_of_the_runtime_stay_outside(runtime, bundle):
    b = bundle("cat", "/proc/self/status")
    fields = status_fields(runtime.prints(b, extra_groups=[4711]))
    assert fields["Groups"].split() == []


@pytest.mark.parametrize(
    ("umask", "shown"), [(None, "0022"), (0, "0000"), (0o77, "0077"), (0o777, "0777")]
)
def test_umask_is_the_one_asked_for_or_022(runtime, bundle, umask, shown):
    user = {"uid": 0, "gid": 0, **({} if umask is None else {"umask": umask})}
    assert runtime.prints(bundle.sh("umask", process={"user": user}), umask=0o27) == shown


def test_the_streams_belong_to_the_user(runtime, bundle):
    b = bundle.sh(
        "echo again > /proc/self/fd/1; stat -L -c %u /proc/self/fd/1",
        process={"user": {"uid": 1000, "gid": 1000}},
    )
    assert runtime.prints(b).split() == ["again", "1000"]


# --- capabilities

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
STATUS = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}
NOTHING = {name: set() for name in SETS}
KILL, CHOWN, NET_RAW = "CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"


def capabilities_seen(runtime, b):
    fields = status_fields(runtime.prints(b))
    return {
        name: {
            f"CAP_{CAPABILITIES[n]}"
            for n in range(len(CAPABILITIES))
            if int(fields[STATUS[name]], 16) >> n & 1
        }
        for name in SETS
    }


def with_capabilities(bundle, uid=0, **sets):
    return bundle(
        "cat",
        "/proc/self/status",
        process={"capabilities": DROP, "user": {"uid": uid, "gid": uid}},
    ).patch(process={"capabilities": {name: sorted(names) for name, names in sets.items()}})


def test_the_five_sets_are_the_five_asked_for(runtime, bundle):
    """A user other than root, as exec gives root everything that is permitted."""
    sets = {
        "bounding": {KILL, CHOWN, NET_RAW},
        "permitted": {KILL, CHOWN},
        "effective": {KILL, CHOWN},
        "inheritable": {KILL, CHOWN},
        "ambient": {KILL, CHOWN},
    }
    assert capabilities_seen(runtime, with_capabilities(bundle, 1000, **sets)) == sets


def test_without_ambient_capabilities_a_user_has_none(runtime, bundle):
    asked = {"bounding": {KILL}, "permitted": {KILL}, "effective": {KILL}}
    seen = capabilities_seen(runtime, with_capabilities(bundle, 1000, **asked))
    assert seen == {**NOTHING, "bounding": {KILL}}


def test_root_has_what_the_bounding_set_leaves(runtime, bundle):
    asked = {"bounding": {KILL, CHOWN}, "permitted": {KILL, CHOWN}, "effective": {KILL, CHOWN}}
    seen = capabilities_seen(runtime, with_capabilities(bundle, **asked))
    assert seen == {**NOTHING, **asked}


def test_empty_capabilities_leave_nothing(runtime, bundle):
    seen = capabilities_seen(runtime, with_capabilities(bundle))
    assert seen == NOTHING


def test_inheritable_is_empty_unless_asked_for(runtime, bundle):
    asked = dict.fromkeys(("bounding", "permitted", "effective"), EVERY_CAPABILITY)
    seen = capabilities_seen(runtime, with_capabilities(bundle, **asked))
    assert seen["inheritable"] == seen["ambient"] == set()
    assert seen["bounding"] == set(EVERY_CAPABILITY)


@only_ocirt("runc 1.1 and crun take everything away, later runc does not")
def test_without_a_capabilities_object_root_keeps_everything(runtime, bundle):
    b = bundle("cat", "/proc/self/status", process={"capabilities": DROP})
    seen = capabilities_seen(runtime, b)
    assert seen["bounding"] == seen["effective"] == set(EVERY_CAPABILITY)


@only_ocirt("runc warns, crun refuses: a slip of the pen would go unnoticed")
def test_an_unknown_capability_is_refused(runtime, bundle):
    b = with_capabilities(bundle, bounding={KILL, "CAP_FOO"}, permitted={KILL}, effective={KILL})
    result = runtime.refuses_to_create(b, ours="unknown capability CAP_FOO")
    assert "process.capabilities.bounding" in result.error


# --- switches


@pytest.mark.parametrize(
    ("asked", "shown"), [(True, "1"), (False, "0"), (DROP, "0")], ids=["on", "off", "unset"]
)
def test_no_new_privs(runtime, bundle, asked, shown):
    b = bundle("cat", "/proc/self/status", process={"noNewPrivileges": asked})
    assert status_fields(runtime.prints(b))["NoNewPrivs"] == shown


HARD_NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
LIMITS = [
    # type            soft hard   as /proc/self/limits calls it
    ("RLIMIT_NOFILE", 100, 200, "Max open files"),
    ("RLIMIT_CORE", 0, 0, "Max core file size"),
    ("RLIMIT_NPROC", 100, 100, "Max processes"),
    ("RLIMIT_STACK", 1 << 20, 1 << 21, "Max stack size"),
    ("RLIMIT_FSIZE", 1 << 30, 1 << 40, "Max file size"),
    ("RLIMIT_AS", 1 << 33, 1 << 34, "Max address space"),
    ("RLIMIT_CPU", 1000, 2000, "Max cpu time"),
    ("RLIMIT_DATA", 1 << 33, 1 << 34, "Max data size"),
    ("RLIMIT_LOCKS", 10, 20, "Max file locks"),
    ("RLIMIT_MEMLOCK", 4096, 8192, "Max locked memory"),
    ("RLIMIT_MSGQUEUE", 4096, 8192, "Max msgqueue size"),
    ("RLIMIT_NICE", 0, 0, "Max nice priority"),
    ("RLIMIT_RSS", 1 << 33, 1 << 34, "Max resident set"),
    ("RLIMIT_RTPRIO", 0, 0, "Max realtime priority"),
    ("RLIMIT_RTTIME", 1000000, 2000000, "Max realtime timeout"),
    ("RLIMIT_SIGPENDING", 10, 20, "Max pending signals"),
]


def limits_seen(text):
    """Parse /proc/self/limits: name → (soft, hard)."""
    return {line[:26].strip(): tuple(line[26:].split()[:2]) for line in text.splitlines()[1:]}


def test_every_kind_of_rlimit_can_be_set(runtime, bundle):
    rlimits = [{"type": kind, "soft": soft, "hard": hard} for kind, soft, hard, _ in LIMITS]
    seen = limits_seen(
        runtime.prints(bundle("cat", "/proc/self/limits", process={"rlimits": rlimits}))
    )
    assert {name: seen[name] for *_, name in LIMITS} == {
        name: (str(soft), str(hard)) for _, soft, hard, name in LIMITS
    }


def test_an_unlimited_rlimit_is_written_as_the_largest_number(runtime, bundle):
    most = (1 << 64) - 1
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("needs an unlimited file size")
    rlimits = [{"type": "RLIMIT_FSIZE", "soft": most, "hard": most}]
    seen = limits_seen(
        runtime.prints(bundle("cat", "/proc/self/limits", process={"rlimits": rlimits}))
    )
    assert seen["Max file size"] == ("unlimited", "unlimited")


def test_an_rlimit_above_the_hard_limit_needs_privilege(runtime, bundle):
    over = {"type": "RLIMIT_NOFILE", "soft": HARD_NOFILE + 1, "hard": HARD_NOFILE + 1}
    b = bundle("true", process={"rlimits": [over]})
    if CAP_SYS_RESOURCE in bounding_set():
        pytest.skip("this machine has the privilege")
    runtime.refuses_to_create(b, "operation not permitted", ours="RLIMIT_NOFILE")


@needs_sys_resource
def test_an_rlimit_can_be_raised(runtime, bundle):
    over = {"type": "RLIMIT_NOFILE", "soft": HARD_NOFILE + 1, "hard": HARD_NOFILE + 1}
    b = bundle("cat", "/proc/self/limits", process={"rlimits": [over]})
    assert limits_seen(runtime.prints(b))["Max open files"] == (str(HARD_NOFILE + 1),) * 2


@pytest.mark.parametrize("score", [100, 1000])
def test_oom_score_adj(runtime, bundle, score):
    b = bundle("cat", "/proc/self/oom_score_adj", process={"oomScoreAdj": score})
    assert runtime.prints(b) == str(score)


def test_an_unset_oom_score_adj_stays_as_it_was(runtime, bundle):
    with open("/proc/self/oom_score_adj") as file:
        mine = file.read().strip()
    assert runtime.prints(bundle("cat", "/proc/self/oom_score_adj")) == mine


@needs_sys_resource
def test_oom_score_adj_can_be_lowered(runtime, bundle):
    b = bundle("cat", "/proc/self/oom_score_adj", process={"oomScoreAdj": -500})
    assert runtime.prints(b) == "-500"


# runtime-spec 1.1 and 1.2 brought these; runc 1.1 passes them over in silence.
newer = only_ocirt("runc 1.1 does not know this field")


@newer
@pytest.mark.parametrize(("domain", "number"), [("LINUX", 0), ("LINUX32", 8)])
def test_personality(runtime, bundle, domain, number):
    b = bundle(
        "probe", "call", "personality", "0xffffffff", linux={"personality": {"domain": domain}}
    )
    assert runtime.prints(b) == str(number)


@newer
@pytest.mark.parametrize(
    ("cls", "priority", "value"),
    [
        ("IOPRIO_CLASS_BE", 3, 2 << 13 | 3),
        ("IOPRIO_CLASS_IDLE", 0, 3 << 13),
        ("IOPRIO_CLASS_BE", 7, 2 << 13 | 7),
    ],
)
def test_io_priority(runtime, bundle, cls, priority, value):
    b = bundle(
        "probe",
        "call",
        "ioprio_get",
        "1",
        "0",
        process={"ioPriority": {"class": cls, "priority": priority}},
    )
    assert runtime.prints(b) == str(value)


@newer
@pytest.mark.parametrize(
    ("policy", "number", "nice"),
    [("SCHED_OTHER", 0, 5), ("SCHED_BATCH", 3, 10), ("SCHED_IDLE", 5, 0)],
)
def test_scheduler(runtime, bundle, policy, number, nice):
    scheduler = {"policy": policy, **({"nice": nice} if nice else {})}
    b = bundle(
        "probe", "call", "sched_getattr", "0", "#48", "48", "0", process={"scheduler": scheduler}
    )
    raw = bytes.fromhex(runtime.prints(b).splitlines()[1])
    _, seen, _, seen_nice = struct.unpack_from("=IIQi", raw)
    assert (seen, seen_nice) == (number, nice)


@newer
def test_scheduler_flags(runtime, bundle):
    scheduler = {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    b = bundle("probe", "call", "sched_getscheduler", "0", process={"scheduler": scheduler})
    assert runtime.prints(b) == str(3 | 0x40000000)


@newer
@pytest.mark.parametrize(
    ("policy", "number"),
    [("MPOL_DEFAULT", 0), ("MPOL_LOCAL", 4), ("MPOL_BIND", 2), ("MPOL_INTERLEAVE", 3)],
)
def test_memory_policy(runtime, bundle, policy, number):
    section = {"mode": policy, **({"nodes": "0"} if number in (2, 3) else {})}
    b = bundle(
        "probe", "call", "get_mempolicy", "#4", "0", "0", "0", "0", linux={"memoryPolicy": section}
    )
    result, mode = runtime.prints(b).splitlines()
    if result == "ENOSYS":
        pytest.skip("the kernel has no NUMA")
    assert (result, int.from_bytes(bytes.fromhex(mode), "little")) == ("0", number)


@newer
@pytest.mark.parametrize(
    ("mode", "flags", "word"),
    [
        ("MPOL_BIND", [], "bind:0"),
        ("MPOL_BIND", ["MPOL_F_STATIC_NODES"], "bind=static:0"),
        ("MPOL_INTERLEAVE", ["MPOL_F_RELATIVE_NODES"], "interleave=relative:0"),
        ("MPOL_PREFERRED", [], "prefer:0"),
        ("MPOL_PREFERRED_MANY", [], "prefer (many):0"),
        ("MPOL_WEIGHTED_INTERLEAVE", [], "weighted interleave:0"),
    ],
)
def test_memory_is_taken_as_the_policy_says(runtime, bundle, mode, flags, word):
    """numa_maps(5): the policy stands behind the address of each mapping."""
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("the kernel has no NUMA")
    if mode == "MPOL_WEIGHTED_INTERLEAVE" and kernel() < (6, 9):
        pytest.skip("needs Linux 6.9")
    if mode == "MPOL_PREFERRED_MANY" and kernel() < (5, 15):
        pytest.skip("needs Linux 5.15")
    section = {"mode": mode, "nodes": "0", "flags": flags}
    b = bundle.sleeping(linux={"memoryPolicy": section})
    runtime.started(b)
    pages = ["cat", "/proc/self/numa_maps"]
    for text in (runtime.ok("exec", b.id, *pages).out, numa_maps(runtime.pid(b))):
        assert any(f" {word} " in line and "anon=" in line for line in text.splitlines()), text


def numa_maps(pid):
    with open(f"/proc/{pid}/numa_maps") as file:
        return file.read()


def kernel():
    """Return the version of the running kernel, (6, 18)."""
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


@only_ocirt("runc 1.1 and crun keep the runtime's affinity")
def test_all_cpus_are_allowed_however_the_runtime_is_pinned(runtime, bundle):
    """An engine pinned to one CPU must not pin its containers."""
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("needs two CPUs")
    os.sched_setaffinity(0, {min(mine)})
    try:
        fields = status_fields(runtime.prints(bundle("cat", "/proc/self/status")))
    finally:
        os.sched_setaffinity(0, mine)
    assert int(fields["Cpus_allowed"].replace(",", ""), 16).bit_count() >= len(mine)


def test_no_signal_is_blocked_or_ignored(runtime, bundle):
    assert runtime.prints(bundle("probe", "signals")) == ""


@only_ocirt("runc 1.1 passes on its caller's signal mask")
def test_signals_start_from_scratch_whatever_the_caller_had(runtime, bundle):

    def disturb():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    assert runtime.prints(bundle("probe", "signals"), preexec_fn=disturb) == ""


def test_the_session_keyring_is_the_containers_own(runtime, bundle):
    """KEYCTL_DESCRIBE of the session keyring names it after the container."""
    b = bundle("probe", "call", "keyctl", "6", "-3", "#80", "80")
    lines = runtime.prints(b).splitlines()
    if lines[0] in ("ENOSYS", "EPERM"):
        pytest.skip("no keyrings here")
    described = bytes.fromhex(lines[1]).rstrip(b"\0").decode()
    assert described.endswith(f";_ses.{b.id}"), described


def test_no_new_keyring_leaves_the_callers_keyring(runtime, bundle):
    b = bundle("probe", "call", "keyctl", "6", "-3", "#80", "80")
    lines = runtime.run(b, "--no-new-keyring").lines
    if lines[0] in ("ENOSYS", "EPERM"):
        pytest.skip("no keyrings here")
    assert b.id not in bytes.fromhex(lines[1]).decode(errors="replace")


# --- descriptors


def numbers(text):
    return [int(line.split()[0]) for line in text.splitlines()]


def test_only_the_three_streams_are_open(runtime, bundle):
    assert numbers(runtime.prints(bundle("probe", "fds"))) == [0, 1, 2]


def test_descriptors_of_the_runtime_do_not_leak(runtime, bundle):
    with open("/etc/passwd") as one, open("/etc/group") as two:
        inherited = (one.fileno(), two.fileno())
        for fd in inherited:
            os.set_inheritable(fd, True)
        b = bundle("probe", "fds")
        if runtime.flavour == "crun":
            pytest.skip("crun 1.8 passes on what it inherits beyond the preserved ones")
        assert numbers(runtime.prints(b, close_fds=False)) == [0, 1, 2]


def pass_three(tmp):
    """Return preexec code that puts three files on descriptors 3, 4 and 5."""

    def place():
        for number in (3, 4, 5):
            fd = os.open(f"{tmp}/{number}", os.O_RDONLY)
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)
            os.set_inheritable(number, True)

    return place


@pytest.mark.parametrize("count", [1, 2, 3])
def test_preserved_descriptors_are_passed_on_and_no_others(runtime, bundle, workdir, count):
    for number in (3, 4, 5):
        with open(f"{workdir}/{number}", "w") as file:
            file.write(f"file {number}\n")
    b = bundle.sh("probe fds; for n in 3 4 5; do cat <&$n; done 2>/dev/null; true")
    text = runtime.prints(
        b, "--preserve-fds", str(count), close_fds=False, preexec_fn=pass_three(workdir)
    )
    fds = [line for line in text.splitlines() if line[0].isdigit()]
    assert numbers("\n".join(fds)) == [0, 1, 2, *range(3, 3 + count)]
    assert [line for line in text.splitlines() if line.startswith("file")] == [
        f"file {number}" for number in range(3, 3 + count)
    ]


def test_preserved_descriptors_reach_a_created_container(runtime, bundle, workdir):
    for number in (3, 4, 5):
        with open(f"{workdir}/{number}", "w") as file:
            file.write(f"file {number}\n")
    b = bundle.sh("cat <&4")
    runtime.create(b, "--preserve-fds=2", close_fds=False, preexec_fn=pass_three(workdir))
    runtime.start(b)
    assert runtime.wait(b) == 0
    assert b.output() == "file 4\n"


def pass_socket(number, socket):
    """Return preexec code that leaves a socket behind as Slurm does: anywhere, inheritable."""

    def place():
        os.dup2(socket.fileno(), number)

    return place


@only_ocirt("knows --pmi-fd")
@pytest.mark.parametrize("number", [3, 4, 17])
@pytest.mark.parametrize("verb", ["run", "create"])
def test_the_socket_of_an_mpi_launcher_keeps_its_number(runtime, bundle, number, verb):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        b = bundle.sh(f"probe fds; echo cmd=init >&{number}; head -n 1 <&{number}",
                      process={"env": ["PATH=/bin", f"PMI_FD={number}"]})  # fmt: skip
        handed = {"close_fds": False, "preexec_fn": pass_socket(number, theirs)}
        ours.sendall(b"response\n")
        if verb == "run":
            text = runtime.prints(b, "--pmi-fd", **handed)
        else:
            runtime.create(b, "--pmi-fd", **handed)
            runtime.start(b)
            assert runtime.wait(b) == 0
            text = b.output()
        fds = "\n".join([line for line in text.splitlines() if line[0].isdigit()])
        assert numbers(fds) == [0, 1, 2, number]
        assert text.rstrip().endswith("response")
        assert ours.recv(100) == b"cmd=init\n"


@only_ocirt("knows --pmi-fd")
def test_no_image_gets_a_socket_by_its_environment_alone(runtime, bundle):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        b = bundle("probe", "fds", process={"env": ["PATH=/bin", "PMI_FD=17"]})
        text = runtime.prints(b, close_fds=False, preexec_fn=pass_socket(17, theirs))
        assert numbers(text) == [0, 1, 2]


@only_ocirt("runc leaks descriptors of its own in this case")
def test_preserving_a_closed_descriptor_is_refused(runtime, bundle):
    b = bundle("probe", "fds")
    result = runtime.refuses_to_create(b, options=["--preserve-fds", "1"], verb="run")
    assert "3" in result.error


def test_the_three_streams_may_be_closed(runtime, bundle):
    def close():
        for fd in (0, 1, 2):
            os.close(fd)

    b = bundle.sh("exit 5")
    runtime.started(b, preexec_fn=close)
    assert runtime.wait(b) == 5


def test_the_program_is_pid_1_and_leads_its_session(runtime, bundle):
    assert runtime.prints(bundle.sh("echo $$; probe call getsid 0")).split() == ["1", "1"]


def test_the_host_shows_only_the_program(runtime, bundle):
    b = bundle.sh("exec sleep 1000", linux={"namespaces": namespaces("mount", "pid", "uts", "ipc")})
    pid = runtime.started(b)

    def cmdline():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read() == b"sleep\x001000\x00"

    assert eventually(cmdline)
