"""Which kernel parameters a container may set, and where each is written."""

from __future__ import annotations

import os

import pytest

from ocirt.errors import ConfigError
from ocirt.plan import sysctl
from ocirt.plan.host import Host


def config(key, value="1", *spaces):
    entries = [space if isinstance(space, dict) else {"type": space} for space in spaces]
    return {"linux": {"sysctl": {key: value}, "namespaces": entries}}


def write(config, host=None):
    return sysctl.write(config, host or Host())


def path(key, *spaces):
    (op,) = write(config(key, "1", *spaces))
    assert op.name == "sysctl"
    return op.args[0]


def test_the_domain_name_is_set_by_its_system_call():
    """In a user namespace its file is not writable."""
    (op,) = write(config("kernel.domainname", "example.org", "uts"))
    assert (op.name, op.args) == ("domainname", ("example.org",))


@pytest.mark.parametrize(
    ("key", "space", "expected"),
    [
        ("kernel.msgmax", "ipc", "kernel/msgmax"),
        ("kernel/shm_rmid_forced", "ipc", "kernel/shm_rmid_forced"),
        ("fs.mqueue.msg_max", "ipc", "fs/mqueue/msg_max"),
        ("user.max_user_namespaces", "user", "user/max_user_namespaces"),
        ("net.core.somaxconn", "network", "net/core/somaxconn"),
        ("net.ipv4.conf.all.forwarding", "network", "net/ipv4/conf/all/forwarding"),
        ("net.ipv4.conf.eth0/100.forwarding", "network", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "network", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv4.conf.eth0.100.forwarding", "network", "net/ipv4/conf/eth0.100/forwarding"),
        ("net.ipv6.neigh.br-1.2.3.delay", "network", "net/ipv6/neigh/br-1.2.3/delay"),
    ],
)
def test_a_namespaced_parameter_is_written_below_proc_sys(key, space, expected):
    assert path(key, space) == expected


@pytest.mark.parametrize(
    ("key", "spaces"),
    [
        ("kernel.msgmax", ["network", "uts", "user"]),
        ("net.core.somaxconn", ["ipc"]),
        ("network.core.x", ["network"]),
        ("kernel.domainname", ["ipc"]),
        ("user.max_user_namespaces", ["ipc"]),
        ("kernel.core_pattern", ["ipc", "network", "uts", "user", "mount", "pid"]),
        ("vm.overcommit_memory", ["ipc", "network", "uts", "user"]),
        ("kernel", ["ipc"]),
    ],
)
def test_a_parameter_of_the_whole_machine_is_refused(key, spaces):
    with pytest.raises(ConfigError) as error:
        path(key, *spaces)
    assert str(error.value) == (
        f'linux.sysctl[{key}]: sysctl "{key}" is not in a separate kernel namespace'
    )


def test_the_host_name_has_a_field_of_its_own():
    with pytest.raises(ConfigError, match='conflicts with the OCI "hostname" field'):
        path("kernel.hostname", "uts")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "net..x",
        "net/../kernel/core_pattern",
        "net.//.x",
        "/net/x",
        "net/x/",
        "net.x\0y",
        "net/./x",
    ],
)
def test_a_key_cannot_leave_its_directory(key):
    with pytest.raises(ConfigError):
        path(key, "network", "ipc", "uts", "user")


@pytest.mark.parametrize("value", ["1+kernel.core_pattern=|/x", "a\nb", "", " 1 "])
def test_a_value_is_never_looked_into(value):
    (op,) = write(config("net.core.somaxconn", value, "network"))
    assert op.args == ("net/core/somaxconn", value)


def test_joining_the_runtimes_own_network_does_not_make_it_the_containers(tmp_path):
    own, other = tmp_path / "proc/self/ns/net", tmp_path / "other"
    own.parent.mkdir(parents=True)
    own.touch()
    other.touch()
    os.link(own, tmp_path / "same")
    host = Host(str(tmp_path))
    joined = {"type": "network", "path": str(other)}
    assert write(config("net.core.somaxconn", "1", joined), host)
    shared = {"type": "network", "path": str(tmp_path / "same")}
    with pytest.raises(ConfigError, match="is not in a separate kernel namespace"):
        write(config("net.core.somaxconn", "1", shared), host)


def test_without_sysctl_there_is_nothing_to_do():
    assert write({}) == []
    assert write({"linux": {"sysctl": {}}}) == []
