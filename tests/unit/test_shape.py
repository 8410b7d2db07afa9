"""The fast check, and that it says what the models say: one truth, two readers."""

from __future__ import annotations

import os
from copy import deepcopy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocirt import shape
from ocirt.errors import ConfigError
from tests.unit.documents import engine, mutated, put, valid

pydantic = pytest.importorskip("pydantic")
from oci_spec.config import Config  # noqa: E402


def refusal(document):
    with pytest.raises(ConfigError) as caught:
        shape.check(document)
    return str(caught.value)


def test_a_config_as_engines_write_it_has_the_right_shape():
    document = engine()
    shape.check(document)
    assert document == engine()


CASES = [
    # place, value, the sentence
    ("process.noNewPrivileges", "false", "expected true or false"),
    ("process.noNewPrivileges", 0, "expected true or false"),
    ("process.noNewPrivileges", None, "expected true or false"),
    ("process.user.uid", "0", "expected an integer"),
    ("process.user.uid", 0.0, "expected an integer"),
    ("process.user.uid", True, "expected an integer"),
    ("process.user.uid", None, "expected an integer"),
    ("process.user.uid", -1, "expected an integer from 0 to 4294967295"),
    ("process.user.uid", 2**32, "expected an integer from 0 to 4294967295"),
    ("process.user", None, "expected an object"),
    ("process.user.additionalGids[1]", "27", "expected an integer"),
    ("process.args[1]", 7, "expected a string"),
    ("process.args[0]", None, "expected a string"),
    ("process.args", "sh", "expected a list"),
    ("process.cwd", ..., "missing"),
    ("process.rlimits[0].type", "RLIMIT_FOO", "wrong rlimit value: RLIMIT_FOO"),
    ("process.rlimits[0].soft", 2**64, "expected an integer from 0 to 18446744073709551615"),
    ("process.rlimits[0].hard", ..., "missing"),
    ("process.oomScoreAdj", "5", "expected an integer"),
    ("process.scheduler.policy", "SCHED_FOO", "invalid scheduler policy: SCHED_FOO"),
    ("process.scheduler.nice", 2**31, "expected an integer from -2147483648 to 2147483647"),
    ("process.ioPriority.class", "RT", 'invalid ioPriority.Class: "RT"'),
    ("ociVersion", ..., "missing"),
    ("ociVersion", 1, "expected a string"),
    ("root", [], "expected an object"),
    ("mounts[1].options[0]", {}, "expected a string"),
    ("mounts[0]", None, "expected an object"),
    ("mounts[1].uidMappings[0].size", ..., "missing"),
    ("hooks.createRuntime[0].timeout", 1.5, "expected an integer"),
    ("annotations.key", 1, "expected a string"),
    ("linux.namespaces[0].type", "foo", 'unknown namespace type "foo"'),
    ("linux.devices[0].type", "x", 'invalid device type "x"'),
    ("linux.resources.devices[0].allow", ..., "missing"),
    ("linux.resources.devices[0].type", "x", 'invalid cgroup device type "x"'),
    ("linux.resources.memory.limit", 2**63,
     "expected an integer from -9223372036854775808 to 9223372036854775807"),
    ("linux.resources.blockIO.weight", 65536, "expected an integer from 0 to 65535"),
    ("linux.resources.rdma.mlx5_0.hcaHandles", "max", "expected an integer"),
    ("linux.resources.unified", ["a"], "expected an object"),
    ("linux.seccomp.defaultAction", "SCMP_ACT_FOO",
     "string SCMP_ACT_FOO is not a valid action for seccomp"),
    ("linux.seccomp.architectures[0]", "x86", "string x86 is not a valid arch for seccomp"),
    ("linux.seccomp.flags[0]", "LOG", "seccomp flag LOG is not known to ocirt"),
    ("linux.seccomp.syscalls[1].args[0].op", "EQ", "string EQ is not a valid operator for seccomp"),
    ("linux.seccomp.syscalls[0].names", None, "expected a list"),
    ("linux.rootfsPropagation", "none", "rootfsPropagation=none is not supported"),
    ("linux.personality.domain", "BSD", "invalid personality domain BSD"),
    ("linux.memoryPolicy.mode", "BIND", 'invalid memory policy mode "BIND"'),
    ("linux.timeOffsets.monotonic.secs", "1", "expected an integer"),
    ("vm", "qemu", "expected an object"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "sentence"), CASES)
