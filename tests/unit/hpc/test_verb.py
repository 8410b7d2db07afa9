"""`ocirt hpc`: the actions, on a machine that is a directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocirt import cli
from tests.unit.hpc.machines import cluster_node, install


@pytest.fixture
def hpc(tmp_path, capfd):
    """Call `ocirt hpc ...`; return (exit code, stdout, stderr)."""
    machine = cluster_node(tmp_path / "machine")
    install(machine)
    machine.host()
    settings = tmp_path / "hpc.toml"
    settings.touch(mode=0o600)
    settings.write_text(f'[stage]\nhost-root = "{machine.root}"\n')

    def call(*words, options=()):
        argv = ["--hpc-config", str(settings), "--cgroup-manager", "disabled", *options, "hpc"]
        code = cli.main([*argv, *words])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "b/rootfs").mkdir(parents=True)
    assert cli.main(["spec", "-b", str(tmp_path / "b")]) == 0
    path = tmp_path / "b/config.json"

    def change(env=(), annotations=None):
        config = json.loads(path.read_text())
        config["process"]["terminal"] = False
        config["process"]["env"] += env
        config["annotations"] = annotations or {}
        path.write_text(json.dumps(config))
        return str(tmp_path / "b")

    return change


def test_explain_says_who_asked_and_what_allowed_it(hpc, bundle):
    where = bundle(["NVIDIA_VISIBLE_DEVICES=0"], {"ocirt.hpc/rdma": "nearest"})
    code, out, _ = hpc("explain", where, "--format", "json")
    rows = json.loads(out)
    assert code == 0
    found = {(row["what"], row["from"], row["allowed"]) for row in rows}
    env, caller = "policy.env-requests", "annotations are the caller's"
    assert ("/dev/nvidia2 195:2 rw", "NVIDIA_VISIBLE_DEVICES=0", env) in found
    assert ("/dev/infiniband/uverbs0 231:192 rw", "ocirt.hpc/rdma=nearest", caller) in found
    assert ("UCX_NET_DEVICES=mlx5_0:1", "ocirt.hpc/rdma=nearest", caller) in found
    code, out, _ = hpc("explain", where)
    lines = out.splitlines()
    assert lines[0] == "NVIDIA_VISIBLE_DEVICES=0  (policy.env-requests)"
    assert lines[1].split() == ["deviceNodes", "/dev/nvidia2", "195:2", "rw"]
    assert "ocirt.hpc/rdma=nearest  (annotations are the caller's)" in lines


def test_explain_says_what_was_left_out(hpc, bundle):
    where = bundle(["AMD_VISIBLE_DEVICES=all"])
    rows = json.loads(hpc("explain", where, "--format", "json")[1])
    assert rows == [
        {"edit": "", "what": "this host has no such device", "from": "AMD_VISIBLE_DEVICES=all",
         "allowed": "left out"}
    ]  # fmt: skip


def test_explain_of_nothing(hpc, bundle):
    assert hpc("explain", bundle())[1] == "nothing was asked for\n"


def test_info_and_topo(hpc):
    assert hpc("info")[1].startswith("NVIDIA driver 550.54.15, CUDA 12.4\n")
    assert len(json.loads(hpc("info", "-f", "json")[1])["rdma"]) == 10
    assert "mlx5_0" in hpc("topo")[1]
    assert hpc("topo", "-f", "svg")[1].startswith("<svg ")
    assert json.loads(hpc("topo", "-f", "json")[1])["distance"]["GPU0"]["mlx5_0"] == "PIX"


def test_cdi(hpc, tmp_path):
    code, out, _ = hpc("cdi", "generate")
    assert code == 0
    folder = tmp_path / "cdi"
    folder.mkdir()
    (folder / "nvidia.json").write_text(out)
    options = ["--cdi-spec-dir", str(folder)]
    lines = hpc("cdi", "list", options=options)[1].splitlines()
    assert f"nvidia.com/gpu=0  {folder}/nvidia.json" in lines
    assert hpc("cdi", "validate", options=options)[:2] == (0, f"{folder}/nvidia.json: good\n")
    (folder / "bad.json").write_text("{}")
    code, out, _ = hpc("cdi", "validate", options=options)
    assert code == 1
    assert out.startswith(f"{folder}/bad.json: ")


def test_inject_is_a_filter(hpc, bundle, tmp_path, monkeypatch):
    where = bundle(["NVIDIA_VISIBLE_DEVICES=0"])

    def inject(*options):
        with open(f"{where}/config.json") as file:
            monkeypatch.setattr("sys.stdin", file)
            return hpc("inject", "--rootfs", f"{where}/rootfs", *options)

    code, out, _ = inject("--place", str(tmp_path / "files"))
    assert code == 0
    assert "/dev/nvidia2" in {node["path"] for node in json.loads(out)["linux"]["devices"]}
    assert (tmp_path / "files/lib64/libcuda.so.1").is_symlink()
    code, _, err = inject()
    assert code == 1
    assert "--place: the container needs files of its own" in err


def test_explain_and_inject_take_the_profile(hpc, bundle, monkeypatch):
    where = bundle()
    assert hpc("explain", where)[1] == "nothing was asked for\n"
    options = ["--hpc-profile", "hpc-job"]
    rows = json.loads(hpc("explain", where, "-f", "json", options=options)[1])
    assert {row["what"] for row in rows if row["edit"] == "dropNamespaces"} == {
        f"no {kind} namespace of its own" for kind in ("cgroup", "ipc", "network", "pid", "uts")
    }
    assert {row["from"] for row in rows} >= {"profile hpc-job: host-namespaces"}
    assert {row["allowed"] for row in rows} == {"the command line is the caller's", "left out"}
    with open(f"{where}/config.json") as file:
        monkeypatch.setattr("sys.stdin", file)
        code, out, _ = hpc("inject", "--rootfs", f"{where}/rootfs", options=options)
    assert code == 0
    kinds = {space["type"] for space in json.loads(out)["linux"]["namespaces"]}
    assert kinds == {"mount"}


def test_import_houdini(hpc, tmp_path):
    ini = tmp_path / "houdini.ini"
    ini.write_bytes(b"[default]\nforce-houdini=true\nmounts=/home\n# \xff\n")
    code, out, _ = hpc("import-houdini", str(ini))
    assert code == 0
    assert 'trigger = "always"' in out
    assert '[[mounts]]\nsource = "/home"\n' in out
    code, _, err = hpc("import-houdini", str(tmp_path / "none"))
    assert code == 1
    assert f"{tmp_path}/none: " in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dance"], "unknown action 'dance' (have explain, info"),
        (["explain"], "explain needs BUNDLE or ID"),
        (["cdi"], "cdi needs list, validate or generate"),
        (["cdi", "eat"], "cdi list, cdi validate or cdi generate"),
        (["explain", "nobody"], "container does not exist"),
    ],
)
def test_misuse_is_told(hpc, words, sentence):
    code, _, err = hpc(*words)
    assert code == 1
    assert sentence in err


def test_inject_makes_room_below_a_directory_and_clean_takes_it_back(
    hpc, bundle, tmp_path, monkeypatch
):
    where, place = bundle(["NVIDIA_VISIBLE_DEVICES=0"]), tmp_path / "files"
    place.mkdir()
    other = place / "other"
    other.mkdir()

    def feed(document, *words):
        (tmp_path / "stdin").write_text(json.dumps(document))
        with open(tmp_path / "stdin") as file:
            monkeypatch.setattr("sys.stdin", file)
            return hpc(*words, "--place", str(place))

    config = json.loads(Path(f"{where}/config.json").read_text())
    made = []
    for _ in range(2):
        code, out, _ = feed(config, "inject", "--rootfs", f"{where}/rootfs")
        assert code == 0
        made.append(json.loads(out)["annotations"]["ocirt.hpc/files"])
        assert Path(made[-1], "lib64/libcuda.so.1").is_symlink()
    assert {str(one) for one in place.iterdir()} == {*made, str(other)}
    for document in (
        {},
        {"annotations": {"ocirt.hpc/files": str(other)}},
        {"annotations": {"ocirt.hpc/files": f"{place}/../{'0' * 16}"}},
        {"annotations": {"ocirt.hpc/files": str(tmp_path)}},
    ):
        assert feed(document, "clean")[0] == 0
    assert {str(one) for one in place.iterdir()} == {*made, str(other)}
    assert feed({"annotations": {"ocirt.hpc/files": made[0]}}, "clean")[0] == 0
    assert {str(one) for one in place.iterdir()} == {made[1], str(other)}
