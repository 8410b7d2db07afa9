"""`hooks`: the six kinds, their order, what each is given, and what a failure does.

runtime-spec, config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle".
"""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.integration.support import SLOWNESS, bind, eventually, only_ocirt

KINDS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
OUTSIDE = ["prestart", "createRuntime", "poststart", "poststop"]
BEFORE_CREATED = ["prestart", "createRuntime", "createContainer"]
POSTSTART = "runc 1.1 runs the poststart hooks of `create` too early, before `start`"
# Creating is step 2 of the specification's lifecycle, these hooks are steps 3 to 5; runc says
# `creating` all the same, crun `created`.
EARLY = ("created", "creating")
STATUS = {
    "prestart": EARLY,
    "createRuntime": EARLY,
    "createContainer": EARLY,
    "startContainer": ("created",),
    "poststart": ("running",),
    "poststop": ("stopped",),
}


@pytest.fixture
def notes(workdir):
    """A directory that hooks and program write to; /notes inside the container."""
    path = os.path.join(workdir, "notes")
    os.mkdir(path)
    os.chmod(path, 0o777)
    return path


@pytest.fixture
def hooked(bundle, notes):
    """`hooked({kind: script or [scripts]}, program)`: a bundle whose hooks are shell scripts.

    $N is the notes directory, seen from where the hook runs: createContainer hooks still see
    the host's files, startContainer hooks the container's.
    """

    def hooked(scripts, program="true", **fields):
        hooks = {}
        for kind, given in scripts.items():
            given = [given] if isinstance(given, str) else given
            where = "/notes" if kind == "startContainer" else notes
            hooks[kind] = [
                {
                    "path": "/bin/sh",
                    "args": ["sh", "-c", script],
                    "env": ["PATH=/usr/bin:/bin", f"N={where}"],
                    **fields,
                }
                for script in given
            ]
        mount = bind(notes, "/notes")
        return bundle.sh(program, hooks=hooks, more_mounts=[mount])

    return hooked


def note(notes, name):
    with open(os.path.join(notes, name)) as file:
        return file.read()


# --- order


@only_ocirt(POSTSTART)
def test_the_kinds_run_in_their_order_and_the_hooks_of_a_kind_in_theirs(runtime, hooked, notes):
    scripts = {kind: [f"echo {kind} {n} >> $N/log" for n in (1, 2)] for kind in KINDS}
    b = hooked(scripts, "echo program >> /notes/log; sleep 1000")
    runtime.create(b)
    before = [f"{kind} {n}" for kind in BEFORE_CREATED for n in (1, 2)]
    assert note(notes, "log").splitlines() == before
    runtime.start(b)
    assert eventually(lambda: note(notes, "log").count("\n") == 11)
    lines = note(notes, "log").splitlines()[6:]
    # The program and the poststart hooks run side by side.
    assert lines[:2] == ["startContainer 1", "startContainer 2"]
    assert sorted(lines[2:]) == ["poststart 1", "poststart 2", "program"]
    runtime.kill(b, "KILL")
    runtime.wait(b)
    assert "poststop" not in note(notes, "log")
    runtime.delete(b)
    assert note(notes, "log").splitlines()[11:] == ["poststop 1", "poststop 2"]


def test_run_runs_all_six_kinds(runtime, hooked, notes):
    b = hooked({kind: f"echo {kind} >> $N/log" for kind in KINDS})
    assert runtime.run(b).code == 0
    assert sorted(note(notes, "log").split()) == sorted(KINDS)


@only_ocirt(POSTSTART)
def test_start_waits_for_the_poststart_hooks(runtime, hooked, notes):
    b = hooked({"poststart": "sleep 0.3; touch $N/done"}, "sleep 1000")
    runtime.started(b)
    assert os.path.exists(f"{notes}/done")


def test_the_state_file_is_gone_when_poststop_runs_or_at_the_latest_after(runtime, hooked, notes):
    b = hooked({"poststop": "touch $N/done"})
    runtime.finish(b)
    assert os.path.exists(f"{notes}/done")
    assert runtime.host.leftovers() == []


