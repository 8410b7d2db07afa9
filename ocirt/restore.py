"""Restore: bring a container back from a checkpoint, as far as its start, and let it run.

    runtime                      criu                        container
    state
    fork ----------------------> waits
    cgroup around it, mount
    points and device rules by
    an init of its own
    go ------------------------> enters a mount namespace
    request, answers to its <--> makes --------------------> our own child
    notifications: hooks,
    terminal, pid
    pid file

CRIU makes the processes, our cgroup and our mounts are ready for them.  Its mount namespace
keeps what it mounts on the way from everybody else, and ends with it, however that ends.
"""

from __future__ import annotations

from ocirt import checkpoint, handover, jsonio, notify, quick, state
from ocirt import system as os
from ocirt.create import (
    Draft,
    Made,
    carry_out,
    claim,
    make_groups,
    move_devices,
    new_record,
    runtime_hooks,
)
from ocirt.criu import check, external, options, rpc, swrk
from ocirt.errors import At, ConfigError, Error, StateError
from ocirt.kernel import consts as k
from ocirt.kernel import mounts, procfs
from ocirt.launch import Init
from ocirt.plan.namespaces import TYPES
from ocirt.plan.ops import Op
from ocirt.undo import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.create import Wish
    from ocirt.state import Container
    from ocirt.undo import Undo

ROOT = "criu-root"  # where CRIU finds the rootfs: it must be a mount whose parent is not covered

# The ops of a plan that leave something in the rootfs or the cgroup for good: mount points and
# nodes, the device program.
LASTING = frozenset({
    "open_tree", "devices",
    "propagation", "rootfs", "mount", "bind", "remount", "set_attr", "try", "mkdir", "symlink",
    "node",
})  # fmt: skip


def restore(wish: Wish, images: checkpoint.Wish) -> Made:
    """Make a container of the images of one; it runs when this returns."""

    def make(draft: Draft, undo: Undo) -> Made:
        with draft:
            return _Restoring(draft, images, undo).make()

    return carry_out(wish, make)


def scaffold(plan: list[Op]) -> list[Op]:
    """Return the plan of a process that mounts what the container will see, and exits.

    Whatever is missing for that in the rootfs it makes, as safely as for a new container.
    """
    before = next(index for index, op in enumerate(plan) if op.name in ("hook", "pivot"))
    ops: list[Op] = []
    for op in plan[:before]:
        if op.name == "clone":
            ops.append(Op("clone", (k.CLONE_NEWNS, ""), op.where, "a mount namespace"))
        elif op.name in LASTING:
            ops.append(op)
    return [*ops, Op("exit", (0,))]


