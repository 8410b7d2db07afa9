"""Apply the edits of the requested devices to a copy of a config.

All edits are gathered, and completed by a look at the host, before the first is applied.  Then
they are applied kind by kind, each kind by one function in KINDS.  What is there already, since
an engine put it there, is replaced and never doubled.  Every edit keeps its origin, such as
`nvidia.com/gpu=0: mounts[2]`, or `nvidia.com/gpu: mounts[0]` for those of the whole file;
`Applied` knows it for plan lines and errors, where the place in config.json would mislead.

CDI specification 1.1.0, SPEC.md, "OCI Edits"; the order and the rules of merging are those of
the reference implementation, which engines use.  What CDI has no word for, the stage's own edits
say in words of their own: `envDefault`, `envPrepend` and `envAppend` keep what is set already,
`envUnset`, `rlimits`, `keepPmi`, `rdmaDevices` (to be moved in), `rdmaLimits`, `cpuset`, `user`,
`ownIds`, `dropNamespaces`, `links`, symbolic links in the container, and `dropHooks` and
`dropMounts`, hooks and beginnings of destinations that other edits have taken the place of.  A
mount with `noLinks` is made where its path says, or not at all.
"""

from __future__ import annotations

from ocirt import log
from ocirt import system as os
from ocirt.checks import Faults
from ocirt.errors import ConfigError, Error, KernelError
from ocirt_hpc.host import S_IFMT, TYPES
from ocirt_hpc.request import has_namespace, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, TypeAlias

    from ocirt_hpc.cdi import Found
    from ocirt_hpc.host import Node
    from ocirt_hpc.tree import Tree

    # (origin, item of containerEdits)
    Edit: TypeAlias = tuple[str, Any]
    # (origin of all of it, containerEdits)
    Section: TypeAlias = tuple[str, dict[str, Any]]
    Stat: TypeAlias = Callable[[str], os.stat_result]

# Fields of the config by their names in a CDI file.
FIELDS = {".destination": ".containerPath", ".source": ".hostPath", ".access": ".permissions"}


class Place(str):
    """The origin of a section with one edit, named in full."""

    __slots__ = ()


