"""Id maps: what a joined user namespace is compared with, and the words of a refusal."""

from __future__ import annotations

import os

import pytest

from ocirt import usermap
from ocirt.errors import ConfigError


def own(name):
    """Return the mappings of this very process, as a config writes them, in another order."""
    with open(f"/proc/self/{name}") as file:
        rows = [line.split() for line in file]
    keys = ("containerID", "hostID", "size")
    return [dict(zip(keys, map(int, row), strict=True)) for row in reversed(rows)]


def test_mappings_of_a_joined_namespace_may_be_repeated():
    usermap.check(os.getpid(), {"uidMappings": own("uid_map"), "gidMappings": own("gid_map")})
    usermap.check(os.getpid(), {})
    nothing = {"containerID": 5, "hostID": 5, "size": 0}
    usermap.check(os.getpid(), {"uidMappings": [*own("uid_map"), nothing]})


@pytest.mark.parametrize("field", ["uidMappings", "gidMappings"])
def test_other_mappings_than_those_of_a_joined_namespace_are_refused(field):
    other = [{"containerID": 0, "hostID": 4242, "size": 1}]
    with pytest.raises(ConfigError) as caught:
        usermap.check(os.getpid(), {field: other})
    assert str(caught.value) == (
        f"linux.{field}: user namespaces enabled, but both namespace path and non-matching "
        "mapping specified -- you may only provide one"
    )


def helper(tmp_path, monkeypatch, script):
    path = tmp_path / "newuidmap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 10}]


def ask(subids):
    usermap._help("newuidmap", str(subids), "--add-subuids", 42, MAPPINGS)


def test_the_helper_gets_the_process_and_the_map(tmp_path, monkeypatch):
    helper(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/said')
    ask("/etc/subuid")
    assert (tmp_path / "said").read_text() == "42 0 100000 10\n"


REFUSALS = [
    ("root:200000:10\n0:300000:1\n", "grants root ids 200000-200009, id 300000"),
    ("root:1\nsomeone:5:x\n", "grants root nothing; as root: usermod --add-subuids"),
    ("", "grants root nothing; as root: usermod --add-subuids 100000-165535 root"),
]


@pytest.mark.skipif(os.geteuid() != 0, reason="root's name is the one that is known")
@pytest.mark.parametrize(("text", "advice"), REFUSALS)
def test_a_refusal_tells_what_is_granted(tmp_path, monkeypatch, text, advice):
    (tmp_path / "subuid").write_text(text)
    said = "newuidmap: uid range [0-10) -> [100000-100010) not allowed"
    helper(tmp_path, monkeypatch, f'echo "{said}" >&2; exit 1')
    with pytest.raises(usermap.Error) as caught:
        ask(tmp_path / "subuid")
    assert str(caught.value).startswith(f"{said}: {tmp_path}/subuid {advice}")


def test_a_helper_without_privileges_is_asked_after(tmp_path, monkeypatch):
    said = "newuidmap: write to uid_map failed: Operation not permitted"
    helper(tmp_path, monkeypatch, f'echo "{said}" >&2; exit 1')
    with pytest.raises(usermap.Error) as caught:
        ask("/etc/subuid")
    assert str(caught.value).startswith(said + ": ")
    assert "set-uid" in str(caught.value) or "no privileges" in str(caught.value)


def test_a_missing_helper_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(usermap.Error, match=r"newuidmap \(install uidmap.* /etc/subuid"):
        ask("/etc/subuid")


def test_root_of_a_user_namespace_hears_what_it_has(monkeypatch):
    monkeypatch.setattr(usermap, "_read", lambda path: "0 1000 1\n1 100000 65536\n")
    assert str(usermap._unmapped("uid_map", [{"hostID": 0, "size": 70000}])) == (
        "ids 0-69999 are not all in the runtime's own user namespace (id 0, ids 1-65536): "
        "operation not permitted"
    )
    assert str(usermap._unmapped("uid_map", [])) == "operation not permitted"
