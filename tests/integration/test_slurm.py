"""srun and sbatch --container: a Slurm of one node starts containers as an unprivileged user.

The oci.conf is what `ocirt setup slurm` writes.  The daemons run in namespaces of their own, in
which a user of that kind exists; Slurm's ports are open nowhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import time

import pytest

from tests.integration import engines, gpu_node, mpi
from tests.integration.support import UNIFIED, cgroup_hierarchies, eventually, only_ocirt

pytestmark = only_ocirt("is set up by `ocirt setup slurm`")

UID, USER = 41001, "ocirt-user"
OLD = bool(shutil.which("slurmd")) and " 22." in engines.call(["slurmd", "-V"]).out
ROOT = f"/tmp/ocirt-{USER if OLD else UID}"  # of the state, as setup has it
NODE = "ocirt1"  # Slurm names its cgroup after it
APPLETS = "cat echo env id kill ls sh sleep stat stty touch true tty"

CONF = """\
ClusterName=ocirt
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=17817
AuthType=auth/munge
AuthInfo=socket={top}/munge/socket
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=1
ReturnToService=2
GresTypes=gpu
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port=17818 CPUs=2 RealMemory=1000 Gres=gpu:8
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""

PREPARE = """
set -e
ip address add 192.0.2.1/32 dev lo  # without an address that is not lo's, srun resolves nothing
# Not file by file: when somebody adds a user to the machine, a mount upon passwd would go.
mount -t overlay -o "lowerdir=$1/accounts:/etc" overlay /etc
"""