# --- what a hook is given

STATE_KINDS = [
    pytest.param(kind, marks=only_ocirt(POSTSTART)) if kind == "poststart" else kind
    for kind in KINDS
]


@pytest.mark.parametrize("kind", STATE_KINDS)
def test_a_hook_reads_the_state_from_its_standard_input(runtime, hooked, notes, kind):
    b = hooked({kind: "cat > $N/state"}, "sleep 1000")
    b.patch(annotations={"org.example": "<value & more>"})
    pid = runtime.started(b)
    if kind == "poststop":
        runtime.delete(b, "--force")
    state = json.loads(note(notes, "state"))
    inside = kind in ("createContainer", "startContainer")
    assert state["id"] == b.id
    assert state["bundle"] == b.path
    assert state["status"] in STATUS[kind]
    assert state["ociVersion"]
    assert state["annotations"] == {"org.example": "<value & more>"}
    if kind == "poststop":
        assert state.get("pid", 0) == 0
    else:
        assert state["pid"] == (1 if inside else pid)


SHELLS_OWN = {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "HOME"}


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_and_environment_are_those_of_the_hook(runtime, bundle, notes, probe, kind):
    inside = kind == "startContainer"
    hook = {
        "path": "/bin/probe" if inside else probe,
        "args": ["argv zero", "self", "two words"],
        "env": ["ONE=1", "TWO=a=b"],
    }
    wrapper = {
        "path": "/bin/sh",
        "args": ["sh", "-c", 'exec > $N/out; exec "$@"', "x", hook["path"], "self", "two words"],
        "env": ["ONE=1", "TWO=a=b", f"N={'/notes' if inside else notes}"],
    }
    mount = bind(notes, "/notes")
    b = bundle.sh(
        "sleep 1000",
        hooks={kind: [wrapper]},
        more_mounts=[mount],
        process={"env": ["PATH=/bin", "SECRET=of the container", "LD_PRELOAD=./evil.so"]},
    )
    runtime.started(b)
    if kind == "poststop":
        runtime.delete(b, "--force")
    lines = note(notes, "out").splitlines()
    assert [line for line in lines if line.startswith("argv")] == [
        f"argv {hook['path']}",
        "argv self",
        "argv two words",
    ]
    names = {line[4:].partition("=")[0] for line in lines if line.startswith("env ")}
    assert names - SHELLS_OWN == {"ONE", "TWO", "N"}


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "poststop"])
def test_a_hook_without_arguments_is_given_its_path(runtime, bundle, notes, workdir, kind):
    path = f"{workdir}/hook"
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\necho "$0 $#" > {notes}/out\n')
    os.chmod(path, 0o755)
    b = bundle("true", hooks={kind: [{"path": path}]})
    runtime.finish(b)
    assert note(notes, "out") == f"{path} 0\n"


@only_ocirt("runc hands an outside hook without env its own environment")
def test_an_empty_environment_is_empty(runtime, bundle, notes):
    script = f"exec /usr/bin/env > {notes}/out"
    b = bundle("true", hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    runtime.finish(b)
    assert {line.partition("=")[0] for line in note(notes, "out").splitlines()} <= SHELLS_OWN


@only_ocirt("runc gives startContainer hooks without env the container's")
def test_an_empty_environment_is_empty_inside_too(runtime, bundle, notes):
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "/bin/env > /notes/out"]}
    mount = bind(notes, "/notes")
    b = bundle(
        "true",
        hooks={"startContainer": [hook]},
        more_mounts=[mount],
        process={"env": ["PATH=/bin", "X=1"]},
    )
    runtime.finish(b)
    assert {line.partition("=")[0] for line in note(notes, "out").splitlines()} <= SHELLS_OWN


