"""Users, capabilities, labels, scheduling and limits: the ops of one config on one machine."""

from __future__ import annotations

import os
import struct

import pytest

from ocirt.errors import ConfigError
from ocirt.plan import identity
from ocirt.plan.host import Host
from ocirt.plan.ops import APPARMOR, SELINUX, encode

ALL = (1 << 41) - 1


@pytest.fixture
def on(tmp_path):
    """Run a stage on a machine that has these files."""

    def run(stage, config, files=(), **options):
        defaults = {
            "proc/self/status": f"Name:\tx\nCapBnd:\t{ALL:016x}\nCapAmb:\t0\n",
            "proc/sys/kernel/cap_last_cap": "40\n",
            "proc/self/setgroups": "allow\n",
        }
        for path, text in {**defaults, **dict(files)}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return stage(config, Host(str(tmp_path), **options))

    return run


def caps(*spaces, **sets):
    return {
        "process": {"capabilities": sets},
        "linux": {"namespaces": [{"type": space} for space in spaces]},
    }


def by_name(ops):
    return {op.name: op.args for op in ops}


# --- capabilities


def test_the_table_counts_as_the_kernel_does():
    assert len(identity.CAPABILITIES) == 41
    numbers = {name: identity.CAPABILITIES.index(name) for name in identity.CAPABILITIES}
    assert numbers["CAP_CHOWN"] == 0
    assert numbers["CAP_NET_BIND_SERVICE"] == 10
    assert numbers["CAP_SYS_ADMIN"] == 21
    assert numbers["CAP_MKNOD"] == 27
    assert numbers["CAP_SETFCAP"] == 31
    assert numbers["CAP_CHECKPOINT_RESTORE"] == 40


def test_each_set_becomes_a_mask(on):
    config = caps(
        bounding=["CAP_KILL", "CAP_CHOWN"],
        effective=["CAP_CHOWN"],
        permitted=["CAP_CHOWN", "CAP_FOWNER"],
        inheritable=["CAP_FSETID"],
        ambient=["CAP_SETGID"],
    )
    (drop,) = on(identity.bounding, config)
    assert (drop.name, drop.args) == ("bounding", (1 << 5 | 1,))
    assert by_name(on(identity.become, config))["capabilities"] == (
        1,
        1 | 1 << 3,
        1 << 4,
        1 << 6,
    )
    assert on(identity.warnings, config) == []


def test_without_the_object_root_keeps_everything(on):
    for config in ({"process": {}}, {"process": {"capabilities": None}}):
        assert on(identity.bounding, config) == []
        assert "capabilities" not in by_name(on(identity.become, config))


def test_a_set_that_is_absent_is_empty(on):
    config = caps(effective=["CAP_CHOWN"])
    assert on(identity.bounding, config)[0].args == (0,)
    assert by_name(on(identity.become, config))["capabilities"] == (1, 0, 0, 0)


@pytest.mark.parametrize("name", ["CAP_ZZZ", "kill", "CAP_", ""])
def test_an_unknown_capability_is_refused(on, name):
    config = caps(bounding=["CAP_KILL", name])
    with pytest.raises(ConfigError) as caught:
        on(identity.bounding, config)
    assert str(caught.value).startswith("process.capabilities.bounding[1]: unknown capability")


def test_what_the_runtime_lacks_is_left_out_with_a_warning(on):
    files = {"proc/self/status": f"CapBnd:\t{ALL & ~(1 << 24):016x}\n"}
    config = caps(bounding=["CAP_SYS_RESOURCE", "CAP_KILL"])
    assert on(identity.bounding, config, files=files)[0].args == (1 << 5,)
    assert on(identity.warnings, config, files=files) == [
        "ignoring unavailable capabilities: [CAP_SYS_RESOURCE]"
    ]


def test_a_user_namespace_starts_with_all_that_the_kernel_knows(on):
    files = {"proc/self/status": "CapBnd:\t0\n"}
    config = caps("user", bounding=["CAP_SYS_RESOURCE", "CAP_KILL"])
    assert on(identity.bounding, config, files=files)[0].args == (1 << 24 | 1 << 5,)
    old = {"proc/sys/kernel/cap_last_cap": "37\n"}
    config = caps("user", bounding=["CAP_BPF", "CAP_KILL"])
    assert on(identity.bounding, config, files=old)[0].args == (1 << 5,)


# --- user


def test_the_default_user_is_root_without_groups(on):
    ops = by_name(on(identity.become, {"process": {}}))
    assert ops["umask"] == (0o22,)
    assert ops["stdio"] == (0,)
    assert ops["identity"] == (0, 0, b"", 1)


