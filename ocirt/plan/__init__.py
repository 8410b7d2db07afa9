"""Config in, plan out: a line and a reason for each stage of container setup, in their order.

OUTSIDE and INSIDE make a container, ENTER_OUTSIDE and ENTER_INSIDE one more process in it.
`compile` changes nothing on the machine.  The same config in the same `Context` gives the same
plan; what differs between two creates (descriptors, the pid) stands in the plan as a word.
"""

from __future__ import annotations

from ocirt.bundle import dev_mount
from ocirt.plan import (
    devices,
    entering,
    hookpoints,
    identity,
    mounts,
    namespaces,
    paths,
    program,
    rootfs,
    sysctl,
)  # fmt: skip
from ocirt.plan.host import Host
from ocirt.plan.ops import ASK_READY, Op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    Stage = Callable[[dict[str, Any], "Context"], list[Op]]

# Trees that stage 0 opens are numbered from here, well above the descriptors it is sent.
FIRST_TREE = 512

SIGKILL = 9


def _no_cgroup(dest: str, private: bool) -> list[tuple[str, str, str, str]]:
    """What a mount of type cgroup comes to for a container that has none: an empty directory."""
    return [("tmpfs", "tmpfs", dest, "mode=755")]


class Context:
    """What the plan depends on besides config.json: the caller's options and the host's facts.

    unprivileged    whether the runtime is not root, not even of a user namespace
    attach_files    [(word, path)]: cgroup files that the child attaches itself by (cgroup v1)
    cgroup_word     "cgroup" when the child is cloned into its cgroup (v2), else ""
    cgroup_program  instructions of the device program (v2), or None
    cgroup_mounts   (destination, private namespace) -> what a mount of type cgroup comes to
    gate            whether the init waits for `start` (create) or goes on at once (run)
    joins           kinds of the namespaces to enter (exec): those of the init that are not ours
    cgroup_late     whether the cgroup namespace is entered from within the container's cgroup
    node_sources    where a device node's path on the host is not that in the container: the host's
    rdma_devices    RDMA devices to be moved in, name -> what asks for it
    links           (path, target, origin) of symbolic links that devices need
    no_links        destinations of mounts whose paths must hold no symbolic link
    cpus            the CPUs that the program may use, "" for all
    keep_fd         a descriptor that the program gets besides those that follow 2, or -1
    slots           the number of each descriptor that the plan calls by a word
    same            what containers of one bundle have in common, as far as it is compiled; or None
    """

    def __init__(self, config: dict[str, Any], container_id: str, bundle: str, rootfs: str) -> None:
        self.container_id = container_id
        self.bundle = bundle
        self.rootfs = rootfs
        self.namespaces = namespaces.Namespaces(config)
        linux = config.get("linux") or {}
        uids = linux.get("uidMappings") or ()
        # A joined user namespace is taken to have a root; the kernel says so if it has none.
        self.maps_root = not uids or namespaces.maps_zero(uids)
        self.unprivileged = False
        self.no_pivot = False
        self.no_new_keyring = False
        self.cpus = ""
        self.preserve_fds = 0
        self.keep_fd = -1
        self.listen_fds = 0
        self.gate = True
        self.joins: tuple[str, ...] = ()
        self.cgroup_late = True
        self.die_with_runtime = False
        self.seccomp_cache: str | None = None
        self.host = Host()
        self.attach_files: list[tuple[str, str]] = []
        self.cgroup_word = ""
        self.cgroup_program: bytes | None = None
        self.cgroup_mounts: Callable[[str, bool], list[tuple[str, str, str, str]]] = _no_cgroup
        self.node_sources: dict[str, str] = {}
        self.rdma_devices: dict[str, str] = {}
        self.links: list[tuple[str, str, str]] = []
        self.no_links: frozenset[str] | set[str] = frozenset()
        self.slots: dict[str, int] = {}
        self.same: dict[Hashable, list[Op]] | None = None

    def once(self, key: Hashable, compiler: Callable[..., list[Op]], *given: Any) -> list[Op]:
        """Return what `compiler` makes of `given`, which is the same for all of the bundle."""
        if self.same is None:
            return compiler(*given)
        found = self.same.get(key)
        if found is None:
            found = self.same[key] = compiler(*given)
        return found

    def in_user_namespace(self) -> bool:
        """Whether the container is in one, be it that the runtime is (Podman, rootlesskit)."""
        return self.namespaces.has("user") or self.host.in_user_namespace()

    def new_slot(self, word: str) -> int:
        """Give a tree that stage 0 opens the next number."""
        self.slots[word] = FIRST_TREE + sum(1 for slot in self.slots.values() if slot >= FIRST_TREE)
        return self.slots[word]


