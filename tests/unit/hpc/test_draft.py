"""Requested devices on their way through `ocirt plan`: the whole way from option to line."""

from __future__ import annotations

import json

import pytest

from ocirt import cli

CARDS = {
    "cdiVersion": "1.1.0",
    "kind": "acme.com/card",
    "devices": [
        {
            "name": "0",
            "containerEdits": {
                "env": ["CARD=0"],
                "deviceNodes": [
                    {"path": "/dev/card", "hostPath": "/dev/host0", "type": "c", "major": 240}
                ],
                "mounts": [{"hostPath": "/usr", "containerPath": "/opt/card"}],
            },
        },
        {
            "name": "bad",
            "containerEdits": {"mounts": [{"hostPath": "/", "containerPath": "/../x"}]},
        },
        {
            "name": "net",
            "containerEdits": {"netDevices": [{"hostInterfaceName": "eth1", "name": "data0"}]},
        },
    ],
}


@pytest.fixture
def plan(tmp_path, capfd):
    """Plan a bundle with CDI devices; return (exit code, rows or message)."""
    (tmp_path / "rootfs").mkdir()
    assert cli.main(["spec", "-b", str(tmp_path)]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"]["terminal"] = False
    (tmp_path / "cdi").mkdir()
    (tmp_path / "cdi/cards.json").write_text(json.dumps(CARDS))

    def plan(*names, options=(), **changes):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        argv = ["--cdi-spec-dir", str(tmp_path / "cdi"), "--cgroup-manager", "disabled", *options]
        argv += ["plan", "--format", "json", *[f"--device={name}" for name in names]]
        code = cli.main([*argv, str(tmp_path)])
        out, err = capfd.readouterr()
        return (code, json.loads(out)) if code == 0 else (code, err)

    return plan


def rows(result, origin="acme.com/"):
    code, found = result
    assert code == 0, found
    return [(row["op"], row["what"], row["from"]) for row in found if origin in row["from"]]


def test_the_lines_of_the_plan_name_the_device(plan):
    assert rows(plan("acme.com/card=0")) == [
        ("bind", "/usr on /opt/card", "acme.com/card=0: mounts[0]"),
        ("node", "/dev/card c 240:0", "acme.com/card=0: deviceNodes[0]"),
    ]


def test_the_environment_reaches_the_program(plan):
    _, found = plan("acme.com/card=0")
    (program,) = [row for row in found if row["op"] == "program"]
    assert "CARD=0" in program["arguments"]["env"]


def test_a_node_that_has_to_be_bound_is_the_hosts(plan):
    _, found = plan("acme.com/card=0")
    (node,) = [row for row in found if row["what"] == "/dev/card c 240:0"]
    assert node["arguments"]["source"] == "/dev/host0"


def test_what_a_device_must_not_ask_for_is_refused_by_its_name(plan):
    code, message = plan("acme.com/card=bad")
    assert code == 1
    assert "acme.com/card=bad: mounts[0].containerPath: /../x climbs by .." in message


def test_a_network_device_is_moved_by_the_name_of_its_device(plan):
    assert rows(plan("acme.com/card=net")) == [
        ("ask", "move in eth1 as data0", "acme.com/card=net: netDevices[0]"),
    ]


def test_an_unknown_device_is_refused(plan):
    code, message = plan("acme.com/card=7", "acme.com/card=0")
    assert code == 1
    assert "acme.com/card=7: no such CDI device (have 0, bad, net)" in message


ASKING = {"cdi.k8s.io/vendor_0": "acme.com/card=0"}


def test_annotations_count_only_where_the_caller_says_so(plan):
    assert rows(plan(annotations=ASKING)) == []
    assert len(rows(plan(annotations=ASKING, options=["--cdi-annotations"]))) == 2


def test_annotations_that_an_engine_has_resolved_are_left_alone(plan):
    device = {"path": "/dev/card", "type": "c", "major": 240, "minor": 0}
    linux = {"namespaces": [{"type": "mount"}], "devices": [device]}
    result = plan(annotations=ASKING, linux=linux, options=["--cdi-annotations"], hostname="")
    assert rows(result) == []


def test_an_option_counts_in_any_case(plan):
    device = {"path": "/dev/card", "type": "c", "major": 1, "minor": 3}
    linux = {"namespaces": [{"type": "mount"}], "devices": [device]}
    found = rows(plan("acme.com/card=0", linux=linux, hostname=""))
    assert ("node", "/dev/card c 240:0", "acme.com/card=0: deviceNodes[0]") in found
