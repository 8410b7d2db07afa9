"""Real engines for the integration tests: dockerd, containerd and Podman drive the runtime.

Each engine gets a World: a mount and a network namespace of its own, so that its mounts,
bridges and firewall rules end with it, and two engines cannot meet in iptables.  Its state
lies below the session's base directory, its cgroups below one of the session's name.

The image is made here, of the machine's static busybox: nothing is pulled.

A Recorder stands between an engine and the runtime, and tells what the one asked of the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import tarfile
import termios
import time

from tests.integration.support import PATIENCE, cgroup_hierarchies, eventually

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

    def __str__(self):
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

    def __init__(self):
        unshare = ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c"]
        self.keeper = subprocess.Popen(
            [*unshare, self.PREPARE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
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
        for path in [*self.folders(), *self.tops()]:
            with contextlib.suppress(OSError):
                os.rmdir(path)


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


def gone(look, patience=5.0):
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
