"""events: what a container uses, and when the kernel kills for want of memory."""

from __future__ import annotations

import json
import os
import select
import time

import pytest

from tests.integration.support import PATIENCE, UNIFIED, eventually, needs_controllers, only_ocirt

MiB = 1 << 20

pytestmark = [pytest.mark.usefixtures("events"), needs_controllers("memory", "cpu", "pids")]

HUNGRY = "while [ ! -e /go ]; do usleep 1000; done; dd if=/dev/zero of=/dev/null bs=64M count=1"


@pytest.fixture
def events(runtime):
    if runtime.flavour == "crun":
        pytest.skip("crun has no events")


def stats(runtime, bundle):
    return runtime.ok("events", "--stats", bundle.id).json()


class Stream:
    """The lines of `events` as they come."""

    def __init__(self, runtime, bundle, *options):
        self.process = runtime.spawn("events", *options, bundle.id, stdout=-1)

    def next(self, patience=PATIENCE):
        assert select.select([self.process.stdout], [], [], patience)[0], "nothing comes"
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def rest(self):
        """Return what comes until the end."""
        return [json.loads(line) for line in self.process.stdout.read().splitlines()]


def listening(stream):
    """Wait until the runtime listens: it has opened what it polls."""
    folder = f"/proc/{stream.process.pid}/fd"

    def opened():
        try:
            names = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
        except OSError:
            return False
        return any("memory.events" in name or "eventfd" in name for name in names)

    assert eventually(opened)
    time.sleep(0.1)


def test_one_line_of_statistics(runtime, bundle):
    made = bundle.sleeping(
        linux={"resources": {"memory": {"limit": 64 * MiB}, "pids": {"limit": 20}}}
    )
    runtime.started(made)
    result = runtime.ok("events", "--stats", made.id)
    assert result.out.endswith("}\n")
    (line,) = result.lines
    event = json.loads(line)
    assert list(event) == ["type", "id", "data"]
    assert (event["type"], event["id"]) == ("stats", made.id)
    data = event["data"]
    assert set(data) == {
        "cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces",
    }  # fmt: skip
    assert data["memory"]["usage"]["limit"] == 64 * MiB
    assert 0 < data["memory"]["usage"]["usage"] < 64 * MiB
    assert data["memory"]["raw"]
    assert data["pids"] == {"current": 1, "limit": 20}
    assert data["cpu"]["usage"]["total"] > 0
    assert data["network_interfaces"] is None


def test_the_figures_are_those_of_the_container(runtime, bundle):
    made = bundle.sh("for n in 1 2 3 4; do sleep 1000 & done; i=0; while true; do i=$((i+1)); done")
    runtime.started(made)
    assert eventually(lambda: stats(runtime, made)["data"]["pids"]["current"] == 5)
    before = stats(runtime, made)["data"]["cpu"]["usage"]
    assert eventually(lambda: stats(runtime, made)["data"]["cpu"]["usage"]["user"] > before["user"])
    after = stats(runtime, made)["data"]["cpu"]["usage"]
    assert after["total"] > before["total"]
    if not UNIFIED:
        assert len(after["percpu"]) == len(after["percpu_user"]) == os.cpu_count()


def test_where_a_container_may_run(runtime, bundle):
    made = bundle.sleeping(linux={"resources": {"cpu": {"cpus": "0", "mems": "0"}}})
    runtime.started(made)
    cpuset = stats(runtime, made)["data"]["cpuset"]
    if not UNIFIED or runtime.is_ocirt:
        assert (cpuset["cpus"], cpuset["mems"]) == ([0], [0])
    assert {"cpu_exclusive", "sched_load_balance", "sched_relax_domain_level"} <= set(cpuset)


def test_throttling_shows(runtime, bundle):
    made = bundle.sh(
        "while true; do :; done", linux={"resources": {"cpu": {"quota": 2000, "period": 20000}}}
    )
    runtime.started(made)
    assert eventually(
        lambda: stats(runtime, made)["data"]["cpu"]["throttling"].get("throttledPeriods", 0) > 1
    )


def test_a_created_and_a_paused_container_have_statistics(runtime, bundle):
    made = bundle.sleeping()
    runtime.create(made)
    assert stats(runtime, made)["data"]["pids"]["current"] >= 1
    runtime.ok("pause", made.id)
    assert stats(runtime, made)["data"]["pids"]["current"] >= 1


