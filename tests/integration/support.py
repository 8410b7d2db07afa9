"""What the integration tests share: the runtime under test, bundles, and a look at the host.

`OCIRT_TEST_RUNTIME=runc` (or crun, or a path) runs every test against another runtime, so the
tests themselves are tested.  Where ours is meant to differ, the test says so with
`only_ocirt(reason)`; `pytest -rs` then prints the whole list of what only we pass, and why.

A test builds a bundle (`bundle.sh("echo hi", hostname="box")`), drives it with `runtime.run`,
`runtime.create` and so on, and leaves the cleaning to the fixtures of conftest.py.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

# Seconds that anything may take; only a hang comes near it.  An emulated machine needs more.
PATIENCE = float(os.environ.get("OCIRT_TEST_PATIENCE", "20"))
SLOWNESS = PATIENCE / 20  # for what is timed


def only_ocirt(reason):
    """Mark what other runtimes fail or do otherwise; they skip it with this reason."""
    return pytest.mark.only_ocirt(reason)


def bounding_set():
    """Return the capability numbers that this machine lets us have."""
    with open("/proc/self/status") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd"))
    return {number for number in range(64) if mask >> number & 1}


CAP_SYS_RESOURCE = 24
UNIFIED = not os.path.isdir("/sys/fs/cgroup/devices") and not os.path.isdir("/sys/fs/cgroup/pids")
needs_v1 = pytest.mark.skipif(UNIFIED, reason="needs cgroup v1 controllers")
needs_v2 = pytest.mark.skipif(not UNIFIED, reason="needs a unified cgroup v2 hierarchy")


def first_program():
    """Return the name of pid 1; "systemd" only where it has booted the machine."""
    with open("/proc/1/comm") as file:
        name = file.read().strip()
    booted = name != "systemd" or os.path.exists("/run/systemd/private")
    return name if booted else f"an idle {name}"


INIT = first_program()
needs_systemd = pytest.mark.skipif(INIT != "systemd", reason=f"pid 1 is {INIT} and no systemd")


def controllers():
    """Return the names of the cgroup controllers that containers can have limits of."""
    if UNIFIED:
        with open("/sys/fs/cgroup/cgroup.controllers") as file:
            return set(file.read().split())
    with open("/proc/self/cgroup") as file:
        return {name for line in file for name in line.split(":")[1].split(",")}


CONTROLLERS = controllers()


def needs_controllers(*names):
    """Mark what cannot be without these cgroup controllers."""
    lacking = " ".join(sorted({*names} - CONTROLLERS))
    return pytest.mark.skipif(lacking != "", reason=f"no cgroup controller {lacking}")


needs_sys_resource = pytest.mark.skipif(
    CAP_SYS_RESOURCE not in bounding_set(), reason="needs CAP_SYS_RESOURCE"
)

# Capabilities by number, as include/uapi/linux/capability.h counts them.
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
EVERY_CAPABILITY = [f"CAP_{CAPABILITIES[n]}" for n in sorted(bounding_set()) if n < 41]


def find_runtime():
    """Return the path of the runtime under test, None when there is none."""
    wanted = os.environ.get("OCIRT_TEST_RUNTIME")
    if wanted:
        return shutil.which(wanted)
    beside = os.path.join(os.path.dirname(sys.executable), "ocirt")
    return beside if os.access(beside, os.X_OK) else shutil.which("ocirt")


# --- configs

DROP = object()  # as a value in a patch: take the key out

MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
]


def namespaces(*types, **paths):
    """Return linux.namespaces: each of `types` new, each of `paths` joined."""
    return [{"type": kind} for kind in types] + [
        {"type": kind, "path": str(path)} for kind, path in paths.items()
    ]


HOST_PIDS = {"namespaces": namespaces("network", "ipc", "uts", "mount")}  # `linux` of a container


def base_config(container_id):
    """Return a small config in the manner of `runc spec`, without a terminal."""
    few = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": few, "effective": few, "permitted": few},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "box",
        "mounts": copy.deepcopy(MOUNTS),
        "linux": {
            # Absolute: a relative path would put the container below our own cgroup.
            "cgroupsPath": f"/ocirt-test/{container_id}",
            "namespaces": namespaces("pid", "network", "ipc", "uts", "mount"),
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def patched(config, patch):
    """Merge `patch` into `config`: dicts merge, DROP removes, anything else replaces."""
    for key, value in patch.items():
        if value is DROP:
            config.pop(key, None)
        elif isinstance(value, dict) and isinstance(config.get(key), dict):
            patched(config[key], value)
        else:
            config[key] = value
    return config


class Bundle:
    """A directory with config.json and a root filesystem of its own."""

    def __init__(self, path, container_id, config):
        self.path = path
        self.id = container_id
        self.config = config
        self.rootfs = os.path.join(path, "rootfs")
        self.pid_file = os.path.join(path, "pid")
        self.out = os.path.join(path, "out")
        self.save()

    def save(self):
        with open(os.path.join(self.path, "config.json"), "w") as file:
            json.dump(self.config, file)

    def patch(self, **patch):
        patched(self.config, patch)
        self.save()
        return self

    def put(self, path, text="", mode=0o644):
        """Write a file into the root filesystem; return its path on the host."""
        path = os.path.join(self.rootfs, path.lstrip("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def inside(self, path):
        """Return where `path` of the container lies on the host."""
        return os.path.join(self.rootfs, path.lstrip("/"))

    def output(self):
        """Return what the program has written since `create`."""
        with open(self.out) as file:
            return file.read()


# --- the runtime


class Result:
    """How one call of the runtime ended."""

    def __init__(self, argv, code, out, err, log):
        self.argv, self.code, self.out, self.err, self.log = argv, code, out, err, log

    @property
    def errors(self):
        """The messages of the lines at level error, as engines read them from the log."""
        return [line["msg"] for line in self.log if line["level"] == "error"]

    @property
    def error(self):
        """The message that an engine would show: the last one."""
        return self.errors[-1] if self.errors else ""

    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return self.out.splitlines()

    def __str__(self):
        argv = " ".join(self.argv)
        return f"{argv}\nexit {self.code}\nout {self.out!r}\nerr {self.err!r}\nlog {self.log}"


class Runtime:
    """The runtime under test, with a state directory of its own."""

    def __init__(self, path, flavour, workdir, host):
        self.path, self.flavour, self.host = path, flavour, host
        self.root = os.path.join(workdir, "state")
        self.log = os.path.join(workdir, "log")
        self.background = []

    @property
    def is_ocirt(self):
        return self.flavour == "ocirt"

    def argv(self, *args):
        return [self.path, "--root", self.root, "--log", self.log, "--log-format", "json", *args]

    def _log(self):
        try:
            with open(self.log) as file:
                lines = [json.loads(line) for line in file]
        except FileNotFoundError:
            return []
        # Another verb, side by side, may have read the same log.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.log)
        return lines

    def __call__(self, *args, prefix=True, stdout=subprocess.PIPE, **popen):
        """Run one verb to its end, whatever that is."""
        argv = self.argv(*args) if prefix else [self.path, *args]
        if "input" not in popen:
            popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run(
            argv, stdout=stdout, text=True, timeout=PATIENCE, check=False, **popen
        )
        return Result(argv, done.returncode, done.stdout or "", done.stderr or "", self._log())

    def spawn(self, *args, **popen):
        """Start one verb and leave it running; the fixture ends it.  stdout may be a path."""
        with contextlib.ExitStack() as files:
            for stream in ("stdout", "stderr"):
                if isinstance(popen.get(stream), str):
                    popen[stream] = files.enter_context(open(popen[stream], "w"))
            process = subprocess.Popen(self.argv(*args), **popen)
        self.background.append(process)
        self.host.known.add(process.pid)
        return process

    def ok(self, *args, **popen):
        """Run one verb that must succeed."""
        result = self(*args, **popen)
        assert result.code == 0, str(result)
        return result

    def refuses(self, *args, saying="", ours="", code=1, **popen):
        """Run one verb that must fail with one sentence.

        saying: what runc's sentence and ours have in common.  ours: what ours says as well,
        mostly the place in config.json.
        """
        result = self(*args, **popen)
        self.check_refusal(result, saying, ours, code)
        return result

    def check_refusal(self, result, saying, ours, code=1):
        assert result.code == code, str(result)
        assert len(result.errors) == 1, str(result)
        # What a hook has printed is quoted as it is.
        assert "\n" not in result.error.partition("stdout:")[0].strip(), str(result)
        assert result.err.strip(), "an engine that reads stderr alone learns nothing"
        assert "Traceback" not in result.err, str(result)
        if self.flavour != "crun":
            assert saying in result.error, str(result)
        if self.is_ocirt:
            assert ours in result.error, str(result)

    # The verbs.  `create` and detached `run` hand their stdout on to the container, which
    # keeps it open, so it goes to a file and not to a pipe.

    def try_create(self, bundle, *options, verb="create", **popen):
        with open(bundle.out, "w") as out:
            result = self(
                verb, "--bundle", bundle.path, *options, bundle.id, stdout=out, stderr=out, **popen
            )
        result.err = bundle.output()
        return result

    def create(self, bundle, *options, **popen):
        result = self.try_create(bundle, "--pid-file", bundle.pid_file, *options, **popen)
        assert result.code == 0, str(result) + bundle.output()
        return self.pid(bundle)

    def run(self, bundle, *options, **popen):
        """Run in the foreground to the end; the result's code is the program's."""
        return self("run", "--bundle", bundle.path, *options, bundle.id, **popen)

    def prints(self, bundle, *options, **popen):
        """Run in the foreground; the program must end well; return its output, stripped."""
        result = self.run(bundle, *options, **popen)
        assert result.code == 0, str(result)
        return result.out.strip()

    def run_detached(self, bundle, *options, **popen):
        result = self.try_create(
            bundle, "--detach", "--pid-file", bundle.pid_file, *options, verb="run", **popen
        )
        assert result.code == 0, str(result) + bundle.output()
        return self.pid(bundle)

    def start(self, bundle):
        return self.ok("start", bundle.id)

    def started(self, bundle, *options, **popen):
        """create and start; return the pid."""
        pid = self.create(bundle, *options, **popen)
        self.start(bundle)
        return pid

    def state(self, bundle):
        return self.ok("state", bundle.id).json()

    def status(self, bundle):
        return self.state(bundle)["status"]

    def kill(self, bundle, *args):
        return self.ok("kill", bundle.id, *map(str, args))

    def delete(self, bundle, *options):
        return self.ok("delete", *options, bundle.id)

    def refuses_to_create(self, bundle, saying="", ours="", verb="create", options=(), **popen):
        """The bundle must be refused with one sentence, and nothing may remain."""
        if verb == "create":
            result = self.try_create(bundle, *options, **popen)
        else:
            result = self.run(bundle, *options, **popen)
        self.check_refusal(result, saying, ours)
        assert self.host.leftovers() == [], str(result)
        return result

    # What surrounds a container

    def pid(self, bundle):
        with open(bundle.pid_file) as file:
            return int(file.read())

    def wait(self, bundle, pid=None):
        """Wait as a shim does, as the subreaper; return the exit code in the shell's manner."""
        pid = pid or self.pid(bundle)
        fd = os.pidfd_open(pid)
        try:
            assert select.select([fd], [], [], PATIENCE)[0], f"{bundle.id} runs on and on"
        finally:
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code

    def finish(self, bundle, *options):
        """create, start, wait, delete; return the exit code."""
        self.started(bundle, *options)
        code = self.wait(bundle)
        self.delete(bundle)
        return code

    def close(self):
        """Delete every container, by force."""
        for process in self.background:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
        # The newest first: a pid namespace ends only when those who joined it are reaped.
        while left := sorted(
            self.host.states(), key=lambda name: os.stat(os.path.join(self.root, name)).st_ctime
        ):
            self("delete", "--force", left[-1])
            self.host.processes()
            if left[-1] in self.host.states():
                break