def _on_host(compiler: Callable[[dict[str, Any], Host], list[Op]]) -> Stage:
    """Make a stage of a compiler that asks for the host's facts and for nothing else."""
    return lambda config, context: compiler(config, context.host)


def _plain(compiler: Callable[[dict[str, Any]], list[Op]]) -> Stage:
    """Make a stage of a compiler that needs the config alone."""
    return lambda config, context: compiler(config)


def _outside(config: dict[str, Any], context: Context) -> list[Op]:
    return identity.outside(config, context.host, context.cpus)


def _device_program(config: dict[str, Any], context: Context) -> list[Op]:
    if context.cgroup_program is None:
        return []
    where = "linux.resources.devices"
    return [Op("devices", (context.cgroup_word, context.cgroup_program), where, "device program")]


def _reopen_null(config: dict[str, Any], context: Context) -> list[Op]:
    return (
        [] if dev_mount(config) is not None else [Op("reopen_null", (), "", "stdio on /dev/null")]
    )


def _console(config: dict[str, Any], context: Context) -> list[Op]:
    process = config.get("process") or {}
    if not process.get("terminal"):
        return []
    size = process.get("consoleSize") or {}
    uid = (process.get("user") or {}).get("uid") or 0
    bind = int(context.namespaces.has("mount"))
    # The group stays that of the devpts mount, by which `mesg` and `write` work.
    args = (size.get("height") or 0, size.get("width") or 0, uid, -1, bind)
    return [Op("console", args, "process.terminal", "terminal")]


def _ready(config: dict[str, Any], context: Context) -> list[Op]:
    return [Op("ask", (ASK_READY,), "", "ready: rlimits, state")]


def _seccomp_early(config: dict[str, Any], context: Context) -> list[Op]:
    return identity.seccomp(config, context.seccomp_cache, early=True)


def _seccomp_late(config: dict[str, Any], context: Context) -> list[Op]:
    return identity.seccomp(config, context.seccomp_cache, early=False)


def _enter_early(config: dict[str, Any], context: Context) -> list[Op]:
    return program.enter_cwd(config, early=True)


def _enter_late(config: dict[str, Any], context: Context) -> list[Op]:
    return program.enter_cwd(config, early=False)


def _death_signal(config: dict[str, Any], context: Context) -> list[Op]:
    return identity.death_signal(SIGKILL if context.die_with_runtime else 0)


def _find(config: dict[str, Any], context: Context) -> list[Op]:
    return program.find(config, context.listen_fds)


def _close(config: dict[str, Any], context: Context) -> list[Op]:
    return program.close(context.preserve_fds, context.keep_fd)


def _gate(config: dict[str, Any], context: Context) -> list[Op]:
    return program.gate(context.preserve_fds, context.keep_fd) if context.gate else []


OUTSIDE: tuple[Stage, ...] = (
    _outside,                    # with the runtime's privileges: oom_score_adj, CPU affinity
    mounts.trees,                # sources that only the outside can open
    _device_program,             # before anything lives in the cgroup
    namespaces.join,             # last, since the runtime's own files may then be out of reach
    namespaces.clone,
)  # fmt: skip

