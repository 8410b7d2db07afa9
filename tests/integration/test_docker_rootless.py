"""Docker without root: dockerd as root of a user namespace that rootlesskit makes.

The runtime starts in there, and on cgroup v1 gets neither a cgroup nor limits ("Cgroup Driver:
none").  What test_docker.py asks for is asked here again under the same names.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.integration import engines, users
from tests.integration.support import find_runtime, only_ocirt
from tests.integration.test_docker import (  # noqa: F401
    test_a_container_joins_anothers_namespaces,
    test_a_device_is_there_and_opens,
    test_a_device_that_was_not_given_does_not_open,
    test_a_device_under_another_name_read_only,
    test_a_directory_is_no_program,
    test_a_health_check,
    test_a_megabyte_passes_through_both_ways,
    test_a_missing_working_directory_is_made,
    test_a_named_volume_begins_as_a_copy_and_lasts,
    test_a_program_that_cannot_start_is_named,
    test_a_read_only_root,
    test_a_restart_policy_tries_again,
    test_a_running_container_is_removed_by_force,
    test_a_terminal_has_its_size_and_its_name,
    test_an_init_of_dockers,
    test_any_other_failure_to_create_is_125,
    test_arguments_of_the_runtime_are_passed_on,
    test_capabilities_dropped_and_added,
    test_containers_find_each_other_by_name,
    test_create_now_and_start_later,
    test_default_capabilities,
    test_environment_and_home,
    test_exec_runs_another_program,
    test_hostname_and_domainname,
    test_keys_reach_the_program_on_its_terminal,
    test_kill_sends_the_signal_that_was_asked_for,
    test_logs,
    test_many_at_once_leave_nothing,
    test_masked_and_read_only_paths,
    test_no_network,
    test_no_new_privileges,
    test_piped_stdin_reaches_the_program,
    test_restart_begins_anew_with_the_same_id,
    test_run_prints_what_the_program_prints,
    test_seccomp_by_default_and_unconfined,
    test_seccomp_profile_of_a_file,
    test_shm_size,
    test_stdout_and_stderr_stay_apart,
    test_stop_asks_first,
    test_stop_kills_when_the_time_is_up,
    test_sysctls,
    test_the_daemon_knows_the_runtime,
    test_the_default_devices,
    test_the_default_profile_refuses_what_it_should,
    test_the_exit_code_is_the_programs,
    test_the_oom_score_can_be_raised,
    test_the_terminal_is_the_console,
    test_tmpfs_on_a_read_only_root,
    test_two_containers_meet_on_the_bridge,
    test_user_by_number_and_by_name,
    test_wait_returns_the_status,
)

RUNTIME = find_runtime()
SCRIPT = "/usr/share/docker.io/contrib/dockerd-rootless.sh"
MISSING = (
    users.MISSING
    or engines.missing("dockerd", "docker", "containerd", "nsenter", "newuidmap")
    or engines.missing("rootlesskit", "slirp4netns", SCRIPT)
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


class Rootless(engines.DockerClient):
    """A dockerd of a user, behind rootlesskit."""

    def __init__(self, folder, runtime, user):
        super().__init__(folder, "docker-rootless", runtime, own_run=True)
        self.user = user
        self.env = {
            **user.env,
            "DOCKER_HOST": f"unix://{user.runtime_dir}/docker.sock",
            "DOCKER_CONFIG": self.path("client"),
        }
        user.own(folder)

    def start(self):
        config = {
            "data-root": self.path("data"),
            "default-runtime": "hpc",
            "runtimes": {
                "hpc": {"path": self.runtime},
                "hpc-debug": {"path": self.runtime, "runtimeArgs": ["--debug"]},
            },
        }
        path = self.write("daemon.json", json.dumps(config))
        argv = self.user.argv(SCRIPT, "--config-file", path)
        self.launch(argv, lambda: self("version").code == 0)
        self.load()

    def argv(self, *args):
        return self.user.argv(*super().argv(*args))

    def leftovers(self):
        state = os.path.join(self.user.runtime_dir, "docker/runtime-runc/moby")
        names = os.listdir(state) if os.path.isdir(state) else ()
        return [
            *(f"state: {name}" for name in names if not name.startswith(".")),
            *(f"process: {line}" for line in self.user.processes().values() if "shim" in line),
        ]


@pytest.fixture(scope="session")
def user(base):
    folder = os.path.join(base, "docker-user")
    os.mkdir(folder)
    with users.ordinary(folder) as user:
        yield user


@pytest.fixture(scope="session")
def daemon(base, user):
    os.mkdir(os.path.join(base, "docker-reach"))
    runtime = users.reachable(user, RUNTIME, os.path.join(base, "docker-reach"))
    with engines.serving(Rootless(os.path.join(base, "dr"), runtime, user)) as docker:
        yield docker


docker = engines.lent("daemon")


# --- under the names of test_docker.py, as far as it goes without root


def test_a_volume_is_shared_with_the_host(docker, workdir):
    docker.user.own(workdir)
    docker.run(f"-v {workdir}:/mnt", "sh", "-c", "echo from inside > /mnt/file")
    path = os.path.join(workdir, "file")
    with open(path) as file:
        assert file.read() == "from inside\n"
    assert os.stat(path).st_uid == docker.user.uid
    assert docker.run(f"-v {workdir}:/mnt:ro", "sh", "-c", "cat /mnt/file") == "from inside"
    assert docker.try_run(f"-v {workdir}:/mnt:ro", "touch", "/mnt/other").code != 0


def test_privileged(docker):
    script = "mkdir /m; mount -t tmpfs none /m && echo mounted; test -w /proc/sys && echo open"
    assert docker.sh("--privileged", script).split() == ["mounted", "open"]


@only_ocirt("runc mounts a new procfs, which the kernel refuses")
def test_namespaces_of_the_host(docker):
    own = os.readlink(f"/proc/{docker.daemon.pid}/ns/pid")
    assert docker.run("--pid=host", "readlink", "/proc/self/ns/pid") == own
    assert int(docker.run("--pid=host", "sh", "-c", "echo $$")) > 1


def test_the_network_of_the_host(docker):
    """Which is that of rootlesskit: slirp4netns has put its end there."""
    assert "tap0" in docker.sh("--network host", "ls /sys/class/net")
    refused = docker.try_run("--network host", "sh", "-c", "echo 9000 > /sys/class/net/lo/mtu")
    assert refused.code != 0


def test_a_mount_that_the_container_makes_later_is_seen_only_there(docker, workdir):
    docker.user.own(workdir)
    options = f"-v {workdir}:/mnt:rslave --cap-add SYS_ADMIN --security-opt seccomp=unconfined"
    docker.sh(options, "mkdir /mnt/m; mount -t tmpfs none /mnt/m; touch /mnt/m/inside")
    assert os.listdir(os.path.join(workdir, "m")) == []


def test_limits_without_cgroups_are_left_out_and_pause_is_refused(docker):
    assert "Cgroup Driver: none" in docker.ok("info")
    container = docker.detached("--memory 64m --pids-limit 20", "sleep", "1000")
    refused = docker("pause", container.id)
    assert "cannot toggle freezer: cgroups not configured" in refused.err
    refused = docker("update", "--memory", "32m", "--memory-swap", "32m", container.id)
    assert refused.code != 0
    assert container.inspect("State.Status") == "running"


@only_ocirt("runc looks for the processes in a cgroup, and there is none")
def test_top_lists_the_processes(docker):
    container = docker.detached("", "sh", "-c", "sleep 1000 & exec sleep 1000")
    assert container.do("top").count("sleep 1000") == 2
