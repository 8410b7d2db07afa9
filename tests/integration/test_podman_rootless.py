"""Podman without root: it calls the runtime as root of its own user namespace.

The config says nothing of that namespace, and on cgroup v1 nothing of cgroups.  What test_podman.py
asks for is asked here again, by an ordinary user, under the same names.
"""

from __future__ import annotations

import os

import pytest

from tests.integration import engines, users
from tests.integration.support import UNIFIED, eventually, find_runtime, only_ocirt
from tests.integration.test_podman import (  # noqa: F401
    test_a_container_is_removed_while_an_exec_runs,
    test_a_container_joins_anothers_namespaces,
    test_a_device_by_its_name_in_a_cdi_file,
    test_a_device_is_there_and_opens,
    test_a_health_check,
    test_a_mistake_on_the_command_line_is_125,
    test_a_pod_from_a_manifest_of_kubernetes,
    test_a_program_that_cannot_start_is_named,
    test_a_read_only_root,
    test_a_restart_policy_tries_again,
    test_a_running_container_is_removed_by_force,
    test_a_terminal_has_its_size_and_its_name,
    test_a_volume_is_shared_with_the_host,
    test_a_volume_that_is_laid_over,
    test_an_init_of_podmans,
    test_any_other_failure_to_create_is_told,
    test_capabilities_dropped_and_added,
    test_create_now_and_start_later,
    test_exec_runs_another_program,
    test_fifty_at_once_leave_nothing,
    test_kill_sends_the_signal_that_was_asked_for,
    test_logs,
    test_members_of_a_pod_share_namespaces,
    test_no_cgroup_at_all,
    test_piped_stdin_reaches_the_program,
    test_restart_begins_anew_with_the_same_id,
    test_run_prints_what_the_program_prints,
    test_seccomp_by_default_and_unconfined,
    test_secrets,
    test_stdout_and_stderr_stay_apart,
    test_stop_asks_first,
    test_stop_kills_when_the_time_is_up,
    test_sysctls,
    test_the_end_of_a_pod_takes_its_containers_along,
    test_the_engine_knows_the_runtime,
    test_the_exit_code_is_the_programs,
    test_top_lists_the_processes,
    test_user_by_number_and_by_name,
    test_what_a_failing_create_asks_of_the_runtime,
)

RUNTIME = find_runtime()
MISSING = users.MISSING or engines.missing("podman", "conmon", "nsenter", "newuidmap")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


class Rootless(engines.Podman):
    """Podman of a user, with storage of its own."""

    def __init__(self, folder, runtime, user, **options):
        super().__init__(folder, runtime, **options)
        self.user = user
        self.RUN = ()  # the user has no cgroups to put containers into
        self.env = {
            **user.env,
            **{name: value for name, value in self.env.items() if name.startswith("CONTAINERS_")},
        }
        user.own(folder)

    def argv(self, *args):
        return self.world.enter(*self.user.argv("podman", *args))

    def state(self):
        return os.path.join(self.user.runtime_dir, engines.flavour(self.runtime))

    def leftovers(self):
        names = os.listdir(self.state()) if os.path.isdir(self.state()) else ()
        return [
            *(f"state: {name}" for name in names if not name.startswith(".")),
            *(f"process: {line}" for line in self.world.processes().values() if "conmon" in line),
        ]

    def sweep(self):
        if self.holds():
            super().sweep()
            self.let_go()

    def let_go(self):
        """End what holds the user namespace between two commands."""
        self.ok("system", "migrate")

    def close(self):
        self.let_go()
        super().close()


@pytest.fixture(scope="session")
def user(base):
    folder = os.path.join(base, "podman-user")
    os.mkdir(folder)
    with users.ordinary(folder) as user:
        yield user


@pytest.fixture(scope="session")
def engine(base, user):
    os.mkdir(os.path.join(base, "reach"))
    runtime = users.reachable(user, RUNTIME, os.path.join(base, "reach"))
    folder = os.path.join(base, "podman-rootless")
    with engines.serving(Rootless(folder, runtime, user)) as podman:
        yield podman