# --- the host


def eventually(question, patience=PATIENCE):
    """Ask until the answer is yes; return the last answer."""
    end = time.monotonic() + patience
    while not (answer := question()) and time.monotonic() < end:
        time.sleep(0.01)
    return answer


def cgroup_hierarchies():
    if UNIFIED:
        return ["/sys/fs/cgroup"]
    with os.scandir("/sys/fs/cgroup") as entries:
        folders = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    return [path for path in folders if os.path.exists(f"{path}/cgroup.procs")]


def cgroup_of(bundle, controller):
    """Return the directory of the bundle's cgroup in the hierarchy of `controller`."""
    top = "/sys/fs/cgroup" if UNIFIED else f"/sys/fs/cgroup/{controller}"
    return f"{top}/ocirt-test/{bundle.id}"


class Host:
    """The machine as a test found it; `leftovers()` is what has been added since."""

    def __init__(self, prefix, workdir):
        self.prefix = prefix  # of our container ids: others may run tests at the same time
        self.state = os.path.join(workdir, "state")
        # Pids that are nobody's leftovers: an engine that serves the whole session, and what a
        # test adds because it started it itself.
        self.known = {pid for pid, state, _ in children() if state != "Z"}
        self.before = self.look()

    def look(self):
        return {
            "mount": self.mounts(),
            "cgroup": self.cgroups(),
            "process": self.processes(),
            "state": self.states(),
        }

    @staticmethod
    def mounts():
        with open("/proc/self/mountinfo") as file:
            return set(file.read().splitlines())

    def cgroups(self):
        return {
            f"{top}/ocirt-test/{name}"
            for top in cgroup_hierarchies()
            if os.path.isdir(f"{top}/ocirt-test")
            for name in os.listdir(f"{top}/ocirt-test")
            if name.startswith(self.prefix)
        }

    def processes(self):
        """Return our children that still run; we are the subreaper of all that we start."""
        alive = set()
        for pid, state, name in children():
            if pid in self.known:
                continue
            if state == "Z":
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            else:
                alive.add(f"{pid} ({name})")
        return alive

    @staticmethod
    def grandchildren(pid):
        """Return the children of another process."""
        return {f"{child} ({name})" for child, _, name in children(pid)}

    def states(self):
        if not os.path.isdir(self.state):
            return set()
        return set(os.listdir(self.state))

    def leftovers(self, patience=2.0 * SLOWNESS):
        """Return what was not there before, once it had time to go away."""
        found = []

        def clean():
            now = self.look()
            found[:] = [
                f"{kind}: {item}" for kind in now for item in sorted(now[kind] - self.before[kind])
            ]
            # Others on this machine may remove what they mounted before we came, with its place.
            gone = self.before["mount"] - now["mount"]
            found.extend(f"mount gone: {i}" for i in gone if os.path.exists(i.split()[4]))
            return not found

        eventually(clean, patience)
        return found

    def end(self, name):
        """Kill our children of that name, which a test is done with."""
        for pid, _, its in children():
            if its == name and pid not in self.known:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def sweep(self):
        """Remove by hand what a runtime left, so that the next test starts clean."""
        for pid, _, _ in children():
            if pid not in self.known:
                os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        for path in self.cgroups():
            for folder, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        shutil.rmtree(self.state, ignore_errors=True)


