"""What a launcher of MPI has for its ranks: variables, folders, its socket; who gets them."""

from __future__ import annotations

import os

import pytest
from ocirt_hpc import pmi
from ocirt_hpc.notes import Notes

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import Place

OWN = {"linux": {"namespaces": [{"type": "network"}]}}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "machine")


def ask(machine, environ, config=None, more=()):
    notes = Notes()
    made = pmi.sections("test", config or {}, more, machine.host(), notes, environ)
    assert len(made) <= 1
    return (made[0][1] if made else None), notes


def test_without_a_launcher_there_is_nothing(machine):
    made, notes = ask(machine, {"PATH": "/bin", "SLURM_JOB_ID": "1"})
    assert made is None
    assert notes.left_out == [("test", "no launcher of MPI has started this")]


def test_variables_of_the_launcher_and_no_others(machine):
    environ = {
        "PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "17", "PMIX_RANK": "1", "SLURM_PROCID": "1",
        "OMPI_COMM_WORLD_RANK": "1", "PALS_RANKID": "1", "MPI_LOCALRANKID": "0",
        "SLURM_CONF": "/etc/x", "SLURM_JWT": "secret", "HOME": "/root", "LD_PRELOAD": "x",
        "PATH": "/bin", "MPICH_ASYNC": "1",
    }  # fmt: skip
    made, _ = ask(machine, environ)
    names = {item.partition("=")[0] for item in made["env"]}
    assert names == {
        "PMI_RANK", "PMI_SIZE", "PMI_FD", "PMIX_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK",
        "PALS_RANKID", "MPI_LOCALRANKID",
    }  # fmt: skip
    assert made["keepPmi"] == ["17"]
    assert "keepPmi" not in ask(machine, {"PMIX_RANK": "0"})[0]


def test_ranks_in_user_namespaces_of_their_own_do_not_try_each_others_memory(machine):
    def defaults(**space):
        config = {"linux": {"namespaces": [{"type": "user", **space}]}}
        return ask(machine, {"PMI_RANK": "0"}, config)[0]["envDefault"]

    assert "OMPI_MCA_btl_vader_single_copy_mechanism=none" in defaults()
    assert "UCX_POSIX_USE_PROC_LINK=n" in defaults()
    assert defaults(path="/proc/7/ns/user") == []


def test_the_folder_of_a_pmix_server_is_where_it_was(machine):
    machine.folders("/var/spool/pmix.7.0", "/tmp/spmix_appdir_0_7.0", "/run/munge", "/tmp/pals")
    own = machine.root / f"tmp/spmix_appdir_{os.getuid()}_7.0"
    own.mkdir(exist_ok=True)
    environ = {
        "PMIX_RANK": "0",
        "PMIX_SERVER_TMPDIR": "/var/spool/pmix.7.0/",
        "PALS_SPOOL_DIR": "/tmp/pals",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLINGSHOT_VNIS": "1032",
        "PMIX_SECURITY_MODE": "munge,native",
        "PMIX_GDS_MODULE": "hash",
        "PMIX_PTL_MODULE": "tcp",
    }
    made, _ = ask(machine, environ)
    assert [one["containerPath"] for one in made["mounts"]] == [
        "/var/spool/pmix.7.0",
        "/tmp/pals",
        f"/tmp/spmix_appdir_{os.getuid()}_7.0",
        "/run/munge",
    ]
    assert made["mounts"][0] == {
        "containerPath": "/var/spool/pmix.7.0",
        "hostPath": f"{machine.root}/var/spool/pmix.7.0",
        "options": ["bind", "rw", "rslave", "nosuid", "nodev"],
    }
    assert "SLINGSHOT_VNIS=1032" in made["env"]
    assert made["envDefault"] == [
        "PMIX_MCA_ptl=tcp", "PMIX_MCA_psec=munge,native", "PMIX_MCA_gds=hash",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["", "/", "relative", "/gone", "//"])
def test_a_folder_that_cannot_be_one(machine, path):
    made, _ = ask(machine, {"PMIX_RANK": "0", "PMIX_SERVER_TMPDIR": path})
    assert made["mounts"] == []


def test_a_server_out_of_reach_is_told(machine):
    environ = {"PMIX_RANK": "0", "PMIX_SERVER_URI4": "x;tcp4://127.0.0.1:5"}
    _, notes = ask(machine, environ, OWN)
    assert notes.left_out == [
        ("test", "the PMIx server, which is out of reach for a network of its own")
    ]
    for config, more in (({}, ()), (OWN, [("x", {"dropNamespaces": ["network"]})])):
        assert ask(machine, environ, config, more)[1].left_out == []


# --- who gets them


@pytest.fixture
def place(tmp_path, monkeypatch, machine):
    machine.host()
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setenv("PMI_FD", "9")
    return Place(tmp_path, machine)


def given(made):
    return made is not None and "PMI_RANK=3" in made.config["process"]["env"]


def test_who_asks_gets_them(place):
    assert not given(place.ask(""))
    made = place.ask("", annotations={"ocirt.hpc/pmi": "true"}, env=["PMI_RANK=0"])
    assert given(made)
    assert made.pmi
    assert "PMI_RANK=0" not in made.config["process"]["env"]
    assert given(place.ask("", profile="hpc-job"))
    refused = place.ask("", profile="hpc-job", annotations={"ocirt.hpc/pmi": "false"})
    assert not given(refused)
    with pytest.raises(ConfigError, match=r"^annotations.ocirt.hpc/pmi: expected true or false$"):
        place.ask("", annotations={"ocirt.hpc/pmi": "perhaps"})


def test_a_module_of_the_site_has_them(place):
    text = "[module.mpi]\npmi = true\n"
    made = place.ask(text, annotations={"ocirt.hpc/modules": "mpi"})
    assert given(made)
    rows = {row["what"]: row for row in made.report}
    assert rows["the launcher's socket 9 stays open"]["from"] == "hpc.toml: module.mpi.pmi"
    assert rows["PMI_RANK=3"]["allowed"] == "annotations are the caller's"


def test_no_variable_of_an_image_names_a_folder(place, machine):
    (machine.root / "etc").mkdir()
    env = ["PMIX_SERVER_TMPDIR=/etc", "PMIX_RANK=0"]
    made = place.ask("", annotations={"ocirt.hpc/pmi": "true"}, env=env)
    assert [one["destination"] for one in made.config["mounts"]] == ["/proc"]
