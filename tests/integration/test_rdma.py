"""RDMA devices in containers, for real: soft-RoCE, which a virtual machine has.

python3 conformance/vm.py --rdma -- python3 -m pytest tests/integration/test_rdma.py

docs/conformance.md says how devices that can move between network namespaces come to be.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess

import pytest

from tests.integration.support import (
    PATIENCE,
    bind,
    eventually,
    namespaces,
    needs_controllers,
    only_ocirt,
)

PROGRAMS = ("ibv_devices", "ibv_devinfo", "ibv_rc_pingpong", "rdma")


def absent():
    if not os.path.exists("/dev/infiniband/uverbs0"):
        return "no /dev/infiniband: this machine has no RDMA device"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(missing)} (ibverbs-utils, iproute2)" if missing else ""


pytestmark = [
    only_ocirt("other runtimes know no RDMA devices"),
    pytest.mark.skipif(bool(absent()), reason=absent()),
]


def call(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)


def devices():
    """Return name -> uverbs node of the devices in the host's namespace."""
    there = {one["ifname"] for one in json.loads(call("rdma", "-j", "dev").stdout or "[]")}
    found = {}
    for path in sorted(glob.glob("/sys/class/infiniband_verbs/uverbs*")):
        with open(f"{path}/ibdev") as file:
            name = file.read().strip()
        if name in there:
            found[name] = os.path.basename(path)
    return found


def verbs():
    """Return mounts of the host's verbs programs, and of what they load."""
    paths = {"/etc/libibverbs.d"}
    for name in ("ibv_devices", "ibv_devinfo", "ibv_rc_pingpong"):
        program = shutil.which(name)
        paths.add(program)
        text = call("ldd", program).stdout
        folders = {os.path.dirname(path) for path in re.findall(r"(/\S+) \(0x", text)}
        # Providers are looked for in the one place that libibverbs was built for.
        paths |= folders | {os.path.realpath(folder) for folder in folders}
    return [bind(path, path, "rbind", "ro") for path in sorted(paths)]


@pytest.fixture
def box(bundle):
    """A container with verbs programs that asks for RDMA devices by an annotation."""

    def build(rdma, script, *spaces, own_network=True, **patch):
        kinds = ["pid", "ipc", "uts", "mount", *(["network"] if own_network else [])]
        mounts = patch.pop("more_mounts", []) + verbs()
        made = bundle("sh", "-c", script, more_mounts=mounts, **patch)
        made.patch(annotations={"ocirt.hpc/rdma": rdma, **patch.get("annotations", {})})
        made.patch(linux={"namespaces": [*namespaces(*kinds), *spaces]})
        return made

    return build


@pytest.fixture
def two():
    found = devices()
    if len(found) < 2:
        pytest.skip("this machine has one RDMA device alone")
    return found


def seen(text):
    """Return the names in what ibv_devices prints."""
    return [line.split()[0] for line in text.splitlines()[2:] if line.strip()]


# --- which devices a container has


def test_one_device_of_two(runtime, box, two):
    (name, node), (_, other) = list(two.items())[:2]
    b = box(
        name,
        "ibv_devices; echo; ls /dev/infiniband; ls /sys/class/infiniband /sys/class/infiniband_mad;"
        f"for n in /dev/infiniband/{node} /other; do exec 3<>$n && echo open; done",
    )
    with open(f"/sys/class/infiniband_verbs/{other}/dev") as file:
        major, minor = map(int, file.read().split(":"))
    os.mknod(b.inside("other"), 0o020666, os.makedev(major, minor))
    result = runtime.run(b)
    first, _, rest = result.out.partition("\n\n")
    assert seen(first) == [name], str(result)
    assert rest.split()[:2] == ["rdma_cm", node]
    assert other not in rest
    assert [word for word in rest.split() if word in two] == [name]
    assert rest.split()[-1] == "open"
    assert "/other: Operation not permitted" in result.err