PLACES = {
    "prestart": "bundle",
    "createRuntime": "bundle",
    "createContainer": "rootfs",
    "startContainer": "root",
    "poststart": "bundle",
    "poststop": "bundle",
}


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_hook_runs(runtime, hooked, notes, kind):
    """Outside hooks: the runtime's namespaces; createContainer: the container's, old root."""
    listed = "for n in mnt net pid uts; do readlink /proc/self/ns/$n; done"
    program = f"({listed}) > /notes/program; touch /notes/ready; sleep 1000"
    b = hooked({kind: f"pwd > $N/cwd; ({listed}) > $N/ns"}, program)
    runtime.started(b)
    assert eventually(lambda: os.path.exists(f"{notes}/ready"))
    if kind == "poststop":
        runtime.delete(b, "--force")
    mine = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "pid", "uts")]
    expected = mine if kind in OUTSIDE else note(notes, "program").split()
    assert note(notes, "ns").split() == expected
    place = {"bundle": b.path, "rootfs": b.rootfs, "root": "/"}[PLACES[kind]]
    if runtime.flavour == "ocirt" or kind not in ("poststart", "poststop"):
        assert note(notes, "cwd").strip() == place


def test_a_createcontainer_hook_can_mount_into_the_root(runtime, hooked, notes):
    """What CDI hooks for GPUs live on; the mount must stay inside the container."""
    script = "mkdir -p mnt && mount -t tmpfs none mnt && echo from the hook > mnt/file"
    b = hooked({"createContainer": script}, "cat /mnt/file")
    assert runtime.prints(b) == "from the hook"


def test_a_createcontainer_hook_sees_the_mounts_of_the_container(runtime, hooked, notes):
    b = hooked({"createContainer": "ls -d notes proc/self dev/null > $N/out"})
    runtime.finish(b)
    assert note(notes, "out").split() == ["dev/null", "notes", "proc/self"]


def test_a_createruntime_hook_finds_the_namespaces_of_the_container(runtime, hooked, notes):
    """Network plug-ins enter the new network namespace by the pid they are told."""
    script = (
        's=$(cat); p=${s##*\\"pid\\":}; p=${p%%[,\\}]*}; readlink /proc/$p/ns/net > $N/net; '
        "cat /proc/$p/cgroup > $N/cgroup"
    )
    b = hooked({"createRuntime": script}, "readlink /proc/self/ns/net; sleep 1000")
    runtime.started(b)
    assert eventually(lambda: b.output() != "")
    assert note(notes, "net") == b.output()
    assert f"/ocirt-test/{b.id}" in note(notes, "cgroup")


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_never_reads_its_input_is_no_error(runtime, hooked, notes, kind):
    b = hooked({kind: "exec 0<&-; touch $N/done"})
    b.patch(annotations={"long": "x" * 200_000})
    runtime.finish(b)
    assert os.path.exists(f"{notes}/done")


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_hook_inherits_no_descriptors(runtime, bundle, notes, probe, kind):
    inside = kind == "startContainer"
    where, program = ("/notes", "/bin/probe") if inside else (notes, probe)
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"exec {program} fds > {where}/out"]}
    mount = bind(notes, "/notes")
    b = bundle("true", hooks={kind: [hook]}, more_mounts=[mount])
    runtime.finish(b)
    numbers = [int(line.split()[0]) for line in note(notes, "out").splitlines()]
    if runtime.is_ocirt:
        assert numbers == [0, 1, 2]
    else:
        assert numbers[:3] == [0, 1, 2]


# --- failures

FAIL = "echo to out; echo to err >&2; exit 3"


