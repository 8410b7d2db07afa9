"""Devices that are nodes and nothing more, from one table and from the site."""

from __future__ import annotations

import pytest
from ocirt_hpc import kindrows, kinds, site
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


def made(machine, name, value, rows=kinds.KINDS, *, new_nodes=True):
    config = {"annotations": {f"ocirt.hpc/{name}": value}}
    ((_, one),) = kinds.asked(config, rows, Notes(), env_requests=False)
    return kinds.edits(machine.host(), name, rows[name], one, new_nodes=new_nodes)


def given(machine, name, value, rows=kinds.KINDS, **options):
    found = made(machine, name, value, rows, **options)
    return found and [node.path for node in found[1]]


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


def accelerator(machine, number, address, vendor):
    """Put an accelerator of the kernel's class `accel` on the bus."""
    path = machine.pci(address, vendor=vendor)
    machine.link(f"/sys/dev/char/261:{number}", f"../../..{path}/accel/accel{number}")
    machine.link(f"{path}/accel/accel{number}/device", "../..")
    add(machine, f"/dev/accel/accel{number}", 261, number)


def test_an_accelerator_of_another_vendor_is_no_gaudi(machine):
    accelerator(machine, 0, "0000:00:0b.0", "0x8086")
    accelerator(machine, 1, "0000:19:00.0", "0x1da3")
    add(machine, "/dev/accel/accel_controlD1", 261, 65)
    assert given(machine, "gaudi", "all") == ["/dev/accel/accel1", "/dev/accel/accel_controlD1"]
    assert given(machine, "gaudi", "0000:19:00.0") == given(machine, "gaudi", "1")
    with pytest.raises(ConfigError, match=r'no gaudi device "0" \(have 1\)'):
        given(machine, "gaudi", "0")
    assert given(machine, "intel", "all") is None


def test_gaudi_before_linux_had_accelerators(machine):
    add(machine, "/dev/hl0", 511, 0)
    add(machine, "/dev/hl_controlD0", 511, 1)
    assert given(machine, "gaudi", "0") == ["/dev/hl0", "/dev/hl_controlD0"]


def amd(machine, places, *, partitions=0):
    """Put GPUs on the bus, and kfd's view of them; each with so many partitions more."""
    minor = 128
    for number, address in enumerate(places):
        path = machine.pci(address, vendor="0x1002")
        for part in range(partitions + 1):
            if part:
                folder = f"/sys/devices/platform/amdgpu_xcp_{number * partitions + part - 1}"
            else:
                folder = path
                machine.node(f"/dev/dri/card{number}", 226, number)
                machine.write(f"{folder}/drm/card{number}/dev", "")
            machine.write(f"{folder}/drm/renderD{minor}/dev", "")
            machine.node(f"/dev/dri/renderD{minor}", 226, minor)
            machine.write(
                f"/sys/class/kfd/kfd/topology/nodes/{minor - 126}/properties",
                f"simd_count 304\ndrm_render_minor {minor}\nunique_id {0xABC0 + number}\n",
            )
            minor += 1
    machine.write("/sys/class/kfd/kfd/topology/nodes/0/properties", "drm_render_minor 0\n")
    machine.node("/dev/kfd", 236, 0)


def render(paths):
    return [path for path in paths if "render" in path]


def test_partitions_of_a_gpu_come_after_it(machine):
    amd(machine, ["0000:05:00.0", "0000:26:00.0"], partitions=2)
    every = [f"/dev/dri/renderD{minor}" for minor in range(128, 134)]
    assert render(given(machine, "amd", "all")) == every
    assert given(machine, "amd", "1") == ["/dev/dri/renderD129", "/dev/kfd"]
    assert given(machine, "amd", "3")[0] == "/dev/dri/card1"


def test_a_gpu_by_its_unique_id_is_all_of_it(machine):
    amd(machine, ["0000:05:00.0", "0000:26:00.0"], partitions=1)
    wanted = ["/dev/dri/renderD130", "/dev/dri/renderD131"]
    assert render(given(machine, "amd", "0x000000000000ABC1")) == wanted
    assert render(given(machine, "amd", "0xabc1")) == wanted
    for word in ("0xabc9", "0x", "0xnode", "0x" + "0" * 16):
        with pytest.raises(ConfigError, match="there is no amd device"):
            given(machine, "amd", word)


