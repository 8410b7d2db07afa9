"""Open MPI across containers: `mpirun` starts each rank as a container of its own.

The image has its own Open MPI, or gets the host's in its place.  Needs the machine's Open MPI
(Debian: openmpi-bin, libopenmpi-dev).
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

import pytest

from tests.integration import mpi
from tests.integration.conftest import Builder
from tests.integration.support import PATIENCE, only_ocirt

LAUNCHER = shutil.which("mpirun.openmpi")
COMPILER = shutil.which("mpicc.openmpi")
PLUGINS = mpi.open_mpi_plugins()

pytestmark = [
    only_ocirt("other runtimes hand on no launcher's variables"),
    pytest.mark.skipif(
        not (LAUNCHER and COMPILER and PLUGINS),
        reason="needs Open MPI 4 as Debian has it: openmpi-bin, libopenmpi-dev",
    ),
]


@pytest.fixture(scope="module")
def template(base, rootfs):
    """An image with a program and the Open MPI that it was built with."""
    top = f"{base}/open-mpi"
    shutil.copytree(rootfs, top, symlinks=True, copy_function=os.link)
    program = mpi.build(COMPILER, f"{base}/hello")
    mpi.furnish(top, program, *PLUGINS)
    return top


ENV = {"env": ["PATH=/bin", "OMPI_COMM_WORLD_RANK=7"]}


class Job:
    """Bundles of one image, one for each rank, and the launcher that starts them."""

    def __init__(self, runtime, bundles):
        self.runtime, self.bundles = runtime, bundles

    def __call__(self, *mca, options=("--hpc-profile", "hpc-job")):
        size, first = len(self.bundles), self.bundles[0]
        here = os.path.dirname(first.path)
        for number, one in enumerate(self.bundles):
            os.symlink(one.path, f"{here}/rank{number}")
        script = f'exec "$@" -b {here}/rank$PMIX_RANK {first.id}-$PMIX_RANK'
        return subprocess.run(
            [LAUNCHER, "--allow-run-as-root", "--oversubscribe", "-n", str(size), *mca,
             "sh", "-c", script, "sh", *self.runtime.argv(*options, "run")],
            capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
        )  # fmt: skip


@pytest.fixture
def job(runtime, workdir, template):
    def make(size, *args, **patch):
        build = Builder(workdir, template)
        patch.setdefault("process", ENV)
        return Job(runtime, [build("/bin/hello", *args, **patch) for _ in range(size)])

    return make


@pytest.mark.parametrize("transport", ["vader,self", "tcp,self"])
def test_ranks_meet_by_memory_and_by_loopback(job, transport):
    done = job(4)("--mca", "btl", transport)
    assert sorted(done.stdout.splitlines()) == mpi.said(4), done
    assert done.returncode == 0


def test_ranks_in_namespaces_of_their_own_do_not_meet(job):
    """What the test above shows is the profile's doing."""
    done = job(1)(options=())
    assert done.returncode != 0
    assert not done.stdout.startswith("rank")


@pytest.fixture
def other(workdir):
    """Another build of the same Open MPI, elsewhere on the host, which says so."""
    folder = os.path.join(workdir, "opt")
    os.mkdir(folder)
    for name in ("libopen-rte.so.40", "libopen-pal.so.40"):
        os.symlink(os.path.realpath(f"{mpi.FOLDER}/{name}"), f"{folder}/{name}")
    with open(f"{mpi.FOLDER}/libmpi.so.40", "rb") as file:
        held = file.read()
    assert b"Debian OpenMPI" in held
    with open(f"{folder}/libmpi.so.40.40.1", "wb") as file:
        file.write(held.replace(b"Debian OpenMPI", b"OfHost OpenMPI"))
    os.symlink("libmpi.so.40.40.1", f"{folder}/libmpi.so.40")
    return folder


def settings(workdir, folder, how, more=""):
    file = os.path.join(workdir, "hpc.toml")
    with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as opened:
        opened.write(
            f"[module.mpi.libraries]\n"
            f'replace = ["{folder}/libmpi.so.40"]\ncompatibility = "{how}"\n{more}'
        )
    return ["--hpc-config", file]


ASKED = {"annotations": {"ocirt.hpc/modules": "mpi"}}


def test_ranks_meet_by_the_hosts_library_in_place_of_the_images(job, workdir, other):
    options = [*settings(workdir, other, "major"), "--hpc-profile", "hpc-job"]
    done = job(2, "version", **ASKED)(options=options)
    (said,) = set(done.stdout.splitlines())
    assert said.startswith("Open MPI v4."), done
    assert "package: OfHost OpenMPI" in said


def test_the_hosts_plugins_go_with_its_library(job, workdir, other):
    run = job(2, **ASKED)
    for one in run.bundles:
        shutil.rmtree(one.inside(os.path.dirname(PLUGINS[0])))
    more = (
        '[module.mpi.env.set]\nOMPI_MCA_mca_base_component_path = "/opt/plugins"\n'
        "[[module.mpi.mounts]]\n"
        f'source = "{os.path.dirname(PLUGINS[0])}"\ndestination = "/opt/plugins"\n'
    )
    done = run(options=[*settings(workdir, other, "major", more), "--hpc-profile", "hpc-job"])
    assert sorted(done.stdout.splitlines()) == mpi.said(2), done


@pytest.mark.parametrize(
    ("how", "image", "why"),
    [("strict", "40.30.4", "its ABI is 40.40, the image's 40.30"),
     ("major", "41.1.0", "its ABI is 40, the image's 41")],
)  # fmt: skip
def test_a_library_that_does_not_fit_is_refused(job, workdir, other, how, image, why):
    run = job(1, **ASKED)
    (one,) = run.bundles
    (mine,) = glob.glob(one.inside(f"{mpi.FOLDER}/libmpi.so.40.*"))
    os.rename(mine, one.inside(f"{mpi.FOLDER}/libmpi.so.{image}"))
    os.unlink(one.inside(f"{mpi.FOLDER}/libmpi.so.40"))
    os.symlink(f"libmpi.so.{image}", one.inside(f"{mpi.FOLDER}/libmpi.so.40"))
    done = run(options=[*settings(workdir, other, how), "--hpc-profile", "hpc-job"])
    assert done.returncode == 1
    assert f"{other}/libmpi.so.40.40.1 of the host cannot replace" in done.stderr
    assert why in done.stderr
