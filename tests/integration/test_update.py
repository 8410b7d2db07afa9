"""update: other limits for a container that runs, all of them or none."""

from __future__ import annotations

import json
import os

import pytest

from tests.integration.support import (
    UNIFIED,
    cgroup_of,
    needs_controllers,
    needs_v1,
    needs_v2,
    only_ocirt,
)

MiB = 1 << 20


def knob(bundle, v1, v2):
    """Return what a control file holds: `v1` on v1, `v2` on v2."""
    name = v2 if UNIFIED else v1
    with open(os.path.join(cgroup_of(bundle, name.partition(".")[0]), name)) as file:
        return file.read().strip()


def memory(bundle):
    value = knob(bundle, "memory.limit_in_bytes", "memory.max")
    return -1 if value in ("max", "9223372036854771712") else int(value)


def memory_and_swap(bundle):
    if not UNIFIED:
        value = knob(bundle, "memory.memsw.limit_in_bytes", "")
        return -1 if value == "9223372036854771712" else int(value)
    value = knob(bundle, "", "memory.swap.max")
    return -1 if value == "max" else memory(bundle) + int(value)


def quota(bundle):
    if UNIFIED:
        given, period = knob(bundle, "", "cpu.max").split()
        return -1 if given == "max" else int(given), int(period)
    return (
        int(knob(bundle, "cpu.cfs_quota_us", "")),
        int(knob(bundle, "cpu.cfs_period_us", "")),
    )


def pids(bundle):
    return knob(bundle, "pids.max", "pids.max")


def limits(bundle):
    cpus = knob(bundle, "cpuset.cpus", "cpuset.cpus")
    return memory(bundle), memory_and_swap(bundle), quota(bundle), pids(bundle), cpus


pytestmark = needs_controllers("memory", "cpu", "cpuset", "pids")
needs_swap = pytest.mark.skipif(
    not UNIFIED and not os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
    reason="needs swap accounting",
)


@pytest.fixture(autouse=True)
def crun_differs(runtime):
    if runtime.flavour == "crun":
        pytest.skip("crun knows fewer options, reads sizes otherwise and merges nothing")


@pytest.fixture
def made(runtime, bundle):
    """A container that runs within a few limits."""
    made = bundle.sleeping(
        linux={
            "resources": {
                "memory": {"limit": 64 * MiB, "swap": 96 * MiB},
                "cpu": {"quota": 40000, "period": 100000, "shares": 500},
                "pids": {"limit": 40},
            }
        }
    )
    runtime.started(made)
    return made


def feed(runtime, bundle, change, spelling=("--resources", "-")):
    text = change if isinstance(change, str) else json.dumps(change)
    return runtime.ok("update", *spelling, bundle.id, input=text)


# --- by options


def test_nothing_given_changes_nothing(runtime, made):
    before = limits(made)
    runtime.ok("update", made.id)
    assert limits(made) == before


@needs_swap
def test_memory_and_swap(runtime, made):
    runtime.ok("update", "--memory", "32m", "--memory-swap", "50331648", made.id)
    assert (memory(made), memory_and_swap(made)) == (32 * MiB, 48 * MiB)
    runtime.ok("update", "--memory=200M", "--memory-swap=300MiB", made.id)
    assert (memory(made), memory_and_swap(made)) == (200 * MiB, 300 * MiB)


@needs_swap
def test_memory_without_swap_keeps_the_total(runtime, made):
    runtime.ok("update", "--memory", "32m", made.id)
    assert (memory(made), memory_and_swap(made)) == (32 * MiB, 96 * MiB)


@needs_swap
def test_unlimited_memory_lifts_swap_as_well(runtime, made):
    runtime.ok("update", "--memory", "-1", made.id)
    assert (memory(made), memory_and_swap(made)) == (-1, -1)


