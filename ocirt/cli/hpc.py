"""ocirt hpc: what the stage sees on this machine, what it would do, what it did."""

from __future__ import annotations

import sys

from ocirt import bundle as bundles
from ocirt import hpc, jsonio, state
from ocirt import system as os
from ocirt.errors import ConfigError, Error, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_hpc.host import Host
    from ocirt_hpc.site import Site

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

    Action = Callable[[Arguments, Settings], int]

USAGE = "[options] ACTION [WHAT]"
WORDS = (1, 2)
OPTIONS = (
    # long          short  value    default  help
    ("format",      "f",   "FORMAT", "",     "json instead of text; of topo svg as well"),
    ("device",      "",    "NAME",   (),     "explain, inject: add a CDI device; repeatable"),
    ("capability",  "",    "WORD",   (),     "cdi generate: only files of this capability"),
    ("rootfs",      "",    "DIR",    "",     "inject: the container's root, if not root.path"),
    ("place",       "",    "DIR",    "",     "inject, clean: where files of containers are"),
)  # fmt: skip
MADE = "ocirt.hpc/files"  # annotation: where the files of the container are
ABOUT = """\
ACTION is explain BUNDLE, explain ID, info, topo, cdi list, cdi validate, cdi generate,
inject, clean or import-houdini FILE.

explain prints each edit, what asked for it, what allowed it, and what was left out: for a bundle
what would be done, for a container what was. info and topo print the devices of this machine.
cdi prints the CDI devices that there are, checks their files, or writes one for NVIDIA's GPUs to
stdout. inject reads a config.json on stdin and prints the edited one, for other runtimes: a hook of
the stage precreate. Files for the container lie in DIR, or, where DIR is there, in a new directory
of it; then clean, a hook of the stage poststop, reads the state and removes the container's.
import-houdini prints what a Houdini ini says as an hpc.toml."""


def run(arguments: Arguments, settings: Settings) -> int:
    """Carry out one action; an Error says what is wrong."""
    hpc.put_in_place()
    action, rest = arguments.words[0], arguments.words[1:]
    row = ACTIONS.get(action)
    if row is None:
        raise UsageError(f"unknown action {action!r} (have {', '.join(ACTIONS)})")
    if len(rest) not in row[1]:
        raise UsageError(f"{action} {row[2]}".rstrip())
    known = ("", "text", "json", *(("svg",) if action == "topo" else ()))
    if arguments.format not in known:
        raise UsageError(f"{action}: unknown format {arguments.format!r}")
    return row[0](arguments, settings)


def _explain(arguments: Arguments, settings: Settings) -> int:
    name = arguments.words[1]
    if os.path.isdir(name):
        from ocirt.cli.create import settle
        from ocirt.create import Draft, Wish

        wish = Wish("explain", settings.root, name)
        wish.devices = arguments.device
        settle(wish, settings)
        wish.cgroup_driver = "disabled"
        edits = Draft(wish).edits
        rows = edits.report if edits else []
    else:
        container = state.load(settings.root, name)
        try:
            rows = jsonio.load(os.path.join(container.directory, state.HPC_NAME))
        except FileNotFoundError:
            rows = []
    if arguments.format == "json":
        return _json(rows)
    if not rows:
        sys.stdout.write("nothing was asked for\n")
        return 0
    sys.stdout.write(table(rows))
    return 0


def table(rows: list[dict[str, str]]) -> str:
    """Return the rows of a report for people, below what asked for them."""
    kinds = max((len(row["edit"]) for row in rows), default=0)
    lines, asked = [], None
    for row in rows:
        if asked != (row["from"], row["allowed"]):
            asked = row["from"], row["allowed"]
            lines.append(f"{row['from']}  ({row['allowed']})")
        lines.append(f"  {row['edit']:{kinds}}  {row['what']}".rstrip())
    return "".join([f"{line}\n" for line in lines])


def _info(arguments: Arguments, settings: Settings) -> int:
    from ocirt_hpc import info
    from ocirt_hpc.nvidia import driver

    site = _site(settings)
    document = info.document(
        _host(settings),
        site["nvidia", "nvml-timeout"],
        site["nvidia", "driver-root"],
        driver.places(site),
    )
    if arguments.format == "json":
        return _json(document)
    sys.stdout.write(info.text(document))
    return 0


def _topo(arguments: Arguments, settings: Settings) -> int:
    from ocirt_hpc import draw

    host = _host(settings)
    if arguments.format == "json":
        return _json(draw.document(host))
    if arguments.format == "svg":
        sys.stdout.write(draw.svg(host))
    else:
        sys.stdout.write(f"{draw.tree(host)}\n{draw.matrix(host)}")
    return 0


