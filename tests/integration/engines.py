"""Real engines for the integration tests: dockerd, containerd and Podman drive the runtime.

Each engine gets a World: a mount and a network namespace of its own, so that its mounts,
bridges and firewall rules end with it, and two engines cannot meet in iptables.  Its state
lies below the session's base directory, its cgroups below one of the session's name.

The image is made here, of the machine's static busybox: nothing is pulled.

An Engine is started, used and ended; a Client is one with a command line like Docker's.  A
Recorder stands between an engine and the runtime, and tells what the one asked of the other.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import fcntl
import glob
import io
import json
import os
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import termios
import time

import pytest

from tests.integration.support import (
    CONTROLLERS,
    PATIENCE,
    SLOWNESS,
    cgroup_hierarchies,
    eventually,
)

APPLETS = (
    "[ cat chgrp chmod chown cp cut date dd df echo env expr false grep head hostname id ip kill "
    "ls md5sum mkdir mknod mount mv nproc nslookup ping ps pwd readlink rm sed seq sh sleep sort "
    "stat stty sync tail test timeout touch tr true tty umount uname unshare usleep wc whoami"
)

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n",
    "etc/group": "root:x:0:\nalice:x:1000:\naudio:x:63:alice\n",
    "home/alice/note": "from the image\n",
}


def flavour(runtime):
    """Return what the runtime calls itself: ocirt, runc, crun."""
    return call([runtime, "--version"]).out.partition(" ")[0]


def verbs(runtime):
    """Return the first word of each line of `--help`: among them are the verbs it knows."""
    lines = call([runtime, "--help"]).out.splitlines()
    return {line.split()[0].rstrip(",") for line in lines if line.strip()}


def missing(*programs):
    """Name the first of `programs` that is not installed, or return None."""
    return next((f"{name} is not installed" for name in programs if not shutil.which(name)), None)


class Result:
    """How a command ended; as text it tells all."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __repr__(self):
        return f"{shlex.join(self.argv)}\nexit {self.code}\nout {self.out!r}\nerr {self.err!r}"


def call(argv, patience=PATIENCE, **popen):
    if "input" not in popen:
        popen.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=patience, check=False, **popen
    )
    return Result(argv, done.returncode, done.stdout, done.stderr)


def make_image(path):
    """Write a root filesystem of busybox as a tar archive."""
    with tarfile.open(path, "w") as tar:

        def add(name, kind=tarfile.DIRTYPE, mode=0o755, data=b"", link="", owner=0):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
            entry.uid = entry.gid = owner
            tar.addfile(entry, io.BytesIO(data))

        for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "usr", "var"):
            add(name)
        add("tmp", mode=0o1777)
        add("home/alice", owner=1000)
        with open(shutil.which("busybox"), "rb") as file:
            add("bin/busybox", tarfile.REGTYPE, data=file.read())
        for applet in APPLETS.split():
            add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        for name, text in FILES.items():
            add(name, tarfile.REGTYPE, 0o644, text.encode(), owner=1000 * ("alice" in name))


