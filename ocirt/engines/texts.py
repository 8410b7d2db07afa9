"""The files that are written out of nothing but a wish: CRI-O, Slurm, Kubernetes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.engines.site import Site, Wish

# crio.conf(5), "CRIO.RUNTIME.RUNTIMES TABLE".  Annotations of a pod reach the spec of all its
# containers without being listed.
CRIO = """\
[crio.runtime.runtimes.{name}]
runtime_path = "{path}"
runtime_type = "oci"
runtime_root = "/run/ocirt"
"""

# Kubernetes, node.k8s.io/v1.
RUNTIME_CLASS = """\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata:
  name: {name}
handler: {name}
"""

# oci.conf(5).  Slurm runs the patterns with `sh -c`.  With RunTimeRun the runtime's exit status is
# the task's, and with exec its signals reach it.  State is kept where it can be on every node: a
# /run/user/UID exists only while its user is logged in.  A directory that somebody else has made
# first is refused.
SLURM = """\
EnvExclude="^(SLURM_CONF|SLURM_CONF_SERVER)="
RunTimeEnvExclude="^(SLURM_CONF|SLURM_CONF_SERVER)="
RunTimeQuery="{path} --root=/tmp/ocirt-%U state %n.%u.%j.%s.%t"
RunTimeKill="{path} --root=/tmp/ocirt-%U kill -a %n.%u.%j.%s.%t"
RunTimeDelete="{path} --root=/tmp/ocirt-%U delete --force %n.%u.%j.%s.%t"
RunTimeRun="exec {path} --root=/tmp/ocirt-%U run --pmi-fd -b %b %n.%u.%j.%s.%t"
"""

# Slurm before 23.02 knows neither %U nor the patterns that keep variables out.  It queries and
# deletes as root, so that nothing here may depend on who calls.
SLURM_22 = "".join(
    line.replace("%U", "%u") for line in SLURM.splitlines(keepends=True) if "Exclude" not in line
)


def crio(wish: Wish, site: Site) -> str:
    """Return the drop-in of CRI-O."""
    return CRIO.format(name=wish.name, path=wish.path)


def slurm(wish: Wish, site: Site) -> str:
    """Return Slurm's oci.conf."""
    return (SLURM_22 if wish.slurm22 else SLURM).format(path=wish.path)


def runtime_class(old: str, wish: Wish, site: Site) -> str:
    """Return the manifest by which pods may name the runtime."""
    return RUNTIME_CLASS.format(name=wish.name)


def nothing(old: str, wish: Wish, site: Site) -> str:
    """There is no file to take back."""
    return ""