@pytest.fixture
def podman(engine):
    engine.user.groups = ()
    with engines.used(engine):
        yield engine


@pytest.fixture
def pod(podman):
    infra = ("--infra-image", podman.IMAGE, "--infra-command", "/bin/sleep 1000")
    share = ("--share", "ipc,uts", "--network=none")
    return podman.ok("pod", "create", "--name", "pd", *infra, *share)


@pytest.fixture
def workdir(workdir, user):
    return user.own(workdir)


# --- who one is


def test_root_is_the_user_and_others_are_subordinate(podman):
    first = podman.user.subordinate("uid")
    rows = [
        list(map(int, row.split()))
        for row in podman.run("", "cat", "/proc/self/uid_map").split("\n")
    ]
    assert rows == [[0, podman.user.uid, 1], [1, first, users.RANGE]]
    assert podman.run("--user alice", "id", "-u") == "1000"


def test_limits_users_and_capabilities(podman):
    """Podman takes limits out on v1, where no user has cgroups; on v2 they need delegation."""
    limits = "--memory 64m --pids-limit 20"
    if UNIFIED:
        refused = podman.try_run(limits, "true")
        assert "no limits + no cgrouppath when no permission is granted" in refused.err
        limits = ""
    result = podman.try_run(
        f"{limits} --user alice --cap-drop ALL --read-only --hostname box",
        "sh",
        "-c",
        "id -un; hostname; grep CapEff /proc/self/status; touch /x 2>&1",
    )
    user, name, capabilities, refusal = result.out.splitlines()[-4:]
    assert (user, name, capabilities.split()[1]) == ("alice", "box", "0" * 16)
    assert "Read-only file system" in refusal


def test_a_volume_and_a_device(podman, workdir):
    text = podman.run(
        f"-v {workdir}:/mnt --device /dev/fuse", "sh", "-c", "echo x > /mnt/y; ls /dev/fuse"
    )
    assert text == "/dev/fuse"
    found = os.stat(os.path.join(workdir, "y"))
    assert (found.st_uid, found.st_gid) == (podman.user.uid, podman.user.gid)


@pytest.mark.parametrize("options", ["", "--pid=host", "--net=host"])
def test_a_user_keeps_its_id(podman, options):
    """A user namespace within Podman's, in which nobody can walk to the image by name."""
    text = podman.run(f"--userns=keep-id {options}", "sh", "-c", "id -u; id -g; touch /tmp/x")
    assert text.split() == [str(podman.user.uid), str(podman.user.gid)]


def test_a_volume_behind_a_closed_door_with_a_kept_id(podman):
    folder = os.path.join(podman.user.home, "closed")
    podman.user.make(folder, 0o700)
    podman.user.make(os.path.join(folder, "open"))
    script = "echo x > /mnt/y && stat -c %u /mnt/y"
    text = podman.run(f"--userns=keep-id -v {folder}/open:/mnt", "sh", "-c", script)
    assert text == str(podman.user.uid)


def test_a_mapping_of_ones_own(podman):
    rows = podman.run("--userns=auto", "cat", "/proc/self/uid_map").split("\n")
    assert [row.split()[0] for row in rows] == ["0"]
    assert rows[0].split()[1] != "0"


def test_the_callers_groups_go_and_stay_on_request(podman):
    podman.user.groups = (29, 30)
    show = ("grep", "Groups", "/proc/self/status")
    assert podman.run("", *show).split()[1:] == []
    assert podman.run("--group-add 5 --group-add 6", *show).split()[1:] == ["5", "6"]


@only_ocirt("runc knows no such annotation, and Podman asks for it by that of crun")
def test_groups_are_kept_for_a_program_and_for_exec(podman):
    podman.user.groups = (29, 30)
    container = podman.detached("--group-add keep-groups", "sleep", "1000")
    for text in (
        container.exec("grep", "Groups", "/proc/self/status"),
        container.exec("grep", "Groups", "/proc/1/status"),
    ):
        assert text.split().count("65534") == 2


