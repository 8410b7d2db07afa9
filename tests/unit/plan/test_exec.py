"""One more process: its plan, and what the options and the process document make of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ocirt import exec as entry
from ocirt import plan
from ocirt.cgroup import within
from ocirt.cli.plan import _row, table
from ocirt.errors import ConfigError, Error, KernelError
from ocirt.kernel import procfs
from ocirt.plan import ops
from ocirt.plan.host import Host
from ocirt.undo import Undo

GOLDEN = Path(__file__).parent.parent / "golden"
EVERY = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")


@pytest.fixture
def machine(tmp_path: Path) -> Host:
    """A machine with AppArmor and every capability."""
    status = tmp_path / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text("CapBnd:\t000001ffffffffff\n")
    enabled = tmp_path / "sys/module/apparmor/parameters/enabled"
    enabled.parent.mkdir(parents=True)
    enabled.write_text("Y\n")
    return Host(str(tmp_path))


def golden(name: str = "plain", **process: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    config["process"].update(process)
    return config


def context_of(config: dict[str, Any], host: Host, joins: tuple[str, ...] = ()) -> plan.Context:
    context = plan.Context(config, "web1", "/bundle", "/bundle/rootfs")
    context.host = host
    context.gate = False
    context.joins = joins or tuple(sorted(context.namespaces.new))
    context.attach_files = [("cgroup.pids", "/sys/fs/cgroup/pids/web1/tasks")]
    return context


def compiled(config: dict[str, Any], host: Host, joins: tuple[str, ...] = ()) -> list[ops.Op]:
    return plan.compile_entry(config, context_of(config, host, joins))


def names(found: list[ops.Op]) -> list[str]:
    return [op.name for op in found]


# --- the plan


@pytest.mark.parametrize("name", ["plain", "full"])
def test_the_plan_is_the_golden_one(name: str, machine: Host) -> None:
    joins = EVERY if name == "full" else ()
    text = table([_row(op) for op in compiled(golden(name), machine, joins)])
    path = GOLDEN / f"{name}.exec.txt"
    if os.environ.get("OCIRT_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_the_plan_can_be_written_down(machine: Host) -> None:
    found = compiled(golden("full"), machine, EVERY)
    words = {op.args[0] for op in found if op.name in ("attach", "join")}
    slots = {word: number for number, word in enumerate(sorted(words))}
    cut = plan.split(found)
    assert found[cut - 1].name == "clone"
    for part, first in ((found[:cut], 0), (found[cut:], cut)):
        assert len(ops.encode(part, first, slots)) > 16


def test_the_user_namespace_is_entered_last_and_the_others_are_tried_from_both_sides(
    machine: Host,
) -> None:
    joins = [op for op in compiled(golden(), machine, EVERY) if op.name == "join"]
    assert [op.args[0] for op in joins][-2:] == ["ns.user", "ns.cgroup"]
    assert [op.args[2] for op in joins] == [1] * 7 + [0]


def test_the_cgroup_namespace_is_entered_from_within_the_cgroup(machine: Host) -> None:
    found = compiled(golden(), machine, ("cgroup", "pid"))
    order = [op.args[0] if op.name == "join" else op.name for op in found]
    assert order.index("clone") < order.index("attach") < order.index("ns.cgroup")
    context = context_of(golden(), machine, ("cgroup", "user"))
    context.cgroup_late = False
    order = [op.args[0] for op in plan.compile_entry(golden(), context) if op.name == "join"]
    assert order == ["ns.cgroup", "ns.user"]


def test_no_namespace_is_made(machine: Host) -> None:
    found = compiled(golden("full"), machine, EVERY)
    assert next(op for op in found if op.name == "clone").args == (0, "")
    assert not {"unshare", "time_offsets", "mount", "bind", "hook", "mkdir", "gate"} & set(
        names(found)
    )


def test_what_has_no_mount_namespace_of_its_own_changes_its_root(machine: Host) -> None:
    config = golden()
    assert "pivot" not in names(compiled(config, machine))
    config["linux"]["namespaces"] = [{"type": "mount", "path": "/run/mnt"}]
    found = [op for op in compiled(config, machine, ("mount",)) if op.name in ("rootfs", "pivot")]
    assert [op.args for op in found] == [("/bundle/rootfs", 0), (ops.CHROOT,)]


def test_the_affinity_before_and_after_the_cgroups(machine: Host) -> None:
    process = {"execCPUAffinity": {"initial": "0", "final": "1,3"}}
    found = compiled(golden(**process), machine)
    masks = [op.args[0].rstrip(b"\0") for op in found if op.name == "affinity"]
    assert masks == [b"\x01", b"\x0a"]
    order = names(found)
    assert order.index("affinity") < order.index("clone") < order.index("attach")
    assert order.index("attach") < len(order) - 1 - order[::-1].index("affinity")


def test_without_an_affinity_every_cpu_is_allowed(machine: Host) -> None:
    assert [op.args for op in compiled(golden(), machine) if op.name == "affinity"] == [("",)]


def test_the_filter_and_the_last_steps_keep_their_order(machine: Host) -> None:
    order = names(compiled(golden(noNewPrivileges=True), machine))
    assert order.index("ask") < order.index("close_fds") < order.index("identity")
    assert order.index("capabilities") < order.index("program") < order.index("exec")
    assert order[-1] == "exec"


def test_the_keyring_is_the_containers_if_it_has_one(machine: Host) -> None:
    context = context_of(golden(), machine)
    found = plan.compile_entry(golden(), context)
    assert [op.args for op in found if op.name == "keyring"] == [("_ses.web1",)]
    context.no_new_keyring = True
    assert "keyring" not in names(plan.compile_entry(golden(), context))


def test_a_terminal_does_not_take_the_inits_console_away(machine: Host) -> None:
    config = golden(terminal=True, consoleSize={"height": 3, "width": 4})
    found = [op for op in compiled(config, machine) if op.name == "console"]
    assert [op.args for op in found] == [(3, 4, 0, -1, 0)]


# --- the process

BASE: dict[str, Any] = {
    "terminal": True,
    "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 0o77},
    "args": ["init"],
    "env": ["A=1"],
    "cwd": "/srv",
    "capabilities": {"bounding": ["CAP_KILL"], "effective": [], "permitted": ["CAP_KILL"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}],
    "apparmorProfile": "web",
    "oomScoreAdj": 7,
}


def wish(*args: str, **changes: Any) -> entry.Wish:
    made = entry.Wish("web1", "/run/ocirt")
    made.args = list(args)
    for name, value in changes.items():
        assert hasattr(made, name)
        setattr(made, name, value)
    return made


def process(*args: str, base: dict[str, Any] = BASE, **changes: Any) -> dict[str, Any]:
    return entry.process_of({"process": base}, wish(*args, **changes))


def test_the_base_is_the_containers_process_without_its_terminal() -> None:
    before = json.dumps(BASE)
    assert process("ls", "-l") == {**BASE, "args": ["ls", "-l"], "terminal": False}
    assert json.dumps(BASE) == before


def test_options_change_the_base() -> None:
    found = process(
        "ls", tty=True, cwd="/x", env=["B=2", "A=3"], user="9:8", additional_gids=["4"],
        process_label="l", apparmor="a", no_new_privs=True,
    )  # fmt: skip
    assert found == {
        **BASE,
        "args": ["ls"],
        "cwd": "/x",
        "env": ["A=1", "B=2", "A=3"],
        "user": {"uid": 9, "gid": 8, "additionalGids": [3, 4], "umask": 0o77},
        "selinuxLabel": "l",
        "apparmorProfile": "a",
        "noNewPrivileges": True,
    }


def test_the_group_stays_when_only_a_user_is_given() -> None:
    assert process("ls", user="9")["user"] == {**BASE["user"], "uid": 9}


@pytest.mark.parametrize(
    "text",
    ["1000:", ":5", "abc", "", ":", "-1", "+1", " 1", "1 ", "1:2:3", "1e3", "0x10", "1_0", "١",
     "4294967295", "4294967296", "99999999999999999999", "1:-1", "1:4294967295", "root", "1.0"],
)  # fmt: skip
def test_a_user_that_is_no_number_is_refused(text: str) -> None:
    if not text:
        assert process("ls", user="")["user"] == BASE["user"]
        return
    with pytest.raises(Error, match=r"is not a number from 0 to 4294967294"):
        process("ls", user=text)


@pytest.mark.parametrize("text", ["", "-1", "x", "4294967295"])
def test_a_group_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(Error, match="--additional-gids"):
        process("ls", additional_gids=[text])


def test_capabilities_are_added_but_never_inheritable() -> None:
    found = process("ls", capabilities=["CAP_CHOWN"])["capabilities"]
    assert found == {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "effective": ["CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
    }
    base = {**BASE, "capabilities": {"inheritable": ["CAP_KILL"]}}
    found = process("ls", base=base, capabilities=["CAP_CHOWN"])["capabilities"]
    assert found["inheritable"] == ["CAP_KILL"]
    assert found["ambient"] == ["CAP_CHOWN"]


def test_without_the_object_there_is_nothing_to_add_to() -> None:
    base = {key: value for key, value in BASE.items() if key != "capabilities"}
    assert "capabilities" not in process("ls", base=base, capabilities=["CAP_CHOWN"])


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(Error, match=r"^exec args cannot be empty$"):
        process()


def test_a_container_without_a_process_wants_a_document() -> None:
    with pytest.raises(ConfigError, match="--process"):
        entry.process_of({}, wish("ls"))


# --- the process document


@pytest.fixture
def document(tmp_path: Path) -> Any:
    def document(content: Any) -> str:
        path = tmp_path / "process.json"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return document


def test_a_document_replaces_the_process_and_the_options(document: Any) -> None:
    content = {
        "terminal": True, "args": ["id"], "cwd": "/", "user": {"uid": 5, "gid": 6, "umask": 18},
        "capabilities": {}, "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "apparmorProfile": "other", "oomScoreAdj": 0,
    }  # fmt: skip
    found = process("ls", process_file=document(content), user="9", tty=False, cwd="/x")
    assert found == content


def test_what_confines_the_container_stays_in_force(document: Any) -> None:
    content = {"args": ["id"], "cwd": "/", "apparmorProfile": "", "rlimits": []}
    found = process(process_file=document(content))
    for key in ("capabilities", "rlimits", "apparmorProfile", "oomScoreAdj"):
        assert found[key] == BASE[key]
    assert found["user"] == {"umask": 0o77}
    assert "env" not in found
    assert "terminal" not in found


HOSTILE = [
    (b"", "holds no JSON"),
    (b"{", "line 1"),
    (b"[]", "process: expected an object"),
    (b"null", "process: expected an object"),
    (b'"sh"', "process: expected an object"),
    (b"\xff\xfe", "not UTF-8"),
    (b"[" * 100000, "nest"),
    ({"args": ["id"]}, "process.cwd: missing"),
    ({"cwd": 1, "args": ["id"]}, "process.cwd: expected a string"),
    ({"cwd": "/", "args": "id"}, "process.args: expected a list"),
    ({"cwd": "/", "args": [1]}, r"process.args\[0\]: expected a string"),
    ({"cwd": "/", "args": ["a\0b"]}, r"process.args\[0\]: holds a NUL character"),
    ({"cwd": "/", "args": ["id"], "env": ["A=\0"]}, r"process.env\[0\]: holds a NUL"),
    ({"cwd": "/", "args": ["id"], "user": {"uid": -1}}, "process.user.uid: "),
    ({"cwd": "/", "args": ["id"], "user": {"uid": 1 << 32}}, "process.user.uid: "),
    ({"cwd": "/", "args": ["id"], "user": {"uid": "0"}}, "process.user.uid: expected an integer"),
    ({"cwd": "/", "args": ["id"], "user": {"uid": 1.0}}, "process.user.uid: expected an integer"),
    ({"cwd": "/", "args": ["id"], "user": {"uid": True}}, "process.user.uid: expected an integer"),
    ({"cwd": "/", "args": ["id"], "noNewPrivileges": "false"}, "expected true or false"),
    ({"cwd": "/", "args": ["id"], "rlimits": [{"type": "RLIMIT_X"}]}, "wrong rlimit value"),
    ({"cwd": "/", "args": ["id"], "terminal": 1}, "process.terminal: expected true or false"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE)
def test_a_document_of_another_shape_is_refused(document: Any, content: Any, message: str) -> None:
    path = document(content)
    with pytest.raises(Error, match=message) as caught:
        process(process_file=path)
    assert str(caught.value).startswith(path)


def test_a_document_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="no such file or directory"):
        process(process_file=str(tmp_path / "none"))
    with pytest.raises(Error, match="is a directory"):
        process(process_file=str(tmp_path))


# --- the cgroups


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["sub"], {"": "sub"}),
        (["cpu:sub"], {"cpu": "sub"}),
        (["cpu,memory:/a", "pids:b"], {"cpu": "/a", "memory": "/a", "pids": "b"}),
    ],
)
def test_cgroups_are_told_by_controller(options: list[str], expected: dict[str, str]) -> None:
    assert within.parse(options) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a", "b"], "invalid --cgroup argument: a .missing <controller>: prefix."),
        (["cpu:a", "b"], "invalid --cgroup argument: b .missing <controller>: prefix."),
        ([":a"], "invalid --cgroup argument: :a .empty <controller> prefix."),
        (["cpu,:a"], "empty <controller> prefix"),
        (["cpu:a", "cpu:b"], "controller cpu specified multiple times"),
    ],
)
def test_misworded_cgroups_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(Error, match=message):
        within.parse(options)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", "/c"), ("/", "/c"), (".", "/c"), ("a", "/c/a"), ("/a//b/", "/c/a/b"), ("a/../b", "/c/b")],
)
def test_a_cgroup_lies_below_the_containers(path: str, expected: str) -> None:
    assert within.below("/c", path) == expected


@pytest.mark.parametrize("path", ["..", "../x", "/..", "a/../..", "a/../../c/b", "./../c"])
def test_a_cgroup_outside_is_refused(path: str) -> None:
    with pytest.raises(Error, match="is not a sub cgroup path"):
        within.below("/c", path)


class Manager:
    def __init__(self, attach: list[tuple[str, str]], directory: str | None) -> None:
        self.attach, self.directory = attach, directory

    def attach_files(self) -> list[tuple[str, str]]:
        return list(self.attach)

    def cgroup_dir(self) -> str | None:
        return self.directory


V1 = [("cgroup.cpu,cpuacct", "/g/cpu/c/tasks"), ("cgroup.pids", "/g/pids/c/tasks")]


def test_places_on_v1() -> None:
    manager: Any = Manager(V1, None)
    assert within.places(manager, []) == (V1, None)
    every = [("cgroup.cpu,cpuacct", "/g/cpu/c/s/tasks"), ("cgroup.pids", "/g/pids/c/s/tasks")]
    assert within.places(manager, ["s"]) == (every, None)
    assert within.places(manager, ["cpuacct:s"]) == ([every[0], V1[1]], None)
    assert within.places(manager, ["cpu,cpuacct,pids:s"]) == (every, None)
    with pytest.raises(Error, match="unknown controller whaaat"):
        within.places(manager, ["whaaat:/"])
    with pytest.raises(Error, match="are one hierarchy"):
        within.places(manager, ["cpu:a", "cpuacct:b"])


def test_places_on_v2() -> None:
    manager: Any = Manager([], "/g/c")
    assert within.places(manager, []) == ([], "/g/c")
    assert within.places(manager, ["/s"]) == ([], "/g/c/s")
    with pytest.raises(Error, match="unknown controller cpu"):
        within.places(manager, ["cpu:s"])


def test_in_a_hybrid_the_tree_without_controllers_may_lack_the_cgroup(tmp_path: Path) -> None:
    manager: Any = Manager(V1, str(tmp_path))
    assert within.places(manager, ["s"])[1] == str(tmp_path)
    (tmp_path / "s").mkdir()
    assert within.places(manager, ["s"])[1] == str(tmp_path / "s")


# --- where v2 has no room


class Attempts:
    """Stands in for making a process: EBUSY in the cgroups that hand controllers down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, busy: set[str], number: int = 16) -> None:
        self.tried: list[str | None] = []

        def attempt(
            draft: Any, undo: Any, fds: Any, directory: str | None, usher: Any = None
        ) -> Any:
            self.tried.append(directory)
            if directory in busy and not usher:
                raise KernelError(number, "the process")
            return "made"

        monkeypatch.setattr(entry, "_attempt", attempt)

    def clone(self, own: str | None, driver: str = "fs") -> Any:
        class Manager:
            pass

        class Draft:
            directory = "/g/c"
            manager: Any = Manager()

            def own_cgroup(self) -> str | None:
                return own

        draft: Any = Draft()
        draft.manager.driver = driver
        return entry._clone(draft, Undo(), [])


