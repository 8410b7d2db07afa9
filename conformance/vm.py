#!/usr/bin/env python3
"""Run a command in a virtual machine that has what this machine may lack.

A distribution kernel boots under qemu on this machine's own root file system: cgroup v2
alone, every capability, AppArmor, and soft-RoCE with --rdma.

    python3 conformance/vm.py -- cat /sys/fs/cgroup/cgroup.controllers
    python3 conformance/vm.py --share results -- bash test.sh

Inside, `/` is this machine's, read-only; /etc, /home, /opt, /srv, /tmp, /usr and /var are
overlays, /run and /mnt are tmpfs, and what is written there is lost.  The shared directory
keeps its path and may be written.  Container engines want their data on /mnt.  What many
programs read, such as Python's own library, is read ten times as fast as a --copy in memory;
the copy lies in those overlays, so it can be had only of what is below them.

With --systemd the command runs as a service of a systemd that is pid 1 of a pid namespace, with a
message bus and, given --user UID, with that user's own systemd, as after a login.  It starts
nothing else: what systems do at boot, such as emptying /tmp, is masked.

Output is passed on as it comes, the exit status is that of the command, 124 after
--timeout, 125 when the machine did not come up, 3 when something is not installed.  It
installs nothing itself.  One boot costs 20 s on idle cores, several times that on busy
ones, and every program inside runs slowly: put many tests into one run.

With --uml KERNEL the machine is a user-mode Linux: that kernel runs as a process of this machine's,
and what runs on it runs on the processor itself.  It boots in seconds, starts programs some ten
times as fast, and needs neither qemu nor modules; docs/conformance.md tells how to build one.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDS = (
    # program             comes from, for the emulated machine
    ("qemu-system-x86_64", "apt-get install qemu-system-x86"),
    ("vng", "pip install virtme-ng, in a virtual environment on PATH or named with --vng"),
    ("busybox", "apt-get install busybox-static"),
)

# Debian's kernel has these as modules, and nothing inside loads them by itself.
MODULES = ("overlay", "veth", "bridge", "fuse", "tun", "dummy", "loop")

# An emulated processor need not be protected from itself, which costs it much of its speed.
KERNEL = "mitigations=off"

# The host's files are not cached inside: each is read anew by every program that opens it.
COPY = "tar -xf {archive} -C / 2> /dev/null\n"
TOOLS = "bash cat env ip mkdir mount nsenter setpriv sh sleep tar umount unshare".split()
NOT_COPIED = (
    "*/.git", "*/site-packages", "*/dist-packages", "python3*/test", "python3*/config-*",
    "*/*.opt-[12].pyc",
)  # fmt: skip

RDMA = """\
modprobe -a rdma_rxe ib_uverbs rdma_ucm ib_umad dummy 2> /dev/null
for n in 0 1; do
    ip link add roce$n type dummy
    ip addr add 10.9.$((9 - n)).1/24 dev roce$n
    ip link set roce$n up
    rdma link add rxe$n type rxe netdev roce$n
done
"""

# Runs as root in the guest.  The command's own output goes to a file because the console
# carries the kernel's messages too; the status is written last and by rename, as a sign.
SCRIPT = """\
exec > {share}/.vm/out 2>&1 < /dev/null
export HOME=/root PATH={path}
mount -t tmpfs tmpfs /mnt
modprobe -a {modules} 2> /dev/null
{copy}{setup}ip link set lo up
cd {cwd}
{command}
echo $? > {share}/.vm/status.new
sync
mv {share}/.vm/status.new {share}/.vm/status
"""

# Pid 1 of a user-mode Linux, whose root file system is this machine's as it is: the file systems,
# as virtme-ng has them in the other machine, and those of the kernel as systemd mounts them.
UML_INIT = """\
exec < /dev/null
mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
mountpoint -q /dev || mount -t devtmpfs -o nosuid,mode=755 devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
ln -sfn /proc/self/fd /dev/fd
ln -sf fd/0 /dev/stdin
ln -sf fd/1 /dev/stdout
ln -sf fd/2 /dev/stderr
# As udev has it.
chmod 666 /dev/fuse /dev/net/tun
mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t mqueue -o nosuid,noexec,nodev mqueue /dev/mqueue
mount -t securityfs -o nosuid,noexec,nodev securityfs /sys/kernel/security
mount -t cgroup2 -o nosuid,noexec,nodev,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
modprobe overlay 2> /dev/null
for name in etc home opt srv tmp usr var; do
    mkdir -p /run/.vm/$name/upper /run/.vm/$name/work
    chmod --reference=/$name /run/.vm/$name/upper
    mount -t overlay -o lowerdir=/$name,upperdir=/run/.vm/$name/upper,workdir=/run/.vm/$name/work \
        overlay /$name
