"""Make a container: from the wish of a caller to an init that waits at the gate, or runs.

`Draft` decides everything on paper; `create` carries it out, and takes everything back when a
step fails.  What happens to a container later is in container.py, which hot verbs can load
without this.
"""

from __future__ import annotations

from ocirt import bundle as bundles
from ocirt import cgroup as groups
from ocirt import checks, handover, plan, quick, state
from ocirt import system as os
from ocirt.errors import At, Error
from ocirt.kernel import mounts, procfs
from ocirt.launch import Init, finish
from ocirt.plan import hookpoints, identity
from ocirt.plan.host import Host
from ocirt.plan.ops import (
    ASK_HOOKS,
    ASK_MAPS,
    ASK_NETWORK,
    ASK_RDMA,
    ASK_READY,
    ASK_SECCOMP,
    Op,
)
from ocirt.undo import Undo, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable
    from types import TracebackType
    from typing import Any, Self

    from ocirt_hpc.edits import Applied

    from ocirt import resctrl
    from ocirt.cgroup.fs import Manager
    from ocirt.notify import Listener
    from ocirt.state import Container


# Variables that ask for devices, or that images from before those have.
REQUESTS = (
    "NVIDIA_VISIBLE_DEVICES=",
    "CUDA_VERSION=",
    "OCIRT_RDMA_DEVICES=",
    "MELLANOX_VISIBLE_DEVICES=",
    "NVIDIA_MOFED=",
    "NVIDIA_GDS=",
    "NVIDIA_GDRCOPY=",
    "NVIDIA_NVSWITCH=",
    "AMD_VISIBLE_DEVICES=",
    "HABANA_VISIBLE_DEVICES=",
    "AWS_NEURON_VISIBLE_DEVICES=",
    "ASCEND_VISIBLE_DEVICES=",
    "DOCKER_RESOURCE_",  # Swarm's, where NVIDIA's config.toml names it
)


VOLUMES = "/var/run/nvidia-container-devices/"  # mounts below it can ask as well
CDI_HOOKS = ("/nvidia-cdi-hook", "/nvidia-ctk")  # hooks whose work the stage may do itself
SITE = "/etc/ocirt"  # where a site may name variables of its own


class Wish:
    """What the caller of `create` or `run` wants besides the config: the options of the verbs.

    rootless: go without cgroups that are not ours to make.  unprivileged: the caller is not root,
    not even of a user namespace, so that the container needs one of its own.
    """

    def __init__(self, container_id: str, root: str, bundle: str) -> None:
        self.container_id = container_id
        self.root = root
        self.bundle = bundle
        self.config_name = "config.json"
        self.config: dict[str, Any] | None = None  # the bundle's, where it has been read
        self.same: dict[Hashable, list[Op]] | None = None  # see plan.Context
        self.text: Callable[[dict[str, Any]], bytes] | None = None  # writes a config down, for less
        self.program = -1  # a sealed copy of the init, where there is one for several
        self.cpus = ""  # those that the program may use, "" for all
        self.cgroup: dict[str, Any] | None = None  # the record of one to share with others
        self.console_socket = ""
        self.pidfd_socket = ""
        self.pid_file = ""
        self.no_pivot = False
        self.no_new_keyring = False
        self.preserve_fds = 0
        self.pmi_fd = False
        self.rootless = False
        self.unprivileged = os.geteuid() != 0
        self.seccomp_cache: str | None = None
        self.cgroup_driver = "fs"
        self.devices: list[str] = []
        self.cdi_annotations = False
        self.cdi_dirs: list[str] = []
        self.hpc_config = ""
        self.hpc_profile = ""
        self.detach = True
        self.gate = True
        self.stdio: tuple[int, ...] = (0, 1, 2)  # which of ours the program gets, from 0 on
        self.notify = True  # tell the caller's service manager when the program says it is ready


class Made:
    """A container that has just been made.

    pid: of its init.  console: the terminal's master side, or -1.  listener: who waits for the
    program to say that it is ready, if it runs already.  warnings: what the config asks for and
    was left out.  notes: what the kernel refused without harm.
    """

    def __init__(
        self, container: Container, pid: int, console: int, warnings: list[str], notes: list[str]
    ) -> None:
        self.container = container
        self.pid = pid
        self.console = console
        self.listener: Listener | None = None
        self.warnings = warnings
        self.notes = notes