def test_a_process_goes_where_the_init_went(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, {"/g/c"})
    assert attempts.clone("/g/c/init.scope") == "made"
    assert attempts.tried == ["/g/c", "/g/c/init.scope"]


@pytest.mark.parametrize("own", [None, "/g/c"])
def test_without_another_place_the_kernels_no_stands(
    monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    with pytest.raises(KernelError, match="resource busy"):
        Attempts(monkeypatch, {"/g/c"}).clone(own)


def test_another_refusal_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, {"/g/c"}, number=13)
    with pytest.raises(KernelError, match="permission denied"):
        attempts.clone("/g/c/init.scope")
    assert attempts.tried == ["/g/c"]


def test_where_a_user_may_not_go_his_systemd_takes_him(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, {"/g/c"}, number=13)
    assert attempts.clone(None, driver="systemd") == "made"
    assert attempts.tried == ["/g/c", "/g/c"]


# --- /proc


def test_a_process_is_known_by_its_start_time() -> None:
    own = procfs.stat(os.getpid())
    assert own is not None
    fd = procfs.open_process(os.getpid(), own[1])
    assert fd is not None
    assert procfs.read("comm", fd).strip() == Path("/proc/self/comm").read_bytes().strip()
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    assert procfs.open_process(os.getpid(), own[1] + 1) is None
    assert procfs.open_process(0, 0) is None
    assert procfs.open_process(1 << 22, 0) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_descriptor_of_a_process_does_not_lead_to_another() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = procfs.stat(pid)
    assert found is not None
    assert procfs.open_process(pid, found[1]) is None  # a zombie
    fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    os.waitpid(pid, 0)
    with pytest.raises((ProcessLookupError, FileNotFoundError)):
        procfs.read("stat", fd)
    os.close(fd)
