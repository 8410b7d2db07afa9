"""The picture of a node, and the CDI file of its GPUs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from oci_spec.cdi import Spec
from ocirt_hpc import cdi, draw, generate, info

from tests.unit.hpc.machines import UUID, Machine, cluster_node, install, workstation


def test_the_matrix_has_a_row_for_each_device(tmp_path):
    lines = draw.matrix(cluster_node(tmp_path).host()).splitlines()
    assert lines[0].split() == [*(f"GPU{n}" for n in range(8)), *(f"NIC{n}" for n in range(10))]
    assert lines[1].split()[:10] == ["GPU0", "X", *["NODE"] * 3, *["SYS"] * 4, "PIX"]
    assert lines[9].split()[:3] == ["NIC0", "mlx5_0", "PIX"]
    assert lines[20:23] == [
        "PIX   one PCIe switch",
        "NODE  several host bridges of one NUMA node",
        "SYS   the link between CPUs",
    ]


def test_the_nearest_of_each_gpu_has_a_link(tmp_path):
    machine = cluster_node(tmp_path)
    lines = draw.matrix(machine.host()).splitlines()
    assert lines[25].split() == ["GPU0", "mlx5_0", "PIX", "0-31,64-95", "0"]
    assert lines[-1].split() == ["GPU7", "mlx5_7", "PIX", "32-63,96-127", "1"]
    for port in machine.root.glob("sys/devices/**/infiniband/mlx5_7/ports/1"):
        (port / "state").write_text("1: DOWN\n")
    last = draw.matrix(machine.host()).splitlines()[-1]
    assert last.split()[:6] == ["GPU7", "mlx5_4", "mlx5_5", "mlx5_6", "NODE", "32-63,96-127"]


def test_the_tree_puts_a_nic_beside_its_gpu(tmp_path):
    lines = draw.tree(cluster_node(tmp_path).host()).splitlines()
    pcie = "(PCIe 16.0 GT/s x16)"
    assert lines[:4] == [
        "NUMA node 0, CPUs 0-31,64-95, 512 GiB",
        "├─ switch 0000:06:00.0",
        f"│  ├─ GPU0    0000:07:00.0  NVIDIA A100-SXM4-80GB  {pcie}",
        f"│  └─ mlx5_0  0000:09:00.0  InfiniBand 200 Gb/s  {pcie}",
    ]
    assert lines[-1] == f"└─ mlx5_9  0000:f9:00.0  Ethernet down  {pcie}"


def test_a_single_device_and_none(tmp_path):
    assert draw.tree(workstation(tmp_path / "one").host()).splitlines() == [
        "NUMA node 0",
        "└─ GPU0  0000:65:00.0  Tesla T4  (PCIe 16.0 GT/s x16)",
    ]
    empty = Machine(tmp_path / "none").host()
    assert draw.tree(empty) == "no GPU, no accelerator and no RDMA device\n"
    assert draw.matrix(empty) == ""
    assert draw.document(empty)["devices"] == []


@pytest.fixture
def odd(tmp_path):
    """Pairs of AMD GPUs, a virtual function of unknown place, Slingshot, a device of software."""
    machine = Machine(tmp_path)
    for place in range(4):
        function = {"class": "0x038000", "numa_node": place // 2}
        render = 128 + place
        bridge = f"0000:{0xC0 + place // 2:02x}:01.{place % 2}"
        path = machine.pci(f"0000:d{place}:00.0", bridge, vendor="0x1002", **function)
        machine.write(f"{path}/drm/renderD{render}/dev", f"226:{render}\n")
        machine.node(f"/dev/dri/renderD{render}", 226, render)
    machine.nic("rocep65s0f0v1", "0000:41:00.2", ports=2, layer="Ethernet", numa=-1)
    machine.write("/sys/devices/pci0000:41/0000:41:00.2/physfn/vendor", "0x15b3\n")
    machine.write("/sys/devices/pci0000:41/0000:41:00.2/net/ens65f0v1/mtu", "1500\n")
    machine.nic("rxe0", layer="Ethernet")
    path = machine.pci("0001:01:00.0", vendor="0x17db", numa_node=1)
    machine.write("/dev/cxi0", "")
    machine.node("/dev/cxi0", 243, 0)
    machine.write(f"{path}/cxi/cxi0/dev", "243:0\n")
    machine.link(f"{path}/cxi/cxi0/device", "../..")
    machine.link("/sys/dev/char/243:0", f"../..{path.removeprefix('/sys')}/cxi/cxi0")
    machine.numa("0-15", "16-31", "32-47", gib=128)
    return machine


def test_an_odd_machine_as_a_tree(odd):
    assert draw.tree(odd.host()).splitlines() == [
        "NUMA node 0, CPUs 0-15, 128 GiB",
        "└─ host bridge 0000:c0",
        "   ├─ amd0           0000:d0:00.0  /dev/dri/renderD128",
        "   └─ amd1           0000:d1:00.0  /dev/dri/renderD129",
        "NUMA node 1, CPUs 16-31, 128 GiB",
        "├─ host bridge 0000:c1",
        "│  ├─ amd2           0000:d2:00.0  /dev/dri/renderD130",
        "│  └─ amd3           0000:d3:00.0  /dev/dri/renderD131",
        "└─ cxi0           0001:01:00.0  /dev/cxi0",
        "NUMA node 2, CPUs 32-47, 128 GiB",
        "   nothing",
        "no known NUMA node",
        "└─ rocep65s0f0v1  0000:41:00.2 virtual function  port 1 Ethernet 200 Gb/s,"
        " port 2 Ethernet 200 Gb/s, ens65f0v1  (PCIe 16.0 GT/s x16)",
        "rxe0  on no bus  Ethernet 200 Gb/s",
    ]


def test_what_is_nearest_on_an_odd_machine(odd):
    made = draw.document(odd.host())
    assert made["nearest"]["amd2"] == {"nics": ["cxi0"], "class": "NODE"}
    # Nobody knows how near the virtual function is: as far as anything can be.
    assert made["nearest"]["amd0"] == {"nics": ["cxi0", "rocep65s0f0v1"], "class": "SYS"}
    assert made["offBus"] == [{"name": "rxe0", "what": "Ethernet 200 Gb/s"}]
    assert made["numaNodes"][1]["distances"] == [21, 10, 21]


def picture(machine):
    """Return the texts of a picture, and its boxes as (x, y, width, height)."""
    root = ElementTree.fromstring(draw.svg(machine.host()))
    space = "{http://www.w3.org/2000/svg}"
    width, height = float(root.get("width")), float(root.get("height"))
    boxes = [
        tuple(float(one.get(name, 0)) for name in ("x", "y", "width", "height"))
        for one in root.iter(f"{space}rect")
    ]
    assert all(x + w <= width and y + h <= height for x, y, w, h in boxes)
    titles = [one.text for one in root.iter(f"{space}title")]
    return [one.text for one in root.iter(f"{space}text")], boxes, titles


def test_the_picture_is_well_formed(tmp_path):
    machine = Machine(tmp_path)
    machine.gpu("0000:01:00.0", 0, model="<b>&")
    machine.nic("mlx5_0", "0000:02:00.0")
    texts, _, titles = picture(machine)
    assert "<b>&" in texts
    assert "GPU0 - mlx5_0: several host bridges of one NUMA node" in titles
    assert len(titles) == 4


def test_the_picture_has_boxes_in_boxes(tmp_path):
    texts, boxes, _ = picture(cluster_node(tmp_path))
    assert texts.count("switch 0000:06:00.0") == 1
    assert {"GPU7", "mlx5_9", "NUMA node 1, CPUs 32-63,96-127, 512 GiB"} <= set(texts)
    # Below the ground: 2 NUMA nodes, 8 switches, 18 devices; then the matrix and its legend.
    drawn = boxes[1:29]
    for one in drawn:
        for other in drawn:
            apart = (
                one[0] >= other[0] + other[2]
                or other[0] >= one[0] + one[2]
                or one[1] >= other[1] + other[3]
                or other[1] >= one[1] + one[3]
            )
            assert one == other or apart or within(one, other) or within(other, one)


def within(one, other):
    return (
        other[0] < one[0]
        and other[1] < one[1]
        and one[0] + one[2] < other[0] + other[2]
        and one[1] + one[3] < other[1] + other[3]
    )


def test_the_picture_of_an_odd_machine_and_of_none(odd, tmp_path):
    texts, _, _ = picture(odd)
    assert "rxe0 on no bus: Ethernet 200 Gb/s" in texts
    assert "NUMA node 2, CPUs 32-47, 128 GiB: nothing" in texts
    picture(Machine(tmp_path / "none"))


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