def test_quota_and_period_each_keep_the_other(runtime, made):
    runtime.ok("update", "--cpu-quota", "30000", made.id)
    assert quota(made) == (30000, 100000)
    runtime.ok("update", "--cpu-period", "50000", made.id)
    assert quota(made) == (30000, 50000)
    runtime.ok("update", "--cpu-quota", "-1", made.id)
    assert quota(made) == (-1, 50000)


@pytest.mark.parametrize(("given", "found"), [("77", "77"), ("-1", "max")])
def test_pids(runtime, made, given, found):
    runtime.ok("update", "--pids-limit", given, made.id)
    assert pids(made) == found


def test_cpus_and_shares(runtime, made):
    runtime.ok("update", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--cpu-share", "200", made.id)
    assert knob(made, "cpuset.cpus", "cpuset.cpus") == "0"
    if not UNIFIED:
        assert knob(made, "cpu.shares", "") == "200"


@needs_v1
def test_soft_limit_on_v1(runtime, made):
    runtime.ok("update", "--memory-reservation", "16m", made.id)
    assert int(knob(made, "memory.soft_limit_in_bytes", "")) == 16 * MiB


@needs_v2
def test_soft_limit_on_v2(runtime, made):
    runtime.ok("update", "--memory-reservation", "16m", made.id)
    assert int(knob(made, "", "memory.low")) == 16 * MiB


@only_ocirt("older runc has no --cpu-idle")
def test_idle_and_back(runtime, made):
    runtime.ok("update", "--cpu-idle", "1", made.id)
    assert knob(made, "cpu.idle", "cpu.idle") == "1"
    runtime.ok("update", "--cpu-idle", "0", "--cpu-share", "300", made.id)
    assert knob(made, "cpu.idle", "cpu.idle") == "0"


@only_ocirt("older runc has no --cpu-burst")
def test_burst(runtime, made):
    runtime.ok("update", "--cpu-burst", "10000", made.id)
    assert knob(made, "cpu.cfs_burst_us", "cpu.max.burst") == "10000"
    runtime.ok("update", "--cpu-burst", "0", made.id)
    assert knob(made, "cpu.cfs_burst_us", "cpu.max.burst") == "0"


def test_kernel_memory_is_accepted_and_ignored(runtime, made):
    before = limits(made)
    runtime.ok("update", "--kernel-memory", "50m", "--kernel-memory-tcp", "50m", made.id)
    assert limits(made) == before


# --- by a file


def test_docker_says_zero_for_leave_alone(runtime, made):
    """Recorded from `docker update --memory 48m --memory-swap 48m --cpus 0.5 --pids-limit 50`."""
    change = {
        "memory": {"limit": 48 * MiB, "reservation": 0, "swap": 48 * MiB, "kernel": 0},
        "cpu": {"shares": 0, "quota": 50000, "period": 100000},
        "pids": {"limit": 50},
        "blockIO": {"weight": 0},
    }
    shares = knob(made, "cpu.shares", "cpu.weight")
    feed(runtime, made, change)
    assert (memory(made), quota(made), pids(made)) == (48 * MiB, (50000, 100000), "50")
    assert knob(made, "cpu.shares", "cpu.weight") == shares


@pytest.mark.parametrize("spelling", [("-r", "-"), ("--resources=-",), ("-resources", "-")])
def test_resources_from_stdin(runtime, made, spelling):
    feed(runtime, made, {"pids": {"limit": 51}}, spelling)
    assert pids(made) == "51"


def test_resources_from_a_file(runtime, made, tmp_path):
    file = tmp_path / "resources.json"
    file.write_text('{"pids": {"limit": 52}}')
    runtime.ok("update", "--resources", str(file), made.id)
    assert pids(made) == "52"


@only_ocirt("older runc takes an empty object for no file")
def test_resources_override_options(runtime, made):
    feed(runtime, made, {"pids": {"limit": 53}}, ("--pids-limit", "99", "-r", "-"))
    assert pids(made) == "53"
    feed(runtime, made, {}, ("--pids-limit", "99", "-r", "-"))
    assert pids(made) == "53"


@only_ocirt("others take no null here, or apply device rules")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"pids": None},
        {"pids": {"limit": 0}},
        {"memory": {}, "cpu": {}, "blockIO": {}, "hugepageLimits": []},
        {"cpu": {"cpus": "", "mems": ""}},
        {"memory": {"limit": None}},
    ],
)
def test_empty_changes_change_nothing(runtime, made, change):
    before = limits(made)
    feed(runtime, made, change)
    assert limits(made) == before


