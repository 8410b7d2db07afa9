"""The GPUs of a batch job, and requests that go further."""

from __future__ import annotations

import pytest
from ocirt_hpc.nvidia import allocation, choice, driver

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import UUID, eight

# The minors by index: 2, 3, 0, 1, 6, 7, 4, 5.


@pytest.fixture
def loaded(tmp_path):
    return driver.find(eight(tmp_path).host())


def given(loaded, env, closed=()):
    found = allocation.find(loaded, env, lambda path: path.rpartition("/")[2] not in closed)
    return found and found.indices


JOB = {"SLURM_JOB_ID": "1"}


@pytest.mark.parametrize(
    ("env", "closed", "indices"),
    [
        ({}, (), None),
        ({}, ("nvidia0",), None),  # not a job's doing
        ({"CUDA_VISIBLE_DEVICES": "0"}, (), None),
        ({"SLURM_JOB_GPUS": "0,2-3"}, (), [0, 1, 2]),
        ({"SLURM_JOB_GPUS": "0,1", "SLURM_STEP_GPUS": "5"}, (), [7]),
        (JOB, ("nvidia0", "nvidia1"), [0, 1, 4, 5, 6, 7]),
        (JOB, (), None),
        ({**JOB, "CUDA_VISIBLE_DEVICES": "1,0"}, (), [0, 1]),
        ({"PBS_JOBID": "7", "CUDA_VISIBLE_DEVICES": UUID.format(5)}, (), [7]),
        ({"PBS_JOBID": "7", "CUDA_VISIBLE_DEVICES": UUID.format(5)[:12]}, (), [7]),
        ({"PBS_JOBID": "7", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}, (), None),
    ],
)
def test_who_gives_gpus_to_a_job(loaded, env, closed, indices):
    assert given(loaded, env, closed) == indices


@pytest.mark.parametrize("value", ["x", "0-", "0-x", "99", "1,,2"])
def test_nonsense_of_the_batch_system_is_an_error(loaded, value):
    with pytest.raises(ConfigError, match="SLURM_JOB_GPUS"):
        given(loaded, {"SLURM_JOB_GPUS": value})


def narrow(loaded, names, indices):
    chosen = choice.choose(loaded, names)
    job = allocation.Allocation(indices, "SLURM_JOB_GPUS=2,3")
    return [one.gpu.index for one in allocation.narrow(chosen, names, job)]


def test_a_request_goes_no_further_than_the_job(loaded):
    assert narrow(loaded, ["all"], [0, 1]) == [0, 1]
    assert narrow(loaded, ["1"], [0, 1]) == [1]
    with pytest.raises(ConfigError, match=r"GPU 4 is not of this job \(SLURM.* gives it 0, 1\)"):
        narrow(loaded, ["0", "4"], [0, 1])


@pytest.mark.parametrize(
    ("names", "expected"), [(["0"], "0"), (["5"], "0"), (["3", "1"], "1,0"), (["2", "4"], "0,1")]
)
def test_numbers_inside_count_from_zero(loaded, names, expected):
    assert allocation.renumbered(choice.choose(loaded, names)) == expected


# --- MIG devices


MIG = "MIG-" + UUID.format(2)


@pytest.fixture
def cut(tmp_path):
    machine = eight(tmp_path)
    machine.mig(2, 7)
    machine.mig(2, 9)
    return driver.find(machine.host())


@pytest.mark.parametrize("env", [{"SLURM_JOB_GPUS": "6", "SLURM_STEP_GPUS": "6"}, JOB])
def test_a_job_of_mig_devices_has_these_alone(cut, env):
    env = {**env, "CUDA_VISIBLE_DEVICES": f"{MIG}/9/0"}
    job = allocation.find(cut, env, lambda path: True)
    assert job.indices == [0]
    mine, other = choice.choose(cut, [f"{MIG}/9/0"]), choice.choose(cut, [f"{MIG}/7/0"])
    assert allocation.narrow(mine, [f"{MIG}/9/0"], job) == mine
    assert allocation.narrow(choice.choose(cut, ["all"]), ["all"], job) == mine
    with pytest.raises(ConfigError, match=rf"MIG device {MIG}/7/0 is not of this job \(CUDA"):
        allocation.narrow(other, [f"{MIG}/7/0"], job)
    with pytest.raises(ConfigError, match="GPU 1 is not of this job"):
        allocation.narrow(choice.choose(cut, ["1"]), ["1"], job)


def test_a_mig_device_has_no_number_inside(cut):
    chosen = choice.choose(cut, [f"{MIG}/9/0", f"{MIG}/7/0"])
    assert allocation.inside(chosen) == {"envUnset": ["CUDA_VISIBLE_DEVICES"]}


def test_numbers_in_another_order_are_those_of_the_bus(loaded):
    assert allocation.inside(choice.choose(loaded, ["1", "5"])) == {
        "env": ["CUDA_VISIBLE_DEVICES=0,1"]
    }
    assert allocation.inside(choice.choose(loaded, ["5", "1"])) == {
        "env": ["CUDA_VISIBLE_DEVICES=1,0", "CUDA_DEVICE_ORDER=PCI_BUS_ID"]
    }


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        ("", 1, ""),
        ("0", 1, ""),
        ("3", 1, "3"),
        ("0, 2", 2, "2"),
        (UUID.format(1), 1, ""),
        (MIG, 1, ""),
    ],
)
def test_a_number_that_no_gpu_inside_has(value, count, expected):
    assert allocation.stray(value, count) == expected