def test_user_groups_and_umask_are_taken_over(on):
    user = {"uid": 1000, "gid": 100, "additionalGids": [5, 4294967294], "umask": 0}
    ops = by_name(on(identity.become, {"process": {"user": user}}))
    assert ops["umask"] == (0,)
    assert ops["stdio"] == (1000,)
    assert ops["identity"] == (1000, 100, struct.pack("=2I", 5, 4294967294), 1)


def test_the_stdio_changes_hands_before_root_is_gone(on):
    config = caps(effective=[])
    names = [op.name for op in on(identity.become, config)]
    assert names == ["umask", "stdio", "identity", "capabilities"]


# --- groups


DENIED = {"proc/self/setgroups": "deny\n"}
OWN = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
MORE = [*OWN, {"containerID": 1, "hostID": 100000, "size": 9}]


def groups(path=None, gids=(), extra=(1,), **annotations):
    """A config with additional groups, in a user namespace: joined, or with these mappings."""
    space = {"type": "user", "path": path} if path else {"type": "user"}
    return {
        "process": {"user": {"additionalGids": list(extra)}},
        "linux": {"namespaces": [space] if path or gids else [], "gidMappings": list(gids)},
        "annotations": annotations,
    }


@pytest.mark.parametrize(
    ("config", "options", "files"),
    [
        (groups(extra=()), {}, DENIED),
        (groups(gids=OWN, extra=()), {"unprivileged": True}, {}),
        (groups(), {}, DENIED),  # runc passes over them, too
        (groups(gids=MORE), {}, DENIED),
        (groups("/proc/7/ns/user"), {}, {"proc/7/setgroups": "deny\n"}),
        (groups(**{identity.KEEP_GROUPS: "1"}), {}, {}),
        (groups(gids=OWN, **{identity.KEEP_GROUPS: "1"}), {"unprivileged": True}, {}),
    ],
)
def test_groups_are_left_alone_where_they_cannot_be_set_or_shall_stay(on, config, options, files):
    assert by_name(on(identity.become, config, files, **options))["identity"][2:] == (b"", 0)
    warned = on(identity.warnings, config, files, **options)
    wanted = config["process"]["user"]["additionalGids"]
    assert [text.partition(": left")[0] for text in warned] == (
        ["process.user.additionalGids"] if wanted else []
    )


@pytest.mark.parametrize(
    ("config", "options", "files"),
    [
        (groups(), {}, {}),
        (groups(gids=OWN), {}, {}),
        (groups(gids=MORE), {"unprivileged": True}, {}),
        (groups("/proc/7/ns/user"), {"unprivileged": True}, {"proc/7/setgroups": "allow\n"}),
        (groups("/run/spaces/user"), {}, {}),
        (groups(**{identity.KEEP_GROUPS: "0"}), {}, {}),
    ],
)
def test_groups_are_set_where_they_can_be(on, config, options, files):
    ops = by_name(on(identity.become, config, files, **options))
    assert ops["identity"][2:] == (struct.pack("=I", 1), 1)
    assert on(identity.warnings, config, files, **options) == []


@pytest.mark.parametrize(("gids", "files"), [(OWN, {}), (MORE, DENIED)])
def test_an_unprivileged_caller_is_refused_groups_that_cannot_be_set(on, gids, files):
    with pytest.raises(ConfigError) as error:
        on(identity.become, groups(gids=gids), files, unprivileged=True)
    assert str(error.value) == (
        "process.user.additionalGids: cannot set any additional groups in a rootless container"
    )


def test_what_is_known_of_the_containers_namespace_comes_first(tmp_path):
    host = Host(str(tmp_path))
    host.setgroups = "deny"
    assert host.denies_groups(None)


# --- security modules


def test_apparmor_fails_closed(on):
    enabled = "sys/module/apparmor/parameters/enabled"
    config = {"process": {"apparmorProfile": "docker-default"}}
    with pytest.raises(ConfigError) as error:
        on(identity.apparmor, config)
    assert str(error.value) == (
        "process.apparmorProfile: apparmor: config provided but apparmor not supported"
    )
    with pytest.raises(ConfigError):
        on(identity.apparmor, config, files={enabled: "N\n"})
    ops = on(identity.apparmor, config, files={enabled: "Y\n"})
    assert by_name(ops)["lsm"] == (APPARMOR, "docker-default")
    assert on(identity.apparmor, {"process": {"apparmorProfile": ""}}) == []


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"process": {"selinuxLabel": "u:r:t:s0"}}, "process.selinuxLabel"),
        ({"linux": {"mountLabel": "u:r:t:s0"}}, "linux.mountLabel"),
    ],
)
def test_selinux_fails_closed(on, config, place):
    with pytest.raises(ConfigError) as error:
        on(identity.selinux, config)
    assert str(error.value) == (
        f"{place}: selinux label is specified in config, but selinux is disabled or not supported"
    )


