"""ps and list: who is there, as people and as engines read it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.integration.support import (
    HOST_PIDS,
    cgroup_hierarchies,
    eventually,
    namespaces,
    only_ocirt,
)

# What crun does otherwise.
CRUN = {
    "test_ps_takes_its_option_in_every_spelling": "has no long options with one dash",
    "test_ps_of_a_stopped_container_is_empty": "refuses it",
    "test_ps_of_a_stopped_container_is_a_header": "refuses it",
    "test_ps_knows_two_formats": "says so on stderr alone",
    "test_ps_of_an_unknown_container": "prints an empty table",
    "test_list_shows_every_status": "goes by name and has other keys",
    "test_list_knows_two_formats": "says so on stderr alone",
}

needs_ps = pytest.mark.skipif(not shutil.which("ps"), reason="needs the host's ps")


@pytest.fixture(autouse=True)
def crun_differs(runtime, request):
    reason = CRUN.get(request.node.originalname)
    if reason and runtime.flavour == "crun":
        pytest.skip(f"crun {reason}")


def host_pids(runtime, bundle):
    return runtime.ok("ps", "--format", "json", bundle.id).json()


def comm(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


# --- ps


def test_ps_lists_host_pids_as_json(runtime, bundle):
    made = bundle.sh("sleep 1000 & sleep 1001 & wait")
    pid = runtime.started(made)
    assert eventually(lambda: len(host_pids(runtime, made)) == 3)
    out = runtime.ok("ps", "--format", "json", made.id).out
    assert out.endswith("]\n")
    pids = json.loads(out)
    assert pid in pids
    assert eventually(lambda: sorted(map(comm, pids)) == ["sh", "sleep", "sleep"])


@pytest.mark.parametrize("spelling", [("-f", "json"), ("--format=json",), ("-format", "json")])
def test_ps_takes_its_option_in_every_spelling(runtime, bundle, spelling):
    made = bundle.sleeping()
    pid = runtime.started(made)
    assert runtime.ok("ps", *spelling, made.id).json() == [pid]


def test_ps_of_a_created_container_is_its_init(runtime, bundle):
    made = bundle.sleeping()
    pid = runtime.create(made)
    assert host_pids(runtime, made) == [pid]


def test_ps_finds_processes_in_cgroups_below(runtime, bundle):
    made = bundle.sh("sleep 1000 & wait")
    pid = runtime.started(made)
    assert eventually(lambda: len(host_pids(runtime, made)) == 2)
    (child,) = set(host_pids(runtime, made)) - {pid}
    for top in cgroup_hierarchies():
        below = f"{top}/ocirt-test/{made.id}/below"
        if os.path.isdir(os.path.dirname(below)):
            os.mkdir(below)
            if top.endswith("/cpuset"):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    shutil.copyfile(f"{below}/../{name}", f"{below}/{name}")
            with open(f"{below}/cgroup.procs", "w") as file:
                file.write(str(child))
    assert set(host_pids(runtime, made)) == {pid, child}


def test_ps_of_a_stopped_container_is_empty(runtime, bundle):
    made = bundle("true")
    runtime.started(made)
    runtime.wait(made)
    result = runtime.ok("ps", "--format", "json", made.id)
    assert not result.json()
    if runtime.flavour != "crun":
        assert result.out == "null\n"


@needs_ps
def test_ps_of_a_stopped_container_is_a_header(runtime, bundle):
    made = bundle("true")
    runtime.started(made)
    runtime.wait(made)
    assert len(runtime.ok("ps", made.id).lines) == 1


@needs_ps
def test_ps_prints_the_lines_of_the_hosts_own(runtime, bundle):
    made = bundle("sleep", "4321")
    pid = runtime.started(made)
    header, line = runtime.ok("ps", made.id).lines
    assert "PID" in header
    assert str(pid) in line.split()
    if runtime.flavour != "crun":
        assert "CMD" in header
        assert line.endswith("sleep 4321")


@needs_ps
def test_ps_hands_options_on(runtime, bundle):
    if runtime.flavour == "crun":
        pytest.skip("crun takes no options of ps")
    made = bundle("sleep", "4321")
    pid = runtime.started(made)
    lines = runtime.ok("ps", made.id, "-o", "ppid,pid,args", "-e").lines
    assert [line.split() for line in lines] == [
        ["PPID", "PID", "COMMAND"],
        [str(os.getpid()), str(pid), "sleep", "4321"],
    ]


@needs_ps
def test_ps_needs_the_column_of_pids(runtime, bundle):
    if runtime.flavour == "crun":
        pytest.skip("crun takes no options of ps")
    made = bundle.sleeping()
    runtime.started(made)
    runtime.refuses("ps", made.id, "-o", "comm", saying="couldn't find PID field in ps output")
    runtime.refuses("ps", made.id, "-e", "-o", "args,pid", saying="unable to parse pid")


@needs_ps
def test_ps_says_what_the_hosts_ps_said(runtime, bundle):
    if not runtime.is_ocirt:
        pytest.skip("others print its usage, many lines long")
    made = bundle.sleeping()
    runtime.started(made)
    runtime.refuses("ps", made.id, "--nonsense", ours="ps: exit status 1: error: ")


@only_ocirt("others look for the program elsewhere")
def test_ps_says_that_there_is_no_ps(runtime, bundle, tmp_path):
    made = bundle.sleeping()
    runtime.started(made)
    runtime.refuses(
        "ps",
        made.id,
        ours='exec: "ps": executable file not found in $PATH',
        env={**os.environ, "PATH": str(tmp_path)},
    )


def test_ps_knows_two_formats(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    runtime.refuses("ps", "--format", "yaml", made.id, saying="invalid format option")


def test_ps_of_an_unknown_container(runtime):
    runtime.refuses("ps", "nobody", saying="does not exist")
    runtime.refuses("ps", "--format", "json", "nobody", saying="does not exist")


def test_ps_wants_an_id(runtime):
    result = runtime("ps")
    assert result.code == 1
    if runtime.flavour != "crun":
        assert '"ps" requires a minimum of 1 argument(s)' in result.error


def test_ps_in_a_shared_pid_namespace_lists_the_container_alone(runtime, bundle):
    made = bundle.sh("sleep 1000 & wait", linux=HOST_PIDS)
    pid = runtime.started(made)
    assert eventually(lambda: len(host_pids(runtime, made)) == 2)
    assert pid in host_pids(runtime, made)
    runtime.ok("kill", "--all", made.id, "KILL")
    runtime.wait(made)
    runtime.delete(made)


@only_ocirt("runc has no --cgroup-manager")
@pytest.mark.parametrize("own", [True, False], ids=["own pid namespace", "shared"])
def test_ps_without_a_cgroup_goes_by_the_pid_namespace(runtime, bundle, own):
    kinds = ["network", "ipc", "uts", "mount", *["pid"] * own]
    made = bundle.sh("sleep 1000 & wait", linux={"namespaces": namespaces(*kinds)})
    without = ["--cgroup-manager", "disabled", "create", "--bundle", made.path]
    without += ["--pid-file", made.pid_file, made.id]
    runtime.ok(*without, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runtime.start(made)
    pid = runtime.pid(made)
    assert eventually(lambda: len(host_pids(runtime, made)) == 2)
    assert host_pids(runtime, made)[0] == pid
    for one in reversed(host_pids(runtime, made)):
        os.kill(one, 9)
    runtime.wait(made)
    assert eventually(lambda: not host_pids(runtime, made))


# --- list


def rows(runtime, *options):
    return runtime.ok("list", *options, "--format", "json").json() or []


def test_list_of_nothing(runtime):
    os.makedirs(runtime.root, exist_ok=True)
    assert runtime.ok("list", "--quiet").out == ""
    assert not rows(runtime)
    assert len(runtime.ok("list").lines) == 1
    if runtime.flavour != "crun":
        assert runtime.ok("list", "-f", "json").out == "null\n"


def test_list_shows_every_status(runtime, bundle):
    created, running, paused, stopped = (bundle.sleeping() for _ in range(4))
    runtime.create(created)
    runtime.started(running)
    runtime.started(paused)
    runtime.ok("pause", paused.id)
    runtime.started(stopped)
    runtime.kill(stopped, 9)
    runtime.wait(stopped)
    found = {row["id"]: (row["status"], row["pid"]) for row in rows(runtime)}
    assert found == {
        created.id: ("created", runtime.pid(created)),
        running.id: ("running", runtime.pid(running)),
        paused.id: ("paused", runtime.pid(paused)),
        stopped.id: ("stopped", 0),
    }
    assert runtime.ok("list", "-q").lines == sorted(found)


def test_list_prints_a_table_in_the_manner_of_runc(runtime, bundle):
    if runtime.flavour == "crun":
        pytest.skip("crun has other columns")
    made = bundle.sleeping()
    pid = runtime.started(made)
    header, line = runtime.ok("list").lines
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    created = runtime.state(made)["created"]
    assert line.split() == [made.id, str(pid), "running", made.path, created, "root"]
    columns = [header.index(title) for title in header.split()]
    assert [line[start:].split(" ")[0] for start in columns] == line.split()
    assert columns[1] == max(12, len(made.id) + 3)


def test_list_has_the_keys_of_state_and_the_owner(runtime, bundle):
    if runtime.flavour == "crun":
        pytest.skip("crun has other keys")
    made = bundle("sleep", "1000", annotations={"org.example": "yes"})
    runtime.started(made)
    (row,) = rows(runtime)
    assert row == {**runtime.state(made), "owner": "root"}
    assert len(runtime.ok("list", "-f", "json").lines) == 1


@only_ocirt("runc does not look the user up in every version")
def test_list_shows_owners_by_name_or_number(runtime, bundle):
    made = bundle.sleeping()
    runtime.create(made)
    directory = os.path.join(runtime.root, made.id)
    everything = [directory, *(entry.path for entry in os.scandir(directory))]
    for uid, owner in ((54321, "#54321"), (0, "root")):
        for path in everything:
            os.chown(path, uid, -1)
        assert [row["owner"] for row in rows(runtime)] == [owner]


def test_list_passes_over_what_is_none_of_its_own(runtime, bundle):
    """Slurm's state root is /run/user/UID, where other programs keep their things."""
    made = bundle.sleeping()
    runtime.create(made)
    foreign = os.path.join(runtime.root, "systemd")
    os.makedirs(os.path.join(foreign, "units"))
    with open(os.path.join(runtime.root, "bus"), "w") as file:
        file.write("a file")
    result = runtime.ok("list", "--format", "json")
    assert [row["id"] for row in result.json()] == [made.id]
    assert os.path.isdir(os.path.join(foreign, "units")), "not ours to delete"
    if runtime.is_ocirt:
        assert result.log == [], "it is not worth a warning"
    shutil.rmtree(foreign)
    os.unlink(os.path.join(runtime.root, "bus"))


