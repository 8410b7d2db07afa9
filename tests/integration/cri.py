"""A kubelet's half of the CRI: pods and containers of a real containerd, by gRPC.

A field of the CRI that has a method's or a test's name here is set as a keyword of `pod` or
`container`; the messages are those of `cri_api.v1`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import platform
import re
import struct
import tarfile
import urllib.parse

import pytest

from tests.integration import engines
from tests.integration.support import SLOWNESS, bounding_set, eventually

# Else each child that a later test forks gets threads of gRPC, and may make no user namespace.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
grpc = pytest.importorskip("grpc", reason="needs grpcio")
A = pytest.importorskip("cri_api.v1.api_pb2", reason="needs container-runtime-interface-api")
import cri_api.v1.api_pb2_grpc as stubs  # noqa: E402

CNI = "/usr/lib/cni"
POD, CONTAINER, NODE = 0, 1, 2  # of NamespaceMode
IMAGE, PAUSE = "localhost/busybox:test", "localhost/pause:test"

PLUGIN = """
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = {restrict}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
"""

HANDLER = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["ocirt.hpc/*", "cdi.k8s.io/*"]
container_annotations = ["ocirt.hpc/*", "cdi.k8s.io/*"]
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
BinaryName = "{path}"
"""

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "test",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "test0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.77.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "loopback"},
    ],
}

_numbers = itertools.count(1)