def _cdi(arguments: Arguments, settings: Settings) -> int:
    verb = arguments.words[1]
    if verb == "generate":
        from ocirt_hpc import generate
        from ocirt_hpc.nvidia import driver

        site = _site(settings)
        made = generate.document(
            _host(settings),
            arguments.capability or ["all"],
            site["nvidia", "driver-root"],
            site["nvidia", "nvml-timeout"],
            driver.places(site),
        )
        if made is None:
            raise Error("no NVIDIA driver is loaded on this host")
        return _json(made)
    if verb not in ("list", "validate"):
        raise UsageError("cdi list, cdi validate or cdi generate")
    from ocirt_hpc import cdi
    from ocirt_hpc.nvidia import policy

    ours = policy.load(_host(settings)).directories
    files = cdi.read(settings.cdi_dirs or ours or cdi.DIRECTORIES)
    if verb == "validate":
        for file in files:
            sys.stdout.write(f"{file.path}: {file.fault or 'good'}\n")
        return 1 if any(file.fault for file in files) else 0
    rows = [
        {"name": f"{file.kind}={name}", "file": file.path}
        for file in files
        if not file.fault
        for name in file.devices
    ]
    if arguments.format == "json":
        return _json(rows)
    sys.stdout.write("".join([f"{row['name']}  {row['file']}\n" for row in rows]))
    return 0


def _inject(arguments: Arguments, settings: Settings) -> int:
    from ocirt import shape

    config = jsonio.parse(sys.stdin.buffer.read(jsonio.LARGEST + 1))
    shape.check(config)
    place = arguments.place and os.path.abspath(arguments.place)
    if place and os.path.isdir(place):
        place = f"{place}/{os.urandom(8).hex()}"
    edits = hpc.apply(
        config,
        os.path.abspath(arguments.rootfs)
        if arguments.rootfs
        else bundles.rootfs(config, os.getcwd()),
        place,
        devices=arguments.device,
        annotations=settings.cdi_annotations,
        directories=settings.cdi_dirs,
        site=settings.hpc_config,
        profile=settings.hpc_profile,
        rootless=settings.rootless,
        foreign=True,
    )
    if edits is not None:
        if edits.tree is not None:
            if not place:
                raise ConfigError(
                    "--place", "the container needs files of its own: name a directory"
                )
            edits.tree.write()
            annotations = edits.config.get("annotations") or {}
            edits.config["annotations"] = {**annotations, MADE: place}
        config = edits.config
    return _json(config)


def _clean(arguments: Arguments, settings: Settings) -> int:
    held = jsonio.parse(sys.stdin.buffer.read(jsonio.LARGEST + 1))
    held = held if isinstance(held, dict) else {}
    made = (held.get("annotations") or {}).get(MADE)
    if made is None and isinstance(held.get("bundle"), str):
        # Podman's state has the annotations from before the hook.
        try:
            made = (bundles.load(held["bundle"]).get("annotations") or {}).get(MADE)
        except (OSError, Error):
            pass
    if not arguments.place:
        raise UsageError("clean needs --place, as inject has it")
    base = os.path.abspath(arguments.place)
    # A caller's annotation may say anything: only what inject has made can go.
    if isinstance(made, str) and os.path.dirname(made) == base and _is_made(os.path.basename(made)):
        state.remove_directory(made)
    return 0


def _is_made(name: str) -> bool:
    return len(name) == 16 and not set(name) - set("0123456789abcdef")


def _import_houdini(arguments: Arguments, settings: Settings) -> int:
    from ocirt_hpc import houdini

    path = arguments.words[1]
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(jsonio.LARGEST)
    sys.stdout.write(houdini.convert(text))
    return 0


def _host(settings: Settings) -> Host:
    """Return the machine that the site's settings name."""
    from ocirt_hpc.host import Host

    return Host(_site(settings)["stage", "host-root"])


def _site(settings: Settings) -> Site:
    from ocirt_hpc import site

    return site.load(settings.hpc_config)


def _json(document: Any) -> int:
    sys.stdout.write(jsonio.dumps(document, indent=2) + "\n")
    return 0


ACTIONS: dict[str, tuple[Action, tuple[int, ...], str]] = {
    # action     function    words   which
    "explain":  (_explain,   (1,),   "needs BUNDLE or ID"),
    "info":     (_info,      (0,),   "takes nothing"),
    "topo":     (_topo,      (0,),   "takes nothing"),
    "cdi":      (_cdi,       (1,),   "needs list, validate or generate"),
    "inject":   (_inject,    (0,),   "reads a config on stdin"),
    "clean":    (_clean,     (0,),   "reads a state on stdin"),
    "import-houdini": (_import_houdini, (1,), "needs FILE"),
}  # fmt: skip
