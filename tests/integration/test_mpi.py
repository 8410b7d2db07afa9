"""Ranks of MPI in containers, started by the host's launcher; the host's MPI for the image's.

A real MPICH is needed: that of the machine (packages mpich, libmpich-dev), or one below the
directory that OCIRT_TEST_MPI names, where such packages have been unpacked.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess

import pytest

from tests.integration import mpi
from tests.integration.support import PATIENCE, only_ocirt

TOP = os.environ.get("OCIRT_TEST_MPI", "/")
LIBRARIES = next(iter(glob.glob(f"{TOP}/usr/lib/*/libmpich.so.12")), "")
HEADERS = next(iter(glob.glob(f"{TOP}/usr/include/*/mpich")), "")
LAUNCHER = f"{TOP}/usr/bin/mpiexec.hydra"
OPEN_MPI = next(iter(glob.glob(f"{TOP}/usr/lib/*/libmpi.so.40.*")), "")

pytestmark = [
    only_ocirt("other runtimes hand on no launcher's variables"),
    pytest.mark.skipif(
        not (LIBRARIES and HEADERS and os.path.exists(LAUNCHER) and shutil.which("gcc")),
        reason="needs gcc and MPICH: mpich and libmpich-dev, or OCIRT_TEST_MPI=DIRECTORY",
    ),
]


def environment():
    return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": os.path.dirname(LIBRARIES)}


@pytest.fixture(scope="module")
def hello(base):
    path = os.path.join(base, "hello")
    folder = os.path.dirname(LIBRARIES)
    loose = "-Wl,--unresolved-symbols=ignore-in-shared-libs"
    return mpi.build("gcc", path, loose, f"-I{HEADERS}", f"-L{folder}", "-lmpich")


@pytest.fixture
def image(bundle, hello):
    """Make a container with the program, its loader, and the MPI that it was built with."""

    def build(*args, **patch):
        made = bundle(*args, **patch)
        mpi.furnish(made.rootfs, hello, environment=environment())
        return made

    return build


def settings(workdir, text):
    file = os.path.join(workdir, "hpc.toml")
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(text)
    return ["--hpc-config", file]


ENV = {"env": ["PATH=/bin", "PMI_RANK=7"]}


def test_ranks_of_one_job_meet(runtime, image, workdir):
    made = [image("/bin/hello", process=ENV) for _ in range(2)]
    for number, one in enumerate(made):
        os.symlink(one.path, f"{workdir}/rank{number}")
    line = runtime.argv("--hpc-profile", "hpc-job", "run")
    script = f'exec "$@" -b {workdir}/rank$PMI_RANK {made[0].id}-$PMI_RANK'
    done = subprocess.run(
        [LAUNCHER, "-n", "2", "sh", "-c", script, "sh", *line],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert sorted(done.stdout.splitlines()) == mpi.said(2), done


def test_a_rank_without_its_launchers_socket_is_alone(runtime, image):
    """What the test above shows is the launcher's doing, and not the image's."""
    made = image("/bin/hello", process={"env": ENV["env"][:1]})
    assert [runtime.prints(made)] == mpi.said(1)


@pytest.fixture
def other(workdir):
    """Another build of the same MPI, somewhere on the host."""
    folder = os.path.join(workdir, "opt")
    os.mkdir(folder)
    shutil.copy(os.path.realpath(LIBRARIES), f"{folder}/libmpich.so.12.9.9")
    os.symlink("libmpich.so.12.9.9", f"{folder}/libmpich.so.12")
    for path in glob.glob(f"{os.path.dirname(LIBRARIES)}/*.so*"):
        name = os.path.basename(path)
        if not name.startswith(("libmpi", "libc.", "libm.", "ld-")):
            os.symlink(os.path.realpath(path), f"{folder}/{name}")
    return folder


TRACE = {"env": ["PATH=/bin", "LD_TRACE_LOADED_OBJECTS=1"]}


def module(folder, how="major", library="libmpich.so.12"):
    return f'[module.mpich.libraries]\nreplace = ["{folder}/{library}"]\ncompatibility = "{how}"\n'


def test_the_hosts_mpi_takes_the_place_of_the_images(runtime, image, workdir, other):
    made = image("/bin/hello", annotations={"ocirt.hpc/modules": "mpich"}, process=TRACE)
    options = settings(workdir, module(other))
    result = runtime(*options, "run", "-b", made.path, made.id)
    lines = dict(line.strip().split(" => ") for line in result.out.splitlines() if "=>" in line)
    assert lines["libmpich.so.12"].startswith("/run/ocirt/hpc/lib64/libmpich.so.12 "), str(result)
    assert lines["libc.so.6"].startswith(("/lib/", "/usr/lib/"))
    ours = os.stat(f"{other}/libmpich.so.12")
    # It runs, and what was at the image's own path is the host's as well.
    script = f"hello && stat -Lc '%d:%i' {mpi.FOLDER}/libmpich.so.12"
    made = image("sh", "-c", script, annotations={"ocirt.hpc/modules": "mpich"},
                 process={"env": ["PATH=/bin"]})  # fmt: skip
    out = runtime(*options, "run", "-b", made.path, made.id).out.splitlines()
    assert out == [*mpi.said(1), f"{ours.st_dev}:{ours.st_ino}"]


def test_numbers_that_differ_are_refused(runtime, image, workdir, other):
    made = image("/bin/hello", annotations={"ocirt.hpc/modules": "mpich"})
    options = settings(workdir, module(other, "strict"))
    result = runtime.refuses(*options, "run", "-b", made.path, made.id)
    assert re.search(
        r"hpc.toml: module.mpich.libraries: \S+/libmpich.so.12.9.9 of the host cannot replace"
        rf" {mpi.FOLDER}/libmpich.so.12.2.\d of the image: its ABI is 12.9, the image's 12.2$",
        result.error.strip(),
    ), str(result)


@pytest.mark.skipif(not OPEN_MPI, reason="needs Open MPI: libopenmpi3")
def test_open_mpi_does_not_pass_for_mpich(runtime, image, workdir):
    made = image("/bin/hello", annotations={"ocirt.hpc/modules": "mpich"})
    # The MPICH of most other systems has this name.
    mine = glob.glob(made.inside(f"{mpi.FOLDER}/libmpich.so.12.*"))[0]
    os.rename(mine, made.inside(f"{mpi.FOLDER}/libmpi.so.40.1.1"))
    folder, name = os.path.split(OPEN_MPI)
    os.symlink("libmpi.so.40.1.1", made.inside(f"{mpi.FOLDER}/libmpi.so.40"))
    options = settings(workdir, module(folder, library=name))
    result = runtime.refuses(*options, "run", "-b", made.path, made.id)
    assert "one of the two is Open MPI, the other is not" in result.error