def test_an_selinux_label_is_asked_for(on):
    files = {"sys/fs/selinux/enforce": "1"}
    config = {"process": {"selinuxLabel": "u:r:t:s0"}}
    assert by_name(on(identity.selinux, config, files=files))["lsm"] == (SELINUX, "u:r:t:s0")
    assert on(identity.selinux, {"process": {"selinuxLabel": ""}}, files=files) == []


def test_no_new_privileges_is_an_op():
    assert [op.name for op in identity.no_new_privs({"process": {"noNewPrivileges": True}})] == [
        "no_new_privs"
    ]
    assert identity.no_new_privs({"process": {"noNewPrivileges": False}}) == []
    assert identity.no_new_privs({}) == []


# --- scheduling


def test_the_scheduler_is_a_struct_sched_attr():
    section = {
        "policy": "SCHED_DEADLINE",
        "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN"],
        "runtime": 1,
        "deadline": 2,
        "period": 1 << 40,
    }
    ((attr,),) = [op.args for op in identity.scheduling({"process": {"scheduler": section}})]
    assert struct.unpack("=IIQiIQQQII", attr) == (56, 6, 5, 0, 0, 1, 2, 1 << 40, 0, 0)
    section = {"policy": "SCHED_BATCH", "nice": -20}
    ((attr,),) = [op.args for op in identity.scheduling({"process": {"scheduler": section}})]
    assert struct.unpack("=IIQiIQQQII", attr)[1:5] == (3, 0, -20, 0)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"process": {"scheduler": {"policy": "SCHED_X"}}},
            "process.scheduler.policy: invalid scheduler policy: SCHED_X",
        ),
        (
            {"process": {"scheduler": {"policy": "SCHED_RR", "flags": ["X"]}}},
            "process.scheduler.flags[0]: invalid scheduler flag: X",
        ),
        (
            {"process": {"ioPriority": {"class": "X"}}},
            "process.ioPriority.class: invalid ioPriority.Class: X",
        ),
        (
            {"linux": {"personality": {"domain": "X"}}},
            "linux.personality.domain: invalid personality domain X",
        ),
        (
            {"linux": {"personality": {"domain": "LINUX", "flags": ["X"]}}},
            "linux.personality.flags: no personality flag is supported",
        ),
        (
            {"linux": {"memoryPolicy": {"mode": "X"}}},
            "linux.memoryPolicy.mode: invalid memory policy mode X",
        ),
        (
            {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-"}}},
            "linux.memoryPolicy.nodes: '0-' is not a list such as 0-3,7",
        ),
        (
            {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "4000"}}},
            "linux.memoryPolicy.nodes: 4000 is not a range within 0-1023",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_its_place(config, sentence):
    with pytest.raises(ConfigError) as error:
        identity.scheduling(config)
    assert str(error.value) == sentence


def test_io_priority_personality_and_memory_policy_are_numbers():
    config = {
        "process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}},
        "linux": {
            "personality": {"domain": "LINUX32"},
            "memoryPolicy": {
                "mode": "MPOL_BIND",
                "nodes": "0-1",
                "flags": ["MPOL_F_STATIC_NODES"],
            },
        },
    }
    ops = identity.scheduling(config)
    assert [op.name for op in ops] == ["io_priority", "personality", "mempolicy"]
    assert [op.args for op in ops] == [
        (2 << 13 | 4,),
        (8,),
        (2 | 1 << 15, (3).to_bytes(8, "little")),
    ]


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("0", 1),
        ("0-3,7", 0b10001111),
        (" 1 , 3 ", 0b1010),
        ("62", 1 << 62),
        ("63", 1 << 63),
        ("64-65", 3 << 64),
    ],
)
def test_a_list_of_nodes_is_a_bitmap_with_a_spare_bit(text, mask):
    data = identity.bits(text, 1023)
    assert int.from_bytes(data, "little") == mask
    assert len(data) % 8 == 0
    assert len(data) * 8 > mask.bit_length()


@pytest.mark.parametrize("text", ["", "a", "-1", "1-", "2-1", "1,,2", "0x1", "1-2-3", "²", "1024"])
def test_a_malformed_list_is_refused(text):
    with pytest.raises(ConfigError):
        identity.bits(text, 1023)


# --- outside