class World:
    """A mount and a network namespace, kept by a sleeping process; `close` ends all in them."""

    PREPARE = "mount --make-rshared / && ip link set lo up && echo ready && exec sleep infinity"

    OWN_RUN = """
    mount -t tmpfs -o mode=755 tmpfs /mnt || exit
    for name in systemd dbus user; do
        [ ! -d /run/$name ] || { mkdir /mnt/$name && mount --bind /run/$name /mnt/$name; } || exit
    done
    mount -n --move /mnt /run || exit
    """

    def __init__(self, own_run=False):
        """With `own_run`, a /run with systemd, its bus and users' alone: what others keep stays."""
        unshare = ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c"]
        run = self.OWN_RUN if own_run else ""
        self.keeper = subprocess.Popen(
            [*unshare, run + self.PREPARE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        with self.keeper.stdout as pipe:
            assert pipe.readline() == b"ready\n"
        self.inodes = self._inodes(self.keeper.pid)

    @staticmethod
    def _inodes(pid):
        return {kind: os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in ("mnt", "net")}

    def enter(self, *argv):
        """Return the command that runs `argv` in here."""
        return ["nsenter", "--target", str(self.keeper.pid), "--mount", "--net", "--", *argv]

    def spawn(self, *argv, log, env=None):
        """Start a daemon; the process returned is its own, since the others become it.

        It ends when we do, even if we are killed.
        """
        with open(log, "ab") as out:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *self.enter(*argv)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                start_new_session=True,
            )

    def connect(self, host, port):
        """Return a TCP connection that begins in here."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self.keeper.pid}/ns/net") as net:

            def connected():
                # For this thread alone, which ends with it.
                assert libc.setns(net.fileno(), 0) == 0, os.strerror(ctypes.get_errno())
                return socket.create_connection((host, port), PATIENCE)

            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                return pool.submit(connected).result()

    def root(self, path):
        """Return where `path` of in here is found from outside."""
        return f"/proc/{self.keeper.pid}/root{path}"

    def mounts(self):
        """Return the mount points in here."""
        with open(f"/proc/{self.keeper.pid}/mountinfo") as file:
            return sorted(line.split()[4] for line in file)

    def processes(self):
        """Return {pid: command} of everything in here but the keeper."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                ours = self.inodes.items() & self._inodes(pid).items()
                if ours and int(pid) != self.keeper.pid:
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        found[int(pid)] = file.read().replace(b"\0", b" ").decode()
        return found

    def close(self):
        """End the world and return what still ran in it."""
        left = self.processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.keeper.kill()
        self.keeper.wait()
        return left


def stop(process):
    """Ask a daemon to end, and see that it does."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ended(pid):
    """Wait until a process is gone; reap it, where its own parent has left that to us."""

    def gone():
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(pid, os.WNOHANG)[0]
        return not os.path.exists(f"/proc/{pid}")

    return eventually(gone)


class Cgroups:
    """The cgroups below /NAME in every hierarchy."""

    def __init__(self, name):
        self.name = name

    def folders(self):
        """Return all of them, the deepest first, but not /NAME itself."""
        return [
            path for top in self.tops() for path, _, _ in os.walk(top, topdown=False) if path != top
        ]

    def tops(self):
        return [
            f"{top}/{self.name}"
            for top in cgroup_hierarchies()
            if os.path.isdir(f"{top}/{self.name}")
        ]

    def remove(self):
        """Remove them, and end what a daemon that died has left running in there."""
        for path in self.folders():
            for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
                with contextlib.suppress(OSError), open(f"{path}/{name}", "r+") as file:
                    file.write(text)
            for pid in self.pids(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                ended(pid)
        for path in [*self.folders(), *self.tops()]:
            with contextlib.suppress(OSError):
                os.rmdir(path)

    @staticmethod
    def pids(path):
        """Return the processes of one cgroup."""
        with contextlib.suppress(OSError), open(f"{path}/cgroup.procs") as file:
            return [int(line) for line in file]
        return []


RECORDER = """#!/bin/sh
# What the runtime is asked goes into a log, and the document it is handed beside it.
call=$(mktemp -d {folder}/call.XXXXXX) input= last=
for word; do
    case $word in
    --process=* | --bundle=* | --resources=*) last=${{word%%=*}} word=${{word#*=}} ;;
    esac
    case $last in
    --process | -p) cp "$word" "$call/document" ;;
    --bundle | -b) cp "$word/config.json" "$call/document" ;;
    --resources | -r)
        if [ "$word" = - ]; then
            input=$call/document
            cat > "$input"
        else
            cp "$word" "$call/document"
        fi ;;
    esac
    last=$word
