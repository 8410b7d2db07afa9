"""Compile the native programs: the init, the launcher, and the interpreter that it prefers.

`python3 packaging/native.py init|launcher` does it from a source tree (`make init`); the build
hook does it for a wheel, packaging/deb/build.py for a .deb.  Any C11 compiler will do.  musl
comes first: a static program of musl starts in a third of the time that one of glibc needs.

The embedded interpreter is optional.  It needs the static libpython of the very interpreter that
will run ocirt (Debian: libpython3-dev); without that, the launcher calls the interpreter itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INIT = ROOT / "ocirt" / "init" / "ocirt-init"
LAUNCHER = ROOT / "packaging" / "ocirt"
LAUNCHER_SOURCES = ["launcher.c", "quick.c", "attend.c"]
EMBEDDABLE = ((3, 11), (3, 12), (3, 13))  # the versions of CPython that embed.c was tested with

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


class Interpreter:
    """A Python, as its own sysconfig describes it; None where it is not there."""

    def __init__(self, executable: str) -> None:
        self.executable = os.path.realpath(executable)
        line = [self.executable, "-I", "-S", "-c", ASK]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        self.facts: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}

    @property
    def name(self) -> str:
        """The name of the program that stands for this interpreter."""
        return f"ocirt-python{self.facts['version']}"

    def obstacle(self) -> str:
        """Why it cannot be embedded; empty: it can."""
        if not self.facts:
            return f"{self.executable} does not run"
        if self.facts["name"] != "cpython" or self.facts["debug"]:
            return f"{self.executable} is no plain CPython"
        if tuple(self.facts["minor"]) not in EMBEDDABLE:
            return f"Python {self.facts['version']} has not been tested embedded"
        for path in (self.facts["library"], self.facts["include"] + "/Python.h"):
            if not os.path.exists(path):
                return f"no {path} (Debian: libpython3-dev)"
        return ""

    def identity(self) -> list[str]:
        """Return the defines by which the launcher tells it from any other, newer ones too."""
        status = os.stat(self.executable)
        seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        numbers = f"{status.st_size}, {seconds}, {nanoseconds}"
        return [f'-DOCIRT_EMBEDDED="{self.name}"', f"-DOCIRT_EMBEDDED_FOR={numbers}"]


ASK = """
import json, sys, sysconfig
get = sysconfig.get_config_var
print(json.dumps({
    "name": sys.implementation.name,
    "debug": bool(get("Py_DEBUG") or get("Py_GIL_DISABLED")),
    "version": sys.version.split()[0],
    "minor": sys.version_info[:2],
    "library": f"{get('LIBPL')}/libpython{get('LDVERSION')}.a",
    "include": sysconfig.get_path("include"),
    "libraries": [*get("LIBS").split(), *get("MODLIBS").split(), *get("SYSLIBS").split()],
    "flags": get("LINKFORSHARED").split(),
}))
"""


def compile_embedded(home: str, python: str, folder: Path, *, sealed: bool) -> Interpreter | None:
    """Compile `python` with our modules frozen in, into `folder`; None: it cannot be done.

    home: the directory that will hold the package.  sealed: a package manager guards what lies
    there, else its sources are somebody's to edit.
    """
    interpreter = Interpreter(python)
    problem = interpreter.obstacle() or _embed(interpreter, home, folder, sealed)
    if problem:
        sys.stderr.write(f"no embedded interpreter, ocirt starts slower: {problem}\n")
        return None
    return interpreter


def _embed(interpreter: Interpreter, home: str, folder: Path, sealed: bool) -> str:
    """Do what compile_embedded says; return what went wrong."""
    facts, output = interpreter.facts, folder / interpreter.name
    new = output.with_name(f"{output.name}.new{os.getpid()}")
    freezer = str(ROOT / "packaging" / "freeze.py")
    with tempfile.TemporaryDirectory() as place:
        freeze = [interpreter.executable, "-I", "-S", "-X", "no_debug_ranges", freezer, home]
        build = [*os.environ.get("OCIRT_CC", "cc").split(), "-std=c11", "-O2", "-Wall", "-Wextra"]
        build += [*HARDENED, "-s", "-fno-pie"]
        build += [f"-I{folder}" for folder in (place, ROOT / "packaging", facts["include"])]
        build += [
            *facts["flags"],
            "-Wl,--wrap=_PyGC_Init",
            "-no-pie",
            "-o",
            str(new),
            str(ROOT / "packaging" / "embed.c"),
        ]
        build += [facts["library"], "-ldl", *_static(build[0], facts["libraries"])]
        try:
            # As the launcher calls it; json needs a start that is completed late.
            probe = [str(new), *"-I -S -B -X utf8 -c".split(), "import json, sys; sys.stdin"]
            for line in ([*freeze, str(int(sealed)), f"{place}/frozen.h"], build, probe):
                done = subprocess.run(line, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    return f"$ {' '.join(line)}\n{done.stdout}{done.stderr}"
                sys.stderr.write(done.stderr)
            new.replace(output)
        except OSError as error:
            return str(error)
        finally:
            new.unlink(missing_ok=True)
    return ""


def _static(compiler: str, libraries: list[str]) -> list[str]:
    """Return what to link with: archives where there are any, for each shared library costs time.

    Not of the C library: that would be two of them, or none that can load an extension module.
    """
    found = []
    for word in libraries:
        line = [compiler, f"-print-file-name=lib{word.removeprefix('-l')}.a"]
        usable = word.startswith("-l") and word not in ("-lc", "-lm", "-ldl", "-lpthread", "-lutil")
        done = subprocess.run(line, capture_output=True, text=True, check=False) if usable else None
        path = done.stdout.strip() if done else ""
        found.append(path if os.path.isabs(path) else word)
    return found


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


def own_python() -> str:
    """Return our interpreter; the one behind a virtual environment spares a look at pyvenv.cfg."""
    return getattr(sys, "_base_executable", "") or sys.executable


def compile_launcher(
    *,
    home: str = "",
    python: str = "",
    output: Path = LAUNCHER,
    embedded: Interpreter | None = None,
) -> Path:
    """Compile the program `ocirt`.

    home, python: the directory that holds the package, and the interpreter, where they are
    known; without them the program looks beside itself.
    embedded: which interpreter a program in HOME/ocirt stands for.
    """
    more = [f'-DOCIRT_DIR="{home}"', f'-DOCIRT_PYTHON="{python}"'] if home else []
    more += embedded.identity() if embedded else []
    compile_c(output, [ROOT / "packaging" / name for name in LAUNCHER_SOURCES], *more)
    return output


def compile_editable() -> Path:
    """Compile the program `ocirt` that runs the package in this source tree."""
    home, python = str(ROOT), own_python()
    embedded = compile_embedded(home, python, ROOT / "ocirt", sealed=False)
    return compile_launcher(home=home, python=python, embedded=embedded)


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
            print(compile_editable())
        case ["launcher", home, python]:
            print(compile_launcher(home=home, python=python))
        case _:
            raise SystemExit("init, launcher, or launcher HOME PYTHON")