class Applied:
    """An edited config, and where its edits come from.

    config        the copy; parts that no edit touches are shared with the original
    origins       place in the copy (`mounts[5]`) -> origin (`nvidia.com/gpu=0: mounts[2]`)
    node_sources  path of a device node in the container -> the host's, where they differ
    pmi           whether the socket that PMI_FD names stays open
    rdma_devices  RDMA devices that move into the container's network namespace -> origin
    links         (path, target, origin) of symbolic links to be made in the container
    no_links      destinations whose paths must hold no symbolic link
    tree          files that have to be made for the container, or None
    report        rows that explain each edit, and what was left out

    As a context it renames places in the errors that pass through it.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.origins: dict[str, str] = {}
        self.node_sources: dict[str, str] = {}
        self.rdma_devices: dict[str, str] = {}
        self.pmi = False
        self.links: list[tuple[str, str, str]] = []
        self.no_links: set[str] = set()
        self.tree: Tree | None = None
        self.report: list[dict[str, Any]] = []

    def name(self, where: str) -> str:
        """Return the origin of a place in the config, or the place."""
        head = where
        while head and head not in self.origins:
            head = head[: max(head.rfind("."), head.rfind("["), 0)]
        if not head:
            return where
        rest = where[len(head) :]
        return self.origins[head] + FIELDS.get(rest, rest)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Faults):
            error.faults = [(self.name(place), sentence) for place, sentence in error.faults]
        elif isinstance(error, Error) and error.segments:
            error.segments[0] = self.name(error.segments[0])


def apply(
    config: dict[str, Any],
    sections: list[Section],
    *,
    rootless: bool = False,
    root: str = "/",
    lstat: Stat = os.lstat,
) -> Applied:
    """Return the config with these edits; `config` itself stays as it is.

    lstat: what tells about a path of the host; tests have no right to make device nodes.
    """
    edits = gather(sections)
    user = (config.get("process") or {}).get("user") or {}
    edits["deviceNodes"] = [
        (origin, complete(node, user, origin, root, lstat)) for origin, node in edits["deviceNodes"]
    ]
    applied = Applied(dict(config))
    made = _Draft(applied, rootless)
    for kind, change in KINDS.items():
        if edits[kind]:
            change(made, edits[kind])
    made.finish()
    return applied


def node_edits(found: Iterable[Node]) -> dict[str, Any]:
    """Return the edits that put device nodes into a container, with groups that may use them.

    Read and write, never mknod: no program needs that.
    """
    made: list[dict[str, Any]] = []
    gids = []
    for node in found:
        made.append(
            {
                "path": node.path,
                "type": node.kind,
                "major": node.major,
                "minor": node.minor,
                "fileMode": node.mode,
                "uid": node.uid,
                "gid": node.gid,
                "permissions": "rw",
            }
        )
        if node.source:
            made[-1]["hostPath"] = node.source
        if node.gid and node.mode & 0o006 != 0o006 and node.gid not in gids:
            gids.append(node.gid)
    return {"deviceNodes": made, "additionalGids": gids}


def of_cdi(found: list[Found]) -> list[Section]:
    """Return the edits of CDI devices in the order of the request; a file's own once, before.

    CDI specification, "OCI Edits".
    """
    sections: list[Section] = []
    files = set()
    for device in found:
        if device.file.path not in files:
            files.add(device.file.path)
            sections.append((device.name.partition("=")[0], device.file.edits))
        sections.append((device.name, device.edits))
    return sections


def gather(sections: list[Section]) -> dict[str, list[Edit]]:
    """Return all edits by kind, in their order."""
    edits: dict[str, list[Edit]] = {kind: [] for kind in KINDS}
    for origin, section in sections:
        for kind, held in edits.items():
            if kind == "intelRdt":
                if kind in section:
                    held.append((f"{origin}: {kind}", section[kind]))
            else:
                for index, item in enumerate(section.get(kind) or ()):
                    place = origin if isinstance(origin, Place) else f"{origin}: {kind}[{index}]"
                    held.append((place, item))
    return edits


def present(config: dict[str, Any], device: Found) -> bool:
    """Whether the config has a node of this device already: some engine has resolved it."""
    there = {node["path"]: node for node in (config.get("linux") or {}).get("devices") or ()}
    for section in (device.edits, device.file.edits):
        for node in section.get("deviceNodes") or ():
            same = there.get(node["path"])
            if same and all(
                not node.get(field) or node[field] == same.get(field)
                for field in ("major", "minor")
            ):
                log.debug(f"{device.name}: {node['path']} is there already; left out")
                return True
    return False


def complete(
    node: dict[str, Any], user: dict[str, Any], origin: str, root: str, lstat: Stat
) -> dict[str, Any]:
    """Return a device node with everything that the file leaves to the host or to the user.

    A host that lacks the node is an error only where the file does not say what it is.
    """
    source = node.get("hostPath") or node["path"]
    kind = node.get("type") or ""
    done = {**node, "type": "c" if kind == "u" else kind, "hostPath": source}
    known = kind and (node.get("major") or kind == "p")
    try:
        seen = lstat(root.rstrip("/") + source)
    except OSError as error:
        if not known:
            raise KernelError(error.errno or 0, origin, source) from error
    else:
        there = TYPES.get(seen.st_mode & S_IFMT)
        if there is None:
            if not known:
                raise ConfigError(origin, source, "not a device")
        elif not kind:
            done["type"] = there
        elif there != done["type"]:
            raise ConfigError(origin, source, f'of type "{there}" on this host, not "{kind}"')
        if there and there != "p" and not node.get("major"):
            done["major"], done["minor"] = os.major(seen.st_rdev), os.minor(seen.st_rdev)
        if there and "fileMode" not in node:
            done["fileMode"] = seen.st_mode & 0o7777
    if done["type"] != "p":
        done.setdefault("minor", 0)
    for field in ("uid", "gid"):
        if field not in node and user.get(field):
            done[field] = user[field]
    return done


class _Draft:
    """The copy while it changes: every part is copied before its first change."""

    def __init__(self, applied: Applied, rootless: bool) -> None:
        self.applied = applied
        self.config = applied.config
        self.rootless = rootless
        self.copied: dict[str, Any] = {}
        self.origins: dict[int, str] = {}  # by id() of the added item: places still move

    def part(self, place: str, new: Any) -> Any:
        """Return the object or list at a place (`linux.resources`), a copy of its own."""
        if place not in self.copied:
            above, _, name = place.rpartition(".")
            holder = self.part(above, {}) if above else self.config
            holder[name] = self.copied[place] = new.__class__(holder.get(name) or new)
        return self.copied[place]

    def note(self, item: Any, origin: str) -> Any:
        self.origins[id(item)] = origin
        return item

    def finish(self) -> None:
        """Work out the places of what was added, now that nothing moves any more."""
        for place, held in self.copied.items():
            if held.__class__ is list:
                for index, item in enumerate(held):
                    if item.__class__ is dict and id(item) in self.origins:
                        self.applied.origins[f"{place}[{index}]"] = self.origins[id(item)]


# --- one function for each kind of edit


def _env(draft: _Draft, edits: list[Edit]) -> None:
    """The same name is replaced in its place; a config without a process has no environment."""
    if not draft.config.get("process"):
        return
    env = draft.part("process.env", [])
    places = {item.partition("=")[0]: index for index, item in enumerate(env)}
    for origin, item in edits:
        index = places.setdefault(item.partition("=")[0], len(env))
        env[index : index + 1] = [item]
        draft.applied.origins[f"process.env[{index}]"] = origin


def _env_default(draft: _Draft, edits: list[Edit]) -> None:
    """What is set already stays, and of two the first counts."""
    there = set(variables(draft.config))
    for edit in edits:
        name = edit[1].partition("=")[0]
        if name not in there:
            there.add(name)
            _env(draft, [edit])


def _env_append(draft: _Draft, edits: list[Edit]) -> None:
    """A list of paths is added at the end of the one that is set already, unless it is in it."""
    for origin, item in edits:
        name, _, value = item.partition("=")
        before = variables(draft.config).get(name)
        if not _within(value, before):
            _env(draft, [(origin, f"{name}={before}:{value}" if before else item)])


def _env_prepend(draft: _Draft, edits: list[Edit]) -> None:
    """The same at the beginning, the last edit first."""
    for origin, item in edits:
        name, _, value = item.partition("=")
        before = variables(draft.config).get(name)
        if not _within(value, before):
            _env(draft, [(origin, f"{item}:{before}" if before else item)])


def _within(value: str, before: str | None) -> bool:
    return bool(before) and f":{value}:" in f":{before}:"


def _env_unset(draft: _Draft, edits: list[Edit]) -> None:
    names = {name for _, name in edits}
    if names & variables(draft.config).keys():
        env = draft.part("process.env", [])
        env[:] = [item for item in env if item.partition("=")[0] not in names]


def _rlimits(draft: _Draft, edits: list[Edit]) -> None:
    """A limit that the config sets itself stays."""
    if not draft.config.get("process"):
        return
    limits = draft.part("process.rlimits", [])
    for origin, limit in edits:
        if all(one["type"] != limit["type"] for one in limits):
            limits.append(draft.note(limit, origin))


def _rdma_devices(draft: _Draft, edits: list[Edit]) -> None:
    for origin, name in edits:
        draft.applied.rdma_devices[name] = origin


def _keep_pmi(draft: _Draft, edits: list[Edit]) -> None:
    draft.applied.pmi = True


def _rdma_limits(draft: _Draft, edits: list[Edit]) -> None:
    """A limit that the config sets itself stays."""
    for origin, limit in edits:
        limits = draft.part("linux.resources.rdma", {})
        if limit["device"] not in limits:
            limits[limit["device"]] = {
                field: value for field, value in limit.items() if field != "device"
            }
            draft.applied.origins[f"linux.resources.rdma.{limit['device']}"] = origin


def _device_nodes(draft: _Draft, edits: list[Edit]) -> None:
    """A node at the same path is replaced; each node gets a rule that lets it be used."""
    for origin, node in edits:
        devices = draft.part("linux.devices", [])
        _remove(devices, "path", node["path"])
        fields = ("path", "type", "major", "minor", "fileMode", "uid", "gid")
        device = {field: node[field] for field in fields if field in node}
        if node["type"] == "p":
            device.pop("major", None), device.pop("minor", None)
        devices.append(draft.note(device, origin))
        draft.applied.node_sources.pop(node["path"], None)
        if node["hostPath"] != node["path"]:
            draft.applied.node_sources[node["path"]] = node["hostPath"]
        access = node.get("permissions") or "rwm"
        # A rule without letters would allow nothing, and no runtime takes one.
        if node["type"] == "p" or access == "none":
            continue
        rule = {
            "allow": True,
            "type": node["type"],
            "major": node["major"],
            "minor": node["minor"],
            "access": access,
        }
        rules = draft.part("linux.resources.devices", [])
        # Once more at the end of the list, where no later rule can take it back.
        rules[:] = [one for one in rules if one != rule]
        rules.append(draft.note(rule, origin))


def _net_devices(draft: _Draft, edits: list[Edit]) -> None:
    devices = draft.part("linux.netDevices", {})
    for origin, device in edits:
        devices[device["hostInterfaceName"]] = {"name": device["name"]}
        draft.applied.origins["linux.netDevices"] = origin


def _mounts(draft: _Draft, edits: list[Edit]) -> None:
    """A mount at the same place is replaced; then what lies higher in the tree comes first."""
    linux = draft.config.get("linux") or {}
    # An idmapped mount takes privileges, and the mappings of the container.
    mapped = has_namespace(draft.config, "user") and bool(
        linux.get("uidMappings") and linux.get("gidMappings")
    )
    mounts = draft.part("mounts", [])
    for origin, mount in edits:
        options = list(mount.get("options") or ())
        if not mount.get("type") and "bind" not in options and "rbind" not in options:
            options.insert(0, "bind")  # what has a path on the host can be nothing else
        if mapped and not draft.rootless and not {"idmap", "ridmap"} & set(options):
            for option, wanted in (("bind", "idmap"), ("rbind", "ridmap")):
                if option in options:
                    options.append(wanted)
        made = {"destination": mount["containerPath"], "source": mount["hostPath"]}
        if mount.get("type"):
            made["type"] = mount["type"]
        made["options"] = options
        _remove(mounts, "destination", mount["containerPath"])
        if mount.get("noLinks"):
            draft.applied.no_links.add(mount["containerPath"])
        mounts.append(draft.note(made, origin))
    mounts.sort(key=_depth)


def _depth(mount: dict[str, Any]) -> int:
    path: str = mount["destination"]
    return os.path.normpath("/" + path.lstrip("/")).rstrip("/").count("/")


def _hooks(draft: _Draft, edits: list[Edit]) -> None:
    for origin, hook in edits:
        hooks = draft.part(f"hooks.{hook['hookName']}", [])
        made = {field: hook[field] for field in ("path", "args", "env", "timeout") if field in hook}
        if any(_same_hook(one, made) for one in hooks):
            continue
        hooks.append(draft.note(made, origin))


def _drop_hooks(draft: _Draft, edits: list[Edit]) -> None:
    for _, which in edits:
        stage = which["hookName"]
        held = (draft.config.get("hooks") or {}).get(stage) or ()
        if any(is_dropped(hook, which) for hook in held):
            hooks = draft.part(f"hooks.{stage}", [])
            hooks[:] = [hook for hook in hooks if not is_dropped(hook, which)]


def is_dropped(hook: dict[str, Any], which: dict[str, Any]) -> bool:
    """Whether an item of `dropHooks` means a hook: by the name of its program, or as it is."""
    if "program" in which:
        return bool(os.path.basename(hook["path"]) == which["program"])
    return _same_hook(hook, which)


def _links(draft: _Draft, edits: list[Edit]) -> None:
    """Of two links at one path the later counts; what is mounted there counts for more."""
    mounted = {mount["destination"] for mount in draft.config.get("mounts") or ()}
    made = {link["path"]: (link["target"], origin) for origin, link in edits}
    draft.applied.links = [
        (path, target, origin) for path, (target, origin) in made.items() if path not in mounted
    ]


def _drop_mounts(draft: _Draft, edits: list[Edit]) -> None:
    starts = tuple(start for _, start in edits)
    if any(mount["destination"].startswith(starts) for mount in draft.config.get("mounts") or ()):
        mounts = draft.part("mounts", [])
        mounts[:] = [mount for mount in mounts if not mount["destination"].startswith(starts)]


def _same_hook(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["path"] == other["path"] and (one.get("args") or []) == (other.get("args") or [])


def _intel_rdt(draft: _Draft, edits: list[Edit]) -> None:
    origin, section = edits[-1]
    draft.part("linux", {})["intelRdt"] = section
    draft.applied.origins["linux.intelRdt"] = origin


def _user(draft: _Draft, edits: list[Edit]) -> None:
    """Another user than root has no capabilities in force, as an engine would have it.

    Those of the image's user would stay in force otherwise: a runtime keeps what is asked for.
    """
    if not draft.config.get("process"):
        return
    origin, wanted = edits[-1]
    user = draft.part("process.user", {})
    user.pop("username", None)
    user.update(wanted)
    draft.applied.origins["process.user"] = origin
    if wanted["uid"] and draft.config["process"].get("capabilities"):
        held = draft.part("process.capabilities", {})
        for kind in ("effective", "permitted", "inheritable", "ambient"):
            held.pop(kind, None)
        draft.applied.origins["process.capabilities"] = origin


def own_ids(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return what makes who is alone in a user namespace himself there, not root.

    None where there is no such namespace, where it maps more than his ids, or these as they are.
    """
    linux, user = config.get("linux") or {}, (config.get("process") or {}).get("user") or {}
    made: dict[str, Any] = {"user": {}}
    for field, word in (("uid", "uidMappings"), ("gid", "gidMappings")):
        rows = linux.get(word) or []
        if len(rows) != 1 or rows[0]["size"] != 1 or user.get(field, 0) != rows[0]["containerID"]:
            return None
        number = rows[0]["hostID"]
        made["user"][field] = number
        made[word] = [{"containerID": number, "hostID": number, "size": 1}]
    return made if made["user"]["uid"] != user.get("uid", 0) else None


