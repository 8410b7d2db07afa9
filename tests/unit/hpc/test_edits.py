"""What the edits of devices make of a config, and under which name they are known afterwards."""

from __future__ import annotations

import copy

import pytest
from ocirt_hpc import cdi, edits

from ocirt.checks import Faults
from ocirt.errors import ConfigError, Error
from tests.unit.hpc.hosts import Host

ALLOW = {"allow": True, "type": "c", "major": 195, "access": "rwm"}


@pytest.fixture(scope="module")
def acme():
    return Host("acme")


def config(**linux):
    return {
        "ociVersion": "1.2.0",
        "process": {"cwd": "/", "args": ["a"], "env": ["PATH=/bin", "ACME_CARD=?", "A=b"]},
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/run/acme/deep", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": "mount"}], **linux},
    }


def apply(host, base, *names, **options):
    found = cdi.find([f"acme.com/{name}" for name in names], root=host.root)
    sections = edits.of_cdi(found)
    return edits.apply(base, sections, root=host.root, lstat=host.lstat, **options)


def made(**section):
    """Return a device as if a file had it, with these edits."""
    file = cdi.File("/etc/cdi/t.json", 0)
    file.devices = {"0": {"name": "0", "containerEdits": section}}
    return cdi.Found("t.t/t=0", file)


def edited(host, base, **section):
    sections = edits.of_cdi([made(**section)])
    return edits.apply(base, sections, root=host.root, lstat=host.lstat)


def test_the_config_itself_stays_as_it_is(acme):
    base = config(resources={"devices": [{"allow": False, "access": "rwm"}]})
    before = copy.deepcopy(base)
    apply(acme, base, "card=all", "disk=scratch")
    assert base == before


def test_an_environment_variable_is_replaced_in_its_place(acme):
    env = apply(acme, config(), "card=0").config["process"]["env"]
    assert env == ["PATH=/bin", "ACME_CARD=0", "A=b", "ACME_VERSION=1.2"]


def test_a_node_is_completed_from_the_host(acme):
    linux = apply(acme, config(), "card=1").config["linux"]
    assert linux["devices"] == [
        {"path": "/dev/acmectl", "type": "c", "major": 195, "minor": 255, "fileMode": 0o666},
        {"path": "/dev/acme1", "type": "c", "major": 195, "minor": 1, "fileMode": 0o660},
    ]
    assert linux["resources"]["devices"] == [
        {**ALLOW, "minor": 255},
        {**ALLOW, "minor": 1, "access": "r"},
    ]


def test_the_edits_of_a_file_come_first_and_once(acme):
    found = cdi.find(["acme.com/card=1", "acme.com/card=0"], root=acme.root)
    assert [origin for origin, _ in edits.gather(edits.of_cdi(found))["env"]] == [
        "acme.com/card: env[0]",
        "acme.com/card=1: env[0]",
        "acme.com/card=0: env[0]",
    ]


def test_a_node_belongs_to_the_user_unless_the_file_says_so(acme):
    base = config()
    base["process"]["user"] = {"uid": 1000, "gid": 0}
    linux = apply(acme, base, "disk=scratch", "card=0").config["linux"]
    assert [(one.get("uid"), one.get("gid")) for one in linux["devices"]] == [
        (7, None),
        (1000, None),
        (1000, None),
    ]


def test_a_node_may_have_another_name_on_the_host(acme):
    applied = apply(acme, config(), "disk=scratch")
    (node,) = applied.config["linux"]["devices"]
    assert (node["path"], node["type"], node["major"]) == ("/dev/scratch", "b", 259)
    assert applied.node_sources == {"/dev/scratch": "/dev/acmedisk"}


NODES = [
    # node in the file                                      type, numbers, rule
    ({"path": "/dev/acme0", "type": "u"}, ("c", 195, 0, "rwm")),
    ({"path": "/dev/none", "type": "c", "major": 9, "minor": 8}, ("c", 9, 8, "rwm")),
    ({"path": "/dev/none", "type": "b", "major": 9}, ("b", 9, 0, "rwm")),
    ({"path": "/dev/acme0", "permissions": "none"}, ("c", 195, 0, None)),
    ({"path": "/dev/acmepipe"}, ("p", None, None, None)),
    ({"path": "/dev/none", "type": "p"}, ("p", None, None, None)),
]


@pytest.mark.parametrize(("node", "expected"), NODES)
def test_what_a_node_comes_to(acme, node, expected):
    linux = edited(acme, config(), deviceNodes=[node]).config["linux"]
    (device,) = linux["devices"]
    rules = (linux.get("resources") or {}).get("devices") or [{}]
    shown = (device["type"], device.get("major"), device.get("minor"), rules[0].get("access"))
    assert shown == expected


