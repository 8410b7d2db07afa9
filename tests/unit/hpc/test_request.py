"""What is asked for, by options and by annotations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ocirt_hpc import request
from ocirt_hpc.notes import Notes

from ocirt.cli import hpc as cli
from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import Place


def test_options_count_once_and_keep_their_order():
    assert request.by_option(["a/b=2", "a/b=1", "a/b=2"]) == ["a/b=2", "a/b=1"]


def test_a_wrong_option_is_named():
    with pytest.raises(ConfigError, match='--device: "gpu" is not a CDI device name'):
        request.by_option(["gpu"])


def test_annotations_hold_lists():
    annotations = {"cdi.k8s.io/x_0": "a/b=1,a/b=2", "cdi.k8s.io/y": "a/b=1,c/d=e", "z/cdi": "?"}
    assert request.by_annotations({"annotations": annotations}) == ["a/b=1", "a/b=2", "c/d=e"]


def test_a_wrong_annotation_is_named():
    with pytest.raises(ConfigError, match=r'annotations.cdi.k8s.io/x: "0" is not a CDI'):
        request.by_annotations({"annotations": {"cdi.k8s.io/x": "a/b=1,0"}})


def test_a_config_without_annotations_asks_for_nothing():
    assert request.by_annotations({}) == []


@pytest.mark.parametrize(
    ("env", "annotations", "names"),
    [
        ([], {}, None),
        (["MELLANOX_VISIBLE_DEVICES=void"], {}, None),
        (["MELLANOX_VISIBLE_DEVICES=none"], {}, None),
        (["MELLANOX_VISIBLE_DEVICES=0,1"], {}, ["0", "1"]),
        (["MELLANOX_VISIBLE_DEVICES=0", "OCIRT_RDMA_DEVICES=nearest"], {}, ["nearest"]),
        (["NVIDIA_MOFED=enabled"], {}, ["all"]),
        (["NVIDIA_MOFED=yes"], {}, None),
        (["MELLANOX_VISIBLE_DEVICES=all"], {"ocirt.hpc/rdma": "none"}, ["none"]),
    ],
)
def test_who_asks_for_rdma(env, annotations, names):
    config = {"process": {"env": env}, "annotations": annotations}
    asked = request.rdma(config, Notes(), env_requests=True)
    assert (asked and asked.names) == names
    allowed = request.rdma(config, Notes(), env_requests=False)
    assert (allowed and allowed.names) == (names if annotations else None)


def test_a_list_has_commas_or_blanks():
    assert request.split("0, 2") == request.split("0 2") == request.split("0,2") == ["0", "2"]
    assert request.split("0,,2") == ["0", "", "2"]
    assert request.split("") == [""]


@pytest.mark.parametrize(
    ("key", "value", "is_one"),
    [
        ("io.kubernetes.cri.container-type", "sandbox", True),
        ("io.kubernetes.cri-o.ContainerType", "sandbox", True),
        ("io.kubernetes.cri.container-type", "container", False),
        ("other", "sandbox", False),
    ],
)
def test_a_sandbox_is_known_by_its_engines_word(key, value, is_one):
    assert request.is_sandbox({"annotations": {key: value}}) is is_one


# --- annotations of ours


@pytest.mark.parametrize("key", ["gpu", "GPUS", "", "gpus/", "cxi2", "rdma-handle"])
def test_a_misspelt_annotation_is_an_error(key):
    config = {"annotations": {"org.example/gpu": "1", f"ocirt.hpc/{key}": "all"}}
    with pytest.raises(ConfigError) as caught:
        request.check(config, ["cxi"])
    assert str(caught.value).startswith(
        f"annotations.ocirt.hpc/{key}: unknown annotation (have cpuset, cxi, enabled, "
    )


def test_the_stage_asks_for_that(tmp_path):
    place = Place(tmp_path, Machine(tmp_path / "host"))
    with pytest.raises(ConfigError, match="unknown annotation"):
        place.ask("", annotations={"ocirt.hpc/gpu": "all"})
    fpga = '[device.fpga]\nfind = "/dev/fpga#"\n'
    assert place.ask(fpga, annotations={"ocirt.hpc/fpga": "none"}) is None
    assert place.ask("[stage]\nenabled = false\n", annotations={"ocirt.hpc/gpu": "1"}) is None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("user", "drop", "expected keep"),
        ("cpuset", "0-3", "expected nearest or none"),
        ("gpus", "all,none", 'has "none" beside others'),
        ("cxi", "none 0", 'has "none" beside others'),
    ],
)
def test_a_value_that_means_nothing_is_an_error(key, value, words):
    with pytest.raises(ConfigError) as caught:
        request.check({"annotations": {f"ocirt.hpc/{key}": value}}, ["cxi"])
    assert str(caught.value) == f"annotations.ocirt.hpc/{key}: {words}"


@pytest.mark.parametrize("key", request.GO_WITH)
def test_what_comes_to_nothing_alone_is_told(tmp_path, capfd, key):
    machine = Machine(tmp_path / "host")
    machine.nic("mlx5_0", "0000:41:00.0")
    machine.gpu("0000:07:00.0", 0)
    place = Place(tmp_path, machine)
    made = place.ask("", annotations={f"ocirt.hpc/{key}": "1"})
    what = f"the container gets no {request.GO_WITH[key]}"
    assert [(row["from"], row["what"]) for row in made.report] == [(f"ocirt.hpc/{key}=1", what)]
    assert f"ocirt.hpc/{key}=1: {what}; left out" in capfd.readouterr().err


def test_every_annotation_of_ours_is_known():
    home = Path(request.__file__).parent
    texts = [path.read_text() for path in (*home.rglob("*.py"), Path(cli.__file__))]
    used = {word for text in texts for word in re.findall(r'"ocirt\.hpc/([a-z-]+)"', text)}
    assert used == set(request.WORDS)
