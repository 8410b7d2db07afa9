"""Whole plans: golden texts, and what the stages refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ocirt import plan
from ocirt.cli.plan import _row, table
from ocirt.errors import Error
from ocirt.plan import ops
from ocirt.plan.host import Host

GOLDEN = Path(__file__).parent.parent / "golden"
CONFIGS = sorted(path.stem for path in GOLDEN.glob("*.json"))


MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.fixture
def machine(tmp_path: Path) -> Host:
    """A machine with AppArmor, every capability, and /proc/kcore."""
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("CapBnd:\t000001ffffffffff\n")
    (tmp_path / "proc/kcore").touch()
    (tmp_path / "proc/self/setgroups").write_text("allow\n")
    enabled = tmp_path / "sys/module/apparmor/parameters/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("Y\n")
    return Host(str(tmp_path))


def context_of(config: dict[str, Any], host: Host) -> plan.Context:
    context = plan.Context(config, "web1", "/bundle", "/bundle/rootfs")
    context.host = host
    context.attach_files = [("cgroup.pids", "/sys/fs/cgroup/pids/web1/tasks")]
    return context


def config_with(**changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((GOLDEN / "plain.json").read_text())
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key] = {**config[key], **value}
        else:
            config[key] = value
    return config


@pytest.mark.parametrize("name", CONFIGS)
def test_the_plan_is_the_golden_one(name: str, machine: Host) -> None:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    text = table([_row(op) for op in plan.compile(config, context_of(config, machine))])
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("OCIRT_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_plan_can_be_written_down(name: str, machine: Host) -> None:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    context = context_of(config, machine)
    compiled = plan.compile(config, context)
    words = {op.args[0] for op in compiled if op.name in ("attach", "gate", "join")}
    slots = {word: number for number, word in enumerate(sorted(words))} | context.slots
    cut = plan.split(compiled)
    assert compiled[cut - 1].name == "clone"
    for part, first in ((compiled[:cut], 0), (compiled[cut:], cut)):
        data = ops.encode(part, first, slots)
        magic, index, count, size = (
            int.from_bytes(data[i : i + 4], "little") for i in range(0, 16, 4)
        )
        assert (magic, index, count, size) == (ops.MAGIC, first, len(part), len(data) - 16)


def of_rank(config: dict[str, Any], host: Host, rank: int, linux: dict[str, Any]) -> Any:
    """Return the config and the context of one of several containers of a bundle."""
    process = {**config["process"], "env": [*config["process"]["env"], f"RANK={rank}"]}
    config = {**config, "process": process, "linux": {**config["linux"], **linux}}
    context = context_of(config, host)
    context.container_id = f"web-{rank}"
    folder = f"/sys/fs/cgroup/pids/web-{rank}"
    context.attach_files = [("cgroup.pids", f"{folder}/tasks")]
    context.cgroup_mounts = lambda dest, private: [
        ("tmpfs", "tmpfs", dest, ""), ("bind", folder, f"{dest}/pids", ""),
    ]  # fmt: skip
    context.cgroup_program = b"" if rank else b"12345678"
    context.cpus = str(rank)
    return config, context


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("linux", [{}, {"uidMappings": MAPPING, "gidMappings": MAPPING}])
def test_what_ranks_have_in_common_is_compiled_once_and_comes_to_the_same(
    name: str, linux: dict[str, Any], machine: Host
) -> None:
    config = json.loads((GOLDEN / f"{name}.json").read_text())
    tmpfs = {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}
    config["mounts"] = [*config["mounts"], tmpfs]
    if linux:
        spaces = [one for one in config["linux"]["namespaces"] if one["type"] != "user"]
        linux = {**linux, "namespaces": [*spaces, {"type": "user"}]}
    same: dict[Any, list[ops.Op]] = {}
    for rank in range(3):
        alone, context = of_rank(config, machine, rank, linux)
        expected = plan.compile(alone, context)
        slots = {op.args[0]: 0 for op in expected if op.name in ("attach", "gate", "join")}
        alone, twin = of_rank(config, machine, rank, linux)
        twin.same = same
        found = plan.compile(alone, twin)
        assert found == expected
        assert twin.slots == context.slots
        data = ops.encode(found, 0, slots | twin.slots, again=True)
        assert data == ops.encode(expected, 0, slots | context.slots)
    assert len(same) > 20


HOSTS_OWN = [
    # type, namespaces, what may stand in
    ("sysfs", ["user"], "/sys"),
    ("sysfs", ["user", "network"], "/sys"),
    ("sysfs", [], None),
    ("proc", ["user"], "/proc"),
    ("proc", ["user", "pid"], None),
    ("mqueue", ["user"], "/dev/mqueue"),
    ("mqueue", ["user", "ipc"], None),
    ("tmpfs", ["user"], None),
]


@pytest.mark.parametrize(("kind", "spaces", "stands_in"), HOSTS_OWN)
def test_the_hosts_own_stands_in_for_what_a_user_namespace_may_not_mount(
    kind: str, spaces: list[str], stands_in: str | None, tmp_path: Path, machine: Host
) -> None:
    destination = {"proc": "/proc", "sysfs": "/sys"}.get(kind, "/there")
    linux = {
        "namespaces": [{"type": one} for one in ["mount", *spaces]],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
    }
    config = config_with(mounts=[{"destination": destination, "type": kind}], linux=linux)
    for path in ("dev/mqueue", "proc", "sys"):
        (tmp_path / path).mkdir(parents=True, exist_ok=True)
    compiled = plan.compile(config, context_of(config, machine))
    index = next(i for i, op in enumerate(compiled) if op.name == "mount")
    assert (compiled[index - 1].name == "try") == (stands_in is not None)
    after = compiled[index + 1]
    if stands_in:
        assert (after.name, after.args[0]) == ("bind", stands_in)
        # Below /sys are the cgroups of the host: none of it may be written.
        whole = bool(after.args[6] & ops.ALL_OF_IT) and after.args[4] == 1
        assert whole == (kind == "sysfs")
    elif kind == "sysfs":
        assert after.name != "bind"


def test_a_device_is_bound_from_the_name_that_the_host_has_for_it(
    tmp_path: Path, machine: Host
) -> None:
    uevent = tmp_path / "sys/dev/char/1:5/uevent"
    uevent.parent.mkdir(parents=True)
    uevent.write_text("MAJOR=1\nMINOR=5\nDEVNAME=zero\nDEVMODE=0666\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/here").touch()
    devices = [
        {"path": path, "type": "c", "major": 1, "minor": minor}
        for path, minor in (("/dev/nought", 5), ("/dev/here", 5), ("/dev/none", 6))
    ]
    for spaces, sources in (
        (["user"], ["/dev/zero", "/dev/here", "/dev/none"]),
        ([], ["/dev/nought", "/dev/here", "/dev/none"]),
    ):
        linux = {"namespaces": [{"type": one} for one in ["mount", *spaces]], "devices": devices}
        config = config_with(linux=linux)
        compiled = plan.compile(config, context_of(config, machine))
        nodes = [op for op in compiled if op.name == "node" and op.where.startswith("linux.")]
        assert [op.args[6] for op in nodes] == sources


def test_a_runtime_in_a_user_namespace_puts_its_containers_into_it(
    tmp_path: Path, machine: Host
) -> None:
    (tmp_path / "proc/self/uid_map").write_text("0 1000 1\n1 100000 65536\n")
    (tmp_path / "sys").mkdir(exist_ok=True)
    config = config_with(mounts=[{"destination": "/sys", "type": "sysfs"}])
    compiled = plan.compile(config, context_of(config, machine))
    assert [op.name for op in compiled if op.where == "mounts[0]"] == ["try", "mount", "bind"]


def test_a_bind_is_remounted_without_taking_locked_flags_away(machine: Host) -> None:
    mounts = [{"destination": "/there", "options": ["remount", "bind", "ro", "exec"]}]
    for spaces, name in (["user"], "set_attr"), ([], "remount"):
        linux = {"namespaces": [{"type": one} for one in ["mount", *spaces]]}
        config = config_with(mounts=mounts, linux=linux)
        compiled = plan.compile(config, context_of(config, machine))
        assert [op.name for op in compiled if op.where == "mounts[0]"] == [name]


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        ({"destination": "/proc/sys", "type": "tmpfs"}, "is inside /proc"),
        ({"destination": "/proc/self/attr", "type": "bind", "source": "/x"}, "is inside /proc"),
        ({"destination": "/", "type": "tmpfs"}, "is the root itself"),
        ({"destination": "/a/..", "type": "tmpfs"}, "is the root itself"),
        ({"destination": "/a", "options": ["ro"]}, "needs a type"),
        ({"destination": "/a", "options": ["bind"]}, "needs a source"),
        ({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}, "is for tmpfs"),
        ({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}, "need a bind mount"),
    ],
)
def test_a_mount_that_cannot_be_made_is_refused(
    mount: dict[str, Any], message: str, machine: Host
) -> None:
    config = config_with(mounts=[mount])
    with pytest.raises(Error, match=message) as caught:
        plan.compile(config, context_of(config, machine))
    assert str(caught.value).startswith("mounts[0]: ")


def test_files_that_lxcfs_replaces_may_be_covered(machine: Host) -> None:
    mount = {"destination": "/proc/meminfo", "source": "/x", "options": ["bind"]}
    config = config_with(mounts=[mount])
    (op,) = [op for op in plan.compile(config, context_of(config, machine)) if op.name == "bind"]
    assert op.args[-1] & ops.IN_PROC


def test_nodes_in_a_bound_dev_are_left_to_the_host(machine: Host) -> None:
    mount = {"destination": "/dev", "source": "/dev", "options": ["rbind"]}
    config = config_with(mounts=[mount])
    names = {op.name for op in plan.compile(config, context_of(config, machine))}
    assert not names & {"node", "symlink"}


def test_a_device_of_the_config_stands_in_for_the_default(machine: Host) -> None:
    device = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 8630}
    config = config_with(linux={"devices": [device]})
    nodes = [op for op in plan.compile(config, context_of(config, machine)) if op.name == "node"]
    (null,) = [op for op in nodes if op.args[0] == "/dev/null"]
    assert null.args[1] & 0o7777 == 0o666  # podman's type bits in fileMode are masked out


def test_without_a_mount_namespace_the_root_is_changed_by_chroot(machine: Host) -> None:
    config = config_with(linux={"namespaces": [], "maskedPaths": [], "readonlyPaths": []})
    config["root"]["readonly"] = False
    compiled = plan.compile(config, context_of(config, machine))
    (pivot,) = [op for op in compiled if op.name == "pivot"]
    assert pivot.args == (ops.CHROOT,)
    assert "propagation" not in {op.name for op in compiled}


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_without_a_mount_namespace_nothing_may_be_covered(field: str, machine: Host) -> None:
    config = config_with(linux={"namespaces": [], "maskedPaths": [], "readonlyPaths": []})
    config["root"]["readonly"] = False
    config["linux"][field] = ["/proc/x"]
    with pytest.raises(Error, match=f"linux.{field}: needs a mount namespace"):
        plan.compile(config, context_of(config, machine))


def test_run_has_no_gate(machine: Host) -> None:
    config = config_with()
    context = context_of(config, machine)
    context.gate = False
    assert "gate" not in {op.name for op in plan.compile(config, context)}


def test_the_user_namespace_is_joined_last(machine: Host) -> None:
    spaces = [
        {"type": "user", "path": "/u"},
        {"type": "network", "path": "/n"},
        {"type": "mount"},
    ]
    config = config_with(linux={"namespaces": spaces})
    joins = [op for op in plan.compile(config, context_of(config, machine)) if op.name == "join"]
    assert [op.args[0] for op in joins] == ["ns.network", "ns.user"]
    assert all(op.args[2] for op in joins)


def test_the_mapping_is_asked_for_before_root_is_taken_on(machine: Host) -> None:
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    config = config_with(
        linux={
            "namespaces": [{"type": "user"}, {"type": "mount"}],
            "uidMappings": mapping,
            "gidMappings": mapping,
        }
    )
    names = [op.name for op in plan.compile(config, context_of(config, machine))]
    assert names.index("ask") < names.index("root_ids") < names.index("rootfs")
