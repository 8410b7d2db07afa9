"""Driver systemd: names, properties, and what is asked of a systemd that a test plays."""

from __future__ import annotations

import os

import pytest

from ocirt import cgroup
from ocirt.cgroup import (
    dbus,
    fs_v2,
    systemd,
    systemd_bus,
    systemd_props,
    systemd_unit,
    systemd_v1,
    v1,
    v2,
)
from ocirt.errors import ConfigError, Error
from tests.unit.cgroup import peer

INFINITY = (1 << 64) - 1


# --- names

NAMES = (
    # cgroupsPath               slice                    scope
    ("",                        "system.slice",          "ocirt-web.scope"),
    ("::n",                     "system.slice",          "n.scope"),
    (":p:n",                    "system.slice",          "p-n.scope"),
    ("a-b.slice:docker:1f",     "a-b.slice",             "docker-1f.scope"),
    ("-.slice:p:n",             "-.slice",               "p-n.scope"),
)  # fmt: skip


@pytest.mark.parametrize(("path", "parent", "unit"), NAMES)
def test_cgroups_path_names_a_slice_and_a_scope(path, parent, unit):
    assert systemd_unit.parse(path, "web", user=False) == (parent, unit)


def test_a_user_has_a_slice_of_his_own():
    assert systemd_unit.parse("", "web", user=True)[0] == "user.slice"


@pytest.mark.parametrize("path", ["/a/b", "a", "a:b", "a:b:c:d"])
def test_a_path_that_is_no_triple_is_refused_in_the_words_of_runc(path):
    with pytest.raises(ConfigError) as caught:
        systemd_unit.parse(path, "web", user=False)
    text = 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got'
    assert str(caught.value) == f'{text} "{path}" instead'


BAD_NAMES = (
    "system.slice:p:", "system.slice:p:a/b", "system.slice:p:a b", "system.slice:p:a+b",
    "system.slice:p:ä", "system.slice:p:x.slice", f"system.slice:p:{'n' * 250}",
    "system.slice:p/:n",
    "system:p:n", ".slice:p:n", "a--b.slice:p:n", "-a.slice:p:n", "a-.slice:p:n", "a/b.slice:p:n",
    "../x.slice:p:n", "system.slice/:p:n",
)  # fmt: skip


@pytest.mark.parametrize("path", BAD_NAMES)
def test_a_name_that_systemd_would_not_take_is_refused_here(path):
    with pytest.raises(ConfigError, match=r"^linux\.cgroupsPath: "):
        systemd_unit.parse(path, "web", user=False)


SLICES = (
    ("system.slice", "/system.slice"),
    ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
    ("-.slice", ""),
)


@pytest.mark.parametrize(("name", "path"), SLICES)
def test_a_slice_tells_where_it_is(name, path):
    assert systemd_unit.expand(name) == path


ANNOTATIONS = (
    ("TimeoutStopUSec", "uint64 123456", ("TimeoutStopUSec", ("t", 123456))),
    ("TimeoutStopSec", "5", ("TimeoutStopUSec", ("t", 5000000))),
    ("TimeoutStopSec", "double 0.5", ("TimeoutStopUSec", ("t", 500000))),
    ("CollectMode", "'inactive-or-failed'", ("CollectMode", ("s", "inactive-or-failed"))),
    ("CPUQuotaPerSecUSec", "uint64 7", ("CPUQuotaPerSecUSec", ("t", 7))),
)


@pytest.mark.parametrize(("name", "text", "found"), ANNOTATIONS)
def test_an_annotation_asks_for_a_property(name, text, found):
    annotations = {"org.systemd.property." + name: text, "org.other": "x"}
    assert systemd_unit.annotated(annotations) == [found]


@pytest.mark.parametrize(
    ("name", "text"),
    [("A", "1"), ("No-Name", "1"), ("Nämе", "1"), ("TimeoutStopSec", "'5'"), ("Foo", "just text"),
     ("TimeoutStopSec", "-1"), ("TimeoutStopSec", "1e300"), ("TimeoutStopSec", "double nan")],
)  # fmt: skip
def test_an_annotation_that_makes_no_sense_is_named(name, text):
    with pytest.raises(ConfigError, match=r"^annotations\.org\.systemd\.property\."):
        systemd_unit.annotated({"org.systemd.property." + name: text})


