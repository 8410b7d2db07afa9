"""The command line: global options, log formats, help, version, `spec`.

Engines read the log, dockerd the version, Podman the help; runc's conventions decide.
"""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.integration.support import only_ocirt

VERBS = ["create", "start", "state", "kill", "delete", "run", "spec"]


@pytest.fixture
def bare(runtime):
    """Call the runtime without any option of ours."""

    def bare(*args, **popen):
        return runtime(*args, prefix=False, **popen)

    return bare


# --- version and help


@pytest.mark.parametrize("option", ["--version", "-v"])
def test_version_has_the_lines_that_dockerd_reads(runtime, bare, option):
    result = bare(option)
    assert result.code == 0
    first, *rest = result.out.splitlines()
    assert re.fullmatch(rf"{runtime.flavour} version \S+", first)
    assert any(line.startswith("commit: ") for line in rest)
    assert any(re.fullmatch(r"spec: \d+\.\d+\.\d+\S*", line) for line in rest)


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_help_names_the_verbs(runtime, bare, args):
    if runtime.flavour == "crun" and args in ([], ["help"]):
        pytest.skip("crun takes it for an error")
    result = bare(*args)
    assert result.code == 0
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", result.out)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(bare, verb):
    result = bare(verb, "--help")
    assert result.code == 0
    assert verb in result.out


def test_an_unknown_command_exits_with_3(runtime, bare):
    if runtime.flavour == "crun":
        pytest.skip("crun says 1")
    result = bare("frobnicate")
    assert result.code == 3
    assert "No help topic for 'frobnicate'" in result.out + result.err


@pytest.mark.parametrize("args", [["--frobnicate"], ["state", "--frobnicate", "x"]], ids=str)
def test_an_unknown_option_is_refused(runtime, bare, args):
    result = bare(*args)
    assert result.code == 1
    if runtime.flavour != "crun":
        assert "flag provided but not defined: -frobnicate" in result.out + result.err


@pytest.mark.parametrize("args", [["--root"], ["create", "--bundle"]], ids=str)
def test_an_option_without_its_value_is_refused(runtime, bare, args):
    """Podman probes what a runtime can do by these very words."""
    result = bare(*args)
    assert result.code == 1
    said = result.out + result.err
    assert "flag needs an argument" in said or "requires an argument" in said


@pytest.mark.parametrize(
    "args", [["state"], ["state", "a", "b"], ["start"], ["delete"], ["create"]], ids=str
)
def test_a_wrong_number_of_arguments_is_refused(runtime, args):
    result = runtime(*args)
    assert result.code == 1
    if runtime.flavour != "crun":
        said = result.out + result.err + result.error
        assert re.search(rf'"{args[0]}" requires exactly 1 argument', said)


# --- global options


def test_options_may_follow_the_id(runtime, bundle):
    """Slurm writes `create ID -b BUNDLE`."""
    b = bundle.sleeping()
    with open(b.out, "w") as out:
        runtime.ok("create", b.id, "-b", b.path, "--pid-file", b.pid_file, stdout=out, stderr=out)
    assert runtime.state(b)["bundle"] == b.path
    runtime.ok("delete", b.id, "--force")


def test_an_option_may_be_written_in_four_ways(runtime, bundle):
    for form in (["--bundle", "{}"], ["--bundle={}"], ["-b", "{}"], ["-b={}"], ["-bundle", "{}"]):
        if runtime.flavour == "crun" and form[0] in ("-b={}", "-bundle"):
            continue
        b = bundle.sleeping()
        with open(b.out, "w") as out:
            words = [word.format(b.path) for word in form]
            runtime.ok("create", *words, b.id, stdout=out, stderr=out)


def test_the_root_is_made_absolute(runtime, bare, bundle, workdir):
    b = bundle.sleeping()
    with open(b.out, "w") as out:
        words = ["--root", "state", "create", "-b", b.path, b.id]
        assert bare(*words, cwd=workdir, stdout=out, stderr=out).code == 0
    assert runtime.status(b) == "created"


@only_ocirt("runc 1.1 lets it")
def test_the_root_cannot_be_the_root(bare):
    result = bare("--root", "/", "state", "x")
    assert result.code == 1
    assert "Option --root argument should not be set to /" in result.err


