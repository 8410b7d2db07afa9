"""Pods with GPUs, on a machine that is a directory: what containerd hands on for each way to ask.

The runtime handler `hpc` is what `ocirt setup containerd` wrote.  containerd 1.6 knows no CDI, so
annotations of device plugins reach the runtime unresolved; 1.7 and later resolve them.
"""

from __future__ import annotations

import os

import pytest

from tests.integration import engines, gpu_node
from tests.integration.conftest import RUNTIME
from tests.integration.support import only_ocirt

kube = pytest.importorskip("tests.integration.cri", exc_type=ImportError)

MISSING = engines.missing("containerd", "ctr", "containerd-shim-runc-v2", "nsenter")

pytestmark = [
    pytest.mark.slow,
    only_ocirt("other runtimes leave GPUs to hooks"),
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


@pytest.fixture(scope="module")
def daemon(base):
    folder = os.path.join(base, "cri-gpus")
    engine = kube.Cri(folder, RUNTIME, "cri-gpus")
    gpu_node.furnish(folder, "[policy]\ncdi-annotations = true\n")
    gpu_node.settle(engine.world, folder)
    with engines.serving(engine) as cri:
        cri.keep(cri.pod())
        yield cri


cri = engines.lent("daemon")


@pytest.fixture
def pod(cri):
    return cri.kept


def config(cri, container):
    return gpu_node.config(cri, container.id, "/run/containerd/runc/k8s.io")


def env(value):
    return [{"key": "NVIDIA_VISIBLE_DEVICES", "value": value}]


def test_nothing_asked_nothing_given(pod):
    assert pod.sh(gpu_node.LIST) == ""


def test_a_variable_of_the_image_or_the_pod(pod):
    nodes = pod.sh(gpu_node.LIST, envs=env("0")).split()
    assert nodes == sorted([*gpu_node.CONTROL, "nvidia2"])


def test_only_these_may_be_used(pod):
    container = pod.container("sh", "-c", gpu_node.OPEN, envs=env("0"))
    container.wait()
    assert gpu_node.opened(container.logs) == ["allowed", "denied"]


def test_the_driver_comes_along(pod):
    text = pod.sh("ls /run/ocirt/hpc/lib64 /usr/bin", envs=env("0"))
    assert {"libcuda.so.1", "nvidia-smi"} <= set(text.split())


def test_an_annotation_of_the_container(pod):
    nodes = pod.sh(gpu_node.LIST, annotations={"ocirt.hpc/gpus": "1,2"}).split()
    assert nodes == sorted([*gpu_node.CONTROL, "nvidia3", "nvidia0"])


def test_an_annotation_of_a_device_plugin(pod):
    annotations = {"cdi.k8s.io/nvidia-device-plugin_7d0": "nvidia.com/gpu=3"}
    nodes = pod.sh(gpu_node.LIST, annotations=annotations).split()
    assert nodes == sorted([*gpu_node.CONTROL, "nvidia1"])


def test_device_specs_of_a_device_plugin_beside_its_variable(pod, daemon):
    """With PASS_DEVICE_SPECS a plugin asks for the nodes as well as by the variable."""
    path = f"{daemon.folder}/node/dev/nvidia2"
    device = {"container_path": "/dev/nvidia2", "host_path": path, "permissions": "rw"}
    container = pod.container("sleep", "1000", envs=env("0"), devices=[device])
    nodes = container.exec("sh", "-c", gpu_node.LIST).split()
    assert nodes == sorted([*gpu_node.CONTROL, "nvidia2"])
    assert gpu_node.doubles(config(daemon, container)) == []


def test_volume_mounts_of_a_device_plugin(pod, daemon, cri):
    """The way that needs no variable: /dev/null mounted below a directory of this name."""
    policy = "/etc/nvidia-container-runtime/config.toml"
    place = f"{daemon.folder}/node{policy}"
    os.makedirs(os.path.dirname(place))
    with open(place, "w") as file:
        file.write("accept-nvidia-visible-devices-as-volume-mounts = true\n")
    try:
        mount = {
            "container_path": "/var/run/nvidia-container-devices/2",
            "host_path": "/dev/null",
        }
        script = f"{gpu_node.LIST}; ls /var/run 2> /dev/null || true"
        nodes = pod.sh(script, mounts=[mount]).split()
        assert nodes == sorted([*gpu_node.CONTROL, "nvidia0"])
    finally:
        os.unlink(place)


def test_a_pods_annotation_is_for_its_containers_and_not_for_its_sandbox(cri):
    pod = cri.pod(annotations={"ocirt.hpc/gpus": "0"})
    sandbox = config(cri, pod)
    assert sandbox["annotations"]["ocirt.hpc/gpus"] == "0"
    assert "nvidia" not in str(sandbox["linux"].get("devices"))
    assert "nvidia2" in pod.sh(gpu_node.LIST)


def test_a_gpu_that_there_is_not(pod):
    container = pod.create("true", envs=env("8"))
    with pytest.raises(kube.grpc.RpcError, match='there is no NVIDIA GPU "8"'):
        container.start()