done
read -r caller < "/proc/$PPID/comm"
printf '%s\\0' "$call" "$caller" "$PWD" "$@" > "$call/call"
echo "$call" >> {folder}/log
if [ "$input" ]; then {runtime} "$@" < "$input"; else {runtime} "$@"; fi
status=$?
echo "$status" > "$call/status"
exit "$status"
"""

VERBS = (
    "checkpoint create delete events exec features kill list pause ps restore resume run spec "
    "start state update"
).split()


class Call:
    """One call of the runtime: who made it and where, its arguments, how it ended."""

    def __init__(self, folder):
        self.folder = folder
        with open(f"{folder}/call") as file:
            _, self.caller, self.cwd, *self.argv = file.read().split("\0")[:-1]
        self.verb = next((word for word in self.argv if word in VERBS), None)

    @property
    def code(self):
        """The exit code of the runtime, None while it runs."""
        with contextlib.suppress(FileNotFoundError), open(f"{self.folder}/status") as file:
            return int(file.read() or -1)
        return None

    @property
    def document(self):
        """What it was handed: a config, the process of an `exec`, the resources of an `update`."""
        with open(f"{self.folder}/document") as file:
            return json.load(file)

    def line(self, **names):
        """Return the arguments as text, with what differs from time to time under a name.

        Each value of `names` becomes its name, other ids of an engine HEX, and numbers of
        three digits or more N.
        """
        text = " ".join(self.argv)
        for name, value in sorted(names.items(), key=lambda item: -len(item[1])):
            text = text.replace(value, name)
        text = re.sub(r"\b[0-9a-f]{64}\b", "HEX", text)
        text = re.sub(r"\bconmon-term\.\w{6}\b", "conmon-term.N", text)
        return re.sub(r"[0-9]{3,}", "N", text)


class Recorder:
    """A runtime that notes how it is called, and is `runtime` otherwise.

    Give an engine its `path`, under a name of its own.  Any user may call it.
    """

    def __init__(self, folder, runtime):
        os.mkdir(folder)
        os.chmod(folder, 0o1777)
        self.folder, self.path = folder, os.path.join(folder, "runtime")
        names = {"folder": shlex.quote(folder), "runtime": shlex.quote(runtime)}
        with open(self.path, "w") as file:
            file.write(RECORDER.format(**names))
        os.chmod(self.path, 0o755)
        self.log = os.path.join(folder, "log")
        with open(self.log, "w"):
            os.chmod(self.log, 0o666)

    def calls(self, *ids):
        """Return the calls so far, in order: all, or those that name one of these containers."""
        with open(self.log) as file:
            found = [Call(line.strip()) for line in file]
        return [call for call in found if not ids or set(ids) & set(call.argv)]

    def verbs(self, *ids):
        return [call.verb for call in self.calls(*ids)]

    def lines(self, *ids, **names):
        """Return the calls as text (Call.line)."""
        return [call.line(**names) for call in self.calls(*ids)]


def gone(look, patience=5 * SLOWNESS):
    """Return what `look` still finds after it had time to go away."""
    eventually(lambda: not look(), patience)
    return look()


def on_terminal(argv, env=None, typed="", rows=24, columns=80, patience=PATIENCE):
    """Run `argv` with a pseudo terminal as its terminal; `typed` is sent once it has spoken.

    Its Result has all that appeared on the screen as `out`.
    """
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *argv], stdin=slave, stdout=slave, stderr=slave, env=env
    )
    os.close(slave)
    screen, end = b"", time.monotonic() + patience
    try:
        while time.monotonic() < end:
            if not select.select([master], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(master, 4096)
            except OSError:  # EIO: nobody holds the other side any more
                break
            screen += piece
            if typed and screen:
                os.write(master, typed.encode())
                typed = ""
        else:
            process.kill()
        return Result(argv, process.wait(PATIENCE), screen.decode(errors="replace"), "")
    finally:
        os.close(master)


# --- many at once

# An engine may lose what a program says that ends at once.  So does ctr, whatever the runtime,
# when the program's end reaches it before its own open(2) of the FIFO has returned.
SAYS = "while echo {0}; ! test -e /var/{0}; do usleep 200000; done; exit {0}"


def at_once(count, folder, argv, env, patience=300 * SLOWNESS):
    """Run `count` programs at the same time, all of which must end well.

    argv(number, *program) is the command that runs one, with `folder`, to be made, as its /var.
    Each says its number until it has been heard, and returns it.
    """

    def one(number):
        command = argv(number, "sh", "-c", SAYS.format(number))
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(
            command, stdin=nothing, stdout=pipe, stderr=pipe, env=env, bufsize=0
        )
        if not select.select([process.stdout], [], [], patience)[0]:
            process.kill()
        out = process.stdout.readline()
        with open(f"{folder}/{number}", "w"):
            pass
        try:
            rest, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            rest, err = process.communicate()
        result = Result(command, process.returncode, (out + rest).decode(), err.decode())
        assert (result.code, {*result.out.split()}) == (number, {str(number)}), str(result)

    os.mkdir(folder)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(one, range(count)))


# --- engines


class Engine:
    """An engine in a World: its state lies below `folder`, its cgroups below `cgroups`.

    A kind of engine says how to `start`, how to `sweep` all containers away, and by `leftovers`
    what of them is still there.
    """

    def __init__(self, folder, kind, runtime, own_run=False):
        os.mkdir(folder)
        self.folder, self.kind, self.runtime = folder, kind, runtime
        self.cgroups = Cgroups(f"ocirt-{kind}-{os.getpid()}")
        self.recorder = Recorder(self.path("recorder"), runtime)
        self.env = dict(os.environ)
        self.env.pop("XDG_RUNTIME_DIR", None)  # root's, and not there in a world with its own /run
        self.env.pop("TMPDIR", None)  # where engines put what they hand to the runtime
        self.world = World(own_run)
        self.daemon = None
        self.beside = []  # daemons that the daemon needs

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, text):
        """Write a file of the engine's configuration; return its path."""
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def archive(self):
        """Return the image as an archive of files."""
        path = self.path("image.tar")
        if not os.path.exists(path):
            make_image(path)
        return path

    def launch(self, argv, ready):
        """Start the daemon, and wait until it is `ready`."""
        log = self.path("log")
        self.daemon = self.world.spawn(*argv, log=log, env=self.env)
        eventually(lambda: ready() or self.daemon.poll() is not None)
        if self.daemon.poll() is not None or not ready():
            with open(log) as file:
                lines = file.readlines()[-20:]
            pytest.fail(f"{argv[0]} does not answer:\n{''.join(lines)}")

    def close(self):
        try:
            self.sweep()
        finally:
            for daemon in (self.daemon, *self.beside):
                if daemon:
                    stop(daemon)
            gone(self.world.processes)
            left = self.world.close()
            self.cgroups.remove()
        assert left == {}, f"processes outlived {self.kind}"


