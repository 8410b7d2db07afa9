"""What is wrong is refused: one sentence naming the place, exit code 1, nothing left.

Other files refuse what belongs to them; here is what belongs to none: ids, bundles, the text of
config.json, its types, names that nobody knows.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.integration.support import DROP, base_config, eventually, namespaces, only_ocirt

# --- ids


GOOD = ["a", "A-b_c.d+e", "0", "web-1.example", ".hidden", "...", "x" * 200]
BAD = ["a/b", "..", ".", "../up", "/abs", "a b", "a\nb", "ä", "a:b", "a\tb", "$(id)", "*"]


@pytest.mark.parametrize("name", GOOD, ids=lambda name: name[:20])
def test_a_good_id(runtime, bundle, name):
    b = bundle("true", container_id=name)
    b.patch(linux={"cgroupsPath": f"/ocirt-test/t{os.getpid()}-id"})
    assert runtime.run(b).code == 0


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_bad_id_is_refused_by_every_verb(runtime, bundle, name):
    b = bundle("true")
    os.makedirs(runtime.root)
    for verb in ("create", "run", "state", "start", "kill", "delete"):
        options = ["-b", b.path] if verb in ("create", "run") else []
        result = runtime(verb, *options, name)
        assert result.code == 1, str(result)
        if runtime.flavour != "crun":
            assert "invalid" in result.error or "does not exist" in result.error, str(result)
    assert runtime.host.leftovers() == []


def test_an_empty_id_is_refused(runtime, bundle):
    b = bundle("true")
    result = runtime("create", "-b", b.path, "")
    assert result.code == 1
    if runtime.flavour != "crun":
        assert "container id cannot be empty" in result.error


@only_ocirt("runc makes directories of the longest names that the file system takes")
def test_an_id_of_a_thousand_letters_is_refused(runtime, bundle):
    b = bundle("true", container_id="x" * 1000)
    runtime.refuses_to_create(b)


# --- bundles


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_a_bundle_that_is_none(runtime, host, workdir, what):
    path = f"{workdir}/bundle"
    if what == "file":
        with open(path, "w") as file:
            file.write("{}")
    elif what == "empty":
        os.mkdir(path)
    result = runtime("create", "-b", path, "t0")
    assert result.code == 1
    assert len(result.errors) == 1
    if runtime.flavour != "crun":
        wanted = {
            "missing": "no such file or directory",
            "file": "not a directory",
            "empty": "JSON specification file config.json not found",
        }[what]
        assert wanted in result.error
    assert host.leftovers() == []


@pytest.mark.parametrize("what", ["missing", "file", "fifo", "dangling"])
def test_a_rootfs_that_is_none(runtime, bundle, what):
    b = bundle("true")
    place = f"{b.path}/other"
    b.patch(root={"path": "other"})
    if what == "file":
        with open(place, "w"):
            pass
    elif what == "fifo":
        os.mkfifo(place)
    elif what == "dangling":
        os.symlink("/nowhere/at/all", place)
    saying = {"missing": "no such file or directory"}.get(what, "")
    runtime.refuses_to_create(b, saying, ours="root.path")


@only_ocirt("runc 1.1 follows the link, and mounts at its end")
def test_a_rootfs_that_is_a_link_is_refused(runtime, bundle):
    b = bundle("true")
    os.symlink("rootfs", f"{b.path}/link")
    b.patch(root={"path": "link"})
    runtime.refuses_to_create(b, ours="root.path")


# --- the text of config.json

TEXTS = {
    "empty": b"",
    "blank": b" \n",
    "truncated": b'{"ociVersion": "1.0.2", "process": {"args": ["tr',
    "no-json": b"hello",
    "trailing": b'{"ociVersion": "1.0.2"} {}',
    "list": b"[]",
    "number": b"7",
    "string": b'"text"',
    "null": b"null",
    "not-utf-8": b'{"ociVersion": "1.0.2", "hostname": "\xff\xfe"}',
    "nul": b'{"ociVersion": "1.0.2"\x00}',
    "deep": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "huge": b'{"ociVersion": "1.0.2", "x": "' + b"y" * (20 << 20) + b'"}',
    "huge-number": b'{"ociVersion": "1.0.2", "process": {"user": {"uid": 1' + b"0" * 5000 + b"}}}",
}


OURS_ALONE = {
    "null": "runc 1.1 panics",
    "huge-number": "runc quotes the number in full",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=only_ocirt(OURS_ALONE[name])) if name in OURS_ALONE else name
        for name in TEXTS
    ],
)
def test_a_config_that_cannot_be_read(runtime, bundle, name):
    b = bundle("true")
    with open(f"{b.path}/config.json", "wb") as file:
        file.write(TEXTS[name])
    result = runtime.refuses_to_create(b)
    assert len(result.error) < 1000
    assert "Traceback" not in result.err
    assert "internal error" not in result.error


@pytest.mark.parametrize("what", ["directory", "fifo", "dangling"])
def test_a_config_that_is_no_file(runtime, bundle, what):
    b = bundle("true")
    path = f"{b.path}/config.json"
    os.unlink(path)
    if what == "directory":
        os.mkdir(path)
    elif what == "fifo":
        if not runtime.is_ocirt:
            pytest.skip("runc and crun wait for a writer")
        os.mkfifo(path)
    else:
        os.symlink("/nowhere/at/all", path)
    runtime.refuses_to_create(b)


def test_an_unknown_field_is_ignored(runtime, bundle):
    b = bundle("echo", "hi", future={"x": [1]}, process={"future": True}, linux={"future": 1.5})
    assert runtime.prints(b) == "hi"


# --- types

TYPES = [
    # place                            value
    ("ociVersion", 1),
    ("process.terminal", "false"),
    ("process.user.uid", "0"),
    ("process.user.uid", -1),
    ("process.user.uid", 1.5),
    ("process.user.uid", True),
    ("process.user.gid", 1 << 32),
    ("process.user.umask", "022"),
    ("process.user.additionalGids", 5),
    ("process.args", "true"),
    ("process.args", [1]),
    ("process.env", {"A": "b"}),
    ("process.cwd", 1),
    ("process.noNewPrivileges", "false"),
    ("process.capabilities", ["CAP_KILL"]),
    ("process.capabilities.bounding", "CAP_KILL"),
    ("process.rlimits", {"type": "RLIMIT_CORE"}),
    ("process.oomScoreAdj", "100"),
    ("root", "rootfs"),
    ("root.path", ["rootfs"]),
    ("root.readonly", "true"),
    ("hostname", 5),
    ("mounts", {"destination": "/x"}),
    ("mounts", [{"destination": 5}]),
    ("mounts", [{"destination": "/x", "options": "ro"}]),
    ("hooks", []),
    ("hooks.createRuntime", {"path": "/bin/true"}),
    ("hooks.createRuntime", [{"path": 5}]),
    ("annotations", {"a": 1}),
    ("linux.namespaces", ["pid"]),
    ("linux.namespaces", [{"type": 1}]),
    ("linux.cgroupsPath", 5),
    ("linux.sysctl", {"net.ipv4.ip_default_ttl": 1}),
    ("linux.maskedPaths", "/proc/kcore"),
    ("linux.resources.memory.limit", "64M"),
    ("linux.resources.pids.limit", "20"),
    ("linux.resources.cpu.shares", -1),
    ("linux.resources.devices", [{"allow": "false"}]),
    ("linux.devices", [{"path": "/dev/x", "type": "c", "major": "1", "minor": 2}]),
    ("linux.seccomp.defaultAction", 1),
    ("linux.seccomp", "SCMP_ACT_ALLOW"),
]


def set_at(config, place, value):
    *path, last = place.split(".")
    for key in path:
        config = config.setdefault(key, {})
    config[last] = value


@pytest.mark.parametrize(
    ("place", "value"), TYPES, ids=[f"{p}={json.dumps(v)[:24]}" for p, v in TYPES]
)
def test_a_wrong_type_is_refused(runtime, bundle, place, value):
    """A lenient runtime is an insecure one: "false" must not count as true."""
    b = bundle("true")
    set_at(b.config, place, value)
    b.save()
    runtime.refuses_to_create(b, ours=place)


@only_ocirt("runc 1.1 misses some of what the spec requires, and says so late")
@pytest.mark.parametrize("place", ["ociVersion", "process.cwd", "root.path", "process.args"])
def test_a_missing_field_is_refused(runtime, bundle, place):
    b = bundle("true")
    *path, last = place.split(".")
    part = b.config
    for key in path:
        part = part[key]
    del part[last]
    b.save()
    runtime.refuses_to_create(b, ours=place)


# --- values


def rlimits(kind, soft, hard, count=1):
    limit = {"type": f"RLIMIT_{kind}", "soft": soft, "hard": hard}
    return {"process": {"rlimits": [limit] * count}}


def io_priority(kind, priority):
    return {"process": {"ioPriority": {"class": f"IOPRIO_CLASS_{kind}", "priority": priority}}}


VALUES = [
    # patch                                                        sentence  ours, the place
    ({"process": {"args": []}}, "args must not be empty", "process.args"),
    ({"process": {"cwd": "tmp"}}, "Cwd must be an absolute path", "process.cwd"),
    ({"process": {"cwd": ""}}, "Cwd property must not be empty", "process.cwd"),
    (rlimits("FOO", 1, 1), "RLIMIT_FOO", "process.rlimits[0]"),
    (rlimits("CORE", 2, 1), "", "process.rlimits[0]"),
    ({"process": {"args": ["a\0b"]}}, "", "process.args"),
    ({"hostname": "x" * 100}, "", "hostname"),
    ({"linux": {"rootfsPropagation": "upwards"}}, "upwards", "linux.rootfsPropagation"),
]  # fmt: skip
ONLY_OURS = [
    ({"process": {"env": ["NOVALUE"]}}, "process.env[0]"),
    ({"process": {"env": ["=x"]}}, "process.env[0]"),
    ({"process": {"env": ["A=b\0c"]}}, "process.env[0]"),
    (rlimits("CORE", 0, 0, count=2), "process.rlimits[1]"),
    ({"process": {"oomScoreAdj": 2000}}, "process.oomScoreAdj"),
    ({"process": {"user": {"uid": 0, "gid": 0, "umask": 0o10000}}}, "process.user.umask"),
    (io_priority("X", 1), "process.ioPriority"),
    (io_priority("BE", 8), "process.ioPriority"),
    ({"process": {"scheduler": {"policy": "SCHED_X"}}}, "process.scheduler"),
    ({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 50}}}, "process.scheduler"),
    ({"process": {"scheduler": {"policy": "SCHED_OTHER", "priority": 5}}}, "process.scheduler"),
    ({"linux": {"personality": {"domain": "VMS"}}}, "linux.personality"),
    ({"linux": {"memoryPolicy": {"mode": "MPOL_X"}}}, "linux.memoryPolicy"),
    ({"linux": {"memoryPolicy": {"mode": "MPOL_BIND"}}}, "linux.memoryPolicy"),
    ({"ociVersion": "invalid"}, "ociVersion"),
    ({"ociVersion": "2.0.0"}, "ociVersion"),
    ({"ociVersion": ""}, "ociVersion"),
    ({"process": {"apparmorProfile": "no-such-profile"}}, "process.apparmorProfile"),
    ({"process": {"selinuxLabel": "system_u:system_r:nothing_t:s0"}}, "process.selinuxLabel"),
    ({"linux": {"intelRdt": {"closID": "no-such-class"}}}, "linux.intelRdt"),
    ({"linux": {"netDevices": {"no-such-device": {}}}}, "linux.netDevices"),
    ({"mounts": [{"destination": "/x", "source": "a\0b", "options": ["bind"]}]}, "mounts[0]"),
]  # fmt: skip


def case_ids(cases):
    return [f"{number}-{case[-1]}" for number, case in enumerate(cases)]


@pytest.mark.parametrize(("patch", "saying", "ours"), VALUES, ids=case_ids(VALUES))
def test_a_value_that_makes_no_sense_is_refused(runtime, bundle, patch, saying, ours):
    runtime.refuses_to_create(bundle("true", **patch), saying, ours=ours)


@only_ocirt("runc 1.1 is silent about it, or says so in words of its own")
@pytest.mark.parametrize(("patch", "ours"), ONLY_OURS, ids=case_ids(ONLY_OURS))
def test_a_value_that_only_we_look_at_is_refused(runtime, bundle, patch, ours):
    runtime.refuses_to_create(bundle("true", **patch), ours=ours)


@only_ocirt("runc says the first fault and stops")
def test_several_faults_are_said_together(runtime, bundle):
    b = bundle("true", process={"cwd": "tmp", "oomScoreAdj": 5000, "args": []})
    result = runtime("create", "-b", b.path, b.id)
    assert result.code == 1
    assert all(p in result.error for p in ("process.cwd", "process.oomScoreAdj", "process.args"))


def test_a_container_without_a_process_ends_when_it_is_started(runtime, bundle):
    """The spec requires `process` only for `start`; the public suite wants even that to work."""
    b = bundle(process=DROP)
    if runtime.try_create(b).code == 0:
        assert runtime.status(b) == "created"
        runtime.ok("start", b.id)
        eventually(lambda: runtime.status(b) == "stopped")
        runtime.delete(b)
    assert runtime.host.leftovers() == []


def test_a_config_without_a_root_is_refused(runtime, bundle):
    runtime.refuses_to_create(bundle("true", root=DROP), ours="root")


def test_nothing_is_made_before_the_config_is_checked(runtime, bundle, workdir):
    b = bundle("true", process={"cwd": "relative"}, hooks={
        "prestart": [{"path": "/bin/touch", "args": ["touch", f"{workdir}/ran"]}],
        "poststop": [{"path": "/bin/touch", "args": ["touch", f"{workdir}/ran"]}],
    })  # fmt: skip
    runtime.refuses_to_create(b)
    assert not os.path.exists(f"{workdir}/ran")


def test_the_base_config_is_good(runtime, bundle):
    b = bundle("true")
    assert b.config == base_config(b.id)
    assert runtime.run(b).code == 0


def test_unknown_namespaces_are_named(runtime, bundle):
    b = bundle("true", linux={"namespaces": namespaces("mount", "Pid")})
    runtime.refuses_to_create(b, "Pid", ours="linux.namespaces[1]")
