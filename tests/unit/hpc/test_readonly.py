"""What the stage mounts in an image that nothing can be added to."""

from __future__ import annotations

import pytest
from ocirt_hpc.image import Image

from tests.unit.hpc.machines import cluster_node, install
from tests.unit.hpc.sites import BASE, Place

GPU = ("NVIDIA_VISIBLE_DEVICES=0",)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine with GPUs, and an image with a loader; it says of itself that it is read-only."""
    machine = cluster_node(tmp_path / "host")
    install(machine)
    machine.host()
    place = Place(tmp_path, machine).with_loader()
    (place.rootfs / "run").mkdir()
    monkeypatch.setattr(Image, "readonly", True)
    return place


def mounts(made):
    return {mount["destination"]: mount for mount in made.config["mounts"]}


def test_run_gets_a_tmpfs_before_all_that_lies_below_it(place):
    found = mounts(place.ask("", env=GPU))
    names = list(found)
    assert found["/run"]["type"] == "tmpfs"
    assert names.index("/run") < names.index("/run/ocirt/hpc")
    assert "/run/nvidia-persistenced/socket" in found


def test_a_config_that_mounts_something_there_is_left_alone(place):
    own = {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}
    found = mounts(place.ask("", env=GPU, config={**BASE, "mounts": [own]}))
    assert found["/run"] == own
    assert "/run/ocirt/hpc" in found


def test_programs_are_where_the_search_ends(place):
    made = place.ask("", env=GPU)
    assert "/usr/bin/nvidia-smi" not in mounts(made)
    assert "/run/ocirt/hpc/bin/nvidia-smi" in mounts(made)
    assert "bin/nvidia-smi" in made.tree.files
    assert "PATH=/bin:/run/ocirt/hpc/bin" in made.config["process"]["env"]


def test_a_program_that_the_image_has_is_covered(place):
    (place.rootfs / "usr/bin").mkdir(parents=True)
    (place.rootfs / "usr/bin/nvidia-smi").touch()
    assert "/usr/bin/nvidia-smi" in mounts(place.ask("", env=GPU))


def test_what_has_no_place_is_left_out_and_told(place):
    made = place.ask("", env=GPU)
    assert "/etc/OpenCL/vendors/nvidia.icd" not in mounts(made)
    left = [row["what"] for row in made.report if row["allowed"] == "left out"]
    why = "the image is read-only and has no place for it"
    assert f"/etc/OpenCL/vendors/nvidia.icd: {why}" in left


def test_the_loader_is_told_by_the_environment_or_by_a_cache_that_is_there(place):
    env = place.ask("", env=GPU).config["process"]["env"]
    assert "LD_LIBRARY_PATH=/run/ocirt/hpc/lib64" in env
    (place.rootfs / "etc").mkdir()
    (place.rootfs / "etc/ld.so.cache").touch()
    made = place.ask("", env=GPU)
    assert "/etc/ld.so.cache" in mounts(made)
    assert not any(item.startswith("LD_LIBRARY") for item in made.config["process"]["env"])


def test_a_mount_that_is_read_only_is_no_room(place):
    own = {"destination": "/run", "source": "/x", "options": ["rbind", "ro"]}
    found = mounts(place.ask("", env=GPU, config={**BASE, "mounts": [own]}))
    assert found["/run"]["type"] == "tmpfs"


def test_an_image_that_can_be_added_to_is_used_as_it_is(place, monkeypatch):
    monkeypatch.setattr(Image, "readonly", False)
    found = mounts(place.ask("", env=GPU))
    assert "/run" not in found
    assert {"/usr/bin/nvidia-smi", "/etc/ld.so.cache", "/etc/OpenCL/vendors/nvidia.icd"} <= set(
        found
    )