done
# procps wants to be told of cores.  User namespaces get a /proc where there is one that shows all.
mkdir /run/.vm/proc
mount -t proc -o nosuid,noexec,nodev proc /run/.vm/proc
sed 's/^fpu/core id\\t\\t: 0\\n&/' /proc/cpuinfo > /run/.vm/cpuinfo
mount --bind /run/.vm/cpuinfo /proc/cpuinfo
hostname vm
mount -t hostfs -o {share} hostfs {share}
bash {script}
busybox poweroff -f
"""

# Becomes a systemd that can make scopes, and runs its arguments as a service of that.
SYSTEMD = """\
units=/run/systemd/system
mkdir -p $units /run/systemd/user
for wants in /lib/systemd/system/*.target.wants/*; do
    ln -sf /dev/null $units/${{wants##*/}}
done
cat > $units/vm.target << 'END'
[Unit]
DefaultDependencies=no
Wants=dbus.socket dbus.service
END
cat > $units/vm-dbus.socket << 'END'
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
Service=dbus.service
END
rm -f $units/dbus.socket $units/dbus.service
mv $units/vm-dbus.socket $units/dbus.socket
cat > $units/dbus.service << 'END'
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
END
cat > $units/user@.service << 'END'
[Unit]
DefaultDependencies=no
[Service]
Type=notify
User=%i
Slice=user-%i.slice
Delegate=pids memory cpu cpuset io
Environment=HOME=/run/user/%i XDG_RUNTIME_DIR=/run/user/%i
ExecStartPre=+install -d -m 0700 -o %i /run/user/%i
ExecStart=/lib/systemd/systemd --user --unit=vm.target --log-target=console
StandardOutput=append:{log}
StandardError=append:{log}
KillMode=mixed
END
sed s/^Wants.*// $units/vm.target > /run/systemd/user/vm.target
env -i container=vm PATH=$PATH unshare -fp --mount-proc -m --propagation private \
    /lib/systemd/systemd --system --unit=vm.target --log-target=console --show-status=no \
    > {log} 2>&1 < /dev/null &
for try in $(seq 60); do
    sleep 1
    read -r one rest < /proc/$!/task/$!/children || continue
    enter="nsenter -t $one -p -m"
    $enter systemctl is-active --quiet vm.target dbus.service 2> /dev/null && break
done
for user in {users}; do
    echo vm$user:x:$user:$user::/run/user/$user:/bin/sh >> /etc/passwd
    echo vm$user:x:$user: >> /etc/group
    for try in 1 2 3 4 5; do
        $enter systemctl start user@$user.service && break
        sleep 1
    done
done
set -- -- "$@"
for name in $(compgen -e); do
    set -- --setenv=$name "$@"
done
exec $enter systemd-run --pipe --wait --quiet --collect -p DefaultDependencies=no \
    -p Delegate=yes --working-directory="$PWD" "$@"
