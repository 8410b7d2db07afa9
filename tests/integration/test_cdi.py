"""CDI devices in a real container: nodes, the right to use them, environment, mounts, hooks.

CDI specification 1.1.0; ocirt --device NAME with --cdi-spec-dir DIR.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.integration.support import only_ocirt

pytestmark = only_ocirt("other runtimes leave CDI to engines")

DENY_ALL = {"allow": False, "access": "rwm"}
# Majors that no driver of this machine has: opening gives ENXIO if it is allowed at all.
CARD, OTHER = (240, 7), (240, 8)


@pytest.fixture
def cards(workdir):
    """A directory of CDI files, and the nodes of a driver that is not there."""
    folder = f"{workdir}/host"
    os.mkdir(folder)
    os.mknod(f"{folder}/card", 0o20640, os.makedev(*CARD))
    with open(f"{folder}/libcard.so", "w") as file:
        file.write("library\n")
    with open(f"{folder}/hook", "w") as file:
        file.write(f'#!/bin/sh\ncat > {folder}/hooked\necho "$0 $*" >> {folder}/hooked\n')
    os.chmod(f"{folder}/hook", 0o755)
    library = {"hostPath": f"{folder}/libcard.so", "containerPath": "/usr/lib/libcard.so"}
    hook = {"hookName": "createContainer", "path": f"{folder}/hook", "args": ["hook", "links"]}
    spec = {
        "cdiVersion": "0.7.0",
        "kind": "acme.com/card",
        "containerEdits": {
            "mounts": [{**library, "options": ["ro", "bind"]}],
            "hooks": [hook],
            "additionalGids": [44],
        },
        "devices": [
            {
                "name": "0",
                "containerEdits": {
                    "env": ["CARD=zero"],
                    "deviceNodes": [{"path": "/dev/card", "hostPath": f"{folder}/card"}],
                },
            },
            {
                "name": "null",
                "containerEdits": {
                    "deviceNodes": [
                        {"path": "/dev/void", "hostPath": "/dev/null", "permissions": "w"}
                    ]
                },
            },
            {
                "name": "gone",
                "containerEdits": {"deviceNodes": [{"path": f"{folder}/missing"}]},
            },
        ],
    }
    with open(f"{folder}/cards.json", "w") as file:
        json.dump(spec, file)
    return folder


def run(runtime, cards, bundle, *names, options=()):
    devices = [f"--device=acme.com/card={name}" for name in names]
    return runtime(
        "--cdi-spec-dir", cards, *options, "run", "--bundle", bundle.path, *devices, bundle.id
    )


def test_a_device_comes_with_all_that_belongs_to_it(runtime, bundle, cards):
    b = bundle.sh(
        "stat -c '%F %t:%T %a' /dev/card; echo $CARD; cat /usr/lib/libcard.so; id -G; "
        "echo x > /usr/lib/libcard.so || echo read-only",
    )
    result = run(runtime, cards, b, "0")
    assert result.out.splitlines() == [
        "character special file f0:7 640",
        "zero",
        "library",
        "0 44",
        "read-only",
    ], str(result)
    with open(f"{cards}/hooked") as file:
        state, call = file.read().rsplit("\n", 2)[0], file.seek(0) or file.read().splitlines()[-1]
    assert b.id in state
    assert call.endswith("links")


def test_only_the_nodes_of_the_device_may_be_used(runtime, bundle, cards):
    other = {"path": "/dev/other", "type": "c", "major": OTHER[0], "minor": OTHER[1]}
    b = bundle.sh(
        "for n in card other; do head -c 1 /dev/$n; done; true",
        linux={"devices": [other], "resources": {"devices": [DENY_ALL]}},
    )
    lines = run(runtime, cards, b, "0").err.splitlines()
    assert len(lines) == 2, lines
    assert "No such device or address" in lines[0]
    assert "Operation not permitted" in lines[1]


def test_permissions_of_the_file_hold(runtime, bundle, cards):
    # /dev/null itself is a default device: its rule stays, under any name.
    b = bundle.sh("echo x > /dev/void && stat -c %t:%T /dev/void")
    result = run(runtime, cards, b, "null")
    assert result.out.strip() == "1:3", str(result)


def test_a_user_namespace_gets_the_hosts_node(runtime, bundle, cards):
    mappings = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    b = bundle.sh("stat -c '%F %t:%T' /dev/void; echo x > /dev/void && echo written")
    b.config["linux"]["namespaces"].append({"type": "user"})
    b.config["linux"]["uidMappings"] = b.config["linux"]["gidMappings"] = mappings
    b.save()
    with open(f"{cards}/cards.json") as file:
        spec = json.load(file)
    spec["containerEdits"] = {}
    with open(f"{cards}/cards.json", "w") as file:
        json.dump(spec, file)
    result = run(runtime, cards, b, "null")
    assert result.out.splitlines() == ["character special file 1:3", "written"], str(result)


def test_annotations_count_where_the_site_says_so(runtime, bundle, cards):
    annotations = {"cdi.k8s.io/card": "acme.com/card=0"}
    b = bundle.sh("echo ${CARD:-none}", annotations=annotations)
    assert run(runtime, cards, b).out.strip() == "none"
    assert run(runtime, cards, b, options=["--cdi-annotations"]).out.strip() == "zero"


def test_another_process_has_the_environment_too(runtime, bundle, cards):
    b = bundle.sleeping()
    runtime.ok(
        "--cdi-spec-dir", cards, "run", "--detach", "--bundle", b.path,
        "--device", "acme.com/card=0", b.id, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert runtime.ok("exec", b.id, "sh", "-c", "echo $CARD").out.strip() == "zero"


REFUSED = [
    # device, sentence
    ("7", "acme.com/card=7: no such CDI device (have 0, gone, null)"),
    ("gone", "acme.com/card=gone: deviceNodes[0]: "),
]


@pytest.mark.parametrize(("name", "sentence"), REFUSED)
def test_what_cannot_be_given_is_refused_before_anything_exists(
    runtime, bundle, cards, name, sentence
):
    b = bundle("true")
    result = run(runtime, cards, b, name)
    runtime.check_refusal(result, "", sentence)
    assert not os.path.exists(f"{runtime.root}/{b.id}")
    assert not os.path.exists(f"{cards}/hooked")