def _own_ids(draft: _Draft, edits: list[Edit]) -> None:
    origin, wanted = edits[-1]
    linux = draft.part("linux", {})
    for word in ("uidMappings", "gidMappings"):
        linux[word] = wanted[word]
        draft.applied.origins[f"linux.{word}"] = origin
    _user(draft, [(origin, wanted["user"])])


def _drop_namespaces(draft: _Draft, edits: list[Edit]) -> None:
    """What only a namespace of its own can have goes with it: names, queues, keys of sysctl."""
    names = {name for _, name in edits}
    namespaces = draft.part("linux.namespaces", [])
    namespaces[:] = [space for space in namespaces if space["type"] not in names]
    if "uts" in names:
        draft.config.pop("hostname", None), draft.config.pop("domainname", None)
    # In a user namespace message queues are the owner's alone to mount; there the host's stand in.
    mapped = has_namespace(draft.config, "user")
    if "ipc" in names and mapped and not os.path.isdir("/dev/mqueue"):
        mounts = draft.part("mounts", [])
        mounts[:] = [mount for mount in mounts if mount.get("type") != "mqueue"]
    starts = tuple(start for name in names for start in SYSCTLS.get(name, ()))
    if starts and draft.config["linux"].get("sysctl"):
        sysctl = draft.part("linux.sysctl", {})
        for key in [key for key in sysctl if key.startswith(starts)]:
            del sysctl[key]


