"""A program of MPI, and a root filesystem with all that it loads: for the tests of MPI.

Everything is of this machine: its compiler wrapper, its libraries, its loader.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess

from tests.integration.support import PATIENCE

# Where the machine's loader looks without being told.
FOLDER = f"/usr/lib/{os.uname().machine}-linux-gnu"

SOURCE = """
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    int rank, size, length, sum = 0, left = -1;
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    MPI_Sendrecv(&rank, 1, MPI_INT, (rank + 1) % size, 0, &left, 1, MPI_INT,
                 (rank + size - 1) % size, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    /* More than any eager limit: by one copy, where a rank can read another's memory. */
    enum { MANY = 1 << 19 };
    int *mine = malloc(MANY * sizeof(int)), *all = malloc(MANY * sizeof(int)), wrong = 0;
    for (int i = 0; i < MANY; i++)
        mine[i] = rank + i;
    MPI_Allreduce(mine, all, MANY, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    for (int i = 0; i < MANY; i++)
        wrong += all[i] != sum + size * i;
    MPI_Get_library_version(version, &length);
    if (argc > 1 && !strcmp(argv[1], "version"))
        printf("%.50s\\n", version);
    else
        printf("rank %d of %d: sum %d, left %d, wrong %d\\n", rank, size, sum, left, wrong);
    fflush(stdout);
    if (argc > 1 && !strcmp(argv[1], "abort") && rank == 1)
        MPI_Abort(MPI_COMM_WORLD, 9);
    MPI_Barrier(MPI_COMM_WORLD);
    return MPI_Finalize();
}
"""


def said(size):
    """Return what the program prints, sorted, when `size` ranks have met."""
    total = sum(range(size))
    return sorted(
        f"rank {n} of {size}: sum {total}, left {(n - 1) % size}, wrong 0" for n in range(size)
    )


def build(compiler, path, *options):
    """Compile the program, with a wrapper of MPI's or with what the linker has to be told."""
    line = [compiler, "-x", "c", "-", *options, "-o", path]
    subprocess.run(line, input=SOURCE, text=True, check=True, timeout=PATIENCE)
    return path


# What a node without fabric needs; the rest would bring in all of its libraries.
FABRIC = ("ofi", "ucx", "psm", "usnic", "verbs", "openib", "opencl", "gl", "monitoring", "cuda")


def open_mpi_plugins():
    """Return what Open MPI 4 and its PMIx, as Debian has them, load by themselves."""
    found = glob.glob(f"{FOLDER}/openmpi/lib/openmpi3/*.so")
    found = [one for one in found if not any(word in one for word in FABRIC)]
    return found + glob.glob(f"{FOLDER}/pmix2/lib/pmix/*.so")


def furnish(root, program, *plugins, environment=os.environ):
    """Put a program, and what it and its plugins load, into a root filesystem.

    Libraries go to FOLDER, the loader and plugins to their own places.  environment: of the loader
    here, when the libraries are elsewhere.
    """
    os.makedirs(f"{root}/bin", exist_ok=True)
    shutil.copy(program, f"{root}/bin/")
    for path in plugins:
        _copy(os.path.realpath(path), f"{root}{path}")
    # As ldd does, but once for all of them.
    trace = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_PRELOAD": ":".join(plugins)}
    done = subprocess.run([program], env={**environment, **trace}, capture_output=True,
                          text=True, check=True, timeout=PATIENCE)  # fmt: skip
    for path in dict.fromkeys(re.findall(r"(/\S+) \(0x", done.stdout)):
        place = path if "/ld-" in path or path in plugins else f"{FOLDER}/{os.path.basename(path)}"
        real = os.path.realpath(path)
        folder, name = os.path.split(f"{root}{place}")
        _copy(real, f"{folder}/{os.path.basename(real)}")
        if name != os.path.basename(real) and not os.path.lexists(f"{folder}/{name}"):
            os.symlink(os.path.basename(real), f"{folder}/{name}")


def _copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.lexists(target):
        shutil.copy(source, target)