def test_statistics_come_at_intervals_until_the_end(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    stream = Stream(runtime, made, "--interval", "100ms")
    times = []
    for _ in range(3):
        assert stream.next()["type"] == "stats"
        times.append(time.monotonic())
    assert times[2] - times[0] > 0.1
    runtime.kill(made, "KILL")
    runtime.wait(made)
    if not runtime.is_ocirt:
        runtime.delete(made)  # runc goes by the end of the cgroup
    assert {event["type"] for event in stream.rest()} <= {"stats"}
    assert stream.process.wait(PATIENCE) == 0


@only_ocirt("runc stays until the cgroup is removed")
def test_it_ends_with_the_container(runtime, bundle):
    made = bundle.sh("while [ ! -e /go ]; do usleep 1000; done")
    runtime.started(made)
    stream = Stream(runtime, made)
    listening(stream)
    made.put("/go")
    assert stream.process.wait(PATIENCE) == 0
    assert stream.rest() == []


def test_a_kill_for_want_of_memory_is_told(runtime, bundle):
    made = bundle.sh(
        f"({HUNGRY}); echo $? > /code; sleep 1000",
        linux={"resources": {"memory": {"limit": 16 * MiB, "swap": 16 * MiB}}},
    )
    runtime.started(made)
    stream = Stream(runtime, made, "--interval", "1h")
    listening(stream)
    made.put("/go")
    assert stream.next() == {"type": "oom", "id": made.id}
    assert eventually(lambda: os.path.exists(made.inside("/code")))
    assert runtime.status(made) == "running"
    runtime.kill(made, "KILL")
    runtime.wait(made)
    runtime.delete(made)
    assert stream.process.wait(PATIENCE) == 0


@only_ocirt("runc does not say every last one")
def test_the_kill_of_the_init_itself_is_told(runtime, bundle):
    made = bundle.sh(
        HUNGRY.replace("dd ", "exec dd "),
        linux={"resources": {"memory": {"limit": 16 * MiB, "swap": 16 * MiB}}},
    )
    runtime.started(made)
    stream = Stream(runtime, made, "--interval", "1h")
    listening(stream)
    made.put("/go")
    assert runtime.wait(made) == 137
    assert stream.rest() == [{"type": "oom", "id": made.id}]
    assert stream.process.wait(PATIENCE) == 0


def test_removing_the_cgroup_is_no_want_of_memory(runtime, bundle):
    made = bundle.sleeping(linux={"resources": {"memory": {"limit": 16 * MiB}}})
    runtime.started(made)
    stream = Stream(runtime, made, "--interval", "1h")
    listening(stream)
    runtime.delete(made, "--force")
    assert stream.rest() == []
    assert stream.process.wait(PATIENCE) == 0


def test_the_reader_may_go(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    stream = Stream(runtime, made, "--interval", "50ms")
    stream.next()
    stream.process.stdout.close()
    stream.process.stdout = None
    if not runtime.is_ocirt:
        return  # runc goes on
    assert stream.process.wait(PATIENCE) == 1


def test_a_stopped_container_has_no_events(runtime, bundle):
    made = bundle("true")
    runtime.started(made)
    runtime.wait(made)
    for options in ((), ("--stats",)):
        runtime.refuses(
            "events", *options, made.id, saying=f"container with id {made.id} is not running"
        )


@pytest.mark.parametrize("interval", ["0s", "0", "-5s"])
def test_the_interval_is_above_zero(runtime, bundle, interval):
    made = bundle.sleeping()
    runtime.started(made)
    runtime.refuses(
        "events",
        f"--interval={interval}",
        made.id,
        saying="duration interval must be greater than 0",
    )


def test_the_interval_is_a_duration(runtime, bundle):
    made = bundle.sleeping()
    runtime.started(made)
    result = runtime("events", "--interval", "soon", made.id)
    assert result.code == 1
    assert 'invalid value "soon" for flag -interval: parse error' in result.error


def test_an_unknown_container_is_named_as_such(runtime):
    runtime.refuses("events", "--stats", "nobody", saying="does not exist")
