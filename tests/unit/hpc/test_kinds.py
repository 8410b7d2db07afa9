"""Devices that are nodes and nothing more, from one table and from the site."""

from __future__ import annotations

import pytest
from ocirt_hpc import kinds, site
from ocirt_hpc.notes import Notes

from ocirt import create
from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    (tmp_path / "dev").mkdir()
    return machine


def add(machine, path, major, minor):
    machine.node(path, major, minor)
    machine.write(path, "")  # a name in the directory


def asked(env=(), rows=kinds.KINDS, annotations=None, **options):
    config = {"process": {"env": list(env)}, "annotations": annotations or {}}
    found = kinds.asked(config, rows, Notes(), **{"env_requests": True, **options})
    return [(name, one.names) for name, one in found]


def given(machine, name, value, rows=kinds.KINDS):
    config = {"annotations": {f"ocirt.hpc/{name}": value}}
    ((_, one),) = kinds.asked(config, rows, Notes(), env_requests=False)
    made = kinds.edits(machine.host(), name, rows[name], one)
    return made and [node.path for node in made[1]]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ([], []),
        (["AMD_VISIBLE_DEVICES=0-3"], [("amd", ["0-3"])]),
        (["AMD_VISIBLE_DEVICES=void"], []),
        (["HABANA_VISIBLE_DEVICES=all"], [("gaudi", ["all"])]),
        (["NVIDIA_GDRCOPY=enabled"], [("gdrcopy", ["all"])]),
        (["NVIDIA_GDRCOPY=1"], []),
    ],
)
def test_variables_ask(env, expected):
    assert asked(env) == expected
    assert asked(env, env_requests=False) == []


def test_annotations_decide_before_variables():
    env = ["AMD_VISIBLE_DEVICES=all"]
    assert asked(env, annotations={"ocirt.hpc/amd": "1"}) == [("amd", ["1"])]
    assert asked(env, annotations={"ocirt.hpc/amd": "none"}) == []


def test_what_the_site_does_not_allow_is_refused():
    with pytest.raises(ConfigError, match=r"the site does not allow vfio \(device.vfio.allowed"):
        asked(annotations={"ocirt.hpc/vfio": "0"})


def test_every_variable_wakes_the_stage():
    wanted = {
        f"{name}="
        for row in kinds.KINDS.values()
        for name in (*kinds.field(row, "variables"), *kinds.field(row, "switches"))
    }
    assert wanted <= set(create.REQUESTS)


def test_the_table_has_known_fields_alone():
    assert {name for row in kinds.KINDS.values() for name in row} <= set(kinds.FIELDS)


def test_nodes_by_number(machine):
    for number in (10, 2, 0):
        add(machine, f"/dev/accel/accel{number}", 261, number)
        add(machine, f"/dev/accel/accel_controlD{number}", 261, 64 + number)
    add(machine, "/dev/accel/accelerometer", 10, 1)
    assert given(machine, "gaudi", "all") == [
        f"/dev/accel/{name}{number}"
        for number in (0, 2, 10)
        for name in ("accel", "accel_controlD")
    ]
    assert given(machine, "gaudi", "10") == ["/dev/accel/accel10", "/dev/accel/accel_controlD10"]


def test_gpus_on_the_bus_and_the_node_that_comes_with_all(machine):
    for number, address in enumerate(("0000:03:00.0", "0000:83:00.0")):
        path = machine.pci(address, vendor="0x1002")
        machine.write(f"{path}/drm/card{number}/dev", "")
        machine.write(f"{path}/drm/renderD{128 + number}/dev", "")
        machine.node(f"/dev/dri/card{number}", 226, number)
        machine.node(f"/dev/dri/renderD{128 + number}", 226, 128 + number)
    machine.pci("0000:04:00.0", vendor="0x1022")
    machine.node("/dev/kfd", 236, 0)
    second = ["/dev/dri/card1", "/dev/dri/renderD129", "/dev/kfd"]
    assert given(machine, "amd", "1") == second
    assert given(machine, "amd", "0000:83:00.0") == second
    assert len(given(machine, "amd", "0-1")) == 5


@pytest.mark.parametrize("word", ["2", "x", "0-2", "1-", "-1", "", "../..", "0-99999999999"])
def test_a_device_that_there_is_not_is_an_error(machine, word):
    add(machine, "/dev/cxi0", 240, 0)
    add(machine, "/dev/cxi1", 240, 1)
    if word == "":
        assert asked(annotations={"ocirt.hpc/cxi": word}) == []
        return
    with pytest.raises(ConfigError, match=r'there is no cxi device ".*" \(have 0, 1\)'):
        given(machine, "cxi", word)


def test_all_of_nothing_is_nothing(machine):
    assert given(machine, "cxi", "all") is None
    assert given(machine, "knem", "all") is None
    with pytest.raises(ConfigError, match="there is no /dev/knem on this host"):
        given(machine, "knem", "yes")


def test_a_site_adds_a_kind_and_opens_another(machine, tmp_path):
    path = tmp_path / "hpc.toml"
    path.touch(mode=0o600)
    path.write_text(
        '[device.fpga]\nfind = "/dev/fpga#"\nwith = ["/dev/fpga-ctl"]\nvariables = ["FPGAS"]\n'
        "[device.vfio]\nallowed = true\n"
    )
    rows = site.load(str(path)).kinds
    add(machine, "/dev/fpga0", 250, 0)
    machine.node("/dev/fpga-ctl", 250, 255)
    assert asked(["FPGAS=0"], rows) == [("fpga", ["0"])]
    assert given(machine, "fpga", "0", rows) == ["/dev/fpga0", "/dev/fpga-ctl"]
    assert rows["vfio"]["find"] == "/dev/vfio/#"
    for text, words in (
        ("[device.x]\nglob = 1\n", "device.x.glob: unknown setting"),
        ("[device.x]\nwith = 1\n", "device.x.with: expected a list of strings"),
        ("[device]\nx = 1\n", "device: expected tables"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            site.load(str(path))
