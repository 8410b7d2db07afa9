"""What a CDI file may say: by the table of rules, and by the models, always the same."""

from __future__ import annotations

import pytest
from ocirt_hpc import rules

from ocirt.errors import ConfigError
from tests.unit.documents import mutated, put


def spec(**changes):
    edits = {
        "env": ["A=b"],
        "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b", "permissions": "rw"}],
        "netDevices": [{"hostInterfaceName": "eth1", "name": "data0"}],
        "mounts": [{"hostPath": "/a", "containerPath": "/b", "type": "bind"}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "env": ["B=c"]}],
        "intelRdt": {"closID": "gold", "schemata": []},
        "additionalGids": [44],
    }
    document = {
        "cdiVersion": "1.1.0",
        "kind": "acme.com/card",
        "annotations": {"acme.com/owner": "x"},
        "devices": [{"name": "0", "annotations": {"a": "b"}, "containerEdits": edits}],
        "containerEdits": {"env": ["C=d"]},
    }
    for place, value in changes.items():
        put(document, place, value)
    return document


def test_a_file_with_everything_is_fine():
    rules.check(spec())


DEVICE = "devices[0].containerEdits"
FAULTS = [
    # place, value, message (without place: the place as it is)
    ("cdiVersion", ..., "missing"),
    ("cdiVersion", "1.0", 'invalid version "1.0"'),
    ("kind", "acme.com", 'invalid vendor/class "acme.com"'),
    ("kind", "acme.com/1card", 'invalid vendor/class "acme.com/1card"'),
    ("kind", "acme.com/card\n", 'invalid vendor/class "acme.com/card\n"'),
    ("devices", [], "is empty"),
    ("devices[0].name", "a/b", 'invalid device name "a/b"'),
    ("devices[0].name", "", 'invalid device name ""'),
    (DEVICE, {"env": []}, "empty device edits"),
    (f"{DEVICE}.env[0]", "=b", 'invalid environment variable "=b"'),
    (f"{DEVICE}.deviceNodes[0].path", "", "is empty"),
    (f"{DEVICE}.deviceNodes[0].type", "x", "x is not one of b, c, p, u"),
    (f"{DEVICE}.deviceNodes[0].major", "25", "expected an integer"),
    (f"{DEVICE}.deviceNodes[0].permissions", "rx", 'invalid permissions "rx"'),
    (f"{DEVICE}.deviceNodes[0].mode", 1, "unknown field"),
    (f"{DEVICE}.mounts[0].containerPath", ..., "missing"),
    (f"{DEVICE}.hooks[0].timeout", 0, "expected an integer from 1 to 4294967295"),
    (f"{DEVICE}.hooks[0].env[0]", "B", 'invalid environment variable "B"'),
    (f"{DEVICE}.intelRdt.closID", "a/b", 'invalid closID "a/b"'),
    (f"{DEVICE}.additionalGids[0]", -1, "expected an integer from 0 to 4294967295"),
    ("devices[0].annotations", {"-x": ""}, '"-x" is not an annotation key'),
    ("annotations", {"a": "x" * (1 << 18)}, "larger than 262144 bytes"),
    ("cdiVersion", "1.0.0", f"{DEVICE}.netDevices: needs cdiVersion 1.1.0 or later, not 1.0.0"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), FAULTS)
def test_a_fault_is_named_with_its_place(place, value, message):
    with pytest.raises(ConfigError) as caught:
        rules.check(spec(**{place: value}))
    assert str(caught.value) in (message, f"{place}: {message}")


def test_a_device_is_given_once():
    twice = spec()
    twice["devices"] *= 2
    with pytest.raises(ConfigError, match=r'devices\[1\].name: device "0" is given twice'):
        rules.check(twice)


def test_a_network_device_is_given_once():
    devices = [{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "b", "name": "x"}]
    with pytest.raises(ConfigError, match='netDevices: network device "x" is given twice'):
        rules.check(spec(**{f"{DEVICE}.netDevices": devices}))


def test_a_newer_file_may_hold_what_we_do_not_know():
    rules.check(spec(cdiVersion="v1.2.0", future=1, **{f"{DEVICE}.future": {}}))


@pytest.mark.parametrize("name", ["acme.com/card=0", "a/b.c=GPU-1:2.3", "a/b=all"])
def test_a_qualified_name_has_three_parts(name):
    assert "=".join(rules.split(name)) == name


NO_NAMES = [
    "", "0", "a=b", "a/b", "a/b=", "a/b=c=d", "a/b/c=d", "1a/b=c", "a/b=c/d", "a/b= c", "ä/b=c",
]  # fmt: skip


@pytest.mark.parametrize("name", NO_NAMES)
def test_anything_else_is_no_name(name):
    with pytest.raises(ConfigError, match="is not a CDI device name"):
        rules.split(name)


def verdict(document):
    try:
        rules.check(document)
    except ConfigError:
        return False
    return True


def by_models(document):
    pydantic = pytest.importorskip("pydantic")
    from oci_spec.cdi import Spec

    try:
        Spec.parse(document)
    except pydantic.ValidationError:
        return False
    return True


@pytest.mark.parametrize(("place", "value", "message"), FAULTS)
def test_the_models_refuse_the_same(place, value, message):
    assert not by_models(spec(**{place: value}))


def test_the_models_agree_on_anything():
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    versions = st.sampled_from([*rules.VERSIONS, "1.2.0", "v0.6.0"])

    @hypothesis.settings(max_examples=300, deadline=None, database=None)
    @hypothesis.given(mutated(versions.map(lambda version: spec(cdiVersion=version))))
    def agree(document):
        expected = by_models(document)  # first: our check takes nulls out
        assert verdict(document) == expected

    agree()