def test_management_is_for_the_site_to_allow(runtime, box, workdir):
    name, node = next(iter(devices().items()))
    number = node.removeprefix("uverbs")
    b = box(name, "ls /dev/infiniband")
    assert runtime.prints(b).split() == ["rdma_cm", node]
    options = settings(workdir, "[rdma]\nmanagement = true\n")
    b = box(name, "ls /dev/infiniband")
    with_site = runtime(*options, "run", "--bundle", b.path, b.id)
    # Later kernels have no issm for RoCE.
    wanted = ["rdma_cm", node, *(f"{kind}{number}" for kind in ("issm", "umad"))]
    wanted = [name for name in wanted if os.path.exists(f"/dev/infiniband/{name}")]
    assert f"umad{number}" in wanted
    assert with_site.out.split() == sorted(wanted)


def settings(workdir, text):
    file = os.path.join(workdir, "hpc.toml")
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
    return ["--hpc-config", file]


def test_two_containers_talk(runtime, box):
    """ibv_rc_pingpong finds its peer over TCP, and then goes over the device."""
    name = next(iter(devices()))
    server = box(name, f"exec ibv_rc_pingpong -d {name} -g 1 -n 10", own_network=False)
    runtime.started(server)
    script = f"ibv_rc_pingpong -d {name} -g 1 -n 10 127.0.0.1"
    # The server says when it is ready only by answering.
    client = box(name, f"for i in 1 2 3 4 5; do {script} && exit; sleep 2; done; exit 1",
                 own_network=False)  # fmt: skip
    out = runtime.prints(client)
    assert "10 iters in" in out
    assert runtime.wait(server) == 0
    assert "10 iters in" in server.output()


