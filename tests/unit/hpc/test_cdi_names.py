"""Names of NVIDIA's CDI devices that no CDI file describes: the stage knows them by itself."""

from __future__ import annotations

import pytest

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import cluster_node, install
from tests.unit.hpc.sites import Place

POLICY = "[policy]\ncdi-annotations = true\n"
NOTED = {"cdi.k8s.io/nvidia-device-plugin_0": "nvidia.com/gpu=0"}


@pytest.fixture
def place(tmp_path):
    machine = cluster_node(tmp_path / "host")
    install(machine)
    machine.host()
    (tmp_path / "cdi").mkdir()
    return Place(tmp_path, machine)


def nodes(made):
    return [node["path"] for node in made.config["linux"].get("devices", ())] if made else []


def ask(place, text="", **options):
    options.setdefault("directories", [str(place.path / "cdi")])
    return place.ask(text, **options)


def test_by_the_command_line(place):
    made = ask(place, devices=["nvidia.com/gpu=1"])
    assert "/dev/nvidia3" in nodes(made)


def test_by_an_annotation_where_the_site_says_so(place):
    assert ask(place, annotations=NOTED) is None
    made = ask(place, POLICY, annotations=NOTED)
    assert "/dev/nvidia2" in nodes(made)
    assert {row["allowed"] for row in made.report if row["edit"]} == {"policy.cdi-annotations"}


def test_what_an_engine_has_resolved_is_left(place):
    made = ask(place, POLICY, annotations=NOTED, env=["NVIDIA_VISIBLE_DEVICES=void"])
    assert nodes(made) == []
    assert made.report[0]["what"] == "an engine has put it in already"


def test_a_cdi_file_that_describes_the_kind_decides(place):
    (place.path / "cdi/nvidia.json").write_text(
        '{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": '
        '[{"name": "9", "containerEdits": {"env": ["NINE=1"]}}]}'
    )
    assert "NINE=1" in ask(place, devices=["nvidia.com/gpu=9"]).config["process"]["env"]
    with pytest.raises(ConfigError, match=r"nvidia.com/gpu=0: no such CDI device"):
        ask(place, POLICY, annotations=NOTED)


def test_the_sandbox_of_a_pod_gets_nothing(place):
    annotations = {"ocirt.hpc/gpus": "all", "io.kubernetes.cri.container-type": "sandbox"}
    assert nodes(ask(place, annotations=annotations)) == []
    annotations["io.kubernetes.cri.container-type"] = "container"
    assert len(nodes(ask(place, annotations=annotations))) == 8 + 3
