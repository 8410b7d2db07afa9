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
