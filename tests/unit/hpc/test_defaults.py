"""What a site gives to who asks for nothing, and what a host without devices means to it."""

from __future__ import annotations

import pytest

from ocirt import hpc
from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine, eight, install
from tests.unit.hpc.sites import Place

ALL = '[nvidia]\nrequest-default = "all"\n'
JOB = '[nvidia]\nrequest-default = "job"\n'


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_JOB_ID", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path):
    machine = eight(tmp_path / "host")
    install(machine)
    machine.host()
    return Place(tmp_path, machine)


@pytest.fixture
def bare(tmp_path):
    machine = Machine(tmp_path / "host")
    machine.host()
    return Place(tmp_path, machine)


def gpus(made):
    nodes = made.config["linux"].get("devices", ()) if made else ()
    return [node["path"][11:] for node in nodes if node["path"][11:].isdecimal()]


def test_a_site_gives_gpus_to_who_asks_for_none(place):
    made = place.ask(ALL)
    assert len(gpus(made)) == 8
    assert {row["allowed"] for row in made.report} == {"a setting of the site"}


def test_who_says_void_or_names_some_decides(place):
    assert place.ask(ALL, env=["NVIDIA_VISIBLE_DEVICES=void"]) is None
    assert gpus(place.ask(ALL, env=["NVIDIA_VISIBLE_DEVICES=0"])) == ["2"]
    assert gpus(place.ask(ALL, annotations={"ocirt.hpc/gpus": "none"})) == []


def test_a_job_has_its_gpus_and_nobody_else_has_any(place, monkeypatch):
    assert place.ask(JOB) is None
    monkeypatch.setenv("SLURM_STEP_GPUS", "0,1")
    made = place.ask(JOB)
    assert gpus(made) == ["0", "1"]
    assert "CUDA_VISIBLE_DEVICES=0,1" in made.config["process"]["env"]


def test_a_node_without_gpus_is_no_matter(bare):
    made = bare.ask(ALL)
    assert gpus(made) == []
    assert [row["allowed"] for row in made.report] == ["left out"]


def test_the_setting_wakes_the_stage_for_every_container(tmp_path):
    (tmp_path / "hpc.toml").write_text(JOB)
    assert hpc.mentioned([], str(tmp_path))


ASKS = [
    # environment, annotations, whether devices were named
    (["NVIDIA_VISIBLE_DEVICES=all"], {}, False),
    (["NVIDIA_VISIBLE_DEVICES=0"], {}, True),
    ([], {"ocirt.hpc/rdma": "all"}, False),
    ([], {"ocirt.hpc/rdma": "mlx5_0"}, True),
    (["AMD_VISIBLE_DEVICES=all"], {}, False),
]


@pytest.mark.parametrize(("env", "annotations", "named"), ASKS)
@pytest.mark.parametrize("how", ["auto", "error", "warn", "ignore"])
def test_a_host_without_devices(bare, capfd, how, env, annotations, named):
    text = f'[stage]\non-missing = "{how}"\n'
    if how == "error" or (how == "auto" and named):
        with pytest.raises(ConfigError, match=r"is no|has no|no NVIDIA driver"):
            bare.ask(text, env=env, annotations=annotations)
        return
    made = bare.ask(text, env=env, annotations=annotations)
    assert [row["allowed"] for row in made.report] == ["left out"]
    assert ("level=warning" in capfd.readouterr().err) is (how != "ignore")