def test_privileged(podman):
    script = "grep CapEff /proc/self/status; mkdir /m; mount -t tmpfs none /m && echo mounted"
    text = podman.run("--privileged", "sh", "-c", f"{script}; ls /dev/fuse")
    assert text.split()[1:] == ["000001ffffffffff", "mounted", "/dev/fuse"]


# --- what cannot be mounted anew


@pytest.mark.parametrize("option", ["--net=host", "--pid=host", "--uts=host"])
def test_namespaces_of_the_host(podman, option):
    kind = {"--net=host": "net", "--pid=host": "pid", "--uts=host": "uts"}[option]
    own = os.readlink(f"/proc/{podman.world.keeper.pid}/ns/{kind}")
    assert podman.run(option, "readlink", f"/proc/self/ns/{kind}") == own
    assert "lo" in podman.run(option, "ls", "/sys/class/net").split()
    written = podman.try_run(option, "sh", "-c", "echo 1 > /sys/class/net/lo/mtu")
    assert written.code != 0


def test_masked_and_read_only_paths(podman):
    script = "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo x 2>&1 > /proc/sys/kernel/hostname"
    zero, none, refusal = podman.try_run("", "sh", "-c", script + " 2>&1").out.strip().split("\n")
    assert (zero, none) == ("0", "0")
    assert "Read-only" in refusal


def test_the_default_devices(podman):
    script = "for d in null zero full tty random urandom; do stat -c '%n %F' /dev/$d; done"
    lines = podman.run("", "sh", "-c", script).split("\n")
    assert [line.split()[1:] for line in lines] == [["character", "special", "file"]] * 6
    assert podman.run("", "sh", "-c", "head -c 4 /dev/zero | wc -c; echo x > /dev/null") == "4"


def test_shm_and_tmpfs(podman):
    text = podman.run("--shm-size 2m --tmpfs /t:size=1m", "df", "-k", "/dev/shm", "/t")
    assert [line.split()[1] for line in text.split("\n")[1:]] == ["2048", "1024"]


# --- the network


def test_a_network(podman):
    """slirp4netns joins the container's network namespace after `create`."""
    if engines.missing("slirp4netns"):
        pytest.skip("slirp4netns is not installed")
    text = podman.run("--network slirp4netns", "ip", "-o", "addr")
    assert "tap0" in text


# --- life


def test_logs_ps_top_and_inspect(podman):
    container = podman.detached(
        "--name boxed", "sh", "-c", "echo out; echo err >&2; exec sleep 1000"
    )
    assert container.says("out")
    assert "boxed" in podman.ok("ps")
    assert "sleep 1000" in container.do("top")
    assert container.inspect("State.Status") == "running"
    with open(f"/proc/{container.pid}/comm") as file:
        assert file.read().strip() == "sleep"


def test_files_are_copied_in_and_out(podman, workdir):
    container = podman.detached("", "sleep", "1000")
    source, target = os.path.join(workdir, "in"), os.path.join(workdir, "out")
    with open(source, "w") as file:
        file.write("there and back\n")
    os.chown(source, podman.user.uid, podman.user.gid)
    podman.ok("cp", source, f"{container.id}:/tmp/x")
    podman.ok("cp", f"{container.id}:/tmp/x", target)
    with open(target) as file:
        assert file.read() == "there and back\n"


def test_the_last_process_of_a_container_takes_the_rest_along(podman):
    container = podman.detached("", "sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000")

    def asleep():
        return [line for line in podman.user.processes().values() if line == "sleep 1000 "]

    assert eventually(lambda: len(asleep()) == 3)
    container.do("kill", "-s", "KILL")
    assert container.wait() == 137
    assert engines.gone(asleep) == []


def test_pause_is_refused_where_there_is_no_cgroup(podman):
    """By Podman itself on v1, by the runtime on v2, where nobody has delegated anything."""
    container = podman.detached("", "sleep", "1000")
    refused = podman("pause", container.id)
    assert refused.code != 0
    assert "cgroup" in refused.err.lower()
