"""Compile the two native programs: the init and the launcher.

`python3 packaging/native.py init|launcher` does it from a source tree (`make init`); the build
hook does it for a wheel, packaging/deb/build.py for a .deb.  Any C11 compiler will do.  musl
comes first: a static program of musl starts in a third of the time that one of glibc needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INIT = ROOT / "ocirt" / "init" / "ocirt-init"
LAUNCHER = ROOT / "packaging" / "ocirt"
LAUNCHER_SOURCES = ["launcher.c", "quick.c", "attend.c"]

FLAGS = ["-std=c11", "-Os", "-Wall", "-Wextra"]
HARDENED = ["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
SMALL = ["-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s"]


def linkings() -> list[list[str]]:
    """Return the ways to compile that are worth a try, best first."""
    if compiler := os.environ.get("OCIRT_CC"):
        return [compiler.split()]
    found = [["musl-gcc", "-static"], ["cc", "-static"], ["gcc", "-static"], ["cc"]]
    return [command for command in found if shutil.which(command[0])]


def compile_c(output: Path, sources: list[Path], *more: str) -> None:
    """Compile `sources` into the program `output`, by the first way that works."""
    output.parent.mkdir(parents=True, exist_ok=True)
    new = output.with_name(f"{output.name}.new{os.getpid()}")
    failures = []
    for command in linkings():
        names = [str(source) for source in sources]
        line = [*command, *FLAGS, *HARDENED, *SMALL, *more, "-o", str(new), *names]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            sys.stderr.write(done.stderr)
            new.replace(output)  # one that runs at this moment is left to finish
            return
        failures.append(f"$ {' '.join(line)}\n{done.stderr}")
    if not failures:
        raise SystemExit("no C compiler found: install musl-tools, or gcc and libc6-dev")
    raise SystemExit("\n".join(failures))


def compile_init() -> Path:
    """Compile ocirt/init, as its own Makefile says, into the program that sets up a container."""
    # Without -Werror: what a newer compiler warns of must not stop who only installs.
    line = ["make", "--silent", "--directory", str(INIT.parent), INIT.name]
    line.append("CFLAGS=" + " ".join(FLAGS))
    if compiler := os.environ.get("OCIRT_CC"):
        line.append(f"CC={compiler}")
    if not shutil.which("make"):
        raise SystemExit("no make found: install make")
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
    return INIT


def compile_launcher(
    *, editable: bool = False, home: str = "", python: str = "", output: Path = LAUNCHER
) -> Path:
    """Compile the program `ocirt`; editable: it runs the package in this source tree.

    home, python: the directory that holds the package, and the interpreter, where a
    distribution's package fixes them; without them the program looks beside itself.
    """
    if editable:
        # The interpreter behind the virtual environment spares a look at pyvenv.cfg.
        home, python = str(ROOT), getattr(sys, "_base_executable", "") or sys.executable
    more = [f'-DOCIRT_DIR="{home}"', f'-DOCIRT_PYTHON="{python}"'] if home else []
    compile_c(output, [ROOT / "packaging" / name for name in LAUNCHER_SOURCES], *more)
    return output


def head() -> str:
    """Return the commit of the source tree, marked when files differ from it; empty: unknown."""
    return _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def commit_time() -> str:
    """Return when the source tree was committed, in seconds of 1970; empty: unknown."""
    return _git("log", "-1", "--format=%ct")


def _git(*words: str) -> str:
    # A release lies in no repository of its own, but may lie in somebody else's.
    if not (ROOT / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["init"]:
            print(compile_init())
        case ["launcher"]:
            print(compile_launcher(editable=True))
        case ["launcher", home, python]:
            print(compile_launcher(home=home, python=python))
        case _:
            raise SystemExit("init, launcher, or launcher HOME PYTHON")