@pytest.mark.parametrize("kind", BEFORE_CREATED)
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_hook_that_fails_before_created_undoes_everything(runtime, hooked, notes, kind, verb):
    b = hooked({kind: [FAIL, "touch $N/second"], "poststop": "touch $N/poststop"})
    said = f"error running {kind} hook #0"
    result = runtime.refuses_to_create(b, "hook #0", ours=said, verb=verb)
    assert "exit status 3" in result.error or runtime.flavour == "crun"
    assert not os.path.exists(f"{notes}/second")
    if runtime.is_ocirt:
        assert "to out" in result.error
        assert "to err" in result.error


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=only_ocirt("runc 1.1 does so for late failures only"))
        if kind != "createContainer"
        else kind
        for kind in BEFORE_CREATED
    ],
)
def test_poststop_hooks_run_when_create_fails(runtime, hooked, notes, kind):
    b = hooked({kind: "exit 1", "poststop": "cat > $N/state"})
    runtime.refuses_to_create(b)
    state = json.loads(note(notes, "state"))
    assert (state["status"], state.get("pid", 0)) == ("stopped", 0)


def test_a_startcontainer_hook_that_fails_stops_the_container(runtime, hooked, notes):
    b = hooked({"startContainer": FAIL}, "touch /notes/program")
    runtime.create(b)
    runtime.ok("start", b.id)
    assert runtime.wait(b) != 0
    assert "hook #0" in b.output()
    assert not os.path.exists(f"{notes}/program")
    assert runtime.status(b) == "stopped"


def test_run_of_a_container_whose_startcontainer_hook_fails(runtime, hooked, notes):
    b = hooked({"startContainer": FAIL}, "touch /notes/program")
    assert runtime.run(b).code == (255 if runtime.is_ocirt else 1)
    assert not os.path.exists(f"{notes}/program")


@only_ocirt(POSTSTART)
def test_a_poststart_hook_that_fails_ends_the_container(runtime, hooked, notes):
    b = hooked({"poststart": [FAIL, "touch $N/second"]}, "sleep 1000")
    runtime.create(b)
    runtime.refuses("start", b.id, saying="error running poststart hook #0")
    assert not os.path.exists(f"{notes}/second")
    assert runtime.wait(b) == 128 + 9
    assert runtime.status(b) == "stopped"
    runtime.delete(b)


@only_ocirt("the spec wants a warning; runc's delete exits with 1")
def test_a_poststop_hook_that_fails_is_a_warning(runtime, hooked, notes):
    b = hooked({"poststop": [FAIL, "touch $N/second"]})
    runtime.started(b)
    runtime.wait(b)
    result = runtime.delete(b)
    assert result.errors == []
    warnings = [line["msg"] for line in result.log if line["level"] == "warning"]
    assert any("poststop hook #0" in warning for warning in warnings)
    assert os.path.exists(f"{notes}/second")
    assert runtime.host.leftovers() == []


def test_run_survives_a_failing_poststop_hook(runtime, hooked):
    b = hooked({"poststop": FAIL}, "exit 7")
    if runtime.flavour == "crun":
        pytest.skip("crun fails")
    assert runtime.run(b).code == 7
    assert runtime.host.leftovers() == []


@pytest.mark.parametrize("kind", BEFORE_CREATED)
def test_a_hook_that_is_not_there_fails_create(runtime, bundle, kind):
    b = bundle("true", hooks={kind: [{"path": "/nowhere/hook"}]})
    runtime.refuses_to_create(b, "no such file or directory", ours=f"{kind} hook #0")


def test_a_hook_with_a_relative_path_is_refused(runtime, bundle):
    b = bundle("true", hooks={"createRuntime": [{"path": "bin/true"}]})
    runtime.refuses_to_create(b, ours="hooks.createRuntime[0].path")


# --- time


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_takes_too_long_is_killed(runtime, hooked, kind):
    b = hooked({kind: "exec sleep 60"}, timeout=1)
    began = time.monotonic()
    result = runtime.refuses_to_create(b, "hook ran past specified timeout of 1")
    assert 0.9 < time.monotonic() - began < 10 * SLOWNESS
    if runtime.is_ocirt:
        assert f"{kind} hook #0" in result.error


