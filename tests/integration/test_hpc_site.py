"""What a site adds, in real containers: mounts, users, accounts, hooks, the host's namespaces."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.support import only_ocirt
from tests.unit.hpc import machines

pytestmark = only_ocirt("other runtimes have no site of their own")


@pytest.fixture
def site(workdir):
    """Write the settings of a site; return the option that names them."""
    path = Path(workdir) / "site"
    path.mkdir(mode=0o755)
    (path / "share").mkdir()
    (path / "share/file").write_text("shared")

    def write(text):
        file = path / "hpc.toml"
        file.touch(mode=0o600)
        file.write_text(text.replace("HERE", str(path)))
        return "--hpc-config", str(file)

    write.path = path
    return write


def run(runtime, options, bundle):
    return runtime(*options, "run", "--bundle", bundle.path, bundle.id)


SHARE = '[[mounts]]\nsource = "HERE/share"\ndestination = "/scratch/deep"\n'


def test_a_site_gives_its_file_system(runtime, bundle, site):
    b = bundle.sh("cat /scratch/deep/file; echo -n x > /scratch/deep/new; echo $SITE")
    options = site(f'[stage]\ntrigger = "always"\n[env.set]\nSITE = "here"\n{SHARE}')
    assert run(runtime, options, b).out == "sharedhere\n"
    assert (site.path / "share/new").read_text() == "x"


def test_a_link_of_the_image_leads_nowhere_else(runtime, bundle, site):
    b = bundle.sh("cat /scratch/deep/file")
    outside = site.path / "outside"
    outside.mkdir()
    os.symlink(outside, b.inside("/scratch"))
    assert run(runtime, site(f'[stage]\ntrigger = "always"\n{SHARE}'), b).out == "shared"
    assert list(outside.iterdir()) == []


def test_another_user_has_a_name_and_no_capabilities(runtime, bundle, site):
    b = bundle.sh("id -u; id -g; id -un; grep -E 'Cap(Eff|Prm|Amb)' /proc/self/status")
    options = site(
        '[stage]\ntrigger = "always"\n[user]\nmode = "fixed"\nvalue = "1234:56"\naccounts = true\n'
    )
    lines = run(runtime, options, b).out.splitlines()
    assert lines[:3] == ["1234", "56", "user1234"]
    assert [line.split()[1] for line in lines[3:]] == ["0" * 16] * 3


def test_a_job_shares_namespaces_with_the_host(runtime, bundle, site):
    kinds = ("cgroup", "ipc", "net", "pid", "uts", "mnt")
    b = bundle.sh(f"for n in {' '.join(kinds)}; do readlink /proc/self/ns/$n; done")
    options = (*site(""), "--hpc-profile", "hpc-job")
    b.config["hostname"] = "box"
    b.save()
    result = run(runtime, options, b)
    here = [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]
    there = result.out.splitlines()
    assert there[:-1] == here[:-1], result
    assert there[-1] != here[-1]


@pytest.mark.skipif(0 not in os.sched_getaffinity(0), reason="may not use CPU 0")
def test_a_program_runs_near_its_gpu(runtime, bundle, site):
    node = machines.cluster_node(site.path / "node")
    machines.install(node)
    node.numa("0", "1-127")
    node.host()
    options = site('[stage]\nhost-root = "HERE/node"\n')
    b = bundle.sh("grep -E '(Cpus|Mems)_allowed_list' /proc/self/status")
    b.patch(annotations={"ocirt.hpc/gpus": "0", "ocirt.hpc/cpuset": "nearest"})
    assert run(runtime, options, b).out.split()[1::2] == ["0", "0"]


@pytest.mark.skipif(
    "hugetlbfs" not in Path("/proc/filesystems").read_text(), reason="a kernel without huge pages"
)
def test_huge_pages_are_the_users_own(runtime, bundle, site):
    node = machines.Machine(site.path / "node")
    node.write("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8\n")
    options = site('[stage]\nhost-root = "HERE/node"\n')
    script = "grep hugetlbfs /proc/mounts; touch /dev/hugepages/mine && ls /dev/hugepages"
    user = {"uid": 1000, "gid": 100}
    b = bundle.sh(script, process={"user": user, "capabilities": {}})
    b.patch(annotations={"ocirt.hpc/hugepages": "true"})
    result = run(runtime, options, b)
    _, place, kind, how, *_, seen = result.out.split()
    assert (place, kind, seen) == ("/dev/hugepages", "hugetlbfs", "mine"), result
    wanted = {"rw", "nosuid", "nodev", "noexec", "uid=1000", "gid=100", "mode=770"}
    assert wanted <= set(how.split(","))


def test_a_hook_of_the_site_runs(runtime, bundle, site):
    hook = site.path / "hook"
    hook.touch(mode=0o755)
    hook.write_text(f"#!/bin/sh\ncat > {site.path}/state\n")
    (site.path / "hooks.d").mkdir(mode=0o755)
    file = site.path / "hooks.d/a.json"
    file.touch(mode=0o644)
    document = {
        "version": "1.0.0", "hook": {"path": str(hook)}, "when": {"commands": ["sh$"]},
        "stages": ["createRuntime"],
    }  # fmt: skip
    file.write_text(json.dumps(document))
    b = bundle.sh("true")
    result = run(runtime, site('[hooks]\ndirs = ["HERE/hooks.d"]\n'), b)
    assert result.code == 0, result
    assert json.loads((site.path / "state").read_text())["id"] == b.id


def test_a_source_that_is_not_there_leaves_nothing(runtime, bundle, site):
    text = SHARE.replace("/share", "/gone")
    result = run(runtime, site(f'[stage]\ntrigger = "always"\n{text}'), bundle.sh("true"))
    assert result.code == 1
    assert f"hpc.toml: mounts[0]: this host has no {site.path}/gone" in result.error


# --- a kind of devices of the site's own, whose numbers no driver answers to

NUMBERS = {"given": (240, 7), "other": (240, 8)}


@pytest.fixture
def acme():
    """Put nodes of two devices on the host; return settings that know their kind."""
    made = [f"/dev/ocirt-acme{number}" for number in range(len(NUMBERS))]
    try:
        for path, (major, minor) in zip(made, NUMBERS.values(), strict=True):
            os.mknod(path, 0o020666, os.makedev(major, minor))
        yield '[device.acme]\nfind = "/dev/ocirt-acme#"\n'
    finally:
        for path in made:
            if os.path.exists(path):
                os.unlink(path)


def asks_for_one(box):
    """Let a container ask for the first, with a node of each that the image has made itself."""
    for name, (major, minor) in NUMBERS.items():
        os.mknod(box.inside(name), 0o020666, os.makedev(major, minor))
    return box.patch(annotations={"ocirt.hpc/acme": "0"})


OPENED = {
    "/dev/ocirt-acme0": "No such device or address",  # allowed, and nobody serves it
    "/given": "No such device or address",
    "/dev/ocirt-acme1": "No such file",
    "/other": "Operation not permitted",
}


def opened(runtime, box):
    """Return what a container hears when it opens each node."""
    found = {}
    for path in OPENED:
        said = runtime("exec", box.id, "sh", "-c", f"exec 3<{path}").err
        words = (word for word in OPENED.values() if word.lower() in said.lower())
        found[path] = next(words, said)
    return found


def started(runtime, options, box):
    """Run a container in the background, with options before the verb."""
    line = ["run", "--detach", "--bundle", box.path, "--pid-file", box.pid_file, box.id]
    done = runtime(*options, *line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.code == 0, done


def test_only_the_given_device_is_allowed(runtime, bundle, site, acme):
    box = asks_for_one(bundle.sleeping())
    started(runtime, site(acme), box)
    assert opened(runtime, box) == OPENED