BAD_NODES = [
    ({"path": "/dev/none"}, "/dev/none: no such file or directory"),
    ({"path": "/dev/none", "type": "c"}, "/dev/none: no such file or directory"),
    ({"path": "/dev/acmefile"}, "/dev/acmefile: not a device"),
    ({"path": "/x", "hostPath": "/dev/acme0", "type": "b"},
     '/dev/acme0: of type "c" on this host, not "b"'),
]  # fmt: skip


@pytest.mark.parametrize(("node", "message"), BAD_NODES)
def test_a_node_that_the_host_lacks_is_named(acme, node, message):
    with pytest.raises(Error) as caught:
        edited(acme, config(), deviceNodes=[node])
    assert str(caught.value) == f"t.t/t=0: deviceNodes[0]: {message}"


def test_what_an_engine_has_applied_is_not_doubled(acme):
    once = apply(acme, config(), "card=all").config
    twice = apply(acme, once, "card=all").config
    assert twice == once


def test_a_node_of_the_config_is_replaced(acme):
    old = {"path": "/dev/acme0", "type": "c", "major": 1, "minor": 3}
    linux = apply(acme, config(devices=[old]), "card=0").config["linux"]
    assert [(one["path"], one["major"]) for one in linux["devices"]] == [
        ("/dev/acmectl", 195),
        ("/dev/acme0", 195),
    ]


def test_a_rule_comes_after_one_that_denies_all(acme):
    rules = [{**ALLOW, "minor": 0}, {"allow": False, "access": "rwm"}]
    linux = apply(acme, config(resources={"devices": rules}), "card=0").config["linux"]
    assert linux["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {**ALLOW, "minor": 255},
        {**ALLOW, "minor": 0},
    ]


def test_mounts_are_sorted_by_depth(acme):
    mounts = apply(acme, config(), "card=all").config["mounts"]
    assert [one["destination"] for one in mounts] == [
        "/proc",
        "/run/acme",
        "/run/acme/deep",
        "/usr/lib/libacme.so",
    ]


MOUNTS = [
    # options                     type      what becomes of it
    (None, None, (None, ["bind"])),
    (["ro"], None, (None, ["bind", "ro"])),
    (["rbind", "ro"], None, (None, ["rbind", "ro"])),
    (["mode=755"], "tmpfs", ("tmpfs", ["mode=755"])),
]


@pytest.mark.parametrize(("options", "kind", "expected"), MOUNTS)
def test_what_is_on_the_host_is_bound(acme, options, kind, expected):
    mount = {"hostPath": "/a", "containerPath": "/b"}
    mount |= {"options": options} if options else {}
    mount |= {"type": kind} if kind else {}
    found = edited(acme, config(), mounts=[mount]).config["mounts"][1]
    assert (found.get("type"), found["options"]) == expected


