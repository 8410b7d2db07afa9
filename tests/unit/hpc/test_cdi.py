"""Which file a device comes from, and what is said when it comes from none."""

from __future__ import annotations

import builtins
import json
import sys

import pytest
from ocirt_hpc import cdi

from ocirt.errors import ConfigError
from tests.unit.hpc.hosts import HOSTS

ACME, BROKEN = str(HOSTS / "acme"), str(HOSTS / "broken")


def refusal(*names, root=ACME):
    with pytest.raises(ConfigError) as caught:
        cdi.find(names, root=root)
    return str(caught.value)


def test_a_device_is_found_by_its_qualified_name():
    (found,) = cdi.find(["acme.com/card=1"], root=ACME)
    assert found.file.path == "/etc/cdi/card.json"
    assert found.edits["env"] == ["ACME_CARD=1"]


def test_the_later_directory_wins():
    found = cdi.find(["acme.com/disk=scratch", "acme.com/disk=archive"], root=ACME)
    assert [one.file.path for one in found] == ["/var/run/cdi/disk.yaml", "/etc/cdi/disk.json"]


def test_an_unknown_device_lists_what_there_is():
    assert refusal("acme.com/card=7") == "acme.com/card=7: no such CDI device (have 0, 1, 10, all)"


def test_an_unknown_kind_lists_everything():
    assert refusal("acme.com/gpu=0").endswith(
        "no such CDI device (have acme.com/card=0, acme.com/card=1, acme.com/card=10, "
        "acme.com/card=all, acme.com/disk=archive, acme.com/disk=scratch)"
    )


def test_a_machine_without_cdi_says_where_it_looked(tmp_path):
    assert refusal("a.b/c=d", root=str(tmp_path)) == (
        "a.b/c=d: no such CDI device (have none in /etc/cdi, /var/run/cdi)"
    )


def test_all_unknown_devices_are_named():
    message = refusal("acme.com/card=7", "acme.com/card=0", "acme.com/disk=x")
    assert message == (
        "acme.com/card=7: no such CDI device (have 0, 1, 10, all); "
        "acme.com/disk=x: no such CDI device (have archive, scratch)"
    )


def test_two_files_of_one_directory_conflict():
    assert refusal("acme.com/card=twice", root=BROKEN) == (
        "acme.com/card=twice: conflicting CDI devices in /etc/cdi/one.json and /etc/cdi/two.json"
    )


def test_a_broken_file_disables_only_itself():
    names = ["acme.com/disk=good", "other.com/card=0"]
    assert [one.name for one in cdi.find(names, root=BROKEN)] == names


def test_a_device_of_a_broken_file_is_not_taken_from_a_lower_one():
    assert refusal("acme.com/disk=hidden", root=BROKEN) == (
        "acme.com/disk=hidden: /var/run/cdi/late.json: devices[0].containerEdits.additionalGids: "
        "needs cdiVersion 0.7.0 or later, not 0.5.0"
    )


def test_what_might_come_from_a_broken_file_names_it():
    message = refusal("acme.com/net=0", root=BROKEN)
    assert message.startswith("acme.com/net=0: no such CDI device (have acme.com/")
    assert "; /etc/cdi/cut.json: line " in message


def test_only_json_and_yaml_files_count(tmp_path):
    directory = tmp_path / "etc/cdi"
    (directory / "deep.json").mkdir(parents=True)
    (directory / "notes.txt").write_text("{")
    (file,) = cdi.read(root=str(tmp_path))
    assert (file.path, str(file.fault)) == ("/etc/cdi/deep.json", "not a regular file")


def write(tmp_path, text, name="a.yaml"):
    (tmp_path / "etc/cdi").mkdir(parents=True, exist_ok=True)
    (tmp_path / "etc/cdi" / name).write_text(text)
    return str(tmp_path)


YAML = """
cdiVersion: 0.5.0
kind: acme.com/card
devices:
  - name: "0"
    containerEdits:
      env: [A=b]
"""


def test_yaml_is_read_with_pyyaml(tmp_path):
    pytest.importorskip("yaml")
    (found,) = cdi.find(["acme.com/card=0"], root=write(tmp_path, YAML))
    assert found.edits == {"env": ["A=b"]}


def test_yaml_without_pyyaml_is_one_sentence(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "yaml":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    assert refusal("acme.com/card=0", root=write(tmp_path, YAML)).endswith(
        "; /etc/cdi/a.yaml: is YAML, for which PyYAML has to be installed"
    )


BOMB = "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 8)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (BOMB, "holds more than 262144 values"),
        ("a: &a [*a]", "holds more than 262144 values"),
        ("1: 2", "has a key that is not a string"),
        ("a: [", "line 2 column 1: "),
        ("a: !!python/object:os.system x", "line 1 column 4: could not determine a constructor"),
        ("kind: 2020-01-01", "kind: expected a string"),
        ("- 1", "the document: expected an object"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path, text, fault):
    pytest.importorskip("yaml")
    (file,) = cdi.read(root=write(tmp_path, text))
    assert fault in str(file.fault)


def test_a_nul_character_is_refused(tmp_path):
    document = json.loads((HOSTS / "acme/etc/cdi/disk.json").read_text())
    document["devices"][0]["containerEdits"]["env"] = ["A=\0"]
    (file,) = cdi.read(root=write(tmp_path, json.dumps(document), "a.json"))
    assert "NUL" in str(file.fault)