def test_the_affinity_is_always_reset_and_the_oom_score_only_when_given(on):
    assert [op.name for op in on(identity.outside, {})] == ["affinity"]
    ops = on(identity.outside, {"process": {"oomScoreAdj": 0}})
    assert by_name(ops) == {"affinity": ("",), "write": ("/proc/self/oom_score_adj", "0")}


def test_a_rootless_runtime_may_fail_to_lower_the_oom_score(on):
    ops = on(identity.outside, {"process": {"oomScoreAdj": -5}}, rootless=True)
    assert [op.name for op in ops] == ["try", "write", "affinity", "affinity"]


def test_rlimits_are_numbers_with_a_place():
    config = {
        "process": {
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 10},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1},
            ]
        }
    }
    assert identity.rlimits(config) == [
        (7, 5, 10, "process.rlimits[0]"),
        (4, 0, -1, "process.rlimits[1]"),
    ]
    assert identity.rlimits({}) == []


def test_the_rlimit_table_is_that_of_this_machine():
    import resource

    for name, number in identity.RLIMITS.items():
        if name != "RLIMIT_LOCKS" and hasattr(resource, name):
            assert getattr(resource, name) == number


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([("RLIMIT_X", 1, 1)], "process.rlimits[0]: wrong rlimit value: RLIMIT_X"),
        (
            [("RLIMIT_AS", 1, 1), ("RLIMIT_AS", 2, 2)],
            "process.rlimits[1]: RLIMIT_AS is given twice",
        ),
        (
            [("RLIMIT_AS", 2, 1)],
            "process.rlimits[0]: RLIMIT_AS: soft limit 2 is above hard limit 1",
        ),
    ],
)
def test_bad_rlimits_are_refused(entries, sentence):
    given = [{"type": name, "soft": soft, "hard": hard} for name, soft, hard in entries]
    with pytest.raises(ConfigError) as error:
        identity.rlimits({"process": {"rlimits": given}})
    assert str(error.value) == sentence


def test_a_death_signal_is_set_only_when_there_is_one():
    assert identity.death_signal(0) == []
    assert identity.death_signal(9)[0].args == (9,)


# --- seccomp


@pytest.mark.parametrize("no_new_privs", [False, True])
def test_the_filter_goes_in_late_only_with_no_new_privileges(monkeypatch, no_new_privs):
    monkeypatch.setattr(identity.filters, "program", lambda section, cache: (bytes(16), 4, True))
    config = {
        "process": {"noNewPrivileges": no_new_privs},
        "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}},
    }
    assert bool(identity.seccomp(config, None, early=True)) is not no_new_privs
    assert bool(identity.seccomp(config, None, early=False)) is no_new_privs
    (op,) = identity.seccomp(config, None, early=not no_new_privs)
    assert op.args == (4, bytes(16), 1)


def test_faults_of_the_filter_are_named_by_their_place(monkeypatch):
    def refuse(section, cache):
        raise ConfigError("syscalls[0]", "bad")

    monkeypatch.setattr(identity.filters, "program", refuse)
    with pytest.raises(ConfigError, match=r"^linux\.seccomp: syscalls\[0\]: bad$"):
        identity.seccomp({"linux": {"seccomp": {"defaultAction": "x"}}}, None, early=True)


# --- the whole


def test_every_op_can_be_written_down(on):
    config = {
        "process": {
            "oomScoreAdj": 3,
            "capabilities": {"bounding": list(identity.CAPABILITIES), "permitted": ["CAP_KILL"]},
            "noNewPrivileges": True,
            "scheduler": {"policy": "SCHED_OTHER", "nice": 3},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
            "user": {"uid": 1, "gid": 2, "additionalGids": [3]},
        },
        "linux": {
            "personality": {"domain": "LINUX"},
            "memoryPolicy": {"mode": "MPOL_DEFAULT"},
        },
    }
    ops = (
        on(identity.outside, config)
        + identity.no_new_privs(config)
        + identity.scheduling(config)
        + on(identity.bounding, config)
        + on(identity.become, config)
        + identity.death_signal(15)
    )
    assert encode(ops, 0, {})


def test_the_facts_of_this_machine_can_be_read():
    machine = Host()
    assert machine.bounding() > 0
    assert machine.known() >= machine.bounding()
    assert machine.apparmor() in (True, False)
    assert machine.selinux() in (True, False)
    assert machine.denies_groups(None) == machine.denies_groups("/proc/self/ns/user")
    assert machine.in_user_namespace() in (True, False)
    assert machine.is_own_namespace("net", "/proc/self/ns/net")
    assert not machine.is_own_namespace("net", "/proc/self/ns/uts")
