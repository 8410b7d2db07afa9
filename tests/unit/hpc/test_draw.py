"""The picture of a node, and the CDI file of its GPUs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

from oci_spec.cdi import Spec
from ocirt_hpc import cdi, draw, generate, info

from tests.unit.hpc.machines import UUID, Machine, cluster_node, install, workstation


def test_the_matrix_has_a_row_for_each_device(tmp_path):
    lines = draw.matrix(cluster_node(tmp_path).host()).splitlines()
    assert lines[0].split()[:2] == ["GPU0", "GPU1"]
    assert len(lines) == 1 + 18
    assert lines[1].split()[:10] == ["GPU0", "X", *["NODE"] * 3, *["SYS"] * 4, "PIX"]
    assert [line.split()[-1] for line in lines[1:9]] == ["0"] * 4 + ["1"] * 4


def test_the_tree_puts_a_nic_beside_its_gpu(tmp_path):
    lines = draw.tree(cluster_node(tmp_path).host()).splitlines()
    assert lines[:4] == [
        "NUMA node 0",
        "  0000:06:00.0",
        "    GPU0  0000:07:00.0  NVIDIA A100-SXM4-80GB",
        "    mlx5_0  0000:09:00.0  port 1 InfiniBand",
    ]
    assert lines[-1] == "  mlx5_9  0000:f9:00.0  port 1 Ethernet (down)"


def test_a_single_device_and_none(tmp_path):
    assert draw.tree(workstation(tmp_path / "one").host()).splitlines() == [
        "NUMA node 0",
        "  GPU0  0000:65:00.0  Tesla T4",
    ]
    empty = Machine(tmp_path / "none").host()
    assert draw.tree(empty) == "no GPU and no RDMA device\n"
    assert draw.document(empty) == {"devices": [], "distance": {}}


def test_the_picture_is_well_formed(tmp_path):
    machine = Machine(tmp_path)
    machine.gpu("0000:01:00.0", 0, model="<b>&")
    machine.nic("mlx5_0", "0000:02:00.0")
    root = ElementTree.fromstring(draw.svg(machine.host()))
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "GPU0 - mlx5_0: NODE" in titles
    assert len(titles) == 4


def test_a_cdi_file_that_we_and_the_models_read(tmp_path):
    machine = cluster_node(tmp_path / "host")
    install(machine)
    machine.mig(2, 9)
    made = generate.document(machine.host(), ["compute"])
    Spec.model_validate(made)
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "nvidia.json").write_text(json.dumps(made))
    (file,) = cdi.read([str(folder)])
    assert file.fault is None
    names = [device["name"] for device in made["devices"]]
    # A GPU that is cut into MIG devices has no device of its own.
    assert names[:3] == ["1", "2", "3"]
    assert UUID.format(3) in names
    assert "all" in names
    (one,) = cdi.find([f"nvidia.com/gpu={UUID.format(3)}"], [str(folder)])
    assert [node["path"] for node in one.edits["deviceNodes"]] == ["/dev/nvidia3"]
    shared = [node["path"] for node in made["containerEdits"]["deviceNodes"]]
    assert shared == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    places = {mount["containerPath"] for mount in made["containerEdits"]["mounts"]}
    assert "/usr/lib/x86_64-linux-gnu/libcuda.so.1" in places


def test_no_driver_no_file(tmp_path):
    assert generate.document(Machine(tmp_path).host(), ["all"]) is None


def test_info_tells_what_it_cannot_tell(tmp_path):
    machine = cluster_node(tmp_path)
    machine.node("/dev/knem", 10, 58)
    made = info.document(machine.host())
    assert (made["nvidia"]["cuda"], len(made["nvidia"]["gpus"]), len(made["rdma"])) == (
        "12.4",
        8,
        10,
    )
    assert made["devices"] == {"knem": ["/dev/knem"]}
    machine.write("/proc/driver/nvidia/version", "")
    broken = info.document(machine.host())
    assert broken["nvidia"] is None
    assert "version: names no version" in broken["faults"][0]
    assert "cannot be told: /proc/driver/nvidia/version" in info.text(broken)
    assert info.text(info.document(Machine(tmp_path / "none").host())).startswith("no device")
