"""`linux.intelRdt`: create, exec, update, events and delete on a resctrl that is a directory.

runtime-spec, config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

import os
import shlex
import sys

import pytest

from tests.integration.support import Runtime, only_ocirt

pytestmark = only_ocirt("others look for a real resctrl, and for Intel")

DRIVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resctrl_driver.py")
FILES = {
    "info/L3/cbm_mask": "fffff",
    "info/L3/min_cbm_bits": "2",
    "info/L3/num_closids": "16",
    "info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes",
    "info/MB/bandwidth_gran": "10",
    "info/MB/delay_linear": "1",
    "info/MB/min_bandwidth": "10",
    "info/MB/num_closids": "8",
    "info/last_cmd_status": "mask f0f has non-consecutive 1-bits",
    "schemata": "    MB:0=100;1=100\n    L3:0=fffff;1=fffff",
    "tasks": "",
}


class Resctrl:
    """A resctrl without a kernel."""

    def __init__(self, root):
        self.root, self.top = root, f"{root}/sys/fs/resctrl"
        for name, text in FILES.items():
            self.put(name, text)
        os.makedirs(f"{root}/proc/self")
        with open(f"{root}/proc/self/mountinfo", "w") as file:
            file.write("30 20 0:25 / /sys/fs/resctrl rw shared:9 - resctrl resctrl rw\n")

    def put(self, name, text):
        path = f"{self.top}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text + "\n")

    def read(self, name):
        with open(f"{self.top}/{name}") as file:
            return file.read()

    def classes(self):
        return set(os.listdir(self.top)) - {"info", "schemata", "tasks"}

    def refuse(self, text):
        with open(f"{self.root}/refuse", "w") as file:
            file.write(text)


@pytest.fixture
def resctrl(workdir):
    return Resctrl(os.path.join(workdir, "machine"))


@pytest.fixture
def runtime(runtime, resctrl, workdir):
    path = os.path.join(workdir, "runtime")
    words = shlex.join([sys.executable, "-S", "-B", DRIVER, resctrl.root])
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec {words} "$@"\n')
    os.chmod(path, 0o755)
    ours = Runtime(path, "ocirt", workdir, runtime.host)
    yield ours
    ours.close()


def test_a_container_has_a_class_of_its_own_from_create_to_delete(runtime, resctrl, bundle):
    section = {"l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:0=20;1=70"}
    b = bundle.sleeping(linux={"intelRdt": section})
    pid = runtime.create(b)
    assert resctrl.read(f"{b.id}/schemata") == "L3:0=f;1=f0\nMB:0=20;1=70\n"
    assert resctrl.read(f"{b.id}/tasks") == str(pid)
    runtime.start(b)
    runtime.delete(b, "--force")
    assert resctrl.classes() == set()


def test_the_lines_come_in_the_order_of_the_specification(runtime, resctrl, bundle):
    section = {
        "schemata": ["L3:1=ff"],
        "memBwSchema": "MB:0=20",
        "l3CacheSchema": "L3:0=f\nMB:0=99",
    }
    b = bundle.sleeping(linux={"intelRdt": section})
    runtime.create(b)
    assert resctrl.read(f"{b.id}/schemata") == "L3:0=f\nMB:0=20\nL3:1=ff\n"


def test_an_empty_section_asks_for_a_class_as_well(runtime, resctrl, bundle):
    b = bundle.sleeping(linux={"intelRdt": {}})
    runtime.create(b)
    assert resctrl.classes() == {b.id}


def test_without_a_section_resctrl_is_left_alone(runtime, resctrl, bundle):
    runtime.create(bundle.sleeping())
    assert resctrl.classes() == set()


def test_a_class_that_is_there_is_joined_and_kept(runtime, resctrl, bundle):
    resctrl.put("gold/schemata", "L3:0=00ff;1=fffff\nMB:0= 50;1=100")
    resctrl.put("gold/tasks", "")
    for schemata in ([], ["L3:0=FF", "MB:0=50"]):
        b = bundle.sleeping(linux={"intelRdt": {"closID": "gold", "schemata": schemata}})
        pid = runtime.create(b)
        assert resctrl.read("gold/tasks") == str(pid)
        runtime.delete(b, "--force")
        assert resctrl.read("gold/schemata").startswith("L3:0=00ff")


def test_a_class_that_is_made_by_name_outlives_its_first_container(runtime, resctrl, bundle):
    b = bundle.sleeping(linux={"intelRdt": {"closID": "silver", "schemata": ["L3:0=f"]}})
    runtime.create(b)
    assert resctrl.read("silver/schemata") == "L3:0=f\n"
    runtime.delete(b, "--force")
    assert resctrl.classes() == {"silver"}


def test_the_root_class_is_a_slash(runtime, resctrl, bundle):
    b = bundle.sleeping(linux={"intelRdt": {"closID": "/"}})
    pid = runtime.create(b)
    assert resctrl.read("tasks") == str(pid)
    runtime.delete(b, "--force")
    assert os.path.isdir(resctrl.top)


def test_a_container_may_be_counted_alone(runtime, resctrl, bundle):
    resctrl.put("gold/schemata", "L3:0=ff")
    resctrl.put("gold/tasks", "")
    os.mkdir(f"{resctrl.top}/gold/mon_groups")
    b = bundle.sleeping(linux={"intelRdt": {"closID": "gold", "enableMonitoring": True}})
    pid = runtime.create(b)
    assert resctrl.read(f"gold/mon_groups/{b.id}/tasks") == str(pid)
    runtime.delete(b, "--force")
    assert os.listdir(f"{resctrl.top}/gold/mon_groups") == []


def test_an_exec_joins_the_class(runtime, resctrl, bundle):
    b = bundle.sleeping(linux={"intelRdt": {"schemata": ["L3:0=f"]}})
    runtime.started(b)
    pid_file = os.path.join(b.path, "exec-pid")
    runtime.ok("exec", "--pid-file", pid_file, b.id, "true")
    with open(pid_file) as file:
        assert resctrl.read(f"{b.id}/tasks") == file.read()


def test_statistics_are_those_of_the_class(runtime, resctrl, bundle):
    b = bundle.sleeping(linux={"intelRdt": {"schemata": ["L3:0=f;1=f"], "enableMonitoring": True}})
    runtime.started(b)
    found = runtime.ok("events", "--stats", b.id).json()["data"]["intel_rdt"]
    assert found == {
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff;1=fffff",
        "l3_cache_schema": "L3:0=f;1=f",
        "mem_bw_info": {
            "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8,
        },
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": "",
        "schemata": ["L3:0=f;1=f"],
        "mbm_stats": [{"mbm_total_bytes": 1001, "mbm_local_bytes": 1002}],
        "cmt_stats": [{"llc_occupancy": 1000}],
    }  # fmt: skip


def test_update_changes_the_class(runtime, resctrl, bundle):
    b = bundle.sleeping(linux={"intelRdt": {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20"}})
    runtime.started(b)
    runtime.ok("update", "--l3-cache-schema", "L3:0=ff", "--pids-limit", "77", b.id)
    assert resctrl.read(f"{b.id}/schemata") == "L3:0=ff\nMB:0=20\n"
    runtime.ok("update", "--mem-bw-schema", "MB:0=30", b.id)
    assert resctrl.read(f"{b.id}/schemata") == "L3:0=ff\nMB:0=30\n"


def test_update_makes_a_class_for_a_container_that_has_none(runtime, resctrl, bundle):
    b = bundle.sleeping()
    pid = runtime.started(b)
    runtime.ok("update", "--l3-cache-schema", "L3:0=f", b.id)
    assert resctrl.read(f"{b.id}/schemata") == "L3:0=f\n"
    assert resctrl.read(f"{b.id}/tasks") == str(pid)
    assert "quick" not in os.listdir(f"{runtime.root}/{b.id}")
    runtime.delete(b, "--force")
    assert resctrl.classes() == set()


# --- what cannot be


def refused(runtime, resctrl, bundle, section, ours):
    before = resctrl.classes()
    runtime.refuses_to_create(bundle.sleeping(linux={"intelRdt": section}), ours=ours)
    assert resctrl.classes() == before


@pytest.mark.parametrize(
    ("section", "ours"),
    [
        ({"closID": "gold"}, 'linux.intelRdt.closID: no class of service "gold"'),
        ({"schemata": ["L2:0=f"]}, '"L2:0=f": not enabled on this machine, which has: L3 MB'),
        ({"schemata": ["nonsense"]}, '"nonsense" is not a schema'),
        ({"schemata": ["../x:0=1"]}, "not enabled on this machine"),
    ],
)
def test_what_the_machine_does_not_have_is_refused(runtime, resctrl, bundle, section, ours):
    refused(runtime, resctrl, bundle, section, ours)


def test_a_class_that_is_there_and_other_is_refused(runtime, resctrl, bundle):
    resctrl.put("gold/schemata", "    L3:0=ff;1=ff")
    sentence = 'linux.intelRdt.closID: the class exists and has L3:0=ff;1=ff, not "L3:1=f"'
    refused(runtime, resctrl, bundle, {"closID": "gold", "schemata": ["L3:1=f"]}, sentence)


def test_without_monitoring_nobody_is_counted(runtime, resctrl, bundle):
    os.unlink(f"{resctrl.top}/info/L3_MON/mon_features")
    os.rmdir(f"{resctrl.top}/info/L3_MON")
    refused(runtime, resctrl, bundle, {"enableMonitoring": True}, "linux.intelRdt.enableMonitoring")


@pytest.mark.parametrize("clos", [None, "new"])
def test_what_the_kernel_refuses_is_told_in_its_words(runtime, resctrl, bundle, clos):
    resctrl.refuse("L3:0=f0f")
    section = {"schemata": ["L3:0=f0f"], **({"closID": clos} if clos else {})}
    sentence = "mask f0f has non-consecutive 1-bits: invalid argument"
    refused(runtime, resctrl, bundle, section, sentence)


def test_a_container_that_fails_later_leaves_no_class(runtime, resctrl, bundle):
    section = {"closID": "new", "schemata": ["L3:0=f"], "enableMonitoring": True}
    b = bundle("/nosuch", linux={"intelRdt": section})
    runtime.refuses_to_create(b)
    assert resctrl.classes() == set()


def test_without_resctrl_a_config_that_wants_it_is_refused(runtime, resctrl, bundle):
    with open(f"{resctrl.root}/proc/self/mountinfo", "w"):
        pass
    sentence = "linux.intelRdt: intelRdt is specified in config, but Intel RDT is not supported"
    refused(runtime, resctrl, bundle, {"closID": "x"}, sentence)


def test_an_update_that_is_refused_leaves_all_as_it_was(runtime, resctrl, bundle):
    b = bundle.sleeping()
    runtime.started(b)
    runtime.refuses(
        "update", "--l3-cache-schema", "L3:0=f", "--cpuset-cpus", "999", b.id, saying=""
    )
    assert resctrl.classes() == set()
    runtime.ok("update", "--l3-cache-schema", "L3:0=f", b.id)
    resctrl.refuse("L3:0=f0f")
    runtime.refuses("update", "--l3-cache-schema", "L3:0=f0f", b.id, ours="non-consecutive")
    assert resctrl.read(f"{b.id}/schemata") == "L3:0=f\n"