"""


def kernels() -> list[Path]:
    """Return the kernels that have their modules here, newest last."""
    found = [path for path in Path("/boot").glob("vmlinuz-*") if modules_of(path).is_dir()]
    return sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def modules_of(kernel: Path) -> Path:
    return Path("/lib/modules", kernel.name.removeprefix("vmlinuz-"))


def missing(options: argparse.Namespace) -> list[str]:
    """Say what has to be installed before this can work, one line each."""
    if options.uml:
        return [] if os.access(options.uml, os.X_OK) else [f"{options.uml}: no program"]
    lines = []
    for program, source in NEEDS:
        wanted = options.vng if program == "vng" else program
        if shutil.which(wanted) is None:
            lines.append(f"{wanted}: not found: {source}")
    if options.kernel is None:
        lines.append("/boot: no kernel with modules: apt-get install linux-image-amd64")
    return lines


def boot(options: argparse.Namespace, share: Path) -> int:
    """Boot, run the command, pass its output on; return its exit status."""
    private = share / ".vm"
    private.mkdir(exist_ok=True)
    for name in ("status", "status.new"):
        (private / name).unlink(missing_ok=True)
    out = private / "out"
    out.write_text("")
    # A user-mode Linux asks this machine for its files, and caches them.
    wanted = options.copy if not options.uml else []
    copied = copy(private / "copy.tar", wanted) if wanted else ""
    command = options.command
    if options.systemd:
        lab = private / "systemd"
        users = "" if options.user is None else options.user
        lab.write_text(SYSTEMD.format(log=shlex.quote(str(private / "journal")), users=users))
        command = ["bash", str(lab), *command]
    script = private / "script"
    script.write_text(
        SCRIPT.format(
            share=shlex.quote(str(share)),
            path=shlex.quote(options.path),
            modules=" ".join((*MODULES, *options.module)),
            copy=copied,
            setup=RDMA if options.rdma else "",
            cwd=shlex.quote(options.cwd),
            command=shlex.join(command),
        )
    )
    argv, env = (by_uml if options.uml else by_qemu)(options, share, script)
    master, slave = pty.openpty()
    child = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
    )
    os.close(slave)
    console = threading.Thread(target=drain, args=(master, private / "console"), daemon=True)
    console.start()
    deadline = time.monotonic() + options.timeout
    try:
        with out.open("rb") as output:
            while True:
                ended = child.poll() is not None or (private / "status").exists()
                sys.stdout.buffer.write(output.read())
                sys.stdout.buffer.flush()
                if ended or time.monotonic() > deadline:
                    break
                time.sleep(0.2)
        if ended:
            child.wait(20)
    except subprocess.TimeoutExpired:
        pass  # it has said all, and takes its time to switch off
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    console.join(2)
    if not ended:
        print(f"vm: ran out of time after {options.timeout:.0f} s", file=sys.stderr)
        return 124
    try:
        return int((private / "status").read_text())
    except (OSError, ValueError):
        print(f"vm: no exit status came back; {last(private / 'console')}", file=sys.stderr)
        return 125


def by_qemu(
    options: argparse.Namespace, share: Path, script: Path
) -> tuple[list[str], dict[str, str]]:
    """Return the command, and its environment, that boots an emulated machine into `script`."""
    argv = [
        options.vng, "--run", str(options.kernel), "--memory", options.memory,
        "--cpus", str(options.cpus), "--user", "root", "--rwdir", str(share),
        *(("--disable-kvm",) if not options.kvm else ()),
        "--append", f"{KERNEL} {options.append}".strip(),
        "--exec", f"bash {shlex.quote(str(script))}",
    ]  # fmt: skip
    # virtme-ng finds its own helpers beside itself, and insists on a terminal.
    tools = os.path.dirname(os.path.abspath(shutil.which(options.vng) or options.vng))
    env = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", TERM="dumb")
    return argv, env


def by_uml(
    options: argparse.Namespace, share: Path, script: Path
) -> tuple[list[str], dict[str, str]]:
    """Return the command, and its environment, that boots a user-mode Linux into `script`."""
    init = share / ".vm" / "init"
    init.write_text(UML_INIT.format(share=shlex.quote(str(share)), script=shlex.quote(str(script))))
    argv = [
        str(options.uml), f"mem={options.memory}", f"ncpus={options.cpus}", "seccomp=on",
        "root=none", "rootfstype=hostfs", "rootflags=/", "ro", "con=none", "con0=fd:0,fd:1",
        "ssl=none", f"uml_dir={share / '.vm'}/", "panic=-1",
        # Drivers that are modules elsewhere make no devices before they are asked.
        "dummy.numdummies=0", "fb_tunnels=none", *options.append.split(),
        "init=/bin/bash", "--", str(init),
    ]  # fmt: skip
    return argv, {"PATH": options.path, "TERM": "dumb", "TMPDIR": "/dev/shm"}


def copy(archive: Path, paths: list[Path]) -> str:
    """Pack files and directories; return the line that unpacks them into the overlays, inside."""
    tools = [Path(where) for name in TOOLS if (where := shutil.which(name))]
    wanted = {path.resolve(): None for path in (*paths, *tools)}
    for path in list(wanted):
        wanted |= dict.fromkeys(libraries(path))
    names = {os.fsencode(file.relative_to("/")) for path in wanted for file in files(path)}
    subprocess.run(
        ["tar", "-C", "/", "-cf", str(archive), "--no-recursion", "--null", "--files-from=-"],
        input=b"\0".join(sorted(names)), check=True,
    )  # fmt: skip
    return COPY.format(archive=shlex.quote(str(archive)))


def files(path: Path) -> Iterator[Path]:
    """Yield a file, or those of a directory that programs need."""
    if not path.is_dir():
        yield path
    for folder, inner, names in os.walk(path):

        def wanted(name: str, above: str = os.path.basename(folder)) -> bool:
            return not any(fnmatch.fnmatchcase(f"{above}/{name}", glob) for glob in NOT_COPIED)

        inner[:] = filter(wanted, inner)
        for name in filter(wanted, names):
            yield Path(folder, name)


def libraries(program: Path) -> list[Path]:
    """Return the shared libraries of a program; none of what is not one."""
    if not program.is_file():
        return []
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return [Path(path).resolve() for path in re.findall(r"(/\S+) \(0x", told.stdout)]


def drain(master: int, path: Path) -> None:
    """Copy the console into a file until it closes."""
    with path.open("wb") as log:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the other side is closed
                return
            if not data:
                return
            log.write(data)
            log.flush()


def last(console: Path) -> str:
    lines = console.read_text(errors="replace").split("\n") if console.exists() else []
    tail = [line.strip() for line in lines if line.strip()][-5:]
    return "the console ends:\n" + "\n".join(f"    {line}" for line in tail)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], usage="%(prog)s [options] -- CMD ..."
    )
    beside = os.path.join(os.path.dirname(sys.executable), "vng")
    parser.add_argument("--share", type=Path, metavar="DIR", help="directory to write in")
    parser.add_argument("--timeout", type=float, default=900, metavar="S")
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kernel", type=Path, metavar="FILE", help="default: the newest in /boot")
    parser.add_argument("--uml", type=Path, metavar="FILE", help="boot this user-mode Linux")
    parser.add_argument("--kvm", action="store_true", help="believe in /dev/kvm")
    parser.add_argument("--append", default="", metavar="ARGS", help="for the kernel command line")
    parser.add_argument("--module", action="append", default=[], metavar="NAME", help="load it too")
    parser.add_argument("--rdma", action="store_true", help="make two soft-RoCE devices")
    parser.add_argument("--copy", action="append", default=[], type=Path, metavar="PATH",
                        help="read it from memory, inside")  # fmt: skip
    parser.add_argument("--systemd", action="store_true", help="run CMD as a service of a systemd")
    parser.add_argument("--user", type=int, metavar="UID", help="with --systemd: UID has his, too")
    parser.add_argument("--cwd", default=os.getcwd(), metavar="DIR")
    parser.add_argument("--path", default=os.environ.get("PATH", os.defpath), help="PATH inside")
    parser.add_argument(
        "--vng", default=beside if os.path.exists(beside) else "vng", metavar="FILE"
    )
    parser.add_argument("--check", action="store_true", help="only say what is missing")
    parser.add_argument("command", nargs="*", metavar="CMD")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.kernel is None:
        options.kernel = kernels()[-1] if kernels() else None
    if lines := missing(options):
        print("\n".join(f"vm: {line}" for line in lines), file=sys.stderr)
        return 3
    if options.check:
        return 0
    if not options.command:
        parser.error("which command?")
    if options.share:
        options.share.mkdir(parents=True, exist_ok=True)
        return boot(options, options.share.resolve())
    with tempfile.TemporaryDirectory(prefix="ocirt-vm-") as share:
        return boot(options, Path(share))


if __name__ == "__main__":
    sys.exit(main())
