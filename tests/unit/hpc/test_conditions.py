"""Mounts of the site's with conditions, GPUs of modules, and a /dev that is the host's."""

from __future__ import annotations

import json

import pytest

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import eight_and_eight, install
from tests.unit.hpc.sites import BASE, Place

GPU = "NVIDIA_VISIBLE_DEVICES=0"
RDMA = "OCIRT_RDMA_DEVICES=0"
ALWAYS = '[stage]\ntrigger = "always"\n[rdma]\nmemlock = "keep"\n'


@pytest.fixture
def place(tmp_path):
    machine = eight_and_eight(tmp_path / "host")
    install(machine)
    machine.folders("scratch", "opt/debian")
    place = Place(tmp_path, machine)
    (place.rootfs / "etc").mkdir()
    return place


def mount(when, source="/scratch"):
    return f'{ALWAYS}[[mounts]]\nsource = "{source}"\nwhen = {{{when}}}\n'


def mounted(place, text, **options):
    """Return whether /scratch is mounted, and why not."""
    made = place.ask(text, **options)
    why = [row["what"] for row in made.report if row["allowed"] == "left out"] if made else []
    there = made and any(one["destination"] == "/scratch" for one in made.config["mounts"])
    return bool(there), "".join(why)


@pytest.mark.parametrize(
    ("when", "env", "why"),
    [
        ('env = "LARGE"', ["LARGE=1"], ""),
        ('env = "LARGE"', [], "LARGE is not set"),
        ('env = "LARGE"', ["LARGE=false"], "LARGE is not set"),
        ('env = "SIZE=big"', ["SIZE=big"], ""),
        ('env = "SIZE=big"', ["SIZE=small"], "SIZE is not big"),
        ('device = "nvidia"', [GPU], ""),
        ('device = "nvidia"', ["NVIDIA_VISIBLE_DEVICES=none"], "no device of the kind nvidia"),
        ('device = "nvidia"', [], "no device of the kind nvidia"),
        ('device = "rdma"', [RDMA], ""),
        ('device = "rdma"', [GPU], "no device of the kind rdma"),
        ('device = "rdma", env = "LARGE"', [RDMA], "LARGE is not set"),
        ('device = "rdma", env = "LARGE"', [RDMA, "LARGE=1"], ""),
    ],
)
def test_conditions(place, when, env, why):
    there, said = mounted(place, mount(when), env=env)
    assert there is not why
    assert (f"/scratch: {why}" if why.startswith(("LARGE", "SIZE")) else why) in said


def test_a_path_of_the_image(place):
    text = mount('path = "/etc/debian_version"')
    assert mounted(place, text) == (False, "/scratch: the image has no /etc/debian_version")
    # Of the host it says nothing, nor where a link leads out.
    (place.rootfs / "etc/debian_version").symlink_to("/proc/version")
    assert mounted(place, text)[0] is False
    (place.rootfs / "etc/debian_version").unlink()
    (place.rootfs / "etc/debian_version").touch()
    assert mounted(place, text) == (True, "")


def test_a_profile(place):
    text = mount('profile = "wide"') + "[profile.wide]\n"
    assert mounted(place, text) == (False, "/scratch: the profile is none")
    assert mounted(place, text, annotations={"ocirt.hpc/profile": "wide"}) == (True, "")
    assert mounted(place, text, profile="wide") == (True, "")


def test_a_kind_of_the_sites_and_one_of_a_cdi_file(place):
    document = {
        "cdiVersion": "0.5.0", "kind": "acme.com/x",
        "devices": [{"name": "0", "containerEdits": {"env": ["X=1"]}}],
    }  # fmt: skip
    place.machine.write("/cdi/x.json", json.dumps(document))
    cdi = {"devices": ["acme.com/x=0"], "directories": [f"{place.machine.root}/cdi"]}
    assert mounted(place, mount('device = "acme.com/x"'), **cdi) == (True, "")
    assert mounted(place, mount('device = "acme.com/y"'), **cdi)[0] is False
    place.machine.node("/dev/fpga0", 240, 0)
    place.machine.write("/dev/fpga0", "")
    text = mount('device = "fpga"') + '[device.fpga]\nfind = "/dev/none#"\n'
    assert mounted(place, text)[0] is False