def children(of=None):
    """Return (pid, state, name) of each child of a process, by default of this one."""
    me = str(of or os.getpid())
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    stat = file.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            head, _, tail = stat.rpartition(")")
            state, parent = tail.split()[:2]
            if parent == me:
                found.append((int(entry), state, head.partition("(")[2]))
    return found


class Mount:
    """One line of mountinfo (proc(5)), taken apart."""

    def __init__(self, line):
        head, _, tail = line.partition(" - ")
        fields = head.split()
        self.root, self.point = fields[3:5]
        self.options = set(fields[5].split(","))
        self.propagation = (
            " ".join(sorted(tag.partition(":")[0] for tag in fields[6:])) or "private"
        )
        self.fstype, self.source, options = tail.split(" ", 2)
        self.super_options = set(options.split(","))


def mount_table(text):
    """Parse mountinfo: mount point → Mount, the topmost where several lie on each other."""
    return {mount.point: mount for mount in map(Mount, text.strip().splitlines())}


def bind(source, destination, *options):
    """Return a bind mount of the config."""
    kind = [] if {"bind", "rbind"} & set(options) else ["bind"]
    return {
        "destination": destination,
        "type": "bind",
        "source": str(source),
        "options": [*kind, *options],
    }


def tmpfs(destination, *options):
    """Return a tmpfs mount of the config."""
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": list(options),
    }
