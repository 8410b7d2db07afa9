"""What images demand of driver and GPUs."""

from __future__ import annotations

import pytest
from ocirt_hpc.nvidia import require

from ocirt.errors import ConfigError

KNOWN = {"driver": "535.104.05", "cuda": "12.2", "brand": "Tesla"}


def holds(value, known=KNOWN, name="NVIDIA_REQUIRE_CUDA"):
    try:
        require.check({name: value}, known)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", True),
        ("cuda>=12.2", True),
        ("cuda>=12.4", False),
        ("cuda>=9.2", True),  # numbers, not letters
        ("cuda>12.2", False),
        ("cuda>=12.2.0", True),
        ("cuda=12.2", True),
        ("cuda!=12.2", False),
        ("driver<536", True),
        ("driver<=535", False),
        ("cuda>=12.4 driver>=535,driver<536", True),  # any group
        ("cuda>=12.4 driver>=535,driver<535.50", False),  # all terms of a group
        ("brand=tesla", True),
        ("brand!=tesla", False),
        ("brand=grid cuda>=12", True),
        ("cuda>=12.6 brand=tesla,driver>=470,driver<471 brand=tesla,driver>=535,driver<536", True),
        ("arch>=9.0", True),  # nothing here knows
    ],
)
def test_groups_and_terms(value, expected):
    assert holds(value) is expected


@pytest.mark.parametrize("value", ["cuda", "cuda>=x", "cuda>=", "brand>=tesla", "cuda>=١٢"])
def test_nonsense_is_refused_by_name(value):
    with pytest.raises(ConfigError, match="NVIDIA_REQUIRE_CUDA"):
        require.check({"NVIDIA_REQUIRE_CUDA": value}, KNOWN)


def test_every_variable_has_to_hold():
    env = {"NVIDIA_REQUIRE_CUDA": "cuda>=12", "NVIDIA_REQUIRE_DRIVER": "driver>=600"}
    with pytest.raises(ConfigError, match=r"NVIDIA_REQUIRE_DRIVER=driver>=600: this host.*12\.2"):
        require.check(env, KNOWN)


def test_other_variables_are_none_of_its_business():
    assert holds("csv-mounts=all", name="NVIDIA_REQUIRE_JETPACK")
    assert holds("cuda>=99", name="REQUIRE_CUDA")


@pytest.mark.parametrize(
    ("version", "cuda"),
    [("535.104.05", "12.2"), ("550.54.15", "12.4"), ("470.1", "11.4"), ("612.0", "13.1")],
)
def test_the_branch_of_the_driver_tells_the_cuda(version, cuda):
    assert require.facts(version) == {"driver": version, "cuda": cuda}


def test_a_driver_before_cuda_ten_tells_none():
    assert require.facts("390.157") == {"driver": "390.157"}


def test_an_old_image_demands_its_cuda():
    assert require.legacy("11.4.3") == "cuda>=11.4"
