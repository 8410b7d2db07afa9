"""What a launcher of MPI tells its ranks, for a container that is one of them: PMI, PMIx, PALS.

    variables   of the launcher, in place of whatever the image has of the same name
    sockets     PMI_FD, an inherited one, which the runtime keeps open
    folders     where a PMIx server and its clients meet, at the same path inside

All of it comes from our own environment, which is the launcher's (srun, mpiexec), and never from
the config's: an image that names a path of the host gets nothing.  Wanted by `pmi = true` in a part
of the site's settings, as in the profile hpc-job, or by the annotation ocirt.hpc/pmi=true.

Source: PMIx standard, "Environmental Variables"; MPICH, PMI-1 and PMI-2 wire protocols; Slurm,
src/plugins/mpi/pmix; enroot, conf/hooks/extra/50-slurm-pmi.sh for the variables of Open MPI.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt_hpc import exclusive, parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.notes import Notes

# SLINGSHOT_: what Slurm tells of the fabric that a step may use.
PREFIXES = (
    "PMI_", "PMIX_", "PALS_", "OMPI_", "PRTE_", "SLURM_", "SLINGSHOT_", "MPI_LOCAL",
)  # fmt: skip
# Of the node alone, or a secret.
KEPT_OUT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")

# A launcher is there; one of these says so.
RANKS = ("PMI_RANK", "PMI_FD", "PMIX_RANK", "PALS_RANKID", "SLURM_PROCID")

FOLDERS = ("PMIX_SERVER_TMPDIR", "PALS_SPOOL_DIR")
SHARED = "/tmp"  # Slurm's TmpFS, if its node has no other
MUNGE = "/run/munge"

# What a server of PMIx calls it -> what Open MPI asks for, built with another PMIx.
SAME = {
    "PMIX_PTL_MODULE": "PMIX_MCA_ptl",
    "PMIX_SECURITY_MODE": "PMIX_MCA_psec",
    "PMIX_GDS_MODULE": "PMIX_MCA_gds",
}

# A rank in a user namespace of its own may neither read the memory of another nor look at its open
# files: ptrace(2), "Ptrace access mode checking".  Both libraries try before they ask.
APART = ["UCX_POSIX_USE_PROC_LINK=n", "OMPI_MCA_btl_vader_single_copy_mechanism=none"]


def sections(
    origin: str,
    config: dict[str, Any],
    more: Iterable[Section],
    host: Host,
    notes: Notes,
    environ: Mapping[str, str] = os.environ,
) -> list[Section]:
    """Return the edits for a rank; none where no launcher has started us."""
    if not any(name in environ for name in RANKS):
        notes.skip(origin, "no launcher of MPI has started this")
        return []
    env = [
        f"{name}={value}"
        for name, value in environ.items()
        if name.startswith(PREFIXES) and name not in KEPT_OUT
    ]
    defaults = [f"{theirs}={environ[name]}" for name, theirs in SAME.items() if name in environ]
    if any(
        space["type"] == "user" and not space.get("path")
        for space in (config.get("linux") or {}).get("namespaces") or ()
    ):
        defaults += APART
    paths = [environ[name] for name in FOLDERS if name in environ]
    paths += _of_slurm(environ)
    if "munge" in environ.get("PMIX_SECURITY_MODE", ""):
        paths.append(MUNGE)
    mounts = [
        parts.bind(host, {"source": path, "options": ["bind", "rw"]})
        for path in dict.fromkeys(map(os.path.normpath, paths))
        if path.startswith("/") and path.strip("/") and host.there(path)
    ]
    server = any(name.startswith("PMIX_SERVER_URI") for name in environ)
    if server and exclusive.own_network(config, more):
        notes.leave_out(origin, "the PMIx server, which is out of reach for a network of its own")
    made: dict[str, Any] = {"env": env, "envDefault": defaults, "mounts": mounts}
    if "PMI_FD" in environ:
        made["keepPmi"] = [environ["PMI_FD"]]
    return [(origin, made)]


def _of_slurm(environ: Mapping[str, str]) -> list[str]:
    """Return the folders that the clients of a step share; older Slurms leave the user out."""
    job, step = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_STEP_ID", "")
    if not (job.isdecimal() and step.isdecimal()):
        return []
    top = environ.get("SLURM_TMPDIR", SHARED)
    return [f"{top}/spmix_appdir_{os.getuid()}_{job}.{step}", f"{top}/spmix_appdir_{job}.{step}"]
