"""ocirt setup: what it writes, what it leaves alone, and that it takes back exactly its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ocirt import cli, engines
from ocirt.engines import containerd, daemon_json
from ocirt.engines.site import Site, Wish
from ocirt.errors import Error

ROOT = Path(__file__).resolve().parent.parent.parent.parent
DAEMON = "etc/docker/daemon.json"
CONTAINERD = "etc/containerd/config.toml"
PODMAN = "etc/containers/containers.conf.d/ocirt.conf"
FILES = {
    "docker": DAEMON,
    "containerd": CONTAINERD,
    "podman": PODMAN,
    "crio": "etc/crio/crio.conf.d/10-ocirt.conf",
    "slurm": "etc/slurm/oci.conf",
}
OURS = "/opt/hpc/bin/ocirt"


@pytest.fixture
def setup(tmp_path, capfd):
    """Run `ocirt setup` on a fake root; return (exit code, stdout, stderr)."""

    def call(*words, path=OURS):
        code = cli.main(["setup", "--root", str(tmp_path), "--path", path, *words])
        done = capfd.readouterr()
        return code, done.out, done.err

    return call


def put(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tree(root):
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("engine", FILES)
def test_a_second_time_changes_nothing_and_undo_leaves_nothing(setup, tmp_path, engine):
    code, out, _ = setup(engine)
    assert code == 0
    assert f"wrote {tmp_path}/{FILES[engine]}\nnext: " in out
    assert OURS in (tmp_path / FILES[engine]).read_text()
    before = tree(tmp_path)
    assert f"unchanged {tmp_path}/{FILES[engine]}" in setup(engine)[1]
    assert tree(tmp_path) == before
    assert f"removed {tmp_path}/{FILES[engine]}" in setup(engine, "--undo")[1]
    assert tree(tmp_path) == {}
    assert setup(engine, "--undo")[0] == 0


@pytest.mark.parametrize("engine", FILES)
def test_what_is_registered_is_found_again(setup, tmp_path, engine):
    assert engines.registered(engine, Site(str(tmp_path))) == []
    setup(engine)
    ((name, program),) = engines.registered(engine, Site(str(tmp_path)))
    assert program == OURS
    assert name == ("RunTimeRun" if engine == "slurm" else "hpc")


@pytest.mark.parametrize("engine", engines.ENGINES)
def test_a_dry_run_writes_nothing(setup, tmp_path, engine):
    code, out, _ = setup(engine, "--dry-run")
    assert code == 0
    assert "hpc" in out
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("engine", sorted(set(FILES) - {"docker", "containerd"}))
def test_a_file_of_others_is_refused(setup, tmp_path, engine):
    put(tmp_path, FILES[engine], "# mine\n")
    before = tree(tmp_path)
    code, _, err = setup(engine)
    assert code == 1
    assert f"/{FILES[engine]}: is there already and not ours: move it away first" in err
    assert setup(engine, "--undo")[0] == 0
    assert tree(tmp_path) == before


@pytest.mark.parametrize("engine", sorted(set(FILES) - {"docker"}))
@pytest.mark.parametrize("undo", [(), ("--undo",)])
def test_a_file_that_somebody_changed_is_left_alone(setup, tmp_path, engine, undo):
    setup(engine)
    path = tmp_path / FILES[engine]
    path.write_text(path.read_text().replace(OURS, "/usr/bin/ocirt"))
    before = tree(tmp_path)
    code, _, err = setup(engine, *undo)
    assert code == 1
    assert "was changed by hand since setup wrote it" in err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("engine", FILES)
def test_a_new_path_takes_the_place_of_the_old_one(setup, tmp_path, engine):
    setup(engine)
    assert "wrote" in setup(engine, path="/usr/bin/ocirt")[1]
    text = (tmp_path / FILES[engine]).read_text()
    assert "/usr/bin/ocirt" in text
    assert OURS not in text


def test_mode_and_owner_stay(setup, tmp_path):
    path = put(tmp_path, DAEMON, '{"debug": true}')
    path.chmod(0o600)
    setup("docker")
    assert path.stat().st_mode & 0o7777 == 0o600
    assert os.listdir(path.parent) == ["daemon.json"]


def test_a_file_that_cannot_be_written_is_named(setup, tmp_path):
    put(tmp_path, f"{DAEMON}.ocirt{os.getpid()}", "in the way")
    before = tree(tmp_path)
    code, _, err = setup("docker")
    assert code == 1
    assert f'msg="/{DAEMON}: file exists"' in err
    assert tree(tmp_path) == before


def test_what_somebody_wrote_meanwhile_is_not_overwritten(setup, tmp_path):
    put(tmp_path, DAEMON, '{"debug": true}')
    site = Site(str(tmp_path))
    with pytest.raises(Error, match="was changed meanwhile: try again"):
        engines.carry_out(f"/{DAEMON}", "", "{}", site)
    with pytest.raises(Error, match="was changed meanwhile"):
        engines.carry_out(f"/{DAEMON}", '{"debug": false}', "", site)
    assert (tmp_path / DAEMON).read_text() == '{"debug": true}'


def test_setups_at_the_same_time_lose_nothing(tmp_path):
    names = [f"n{number}" for number in range(6)]
    line = [sys.executable, "-m", "ocirt", "setup", "docker", "--root", tmp_path, "--path", OURS]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    calls = [subprocess.Popen([*line, "--name", name], cwd=ROOT, **silent) for name in names]
    done = {name for name, call in zip(names, calls, strict=True) if call.wait(60) == 0}
    assert done
    assert set(json.loads((tmp_path / DAEMON).read_text())["runtimes"]) == done
    assert os.listdir(tmp_path / "etc/docker") == ["daemon.json"]


def test_a_link_to_the_file_stays_a_link(setup, tmp_path):
    real = put(tmp_path, "srv/daemon.json", '{"debug": true}')
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / DAEMON).symlink_to("../../srv/daemon.json")
    assert setup("docker")[0] == 0
    assert (tmp_path / DAEMON).is_symlink()
    assert "hpc" in real.read_text()
    assert setup("docker", "--undo")[0] == 0
    assert real.read_text() == '{"debug": true}'


def test_a_link_out_of_the_root_is_refused(setup, tmp_path):
    outside = put(tmp_path, "outside/daemon.json", "{}")
    root = tmp_path / "root"
    put(root, DAEMON, "").unlink()
    (root / DAEMON).symlink_to(outside)
    code, _, err = setup("docker", "--root", str(root))
    assert (code, outside.read_text()) == (1, "{}")
    assert "leads out of" in err


@pytest.mark.parametrize(
    "words",
    [("--name", "runc"), ("--name", "A"), ("--name", "-x"), ("--name", ""), ("--path", "ocirt"),
     ("--path", "/a b/ocirt")],
)  # fmt: skip
def test_bad_words_are_refused(setup, tmp_path, words):
    code, _, err = setup("docker", *words)
    assert code == 1
    assert words[0] in err
    assert tree(tmp_path) == {}


def test_an_unknown_engine_is_refused(setup):
    code, _, err = setup("lxc")
    assert code == 1
    assert "unknown engine lxc: not one of docker, containerd, podman" in err


def test_users_configure_their_own_engines(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["setup", "docker", "--path", OURS]) == 0
    assert cli.main(["setup", "podman", "--path", OURS]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["containers", "docker"]
    assert "hpc" in json.loads((tmp_path / "docker/daemon.json").read_text())["runtimes"]
    assert OURS in (tmp_path / "containers/containers.conf.d/ocirt.conf").read_text()
    assert ("hpc", OURS) in engines.registered("docker", Site("/", str(tmp_path)))
    assert "next: systemctl --user reload docker" in capfd.readouterr().out


# Docker

DOCUMENTS = [
    '{"debug": true}',
    '{ "debug": true, "runtimes": { "nvidia": { "path": "nvidia-container-runtime" } } }\n',
    '{\n  "data-root": "/data",\n  "hosts": ["unix:///x", "fd://"]\n}\n',
    '{\n\t"runtimes": {\n\t\t"a": {\n\t\t\t"path": "/a"\n\t\t}\n\t},\n\t"z": "}{\\"ü"\n}',
    '{\r\n  "debug": true\r\n}\r\n',
    '\ufeff{"debug": true}',
]


@pytest.mark.parametrize("text", DOCUMENTS)
def test_all_else_in_daemon_json_stays_to_the_byte(setup, tmp_path, text):
    path = put(tmp_path, DAEMON, "")
    path.write_bytes(text.encode())
    assert setup("docker")[0] == 0
    new = daemon_json.parse(path.read_bytes().decode())
    assert new["runtimes"].pop("hpc") == {"path": OURS}
    old = daemon_json.parse(text)
    assert {**new, "runtimes": new["runtimes"]} == {**old, "runtimes": old.get("runtimes", {})}
    assert setup("docker", "--undo")[0] == 0
    assert path.read_bytes() == text.encode()


def test_a_new_member_is_laid_out_as_its_neighbours(setup, tmp_path):
    path = put(tmp_path, DAEMON, '{\n  "runtimes": {\n    "a": {"path": "/a"}\n  }\n}\n')
    setup("docker")
    assert path.read_text() == (
        '{\n  "runtimes": {\n    "a": {"path": "/a"},\n    "hpc": {\n'
        f'      "path": "{OURS}"\n    }}\n  }}\n}}\n'
    )


def test_other_names_stand_beside_each_other(setup, tmp_path):
    setup("docker")
    setup("docker", "--name", "gpu")
    setup("docker", "--undo")
    assert list(json.loads((tmp_path / DAEMON).read_text())["runtimes"]) == ["gpu"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"debug": true,}', "malformed JSON: line 1, column 16"),
        ("[]", "expected an object"),
        ('{"runtimes": []}', "runtimes: expected an object"),
        ('{"runtimes": {"hpc": "x"}}', "runtimes.hpc: expected an object"),
        ('{"runtimes": {"hpc": {"path": "/usr/bin/kata"}}}', "runtimes.hpc: is there already"),
        ('{"runtimes": {"hpc": {"runtimeType": "x"}}}', "runtimes.hpc: is there already"),
    ],
)
def test_a_daemon_json_that_cannot_be_merged_is_refused(setup, tmp_path, text, sentence):
    path = put(tmp_path, DAEMON, text)
    code, _, err = setup("docker")
    assert code == 1
    assert f"/{DAEMON}: {sentence}" in err
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"runtimes": {"hpc": {"path": "/usr/bin/kata"}}}', "is not ours"),
        ('{"runtimes": {"hpc": {"path": "/x/ocirt", "runtimeArgs": []}}}', "holds more than setup"),
        ('{"default-runtime": "hpc", "runtimes": {"hpc": {"path": "/x/ocirt"}}}', "names hpc"),
    ],
)
def test_undo_leaves_what_others_wrote_into_daemon_json(setup, tmp_path, text, sentence):
    path = put(tmp_path, DAEMON, text)
    code, _, err = setup("docker", "--undo")
    assert code == 1
    assert sentence in err
    assert path.read_text() == text


# containerd

V2 = """\
version = 2
imports = ["/etc/containerd/other/*.toml"]

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "localhost/pause:1" # ours
"""
V3 = V2.replace("version = 2", "version = 3").replace("grpc.v1.cri", "cri.v1.runtime")


def runtimes(text, version):
    plugin = tomllib.loads(text)["plugins"][containerd.PLUGINS[version]]
    return plugin["containerd"]["runtimes"]


def test_version_2_gets_a_block_at_the_end(setup, tmp_path):
    path = put(tmp_path, CONTAINERD, V2)
    assert setup("containerd")[0] == 0
    assert path.read_text().startswith(V2)
    found = runtimes(path.read_text(), 2)
    assert found["hpc"]["options"] == {"BinaryName": OURS, "SystemdCgroup": False}
    assert found["hpc"]["pod_annotations"] == ["ocirt.hpc/*", "cdi.k8s.io/*"]
    assert found["hpc"]["container_annotations"] == ["ocirt.hpc/*", "cdi.k8s.io/*"]
    assert list(tree(tmp_path)) == [str(path)]
    setup("containerd", "--undo")
    assert path.read_text() == V2


def test_the_built_in_runc_is_named_where_nobody_else_does(setup, tmp_path):
    path = put(tmp_path, CONTAINERD, V2)
    setup("containerd")
    assert "runc" in runtimes(path.read_text(), 2)
    table = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\nsandbox_mode = "x"\n'
    path.write_text(V2 + table)
    setup("containerd")
    assert runtimes(path.read_text(), 2)["runc"] == {"sandbox_mode": "x"}


def test_cgroups_are_made_as_runcs_are(setup, tmp_path):
    options = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n'
    path = put(tmp_path, CONTAINERD, V2 + options + "SystemdCgroup = true\n")
    setup("containerd")
    assert runtimes(path.read_text(), 2)["hpc"]["options"]["SystemdCgroup"] is True


def test_version_3_imports_a_drop_in(setup, tmp_path):
    path = put(tmp_path, CONTAINERD, V3)
    assert setup("containerd")[0] == 0
    document = tomllib.loads(path.read_text())
    assert document["imports"] == [containerd.DROP_IN, "/etc/containerd/other/*.toml"]
    drop_in = tmp_path / containerd.DROP_IN.lstrip("/")
    assert tomllib.loads(drop_in.read_text()).keys() == {"plugins"} | {"version"}
    assert runtimes(drop_in.read_text(), 3)["hpc"]["options"]["BinaryName"] == OURS
    setup("containerd", "--undo")
    assert tree(tmp_path) == {str(path): V3.encode()}


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("", True),
        ("imports = []", True),
        ('imports = [\n  "/a.toml",\n  "/b.toml",\n]', True),
        ('imports = ["conf.d/*.toml"]', False),
        ('imports = ["/etc/containerd/conf.d/*.toml"]', False),
    ],
)
def test_imports_are_added_to_and_taken_back(setup, tmp_path, line, changes):
    text = f'version = 3\n{line}\n[debug]\nlevel = "info"\n'
    path = put(tmp_path, CONTAINERD, text)
    assert setup("containerd")[0] == 0
    assert (path.read_text() != text) == changes
    before = tree(tmp_path)
    setup("containerd")
    assert tree(tmp_path) == before
    assert setup("containerd", "--undo")[0] == 0
    assert tree(tmp_path) == {str(path): text.encode()}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("root = '/x'\n", "version 1: is not known here"),
        ("version = 9\n", "version 9: is not known here"),
        ("version = \n", "malformed TOML"),
        ("version = 2\nplugins = {}\n", "malformed TOML"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.hpc]\n',
            "runtimes.hpc: is there already",
        ),
    ],
)
def test_a_config_toml_that_cannot_be_added_to_is_refused(setup, tmp_path, text, sentence):
    path = put(tmp_path, CONTAINERD, text)
    code, _, err = setup("containerd")
    assert code == 1
    assert sentence in err
    assert "config.toml" in err
    assert tree(tmp_path) == {str(path): text.encode()}


# Podman, Slurm, Kubernetes


def test_podmans_lists_repeat_what_was_in_force(setup, tmp_path):
    put(tmp_path, "usr/share/containers/containers.conf", '[engine]\nevents_logger = "file"\n')
    put(tmp_path, "etc/containers/containers.conf",
        '[engine]\nruntime_supports_json = ["crun", "mine"]\n')  # fmt: skip
    put(tmp_path, "etc/containers/containers.conf.d/a.conf",
        '[engine]\nruntime_supports_nocgroup = ["b", {append = true}]\n')  # fmt: skip
    assert setup("podman")[0] == 0
    engine = tomllib.loads((tmp_path / PODMAN).read_text())["engine"]
    assert engine["runtime_supports_json"] == ["crun", "mine", "hpc", "ocirt"]
    assert engine["runtime_supports_nocgroup"] == ["crun", "krun", "b", "hpc", "ocirt"]
    assert engine["runtimes"] == {"hpc": [OURS]}


def test_crios_drop_in_has_what_crio_reads(setup, tmp_path):
    assert setup("crio")[0] == 0
    document = tomllib.loads((tmp_path / FILES["crio"]).read_text())
    # One table of its own: the others, and which of them is the default, stay as they are.
    assert list(document) == ["crio"]
    assert list(document["crio"]) == ["runtime"]
    assert list(document["crio"]["runtime"]) == ["runtimes"]
    # crio.conf(5); with the type `oci` the path is what conmon calls.
    assert document["crio"]["runtime"]["runtimes"] == {
        "hpc": {"runtime_path": OURS, "runtime_type": "oci", "runtime_root": "/run/ocirt"}
    }


def test_a_users_lists_repeat_his_own(tmp_path):
    home = tmp_path / "home/.config"
    put(tmp_path, "etc/containers/containers.conf",
        '[engine]\nruntime_supports_json = ["machine"]\n')  # fmt: skip
    put(home, "containers/containers.conf", '[engine]\nruntime_supports_json = ["own"]\n')
    put(home, "containers/containers.conf.d/b.conf",
        '[engine]\nruntime_supports_nocgroup = ["c"]\n')  # fmt: skip
    site = Site(str(tmp_path), "/home/.config")
    ((path, _, text),) = engines.changes("podman", Wish("hpc", OURS), site, undo=False)
    assert path == "/home/.config/containers/containers.conf.d/ocirt.conf"
    engine = tomllib.loads(text)["engine"]
    assert engine["runtime_supports_json"] == ["own", "hpc", "ocirt"]
    assert engine["runtime_supports_nocgroup"] == ["c", "hpc", "ocirt"]
    engines.carry_out(path, "", text, site)
    ((_, old, new),) = engines.changes("podman", Wish("hpc", OURS), site, undo=False)
    assert old == new == text


def test_a_malformed_file_of_podman_is_named(setup, tmp_path):
    put(tmp_path, "etc/containers/containers.conf", "[engine\n")
    code, _, err = setup("podman")
    assert code == 1
    assert "/etc/containers/containers.conf: malformed TOML" in err


def test_an_old_slurm_gets_only_what_it_knows(setup, tmp_path):
    setup("slurm", "--slurm-22")
    text = (tmp_path / FILES["slurm"]).read_text()
    assert "%U" not in text
    assert "EnvExclude" not in text
    assert (
        f'RunTimeRun="exec {OURS} --root=/tmp/ocirt-%u run --pmi-fd -b %b %n.%u.%j.%s.%t"' in text
    )


@pytest.mark.parametrize(
    ("version", "old"), [("22.05.8", True), ("21.08", True), ("24.11.5", False), ("", False)]
)
def test_the_slurm_that_is_installed_decides(monkeypatch, capfd, version, old):
    monkeypatch.setattr(engines, "version", lambda engine, site: version)
    assert cli.main(["setup", "slurm", "--dry-run", "--path", OURS]) == 0
    assert ("%U" not in capfd.readouterr().out) == old


def test_the_manifest_is_all_there_is_on_stdout(setup, tmp_path):
    code, out, err = setup("kubernetes", "--name", "gpu")
    assert code == 0
    assert out.splitlines() == [
        "apiVersion: node.k8s.io/v1", "kind: RuntimeClass", "metadata:", "  name: gpu",
        "handler: gpu",
    ]  # fmt: skip
    assert "next: pipe this to" in err
    assert "kubectl delete runtimeclass hpc" in "".join(setup("kubernetes", "--undo")[1:])
    assert tree(tmp_path) == {}