def test_a_gpu_that_kfd_does_not_know_has_no_number(machine):
    amd(machine, ["0000:26:00.0"])
    path = machine.pci("0000:05:00.0", vendor="0x1002")  # for a screen
    machine.write(f"{path}/drm/card7/dev", "")
    machine.node("/dev/dri/card7", 226, 7)
    assert given(machine, "amd", "0")[0] == "/dev/dri/card0"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('find = "pci:zz"', r'device.x.find: "zz" is not a number'),
        ('find = "dev/x#"', r'device.x.find: "dev/x#" is not absolute'),
        ('find = "/etc/x#"', r'device.x.find: "/etc/x#" is not below /dev'),
        ('find = "/dev/../etc/x#"', r'device.x.find: .* holds "\.\."'),
        ('find = "/dev/x"', r'device.x.find: "/dev/x" has no # in its last name'),
        ('find = "/dev/x#/y#"', r"device.x.find: .* has no # in its last name"),
        ('find = "/dev/x##"', r"device.x.find: .* has no # in its last name"),
        ('with = ["/etc/passwd"]', r'device.x.with: "/etc/passwd" is not below /dev'),
        ('with = ["/dev/x=x:y"]', r'device.x.with: "y" is not a number'),
        ('with = ["/dev/x=x"]', r'device.x.with: "x" is not a number'),
        ('mounts = ["../etc"]', r'device.x.mounts: "../etc" is not absolute'),
        ('env = ["X"]', r"device.x.env: 'X' is not NAME=value"),
        ('env = ["=x"]', r"device.x.env: '=x' is not NAME=value"),
        ('variables = [""]', r"device.x.variables: '' is no name of a variable"),
        ('switches = ["A=1"]', r"device.x.switches: 'A=1' is no name of a variable"),
    ],
)
def test_a_row_that_means_nothing_is_refused_when_it_is_read(tmp_path, row, words):
    path = tmp_path / "hpc.toml"
    path.touch(mode=0o600)
    path.write_text(f"[device.x]\n{row}\n")
    with pytest.raises(ConfigError, match=words):
        site.load(str(path))


@pytest.mark.parametrize("name", ["gpus", '"a/b"', '""', "rdma"])
def test_a_kind_needs_a_name_of_its_own(tmp_path, name):
    path = tmp_path / "hpc.toml"
    path.touch(mode=0o600)
    path.write_text(f'[device.{name}]\nfind = "/dev/x#"\n')
    with pytest.raises(ConfigError, match=r"cannot be the name of a kind, as ocirt.hpc/"):
        site.load(str(path))


def test_the_built_in_rows_would_pass():
    for name, row in kinds.KINDS.items():
        kindrows.check(f"device.{name}", row)


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


def test_a_node_that_nobody_has_made_yet(machine):
    """The driver of GDRCopy makes none, and comes without a rule for udev."""
    assert given(machine, "gdrcopy", "all") is None
    machine.devices["gdrdrv"] = 511
    (node,) = made(machine, "gdrcopy", "all")[1]
    assert (node.path, node.major, node.minor, node.there) == ("/dev/gdrdrv", 511, 0, False)
    assert given(machine, "gdrcopy", "all", new_nodes=False) is None
    machine.node("/dev/gdrdrv", 510, 0, 0o660)
    (node,) = made(machine, "gdrcopy", "all")[1]
    assert (node.major, node.there) == (510, True)


def test_variables_name_the_chosen(machine):
    for number in (0, 1):
        add(machine, f"/dev/cxi{number}", 240, number)
        add(machine, f"/dev/hfi1_{number}", 241, number)

    def env(name, value):
        return made(machine, name, value)[2]["envDefault"]

    assert env("cxi", "all") == ["FI_PROVIDER=cxi", "FI_CXI_DEVICE_NAME=cxi0,cxi1"]
    assert env("cxi", "1") == ["FI_PROVIDER=cxi", "FI_CXI_DEVICE_NAME=cxi1"]
    assert env("hfi", "1") == ["HFI_UNIT=1"]
    assert env("hfi", "all") == []


def test_vfio_by_group_or_by_device(machine):
    for path, minor in (("/dev/vfio/17", 0), ("/dev/vfio/noiommu-18", 1)):
        add(machine, path, 243, minor)
    add(machine, "/dev/vfio/devices/vfio0", 244, 0)
    machine.node("/dev/vfio/vfio", 10, 196)
    machine.node("/dev/iommu", 10, 125)
    rows = {name: {**kinds.KINDS[name], "allowed": True} for name in ("vfio", "iommufd")}
    assert given(machine, "vfio", "all", rows) == ["/dev/vfio/17", "/dev/vfio/vfio"]
    assert given(machine, "iommufd", "0", rows) == ["/dev/vfio/devices/vfio0", "/dev/iommu"]


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