def test_without_a_log_the_error_goes_to_standard_error(runtime, bare):
    result = bare("--root", runtime.root, "state", "none")
    assert result.code == 1
    assert "container does not exist" in result.err
    assert result.out == ""


def test_the_log_in_json_has_one_object_a_line(runtime, bare, workdir):
    log = f"{workdir}/other.log"
    result = bare("--root", runtime.root, "--log", log, "--log-format", "json", "state", "none")
    with open(log) as file:
        line = json.loads(file.read())
    assert sorted(line) == ["level", "msg", "time"]
    assert line["level"] == "error"
    if runtime.flavour != "crun":
        assert line["msg"] == "container does not exist"
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", line["time"])
    # conmon sees standard error alone.
    assert "does not exist" in result.err
    assert not result.err.startswith("{")


def test_the_log_in_text(runtime, bare, workdir):
    if runtime.flavour == "crun":
        pytest.skip("crun writes the bare sentence")
    log = f"{workdir}/other.log"
    bare("--root", runtime.root, "--log", log, "state", "none")
    with open(log) as file:
        assert re.fullmatch(r'time="\S+" level=error msg="container does not exist"\n', file.read())


def test_the_log_is_appended_to(runtime, bare, workdir):
    log = f"{workdir}/other.log"
    for _ in range(2):
        bare("--root", runtime.root, "--log", log, "state", "none")
    with open(log) as file:
        assert file.read().count("does not exist") == 2


def test_an_unknown_log_format_is_refused(runtime, bare):
    result = bare("--log-format", "xml", "state", "x")
    assert result.code == 1
    if runtime.flavour != "crun":
        assert "xml" in result.out + result.err


def test_debug_adds_lines_and_changes_nothing_else(runtime, bundle, bare):
    b = bundle("echo", "hi")
    with open(b.out, "w") as err:
        words = ["--debug", "--root", runtime.root, "run", "-b", b.path, b.id]
        result = bare(*words, stderr=err)
    assert (result.code, result.out) == (0, "hi\n")


def test_a_failing_create_says_so(runtime, bundle):
    b = bundle("/nosuch")
    result = runtime.refuses_to_create(b)
    if runtime.flavour != "crun":
        assert result.error.startswith(f"{runtime.flavour} create failed: ")
        assert result.error.endswith('exec: "/nosuch": stat /nosuch: no such file or directory')


def test_a_closed_standard_error_is_survived(runtime, bare):
    result = bare("state", "none", preexec_fn=lambda: os.close(2))
    assert result.code == 1


def test_an_unwritable_standard_output_is_an_error(runtime, bundle):
    b = bundle.sleeping()
    runtime.create(b)
    with open("/dev/full", "w") as full:
        result = runtime("state", b.id, stdout=full)
    if runtime.is_ocirt:
        assert result.code == 1
        assert "no space left on device" in result.error


# --- spec


def test_spec_writes_a_config_that_runs(runtime, bare, bundle):
    b = bundle("true")
    os.unlink(f"{b.path}/config.json")
    assert bare("spec", cwd=b.path).code == 0
    with open(f"{b.path}/config.json") as file:
        config = json.load(file)
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    config["process"].update(terminal=False, args=["echo", "from spec"])
    config["process"].pop("rlimits", None)
    config["linux"]["cgroupsPath"] = f"/ocirt-test/{b.id}"
    b.config = config
    b.save()
    assert runtime.prints(b) == "from spec"


def test_spec_takes_a_bundle(bare, workdir):
    assert bare("spec", "--bundle", workdir).code == 0
    assert os.path.exists(f"{workdir}/config.json")


def test_spec_overwrites_nothing(runtime, bare, workdir):
    with open(f"{workdir}/config.json", "w") as file:
        file.write("mine")
    result = bare("spec", "-b", workdir)
    assert result.code == 1
    assert "config.json exists" in result.out + result.err
    with open(f"{workdir}/config.json") as file:
        assert file.read() == "mine"


def test_spec_rootless_maps_the_caller(bare, workdir):
    assert bare("spec", "--rootless", "-b", workdir).code == 0
    with open(f"{workdir}/config.json") as file:
        config = json.load(file)
    linux = config["linux"]
    assert {"type": "user"} in linux["namespaces"]
    assert {"type": "network"} not in linux["namespaces"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    assert "resources" not in linux
