"""What `ocirt features` promises is what the code does."""

from __future__ import annotations

import json

import pytest
from oci_spec.features import Features

from ocirt import checks, cli
from ocirt.cgroup import DRIVERS, open_manager
from ocirt.cli import features
from ocirt.errors import ConfigError
from ocirt.plan import libseccomp, mountopts, seccomp_compile
from tests.unit.documents import engine


@pytest.fixture(scope="module")
def document():
    return features.document()


def test_it_is_the_document_of_the_specification(document):
    model = Features.parse(document)
    assert model.oci_version_min == "1.0.0"
    assert model.linux.net_devices.enabled is True


def test_nothing_is_left_unknown(document):
    def unknown(model, where=""):
        for name in type(model).model_fields:
            value = getattr(model, name)
            if value is None:
                yield f"{where}{name}"
            elif hasattr(value, "model_fields_set"):
                yield from unknown(value, f"{where}{name}.")

    assert list(unknown(Features.parse(document))) == []


def test_nothing_is_misspelt(document):
    """The models take unknown fields, as the specification wants; ours has none."""
    again = Features.parse(document).model_dump(by_alias=True, exclude_none=True, mode="json")
    assert json.loads(json.dumps(again)) == document


@pytest.mark.parametrize("option", ["rro", "ro", "idmap", "ridmap", "tmpcopyup", "rbind"])
def test_mount_options_are_those_that_are_understood(document, option):
    assert option in document["mountOptions"]
    assert mountopts.parse([option]).data == ""


def test_every_listed_mount_option_is_understood(document):
    assert [name for name in document["mountOptions"] if mountopts.parse([name]).data] == []


@pytest.mark.parametrize(
    ("name", "section"), [("netDevices", {"eth0": {}}), ("intelRdt", {"closID": "x"})]
)
def test_what_is_enabled_is_what_a_config_may_have(document, monkeypatch, name, section):
    config = engine()
    config.setdefault("linux", {})[name] = section
    assert document["linux"][name]["enabled"] is True
    assert checks.faults(config) == []
    monkeypatch.setattr(checks, "UNSUPPORTED", ((f"linux.{name}", "not here"),))
    assert features.document()["linux"][name]["enabled"] is False
    assert (f"linux.{name}", "not here") in checks.faults(config)


def test_drivers_that_are_promised_are_there(document):
    assert document["linux"]["cgroup"]["systemd"] is ("systemd" in DRIVERS)
    with pytest.raises(ConfigError, match="there is no cgroup driver"):
        open_manager("/x", "x", driver="nonsense")


def test_checkpoint_is_promised_when_there_is_such_a_verb(document):
    promised = document["annotations"]["org.opencontainers.runc.checkpoint.enabled"]
    assert promised == ("true" if "checkpoint" in cli.COMMANDS else "false")


def test_filters_may_use_what_is_listed(document):
    seccomp = document["linux"]["seccomp"]
    if not seccomp["enabled"]:
        pytest.skip("this machine has no libseccomp")
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"} <= set(seccomp["archs"])
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    section = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": seccomp["supportedFlags"],
        "syscalls": [
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": op} for op in seccomp["operators"][:1]],
            }
        ],
    }
    if "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in section["flags"]:
        section["flags"].remove("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")  # wants a listener
    program, _, _, _ = seccomp_compile.build(section)
    assert program


def test_a_flag_that_no_kernel_has_is_not_supported():
    try:
        library = libseccomp.Library()
    except ConfigError:
        pytest.skip("this machine has no libseccomp")
    assert features.kernel_takes(1 << 1, library)
    assert not features.kernel_takes(1 << 30, library)


def test_without_libseccomp_no_filters_are_promised(monkeypatch):
    monkeypatch.setattr(libseccomp, "NAME", "libnothing.so.0")
    assert features.seccomp() == {"enabled": False}


def test_it_prints_four_spaces_and_asks_for_no_root(capsys, tmp_path):
    root = tmp_path / "no" / "such"
    assert cli.main(["--root", str(root), "features"]) == 0
    out = capsys.readouterr().out
    assert out.startswith('{\n    "ociVersionMin": "1.0.0"')
    assert out.endswith("}\n")
    assert not root.exists()