class Draft:
    """A container on paper: everything decided, nothing done yet.

    edits: what the HPC stage added to the config, or None; `config` has it already.  In a `with`
    of the draft an Error about what was added names who added it.
    """

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        state.check_id(wish.container_id)
        self.bundle = os.path.abspath(wish.bundle)
        self._read, self._text = wish.config, b""
        if self._read is None:
            self._read, self._text = bundles.load_with_text(self.bundle, wish.config_name)
        self.config: dict[str, Any] = self._read
        self.plan: list[Op] = []
        self.edits = self._edits()
        self.notify = bool(wish.notify and handover.notify_socket() and self.config.get("process"))
        if self.edits is None:
            self._decide()
        else:
            self.config = self.edits.config
            with self:
                self._decide()
            self.plan = [
                Op(name, args, self.edits.name(where), what)
                for name, args, where, what in self.plan
            ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.edits is not None:
            self.edits.__exit__(kind, error, trace)

    def _edits(self) -> Applied | None:
        """Return what the requested devices add, as any part of the config to be checked."""
        wish, env = self.wish, (self.config.get("process") or {}).get("env") or ()
        annotations, mounts = self.config.get("annotations") or (), self.config.get("mounts") or ()
        hooks = self.config.get("hooks") or {}
        # The stage costs a plain container these few looks, and not one import.
        if not (
            wish.devices
            or wish.hpc_config
            or wish.hpc_profile
            or (wish.cdi_annotations and annotations)
            or any(item.startswith(REQUESTS) for item in env)
            or any(key.startswith("ocirt.hpc/") for key in annotations)
            or any(mount["destination"].startswith(VOLUMES) for mount in mounts)
            or any(hook["path"].endswith(CDI_HOOKS) for hook in hooks.get("createContainer") or ())
            or (os.path.exists(SITE) and _mentioned(env, annotations))
        ):
            return None
        from ocirt import hpc

        return hpc.apply(
            self.config,
            bundles.rootfs(self.config, self.bundle),
            os.path.join(wish.root, wish.container_id, "hpc"),
            devices=wish.devices,
            annotations=wish.cdi_annotations,
            directories=wish.cdi_dirs,
            site=wish.hpc_config,
            profile=wish.hpc_profile,
            rootless=wish.rootless,
        )

    def _decide(self) -> None:
        if self.notify:
            from ocirt import notify

            source = notify.folder(self.wish.root, self.wish.container_id)
            self.config = notify.configured(self.config, source)
        if self.edits is not None or not self.wish.same:  # else the first one has been checked
            checks.run(self.config, unprivileged=self.wish.unprivileged)
        self.rootfs = bundles.rootfs(self.config, self.bundle)
        self.linux = self.config.get("linux") or {}
        self.manager = self._manager()
        self.resctrl = self._resctrl()
        self.hook_files = hookpoints.output_files(self.config)
        self.context = self._context()
        self.plan = plan.compile(self.config, self.context)
        if self.notify:
            # The last mount is none of the config's.
            ours = f"mounts[{len(self.config['mounts']) - 1}]"
            self.plan = [
                Op(name, args, "NOTIFY_SOCKET" if where == ours else where, what)
                for name, args, where, what in self.plan
            ]

    def _manager(self) -> Manager | None:
        if self.wish.cgroup_driver == "disabled":
            return None
        if self.wish.cgroup is not None:
            return groups.from_record(self.wish.cgroup)
        return groups.open_manager(
            self.linux.get("cgroupsPath") or "",
            self.wish.container_id,
            rootless=self.wish.rootless,
            driver=self.wish.cgroup_driver,
            annotations=self.config.get("annotations"),
        )

    def _resctrl(self) -> resctrl.Group | None:
        section = self.linux.get("intelRdt")
        if section is None:
            return None
        from ocirt import resctrl

        return resctrl.draft(section, self.wish.container_id)

    def _context(self) -> plan.Context:
        wish, manager = self.wish, self.manager
        context = plan.Context(self.config, wish.container_id, self.bundle, self.rootfs)
        context.unprivileged = wish.unprivileged
        context.host = Host(rootless=wish.rootless, unprivileged=wish.unprivileged)
        context.no_pivot = wish.no_pivot
        context.no_new_keyring = wish.no_new_keyring
        context.listen_fds = handover.listen_fds()
        context.preserve_fds = wish.preserve_fds + context.listen_fds
        if wish.pmi_fd or (self.edits is not None and self.edits.pmi):
            context.keep_fd = handover.pmi_fd(self.config)
        context.gate = wish.gate
        context.cpus = wish.cpus
        context.same = None if self.edits else wish.same
        context.die_with_runtime = not wish.detach
        context.seccomp_cache = wish.seccomp_cache
        if self.edits is not None:
            context.node_sources = self.edits.node_sources
            context.rdma_devices = self.edits.rdma_devices
            context.links = self.edits.links
            context.no_links = self.edits.no_links
        if manager is not None:
            context.attach_files = manager.attach_files()
            context.cgroup_word = "cgroup" if manager.cgroup_dir() else ""
            if wish.cgroup is None:  # whoever made it has attached the program
                resources = self.linux.get("resources") or {}
                context.cgroup_program = manager.device_program(resources)
            context.cgroup_mounts = manager.mounts
        return context

    def warnings(self) -> list[str]:
        """Word what the config asks for and will not get, though that is no reason to refuse it."""
        found = identity.warnings(self.config, self.context.host)
        resources = self.linux.get("resources") or {}
        if self.manager is None and any(
            value for name, value in resources.items() if name != "devices"
        ):
            found.append("linux.resources: not put into force, as there is to be no cgroup")
        if self.manager is not None:
            for place in self.manager.ignored(resources):
                found.append(f"{place}: not supported by this kernel's cgroups, ignored")
        return found

    def explain(self, op: Op, errno: int) -> str:
        """Return why a step failed, where the kernel's word leaves that open."""
        from ocirt.explain import explain

        return explain(op, errno, self.config, self.rootfs)

    def text(self) -> bytes:
        """Return the text of the config, where it costs less than to write all of it down."""
        if self.wish.text is not None:
            return self.wish.text(self.config)
        return self._text if self.config is self._read else b""  # nothing has been added to it

    def joined(self) -> list[tuple[str, str, str]]:
        """Return (word, path, place in the config) of the namespaces to be joined."""
        spaces = self.context.namespaces
        return [(f"ns.{kind}", path, spaces.where[kind]) for kind, path in spaces.joined.items()]


def create(wish: Wish) -> Made:
    """Make a container whose init waits at the gate (`wish.gate`), or runs its program at once."""

    return carry_out(wish, lambda draft, undo: finish(steps(draft, undo)))


def carry_out(wish: Wish, make: Callable[[Draft, Undo], Made]) -> Made:
    """Decide everything, then make the container.

    Everything that can be refused is refused before anything on the machine changes; what fails
    later is taken back.
    """
    draft = Draft(wish)
    terminal = bool((draft.config.get("process") or {}).get("terminal"))
    handover.check_console(wish.console_socket, wish.detach, terminal)
    undo = Undo()
    try:
        return make(draft, undo)
    except BaseException:
        undo.run()
        raise


def steps(draft: Draft, undo: Undo) -> Generator[int, None, Made]:
    """Make a container in steps, for those who make several at once (see `launch.finish`).

    undo: is told how to take back what has been done.
    """
    with draft:
        return (yield from _make(draft, undo))


def new_record(draft: Draft) -> dict[str, Any]:
    """Return what the state of a container starts with."""
    spaces = draft.context.namespaces
    hooks = draft.config.get("hooks") or {}
    return {
        "version": state.VERSION,
        "id": draft.wish.container_id,
        "bundle": draft.bundle,
        "rootfs": draft.rootfs,
        "created": state.now(),
        "annotations": draft.config.get("annotations") or {},
        "phase": state.CREATING,
        "cgroup": draft.manager.record() if draft.manager else None,
        "own_pid_namespace": "pid" in spaces.new,
        "notify": draft.notify,
        "resctrl": draft.resctrl.record if draft.resctrl else None,
        "rdma": None,
        "no_new_keyring": draft.wish.no_new_keyring,
        # Without a mount namespace the mounts are made in the caller's, and `delete` takes them
        # away; what was there before stays.
        "host_mounts": None if spaces.has("mount") else mounts.below(draft.rootfs),
        # What a checkpoint has to tell from files that the program opens.
        "stdio": procfs.stdio(fds=draft.wish.stdio[:3]),
        "hooks": [stage for stage in ("poststart", "poststop") if hooks.get(stage)],
    }


def claim(draft: Draft, undo: Undo, record: dict[str, Any]) -> Container:
    """Make the directory of a container and what it holds from the start."""
    container = state.claim(draft.wish.root, draft.wish.container_id, record)
    if hooks := (draft.config.get("hooks") or {}).get("poststop"):
        from ocirt.lifecycle import poststop

        undo.add(poststop, container, hooks)
    undo.add(container.remove)
    container.save()  # a crash from here on leaves what `delete --force` needs to know
    if draft.edits is not None:
        container.save_report(draft.edits.report)
        if draft.edits.tree is not None:
            draft.edits.tree.write()
    return container


def make_groups(
    draft: Draft,
    undo: Undo,
    record: dict[str, Any],
    pid: int,
    there: Callable[[], None] = lambda: None,
) -> None:
    """Make the cgroup and the share of resctrl.

    pid: of who is to be in the cgroup for systemd.  there: what is to be done as soon as the cgroup
    can take a process, whose limits need not be in force yet.
    """
    manager = draft.manager
    if manager and not manager.shared:
        rows = manager.make(draft.linux.get("resources") or {}, pid)
        record["cgroup"] = manager.record()  # systemd has the last word on where it is
        undo.add(manager.undo)
        undo.add(manager.kill, 9)
        there()
        manager.limit(rows)
        manager.delegate(draft.config)
    else:
        there()
    if draft.resctrl:
        undo.add(draft.resctrl.undo)
        draft.resctrl.create()


def move_devices(draft: Draft, undo: Undo, pid: int) -> Callable[[], None]:
    """Give the config's network devices to a process; return what lets go of them for good."""
    from ocirt.netdevices import Devices

    devices = Devices(pid)
    undo.add(devices.close)
    undo.add(devices.put_back)
    devices.move(draft.linux["netDevices"])
    return devices.close


def _make(draft: Draft, undo: Undo) -> Generator[int, None, Made]:
    wish, config, manager = draft.wish, draft.config, draft.manager
    record = new_record(draft)
    container = claim(draft, undo, record)
    readiness = _listen(container, wish.gate) if draft.notify else None
    if readiness:
        undo.add(readiness.close)

    init = Init(draft.plan, draft.context.slots, again=draft.context.same is not None)
    init.explain = draft.explain
    fds: list[int] = []
    undo.add(close_all, fds)
    undo.add(init.kill)
    init.spawn(wish.stdio, wish.program)  # it starts up while the cgroup is made

    def clone() -> None:
        outside = [
            (word, _open(path, os.O_RDONLY, fds, where)) for word, path, where in draft.joined()
        ]
        if manager and manager.cgroup_dir():
            directory = str(manager.cgroup_dir())
            outside.append(("cgroup", _open(directory, os.O_RDONLY | os.O_DIRECTORY, fds)))
        undo.add(init.kill)  # first, so that the rest finds nothing alive
        init.send_outside(outside)

    if record["host_mounts"] is not None:
        undo.add(mounts.detach, draft.rootfs, record["host_mounts"])
    make_groups(draft, undo, record, init.stage0, clone)
    # While stage 0 makes the child: what that needs for its own part.
    inside = []
    for word, path in draft.context.attach_files:
        inside.append((word, _open(path, os.O_WRONLY, fds)))
    for number, path in enumerate(draft.hook_files):
        if path:
            from ocirt import hookfiles

            fds.append(hookfiles.open_output(number, path))
            inside.append((hookfiles.WORDS[number], fds[-1]))
    if wish.gate:
        container.make_gate()
        # Read and write: the init must not see end of file when `start` is yet to come.
        inside.append(("fifo", _open(container.fifo, os.O_RDWR, fds)))
    before = _before_its_part(draft)
    if not before:
        init.send_inside(inside)  # it lies ready for the child
    yield init.fileno()
    record["pid"] = init.cloned()
    for prepare in before:
        prepare(init.pid)
    if before:
        init.send_inside(inside)
    close_all(fds)
    # While the child works: what can be done before it asks.
    found = procfs.stat(init.pid)
    record["start_time"] = found[1] if found else 0
    container.save()
    container.save_config(draft.config, draft.text())
    rlimits = handover.rlimits(draft.config)
    warnings = draft.warnings() if wish.same is None else []  # `launch` says them once

    done: list[Callable[[], None]] = []
    written = ""

    def maps(_: int) -> None:
        from ocirt import usermap

        usermap.write(init.pid, draft.linux)

    def network(_: int) -> None:
        done.append(move_devices(draft, undo, init.pid))

    def rdma(_: int) -> None:
        from ocirt import rdmadevices

        done.append(rdmadevices.move_in(init.pid, draft.context, container, undo))

    def hooks(_: int) -> None:
        runtime_hooks(container, config, init.pid)

    def ready(_: int) -> Callable[[], None]:
        handover.set_rlimits(init.pid, rlimits)
        annotations = config.get("annotations") or {}
        pidfd_socket = wish.pidfd_socket or annotations.get(handover.PIDFD_RECEIVER, "")
        handover.send_descriptors(init, wish.console_socket, pidfd_socket, b"standard")
        record["phase"] = state.CREATED
        if not wish.gate:
            container.save()
        return write

    def write() -> None:
        """Write the last of our files, which are in force once the gate is reached."""
        nonlocal written
        written = container.draft() if wish.gate else container.state_file
        quick.write(container, manager, written)

    def listener(number: int) -> None:
        handover.send_listener(container, config, state.CREATING, init.pid, number)

    at_gate = yield from init.talk(
        {
            ASK_MAPS: maps,
            ASK_NETWORK: network,
            ASK_RDMA: rdma,
            ASK_HOOKS: hooks,
            ASK_READY: ready,
            ASK_SECCOMP: listener,
        }
    )
    # Without a gate the end of the conversation is the start of the program.
    if not written or (wish.gate and not at_gate):
        raise _oom(manager) or init.died()
    if wish.gate:
        container.adopt(written)
    handover.write_pid_file(wish.pid_file, init.pid)
    console, init.console = init.console, -1
    init.close()
    for step in done:
        step()
    made = Made(container, init.pid, console, warnings, init.warnings)
    made.listener = readiness
    return made


def _before_its_part(draft: Draft) -> list[Callable[[int], None]]:
    """Return what has to be done to the child while it is alone and waits for its part."""
    steps: list[Callable[[int], None]] = []
    if draft.resctrl:
        steps.append(draft.resctrl.attach)
    if "user" in draft.context.namespaces.joined and draft.linux.get("uidMappings"):
        from ocirt import usermap

        steps.append(lambda pid: usermap.check(pid, draft.linux))
    manager = draft.manager
    if manager and manager.driver != "fs":
        steps.append(lambda _: manager.settle())
    return steps


def _listen(container: Container, gate: bool) -> Listener | None:
    """Make the place of the container's socket; listen unless `start` will."""
    from ocirt import notify

    os.mkdir(notify.folder(*os.path.split(container.directory)), 0o755)
    return None if gate else notify.listen(container)


def _mentioned(env: Iterable[str], annotations: Iterable[str]) -> bool:
    """Whether the site's settings for devices may concern a container with these."""
    from ocirt import hpc

    return hpc.mentioned(env, SITE, annotations)


def _oom(manager: Manager | None) -> Error | None:
    if manager and manager.oom_killed():
        return Error("container init was OOM-killed (memory limit too low?)")
    return None


def _open(path: str, flags: int, fds: list[int], where: str = "linux.cgroupsPath") -> int:
    with At(where):
        fd = os.open(path, flags | os.O_CLOEXEC)
    fds.append(fd)
    return fd


def runtime_hooks(container: Container, config: dict[str, Any], pid: int) -> None:
    """Run the hooks that run outside while the container is being made."""
    hooks = config.get("hooks") or {}
    if not (hooks.get("prestart") or hooks.get("createRuntime")):
        return
    from ocirt import lifecycle

    # "created": in the specification creating is step 2, and these hooks are steps 3 and 4.
    text = lifecycle.state_text(container, state.CREATED, pid)
    for stage in ("prestart", "createRuntime"):
        lifecycle.run(hooks.get(stage) or [], stage, text, container.record)
