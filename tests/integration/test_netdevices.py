"""`linux.netDevices`: devices of the host move into the container, and back when it fails.

The host is a network namespace of its own, so that no test meets a device of the machine.

runtime-spec, config-linux.md, "Network Devices".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.integration.support import (
    PATIENCE,
    Runtime,
    bind,
    eventually,
    find_runtime,
    namespaces,
    only_ocirt,
)

pytestmark = [
    only_ocirt("runc 1.1 and crun 1.8 know no netDevices"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip of iproute2"),
]

MAPPED = [{"containerID": 0, "hostID": 100000, "size": 65536}]


class Network:
    """A network namespace with a process in it that keeps it alive."""

    def __init__(self, host):
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        host.known.add(self.process.pid)
        self.path = f"/proc/{self.process.pid}/ns/net"
        own = os.stat("/proc/self/ns/net").st_ino
        assert eventually(lambda: os.stat(self.path).st_ino != own)

    def ip(self, *args):
        line = ["nsenter", f"--net={self.path}", "ip", *args]
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
        if "Unknown device type" in done.stderr:
            pytest.skip(f"this kernel has no such device: {' '.join(args)}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, *args):
        self.ip("link", "add", *args)

    def devices(self):
        """Return {name: (flags, MTU, hardware address, global addresses)} but for lo."""
        found = {}
        for link in json.loads(self.ip("-j", "addr")):
            if link["ifname"] != "lo":
                addresses = {
                    f"{one['local']}/{one['prefixlen']}"
                    for one in link["addr_info"]
                    if one["scope"] == "global"
                }
                up = "UP" in link["flags"]
                found[link["ifname"]] = (up, link["mtu"], link["address"], addresses)
        return found

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def networks(host):
    made = []

    def make():
        made.append(Network(host))
        return made[-1]

    yield make
    for network in made:
        network.end()


@pytest.fixture
def network(networks):
    return networks()


@pytest.fixture
def runtime(runtime, network, workdir):
    """The runtime, in the network that stands for the host's."""
    path = os.path.join(workdir, "runtime")
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec nsenter --net={network.path} "{runtime.path}" "$@"\n')
    os.chmod(path, 0o755)
    inside = Runtime(path, runtime.flavour, workdir, runtime.host)
    yield inside
    inside.close()


def seen(runtime, bundle):
    """Return what `Network.devices` returns, as it is in the container."""
    pid = runtime.started(bundle)
    line = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-j", "addr"]
    view = Network.__new__(Network)
    view.ip = lambda *args: subprocess.run(line, capture_output=True, text=True, check=True).stdout
    return view.devices()


def pair(network, mtu="1400"):
    """Make a veth pair `left`, `right`; left has addresses and is up."""
    network.add("left", "mtu", mtu, "type", "veth", "peer", "name", "right")
    network.ip("addr", "add", "192.0.2.5/24", "brd", "+", "dev", "left")
    network.ip("addr", "add", "192.0.2.6/24", "dev", "left")
    network.ip("addr", "add", "2001:db8::5/64", "dev", "left", "nodad")
    network.ip("link", "set", "left", "up")


def test_a_device_comes_under_its_new_name_with_all_that_is_its_own(runtime, network, bundle):
    pair(network)
    before = network.devices()["left"]
    b = bundle.sleeping(linux={"netDevices": {"left": {"name": "eth0"}}})
    assert seen(runtime, b) == {"eth0": before}
    assert before[:2] == (True, 1400)
    assert before[3] == {"192.0.2.5/24", "192.0.2.6/24", "2001:db8::5/64"}
    assert set(network.devices()) == {"right"}


def test_a_device_keeps_its_name_and_is_switched_on(runtime, network, bundle):
    pair(network)
    b = bundle.sleeping(linux={"netDevices": {"right": {}, "left": {}}})
    found = seen(runtime, b)
    assert {name: device[0] for name, device in found.items()} == {"left": True, "right": True}
    assert network.devices() == {}


def test_addresses_that_belong_to_the_old_place_stay_behind(runtime, network, bundle):
    pair(network)
    network.ip("addr", "add", "169.254.7.7/16", "scope", "link", "dev", "left")
    network.ip("addr", "add", "192.0.2.99/24", "dev", "left", "valid_lft", "900", "preferred_lft",
               "900")  # fmt: skip
    b = bundle.sh("ip addr show left", linux={"netDevices": {"left": {}}})
    text = runtime.prints(b)
    assert "192.0.2.5/24" in text
    assert "169.254.7.7" not in text
    assert "192.0.2.99" not in text


def test_a_point_to_point_address_keeps_its_peer(runtime, network, bundle):
    pair(network)
    network.ip("addr", "add", "198.51.100.1", "peer", "198.51.100.2/32", "dev", "left")
    b = bundle.sh("ip addr show left", linux={"netDevices": {"left": {}}})
    assert "198.51.100.1 peer 198.51.100.2/32" in runtime.prints(b)


@pytest.mark.parametrize("kind", ["dummy", "macvlan", "ipvlan"])
def test_other_kinds_of_devices_move_as_well(runtime, network, bundle, kind):
    pair(network)
    below = [] if kind == "dummy" else ["link", "right"]
    network.add(*below, "name", "other", "type", kind)
    network.ip("addr", "add", "203.0.113.1/24", "dev", "other")
    b = bundle.sleeping(linux={"netDevices": {"other": {"name": "net0"}}})
    assert seen(runtime, b)["net0"][3] == {"203.0.113.1/24"}