class _Restoring:
    """One restore; `fds` are kept open for CRIU, `pid` is the container's init once it lives."""

    def __init__(self, draft: Draft, images: checkpoint.Wish, undo: Undo) -> None:
        self.draft = draft
        self.images = images
        self.undo = undo
        self.pid = 0
        self.console = -1
        self.fds: list[int] = []
        self.done: list[Callable[[], None]] = []
        self.service: swrk.Service | None = None
        self.request = options.fields(options.RESTORE, images.arguments)
        self.spaces = draft.context.namespaces
        # One that was started by a service manager has a place for its socket: an empty one now.
        self.notify_folder = notify.folder(draft.wish.root, draft.wish.container_id)
        checkpoint.refuse_uncheckable(self.spaces.joined, self.spaces.has("mount"))
        if "cgroup" in self.spaces.joined:
            where = self.spaces.where["cgroup"]
            raise ConfigError(where, "CRIU cannot put a container into a cgroup namespace")

    def make(self) -> Made:
        draft, wish = self.draft, self.draft.wish
        path = swrk.find(self.images.criu)
        version = check.version(path)
        options.require(options.RESTORE, self.images.arguments, version)
        checkpoint.require_external(self.spaces.joined, version)
        if self.images.arguments.lazy_pages:
            check.require_feature(path, "lazy_pages")
        folders = checkpoint.Folders(self.images, "restore.log", make_images=False)
        try:
            stdio = _stdio(folders.images)
            container = self._claim()
            self._fill(folders, stdio, os.path.join(container.directory, ROOT))
            self._run(path, container, folders)
        finally:
            folders.close()
            close_all(self.fds)
        os.rmdir(os.path.join(container.directory, ROOT))
        quick.write(container, draft.manager)
        handover.write_pid_file(wish.pid_file, self.pid)
        for step in self.done:
            step()
        if draft.manager:
            draft.manager.settle()
        return Made(container, self.pid, self.console, draft.warnings(), [])

    def _claim(self) -> Container:
        record = new_record(self.draft)
        # As runc: the program started long ago, and was told so then.
        record["hooks"] = [stage for stage in record["hooks"] if stage != "poststart"]
        container = claim(self.draft, self.undo, record)
        container.save_config(self.draft.config, self.draft.text())
        for folder in (os.path.join(container.directory, ROOT), self.notify_folder):
            os.mkdir(folder, 0o755)
        return container

    def _prepare(self, pid: int, container: Container) -> None:
        """Make the cgroup and whatever else has to be there, and put CRIU to be into it."""
        draft, manager = self.draft, self.draft.manager
        make_groups(draft, self.undo, container.record, pid)
        if manager:
            files = [path for _, path in manager.attach_files()]
            if manager.cgroup_dir():
                files.append(f"{manager.cgroup_dir()}/cgroup.procs")
            for path in files:
                with open(path, "wb", buffering=0) as file:
                    file.write(str(pid).encode())
        if draft.resctrl:
            draft.resctrl.attach(pid)
        self._scaffold()

    def _scaffold(self) -> None:
        """Make mount points and device nodes that the rootfs lacks, put the device rules on."""
        directory = self.draft.manager and self.draft.manager.cgroup_dir()
        found = [("cgroup", str(directory), os.O_DIRECTORY)] if directory else []
        _perform(scaffold(self.draft.plan), self.draft.context.slots, found)

    def _loopback(self, pid: int) -> None:
        """Bring up the loopback device of a network namespace that CRIU has made."""
        ops = [
            Op("join", ("ns.network", k.CLONE_NEWNET, 0), self.spaces.where["network"], "network"),
            Op("clone", (0, ""), "", ""),
            Op("loopback", (), self.spaces.where["network"], "lo up"),
            Op("exit", (0,)),
        ]
        _perform(ops, {}, [("ns.network", f"/proc/{pid}/ns/net", 0)])

    def _fill(self, folders: checkpoint.Folders, stdio: list[str], root: str) -> None:
        """Say where everything is that the checkpoint left to the outside."""
        draft = self.draft
        self.request.update(folders.fields)
        self.request.update(checkpoint.config_file(draft.config.get("annotations") or {}))
        inherited = [
            {"key": name, "fd": number}
            for number, name in enumerate(stdio)
            if name.startswith(("pipe:[", "file["))
        ]
        joins = []
        for kind, path, where in draft.joined():
            name = kind.removeprefix("ns.")
            with At(where):
                if name not in checkpoint.JOINED:
                    joins.append({"ns": TYPES[name][1], "ns_file": path})
                    continue
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.fds.append(fd)
            inherited.append({"key": checkpoint.external_name(name), "fd": fd})
        self.request.update(
            root=root, inherit_fd=inherited, join_ns=joins,
            ext_mnt=[
                *external.given(draft.plan, draft.rootfs),
                {"key": notify.INSIDE, "val": self.notify_folder},
            ],
            evasive_devices=True, rst_sibling=True, manage_cgroups=True, notify_scripts=True,
            orphan_pts_master=True,
        )  # fmt: skip

    def _run(self, path: str, container: Container, folders: checkpoint.Folders) -> None:
        def enter() -> None:
            self._enter(str(self.request["root"]), folders)

        def before(pid: int) -> None:
            self._prepare(pid, container)

        def notified(script: str, pid: int) -> None:
            self._notified(script, pid, container)

        self.service = swrk.Service(path, enter, (*folders.fds, *self.fds), before)
        self.undo.add(self._kill)
        try:
            # Read rather than known: in a cgroup namespace they have other names.
            self.request["cg_root"] = _cgroups(self.service.pid)
            answer = self.service.ask({"type": rpc.RESTORE, "opts": self.request}, notified)
            code = self.service.close()
            if code:
                raise swrk.ended(code)
        except Error as error:
            self.service.close()
            raise checkpoint.failed(error, folders) from None
        if not self.pid or answer.get("restore", {}).get("pid") != self.pid:
            raise Error("criu failed: it restored another process than it said")

    def _enter(self, root: str, folders: checkpoint.Folders) -> None:
        """See the container's rootfs as a mount that nobody else sees; done by CRIU to be."""
        mounts.unshare()
        # CRIU gives the root back writable (4.1.1), but takes over what its source forbids.
        read_only = bool((self.draft.config.get("root") or {}).get("readonly"))
        mounts.bind(self.draft.rootfs, root, read_only=read_only)
        folders.reopen()

    def _notified(self, script: str, pid: int, container: Container) -> None:
        """Do our part at the points where CRIU stops for it."""
        if script == "setup-namespaces":
            if "network" in self.spaces.new:
                self._loopback(pid)
            if self.draft.linux.get("netDevices"):
                # They came back to us when the namespace that they were in ended.
                self.done.append(move_devices(self.draft, self.undo, pid))
            if self.draft.context.rdma_devices:
                from ocirt import rdmadevices

                context = self.draft.context
                self.done.append(rdmadevices.move_in(pid, context, container, self.undo))
            runtime_hooks(container, self.draft.config, pid)
        elif script == "orphan-pts-master" and self.service is not None:
            self._take_terminal(self.service.take_fd())
        elif script == "post-restore":
            found = procfs.stat(pid)
            if not pid or found is None:
                raise Error("criu failed: it restored nothing")
            try:
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:  # nobody that we may kill, then
                raise Error(f"criu failed: it restored {pid}, which is not ours") from None
            self.pid = pid
            container.record["pid"] = pid
            container.record["start_time"] = found[1]
            container.record["phase"] = state.CREATED
            container.save()

    def _take_terminal(self, master: int) -> None:
        socket = self.draft.wish.console_socket
        if not socket and self.draft.wish.detach:
            os.close(master)
            raise StateError("the checkpoint has a terminal, and nobody to give it to")
        if not socket:
            self.console = master
            return
        from ocirt import console

        try:
            console.send_fd(socket, master, b"/dev/ptmx")
        finally:
            os.close(master)

    def _kill(self) -> None:
        """End CRIU and what it has made so far, all of which are our children."""
        if self.service is not None:
            self.service.close()
        if self.console >= 0:
            os.close(self.console)
        if self.pid:
            try:
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def _perform(plan: list[Op], slots: dict[str, int], files: list[tuple[str, str, int]]) -> None:
    """Have an init carry out a plan to its end; files: the (word, path, flags) that it needs."""
    init = Init(plan, slots)
    fds: list[int] = []
    try:
        init.spawn()
        for _, path, flags in files:
            fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags))
        words = [word for word, _, _ in files]
        init.send_outside(list(zip(words, fds, strict=True)))
        init.cloned()
        init.send_inside([])
        init.converse({})
    finally:
        init.kill()
        close_all(fds)


def _stdio(images: str) -> list[str]:
    """Return what stdio was at the checkpoint; a directory without that holds no checkpoint."""
    path = os.path.join(images, checkpoint.DESCRIPTORS)
    with At("--image-path"):
        found: Any = jsonio.load(path)
        if found.__class__ is not list or any(name.__class__ is not str for name in found):
            raise Error(path, "not a list of strings")
    stdio: list[str] = found
    return stdio[:3]


def _cgroups(pid: int) -> list[dict[str, str]]:
    """Return the cgroups of a process as CRIU's roots: one for each controller."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    return [{"ctrl": name, "path": path} for _, names, path in rows for name in names.split(",")]
