"""ocirt doctor, on machines made of a few files."""

from __future__ import annotations

import json
import os
import struct
import sys

import pytest

from ocirt import cli, doctor, engines
from ocirt.doctor import cgroups, devices, kernel, parts, users
from ocirt.engines.site import Site
from ocirt.plan.host import Host

GOOD = {
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    "proc/sys/kernel/cap_last_cap": "40\n",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process errno allow\n",
    "proc/sys/user/max_user_namespaces": "63000\n",
    "proc/self/status": "Name:\tx\nCapBnd:\t000001ffffffffff\n",
    "proc/self/cgroup": "0::/user.slice/user-1000.slice/user@1000.service/app.slice\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/fs/cgroup/cgroup.procs": "",
    "usr/lib64/libseccomp.so.2.5.5": "",
    "usr/lib64/libseccomp.so.2": "",
    "usr/bin/newuidmap": "",
    "usr/bin/newgidmap": "",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "etc/subuid": "alice:100000:65536\n1000:200000:10\nbob:300000:65536\n",
    "etc/subgid": "alice:100000:65536\n",
    **{f"proc/self/ns/{kind}": "" for kind in kernel.NAMESPACES},
}
USER_GROUP = "sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"


@pytest.fixture
def machine(tmp_path):
    """Make a machine: GOOD with changes; None takes a file away."""

    def make(uid=0, **changes):
        files = {**GOOD, **{name.replace("__", "/"): text for name, text in changes.items()}}
        for name, text in files.items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                path.chmod(0o4755 if path.name in ("newuidmap", "newgidmap") else 0o755)
        return doctor.Machine(str(tmp_path), uid)

    return make


def rows(machine):
    return {(area, name): (status, value, advice)
            for area, name, status, value, advice in doctor.examine(machine)}  # fmt: skip


def test_a_good_machine_has_nothing_to_complain_of(machine):
    found = doctor.examine(machine())
    # The init of a source tree may not have been built.
    assert [row for row in found if row[2] not in ("ok", "info") and row[1] != "init"] == []
    assert {row[0] for row in found} == {area for area, _ in doctor.CHECKS}


def test_every_row_that_is_not_well_says_what_to_do(machine):
    bad = machine(
        1000,
        **dict.fromkeys(GOOD),
        proc__sys__kernel__osrelease="5.4.0\n",
        usr__sbin__dockerd="",
        proc__sys__user__max_user_namespaces="0\n",
        proc__sys__kernel__unprivileged_userns_clone="0\n",
        proc__sys__kernel__apparmor_restrict_unprivileged_userns="1\n",
        proc__sys__vm__memfd_noexec="2\n",
    )
    poor = [row for row in doctor.examine(bad) if row[2] in ("lacks", "fails")]
    assert len(poor) > 10
    assert [row for row in poor if not row[4]] == []


@pytest.mark.parametrize(
    ("release", "missing"),
    [
        ("5.4.0", {"version", "openat2", "mount_setattr", "clone3 into cgroup", "idmapped mounts"}),
        ("5.11.0-rc1", {"version", "mount_setattr", "idmapped mounts"}),
        ("5.12", set()),
        ("", {"version", "openat2", "mount_setattr", "clone3 into cgroup", "pidfd",
              "idmapped mounts"}),
    ],
)  # fmt: skip
def test_an_old_kernel(machine, release, missing):
    found = rows(machine(proc__sys__kernel__osrelease=f"{release}\n"))
    names = {name for (area, name), row in found.items() if area == "kernel" and row[0] != "ok"}
    assert names == missing
    if missing:
        assert found["kernel", "version"][0] == "fails"
        assert found["kernel", "mount_setattr"][0] == "fails"
        assert found["kernel", "idmapped mounts"][0] == "lacks"


def test_the_running_kernel_is_asked():
    found = rows(doctor.Machine("/", os.geteuid()))
    assert found["kernel", "openat2"][0] == "ok"  # or no test of ours would run


def test_missing_capabilities_are_named(machine):
    status = "CapBnd:\t000001fffeffffff\n"
    found = rows(machine(proc__self__status=status))["security", "capabilities"]
    assert found[:2] == ("lacks", "all but CAP_SYS_RESOURCE")
    found = rows(machine(1000, proc__self__status=status))["security", "capabilities"]
    assert found[0] == "ok"