INSIDE: tuple[Stage, ...] = (
    namespaces.settle,           # cgroups first: what follows is charged to the container
    rootfs.prepare,              # private propagation before the first mount, or mounts leak out
    mounts.make,                 # in the order of config.json, which the spec makes binding
    devices.make,                # after mounts, because /dev is usually one of them
    devices.links,
    hookpoints.before_pivot,     # prestart, createRuntime outside, then createContainer inside
    rootfs.pivot,
    _reopen_null,
    _plain(program.make_cwd),    # while the root can still be written
    _console,                    # before /dev may become read-only
    mounts.seal,
    rootfs.seal,
    namespaces.names,
    _on_host(identity.apparmor),
    _on_host(sysctl.write),
    paths.cover,                 # once no other op needs them open
    _plain(identity.no_new_privs),
    _plain(identity.scheduling),
    _ready,                      # rlimits are set now, so that they bind the program, not us
    _on_host(identity.selinux),
    _plain(program.home),        # before a filter can forbid openat2
    _enter_early,                # root enters what is closed to the user; EACCES is tried again
    _close,                      # while no filter can forbid it
    _seccomp_early,              # without no_new_privs the kernel wants CAP_SYS_ADMIN for it
    _on_host(identity.bounding),
    _on_host(identity.become),   # stdio owner, groups, ids, capabilities
    _death_signal,               # after the ids: their change clears it
    _enter_late,
    _find,                       # with the user's rights: the lookup of argv[0]
    _seccomp_late,               # with no_new_privs the profile need not allow our own steps
    _gate,                       # what fails above this line fails `create`
    hookpoints.at_start,
    _plain(program.run),
)  # fmt: skip


# What depends on more than the bundle: on the id, the environment, the cgroup, the CPUs.  Several
# containers of one bundle (`Context.same`) have the other stages compiled once.
OWN = frozenset(
    (
        _outside,
        mounts.trees,
        _device_program,
        namespaces.settle,
        mounts.make,
        hookpoints.before_pivot,
        _find,
        hookpoints.at_start,
    )
)


ENTER_OUTSIDE: tuple[Stage, ...] = (
    entering.outside,            # with the runtime's privileges: oom_score_adj, CPU affinity
    entering.join,               # last, since the runtime's own files may then be out of reach
    entering.clone,
)  # fmt: skip

ENTER_INSIDE: tuple[Stage, ...] = (
    entering.settle,             # cgroups first: what follows is charged to the container
    entering.root,
    entering.reopen_null,
    entering.console,
    _on_host(identity.apparmor),
    _plain(identity.no_new_privs),
    _plain(identity.scheduling),
    _ready,                      # the rest, and its reasons, as in INSIDE
    _on_host(identity.selinux),
    _plain(program.home),
    _enter_early,
    _close,
    _seccomp_early,
    _on_host(identity.bounding),
    _on_host(identity.become),
    _death_signal,
    _enter_late,
    _find,
    _seccomp_late,
    _plain(program.run),
)  # fmt: skip


def compile(config: dict[str, Any], context: Context) -> list[Op]:  # noqa: A001 - the verb of the house
    """Return the whole plan; everything up to and including the `clone` op runs outside."""
    return _compile(OUTSIDE + INSIDE, config, context)


def compile_mounts(config: dict[str, Any], context: Context) -> list[Op]:
    """Return of the plan what is mounted and what is hidden, for whoever asks about these."""
    return _compile((mounts.trees, mounts.make, devices.make, paths.cover), config, context)


def compile_entry(config: dict[str, Any], context: Context) -> list[Op]:
    """Return the plan of one more process: config's `process`, in the container as it is."""
    return _compile(ENTER_OUTSIDE + ENTER_INSIDE, config, context)


def _compile(stages: tuple[Stage, ...], config: dict[str, Any], context: Context) -> list[Op]:
    ops: list[Op] = []
    for stage in stages:
        if stage in OWN:
            ops += stage(config, context)
        else:
            ops += context.once(stage, stage, config, context)
    return ops


def split(ops: list[Op]) -> int:
    """Return how many ops of a plan run outside."""
    return next((index + 1 for index, op in enumerate(ops) if op.name == "clone"), len(ops))