def test_the_program_of_a_user_namespace_rules_over_its_device(runtime, network, bundle):
    pair(network)
    sets = ["CAP_NET_ADMIN"]
    linux = {
        "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
        "uidMappings": MAPPED,
        "gidMappings": MAPPED,
        "netDevices": {"left": {"name": "eth0"}},
    }
    b = bundle.sh(
        "ip addr show eth0 && ip addr add 192.0.2.77/24 dev eth0 && ip link set eth0 down",
        linux=linux,
        process={"capabilities": {"bounding": sets, "effective": sets, "permitted": sets}},
    )
    assert "2001:db8::5/64" in runtime.prints(b)


def test_a_device_moves_into_a_namespace_that_is_joined(runtime, networks, network, bundle):
    other = networks()
    pair(network)
    listed = namespaces("pid", "ipc", "uts", "mount", network=other.path)
    b = bundle.sleeping(linux={"namespaces": listed, "netDevices": {"left": {"name": "eth0"}}})
    runtime.started(b)
    assert other.devices()["eth0"][3] == {"192.0.2.5/24", "192.0.2.6/24", "2001:db8::5/64"}
    runtime.delete(b, "--force")
    assert set(other.devices()) == {"eth0"}  # the namespace is not ours to end


def test_createruntime_hooks_find_the_device_in_place(runtime, network, bundle, workdir):
    pair(network)
    script = (
        """pid=$(grep -o '"pid":[0-9]*' | cut -d: -f2); """
        f"nsenter --net=/proc/$pid/ns/net ip link > {workdir}/seen"
    )
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"PATH={os.environ['PATH']}"]}
    b = bundle("true", linux={"netDevices": {"left": {}}}, hooks={"createRuntime": [hook]})
    assert runtime.run(b).code == 0
    with open(f"{workdir}/seen") as file:
        assert "left" in file.read()


def test_virtual_devices_end_with_the_container(runtime, network, bundle):
    pair(network)
    b = bundle("true", linux={"netDevices": {"left": {}}})
    assert runtime.run(b).code == 0
    assert eventually(lambda: network.devices() == {})  # a pair of which one end is gone


def test_an_exec_sees_the_device(runtime, network, bundle):
    pair(network)
    b = bundle.sleeping(linux={"netDevices": {"left": {"name": "eth0"}}})
    runtime.started(b)
    assert "192.0.2.5/24" in runtime.ok("exec", b.id, "ip", "addr", "show", "eth0").out


# --- what cannot be


def refused(runtime, network, bundle, ours, **patch):
    """The bundle is refused, and every device is as it was."""
    before = network.devices()
    runtime.refuses_to_create(bundle.sleeping(**patch), ours=ours)
    assert eventually(lambda: network.devices() == before), network.devices()


def test_a_device_that_is_not_there_is_named(runtime, network, bundle):
    pair(network)
    section = {"left": {"name": "eth0"}, "eth9": {}}
    sentence = "linux.netDevices.eth9: link not found for interface eth9 on runtime namespace"
    refused(runtime, network, bundle, sentence, linux={"netDevices": section})


def test_a_name_that_is_taken_in_the_container_is_named(runtime, networks, network, bundle):
    other = networks()
    other.add("eth0", "type", "veth", "peer", "name", "eth1")
    pair(network)
    linux = {
        "namespaces": namespaces("pid", "ipc", "uts", "mount", network=other.path),
        "netDevices": {"right": {}, "left": {"name": "eth0"}},
    }
    sentence = 'linux.netDevices.left: the container has a network device "eth0" already'
    refused(runtime, network, bundle, sentence, linux=linux)
    assert set(other.devices()) == {"eth0", "eth1"}


def test_what_moved_before_a_refusal_of_the_kernel_comes_back(runtime, network, bundle):
    pair(network)
    section = {"left": {"name": "eth0"}, "lo": {"name": "lo1"}}
    refused(runtime, network, bundle, "linux.netDevices.lo: ", linux={"netDevices": section})


USER = {
    "namespaces": namespaces("user", "pid", "network", "ipc", "uts", "mount"),
    "uidMappings": MAPPED,
    "gidMappings": MAPPED,
}


@pytest.mark.parametrize("linux", [{}, USER], ids=["plain", "user-namespace"])
@pytest.mark.parametrize(
    ("patch", "ours"),
    [
        ({"process": {"args": ["/nosuch"]}}, "no such file or directory"),
        ({"hooks": {"createRuntime": [{"path": "/bin/false"}]}}, "createRuntime hook #0"),
        ({"mounts": [bind("/nosuch", "/x")]}, "mounts[0]"),
    ],
    ids=["program", "hook", "mount"],
)
def test_devices_come_back_from_a_container_that_fails_later(
    runtime, network, bundle, linux, patch, ours
):
    pair(network)
    section = {"left": {"name": "eth0"}, "right": {"name": "eth1"}}
    refused(runtime, network, bundle, ours, linux={**linux, "netDevices": section}, **patch)


def test_the_hosts_own_namespace_is_no_containers(runtime, network, bundle):
    pair(network)
    listed = namespaces("pid", "ipc", "uts", "mount", network=network.path)
    linux = {"namespaces": listed, "netDevices": {"left": {}}}
    sentence = "linux.netDevices: unable to move network devices without a private NET namespace"
    refused(runtime, network, bundle, sentence, linux=linux)


def test_without_rights_no_device_moves(bundle, workdir):
    b = bundle.sleeping(linux={**USER, "netDevices": {"left": {}}})
    state = os.path.join(workdir, "theirs")
    os.mkdir(state)
    os.chown(state, 1000, 1000)
    done = subprocess.run(
        [find_runtime(), "--root", state, "create", "--bundle", b.path, b.id],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        user=1000,
        group=1000,
        extra_groups=[],
    )
    assert done.returncode == 1
    sentence = "linux.netDevices: network devices are not supported for rootless containers"
    assert sentence in done.stderr
    assert os.listdir(state) == []