def test_a_fault_is_named_with_its_place(place, value, sentence):
    document = engine()
    put(document, place, value)
    expected = f"{place}: {sentence}"
    with pytest.raises(pydantic.ValidationError):
        Config.parse(document)
    assert refusal(document) == expected


def test_no_refusal_can_be_taken_for_an_unknown_container():
    for _, _, sentence in CASES:
        assert "does not exist" not in sentence


NULLS = [
    "process", "process.args", "process.user.umask", "process.capabilities.bounding", "root",
    "mounts", "mounts[0].options", "hooks.prestart", "annotations", "linux",
    "linux.resources.memory.limit", "linux.resources.devices", "linux.seccomp",
    "linux.seccomp.syscalls[1].args", "linux.sysctl", "linux.resources.rdma", "windows",
]  # fmt: skip


@pytest.mark.parametrize("place", NULLS)
def test_null_is_absent_where_go_has_a_pointer_a_list_or_a_map(place):
    document = engine()
    put(document, place, None)
    Config.parse(document)
    shape.check(document)
    without = engine()
    put(without, place, None)
    put(without, place, ...)
    assert document == without


def test_unknown_fields_pass_whatever_they_hold():
    document = engine()
    document["future"] = {"a": [None, 1.5]}
    document["process"]["noNewprivileges"] = "yes"
    document["linux"]["seccomp"]["syscalls"][0]["comment"] = None
    shape.check(document)
    Config.parse(document)
    assert document["future"] == {"a": [None, 1.5]}


def test_a_part_is_checked_under_its_own_place():
    with pytest.raises(ConfigError, match=r"^process\.json\.user\.uid: expected an integer$"):
        shape.check({"cwd": "/", "user": {"uid": "0"}}, shape.PROCESS, "process.json")
    with pytest.raises(ConfigError, match=r"^process: expected an object$"):
        shape.check([], shape.PROCESS, "process")
    with pytest.raises(ConfigError, match=r"^pids\.limit: expected an integer$"):
        shape.check({"pids": {"limit": True}}, shape.RESOURCES)


def place_of(path):
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def same_verdict(document):
    try:
        Config.parse(document)
        places = set()
    except pydantic.ValidationError as error:
        places = {place_of(one["loc"]) for one in error.errors(include_url=False)}
    try:
        shape.check(deepcopy(document))
        found = None
    except ConfigError as error:
        found = error.segments[0]
    assert (found is None) == (not places), (found, places)
    assert found is None or found in places


def patient(examples):
    """Give hypothesis time, and the same examples each run; OCIRT_FUZZ_SECONDS makes them many."""
    more = 1 + int(float(os.environ.get("OCIRT_FUZZ_SECONDS", "0")))
    return settings(
        deadline=None,
        max_examples=examples * more,
        suppress_health_check=list(HealthCheck),
        derandomize=more == 1,
        database=None,
    )


VALID = valid()


@patient(20)
@given(VALID)
def test_what_the_models_take_the_fast_check_takes(document):
    Config.parse(document)
    shape.check(document)


@patient(40)
@given(mutated(VALID))
def test_random_documents_get_one_verdict(document):
    same_verdict(document)


@patient(200)
@given(mutated(st.builds(engine)))
def test_broken_engine_configs_get_one_verdict(document):
    same_verdict(document)


@patient(20)
@given(VALID)
def test_no_null_is_left_where_the_tables_look(document):
    shape.check(document)

    def look(value, detail):
        for name, item in value.items():
            rule = detail[0].get(name)
            if rule is not None:
                assert item is not None
                if rule[0] is dict and rule[2] is not None and rule[2][0].__class__ is dict:
                    look(item, rule[2])

    look(document, shape.CONFIG)