# --- properties


def limits(resources, cgroup_version=2, version=252):
    rows = v2.writes(resources) if cgroup_version == 2 else v1.writes(resources)
    found = systemd_props.limits(rows, cgroup_version, version)
    return {name: value for name, (_, value) in found.items()}


V2 = (
    ({"memory": {"limit": 1000, "swap": 3000, "reservation": 500}},
     {"MemoryMax": 1000, "MemorySwapMax": 2000, "MemoryLow": 500}),
    ({"memory": {"limit": -1}}, {"MemoryMax": INFINITY, "MemorySwapMax": INFINITY}),
    ({"pids": {"limit": 5}}, {"TasksMax": 5}),
    ({"pids": {"limit": 0}}, {"TasksMax": 1}),
    ({"pids": {"limit": -1}}, {"TasksMax": INFINITY}),
    ({"cpu": {"shares": 1024}}, {"CPUWeight": 100}),
    ({"cpu": {"idle": 1}}, {"CPUWeight": 0}),
    ({"cpu": {"quota": 50000}}, {"CPUQuotaPerSecUSec": 500000, "CPUQuotaPeriodUSec": 100000}),
    ({"cpu": {"quota": 1001, "period": 100000}},
     {"CPUQuotaPerSecUSec": 20000, "CPUQuotaPeriodUSec": 100000}),
    ({"cpu": {"quota": -1, "period": 20000}},
     {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 20000}),
    ({"cpu": {"cpus": "0-2,9"}}, {"AllowedCPUs": [0b111, 0b10]}),
    ({"cpu": {"mems": "0"}}, {"AllowedMemoryNodes": [1]}),
    ({"blockIO": {"weight": 1000}}, {"IOWeight": 10000}),
    ({"unified": {"memory.high": "2M", "memory.min": "4096", "memory.swap.max": "max"}},
     {"MemoryHigh": 2 << 20, "MemoryMin": 4096, "MemorySwapMax": INFINITY}),
    ({"memory": {"limit": 1000}, "unified": {"memory.max": "2000"}}, {"MemoryMax": 2000}),
    ({"unified": {"cpu.max": "max 50000", "cpu.weight": "7", "io.weight": "default 50"}},
     {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 50000, "CPUWeight": 7, "IOWeight": 50}),
    ({"unified": {"cpuset.cpus": "1", "pids.max": "max", "hugetlb.2MB.max": "1"}},
     {"AllowedCPUs": [2], "TasksMax": INFINITY}),
)  # fmt: skip


@pytest.mark.parametrize(("resources", "found"), V2)
def test_limits_of_v2_become_properties(resources, found):
    assert limits(resources) == found


V1 = (
    ({"memory": {"limit": 1000, "swap": 3000}}, {"MemoryLimit": 1000}),
    ({"cpu": {"shares": 512, "quota": 50000, "period": 50000}},
     {"CPUShares": 512, "CPUQuotaPerSecUSec": 1000000, "CPUQuotaPeriodUSec": 50000}),
    ({"cpu": {"quota": -1}},
     {"CPUQuotaPerSecUSec": INFINITY, "CPUQuotaPeriodUSec": 100000}),
    ({"pids": {"limit": 7}, "blockIO": {"weight": 500}}, {"TasksMax": 7, "BlockIOWeight": 500}),
    ({"cpu": {"cpus": "0"}}, {}),
)  # fmt: skip


@pytest.mark.parametrize(("resources", "found"), V1)
def test_limits_of_v1_become_properties(resources, found):
    assert limits(resources, 1) == found


@pytest.mark.parametrize(
    ("version", "resources", "found"),
    [
        (241, {"cpu": {"quota": 50000}}, {"CPUQuotaPerSecUSec": 500000}),
        (243, {"cpu": {"cpus": "0"}}, {}),
        (251, {"cpu": {"idle": 1}}, {}),
        (252, {"unified": {"memory.oom.group": "1"}}, {}),
        (253, {"unified": {"memory.oom.group": "1"}}, {"OOMPolicy": "kill"}),
        (253, {"unified": {"memory.oom.group": "0"}}, {"OOMPolicy": "continue"}),
    ],
)
def test_what_a_systemd_does_not_know_yet_is_left_to_the_files(version, resources, found):
    assert limits(resources, version=version) == found


