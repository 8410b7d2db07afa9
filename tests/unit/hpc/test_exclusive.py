"""RDMA devices on a host that keeps each in one network namespace: who gets one moved in."""

from __future__ import annotations

import os

import pytest
from ocirt_hpc import exclusive, request

from ocirt.errors import ConfigError
from tests.unit.hpc import sites
from tests.unit.hpc.machines import Machine

NETWORK = [{"type": "mount"}, {"type": "network"}]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(exclusive, "active", lambda host: True)
    made = Machine(tmp_path / "host")
    made.nic("mlx5_0", "0000:41:00.0")
    made.nic("mlx5_1", "0000:c1:00.0")
    return made


def run(machine, tmp_path, env=(), annotations=None, namespaces=NETWORK, settings="", **caller):
    config = {
        "process": {"env": list(env)},
        "annotations": annotations or {},
        "linux": {"namespaces": namespaces},
    }
    return sites.run(config, machine, tmp_path, tmp_path, settings, **caller)


def test_a_device_that_the_caller_names_moves(machine, tmp_path):
    applied = run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "mlx5_1:1"})
    assert applied.rdma_devices == {
        "mlx5_1": "ocirt.hpc/rdma=mlx5_1:1: rdmaDevices[0]",
    }
    (row,) = [row for row in applied.report if row["edit"] == "rdmaDevices"]
    assert row["what"] == "mlx5_1 moves into the container's network namespace"


@pytest.mark.parametrize(
    "namespaces",
    [
        [{"type": "mount"}],
        [{"type": "network", "path": "/proc/self/ns/net"}],
        [{"type": "network", "path": f"/proc/{os.getpid()}/ns/net"}],
    ],
)
def test_nothing_moves_within_the_hosts_network(machine, tmp_path, namespaces):
    asked = {"ocirt.hpc/rdma": "all"}
    applied = run(machine, tmp_path, annotations=asked, namespaces=namespaces)
    assert applied.rdma_devices == {}
    assert len(applied.config["linux"]["devices"]) == 3


def test_nothing_moves_where_a_profile_shares_the_network(machine, tmp_path):
    asked = {"ocirt.hpc/rdma": "all"}
    applied = run(machine, tmp_path, annotations=asked, profile="hpc-job")
    assert applied.rdma_devices == {}


def test_nothing_moves_in_mode_shared(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(exclusive, "active", lambda host: False)
    assert run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "all"}).rdma_devices == {}


def test_a_variable_takes_no_device_from_the_host(machine, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(machine, tmp_path, env=["OCIRT_RDMA_DEVICES=mlx5_0"])
    assert str(caught.value) == (
        "process.env: OCIRT_RDMA_DEVICES=mlx5_0: RDMA devices are the host's network namespace's"
        " alone (rdma system), and variables do not have one moved here (rdma.move in hpc.toml)"
    )
    applied = run(machine, tmp_path, env=["MELLANOX_VISIBLE_DEVICES=all"])
    assert applied.rdma_devices == {}
    assert "linux" not in applied.config or "devices" not in applied.config["linux"]
    assert "variables do not have one moved" in applied.report[-1]["what"]


def test_a_site_lets_variables_have_devices_moved_or_nobody(machine, tmp_path):
    env = ["OCIRT_RDMA_DEVICES=mlx5_0"]
    moved = run(machine, tmp_path, env=env, settings='[rdma]\nmove = "any"\n').rdma_devices
    assert list(moved) == ["mlx5_0"]
    asked = {"ocirt.hpc/rdma": "mlx5_0"}
    with pytest.raises(ConfigError, match=r"the site has none moved \(rdma.move in hpc.toml\)$"):
        run(machine, tmp_path, annotations=asked, settings='[rdma]\nmove = "never"\n')


def test_without_roots_rights_none_moves(machine, tmp_path):
    with pytest.raises(ConfigError, match=r"only root can move one: use the host's network$"):
        run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "mlx5_0"}, rootless=True)


def test_a_filter_for_another_runtime_moves_nothing(machine, tmp_path, capfd):
    with pytest.raises(ConfigError) as caught:
        run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "mlx5_0"}, foreign=True)
    assert str(caught.value) == (
        "annotations.ocirt.hpc/rdma: RDMA devices are the host's network namespace's alone"
        " (rdma system), and another runtime moves none: use the host's network"
    )
    applied = run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "all"}, foreign=True)
    assert "devices" not in applied.config["linux"]
    assert capfd.readouterr().err.count("another runtime moves none") == 1
    inside = [{"type": "mount"}]
    applied = run(
        machine, tmp_path, annotations={"ocirt.hpc/rdma": "all"}, foreign=True, namespaces=inside
    )
    assert len(applied.config["linux"]["devices"]) == 3


def test_a_device_on_its_way_back_is_waited_for(machine, monkeypatch):
    from time import sleep

    name = machine.root / "sys/class/infiniband/mlx5_1"
    there = os.readlink(name)
    name.unlink()
    waits = []

    def pause(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            name.symlink_to(there)
        sleep(0)

    monkeypatch.setattr("time.sleep", pause)
    asked = request.Asked("mlx5_1", "test", "test")
    assert [one.name for one in exclusive.find(machine.host(), asked)] == ["mlx5_0", "mlx5_1"]
    assert len(waits) == 3


def test_a_device_that_does_not_come_is_missed_in_the_end(machine, monkeypatch):
    monkeypatch.setattr(exclusive, "PATIENCE", 0.05)
    asked = request.Asked("mlx5_7", "test", "test")
    assert [one.name for one in exclusive.find(machine.host(), asked)] == ["mlx5_0", "mlx5_1"]


# --- limits of the rdma cgroup


def limits(applied):
    return applied.config["linux"].get("resources", {}).get("rdma")


def test_the_site_limits_what_a_container_holds_of_each_device(machine, tmp_path):
    settings = "[rdma]\nhca-handles = 4\nhca-objects = 2000\n"
    applied = run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "all"}, settings=settings)
    held = {"hcaHandles": 4, "hcaObjects": 2000}
    assert limits(applied) == {"mlx5_0": held, "mlx5_1": held}


def test_a_caller_may_ask_for_less_and_not_for_more(machine, tmp_path):
    asked = {
        "ocirt.hpc/rdma": "mlx5_0",
        "ocirt.hpc/rdma-handles": "2",
        "ocirt.hpc/rdma-objects": "9000",
    }
    settings = "[rdma]\nhca-handles = 4\nhca-objects = 2000\n"
    applied = run(machine, tmp_path, annotations=asked, settings=settings)
    assert limits(applied) == {"mlx5_0": {"hcaHandles": 2, "hcaObjects": 2000}}
    del asked["ocirt.hpc/rdma-objects"]
    assert limits(run(machine, tmp_path, annotations=asked)) == {"mlx5_0": {"hcaHandles": 2}}
    assert limits(run(machine, tmp_path, annotations={"ocirt.hpc/rdma": "mlx5_0"})) is None


@pytest.mark.parametrize("value", ["", "-1", "lots", str(1 << 31)])
def test_a_limit_that_is_no_number_is_refused(machine, tmp_path, value):
    asked = {"ocirt.hpc/rdma": "mlx5_0", "ocirt.hpc/rdma-handles": value}
    with pytest.raises(ConfigError, match=r"annotations.ocirt.hpc/rdma-handles: .* not a number"):
        run(machine, tmp_path, annotations=asked)