@only_ocirt("the files of the state are private")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1}'])
def test_list_warns_of_a_state_that_it_cannot_read(runtime, bundle, text):
    made = bundle.sleeping()
    runtime.create(made)
    broken = os.path.join(runtime.root, "broken")
    os.mkdir(broken)
    with open(os.path.join(broken, "state.json"), "w") as file:
        file.write(text)
    result = runtime.ok("list", "--format", "json")
    assert [row["id"] for row in result.json()] == [made.id]
    (line,) = result.log
    assert line["level"] == "warning"
    assert line["msg"].startswith("load container broken: ")
    assert os.path.exists(os.path.join(broken, "state.json"))
    shutil.rmtree(broken)


@only_ocirt("the files of the state are private")
def test_list_passes_over_what_is_half_written(runtime):
    half = os.path.join(runtime.root, "half")
    os.makedirs(half)
    for name in (".state.json.123", "exec.fifo"):
        with open(os.path.join(half, name), "w") as file:
            file.write("{")
    assert runtime.ok("list", "-q").out == ""
    assert os.listdir(half)
    shutil.rmtree(half)


def test_list_knows_two_formats(runtime):
    os.makedirs(runtime.root, exist_ok=True)
    runtime.refuses("list", "--format", "yaml", saying="invalid format option")


def test_list_takes_no_words(runtime):
    if runtime.flavour == "crun":
        pytest.skip("crun does")
    result = runtime("list", "web1")
    assert result.code == 1
    assert '"list" requires exactly 0 argument(s)' in result.error


@only_ocirt("older runc makes the directory")
def test_a_root_that_was_named_has_to_be_there(runtime, tmp_path):
    missing = str(tmp_path / "nowhere")
    result = runtime("--root", missing, "list")
    runtime.check_refusal(result, "", f"{missing}: no such file or directory")
    assert not os.path.exists(missing)


@only_ocirt("older runc makes the directory")
def test_the_usual_root_may_be_missing(runtime, tmp_path):
    if os.path.exists("/run/ocirt"):
        pytest.skip("there is one")
    result = runtime("list", prefix=False)
    assert result.code == 0
    assert len(result.lines) == 1
    assert not os.path.exists("/run/ocirt")