@only_ocirt("runc kills the hook alone and waits for its children")
def test_the_children_of_a_slow_hook_are_killed_with_it(runtime, hooked):
    b = hooked({"createRuntime": "sleep 60; true"}, timeout=1)
    runtime.refuses_to_create(b, "hook ran past specified timeout of 1")


@only_ocirt("runc and crun do not look")
@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_must_be_positive(runtime, hooked, timeout):
    b = hooked({"createRuntime": "true"}, timeout=timeout)
    runtime.refuses_to_create(b, ours="hooks.createRuntime[0].timeout")


@only_ocirt("runc and crun wait for the end of the output")
def test_a_hook_that_leaves_a_child_holding_its_output_does_not_block(runtime, hooked, host):
    b = hooked({"createRuntime": "sleep 30 & echo $!"}, "true")
    began = time.monotonic()
    runtime.create(b)
    assert time.monotonic() - began < 5 * SLOWNESS
    host.end("sleep")


# --- what they print

OUTPUT = only_ocirt("annotations that runc does not know")


def into(workdir):
    """Return annotations that send the output of hooks to files, and the files."""
    files = {name: os.path.join(workdir, name) for name in ("stdout", "stderr")}
    return {f"run.oci.hooks.{name}": path for name, path in files.items()}, files


@OUTPUT
@pytest.mark.parametrize("verb", ["create", "run"])
def test_what_hooks_print_goes_to_the_files_of_the_annotations(runtime, hooked, workdir, verb):
    annotations, files = into(workdir)
    b = hooked({kind: [f"echo out {kind}; echo err {kind} >&2"] for kind in KINDS})
    b.patch(annotations=annotations)
    if verb == "create":
        assert runtime.finish(b) == 0
    else:
        assert runtime.run(b).code == 0
    order = KINDS if verb == "create" else sorted(KINDS)
    for name, word in (("stdout", "out"), ("stderr", "err")):
        lines = note(workdir, name).splitlines()
        assert (lines if verb == "create" else sorted(lines)) == [f"{word} {k}" for k in order]
        assert os.stat(files[name]).st_mode & 0o777 == 0o600


@OUTPUT
def test_the_files_are_added_to(runtime, hooked, workdir):
    _, files = into(workdir)
    with open(files["stdout"], "w") as file:
        file.write("before\n")
    b = hooked({"createRuntime": "echo one", "createContainer": "echo two"})
    b.patch(annotations={"run.oci.hooks.stdout": files["stdout"]})
    assert runtime.run(b).code == 0
    assert note(workdir, "stdout") == "before\none\ntwo\n"


@OUTPUT
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_the_message_of_a_failure_has_what_no_file_takes(runtime, hooked, workdir, kind):
    _, files = into(workdir)
    b = hooked({kind: "echo to the file; echo to the message >&2; exit 3"})
    b.patch(annotations={"run.oci.hooks.stdout": files["stdout"]})
    result = runtime.refuses_to_create(b, f"error running {kind} hook #0: exit status 3")
    assert "stdout: , stderr: to the message" in result.error
    assert note(workdir, "stdout") == "to the file\n"


@OUTPUT
def test_no_descriptor_of_a_file_reaches_the_program(runtime, hooked, workdir):
    annotations, _ = into(workdir)
    b = hooked({"startContainer": "probe fds"}, "probe fds")
    b.patch(annotations=annotations)
    runtime.started(b)
    runtime.wait(b)
    for text in (b.output(), note(workdir, "stdout")):
        assert {int(line.split()[0]) for line in text.splitlines()} == {0, 1, 2}


@OUTPUT
@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
@pytest.mark.parametrize(
    ("path", "sentence"), [("x", "is not absolute"), ("/nosuch/file", "no such file or directory")]
)
def test_a_file_that_cannot_be_written_is_named(runtime, hooked, kind, path, sentence):
    b = hooked({kind: "true"})
    b.patch(annotations={"run.oci.hooks.stderr": path})
    result = runtime.refuses_to_create(b, sentence)
    assert "annotations.run.oci.hooks.stderr: " in result.error