@pytest.mark.parametrize("value", ["x", "1Z", "-5", "1 2 3", ""])
def test_a_unified_value_that_is_no_number_is_named(value):
    rows = [("memory.max", value, "linux.resources.unified.memory.max")]
    with pytest.raises(ConfigError, match=r"unified\.memory\.max"):
        systemd_props.limits(rows, 2, 252)


@pytest.mark.parametrize("value", ["3-1", "0-99999", "a", "1-", "0,,1"])
def test_a_list_of_cpus_that_is_none_is_named(value):
    with pytest.raises(ConfigError, match="where: "):
        systemd_props.limits([("cpuset.cpus", value, "where")], 2, 252)


DENY = {"allow": False, "access": "rwm"}


def test_device_rules_become_an_allow_list_with_the_default_devices():
    rules = [
        DENY,
        {"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "access": "r"},
        {"allow": True, "type": "c", "minor": 9, "access": "rwm"},
    ]
    found = systemd_props.device_rules(rules, 2)
    assert found["DevicePolicy"] == ("s", "strict")
    kind, listed = found["DeviceAllow"]
    assert kind == "a(ss)"
    assert ("/dev/char/195:0", "rw") in listed
    assert ("block-8", "r") in listed
    assert ("char-*", "rwm") in listed  # wider than meant: our own program is narrower
    assert ("char-136", "rwm") in listed
    assert ("/dev/char/1:3", "rwm") in listed
    assert ("char-*", "m") in listed


def test_on_v1_nothing_is_allowed_that_is_not_meant():
    rules = [DENY, {"allow": True, "type": "c", "minor": 9, "access": "rwm"}]
    listed = systemd_props.device_rules(rules, 1)["DeviceAllow"][1]
    assert ("char-*", "rwm") not in listed


def test_all_devices_open_means_that_systemd_stays_out():
    rules = [{"allow": True, "access": "rwm"}, {**DENY, "type": "c", "major": 1, "minor": 3}]
    assert systemd_props.device_rules(rules, 2) == {"DevicePolicy": ("s", "auto")}


def test_a_scope_goes_on_when_one_of_its_processes_is_killed_for_memory():
    assert "OOMPolicy" not in systemd_props.scope("s.slice", "d", 1, 2, 252)
    assert systemd_props.scope("s.slice", "d", 1, 2, 253)["OOMPolicy"] == ("s", "continue")


@pytest.mark.parametrize(
    ("text", "number"),
    [("252.39-1~deb12u1", 252), ("v257-rc1", 257), ("systemd 239", 239), ("", 0), ("x", 0)],
)
def test_the_version_of_systemd_is_a_number(text, number):
    assert systemd_bus.version(text) == number


# --- a manager and its systemd

UNIT = "ocirt-web.scope"
PATH = f"/system.slice/{UNIT}"
PID = 4242


class Lab:
    """A fake tree, and a systemd that makes directories in it."""

    def __init__(self, tree, path):
        self.tree = tree
        self.path = path
        self.systemd = peer.Systemd(path)
        self.systemd.answers["StartTransientUnit"] = self.start
        self.systemd.answers["StopUnit"] = self.stop
        self.where = {"": PATH}  # what /proc/PID/cgroup says once the scope is there
        self.running = False

    def start(self, values):
        if self.running:
            raise peer.Fault(systemd_bus.EXISTS, f"Unit {values[0]} was already loaded.")
        self.running = True
        directory = self.tree.root
        for name in self.where[""].split("/")[1:]:
            directory += f"/{name}"
            if not os.path.isdir(directory):
                os.mkdir(directory)
        self.tree.put(f"{self.where['']}/cgroup.procs"[1:], f"{PID}\n")
        self.tree.put(f"{self.where['']}/cgroup.controllers"[1:], "cpu memory pids\n")
        return "o", (peer.JOB,)

    def stop(self, values):
        if not self.running:
            raise peer.Fault(systemd_bus.MISSING, f"Unit {values[0]} not loaded.")
        self.running = False
        os.rmdir(self.tree.root + self.where[""])
        return "o", (peer.JOB,)

    def manager(self, cgroups_path="", annotations=None, **options):
        return cgroup.open_manager(
            cgroups_path,
            "web",
            root=self.tree.root,
            proc=self.tree.proc,
            driver="systemd",
            annotations=annotations,
            **options,
        )

    def properties(self):
        (values,) = self.systemd.called("StartTransientUnit")
        return dict(values[2])


@pytest.fixture
def lab(tree, tmp_path, monkeypatch):
    tree.v2()
    made = Lab(tree, str(tmp_path / "run" / "private"))
    monkeypatch.setattr(systemd_bus, "addresses", lambda user: [(made.path, False)])
    # Of the process that waits; the runtime's own file is the fake tree's.
    own = systemd.layout.own_paths

    def own_paths(proc):
        if proc == f"/proc/{PID}":
            return made.where if made.running else {"": "/elsewhere"}
        return own(proc)

    monkeypatch.setattr(systemd.layout, "own_paths", own_paths)
    yield made
    made.systemd.close()


def test_a_scope_is_made_with_the_process_that_waits(lab):
    manager = lab.manager(annotations={"org.systemd.property.TimeoutStopSec": "7"})
    manager.create({"memory": {"limit": 65536}}, PID)
    assert lab.systemd.members() == ["Get", "StartTransientUnit"]
    unit, mode, properties, more = lab.systemd.called("StartTransientUnit")[0]
    assert (unit, mode, more) == (UNIT, "replace", [])
    assert dict(properties) == {
        "Description": ("s", "ocirt container web"),
        "Slice": ("s", "system.slice"),
        "Delegate": ("b", True),
        "PIDs": ("au", [PID]),
        "MemoryAccounting": ("b", True),
        "CPUAccounting": ("b", True),
        "TasksAccounting": ("b", True),
        "IOAccounting": ("b", True),
        "DefaultDependencies": ("b", False),
        "MemoryMax": ("t", 65536),
        "DevicePolicy": ("s", "strict"),
        "DeviceAllow": dict(properties)["DeviceAllow"],
        "TimeoutStopUSec": ("t", 7000000),
    }
    # In the file as well, which can say more than systemd.
    assert lab.tree.get(PATH[1:] + "/memory.max") == "65536"


def test_what_systemd_is_asked_for_can_be_read_before(lab):
    manager = lab.manager(annotations={"org.systemd.property.CollectMode": "'inactive'"})
    asked = manager.asks({"pids": {"limit": 5}})
    assert {whom for whom, _ in asked} == {UNIT}
    lines = [line for _, line in asked]
    assert {"TasksMax = 5", "Slice = system.slice", "CollectMode = inactive"} <= {*lines}
    assert any("DeviceAllow = char-* m, block-* m, /dev/char/1:3 rwm" in line for line in lines)
    assert lab.systemd.calls == []


def test_the_record_is_enough_for_later_verbs(lab):
    manager = lab.manager()
    manager.create({}, PID)
    again = cgroup.from_record(manager.record())
    assert (again.driver, again.directories()) == ("systemd", [lab.tree.root + PATH])
    again.remove()
    assert lab.systemd.members()[-2:] == ["StopUnit", "ResetFailedUnit"]
    assert lab.systemd.called("StopUnit") == [[UNIT, "replace"]]
    assert not os.path.exists(lab.tree.root + PATH)


def test_systemd_has_the_last_word_on_where_the_scope_is(lab):
    lab.where = {"": f"/elsewhere.slice/{UNIT}"}
    manager = lab.manager()
    manager.create({}, PID)
    assert manager.record()["directory"] == f"{lab.tree.root}/elsewhere.slice/{UNIT}"


def test_a_scope_without_the_process_is_refused(lab):
    lab.where = {"": "/system.slice/other.scope"}
    with pytest.raises(Error, match=rf"{UNIT} was started without process {PID}"):
        lab.manager().create({}, PID)


def test_what_is_left_of_a_failed_unit_is_forgotten_and_tried_again(lab):
    lab.running = True

    def reset(values):
        lab.running = False
        return "", ()

    lab.systemd.answers["ResetFailedUnit"] = reset
    lab.manager().create({}, PID)
    assert lab.systemd.members() == [
        "Get", "StartTransientUnit", "ResetFailedUnit", "StartTransientUnit",
    ]  # fmt: skip


def test_a_unit_of_the_same_name_that_lives_is_refused(lab, monkeypatch):
    lab.running = True
    monkeypatch.setattr(systemd.layout, "own_paths", lambda proc: {"": "/elsewhere"})
    with pytest.raises(Error, match=rf"systemd: Unit {UNIT} was already loaded"):
        lab.manager().create({}, PID)
    assert len(lab.systemd.called("StartTransientUnit")) == 2
    assert not lab.systemd.called("StopUnit")


def test_a_job_that_fails_is_told(lab):
    lab.systemd.after["StartTransientUnit"] = peer.removed(UNIT, result="failed")
    lab.running = True
    lab.systemd.answers["StartTransientUnit"] = lambda values: ("o", (peer.JOB,))
    lab.where = {"": "/elsewhere"}
    with pytest.raises(Error, match=rf"systemd: the job for {UNIT} ended with: failed"):
        lab.manager().create({}, PID)
    assert lab.systemd.members()[-1] == "ResetFailedUnit"  # or its name would stay taken


def test_a_job_that_is_done_before_its_answer_is_seen(lab):
    lab.systemd.before["StartTransientUnit"] = peer.removed("x", "/job/1") + peer.removed(UNIT)
    lab.systemd.after["StartTransientUnit"] = b""
    lab.manager().create({}, PID)


def test_no_word_of_a_job_ends_with_an_error(lab, monkeypatch):
    monkeypatch.setattr(dbus, "PATIENCE", 0.1)
    lab.systemd.after["StartTransientUnit"] = peer.removed("other.scope", "/job/1")
    lab.where = {"": "/elsewhere"}
    lab.systemd.answers["StartTransientUnit"] = lambda values: ("o", (peer.JOB,))
    with pytest.raises(Error, match="systemd: D-Bus: no answer in time"):
        lab.manager().create({}, PID)


def test_a_connection_that_breaks_is_made_once_more(lab):
    times = []

    def start(values):
        times.append(1)
        if len(times) == 1:
            raise ConnectionError
        return lab.start(values)

    lab.systemd.answers["StartTransientUnit"] = start
    lab.manager().create({}, PID)
    assert lab.systemd.members().count("StartTransientUnit") == 2


def test_a_unit_that_was_made_as_the_connection_broke_is_ours(lab):
    def start(values):
        if not lab.running:
            lab.start(values)
            raise ConnectionError
        return lab.start(values)

    lab.systemd.answers["StartTransientUnit"] = start
    manager = lab.manager()
    manager.create({}, PID)
    assert manager.directories() == [lab.tree.root + PATH]


def test_two_broken_connections_are_an_error(lab):
    def start(values):
        raise ConnectionError

    lab.systemd.answers["StartTransientUnit"] = start
    with pytest.raises(Error, match=r"^systemd: D-Bus: connection closed"):
        lab.manager().create({}, PID)
    assert lab.systemd.members().count("StartTransientUnit") == 2


def test_where_there_is_no_systemd_the_words_are_those_of_runc(lab, monkeypatch, tmp_path):
    monkeypatch.setattr(systemd_bus, "addresses", lambda user: [(str(tmp_path / "no"), False)])
    text = "systemd not running on this host, cannot use systemd cgroups manager"
    with pytest.raises(Error, match=f"^systemd: {text}"):
        lab.manager().create({}, PID)


def test_a_limit_that_the_kernel_refuses_stops_the_scope(lab, monkeypatch):
    def refuse(self, rows):
        raise Error("no")

    monkeypatch.setattr(fs_v2.V2, "_carry_out", refuse)
    with pytest.raises(Error, match=r"^no$"):
        lab.manager().create({"pids": {"limit": 5}}, PID)
    assert lab.systemd.members()[-2:] == ["StopUnit", "ResetFailedUnit"]
    assert not os.path.exists(lab.tree.root + PATH)


def test_no_scope_is_made_of_ourselves(lab):
    with pytest.raises(ConfigError, match=rf"{UNIT} needs a process"):
        lab.manager().create({})
    assert lab.systemd.calls == []


def test_what_is_wrong_on_paper_is_not_told_to_systemd(lab):
    with pytest.raises(ConfigError):
        lab.manager().create({"unified": {"a/b": "1"}}, PID)
    assert lab.systemd.calls == []


def test_a_limit_of_one_process_waits_for_the_one_that_waits(lab):
    manager = lab.manager()
    manager.create({"pids": {"limit": 1}, "memory": {"limit": 65536}}, PID)
    assert "TasksMax" not in lab.properties()
    assert lab.tree.get(PATH[1:] + "/pids.max") == ""
    manager.settle()
    assert lab.systemd.called("SetUnitProperties") == [[UNIT, True, [("TasksMax", ("t", 1))]]]
    assert lab.tree.get(PATH[1:] + "/pids.max") == "1"


def test_other_limits_do_not_wait(lab):
    manager = lab.manager()
    manager.create({"pids": {"limit": 2}}, PID)
    manager.settle()
    assert lab.properties()["TasksMax"] == ("t", 2)
    assert not lab.systemd.called("SetUnitProperties")


def test_other_limits_are_told_and_written(lab):
    manager = lab.manager()
    manager.create({}, PID)
    manager.set({"cpu": {"quota": 12345}})
    ((unit, runtime, properties),) = lab.systemd.called("SetUnitProperties")
    assert (unit, runtime) == (UNIT, True)
    assert dict(properties)["CPUQuotaPerSecUSec"] == ("t", 130000)
    assert lab.tree.get(PATH[1:] + "/cpu.max") == "12345 100000"  # systemd rounds, we do not


def test_new_limits_leave_device_rules_alone(lab):
    manager = lab.manager()
    manager.create({}, PID)
    manager.set({"pids": {"limit": 9}, "devices": [DENY]})
    ((_, _, properties),) = lab.systemd.called("SetUnitProperties")
    assert [name for name, _ in properties] == ["TasksMax"]


def test_what_only_files_can_say_is_not_told(lab):
    manager = lab.manager()
    manager.create({}, PID)
    lab.tree.put(PATH[1:] + "/hugetlb.2MB.max", "")
    lab.tree.put(PATH[1:] + "/hugetlb.2MB.rsvd.max", "")
    manager.set({"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]})
    assert not lab.systemd.called("SetUnitProperties")


def test_a_process_can_be_sent_into_the_scope(lab):
    manager = lab.manager()
    manager.create({}, PID)
    manager.attach(99)
    assert lab.systemd.called("AttachProcessesToUnit") == [[UNIT, "", [99]]]


def test_a_scope_that_has_ended_by_itself_is_no_trouble(lab):
    manager = lab.manager()
    manager.create({}, PID)
    lab.stop([UNIT])
    manager.remove()
    assert lab.systemd.members()[-2:] == ["StopUnit", "ResetFailedUnit"]


def test_without_a_systemd_the_cgroup_is_removed_all_the_same(lab, monkeypatch, tmp_path):
    manager = lab.manager()
    manager.create({}, PID)
    monkeypatch.setattr(systemd_bus, "addresses", lambda user: [(str(tmp_path / "no"), False)])
    cgroup.from_record(manager.record()).remove()
    assert not os.path.exists(lab.tree.root + PATH)


def test_the_bus_is_asked_to_pass_signals_on(lab, tmp_path, monkeypatch):
    bus = peer.Systemd(tmp_path / "bus" / "socket", is_bus=True)
    bus.answers["StartTransientUnit"] = lab.start
    missing = str(tmp_path / "none")
    monkeypatch.setattr(systemd_bus, "addresses", lambda user: [(missing, False), (bus.path, True)])
    lab.manager().create({}, PID)
    assert bus.members() == ["Hello", "AddMatch", "Subscribe", "Get", "StartTransientUnit"]
    bus.close()


# --- users


def test_a_user_has_his_own_systemd(lab):
    lab.tree.say([("", "/user.slice/user-7.slice/user@7.service/app.slice/x.scope")])
    manager = lab.manager(rootless=True)
    base = "/user.slice/user-7.slice/user@7.service/user.slice"
    assert manager.directories() == [f"{lab.tree.root}{base}/{UNIT}"]
    lab.where = {"": f"{base}/{UNIT}"}
    manager.create({}, PID)
    assert not {"DevicePolicy", "DeviceAllow"} & {*lab.properties()}
    assert lab.properties()["Slice"] == ("s", "user.slice")


def test_outside_of_it_the_usual_place_is_taken_for_his(lab):
    uid = os.geteuid()
    place = f"/user.slice/user-{uid}.slice/user@{uid}.service"
    assert systemd.user_manager(lab.tree.proc) == place


def test_users_have_none_on_v1(tree):
    tree.v1("devices", "memory")
    with pytest.raises(ConfigError, match="boot with cgroup v2"):
        cgroup.open_manager(
            "", "web", root=tree.root, proc=tree.proc, driver="systemd", rootless=True
        )


ADDRESSES = (
    # of the bus                               XDG_RUNTIME_DIR  what is tried
    ("unix:path=/x/bus",                       "/r", ["/r/systemd/private", "/x/bus", "/r/bus"]),
    ("unix:abstract=/x%20y,guid=12",           "/r", ["/r/systemd/private", "\0/x y", "/r/bus"]),
    ("tcp:host=h;unix:guid=1,path=/b",         "/r", ["/r/systemd/private", "/b", "/r/bus"]),
    ("unix:tmpdir=/tmp",                       "/r", ["/r/systemd/private", "/r/bus"]),
    ("",                                       "",   ["{0}/systemd/private", "{0}/bus"]),
)  # fmt: skip


@pytest.mark.parametrize(("address", "runtime", "tried"), ADDRESSES)
def test_a_users_systemd_is_looked_for_where_he_says(monkeypatch, address, runtime, tried):
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    here = f"/run/user/{os.geteuid()}"
    assert [path for path, _ in systemd_bus.addresses(True)] == [
        path.replace("{0}", here) for path in tried
    ]


def test_the_machines_systemd_is_asked_directly_before_the_bus(monkeypatch):
    monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS", raising=False)
    assert systemd_bus.addresses(False) == [
        ("/run/systemd/private", False),
        ("/run/dbus/system_bus_socket", True),
    ]


# --- v1


def test_on_v1_the_same_path_is_made_in_every_hierarchy(lab, tmp_path, monkeypatch):
    tree = lab.tree
    os.unlink(tree.root + "/cgroup.controllers")
    tree.v1("devices", "memory", "name=systemd")
    lab.where = {"": "", "name=systemd": PATH}

    def start(values):
        lab.running = True
        os.mkdir(f"{tree.root}/systemd/system.slice")
        os.mkdir(f"{tree.root}/systemd{PATH}")
        tree.put(f"systemd{PATH}/cgroup.procs", f"{PID}\n")
        return "o", (peer.JOB,)

    lab.systemd.answers["StartTransientUnit"] = start
    monkeypatch.setattr(systemd_v1.V1, "root", tree.root)
    own = systemd.layout.own_paths
    monkeypatch.setattr(
        systemd.layout,
        "own_paths",
        lambda proc: own(tree.proc if proc == "/proc/self" else proc),
    )
    manager = lab.manager()
    manager.create({"memory": {"limit": 4096}}, PID)
    assert lab.properties()["MemoryLimit"] == ("t", 4096)
    assert "BlockIOAccounting" in lab.properties()
    assert tree.get(f"memory{PATH}/memory.limit_in_bytes") == "4096"
    assert [path for _, path in manager.attach_files()] == [
        f"{tree.root}/{name}{PATH}/tasks" for name in ("devices", "memory", "systemd")
    ]
    assert tree.get(f"devices{PATH}/devices.allow") != ""