def has_cpuset(config: dict[str, Any]) -> bool:
    """Whether a config says itself where its container runs."""
    cpu = ((config.get("linux") or {}).get("resources") or {}).get("cpu") or {}
    return bool(cpu.get("cpus") or cpu.get("mems"))


def _cpuset(draft: _Draft, edits: list[Edit]) -> None:
    """What the config says itself stays."""
    if has_cpuset(draft.config):
        return
    origin, wanted = edits[-1]
    draft.part("linux.resources.cpu", {}).update(wanted)
    for field in wanted:
        draft.applied.origins[f"linux.resources.cpu.{field}"] = origin


def _additional_gids(draft: _Draft, edits: list[Edit]) -> None:
    if not draft.config.get("process"):
        return
    gids = draft.part("process.user.additionalGids", [])
    for origin, gid in edits:
        if gid and gid not in gids:
            draft.applied.origins[f"process.user.additionalGids[{len(gids)}]"] = origin
            gids.append(gid)


def _remove(items: list[dict[str, Any]], field: str, value: str) -> None:
    items[:] = [item for item in items if item[field] != value]


# namespace -> beginnings of the sysctls that belong to it (Documentation/admin-guide/sysctl)
SYSCTLS = {
    "ipc": ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue."),
    "network": ("net.",),
    "uts": ("kernel.hostname", "kernel.domainname"),
}

# In the order in which they are applied.
KINDS: dict[str, Callable[[_Draft, list[Edit]], None]] = {
    "dropNamespaces": _drop_namespaces,
    "ownIds": _own_ids,
    "user": _user,
    "envUnset": _env_unset,
    "env": _env,
    "envDefault": _env_default,
    "envPrepend": _env_prepend,
    "envAppend": _env_append,
    "rlimits": _rlimits,
    "deviceNodes": _device_nodes,
    "netDevices": _net_devices,
    "keepPmi": _keep_pmi,
    "rdmaDevices": _rdma_devices,
    "rdmaLimits": _rdma_limits,
    "cpuset": _cpuset,
    "dropMounts": _drop_mounts,
    "mounts": _mounts,
    "links": _links,
    "dropHooks": _drop_hooks,
    "hooks": _hooks,
    "intelRdt": _intel_rdt,
    "additionalGids": _additional_gids,
}
