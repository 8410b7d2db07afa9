"""`ocirt spec` writes what users of runc expect to find."""

from __future__ import annotations

import json

import pytest

from ocirt import cli
from ocirt.cli import spec


def write(folder, *more):
    return cli.main(["spec", "--bundle", str(folder), *more])


def test_the_file_is_indented_with_tabs_and_ends_without_a_newline(tmp_path):
    assert write(tmp_path) == 0
    text = (tmp_path / "config.json").read_text()
    assert text.startswith('{\n\t"ociVersion": "1.3.0",\n\t"process": {\n\t\t"terminal": true')
    assert text.endswith("\n}")


def test_a_file_that_exists_is_left_alone(tmp_path, capfd):
    (tmp_path / "config.json").write_text("mine")
    assert write(tmp_path) == 1
    assert "File config.json exists. Remove it first" in capfd.readouterr().err
    assert (tmp_path / "config.json").read_text() == "mine"


def test_a_missing_directory_is_named(tmp_path, capfd):
    assert write(tmp_path / "no") == 1
    assert "no such file or directory" in capfd.readouterr().err


def test_the_current_directory_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["spec"]) == 0
    assert json.loads((tmp_path / "config.json").read_text())["hostname"] == "ocirt"


def test_another_name_may_be_given(tmp_path):
    assert write(tmp_path, "-f", "other.json") == 0
    assert (tmp_path / "other.json").exists()


@pytest.mark.parametrize("unified", [False, True])
def test_a_cgroup_namespace_only_where_cgroup_v2_is_alone(unified):
    kinds = [row["type"] for row in spec.example(unified=unified)["linux"]["namespaces"]]
    assert kinds[:5] == ["pid", "network", "ipc", "uts", "mount"]
    assert ("cgroup" in kinds) is unified


def test_rootless_maps_the_caller_and_asks_for_nothing_more():
    config = spec.rootless(spec.example(unified=False), 1000, 100)
    linux = config["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert "resources" not in linux
    kinds = [row["type"] for row in linux["namespaces"]]
    assert "network" not in kinds
    assert kinds[-1] == "user"
    (sysfs,) = [mount for mount in config["mounts"] if mount["destination"] == "/sys"]
    assert sysfs["source"] == "/sys"
    assert "rbind" in sysfs["options"]
    assert not any("gid=5" in mount.get("options", []) for mount in config["mounts"])


def test_what_it_writes_is_valid(tmp_path):
    shape = pytest.importorskip("ocirt.shape")
    for config in (
        spec.example(unified=True),
        spec.rootless(spec.example(unified=True), 1000, 1000),
    ):
        shape.check(config)