def test_a_user_has_his_ranges(machine):
    found = rows(machine(1000))
    assert found["id mappings", "subuid"] == ("ok", "65546 ids of alice", "")
    found = rows(machine(1001))
    assert found["id mappings", "subuid"][:2] == ("lacks", "0 ids of 1001")
    assert rows(machine(0))["id mappings", "subuid"][1] == "ranges of 3 users"


def test_a_helper_without_privileges_maps_nothing(machine):
    user = machine(1000)
    path = os.path.join(user.site.root, "usr/bin/newuidmap")
    assert rows(user)["id mappings", "newuidmap"] == ("ok", "/usr/bin/newuidmap", "")
    os.chmod(path, 0o755)
    status, value, advice = rows(user)["id mappings", "newuidmap"]
    assert (status, value) == ("lacks", "/usr/bin/newuidmap without privileges")
    assert "chmod u+s /usr/bin/newuidmap" in advice


def test_a_user_namespace_is_tried(monkeypatch):
    user = doctor.Machine("/", 4242)
    (granted,) = list(users.namespace(user))
    assert granted[:2] == ("namespace", "ok")
    monkeypatch.setattr(users, "CLONE_NEWUSER", 1)  # no namespace, which the kernel refuses
    (refused,) = list(users.namespace(user))
    assert refused[:3] == ("namespace", "lacks", "refused")
    assert "seccomp" in refused[3]
    assert list(users.namespace(doctor.Machine("/", 0))) == []


def test_a_users_delegated_cgroup_is_found_above(machine, monkeypatch):
    files = {f"{USER_GROUP}/cgroup.controllers": "memory pids\n",
             f"{USER_GROUP}/cgroup.subtree_control": ""}  # fmt: skip
    user = machine(os.geteuid(), **files)
    user.uid = 4242
    assert rows(user)["cgroups", "delegation"][:2] == ("lacks", "none")
    monkeypatch.setattr(cgroups, "_owned", lambda path, uid: path.endswith(
        "user@1000.service/cgroup.subtree_control"))  # fmt: skip
    status, value, advice = rows(user)["cgroups", "delegation"]
    assert (status, value) == ("lacks", "memory pids")
    assert "Delegate=" in advice


@pytest.mark.parametrize(("uid", "found"), [(0, "fs systemd"), (1000, "fs systemd"), (7, "fs")])
def test_a_systemd_that_runs_is_a_driver(machine, uid, found):
    sockets = {"run__systemd__private": "", "run__user__1000__systemd__private": ""}
    assert rows(machine(uid, **sockets))["cgroups", "drivers"] == ("info", found, "")


def test_version_1_gives_users_nothing(machine):
    v1 = {
        "sys/fs/cgroup/cgroup.controllers": None,
        "proc/self/cgroup": "2:memory:/\n1:cpu,cpuacct:/\n",
    }
    user = machine(1000, **v1)
    top = user.cgroups
    lines = [
        f"30 24 0:26 / {top}/memory rw - cgroup cgroup rw,memory\n",
        f"31 24 0:27 / {top}/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
    ]
    with open(f"{user.proc}/mountinfo", "w") as file:
        file.writelines(lines)
    found = rows(user)
    assert found["cgroups", "mode"][1] == "v1"
    assert found["cgroups", "controllers"][0] == "lacks"
    assert "(no cpuset, devices, freezer, pids)" in found["cgroups", "controllers"][1]
    assert found["cgroups", "delegation"][0] == "lacks"


def test_no_cgroups_at_all_fail_for_root_alone(machine):
    none = {"sys/fs/cgroup/cgroup.controllers": None}
    assert rows(machine(0, **none))["cgroups", "mode"][0] == "fails"
    assert rows(machine(1000, **none))["cgroups", "mode"][0] == "lacks"


def test_engines_know_ocirt_or_not(machine, tmp_path, capfd):
    some = machine(usr__sbin__dockerd="", usr__bin__podman="", usr__bin__kubelet="",
                   opt__ocirt="")  # fmt: skip
    assert rows(some)["engines", "docker"] == (
        "lacks", "/usr/sbin/dockerd does not know ocirt", "ocirt setup docker",
    )  # fmt: skip
    for engine in ("docker", "podman"):
        cli.main(["setup", engine, "--root", str(tmp_path), "--path", "/opt/ocirt"])
    found = rows(some)
    assert found["engines", "docker"] == ("ok", "/usr/sbin/dockerd: hpc (/opt/ocirt)", "")
    assert found["engines", "podman"] == ("ok", "/usr/bin/podman: hpc (/opt/ocirt)", "")
    assert found["engines", "kubernetes"][0] == "info"
    (tmp_path / "opt/ocirt").unlink()
    assert rows(some)["engines", "docker"][0] == "lacks"
    (tmp_path / "etc/docker/daemon.json").write_text("{")
    assert "/etc/docker/daemon.json: malformed JSON" in rows(some)["engines", "docker"][2]
    capfd.readouterr()


