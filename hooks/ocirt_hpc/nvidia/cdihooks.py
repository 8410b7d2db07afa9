"""The work of `nvidia-cdi-hook`, done by edits: no program of the host runs in an image's files.

CDI files of NVIDIA's GPUs have createContainer hooks, which an engine has put into the config or
which we take from the file.  A hook that COMMANDS knows is left out, and what it would do is done
as everything else is: links by the init, inside of the root; the loader's cache over the image's.
Done twice, it comes to the same.  Any other hook runs as the config says.

    create-symlinks --link TARGET::LINK           a link, in place of a file or another link
    update-ldcache, create-soname-symlinks        what is mounted in the folders is known to the
      --folder FOLDER                             loader, and has a link of its soname
    enable-cuda-compat --host-driver-version V    a newer libcuda of the image comes first
    disable-device-node-modification              the driver's libraries make no nodes
    update-application-profile                    EGL and Vulkan see the given GPUs alone
    chmod --mode 755 --path FOLDER                of folders above nodes, which have it anyway

Source: nvidia-container-toolkit, nvidia-cdi-hook(1); `nvidia-ctk hook` is its older name.
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.errors import ConfigError, Error
from ocirt_hpc import elf, ldcache
from ocirt_hpc.edits import Place
from ocirt_hpc.nvidia import compat, container, require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.image import Image
    from ocirt_hpc.loader import Libraries
    from ocirt_hpc.notes import Notes
    from ocirt_hpc.tree import Tree

    Flags: TypeAlias = dict[str, list[str]]

PROGRAM, TOOLKIT = "nvidia-cdi-hook", "nvidia-ctk"
STAGE = "createContainer"
RULE = "nvidia.emulate-hooks"


class Job:
    """A container whose hooks are taken over: what is in it, and what their work has come to.

    may_link: whether a link can be made at a path; an image can be one that nothing is added to.
    mounts: destination -> source on the host.  nodes: device nodes by their paths, to their minors.
    """

    def __init__(self, host: Host, image: Image, tree: Tree, libraries: Libraries) -> None:
        self.host = host
        self.image = image
        self.tree = tree
        self.libraries = libraries
        self.compat = True
        self.may_link: Callable[[str], bool] = lambda path: True
        self.mounts: dict[str, str] = {}
        self.nodes: dict[str, int] = {}
        self.sections: list[Section] = []


def take_over(
    config: dict[str, Any], sections: list[Section], job: Job, notes: Notes
) -> list[Section]:
    """Return the sections without the hooks that are taken over, and with their work."""
    _look(config, sections, job)
    known: list[tuple[str, str, Flags]] = []
    kept: list[Section] = []
    for origin, section in sections:
        hooks = section.get("hooks") or []
        ours = {index: _known(hook, job) for index, hook in enumerate(hooks)}
        if not any(ours.values()):
            kept.append((origin, section))
            continue
        kept.append((origin, {**section, "hooks": []}))
        for index, hook in enumerate(hooks):
            here, found = Place(f"{origin}: hooks[{index}]"), ours[index]
            if found:
                known.append((here, *found))
            else:
                kept.append((here, {"hooks": [hook]}))
    for index, hook in enumerate((config.get("hooks") or {}).get(STAGE) or ()):
        found = _known({**hook, "hookName": STAGE}, job)
        if found:
            here = Place(f"hooks.{STAGE}[{index}] {found[0]}")
            known.append((here, *found))
            kept.append((here, {"dropHooks": [{"hookName": STAGE, **hook}]}))
    # A newer libcuda has to be there before the loader is told of the driver's.
    for place, command, flags in sorted(known, key=lambda one: one[1] not in COMPAT):
        notes.rules[place] = RULE
        COMMANDS[command][1](job, place, flags)
    return kept + job.sections


def _look(config: dict[str, Any], sections: list[Section], job: Job) -> None:
    """Note what the container will have: an edit replaces what the config has at its place."""
    for mount in config.get("mounts") or ():
        job.mounts[os.path.normpath(mount["destination"])] = mount.get("source") or ""
    for node in (config.get("linux") or {}).get("devices") or ():
        job.nodes[node["path"]] = node.get("minor") or 0
    for _, section in sections:
        for mount in section.get("mounts") or ():
            job.mounts[os.path.normpath(mount["containerPath"])] = mount["hostPath"]
        for node in section.get("deviceNodes") or ():
            there = job.host.node(node.get("hostPath") or node["path"])
            minor = node.get("minor")
            job.nodes[node["path"]] = minor if minor is not None else there.minor if there else -1


# --- which hooks


def _known(hook: dict[str, Any], job: Job) -> tuple[str, Flags] | None:
    """Return command and flags of a hook that is taken over, or None."""
    program = os.path.basename(hook["path"])
    if program not in (PROGRAM, TOOLKIT) or hook["hookName"] != STAGE:
        return None
    words = list((hook.get("args") or ())[1:])
    if program == TOOLKIT:
        if words[:1] != ["hook"]:
            return None
        del words[0]
    command = words.pop(0) if words else ""
    row = COMMANDS.get(command)
    flags = _flags(words, row[0]) if row is not None else None
    if flags is None or (command == "chmod" and not _has_mode(flags, job)):
        log.warning(f"{hook['path']} {command}: not known here; the hook runs")
        return None
    return command, flags


def _flags(words: list[str], known: tuple[str, ...]) -> Flags | None:
    """Return the flags of a command line (--name value, --name=value); None for unknown ones."""
    found: Flags = {name: [] for name in known}
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in known:
            return None
        following = value if equals else next(waiting, None)
        if following is None:
            return None
        found[name].append(following)
    return found


def _has_mode(flags: Flags, job: Job) -> bool:
    """Whether each folder will have the mode, since it is made for a node, or is not there."""
    above = {os.path.dirname(path) for path in job.nodes}
    return [mode.lstrip("0") for mode in flags["mode"]] == ["755"] and all(
        path in above or not job.image.has(path) for path in map(os.path.normpath, flags["path"])
    )


# --- what they do


def _create_symlinks(job: Job, place: str, flags: Flags) -> None:
    links = []
    for text in flags["link"]:
        target, _, path = text.partition("::")
        if not target or not path or "::" in path:
            raise ConfigError(place, f'"{text}" is not TARGET::LINK')
        if job.may_link(_inside(path)):
            links.append({"path": _inside(path), "target": target})
        else:
            log.debug(f"{place}: the image is read-only and has no place for {path}")
    job.sections.append((place, {"links": links}))


def _update_ldcache(job: Job, place: str, flags: Flags) -> None:
    links, entries = [], {}
    folders = list(dict.fromkeys(map(_inside, flags["folder"])))
    for path, found in _libraries(job, folders):
        entry = ldcache.entry(found, f"{os.path.dirname(path)}/{found.soname}")
        if entry is None:
            continue
        entries[entry.name, entry.flags] = entry
        if entry.path in job.mounts:
            continue
        if job.may_link(entry.path):
            links.append({"path": entry.path, "target": os.path.basename(path)})
        else:
            entry.path = path
    job.sections.append((place, {"links": links}))
    job.libraries.add(place, entries.values(), folders)


def _libraries(job: Job, folders: list[str]) -> Iterator[tuple[str, elf.Library]]:
    """Yield each library that is mounted in one of the folders, by its path in the container."""
    for path, source in job.mounts.items():
        if os.path.dirname(path) not in folders or ".so" not in os.path.basename(path):
            continue
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            log.debug(f"{source}: {error.strerror}; the loader is not told of it")
            continue
        try:
            yield path, elf.read(fd)
        except (Error, OSError) as error:
            log.debug(f"{source}: {error}; the loader is not told of it")
        finally:
            os.close(fd)


def _enable_cuda_compat(job: Job, place: str, flags: Flags) -> None:
    for version in flags["host-driver-version"][-1:]:
        try:
            require.numbers(version)
        except ValueError:
            raise ConfigError(place, f'"{version}" is no version of a driver') from None
        if job.compat:
            job.libraries.add(place, compat.find(job.image, version), ())


def _keep_device_nodes(job: Job, place: str, flags: Flags) -> None:
    text = container.params(job.host)
    # A machine that is only a directory has no procfs to cover.
    if text is None or job.host.root:
        return
    source = job.tree.file("nvidia-params", text.encode())
    options = list(container.OPTIONS["config"])
    mount = {"containerPath": container.PARAMS, "hostPath": source, "options": options}
    job.sections.append((place, {"mounts": [mount]}))


def _update_application_profile(job: Job, place: str, flags: Flags) -> None:
    minors = [
        minor
        for path, minor in job.nodes.items()
        if path.startswith("/dev/nvidia") and path.removeprefix("/dev/nvidia").isdecimal()
    ]
    job.sections.append((place, container.profile_edits(minors, job.tree)))


def _chmod(job: Job, place: str, flags: Flags) -> None:
    log.debug(f"{place}: the folders of device nodes are made with this mode")


def _inside(path: str) -> str:
    """Return an absolute path of the container, as the hook takes one: `..` ends at the root."""
    return os.path.normpath("/" + path.lstrip("/"))


COMPAT = ("enable-cuda-compat", "cuda-compat")

COMMANDS: dict[str, tuple[tuple[str, ...], Callable[[Job, str, Flags], None]]] = {
    # command                           flags                        what does its work
    "create-symlinks":                  (("link",),                   _create_symlinks),
    "update-ldcache":                   (("folder", "ldconfig-path"), _update_ldcache),
    "create-soname-symlinks":           (("folder", "ldconfig-path"), _update_ldcache),
    "enable-cuda-compat":               (("host-driver-version",),    _enable_cuda_compat),
    "cuda-compat":                      (("host-driver-version",),    _enable_cuda_compat),
    "disable-device-node-modification": ((),                          _keep_device_nodes),
    "update-application-profile":       ((),                          _update_application_profile),
    "chmod":                            (("mode", "path"),            _chmod),
}  # fmt: skip