class Cluster:
    """A controller and a node; commands are run by USER at home, which holds a bundle."""

    def __init__(self, top, runtime):
        self.top, self.runtime = top, runtime
        self.home, self.conf = f"{top}/home", f"{top}/etc/slurm/slurm.conf"
        self.bundle = f"{self.home}/bundle"
        self.world = engines.World(own_run=True)
        self.daemons = []

    def start(self):
        host = socket.gethostname().partition(".")[0]
        os.mkdir(f"{self.top}/accounts")
        for name, line in (
            ("passwd", f"{USER}:x:{UID}:{UID}::{self.home}:/bin/sh\n"),
            ("group", f"{USER}:x:{UID}:\n"),
            ("hosts", f"127.0.0.1 localhost {host}\n"),
        ):
            with open(f"/etc/{name}") as old, open(f"{self.top}/accounts/{name}", "w") as new:
                new.write(line + old.read())
        done = engines.call(self.world.enter("sh", "-c", PREPARE, "sh", self.top))
        assert done.code == 0, done
        for name in ("munge", "state", "spool", "etc/slurm", "home"):
            os.makedirs(f"{self.top}/{name}", mode=0o755)
        with open(self.conf, "w") as file:
            file.write(CONF.format(top=self.top, host=host, node=NODE))
        with open(f"{self.top}/etc/slurm/cgroup.conf", "w") as file:
            file.write("CgroupPlugin=cgroup/v1\nConstrainDevices=yes\n")
        line = [self.runtime, "setup", "slurm", "--root", self.top, "--path", self.runtime]
        if OLD:
            line.append("--slurm-22")
        done = engines.call(line)
        assert done.code == 0, done
        self.furnish()
        key = f"{self.top}/munge/key"
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(os.urandom(128))
        self._spawn(
            "munged", "--foreground", "--force", "--key-file", key,
            "--socket", f"{self.top}/munge/socket", "--pid-file", f"{self.top}/munge/pid",
            "--log-file", f"{self.top}/munge/log", "--seed-file", f"{self.top}/munge/seed",
        )  # fmt: skip
        assert eventually(lambda: os.path.exists(f"{self.top}/munge/socket")), self.log()
        self._spawn("slurmctld", "-D", "-f", self.conf)
        self._spawn("slurmd", "-D", "-f", self.conf, "-N", NODE)
        assert eventually(lambda: "idle" in self.root_does("sinfo", "-h").out), self.log()

    def furnish(self):
        """Put eight GPUs into the node, which Slurm gives out and /etc/ocirt names."""
        gpu_node.furnish(f"{self.top}/gpus")
        os.chmod(f"{self.top}/gpus", 0o755)
        shutil.copytree(f"{self.top}/gpus/etc/ocirt", f"{self.top}/accounts/ocirt")
        with open(f"{self.top}/etc/slurm/gres.conf", "w") as file:
            file.write(f"NodeName={NODE} Name=gpu File={self.top}/gpus/node/dev/nvidia[0-7]\n")

    def _spawn(self, *argv):
        log = f"{self.top}/{argv[0]}.log"
        self.daemons.append(self.world.spawn(*argv, log=log, env=self.environment()))

    def environment(self):
        # Slurm may be one that has been built by hand.
        places = [os.path.dirname(shutil.which(name)) for name in ("slurmd", "srun")]
        path = ":".join([*dict.fromkeys(places), "/usr/sbin:/usr/bin:/sbin:/bin"])
        return {"PATH": path, "SLURM_CONF": self.conf,
                "HOME": self.home, "USER": USER, "TERM": "xterm"}  # fmt: skip

    def log(self):
        text = ""
        for name in os.listdir(self.top):
            if name.endswith(".log"):
                with open(f"{self.top}/{name}", errors="replace") as file:
                    text += f"{name}:\n{file.read()[-3000:]}\n"
        return text

    def line(self, *argv):
        who = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return self.world.enter(*who, "env", "-C", self.home, *argv)

    def root_does(self, *argv):
        return engines.call(self.world.enter(*argv), env=self.environment())

    def __call__(self, *argv):
        """Run a command as USER."""
        return engines.call(self.line(*argv), env=self.environment())

    def srun(self, *argv):
        return self("srun", "--quiet", f"--container={self.bundle}", *argv)

    def begin(self, *argv):
        """Start a job in the background that touches `begun` and goes on; return its number."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.home}/shared/begun")
        script = f"{self.home}/job"
        with open(script, "w") as file:
            file.write("#!/bin/sh\ntouch /shared/begun\n" + "\n".join(argv) + "\n")
        done = self("sbatch", "--parsable", f"--container={self.bundle}", "--output=out", script)
        assert done.code == 0, done
        assert eventually(lambda: os.path.exists(f"{self.home}/shared/begun")), self.log()
        return done.out.strip()

    def status(self, job):
        """Return the state of a job, as long as Slurm knows it."""
        found = re.search(r"JobState=(\S+)", self("scontrol", "show", "job", job).out)
        return found[1] if found else ""

    def out(self):
        with open(f"{self.home}/out") as file:
            return file.read()

    def leftovers(self):
        """Name what should have gone with the jobs."""
        found = [f"process {pid}: {text}" for pid, text in self.world.processes().items()
                 if re.search("ocirt|slurmstepd|sleep", text) and "slurmd -D" not in text
                 and "slurmctld" not in text and "munged" not in text]  # fmt: skip
        with contextlib.suppress(FileNotFoundError):
            found += [f"state {name}" for name in os.listdir(ROOT)]
        return found + [f"spool {name}" for name in os.listdir(f"{self.top}/spool")
                        if name.startswith("oci-job")]  # fmt: skip

    def forget(self):
        """Remove the state of a runtime that was killed; Slurm before 23.02 has it done."""
        if not OLD:
            for name in os.listdir(ROOT):
                eventually(
                    lambda name=name: self(self.runtime, "--root", ROOT, "delete", name).code == 0
                )

    def stop(self):
        for daemon in reversed(self.daemons):
            engines.stop(daemon)
        self.world.close()
        for top in cgroup_hierarchies():
            for path, _, _ in os.walk(f"{top}/slurm_{NODE}", topdown=False):
                eventually(lambda path=path: _rmdir(path), 3)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(ROOT)


def _rmdir(path):
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return not os.path.exists(path)


@pytest.fixture(scope="module")
def slurm(machine, base, rootfs, public_runtime):
    if reason := engines.missing("slurmctld", "slurmd", "srun", "munged", "setpriv"):
        pytest.skip(reason)
    if UNIFIED:
        pytest.skip("slurmd with cgroup v2 needs systemd")
    if os.path.exists(ROOT):
        pytest.skip(f"somebody uses {ROOT}")
    top = f"{base}/slurm"
    os.mkdir(top)
    cluster = Cluster(top, public_runtime)
    try:
        cluster.start()
        make_bundle(cluster, rootfs)
        yield cluster
    finally:
        cluster.stop()


def make_bundle(cluster, rootfs):
    """Make a bundle as a user does: his files, `ocirt spec --rootless`."""
    os.makedirs(f"{cluster.home}/shared")
    shutil.copytree(rootfs, f"{cluster.bundle}/rootfs", symlinks=True)
    for name in ("shared", "usr/bin"):
        os.makedirs(f"{cluster.bundle}/rootfs/{name}", exist_ok=True)
    # Slurm resolves a command on its node's PATH: the container has to have it there, too.
    for name in APPLETS.split():
        os.symlink("../../bin/busybox", f"{cluster.bundle}/rootfs/usr/bin/{name}")
    engines.call(["chown", "-R", f"{UID}:{UID}", cluster.home])
    done = cluster(cluster.runtime, "spec", "--rootless", "--bundle", cluster.bundle)
    assert done.code == 0, done
    path = f"{cluster.bundle}/config.json"
    with open(path) as file:
        config = json.load(file)
    config["process"]["terminal"] = False
    shared = {"destination": "/shared", "type": "bind", "source": f"{cluster.home}/shared",
              "options": ["bind"]}  # fmt: skip
    config["mounts"].append(shared)
    with open(path, "w") as file:
        json.dump(config, file)


@pytest.fixture(autouse=True)
def nothing_stays(slurm):
    yield
    slurm.root_does("scancel", f"--user={USER}", "--signal=KILL", "--full")
    assert engines.gone(slurm.leftovers, 20) == [], slurm.log()


def test_a_step_runs_in_the_container(slurm):
    done = slurm.srun("sh", "-c", "id -u; cat /proc/1/comm; ls /shared /; echo err >&2")
    assert done.code == 0, done
    assert done.out.splitlines()[:2] == ["0", "sh"]
    assert "shared" in done.out
    assert "err" in done.err


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 0)]
)
def test_the_exit_code_is_the_programs(slurm, script, code):
    # The program is the first process of its pid namespace: it cannot kill itself.
    assert slurm.srun("sh", "-c", script).code == code


def test_input_and_output_pass_through(slurm):
    line = slurm.line("srun", "--quiet", f"--container={slurm.bundle}", "cat")
    done = engines.call(line, env=slurm.environment(), input="one\ntwo\n")
    assert (done.code, done.out) == (0, "one\ntwo\n"), done


def test_a_command_that_is_not_there_is_told(slurm):
    done = slurm.srun("/no/such/thing")
    assert done.code != 0
    assert "/no/such/thing" in done.err
    assert "no such file or directory" in done.err.lower()


def test_a_bundle_that_is_not_there_is_told(slurm):
    assert slurm("srun", f"--container={slurm.home}/nowhere", "true").code != 0


def test_a_batch_job_runs_in_the_container(slurm):
    job = slurm.begin("cat /proc/1/comm", "id -u", "exit 4")
    assert eventually(lambda: slurm.status(job) == "FAILED"), slurm.log()
    assert "ExitCode=4:0" in slurm("scontrol", "show", "job", job).out
    assert "\n0\n" in slurm.out()


def test_a_terminal(slurm):
    line = slurm.line("srun", "--quiet", "--pty", f"--container={slurm.bundle}",
                      "sh", "-c", "stty size; exit 5")  # fmt: skip
    done = engines.on_terminal(line, env=slurm.environment(), rows=31, columns=97)
    assert done.code == 5, done
    assert "31 97" in done.out


def test_a_job_that_is_cancelled_gets_its_signal(slurm):
    job = slurm.begin(
        "trap 'echo told >> /shared/told; exit 0' TERM", "while :; do sleep 0.1; done"
    )
    assert slurm("scancel", job).code == 0
    assert eventually(lambda: os.path.exists(f"{slurm.home}/shared/told")), slurm.log()
    assert eventually(lambda: slurm.status(job) == "CANCELLED"), slurm.log()
    os.unlink(f"{slurm.home}/shared/told")


def test_a_job_that_ignores_its_signal_is_killed(slurm):
    """The first process of a pid namespace ignores SIGTERM; then Slurm kills the runtime, too."""
    job = slurm.begin("exec sleep 1000")
    assert [name for name in os.listdir(ROOT) if f".{job}." in name]
    assert slurm("scancel", job).code == 0
    assert eventually(lambda: slurm.status(job) == "CANCELLED"), slurm.log()
    slurm.forget()


def test_a_killed_runtime_takes_the_container_along(slurm):
    slurm.begin("exec sleep 1000")
    (pid,) = [pid for pid, text in slurm.world.processes().items() if text.startswith("ocirt run ")]
    os.kill(pid, 9)
    slurm.forget()


def test_state_of_an_earlier_run_is_no_obstacle(slurm):
    os.makedirs(f"{ROOT}/{NODE}.{USER}.1.0.0", exist_ok=True)
    try:
        assert slurm.srun("true").code == 0
    finally:
        os.rmdir(f"{ROOT}/{NODE}.{USER}.1.0.0")


def test_steps_beside_each_other(slurm):
    script = f"{slurm.home}/steps"
    with open(script, "w") as file:
        file.write("#!/bin/sh\n")
        file.writelines(f"srun --quiet --overlap -n1 --container={slurm.bundle} "
                       f"sh -c 'echo step {number}; sleep 0.5; exit {number}' 2>/dev/null &\n"
                       f"pid{number}=$!\n" for number in (1, 2))  # fmt: skip
        file.write("wait $pid1; echo rc $?\nwait $pid2; echo rc $?\n")
    done = slurm("sbatch", "--parsable", "--output=out", script)
    assert done.code == 0, done
    job = done.out.strip()
    assert eventually(lambda: slurm.status(job) == "COMPLETED"), slurm.log()
    assert sorted(slurm.out().splitlines()) == ["rc 1", "rc 2", "step 1", "step 2"]


def test_a_root_that_somebody_else_made_is_refused(slurm):
    assert engines.gone(slurm.leftovers, 20) == []
    shutil.rmtree(ROOT, ignore_errors=True)
    os.mkdir(ROOT, 0o777)
    os.chown(ROOT, UID + 1, UID + 1)
    try:
        done = slurm.srun("true")
        assert done.code != 0
        assert f"--root {ROOT}: belongs to another user ({UID + 1})" in done.err
    finally:
        time.sleep(0.1)
        os.rmdir(ROOT)


# --- GPUs that the job was given, and no others


@contextlib.contextmanager
def annotated(slurm, **annotations):
    """Have the bundle ask for something, and leave it as it was."""
    path = f"{slurm.bundle}/config.json"
    with open(path) as file:
        before = file.read()
    config = json.loads(before)
    config["annotations"] = {f"ocirt.hpc/{name}": value for name, value in annotations.items()}
    with open(path, "w") as file:
        json.dump(config, file)
    try:
        yield
    finally:
        with open(path, "w") as file:
            file.write(before)


GIVEN = f"{gpu_node.LIST}; echo; echo $CUDA_VISIBLE_DEVICES; cat nvidia0 2>&1"


def step(slurm, count, script=GIVEN):
    container = f"--container={slurm.bundle}"
    return slurm("srun", "--quiet", f"--gres=gpu:{count}", container, "sh", "-c", script)


def test_a_step_gets_the_gpus_of_its_job(slurm):
    """Slurm 22.05 tells the runtime nothing of these: it is the devices cgroup of the job."""
    with annotated(slurm, gpus="all"):
        done = step(slurm, 2)
    assert done.out, (done, slurm.log())
    nodes, visible, opened = done.out.splitlines()
    assert nodes.split() == sorted([*gpu_node.CONTROL, "nvidia0", "nvidia1"])
    assert visible == "0,1"
    assert gpu_node.opened(opened) == ["allowed"]


def test_a_gpu_of_another_job_is_refused(slurm):
    with annotated(slurm, gpus="0"):  # whose node is /dev/nvidia2
        done = step(slurm, 2)
    assert done.code == 1
    assert "GPU 0 is not of this job (the job's cgroup gives it 2, 3)" in done.err


def test_who_asks_for_no_gpu_gets_none(slurm):
    assert step(slurm, 1, "ls /dev/nvidia* 2> /dev/null || echo none").out == "none\n"


# --- MPI: ranks in containers, started by srun


class Ranks:
    """A bundle with a program of MPI, for a user to start by srun."""

    def __init__(self, slurm, name, rootfs, compiler, plugins=()):
        self.slurm, self.path = slurm, f"{slurm.home}/{name}"
        shutil.copytree(rootfs, f"{self.path}/rootfs", symlinks=True)
        program = mpi.build(shutil.which(compiler), f"{slurm.home}/{name}-hello")
        os.rename(program, f"{self.path}/hello")
        mpi.furnish(f"{self.path}/rootfs", f"{self.path}/hello", *plugins)
        # The machine's /etc/ocirt is of a node that is elsewhere: only the profile counts here.
        open(f"{self.path}/hpc.toml", "w").close()
        engines.call(["chown", "-R", f"{UID}:{UID}", self.path])
        done = slurm(slurm.runtime, "spec", "--rootless", "--bundle", self.path)
        assert done.code == 0, done
        with open(f"{self.path}/config.json") as file:
            config = json.load(file)
        config["process"].update(terminal=False, args=["/bin/hello"], env=["PATH=/bin"])
        with open(f"{self.path}/config.json", "w") as file:
            json.dump(config, file)

    def __call__(self, protocol, size, *words):
        """Each rank is a `run` of its own, by the profile that brings in what srun has for it."""
        line = [self.slurm.runtime, "--root", ROOT, "--hpc-config", f"{self.path}/hpc.toml"]
        line += ["--hpc-profile", "hpc-job", "run", "--pmi-fd", "-b", self.path]
        script = f"exec {' '.join(line)} rank-$SLURM_JOB_ID.$SLURM_PROCID"
        return self.slurm("srun", "--quiet", f"--mpi={protocol}", "--overcommit", f"-n{size}",
                          *words, "sh", "-c", script)  # fmt: skip


@pytest.fixture(scope="module")
def mpich(slurm, rootfs):
    if reason := engines.missing("mpicc.mpich"):
        pytest.skip(reason)
    return Ranks(slurm, "mpich", rootfs, "mpicc.mpich")


@pytest.fixture(scope="module")
def open_mpi(slurm, rootfs):
    if reason := engines.missing("mpicc.openmpi"):
        pytest.skip(reason)
    return Ranks(slurm, "openmpi", rootfs, "mpicc.openmpi", mpi.open_mpi_plugins())


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_of_mpich_meet_through_srun(slurm, mpich, size):
    done = mpich("pmi2", size)
    assert sorted(done.out.splitlines()) == mpi.said(size), (done.err, slurm.log())
    assert done.code == 0


def test_ranks_of_open_mpi_meet_through_srun(slurm, open_mpi):
    """A user is himself in his container, or the server of PMIx would not know him."""
    done = open_mpi("pmix", 2)
    assert sorted(done.out.splitlines()) == mpi.said(2), (done.err, slurm.log())
    assert done.code == 0