def test_variables_decide_only_where_the_site_lets_them(place):
    text = mount('env = "LARGE"').replace("[rdma]", "[policy]\nenv-requests = false\n[rdma]")
    there, why = mounted(place, text, env=["LARGE=1"])
    assert there is False
    assert "policy.env-requests is false on this host" in why


def test_in_a_module_and_with_what_a_host_lacks(place):
    text = (
        '[module.data]\nmounts = [{source = "/scratch", when = {device = "nvidia"}},'
        ' {source = "/none", when = {device = "nvidia"}, if-exists = true}]\n'
    )
    modules = {"ocirt.hpc/modules": "data"}
    assert mounted(place, text, env=[GPU], annotations=modules)[0] is True
    assert mounted(place, text, annotations=modules)[0] is False
    with pytest.raises(ConfigError, match=r"module.data.mounts\[1\]: this host has no /none"):
        mounted(place, text.replace(", if-exists = true", ""), env=[GPU], annotations=modules)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("", r"mounts\[0\].when: has no condition \(have env, path, profile, device\)"),
        ('weather = "fine"', "when.weather: unknown setting"),
        ("env = 1", "when.env: expected a string"),
        ('env = ""', "when.env: names nothing"),
        ('env = "=x"', "when.env: names nothing"),
        ('path = "etc"', 'when.path: "etc" is not absolute'),
        ('path = "/etc/../x"', "when.path: .* holds"),
        ('profile = "none"', 'when.profile: "none" is none of hpc-job'),
        ('device = "gpu"', 'when.device: "gpu" is none of amd'),
    ],
)
def test_what_a_condition_cannot_mean(place, when, words):
    with pytest.raises(ConfigError, match=words):
        place.ask(mount(when))


# --- GPUs of a module


def nodes(made):
    held = made.config.get("linux", {}).get("devices", ()) if made else ()
    return [node["path"] for node in held if node["path"][11:].isdecimal()]


def test_a_module_gives_gpus_to_who_names_none(place):
    text = '[module.gpu]\ntrigger-env = ["WANT_GPU"]\ngpus = "0,1"\n'
    made = place.ask(text, env=["WANT_GPU=true"])
    assert nodes(made) == ["/dev/nvidia2", "/dev/nvidia3"]
    assert {row["allowed"] for row in made.report if row["edit"]} == {"policy.env-requests"}
    assert "hpc.toml: module.gpu.gpus=0,1" in {row["from"] for row in made.report}
    assert place.ask(text) is None
    assert nodes(place.ask(text, env=["WANT_GPU=true", GPU])) == ["/dev/nvidia2"]
    assert nodes(place.ask(text, env=["WANT_GPU=1", "NVIDIA_VISIBLE_DEVICES=void"])) == []


def test_a_gpu_of_a_module_that_there_is_not(place):
    text = '[profile.p]\ngpus = "9"\n'
    with pytest.raises(ConfigError, match=r'profile.p.gpus: there is no NVIDIA GPU "9"'):
        place.ask(text, profile="p")


# --- a /dev that is the host's

DENY = {"allow": False, "access": "rwm"}
WHOLE = {"destination": "/dev", "source": "/dev", "options": ["rbind"]}


def advice(place, rules, mounts=(WHOLE,), **options):
    linux = {"namespaces": [{"type": "mount"}], "resources": {"devices": rules}}
    config = {**BASE, "linux": linux, "mounts": list(mounts)}
    made = place.ask("", env=options.pop("env", [GPU]), config=config, **options)
    rows = made.report if made else []
    return [(row["from"], row["what"]) for row in rows if "/dev is mounted" in row["what"]]


def test_the_hosts_own_dev_is_told(place):
    ((origin, said),) = advice(place, [DENY])
    assert origin.startswith("mounts[")
    assert said.endswith("holds by the cgroup's device rules alone")
    for rules, options in (([], {}), ([DENY], {"rootless": True, "env": [RDMA]})):
        ((_, said),) = advice(place, rules, **options)
        assert said.endswith("holds for nothing, since no device rule denies any")


def test_another_dev_is_not(place):
    own = {"destination": "/dev", "source": "tmpfs", "type": "tmpfs"}
    assert advice(place, [DENY], [own]) == []
    assert advice(place, [DENY], env=[]) == []
