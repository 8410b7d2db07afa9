"""ocirt setup: write, print or take back the lines by which an engine finds ocirt.

The engines, their files and what is left to do are rows of ocirt/engines/__init__.py.
"""

from __future__ import annotations

import sys

from ocirt import engines
from ocirt import system as os
from ocirt.engines.site import Site, Wish, user_home
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ENGINE"
WORDS = (1, 1)
OPTIONS = (
    # long       short  value   default  help
    ("dry-run",  "n",   "",     False,   "print what would change, and change nothing"),
    ("undo",     "",    "",     False,   "take back what setup wrote, and nothing else"),
    ("root",     "",    "DIR",  "/",     "write below DIR, such as the tree of an image"),
    ("name",     "",    "NAME", "hpc",   "what users of the engine will call the runtime"),
    ("path",     "",    "FILE", "",      "the program (default: the ocirt that PATH finds)"),
    ("slurm-22", "",    "",     False,   "for a Slurm before 23.02 (default: as the slurmd here)"),
)  # fmt: skip
ABOUT = f"""\
ENGINE is one of {", ".join(engines.ENGINES)}.
May be called again; a file that is not as setup left it is refused, never overwritten.
Users who are not root configure their own Docker and Podman. The manifest for Kubernetes is
printed. `ocirt --systemd-cgroup setup containerd` asks for cgroups made by systemd."""


def run(arguments: Arguments, settings: Settings) -> int:
    """Change the files of one engine; say what was done and what is left to do."""
    (engine,) = arguments.words
    engines.known(engine)
    site = Site(arguments.root, user_home() if arguments.root == "/" else "")
    wish = Wish(
        arguments.name,
        arguments.path or _program(),
        systemd=settings.cgroup_driver == "systemd",
        slurm22=arguments.slurm_22 or _is_old_slurm(engine, site),
    )
    changes = engines.changes(engine, wish, site, undo=arguments.undo)
    if arguments.dry_run:
        sys.stdout.write("".join([_difference(*change) for change in changes]))
        return 0
    said = sys.stdout
    for path, old, new in changes:
        if path == engines.STDOUT:
            said.write(new)
            said = sys.stderr  # what stands there is for kubectl
        elif old != new:
            engines.carry_out(path, old, new, site)
            said.write(f"{'wrote' if new else 'removed'} {site.at(path)}\n")
        elif old:
            said.write(f"unchanged {site.at(path)}\n")
    key = "undone" if arguments.undo else "next"
    todo = engines.ENGINES[engine][key].format(name=wish.name)
    if site.home:
        todo = todo.replace("systemctl", "systemctl --user")
    said.write(f"next: {todo}\n")
    if not arguments.undo and not os.access(site.at(wish.path), os.X_OK):
        sys.stderr.write(f"hint: there is no program {site.at(wish.path)} yet\n")
    return 0


def _difference(path: str, old: str, new: str) -> str:
    """Return the lines that change, as `patch` reads them; a manifest as it is."""
    from difflib import unified_diff

    if path == engines.STDOUT:
        return new
    names = (path if old else "/dev/null", path if new else "/dev/null")
    lines = unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
    return "".join([f"{line}\n" for line in lines])


def _is_old_slurm(engine: str, site: Site) -> bool:
    major = engines.version(engine, site).partition(".")[0] if engine == "slurm" else ""
    return major.isdigit() and int(major) < 23


def _program() -> str:
    from shutil import which

    found = which("ocirt")
    if not found:
        raise Error("PATH has no ocirt: say where it is with --path")
    return os.path.abspath(found)
