"""The forms of command line that engines were seen to send, word for word, each on a bundle.

The life of a container once in each engine's dialect: containerd's shim, Podman with conmon,
Slurm.  What they ask once, or of nobody, comes after.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.integration.support import cgroup_of, eventually, only_ocirt

SHIM = "--root {ROOT} --log {LOG} --log-format json"


class Dialect:
    """A bundle, the global options as one engine writes them, and its files."""

    def __init__(self, runtime, b, workdir, prefix):
        self.runtime, self.b, self.workdir = runtime, b, workdir
        names = {"ROOT": runtime.root, "LOG": f"{workdir}/log.json"}
        self.prefix = [word.format(**names) for word in prefix.split()]
        self.process = f"{workdir}/process.json"
        with open(self.process, "w") as file:
            json.dump({**b.config["process"], "args": ["sleep", "1000"]}, file)
        self.pid_file = f"{workdir}/exec.pid"

    def __call__(self, form, code=0, **popen):
        """Call the runtime; ID, BUNDLE and so on stand for what they say."""
        names = {
            "ID": self.b.id,
            "BUNDLE": self.b.path,
            "PIDFILE": self.b.pid_file,
            "PROCESS": self.process,
            "EXECPID": self.pid_file,
            "FILE": f"{self.workdir}/resources.json",
        }
        words = [word.format(**names) for word in form.split()]
        with open(f"{self.workdir}/said", "w+") as said:
            popen.setdefault("stdout", said)
            result = self.runtime(*self.prefix, *words, prefix=False, stderr=said, **popen)
            said.seek(0)
            result.out = said.read()
        assert result.code == code, f"{result}\n{result.out}"
        return result.out

    def exec(self, form):
        """One more process; return its pid."""
        self(form)
        with open(self.pid_file) as file:
            pid = int(file.read())
        os.unlink(self.pid_file)
        return pid

    def limit(self):
        """Return the number of processes that the container may have."""
        with open(f"{cgroup_of(self.b, 'pids')}/pids.max") as file:
            return file.read().strip()

    def end(self, code=137):
        assert self.runtime.wait(self.b) == code


@pytest.fixture
def dialect(runtime, bundle, workdir):
    def made(prefix, script="sleep 1000", **patch):
        return Dialect(runtime, bundle.sh(script, **patch), workdir, prefix)

    return made


@pytest.mark.parametrize("more", ["", " --systemd-cgroup"], ids=["plain", "systemd"])
def test_containerds_shim(dialect, runtime, more):
    """The driver is what `create` was told: later verbs hear --systemd-cgroup, and need not."""
    ask = dialect(SHIM, "trap 'exit 5' TERM; touch /up; while :; do usleep 9999; done")
    ask("create --bundle {BUNDLE} --pid-file {PIDFILE} {ID}", stdout=subprocess.DEVNULL)
    ask.prefix += more.split()
    ask("start {ID}")
    assert eventually(lambda: os.path.exists(ask.b.inside("/up")))
    first = ask.exec("exec --process {PROCESS} --detach --pid-file {EXECPID} {ID}")
    second = ask.exec("exec --detach --pid-file {EXECPID} --process {PROCESS} {ID}")
    pids = json.loads(ask("ps --format json {ID}"))
    assert {runtime.pid(ask.b), first, second} <= set(pids)
    ask("pause {ID}")
    ask("resume {ID}")
    for number, form in enumerate(("--resources - {ID}", "--resources=- {ID}")):
        ask(f"update {form}", input=json.dumps({"pids": {"limit": 60 + number}}))
        assert ask.limit() == f"{60 + number}"
    ask("kill {ID} 15")
    for pid in (first, second):
        runtime.wait(ask.b, pid)
    ask.end(5)
    ask("kill --all {ID} 9")
    ask("delete {ID}")
    ask("delete --force {ID}")
    ask("delete --force {ID}")


def test_podman_and_conmon(dialect, runtime):
    ask = dialect("--log-format=json --log {LOG} --root {ROOT}")
    with open(f"{ask.workdir}/resources.json", "w") as file:
        json.dump({"pids": {"limit": 44}}, file)
    ask("create --bundle {BUNDLE} --pid-file {PIDFILE} {ID}", stdout=subprocess.DEVNULL)
    ask("start {ID}")
    pid = ask.exec("exec --pid-file {EXECPID} --process {PROCESS} --detach {ID}")
    ask("update --resources={FILE} {ID}")
    assert ask.limit() == "44"
    ask("kill {ID} 15")
    ask("kill --all {ID} 9")
    runtime.wait(ask.b, pid)
    ask.end()
    ask("delete --force {ID}")
    ask("delete --force {ID}")


def test_crio_and_conmon(dialect, runtime):
    """conmon creates; CRI-O does the rest itself, without a log, and reads what it is told."""
    script = "trap 'exit 5' TERM; touch /up; while :; do usleep 9999; done"
    ask = dialect("--log-format=json --log {LOG} --root={ROOT}", script)
    ask("create --bundle {BUNDLE} --pid-file {PIDFILE} {ID}", stdout=subprocess.DEVNULL)
    ask.prefix = ["--root", runtime.root]
    ask("start {ID}")
    assert eventually(lambda: os.path.exists(ask.b.inside("/up")))
    state = json.loads(ask("state {ID}"))
    assert (state["status"], state["pid"]) == ("running", runtime.pid(ask.b))
    assert state["created"]
    with open(ask.process, "w") as file:
        json.dump({**ask.b.config["process"], "args": ["sh", "-c", "echo said; exit 7"]}, file)
    assert ask("exec --process {PROCESS} {ID}", code=7) == "said\n"
    ask("pause {ID}")
    assert json.loads(ask("state {ID}"))["status"] == "paused"
    ask("resume {ID}")
    ask("update --resources - {ID}", input=json.dumps({"pids": {"limit": 55}}))
    assert ask.limit() == "55"
    ask("kill {ID} TERM")
    ask.end(5)
    assert "container not running" in ask("kill {ID} KILL", code=1)
    ask("kill -a {ID} 9")
    ask("delete --force {ID}")


@pytest.mark.parametrize("prefix", ["--root={ROOT}", "--rootless=false --root={ROOT}"])
def test_slurm(dialect, runtime, prefix):
    if runtime.flavour == "crun":
        pytest.skip("crun takes no options after the id")
    for form in ("run -b {BUNDLE} {ID}", "run {ID} -b {BUNDLE}"):
        ask = dialect(prefix, "exit 3")
        ask(form, code=3)
    ask = dialect(prefix)
    ask("state {ID}", code=1)
    ask("create {ID} -b {BUNDLE} --pid-file {PIDFILE}", stdout=subprocess.DEVNULL)
    assert json.loads(ask("state {ID}"))["status"] == "created"
    ask("start {ID}")
    assert json.loads(ask("state {ID}"))["status"] == "running"
    ask("kill -a {ID} 9")
    ask.end()
    assert json.loads(ask("state {ID}"))["status"] == "stopped"
    ask("delete --force {ID}")


def test_one_dash_will_do(dialect, runtime):
    """go-runc writes -no-subreaper."""
    ask = dialect("-root {ROOT} -log {LOG} -log-format json")
    ask(
        "run -detach -no-subreaper -bundle {BUNDLE} -pid-file {PIDFILE} {ID}",
        stdout=subprocess.DEVNULL,
    )
    assert json.loads(ask("ps -format json {ID}")) == [runtime.pid(ask.b)]
    ask("delete -force {ID}")


def test_an_engine_asks_what_it_has_before_it(runtime):
    for words in (["--version"], ["-v"]):
        text = runtime(*words, prefix=False).out
        assert text.startswith(f"{runtime.flavour} version ")
        assert "\nspec: 1." in text
    for words in (["checkpoint", "--help"], ["restore", "--help"]):
        if runtime.is_ocirt and words[0] not in runtime("--help", prefix=False).out:
            continue
        assert runtime(*words, prefix=False).code == 0


@only_ocirt("runc 1.1 and crun 1.8 have other features")
def test_the_features_need_neither_a_root_nor_anything_else(runtime):
    result = runtime("features", prefix=False, cwd="/", env={}, stdin=subprocess.DEVNULL)
    assert result.code == 0
    assert json.loads(result.out)["ociVersionMax"].startswith("1.")


def test_nothing_is_said_after_the_container_has_started(runtime, bundle):
    """What `create` gets as stdout and stderr are the container's own pipes."""
    b = bundle("echo", "mine")
    with open(b.out, "w") as out:
        runtime.ok("--debug", "create", "-b", b.path, b.id, stdout=out, stderr=out)
    before = b.output()
    runtime.start(b)
    assert eventually(lambda: b.output() != before)
    assert b.output() == before + "mine\n"