def image(path, layer, images):
    """Write `layer` as a Docker archive of one image for each name → config of `images`."""
    with open(layer, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    manifest = []
    for name, config in images.items():
        document = {
            "architecture": machine,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], **config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        text = json.dumps(document).encode()
        place = f"{hashlib.sha256(text).hexdigest()}.json"
        with open(os.path.join(os.path.dirname(path), place), "wb") as file:
            file.write(text)
        manifest.append({"Config": place, "RepoTags": [name], "Layers": ["layer.tar"]})
    here = os.path.dirname(path)
    with open(os.path.join(here, "manifest.json"), "w") as file:
        json.dump(manifest, file)
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        for name in ["manifest.json", *(entry["Config"] for entry in manifest)]:
            tar.add(os.path.join(here, name), name)
            os.unlink(os.path.join(here, name))


class Cri(engines.Containerd):
    """containerd with its CRI plugin; `hpc` is the runtime under test, as is `recorded`."""

    def __init__(self, folder, runtime, kind="cri"):
        super().__init__(folder, kind, runtime, namespace="k8s.io")
        os.mkdir(self.path("cni"))
        network = json.loads(json.dumps(NETWORK))
        network["plugins"][0]["ipam"]["dataDir"] = self.path("ipam")
        self.write("cni/10-test.conflist", json.dumps(network))
        os.makedirs(self.path("etc/containerd"))
        plugin = PLUGIN.format(
            pause=PAUSE,
            cni=CNI,
            folder=folder,
            # Else every sandbox asks for -998.
            restrict="false" if 24 in bounding_set() else "true",
        )
        recorded = HANDLER.format(name="recorded", path=self.recorder.path)
        self.config = self.write("etc/containerd/config.toml", self.roots() + plugin + recorded)
        self.register()
        self.channel = self.kept = None

    def register(self):
        """Make `hpc` known: ocirt writes that itself."""
        path = os.path.realpath(self.runtime)
        if engines.flavour(self.runtime) == "ocirt":
            setup = [self.runtime, "setup", "containerd", "--root", self.folder, "--path", path]
            done = engines.call(setup)
            assert done.code == 0, str(done)
        else:
            with open(self.config, "a") as file:
                # The default, which is runc, has to be among them.
                names = ("hpc", "runc")
                file.writelines(HANDLER.format(name=name, path=path) for name in names)

    def start(self):
        super().start()
        if self.channel is None:
            archive = self.path("images.tar")
            image(archive, self.archive(), {
                IMAGE: {"Cmd": ["/bin/sh"]},
                PAUSE: {"Entrypoint": ["/bin/sleep", "1000000"]},
            })  # fmt: skip
            done = self("images", "import", archive)
            assert done.code == 0, str(done)
            os.unlink(archive)
            # Where the daemon is killed, we are back as soon as it is.
            often = [("grpc.max_reconnect_backoff_ms", 200)]
            self.channel = grpc.insecure_channel(f"unix://{self.address}", often)
            self.service = stubs.RuntimeServiceStub(self.channel)
        assert eventually(self.ready), "the CRI plugin does not answer"

    def ready(self):
        try:
            return self.call("Status").status.conditions[0].status
        except grpc.RpcError:
            return False

    def call(self, name, **fields):
        """Send one request of the CRI; raise grpc.RpcError with the words of containerd."""
        request = getattr(A, f"{name}Request")(**fields)
        return getattr(self.service, name)(request, timeout=120 * SLOWNESS)

    def pod(self, handler="hpc", network=NODE, pid=POD, annotations=None, name=None, **linux):
        """Run a pod; `linux` are fields of LinuxPodSandboxConfig."""
        name = name or f"pod{next(_numbers)}"
        logs = self.path("logs", name)
        security = {"namespace_options": {"network": network, "pid": pid}}
        security.update(linux.pop("security_context", {}))
        config = A.PodSandboxConfig(
            metadata={"name": name, "uid": name, "namespace": "default"},
            hostname=name if network == POD else "",
            log_directory=logs,
            annotations=annotations or {},
            linux={
                "cgroup_parent": f"/{self.cgroups.name}/{name}",
                "security_context": security,
                **linux,
            },
        )
        reply = self.call("RunPodSandbox", config=config, runtime_handler=handler)
        return Pod(self, reply.pod_sandbox_id, config)

    def leftovers(self):
        nets = self.world.root("/run/netns")
        found = [
            *super().leftovers(),
            *(f"network: {name}" for name in (os.listdir(nets) if os.path.isdir(nets) else ())),
        ]
        # The cgroup of a pod is the kubelet's business, who is not here.
        return [
            item
            for item in found
            if not re.search(r"/pod\d+$", item) and not (self.kept and self.kept.id in item)
        ]

    def keep(self, pod):
        """Keep a pod when the others are swept away; what runs in it goes."""
        self.kept = pod
        return pod

    def sweep(self):
        """Remove every pod with all that is in it."""
        if self.channel is None:
            return
        kept = self.kept and self.kept.id
        for container in self.call("ListContainers").containers:
            if container.pod_sandbox_id == kept:
                self.call("RemoveContainer", container_id=container.id)
        for pod in self.call("ListPodSandbox").items:
            if pod.id != kept:
                self.call("StopPodSandbox", pod_sandbox_id=pod.id)
                self.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    def close(self):
        self.kept = None
        super().close()
        if self.channel is not None:
            self.channel.close()


class Pod:
    """A pod sandbox that runs."""

    def __init__(self, cri, pod_id, config):
        self.cri, self.id, self.config = cri, pod_id, config

    def create(self, *command, name=None, security=None, resources=None, **fields):
        """Create a container; `fields` are those of ContainerConfig."""
        name = name or f"c{next(_numbers)}"
        linux = {"resources": resources or {}, "security_context": security or {}}
        options = linux["security_context"].setdefault("namespace_options", {})
        mine = self.config.linux.security_context.namespace_options
        linux["security_context"]["namespace_options"] = {
            "network": mine.network,
            "pid": CONTAINER,
            **options,
        }
        config = A.ContainerConfig(
            metadata={"name": name},
            image={"image": IMAGE},
            command=command,
            log_path=f"{name}.log",
            linux=linux,
            **fields,
        )
        reply = self.cri.call(
            "CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        log = os.path.join(self.config.log_directory, config.log_path)
        return Container(self.cri, reply.container_id, log)

    def container(self, *command, **fields):
        """Create and start a container."""
        return self.create(*command, **fields).start()

    def run(self, *command, **fields):
        """Run a program to its end, which must be a good one; return its output, stripped."""
        container = self.container(*command, **fields)
        assert container.wait() == 0, container.logs
        output = container.logs
        container.remove()
        return output.strip()

    def sh(self, script, **fields):
        return self.run("sh", "-c", script, **fields)

    @property
    def status(self):
        return self.cri.call("PodSandboxStatus", pod_sandbox_id=self.id).status

    def spec(self):
        """Return the config that the runtime got."""
        return _spec(self.cri, self.id)

    def stop(self):
        self.cri.call("StopPodSandbox", pod_sandbox_id=self.id)

    def remove(self):
        self.cri.call("RemovePodSandbox", pod_sandbox_id=self.id)


def _spec(cri, task):
    path = cri.path("state", "io.containerd.runtime.v2.task", "k8s.io", task, "config.json")
    with open(path) as file:
        return json.load(file)


class Container:
    """A container of a pod."""

    def __init__(self, cri, container_id, log):
        self.cri, self.id, self.log = cri, container_id, log

    def call(self, name, **fields):
        return self.cri.call(name, container_id=self.id, **fields)

    def start(self):
        self.call("StartContainer")
        return self

    @property
    def status(self):
        return self.call("ContainerStatus").status

    @property
    def running(self):
        return self.status.state == A.CONTAINER_RUNNING

    @property
    def pid(self):
        reply = self.call("ContainerStatus", verbose=True)
        return json.loads(reply.info["info"])["pid"]

    def spec(self):
        """Return the config that the runtime got."""
        return _spec(self.cri, self.id)

    def streams(self):
        """Return {stream: text} of the log: TIME STREAM F|P TEXT, P where the line goes on."""
        found = {"stdout": "", "stderr": ""}
        with open(self.log) as file:
            for line in file:
                _, stream, tag, text = line.split(" ", 3)
                found[stream] += text if tag == "F" else text[:-1]
        return found

    @property
    def logs(self):
        return "".join(self.streams().values())

    def says(self, text):
        """Wait until the program has printed `text`."""
        return eventually(lambda: text in self.logs)

    def wait(self):
        """Wait for the end of the program; return its exit code."""
        assert eventually(lambda: self.status.state == A.CONTAINER_EXITED), "runs on"
        assert eventually(self.logged), "containerd keeps the log open"
        return self.status.exit_code

    def logged(self):
        """Whether all that the program said is in the log: containerd tells of its end before."""
        files = f"/proc/{self.cri.daemon.pid}/fd"
        for name in os.listdir(files):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if os.readlink(f"{files}/{name}") == self.log:
                    return False
        return True

    def try_exec(self, *command, timeout=10):
        """Return (exit code, stdout, stderr) of a program in the container (ExecSync)."""
        reply = self.call("ExecSync", cmd=command, timeout=timeout)
        return reply.exit_code, reply.stdout.decode(), reply.stderr.decode()

    def exec(self, *command):
        """Run a program in the container, which must succeed; return its output, stripped."""
        code, out, err = self.try_exec(*command)
        assert code == 0, (out, err)
        return out.strip()

    def stream(self, *command, typed="", tty=False):
        """Run a program in the container with its streams open (Exec); return (code, output)."""
        url = self.call(
            "Exec", cmd=command, tty=tty, stdin=bool(typed), stdout=True, stderr=not tty
        ).url
        return Stream(self.cri.world, url).talk(typed)

    def stop(self, timeout=10):
        self.call("StopContainer", timeout=timeout)

    def remove(self):
        self.call("RemoveContainer")


class Stream:
    """The client's side of a streaming request: a WebSocket (RFC 6455) of v4.channel.k8s.io.

    Each message begins with the number of its channel: stdin, stdout, stderr, the result.
    """

    def __init__(self, world, url):
        parts = urllib.parse.urlsplit(url)
        self.socket = world.connect(parts.hostname, parts.port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
        )
        self.file = self.socket.makefile("rb")
        status = self.file.readline()
        while self.file.readline().strip():
            pass
        assert b" 101 " in status, status

    def send(self, channel, data):
        payload = bytes([channel]) + data
        assert len(payload) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.socket.sendall(bytes([0x82, 0x80 | len(payload)]) + mask + masked)

    def receive(self):
        """Return (channel, data), or None at the end."""
        head = self.file.read(2)
        if len(head) < 2 or head[0] & 0xF == 8:
            return None
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self.file.read(2))
        payload = self.file.read(length)
        return payload[0], payload[1:]

    def talk(self, typed):
        if typed:
            self.send(0, typed.encode())
        output, result = b"", {}
        with self.socket, self.file:
            while message := self.receive():
                channel, data = message
                if channel == 3:
                    result = json.loads(data)
                else:
                    output += data
        if result["status"] == "Success":
            return 0, output.decode()
        causes = result.get("details", {}).get("causes", [])
        code = next((c["message"] for c in causes if c["reason"] == "ExitCode"), None)
        assert code is not None, result
        return int(code), output.decode()
