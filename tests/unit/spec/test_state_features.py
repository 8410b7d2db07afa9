"""The documents that a runtime prints."""

from __future__ import annotations

import pytest

pydantic = pytest.importorskip("pydantic")
from oci_spec.features import Features  # noqa: E402
from oci_spec.state import ContainerProcessState, State  # noqa: E402

STATE = {
    "ociVersion": "1.3.0",
    "id": "web1",
    "status": "running",
    "pid": 4711,
    "bundle": "/bundles/web",
    "annotations": {"org.example.key": "value"},
}
FEATURES = {
    "ociVersionMin": "1.0.0",
    "ociVersionMax": "1.3.0",
    "hooks": ["prestart", "createRuntime"],
    "mountOptions": ["bind", "ro"],
    "linux": {
        "namespaces": ["pid", "time"],
        "capabilities": ["CAP_KILL"],
        "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": ["SCMP_ACT_ALLOW"],
            "operators": ["SCMP_CMP_EQ"],
            "archs": ["SCMP_ARCH_X86_64"],
            "knownFlags": ["SECCOMP_FILTER_FLAG_LOG"],
            "supportedFlags": [],
        },
        "apparmor": {"enabled": True},
        "selinux": {"enabled": False},
        "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
        "memoryPolicy": {"modes": ["MPOL_BIND"], "flags": ["MPOL_F_STATIC_NODES"]},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": False},
    },
    "annotations": {"org.example.version": "1"},
    "potentiallyUnsafeConfigAnnotations": ["org.example."],
}


def test_a_state_comes_out_as_it_went_in():
    assert State.parse(STATE).document() == STATE


def test_a_runtime_may_have_more_states_and_more_fields():
    parsed = State.parse({**STATE, "status": "paused", "owner": "root"})
    assert parsed.status == "paused"


@pytest.mark.parametrize("field", ["ociVersion", "id", "status", "bundle"])
def test_a_state_lacks_nothing_that_is_required(field):
    with pytest.raises(pydantic.ValidationError, match=field):
        State.parse({name: value for name, value in STATE.items() if name != field})


@pytest.mark.parametrize(("field", "value"), [("pid", -1), ("pid", "1"), ("id", 1)])
def test_a_state_has_the_types_of_the_text(field, value):
    with pytest.raises(pydantic.ValidationError, match=field):
        State.parse({**STATE, field: value})


def test_a_seccomp_listener_gets_the_state_of_the_process():
    document = {
        "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 7, "metadata": "x", "state": STATE,
    }  # fmt: skip
    assert ContainerProcessState.parse(document).document() == document
    with pytest.raises(pydantic.ValidationError, match="state"):
        ContainerProcessState.parse({"ociVersion": "1.3.0", "pid": 7})


def test_features_come_out_as_they_went_in():
    assert Features.parse(FEATURES).document() == FEATURES


def test_unknown_is_not_no():
    parsed = Features.parse({"ociVersionMin": "1.0.0", "ociVersionMax": "1.3.0", "linux": {}})
    assert parsed.linux.cgroup is None
    with pytest.raises(pydantic.ValidationError, match="ociVersionMax"):
        Features.parse({"ociVersionMin": "1.0.0"})
