"""The engines that can call ocirt: where their configuration lies and how ocirt gets into it.

`ocirt setup` makes and carries out `changes`; `ocirt doctor` asks `registered`.  One more engine
is one more row in ENGINES; what is particular about its file is a module beside this one.

A file is changed by two pure functions, old text in, new text out; "" stands for no file.
Whatever is not ours stays as it is, byte by byte, or the change is refused.  Directories that
had to be made are left.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.engines import containerd, daemon_json, podman, texts
from ocirt.engines.site import ours, plain, toml
from ocirt.engines.stamp import whole
from ocirt.errors import At, ConfigError, Error, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.engines.site import Site, Wish

    Edit = Callable[[str, Wish, Site], str]

STDOUT = "-"

ENGINES: dict[str, dict[str, Any]] = {
    # programs  tell that the engine is installed
    # version   the option by which they tell theirs
    # files     (path, the same below ~/.config for a user's own engine, add, remove); one that
    #           refers to another comes before it
    # sources   files that may hold a registration, how they are read, the tables in them that
    #           are named after runtimes, and where in such a table the program stands
    # next      what is left to do for people
    "docker": {
        "programs": ("dockerd",),
        "version": "--version",
        "files": (
            ("/etc/docker/daemon.json", "docker/daemon.json", daemon_json.add, daemon_json.remove),
        ),
        "sources": (
            ("/etc/docker/daemon.json",), daemon_json.parse, (("runtimes",),), ("path",),
        ),
        "next": "systemctl reload docker; then docker run --rm --runtime={name} IMAGE true",
        "undone": "systemctl reload docker",
    },
    "containerd": {
        "programs": ("containerd",),
        "version": "--version",
        "files": (
            (containerd.CONFIG, "", containerd.add, containerd.remove),
            (containerd.DROP_IN, "", *whole("containerd", containerd.drop_in)),
        ),
        "sources": (
            (containerd.CONFIG, "/etc/containerd/conf.d/*.toml"), toml, containerd.TABLES,
            ("options", "BinaryName"),
        ),
        "next": "systemctl restart containerd (containers go on); "
        "`containerd config dump` then shows the runtime {name}",
        "undone": "systemctl restart containerd (containers go on)",
    },
    "podman": {
        "programs": ("podman",),
        "version": "--version",
        "files": (
            (podman.DROP_IN, podman.OWN_DROP_IN, *whole("podman", podman.drop_in)),
        ),
        "sources": (podman.SOURCES, toml, (("engine", "runtimes"),), ()),
        "next": "nothing to reload: podman --runtime {name} run --rm IMAGE true",
        "undone": "nothing to reload",
    },
    "crio": {
        "programs": ("crio",),
        "version": "--version",
        "files": (
            ("/etc/crio/crio.conf.d/10-ocirt.conf", "", *whole("crio", texts.crio)),
        ),
        "sources": (
            ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*"), toml,
            (("crio", "runtime", "runtimes"),), ("runtime_path",),
        ),
        "next": "systemctl restart crio (containers go on); "
        "then `ocirt setup kubernetes` for a RuntimeClass",
        "undone": "systemctl restart crio (containers go on)",
    },
    "slurm": {
        "programs": ("slurmd",),
        "version": "-V",
        "files": (("/etc/slurm/oci.conf", "", *whole("slurm", texts.slurm)),),
        "sources": (("/etc/slurm/oci.conf",), plain, ((),), ()),
        "next": "the same file on every node; scontrol reconfigure; "
        "then srun --container=BUNDLE COMMAND",
        "undone": "scontrol reconfigure",
    },
    "kubernetes": {
        "programs": ("kubelet",),
        "version": "--version",
        "files": ((STDOUT, STDOUT, texts.runtime_class, texts.nothing),),
        "sources": ((), toml, (), ()),
        "next": "pipe this to `kubectl apply -f -`; pods ask for it with runtimeClassName: {name}; "
        "each node needs `ocirt setup containerd` or `ocirt setup crio`",
        "undone": "kubectl delete runtimeclass {name}",
    },
}  # fmt: skip


def changes(engine: str, wish: Wish, site: Site, *, undo: bool) -> list[tuple[str, str, str]]:
    """Return (path, old text, new text) for each file of an engine; nothing is written yet.

    They are to be carried out in this order: at no time does a file refer to a missing one.
    """
    found = []
    for path, own, add, remove in ENGINES[engine]["files"]:
        path = f"{site.home}/{own}" if site.home and own and own != STDOUT else path
        with At(path) if path != STDOUT else At("RuntimeClass"):
            old = site.read(path) if path != STDOUT else ""
            found.append((path, old, (remove if undo else add)(old, wish, site)))
    return found if undo else found[::-1]


def installed(engine: str, site: Site) -> str:
    """Return the program of an engine, or nothing when the machine has none."""
    return next(filter(None, [site.program(name) for name in ENGINES[engine]["programs"]]), "")


def version(engine: str, site: Site) -> str:
    """Return the version of an installed engine; "" where it cannot be asked."""
    from subprocess import DEVNULL, SubprocessError, run

    program = installed(engine, site)
    if not program or site.root != "/":
        return ""
    line = [program, ENGINES[engine]["version"]]
    try:
        done = run(line, stdin=DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, SubprocessError):
        return ""
    for word in done.stdout.decode("utf-8", "replace").split():
        word = word.removeprefix("v").rstrip(",")
        if word[:1].isdigit() and "." in word:
            return word
    return ""


def registered(engine: str, site: Site) -> list[tuple[str, str]]:
    """Return (name, program) of the runtimes of an engine that are ocirt."""
    patterns, parse, tables, leaf = ENGINES[engine]["sources"]
    if site.home:
        own = [row[1] for row in ENGINES[engine]["files"] if row[1] not in ("", STDOUT)]
        patterns = (*patterns, *[f"{site.home}/{path}" for path in own])
    found = {}
    for path in [path for pattern in patterns for path in site.glob(pattern)]:
        with At(path):
            document = parse(site.read(path))
            for table in tables:
                for name, value in dig(document, table).items():
                    program = dig(value, leaf) if leaf else value
                    words = program if isinstance(program, list) else str(program or "").split()
                    for word in words:
                        if ours(word):
                            found[name] = word
    return list(found.items())


def dig(document: Any, keys: tuple[str, ...]) -> Any:
    """Return what lies at a place of a document; an empty table where there is none."""
    for key in keys:
        document = document.get(key, {}) if isinstance(document, dict) else {}
    return document


def carry_out(path: str, old: str, new: str, site: Site) -> None:
    """Put a new text in the place of a file, as a whole; owner and mode stay.

    Refused when the file is no longer the old one: somebody else has written meanwhile.
    """
    import fcntl

    real = os.path.realpath(site.at(path))
    if not real.startswith(site.root.rstrip("/") + "/"):
        raise ConfigError(path, f"leads out of {site.root}")
    with At(path):
        folder = os.path.dirname(real)
        os.makedirs(folder, 0o755, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # others who set up wait
            if site.read(path) != old:
                raise Error("was changed meanwhile: try again")
            if new:
                _replace(real, new)
            else:
                os.unlink(real)
        finally:
            os.close(lock)


def _replace(real: str, text: str) -> None:
    try:
        before = os.stat(real)
        mode, owner = before.st_mode & 0o7777, (before.st_uid, before.st_gid)
    except FileNotFoundError:
        mode, owner = 0o644, (-1, -1)
    beside = f"{real}.ocirt{os.getpid()}"
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KernelError(error.errno or 0) from None  # nobody knows the name of the other
    try:
        with open(fd, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(beside, real)
    except BaseException:
        os.unlink(beside)
        raise


def known(engine: str) -> None:
    """Refuse a name that is none of our engines."""
    if engine not in ENGINES:
        raise Error(f"unknown engine {engine}: not one of {', '.join(ENGINES)}")
