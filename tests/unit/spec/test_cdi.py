"""Container Device Interface files, held to their text."""

from __future__ import annotations

import pytest

pydantic = pytest.importorskip("pydantic")
from oci_spec.cdi import ContainerEdits, Device, Spec  # noqa: E402

from tests.unit.documents import put  # noqa: E402


def spec(**changes):
    document = {
        "cdiVersion": "1.1.0",
        "kind": "vendor.example/net-card",
        "annotations": {"example.com/owner": "x"},
        "devices": [
            {
                "name": "0",
                "annotations": {"a": "b"},
                "containerEdits": {
                    "env": ["CARD=0"],
                    "deviceNodes": [
                        {
                            "path": "/dev/card0",
                            "hostPath": "/vendor/dev/card0",
                            "type": "c",
                            "major": 25,
                            "minor": 25,
                            "fileMode": 384,
                            "permissions": "rw",
                            "uid": 1000,
                            "gid": 1000,
                        }
                    ],
                    "netDevices": [{"hostInterfaceName": "eth1", "name": "data0"}],
                },
            }
        ],
        "containerEdits": {
            "mounts": [
                {
                    "hostPath": "/usr/lib/x.so",
                    "containerPath": "/usr/lib/x.so",
                    "type": "bind",
                    "options": ["ro", "bind"],
                }
            ],
            "hooks": [{"hookName": "createContainer", "path": "/bin/hook", "timeout": 5}],
            "intelRdt": {"closID": "gold", "schemata": ["L3:0=f"], "enableMonitoring": True},
            "additionalGids": [44],
        },
    }
    for place, value in changes.items():
        put(document, place, value)
    return document


def test_a_file_comes_out_as_it_went_in():
    assert Spec.parse(spec()).document() == spec()


FAULTS = [
    # place, value, part of the message
    ("cdiVersion", ..., "Field required"),
    ("cdiVersion", "1.0", "invalid version"),
    ("cdiVersion", "0.2.0", "invalid version"),
    ("cdiVersion", "1.0.0", r"the spec version must be at least v1\.1\.0"),
    ("kind", "vendor.example", "invalid vendor/class"),
    ("kind", "1vendor/class", "invalid vendor/class"),
    ("kind", "vendor/class-", "invalid vendor/class"),
    ("kind", "vendor/class\n", "invalid vendor/class"),
    ("devices", [], "at least 1 item"),
    ("devices[0].name", "", "invalid device name"),
    ("devices[0].name", "a/b", "invalid device name"),
    ("devices[0].name", "a:", "invalid device name"),
    ("devices[0].containerEdits", {}, "empty device edits"),
    ("devices[0].containerEdits.env", ["=x"], "invalid environment variable"),
    ("devices[0].containerEdits.deviceNodes[0].path", "", "at least 1 character"),
    ("devices[0].containerEdits.deviceNodes[0].type", "x", "Input should be"),
    ("devices[0].containerEdits.deviceNodes[0].permissions", "rx", "invalid permissions"),
    ("devices[0].containerEdits.deviceNodes[0].major", "25", "valid integer"),
    ("devices[0].containerEdits.deviceNodes[0].mode", 1, "Extra inputs are not permitted"),
    ("devices[0].containerEdits.netDevices",
     [{"hostInterfaceName": "a", "name": "x"}, {"hostInterfaceName": "b", "name": "x"}],
     "given twice"),
    ("devices[0].annotations", {"-x": ""}, "not an annotation key"),
    ("devices[0].annotations", {"/x": ""}, "not an annotation key"),
    ("devices[0].annotations", {"a": "x" * (1 << 18)}, "larger than"),
    ("containerEdits.hooks[0].hookName", "poststart2", "Input should be"),
    ("containerEdits.hooks[0].timeout", 0, "greater than or equal to 1"),
    ("containerEdits.intelRdt.closID", "a/b", "invalid closID"),
    ("containerEdits.intelRdt.enableCMT", True, "Extra inputs are not permitted"),
    ("containerEdits.additionalGids", [-1], "greater than or equal to 0"),
    ("unknown", 1, "Extra inputs are not permitted"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "value", "message"), FAULTS)
def test_a_fault_disables_the_file(place, value, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        Spec.parse(spec(**{place: value}))


def test_a_name_is_given_once():
    twice = spec()
    twice["devices"] *= 2
    with pytest.raises(pydantic.ValidationError, match='device "0" is given twice'):
        Spec.parse(twice)


@pytest.mark.parametrize("name", ["0", "gpu0", "a", "GPU-1:2.3_4", "0:1", "all"])
def test_a_device_name_may_begin_with_a_digit_and_hold_signs(name):
    assert Spec.parse(spec(**{"devices[0].name": name}))


def test_a_version_may_have_a_v_in_front():
    assert Spec.parse(spec(cdiVersion="v1.1.0")).version == "v1.1.0"


def test_a_newer_file_may_hold_what_we_do_not_know():
    newer = spec(cdiVersion="1.2.0")
    newer["devices"][0]["containerEdits"]["future"] = {}
    newer["future"] = 1
    assert Spec.parse(newer).devices[0].name == "0"


EDITS = [
    ({"env": ["A=b"]}, "0.3.0"),
    ({"mounts": [{"hostPath": "/a", "containerPath": "/a", "type": "bind"}]}, "0.4.0"),
    ({"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]}, "0.5.0"),
    ({"additionalGids": [1]}, "0.7.0"),
    ({"intelRdt": {"closID": "a"}}, "0.7.0"),
    ({"intelRdt": {"enableMonitoring": True}}, "1.1.0"),
    ({"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}, "1.1.0"),
]


@pytest.mark.parametrize(("edits", "version"), EDITS)
def test_the_lowest_version_that_has_every_field_is_known(edits, version):
    assert ContainerEdits.parse(edits).version() == version
    document = {
        "cdiVersion": version,
        "kind": "vendor/class",
        "devices": [{"name": "a", "containerEdits": edits}],
    }
    assert Spec.parse(document).least_version() == version


def test_names_and_annotations_have_their_versions_too():
    edits = {"env": ["A=b"]}
    assert Device.parse({"name": "0", "containerEdits": edits}).version() == "0.5.0"
    device = {"name": "a", "annotations": {"a": "b"}, "containerEdits": edits}
    assert Device.parse(device).version() == "0.6.0"
    dotted = {
        "cdiVersion": "0.5.0",
        "kind": "vendor/class.x",
        "devices": [{"name": "a", "containerEdits": edits}],
    }
    with pytest.raises(pydantic.ValidationError, match=r"at least v0\.6\.0"):
        Spec.parse(dotted)