@needs_v1
def test_device_rules_stay_as_they_were(runtime, made):
    rules = knob(made, "devices.list", "")
    feed(runtime, made, {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 54}})
    assert knob(made, "devices.list", "") == rules
    feed(runtime, made, {"pids": {"limit": 55}})
    assert knob(made, "devices.list", "") == rules


@needs_v2
def test_unified_files(runtime, made):
    feed(runtime, made, {"unified": {"memory.high": str(32 * MiB)}})
    assert int(knob(made, "", "memory.high")) == 32 * MiB


@needs_v2
@only_ocirt("the sentence differs")
def test_a_limit_below_what_is_used_can_be_refused(runtime, made):
    runtime.refuses(
        "update",
        "-r",
        "-",
        made.id,
        input=json.dumps({"memory": {"limit": 4096, "checkBeforeUpdate": True}}),
        ours="rejecting memory limit 4096 <= usage",
    )
    assert memory(made) == 64 * MiB


# --- when


def test_a_created_and_a_paused_container_may_be_updated(runtime, bundle):
    made = bundle.sleeping(linux={"resources": {"pids": {"limit": 40}}})
    runtime.create(made)
    runtime.ok("update", "--pids-limit", "41", made.id)
    assert pids(made) == "41"
    runtime.start(made)
    runtime.ok("pause", made.id)
    runtime.ok("update", "--pids-limit", "42", made.id)
    assert pids(made) == "42"
    assert runtime.status(made) == "paused"


def test_a_stopped_container_may_not(runtime, bundle):
    made = bundle("true")
    runtime.started(made)
    runtime.wait(made)
    runtime.refuses("update", "--pids-limit", "41", made.id, saying="container not running")


def test_an_unknown_container(runtime):
    runtime.refuses("update", "--pids-limit", "41", "nobody", saying="does not exist")


def test_limits_first_given_by_update(runtime, bundle):
    """A config without any resources: there is nothing to fall back to."""
    made = bundle.sleeping()
    runtime.started(made)
    runtime.ok("update", "--cpu-quota", "20000", "--memory", "64m", made.id)
    assert quota(made) == (20000, 100000)
    assert memory(made) == 64 * MiB


# --- refusals


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        (("--memory", "10x"), "invalid value for memory: invalid size: '10x'"),
        (("--memory-swap", ""), ""),
        (("--memory-reservation", "1..5m"), "invalid value for memory-reservation: invalid size"),
        (("--cpu-period", "abc"), "invalid value for cpu-period: "),
        (("--cpu-period", "-3"), "invalid value for cpu-period: "),
        (("--cpu-quota", "1.5"), "invalid value for cpu-quota: "),
        (("--cpu-share", "1 "), "invalid value for cpu-share: "),
        (("--cpu-rt-runtime", "x"), "invalid value for cpu-rt-runtime: "),
        (("--l3-cache-schema", "x"), "l3 cache schema is not enabled"),
        (("--mem-bw-schema", "x"), "memory bandwidth schema is not enabled"),
    ],
)
def test_options_that_cannot_be_meant(runtime, made, options, saying):
    before = limits(made)
    if not saying:
        runtime.ok("update", *options, made.id)
    else:
        runtime.refuses("update", *options, made.id, saying=saying)
    assert limits(made) == before