def test_no_engine_is_no_fault(machine):
    assert rows(machine())["engines", "none"] == ("info", "", "")
    assert set(engines.ENGINES) >= {"docker", "containerd", "podman", "crio", "slurm"}


def test_an_engine_tells_its_version(monkeypatch, tmp_path):
    program = tmp_path / "bin/dockerd"
    program.parent.mkdir()
    site = Site("/")
    monkeypatch.setattr(site, "program", lambda name: str(program))
    for text, version in (
        ("Docker version 20.10.24+dfsg1, build 5d6db84", "20.10.24+dfsg1"),
        ("containerd github.com/containerd/containerd v2.1.4 75cb2b7", "2.1.4"),
        ("slurm-wlm 22.05.8", "22.05.8"),
        ("no number", ""),
    ):
        program.write_text(f"#!/bin/sh\necho '{text}'\n")
        program.chmod(0o755)
        assert engines.version("docker", site) == version
    program.write_bytes(b"\x7fELF")
    assert engines.version("docker", site) == ""


def test_no_program_of_another_machine_is_run(machine, tmp_path):
    program = tmp_path / "usr/sbin/dockerd"
    some = machine(usr__sbin__dockerd=f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    assert program.exists()
    assert rows(some)["engines", "docker"][1] == "/usr/sbin/dockerd does not know ocirt"
    assert not (tmp_path / "ran").exists()


CARD = """{"cdiVersion": "0.6.0", "kind": "acme.com/card",
 "devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}},
             {"name": "all", "containerEdits": {"env": ["A=1"]}}]}"""


def test_cdi_files_are_read(machine):
    files = {"etc/cdi/card.json": CARD, "var/run/cdi/cut.json": CARD[:-9]}
    found = rows(machine(**files))
    assert found["devices", "CDI card.json"] == (
        "ok", "acme.com/card={0,all} (/etc/cdi/card.json)", "",
    )  # fmt: skip
    status, value, advice = found["devices", "CDI cut.json"]
    assert (status, value) == ("lacks", "/var/run/cdi/cut.json")
    assert advice.startswith("its devices cannot be asked for: line 3 column")
    assert rows(doctor.Machine("/nowhere"))["devices", "CDI"][0] == "info"


NVIDIA = {
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  "
    "570.86.15  Release Build\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA A100-SXM4-80GB\n"
    "IRQ:   \t\t 255\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 1\n",
    "dev/nvidia1": "", "dev/nvidiactl": "",
}  # fmt: skip


def test_gpus_of_nvidia(machine, tmp_path):
    found = rows(machine(**NVIDIA))
    assert found["devices", "NVIDIA driver"] == ("info", "570.86.15", "")
    assert found["devices", "NVIDIA GPU"] == (
        "ok", "NVIDIA A100-SXM4-80GB, 0000:01:00.0, /dev/nvidia1", "",
    )  # fmt: skip
    assert found["devices", "nvidia-uvm"] == (
        "lacks", "/dev/nvidia-uvm is missing", "CUDA needs it: nvidia-modprobe -u",
    )  # fmt: skip
    (tmp_path / "dev/nvidia1").unlink()
    found = rows(doctor.Machine(str(tmp_path)))
    assert found["devices", "NVIDIA GPU"][0] == "lacks"
    information = "proc/driver/nvidia/gpus/0000:01:00.0/information"
    (tmp_path / information).write_text("Model: x\n")
    found = rows(doctor.Machine(str(tmp_path)))
    assert found["devices", "NVIDIA driver"] == (
        "lacks", f"/{information}: names no device minor", "",
    )  # fmt: skip


def test_render_nodes_and_fabrics(machine):
    found = rows(machine(**{
        "dev/dri/renderD128": "", "sys/class/drm/renderD128/device/vendor": "0x1002\n",
        "dev/dri/card0": "", "dev/kfd": "",
        "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
        "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
        "sys/class/infiniband/mlx5_0/ports/2/state": "2: INIT\n",
        "sys/class/infiniband/mlx5_0/ports/2/link_layer": "Ethernet\n",
        "sys/class/infiniband_verbs/uverbs0/ibdev": "mlx5_0\n",
        "sys/class/infiniband_verbs/abi_version": "6\n",
        "sys/class/cxi/cxi0/device/x": "", "dev/cxi0": "",
    }))  # fmt: skip
    assert found["devices", "render node"] == ("ok", "AMD /dev/dri/renderD128", "")
    assert found["devices", "AMD compute"] == ("ok", "/dev/kfd", "")
    assert found["devices", "RDMA"][1] == (
        "mlx5_0, port 1 active (InfiniBand), port 2 init (Ethernet)"
    )
    assert found["devices", "RDMA verbs"] == (
        "lacks", "/dev/infiniband/uverbs0 is missing", "modprobe ib_uverbs",
    )  # fmt: skip
    assert found["devices", "Slingshot"] == ("ok", "/dev/cxi0", "")


def test_a_device_of_others_is_told(monkeypatch):
    here = doctor.Machine("/")
    monkeypatch.setattr(Host, "exists", lambda self, path: path == "/dev/kfd")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert list(devices.render(here))[-1] == (
        "AMD compute", "lacks", "/dev/kfd: permission denied", "join the group that owns /dev/kfd",
    )  # fmt: skip


def elf(*kinds):
    head = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 2, 62, 1, 0, 64, 0, 0, 64, 56,
                       len(kinds), 0, 0, 0)  # fmt: skip
    return head + b"".join([struct.pack("<I52x", kind) for kind in kinds])


