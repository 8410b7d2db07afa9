"""features: what engines read before they make a container."""

from __future__ import annotations

import json
import os

import pytest

from tests.integration.support import UNIFIED, namespaces, only_ocirt


@pytest.fixture
def features(runtime):
    result = runtime("features", prefix=False)
    if result.code and runtime.flavour == "crun":
        pytest.skip("this crun has no features")
    assert result.code == 0, str(result)
    assert result.err == ""
    return result.json()


def test_the_fields_that_engines_decide_by(features):
    major, minor = features["ociVersionMax"].split(".")[:2]
    assert (int(major), int(minor)) >= (1, 0)
    assert features["ociVersionMin"] == "1.0.0"
    assert "rro" in features["mountOptions"], "dockerd and CRI ask for recursive read-only mounts"
    assert features["mountOptions"] == sorted(features["mountOptions"])
    assert set(features["hooks"]) == {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    }  # fmt: skip
    linux = features["linux"]
    assert {"cgroup", "ipc", "mount", "network", "pid", "user", "uts"} <= set(linux["namespaces"])
    assert "CAP_SYS_ADMIN" in linux["capabilities"]
    assert linux["cgroup"]["v1"] is True
    assert linux["cgroup"]["v2"] is True
    assert linux["seccomp"]["enabled"] is True
    assert "SCMP_ACT_NOTIFY" in linux["seccomp"]["actions"]


@only_ocirt("later than the runtimes of today's distributions")
def test_the_fields_of_later_specifications(features):
    linux = features["linux"]
    assert linux["mountExtensions"] == {"idmap": {"enabled": True}}
    assert "MPOL_INTERLEAVE" in linux["memoryPolicy"]["modes"]
    assert "time" in linux["namespaces"]
    assert isinstance(linux["netDevices"]["enabled"], bool)
    assert isinstance(linux["intelRdt"]["enabled"], bool)
    assert isinstance(features["potentiallyUnsafeConfigAnnotations"], list)


def test_the_global_options_of_engines_are_taken(runtime, features):
    assert json.loads(runtime.ok("features").out) == features


@only_ocirt("runc makes the directory")
def test_no_state_root_is_needed(runtime, features):
    result = runtime("--root", "/proc/nowhere", "features", prefix=False)
    assert result.code == 0
    assert result.json() == features


@only_ocirt("runc forgets how it is indented")
def test_people_can_read_it(runtime):
    out = runtime("features", prefix=False).out
    assert out.startswith('{\n    "ociVersionMin": ')
    assert out.endswith("\n}\n")


def test_it_takes_no_words(runtime, features):
    assert runtime("features", "web1").code == 1


@only_ocirt("their lists name more than the kernel of a test may have")
def test_every_namespace_that_is_listed_can_be_had(runtime, bundle, features):
    kinds = [kind for kind in features["linux"]["namespaces"] if kind != "user"]
    links = " ".join(
        f"/proc/self/ns/{ {'mount': 'mnt', 'network': 'net'}.get(kind, kind) }" for kind in kinds
    )
    script = f"for link in {links}; do readlink $link; done"
    made = bundle.sh(script, linux={"namespaces": namespaces(*kinds)})
    inside = runtime.prints(made).split()
    outside = [os.readlink(link) for link in links.split()]
    assert len(inside) == len(kinds)
    assert not set(inside) & set(outside)


@only_ocirt("a promise of ours")
def test_the_cgroup_version_of_this_machine_is_listed(features):
    assert features["linux"]["cgroup"]["v2" if UNIFIED else "v1"] is True