@contextlib.contextmanager
def serving(engine):
    """Start an engine, and end it with all that it runs."""
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


@contextlib.contextmanager
def used(engine):
    """Lend an engine to one test, after which nothing of a container may be left."""
    yield engine
    engine.sweep()
    assert gone(engine.leftovers) == [], "left behind"


def lent(name):
    """Return the fixture that lends each test the engine of the fixture `name`."""

    @pytest.fixture
    def engine(request):
        held = request.getfixturevalue(name)
        with used(held):
            yield held

    return engine


class Client(Engine):
    """An engine with a command line like Docker's."""

    IMAGE = "localhost/busybox:test"
    RUN = ()  # of `run`, always
    CROWD = 20  # containers at the same time
    patience = PATIENCE

    def argv(self, *args):
        """Return a command of the client."""
        raise NotImplementedError

    def __call__(self, *args, **popen):
        popen.setdefault("patience", self.patience)
        return call(self.argv(*args), env=self.env, **popen)

    def ok(self, *args, **popen):
        """Run a command that must succeed; return its output, stripped."""
        result = self(*args, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    def command(self, options, program):
        """`run` without a network, which costs time, unless `options` name one."""
        network = () if re.search("--(network|net|pod)\\b", options) else ("--network", "none")
        return ("run", *self.RUN, *network, *shlex.split(options), self.IMAGE, *program)

    def try_run(self, options, *program, **popen):
        return self(*self.command(f"--rm {options}", program), **popen)

    def run(self, options, *program, **popen):
        """Run to the end, which must be a good one; return the output, stripped."""
        return self.ok(*self.command(f"--rm {options}", program), **popen)

    def sh(self, options, script, **popen):
        return self.run(options, "sh", "-c", script, **popen)

    def crowd(self, count, folder):
        """Run `count` containers at the same time (at_once)."""

        def argv(_, *program):
            return self.argv(*self.command(f"--rm -v {folder}:/var", program))

        at_once(count, folder, argv, self.env)

    def detached(self, options, *program):
        return Container(self, self.ok(*self.command(f"-d {options}", program)))

    def on_terminal(self, *args, **how):
        """Run a command of the client on a pseudo terminal (on_terminal)."""
        how.setdefault("patience", self.patience)
        return on_terminal(self.argv(*args), env=self.env, **how)


class Container:
    """A container that runs on its own."""

    def __init__(self, client, container_id):
        self.client, self.id = client, container_id

    def inspect(self, path):
        text = self.client.ok("inspect", "--format", f"{{{{json .{path}}}}}", self.id)
        return json.loads(text)

    @property
    def pid(self):
        return self.inspect("State.Pid")

    @property
    def logs(self):
        return self.client.ok("logs", self.id)

    def says(self, text):
        """Wait until the program has printed `text`."""
        return eventually(lambda: text in self.logs)

    def do(self, verb, *args):
        return self.client.ok(verb, *args, self.id)

    def exec(self, *program, options=()):
        """Run a program in it, which must succeed; return its output, stripped."""
        return self.client.ok("exec", *options, self.id, *program)

    def wait(self):
        return int(self.do("wait"))


# 2 to 5 s where nobody says so.  A shim that takes longer on a busy machine counts as one that has
# died, and what joins the namespaces of its container looks for them in /proc/0/ns.
SHIMS_MAY_BE_SLOW = """
[timeouts]
"io.containerd.timeout.shim.cleanup" = "5m"
"io.containerd.timeout.shim.load" = "5m"
"io.containerd.timeout.shim.shutdown" = "5m"
"io.containerd.timeout.task.state" = "5m"
"""

DOCKERS_CONTAINERD = """
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{socket}"
"""


class DockerClient(Client):
    """The command line of a dockerd, whoever runs that."""

    IMAGE = "busybox:test"

    def argv(self, *args):
        return ["docker", *args]

    def load(self):
        """Make the image."""
        changes = ("-c", 'CMD ["/bin/sh"]', "-c", "ENV PATH=/bin")
        self.ok("import", *changes, self.archive(), self.IMAGE)

    def containers(self):
        """Return the ids of all containers, asked of dockerd itself: its client takes its time."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(self.patience)
            line.connect(self.env["DOCKER_HOST"].removeprefix("unix://"))
            line.sendall(b"GET /containers/json?all=1 HTTP/1.0\r\n\r\n")
            with line.makefile("rb") as file:
                head, _, body = file.read().partition(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head
        return [container["Id"] for container in json.loads(body)]

    def sweep(self):
        containers = self.containers()
        if containers:
            self.ok("rm", "--force", "--volumes", *containers)


class Docker(DockerClient):
    """A dockerd with its own roots; `config` is added to its daemon.json.

    Runtimes: `hpc`, the default; `hpc-debug`, with an argument; `recorded`, by way of the
    recorder.
    """

    CROWD = 50

    def __init__(self, folder, runtime, kind="docker", **config):
        super().__init__(folder, kind, runtime)
        self.exec_root = self.path("exec")
        self.state = os.path.join(self.exec_root, "runtime-runc", "moby")
        self.env.update(
            DOCKER_HOST=f"unix://{folder}/docker.sock",
            DOCKER_CONFIG=self.path("client"),
            DOCKER_CLI_HINTS="false",
        )
        self.config = {
            "data-root": self.path("data"),
            "exec-root": self.exec_root,
            "pidfile": self.path("dockerd.pid"),
            "hosts": [self.env["DOCKER_HOST"]],
            "storage-driver": "overlay2",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "cgroup-parent": f"/{self.cgroups.name}",
            "default-runtime": "hpc",
            "runtimes": {
                "hpc": {"path": runtime},
                "hpc-debug": {"path": runtime, "runtimeArgs": ["--debug"]},
                "recorded": {"path": self.recorder.path},
            },
            **config,
        }

    def start(self):
        self.serve()
        self.load()
        self.mounts = self.world.mounts()

    def serve(self):
        """Start the daemon: also again, on what another one has left."""
        argv = ["dockerd", "--config-file", self.write("daemon.json", json.dumps(self.config))]
        if SLOWNESS > 1:  # dockerd gives its own containerd 15 s
            argv += ["--containerd", self.containerd()]
        self.launch(argv, lambda: self("version").code == 0)

    def containerd(self):
        """Have a containerd run in the places where dockerd's own would; return its socket."""
        places = {"root": self.path("data", "containerd/daemon"),
                  "state": os.path.join(self.exec_root, "containerd/daemon"),
                  "socket": self.path("containerd.sock")}  # fmt: skip
        argv = [
            "containerd",
            "--config",
            self.write("containerd.toml", DOCKERS_CONTAINERD.format(**places) + SHIMS_MAY_BE_SLOW),
        ]
        if not any(daemon.poll() is None for daemon in self.beside):
            self.beside = [self.world.spawn(*argv, log=self.path("containerd.log"), env=self.env)]
        ctr = ("ctr", "--address", places["socket"], "version")
        assert eventually(lambda: call(ctr).code == 0), "containerd does not answer"
        return places["socket"]

    def crash(self):
        """Kill dockerd, with which its containerd ends, and nothing else."""
        for containerd in self.beside:
            containerd.kill()
            containerd.wait()
        if self.beside:
            self.daemon.kill()
            self.daemon.wait()
            return
        with open(os.path.join(self.exec_root, "containerd/containerd.pid")) as file:
            containerd = int(file.read())
        self.daemon.kill()
        self.daemon.wait()
        assert ended(containerd), "an unreaped one would be taken for one that runs"

    def shims(self):
        """Return the pids of its shims."""
        return [pid for pid, line in self.processes().items() if "containerd-shim" in line]

    def processes(self):
        """Return {pid: command} of what runs in its world besides dockerd and its containerd."""
        return {
            pid: command
            for pid, command in self.world.processes().items()
            if pid != self.daemon.pid and not command.startswith("containerd --config")
        }

    def leftovers(self):
        # Docker's handle for the network of the host, made once and kept.
        kept = {*self.mounts, os.path.join(self.exec_root, "netns/default")}
        return [
            *(f"cgroup: {path}" for path in self.cgroups.folders()),
            *(f"mount: {path}" for path in self.world.mounts() if path not in kept),
            # A name with a dot is something that the runtime keeps for all containers.
            *(f"state: {name}" for name in listed(self.state) if not name.startswith(".")),
            *(f"process: {pid} {command}" for pid, command in self.processes().items()),
        ]


def listed(folder):
    """Return what is in a directory; nothing, where there is none."""
    return os.listdir(folder) if os.path.isdir(folder) else []


# --- Podman

CONTAINERS = """
[containers]
# Podman 4 asks for 1048576 files; that needs CAP_SYS_RESOURCE where the limit is lower.
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
pids_limit = {pids}
[engine]
cgroup_manager = "{manager}"
events_logger = "file"
runtime = "tested"
runtime_supports_json = ["tested", "recorded"]
runtime_supports_nocgroup = ["tested", "recorded"]
tmp_dir = "{folder}/tmp"
[engine.runtimes]
tested = ["{runtime}"]
recorded = ["{recorder}"]
"""

STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/root"
runroot = "{folder}/run"
"""


def hard_limit(name, wanted):
    """Return `wanted`, or our own hard limit where that is lower."""
    hard = resource.getrlimit(name)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


class Podman(Client):
    """Podman with its own storage; it knows a runtime `recorded`, too."""

    patience = max(60, PATIENCE)

    def __init__(self, folder, runtime, kind="podman", manager="cgroupfs"):
        super().__init__(folder, kind, runtime, own_run=True)
        parent = f"/{self.cgroups.name}" if manager == "cgroupfs" else "ocirt.slice"
        self.RUN = (f"--cgroup-parent={parent}",)
        self.storage = ()
        os.mkdir(self.path("work"))
        values = {
            "manager": manager,
            "folder": folder,
            "runtime": runtime,
            "recorder": self.recorder.path,
            "pids": 2048 if "pids" in CONTROLLERS else 0,  # Podman's own, and none
            "files": hard_limit(resource.RLIMIT_NOFILE, 20000),
            "processes": hard_limit(resource.RLIMIT_NPROC, 32768),
        }
        self.env["CONTAINERS_CONF"] = self.write("containers.conf", CONTAINERS.format(**values))
        self.env["CONTAINERS_STORAGE_CONF"] = self.write("storage.conf", STORAGE.format(**values))

    def start(self):
        changes = ("-c", 'CMD ["/bin/sh"]', "-c", "ENV PATH=/bin")
        self.ok("import", "-q", *changes, self.archive(), self.IMAGE)
        self.storage = self.ok(
            "info", "--format", "{{.Store.GraphRoot}} {{.Store.RunRoot}}"
        ).split()

    def argv(self, *args):
        # What conmon leaves in its working directory, which is Podman's.
        return self.world.enter("env", f"--chdir={self.path('work')}", "podman", *args)

    def leftovers(self):
        state = self.world.root(f"/run/{flavour(self.runtime)}")
        names = os.listdir(state) if os.path.isdir(state) else ()
        return [
            # Not those of conmon and of pods: Podman makes them, and keeps some.
            *(
                f"cgroup: {path}"
                for path in self.cgroups.folders()
                if re.fullmatch("libpod-[0-9a-f]{64}", os.path.basename(path))
            ),
            *(f"mount: {path}" for path in self.world.mounts() if "/merged" in path),
            # A name with a dot is something that the runtime keeps for all containers.
            *(f"state: {name}" for name in names if not name.startswith(".")),
        ]

    def holds(self):
        """Whether there are containers, a pod's own among them, as the storage has it."""
        # Podman itself takes its time to say so.
        found = [
            file for place in self.storage for file in glob.glob(f"{place}/*-containers/*.json")
        ]
        return not found or any(os.path.getsize(path) > len("[]") for path in found)

    def sweep(self):
        if self.holds():
            self.ok("pod", "rm", "--all", "--force", "--time", "0")
            self.ok("rm", "--all", "--force", "--time", "0")


# --- containerd

CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"""
NO_CRI = 'disabled_plugins = ["io.containerd.grpc.v1.cri"]'


class Containerd(Engine):
    """A containerd with its own roots, and ctr to talk to it.

    `more` is added to its configuration: without it there is no CRI plugin.
    """

    def __init__(self, folder, kind, runtime, namespace="default"):
        super().__init__(folder, kind, runtime, own_run=True)
        self.namespace = namespace
        self.address = self.path("sock")
        self.config = self.write("config.toml", NO_CRI + self.roots())

    def roots(self):
        """Return the part of its configuration that every kind of it has."""
        return CONTAINERD.format(folder=self.folder) + SHIMS_MAY_BE_SLOW

    def start(self):
        argv = ["containerd", "--config", self.config]
        self.launch(argv, lambda: self("version").code == 0)

    def crash(self):
        """Kill the daemon: its containers live on, and a new one takes them over."""
        self.daemon.kill()
        self.daemon.wait()
        self.start()

    def argv(self, *args):
        client = ("ctr", "--address", self.address, "--connect-timeout", "5m")
        return self.world.enter(*client, "--namespace", self.namespace, *args)

    def __call__(self, *args, **popen):
        return call(self.argv(*args), env=self.env, **popen)

    def leftovers(self):
        names = listed(self.world.root(f"/run/containerd/runc/{self.namespace}"))
        tasks = self.path("state", "io.containerd.runtime.v2.task", self.namespace)
        return [
            *(f"cgroup: {path}" for path in self.cgroups.folders()),
            *(f"mount: {path}" for path in self.world.mounts() if path.startswith(self.folder)),
            *(f"bundle: {name}" for name in listed(tasks)),
            *(f"state: {name}" for name in names if not name.startswith(".")),
        ]

    def sweep(self):
        """Remove every task and container."""
        for name in self("tasks", "ls", "-q").out.split():
            self("tasks", "kill", "-s", "KILL", name)
            self("tasks", "rm", "--force", name)
        for name in self("containers", "ls", "-q").out.split():
            self("containers", "rm", name)