def test_the_init_is_told_by_its_header(tmp_path):
    path = tmp_path / "init"
    assert parts.init_facts(str(path)) == (f"{path}: No such file or directory", False)
    for data, wanted in ((elf(1, 1), "static, 176 bytes"), (elf(1, 3), "dynamic, 176 bytes")):
        path.write_bytes(data)
        path.chmod(0o755)
        assert parts.init_facts(str(path)) == (wanted, True)
    path.write_text("#!/bin/sh")
    assert parts.init_facts(str(path))[1] is False


def test_an_embedded_interpreter_is_missing_stale_or_well(tmp_path):
    package = tmp_path / "ocirt"
    (tmp_path / "packaging").mkdir()
    (tmp_path / "hooks" / "ocirt_hpc").mkdir(parents=True)
    package.mkdir()
    name = f"ocirt-python{sys.version.split()[0]}"
    for path in (package / "a.py", package / "b.py", tmp_path / "hooks" / "ocirt_hpc" / "c.py"):
        path.touch()
        os.utime(path, (1000, 1000))
    _, status, value, advice = parts.embedded(str(package))
    assert (status, advice) == ("info", "install the package again beside libpython3-dev")
    assert name in value
    (tmp_path / "packaging" / "embed.c").touch()
    assert parts.embedded(str(package))[3] == "make launcher"
    (package / name).touch()
    assert parts.embedded(str(package)) == ("embedded", "ok", name, "")
    for path in (package / "b.py", tmp_path / "hooks" / "ocirt_hpc" / "c.py"):
        path.touch()
        os.utime(path, (2**32, 2**32))
    _, status, value, advice = parts.embedded(str(package))
    assert (status, advice) == ("info", "make launcher")
    assert value.startswith("2 modules are younger")
    (tmp_path / "packaging" / "embed.c").unlink()  # an installer's times say nothing
    assert parts.embedded(str(package))[1] == "ok"


def test_the_exit_code_is_1_when_ocirt_cannot_work(machine, capfd):
    root = machine(proc__sys__kernel__osrelease="5.4.0\n").site.root
    assert cli.main(["doctor", "--root", root]) == 1
    out = capfd.readouterr().out
    assert "\n  fails  mount_setattr" in out
    assert "-> Linux 5.12 has it; every container needs it" in out


def test_json_tells_the_same(machine, capfd):
    root = machine().site.root
    cli.main(["doctor", "--root", root, "--format", "json"])
    found = json.loads(capfd.readouterr().out)
    assert {"area": "cgroups", "name": "mode", "status": "ok", "value": "v2", "advice": ""} in found
    assert cli.main(["doctor", "--format", "xml"]) == 1
    assert "invalid format option: xml" in capfd.readouterr().err