def test_a_whole_number_is_wanted(runtime, made):
    result = runtime("update", "--pids-limit", "abc", made.id)
    assert result.code == 1
    assert 'invalid value "abc" for flag -pids-limit: parse error' in result.error


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("", "holds no JSON"),
        ("{", "line 1 column 2: "),
        ("[]", "linux.resources: expected an object"),
        ('{"memory": {"limit": "64m"}}', "linux.resources.memory.limit: expected an integer"),
        ('{"pids": {"limit": true}}', "linux.resources.pids.limit: expected an integer"),
        ('{"cpu": {"shares": -1}}', "linux.resources.cpu.shares: expected an integer from 0"),
    ],
)
def test_a_file_that_cannot_be_meant(runtime, made, text, ours):
    before = limits(made)
    runtime.refuses("update", "-r", "-", made.id, input=text, ours=ours)
    assert limits(made) == before


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "{}",
        '{"new": 1, "newer": [1], "newest": {"a": null}}',
        '{"memory": null, "cpu": {}}',
    ],
)
def test_what_nobody_knows_or_is_null_changes_nothing(runtime, made, text):
    before = limits(made)
    runtime.ok("update", "-r", "-", made.id, input=text)
    assert limits(made) == before


@only_ocirt("others leave it to the kernel, whose bounds depend on the scheduler")
def test_what_create_would_refuse_is_refused(runtime, made):
    runtime.refuses(
        "update",
        "--blkio-weight",
        "1",
        made.id,
        ours="linux.resources.blockIO.weight: 1 is not within 10 and 1000",
    )


def test_a_file_that_is_not_there(runtime, made):
    runtime.refuses("update", "-r", "/nowhere", made.id, saying="/nowhere: no such file")


@needs_swap
def test_swap_below_memory_is_refused(runtime, made):
    before = limits(made)
    runtime.refuses(
        "update",
        "--memory",
        "200m",
        made.id,
        ours="linux.resources.memory.swap: 100663296 is below",
    )
    assert limits(made) == before


@only_ocirt("others leave what they had written")
@pytest.mark.parametrize(
    "change",
    [
        {"cpu": {"quota": 10000, "cpus": "4095"}},
        {"memory": {"limit": 32 * MiB}, "pids": {"limit": 9}, "cpu": {"period": 3}},
        {
            "memory": {"limit": 128 * MiB, "swap": 256 * MiB},
            "cpu": {"quota": 90000, "period": 90000, "cpus": "0"},
            "pids": {"limit": 9},
            "blockIO": {"throttleReadBpsDevice": [{"major": 4095, "minor": 7, "rate": 1}]},
        },
        {"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1, "mems": "999"}},
    ],
)
def test_what_the_kernel_refuses_is_taken_back_as_a_whole(runtime, made, change):
    before = limits(made)
    runtime.refuses("update", "-r", "-", made.id, input=json.dumps(change))
    assert limits(made) == before
    # and it is forgotten: the next call does not bring it up again
    runtime.ok("update", "--pids-limit", "45", made.id)
    assert pids(made) == "45"
    assert limits(made)[:3] == before[:3]


@only_ocirt("others write all that they know again")
def test_what_somebody_else_has_set_since_is_left_alone(runtime, made):
    path = os.path.join(cgroup_of(made, "pids"), "pids.max")
    with open(path, "w") as file:
        file.write("17")
    runtime.ok("update", "--cpu-quota", "30000", made.id)
    assert pids(made) == "17"


def test_updates_add_up(runtime, made):
    runtime.ok("update", "--cpu-quota", "30000", made.id)
    runtime.ok("update", "--pids-limit", "44", made.id)
    runtime.ok("update", "--memory", "48m", made.id)
    assert quota(made) == (30000, 100000)
    assert (pids(made), memory(made)) == ("44", 48 * MiB)


@only_ocirt("runc has no --cgroup-manager")
def test_without_a_cgroup_there_is_nothing_to_update(runtime, bundle):
    made = bundle.sleeping()
    with open(os.devnull, "w") as null:
        without = ["--cgroup-manager", "disabled", "create", "--bundle", made.path, made.id]
        runtime.ok(*without, stdout=null, stderr=null)
    runtime.refuses(
        "update", "--pids-limit", "4", made.id, saying="cgroups not configured for container"
    )
