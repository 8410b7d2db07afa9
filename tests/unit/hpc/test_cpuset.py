"""CPUs and memory near the devices: what is told, what is applied, and to whom."""

from __future__ import annotations

import os

import pytest
from ocirt_hpc import cpuset

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import cluster_node, install
from tests.unit.hpc.sites import BASE, Place

NEAR = {"cpus": "0-31,64-95", "mems": "0"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    machine = cluster_node(tmp_path / "host")
    install(machine)
    machine.host()
    # What this process may use, as the kernel words it.
    ours = {"Cpus_allowed_list": "0-127", "Mems_allowed_list": "0-1"}
    monkeypatch.setattr(cpuset.procfs, "field", lambda pid, name: ours.get(name, "0"))
    place = Place(tmp_path, machine)
    place.ours = ours
    return place


def ask(place, text="", gpus="0", asked=None, **options):
    annotations = {"ocirt.hpc/gpus": gpus, **({"ocirt.hpc/cpuset": asked} if asked else {})}
    return place.ask(text, annotations=annotations, **options)


def cpu(made):
    return (made.config["linux"]["resources"]).get("cpu")


def advice(made):
    return [row["what"] for row in made.report if row["allowed"] == "advice"]


APPLY = '[topology]\ncpuset = "apply"\n'


def test_it_is_told_and_not_applied(place):
    made = ask(place)
    assert cpu(made) is None
    assert advice(made) == ["nearest to the devices: CPUs 0-31,64-95, memory of NUMA node 0"]


def test_a_site_can_apply_it_or_not_care(place):
    made = ask(place, APPLY)
    assert cpu(made) == NEAR
    assert made.name("linux.resources.cpu.cpus") == "topology.cpuset=apply: cpuset[0]"
    assert advice(made) == []
    assert advice(ask(place, '[topology]\ncpuset = "off"\n')) == []


def test_a_caller_can_ask_for_it_or_refuse_it(place):
    made = ask(place, asked="nearest")
    assert cpu(made) == NEAR
    assert "annotations are the caller's" in {row["allowed"] for row in made.report}
    assert cpu(ask(place, APPLY, asked="none")) is None
    with pytest.raises(ConfigError, match=r"annotations.ocirt.hpc/cpuset: expected nearest or"):
        ask(place, asked="0-3")


def test_what_the_config_says_itself_stays(place):
    linux = {**BASE["linux"], "resources": {"cpu": {"cpus": "7", "shares": 512}}}
    made = ask(place, APPLY, config={**BASE, "linux": linux})
    assert cpu(made) == {"cpus": "7", "shares": 512}
    assert any(row["what"].endswith("(the config's own stays)") for row in made.report)


def test_nothing_goes_beyond_what_we_have(place):
    place.ours["Cpus_allowed_list"] = "16-40"
    assert cpu(ask(place, APPLY)) == {"cpus": "16-31", "mems": "0"}
    place.ours["Cpus_allowed_list"] = "32-40"
    made = ask(place, APPLY)
    assert cpu(made) is None
    assert "we have none of what is nearest ourselves" in str(made.report)


def test_gpus_on_every_node_are_near_to_all(place):
    made = ask(place, gpus="0,4")
    assert advice(made) == []
    assert cpu(ask(place, APPLY, gpus="all")) is None
    made = ask(place, gpus="all", asked="nearest")
    assert "no CPUs are nearer to these devices than others" in str(made.report)


def test_a_nic_without_a_gpu_counts_too(place):
    made = place.ask(APPLY, annotations={"ocirt.hpc/rdma": "mlx5_4"})
    assert cpu(made) == {"cpus": "32-63,96-127", "mems": "1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device nodes")
def test_who_has_no_cgroup_is_let_be(place):
    place.machine.make_nodes()
    assert cpu(ask(place, APPLY, rootless=True)) is None
    assert cpu(ask(place, asked="nearest", rootless=True)) == NEAR


def test_a_machine_that_says_nothing(tmp_path):
    from tests.unit.hpc.machines import eight

    machine = eight(tmp_path / "host")
    install(machine)
    machine.host()
    made = Place(tmp_path, machine).ask(APPLY, annotations={"ocirt.hpc/gpus": "0"})
    assert cpu(made) is None


@pytest.mark.parametrize(
    ("listed", "again"),
    [("0-3,8", "0-3,8"), ("", ""), ("3,1,2", "1-3"), ("5", "5"), ("x,1-,2", "2"), ("0", "0")],
)
def test_lists_of_numbers(listed, again):
    assert cpuset.text(cpuset.numbers(listed)) == again