MAPPED = {
    "namespaces": [{"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
    "gidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
}


def test_a_mount_maps_ids_as_the_container_does(acme):
    mounts = apply(acme, config(**MAPPED), "card=all").config["mounts"]
    options = {one["destination"]: one.get("options") for one in mounts}
    assert options["/run/acme"] == ["rbind", "ridmap"]
    assert options["/usr/lib/libacme.so"] == ["ro", "nosuid", "bind", "idmap"]


def test_without_privileges_a_mount_maps_nothing(acme):
    mounts = apply(acme, config(**MAPPED), "card=all", rootless=True).config["mounts"]
    assert "ridmap" not in str(mounts)


def test_a_hook_is_added_once(acme):
    hook = {"path": "/usr/bin/acme-hook", "args": ["acme-hook", "links"]}
    base = {**config(), "hooks": {"createContainer": [hook]}}
    assert apply(acme, base, "card=0").config["hooks"] == {"createContainer": [hook]}
    base = {**config(), "hooks": {"createContainer": [{"path": "/bin/other"}]}}
    hooks = apply(acme, base, "card=0").config["hooks"]["createContainer"]
    assert hooks == [{"path": "/bin/other"}, {**hook, "timeout": 5}]


def test_groups_are_added_once_and_never_root(acme):
    base = config()
    base["process"]["user"] = {"uid": 0, "gid": 0, "additionalGids": [5]}
    user = apply(acme, base, "card=0", "card=1").config["process"]["user"]
    assert user["additionalGids"] == [5, 44]


def test_a_config_without_a_process_gets_none(acme):
    base = config()
    del base["process"]
    assert "process" not in apply(acme, base, "card=0").config


def test_what_we_cannot_do_is_put_into_the_config_for_the_checks_to_refuse(acme):
    net = [{"hostInterfaceName": "eth1", "name": "data0"}]
    applied = edited(acme, config(), netDevices=net, intelRdt={"closID": "gold"})
    linux = applied.config["linux"]
    assert linux["netDevices"] == {"eth1": {"name": "data0"}}
    assert linux["intelRdt"] == {"closID": "gold"}
    assert applied.name("linux.netDevices") == "t.t/t=0: netDevices[0]"
    assert applied.name("linux.intelRdt.closID") == "t.t/t=0: intelRdt.closID"


NAMES = [
    ("mounts[1]", "acme.com/card=all: mounts[0]"),
    ("mounts[1].destination", "acme.com/card=all: mounts[0].containerPath"),
    ("mounts[0]", "mounts[0]"),
    ("mounts", "mounts"),
    ("linux.devices[0]", "acme.com/card: deviceNodes[0]"),
    ("linux.resources.devices[1].access", "acme.com/card=all: deviceNodes[0].permissions"),
    ("hooks.createContainer[0]", "acme.com/card: hooks[0]"),
    ("process.env[3]", "acme.com/card: env[0]"),
    ("process.user.additionalGids[0]", "acme.com/card: additionalGids[1]"),
    ("process.cwd", "process.cwd"),
    ("", ""),
]


@pytest.mark.parametrize(("place", "origin"), NAMES)
def test_every_edit_has_its_origin(acme, place, origin):
    assert apply(acme, config(), "card=all").name(place) == origin


def test_errors_name_the_edit(acme):
    applied = apply(acme, config(), "card=all")
    with pytest.raises(ConfigError) as caught, applied:
        raise ConfigError("mounts[1]", "is no good")
    assert str(caught.value) == "acme.com/card=all: mounts[0]: is no good"
    with pytest.raises(Faults) as caught, applied:
        raise Faults([("mounts[1].source", "x"), ("mounts[0]", "y")])
    assert str(caught.value) == "acme.com/card=all: mounts[0].hostPath: x; mounts[0]: y"


PRESENT = [
    # linux.devices                                                  there already?
    ([], False),
    ([{"path": "/dev/acme0", "type": "c", "major": 195, "minor": 0}], True),
    ([{"path": "/dev/other", "type": "c", "major": 195, "minor": 0}], False),
]


@pytest.mark.parametrize(("devices", "expected"), PRESENT)
def test_what_an_engine_has_resolved_is_recognised(acme, devices, expected):
    (found,) = cdi.find(["acme.com/card=0"], root=acme.root)
    assert edits.present(config(devices=devices), found) is expected


def test_another_device_of_the_same_name_is_not_recognised():
    device = made(deviceNodes=[{"path": "/dev/a", "type": "c", "major": 1, "minor": 5}])
    there = [{"path": "/dev/a", "type": "c", "major": 1, "minor": 3}]
    assert not edits.present(config(devices=there), device)


# --- what CDI has no word for


def test_a_default_leaves_what_is_set(acme):
    env = edited(acme, config(), envDefault=["A=c", "NEW=1", "NEW=2"]).config["process"]["env"]
    assert env == ["PATH=/bin", "ACME_CARD=?", "A=b", "NEW=1"]


def test_a_list_of_paths_grows_at_its_end(acme):
    made = edited(acme, config(), envAppend=["PATH=/opt/bin", "LD_LIBRARY_PATH=/a:/b"])
    assert made.config["process"]["env"] == [
        "PATH=/bin:/opt/bin",
        "ACME_CARD=?",
        "A=b",
        "LD_LIBRARY_PATH=/a:/b",
    ]


def test_a_limit_of_the_config_stays(acme):
    base = config()
    base["process"]["rlimits"] = [{"type": "RLIMIT_STACK", "soft": 1, "hard": 2}]
    more = [{"type": name, "soft": 5, "hard": 5} for name in ("RLIMIT_STACK", "RLIMIT_MEMLOCK")]
    made = edited(acme, base, rlimits=more)
    assert made.config["process"]["rlimits"] == [
        {"type": "RLIMIT_STACK", "soft": 1, "hard": 2},
        {"type": "RLIMIT_MEMLOCK", "soft": 5, "hard": 5},
    ]
    assert made.name("process.rlimits[1].soft") == "t.t/t=0: rlimits[1].soft"


def test_a_hook_that_the_stage_replaces_goes(acme):
    base = config()
    ours = {"path": "/usr/bin/nvidia-container-runtime-hook", "args": ["x", "prestart"]}
    base["hooks"] = {"prestart": [{"path": "/proc/1/exe"}, ours], "poststop": [ours]}
    which = {"hookName": "prestart", "program": "nvidia-container-runtime-hook"}
    made = edited(acme, base, dropHooks=[which])
    assert made.config["hooks"] == {"prestart": [{"path": "/proc/1/exe"}], "poststop": [ours]}
    assert len(base["hooks"]["prestart"]) == 2