def test_memory_can_be_pinned_without_capabilities(runtime, box):
    name = next(iter(devices()))
    server = f"timeout 5 ibv_rc_pingpong -d {name} -g 1 -s 1048576; ulimit -l"
    user = {"user": {"uid": 1000, "gid": 1000}}
    plain = box(name, server, process={**user, "capabilities": {}})
    result = runtime.run(plain)
    assert "Couldn't" not in result.err
    assert result.out.split()[-1] == "unlimited"
    limits = [{"type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 65536}]
    held = box(name, server, process={**user, "capabilities": {}, "rlimits": limits})
    result = runtime.run(held)
    assert "Couldn't register MR" in result.err
    assert result.out.split()[-1] == "64"


@needs_controllers("rdma")
def test_a_limit_on_handles(runtime, box, workdir):
    name = next(iter(devices()))
    options = settings(workdir, "[rdma]\nhca-handles = 1\n")
    b = box(name, f"(timeout 8 ibv_rc_pingpong -d {name} -g 1 > /dev/null) & sleep 3;"
                  f" ibv_devinfo -d {name}; wait")  # fmt: skip
    result = runtime(*options, "run", "--bundle", b.path, b.id)
    assert "Failed to open device" in result.err, str(result)
    free = box(name, f"ibv_devinfo -d {name}")
    assert "PORT_ACTIVE" in runtime(*options, "run", "--bundle", free.path, free.id).out


def test_the_hosts_user_space_side(runtime, bundle, workdir):
    """An image that has the C library and a program, and nothing of rdma-core."""
    name = next(iter(devices()))
    b = bundle("sh", "-c", "ibv_devinfo; cat /etc/libibverbs.d/*")
    program = shutil.which("ibv_devinfo")
    shutil.copy(program, b.inside("bin/ibv_devinfo"))
    for path in re.findall(r"(/\S+) \(0x", call("ldd", program).stdout):
        if re.search(r"/(ld-linux|libc\.so|libpthread|libdl)", path):
            os.makedirs(b.inside(os.path.dirname(path)), exist_ok=True)
            shutil.copy(path, b.inside(path))
    b.patch(annotations={"ocirt.hpc/rdma": name})
    options = settings(workdir, '[rdma]\nuserland = "auto"\n')
    result = runtime(*options, "run", "--bundle", b.path, b.id)
    assert re.search(rf"hca_id:\s+{name}\n", result.out), str(result)
    assert "PORT_ACTIVE" in result.out
    assert "driver /run/ocirt/hpc/lib64/libibverbs/librxe" in result.out
    assert not os.listdir(b.inside("etc/libibverbs.d"))


# --- one network namespace for each device


@pytest.fixture(scope="module")
def exclusive():
    """Mode exclusive, for as long as these tests take: the kernel changes it in between."""

    def change(mode):
        # Namespaces that have ended count until the kernel gets round to them.
        return call("rdma", "system", "set", "netns", mode).returncode == 0

    if not eventually(lambda: change("exclusive")):
        pytest.skip("other network namespaces are there: the mode of RDMA devices cannot change")
    yield
    assert eventually(lambda: change("shared"))


@pytest.fixture
def namespace(host):
    """The path of a network namespace, which a process keeps alive."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    host.known.add(process.pid)
    path = f"/proc/{process.pid}/ns/net"
    own = os.stat("/proc/self/ns/net").st_ino
    try:
        assert eventually(lambda: os.stat(path).st_ino != own)
        yield path
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def movable(exclusive, namespace):
    """A device that can move, and one that cannot or None."""
    from ocirt.errors import KernelError
    from ocirt.kernel.rdmanetlink import Rdma

    can, cannot = [], []
    socket, there = Rdma(), os.open(namespace, os.O_RDONLY)
    try:
        for name, index in socket.devices().items():
            try:
                socket.move(index, there)
                can.append(name)
            except KernelError:
                cannot.append(name)
    finally:
        socket.close()
        from ocirt import rdmadevices

        rdmadevices.fetch(there, can)
        os.close(there)
    assert set(can) <= set(devices())
    if not can:
        pytest.skip("no RDMA device of this machine can move between network namespaces")
    return can[0], next(iter(cannot), None)


def opens(node):
    try:
        os.close(os.open(f"/dev/infiniband/{node}", os.O_RDWR))
    except PermissionError:
        return False
    return True


LOOK = "ibv_devices; exec sleep 1000"


def shows(b):
    return eventually(lambda: "--" in b.output() and seen(b.output()))


def test_a_device_moves_in_and_comes_back(runtime, box, movable):
    name, _ = movable
    node = devices()[name]
    b = box(name, LOOK)
    runtime.started(b)
    assert shows(b) == [name]
    assert name not in devices()
    assert not opens(node)
    runtime.delete(b, "--force")
    assert eventually(lambda: name in devices())
    assert opens(devices()[name])


def test_the_next_container_waits_for_the_device(runtime, box, movable):
    name, _ = movable
    for _ in range(3):
        assert seen(runtime.prints(box(name, "ibv_devices"))) == [name]
    assert eventually(lambda: name in devices())


def test_a_second_container_does_not_get_it(runtime, box, movable):
    name, _ = movable
    runtime.started(box(name, LOOK))
    result = runtime.try_create(box(name, LOOK))
    runtime.check_refusal(result, "", f'there is no RDMA device "{name}"')


def test_it_is_back_at_once_when_create_fails(runtime, box, movable):
    name, _ = movable
    hook = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]}
    runtime.refuses_to_create(box(name, LOOK, hooks=hook), ours="createRuntime")
    assert name in devices()
    assert opens(devices()[name])


def test_from_a_joined_namespace_delete_fetches_it(runtime, box, movable, namespace):
    name, _ = movable
    for _ in range(2):
        joined = {"type": "network", "path": namespace}
        b = box(name, "ibv_devices", joined, own_network=False)
        runtime.started(b)
        assert runtime.wait(b) == 0
        assert seen(b.output()) == [name]
        assert name not in devices()
        runtime.delete(b)
        assert name in devices()


def test_nothing_moves_in_the_hosts_network(runtime, box, movable):
    name, _ = movable
    assert name in seen(runtime.prints(box(name, "ibv_devices", own_network=False)))


def test_a_driver_that_lets_nobody_move_its_device(runtime, box, movable):
    name, fixed = movable
    if fixed is None:
        pytest.skip("every RDMA device of this machine can move")
    b = box(f"{name},{fixed}", LOOK)
    runtime.refuses_to_create(b, ours=f"RDMA device {fixed} cannot move: operation not supported")
    assert {name, fixed} <= set(devices())


def test_a_variable_moves_nothing(runtime, box, movable):
    name, _ = movable
    b = box(name, LOOK, process={"env": ["PATH=/usr/bin:/bin", f"OCIRT_RDMA_DEVICES={name}"]})
    del b.config["annotations"]["ocirt.hpc/rdma"]
    b.save()
    runtime.refuses_to_create(b, ours="variables do not have one moved here")
    assert name in devices()
