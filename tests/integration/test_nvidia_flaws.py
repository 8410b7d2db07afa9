"""The published flaws of NVIDIA's container tools, each tried on ocirt by an image that uses it.

A directory of the host, `canary`, stands for everything that an image must not reach: nothing in
it may change, and nothing of it may be seen inside.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
from pathlib import Path

import pytest

from tests.integration import test_nvidia as base
from tests.integration.support import only_ocirt
from tests.unit.hpc import machines

pytestmark = only_ocirt("other runtimes leave GPUs to hooks")

gpus = base.gpus
ASKED = "NVIDIA_VISIBLE_DEVICES=0"
RENAME_EXCHANGE = 2
AT_FDCWD = -100


@pytest.fixture
def canary(workdir):
    """A directory of the host with a library and a file, and what it looked like before."""
    place = Path(workdir) / "canary"
    place.mkdir()
    (place / "secret").write_text("secret\n")
    (place / "libcuda.so.999.1").write_bytes(machines.library("libcuda.so.1"))
    before = look(place)
    yield place
    assert look(place) == before


def look(place):
    """Return every file below a place with all that a write would change."""
    found = {}
    for path in sorted([place, *place.rglob("*")]):
        seen = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (seen.st_mode, seen.st_uid, seen.st_mtime_ns, content)
    return found


def link(bundle, path, target):
    """Put a link into the image, in place of what is there."""
    inside = bundle.inside(path)
    if os.path.isdir(inside) and not os.path.islink(inside):
        shutil.rmtree(inside)
    os.makedirs(os.path.dirname(inside), exist_ok=True)
    os.symlink(target, inside)


def out_of(bundle, target):
    """Return a link's text that leads from the image to a path of the host, if followed there."""
    return "../" * 40 + str(target).lstrip("/")


def loader(bundle):
    """Let the image look as if it had glibc's loader."""
    os.makedirs(bundle.inside("/lib64"), exist_ok=True)
    Path(bundle.inside("/lib64/ld-linux-x86-64.so.2")).touch()


# --- CVE-2024-0132, CVE-2026-24260: a path of the image is another by the time it is mounted


@pytest.mark.parametrize("path", ["/usr/bin", "/etc", "/run", "/usr/local/cuda", "/usr/lib64"])
def test_a_name_that_changes_under_the_mounts(runtime, bundle, gpus, canary, host, path):
    if path == "/usr/lib64":
        base.in_the_images_folders(gpus)
    b = bundle.sh("find / -xdev -name secret; ls /usr/bin/secret /etc/secret /run/secret; true")
    loader(b)
    os.makedirs(b.inside(f"{path}/compat"), exist_ok=True)
    other = b.inside(f"{path}-link")
    os.symlink(canary, other)
    renameat2, stop = ctypes.CDLL(None).renameat2, threading.Event()
    names = b.inside(path).encode(), other.encode()

    def swap():
        while not stop.is_set():
            renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        results = [base.run(runtime, gpus, base.asking(b, ASKED)) for _ in range(25)]
    finally:
        stop.set()
        racer.join()
    # Now and then the race ends a start; nothing of the host is seen in any.
    assert {result.out for result in results} <= {""}, results[0]
    assert host.leftovers() == []


# --- CVE-2024-0133: mount points, made where an image's links lead


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin",
        "/etc",
        "/run",
        "/run/ocirt",
        "/lib/firmware",
        "/etc/OpenCL",
        "/dev",
        "/usr/lib64",
    ],
)
def test_no_mount_point_is_made_outside(runtime, bundle, gpus, canary, path, host):
    if path == "/usr/lib64":
        base.in_the_images_folders(gpus)
    b = bundle("true")
    loader(b)
    link(b, path, out_of(b, canary))
    base.run(runtime, gpus, base.asking(b, ASKED))
    assert host.leftovers() == []


# --- CVE-2024-0134: links, made where an image's links lead


@pytest.mark.parametrize("absolute", [True, False])
def test_no_link_is_made_outside(runtime, bundle, gpus, canary, absolute):
    b = bundle("true")
    link(b, "/opt/lib", str(canary) if absolute else out_of(b, canary))
    links = ["x::/opt/lib/libcuda.so", "x::/opt/lib/secret", f"x::/../../..{canary}/evil"]
    args = [word for text in links for word in ("--link", text)]
    b.patch(hooks={"createContainer": [base.cdi_hook("create-symlinks", *args)]})
    base.run(runtime, gpus, b)
    # What was made lies in the image, below the name that the host's directory has.
    assert os.readlink(b.inside(f"{canary}/evil")) == "x"


# --- CVE-2024-0135: files of the host, seen in the container, are not to be written


def test_what_comes_from_the_host_cannot_be_written(runtime, bundle, gpus):
    places = f"/usr/bin/nvidia-smi /run/ocirt/hpc/lib64/libcuda.so.{machines.VERSION}"
    b = bundle.sh(
        f"for f in {places} /run/ocirt/hpc/x /run/ocirt/hpc/lib64/libcuda.so.1; do"
        " echo evil >$f && echo written $f; rm $f && echo removed $f;"
        " chmod 777 $f && echo changed $f; done; mount -o remount,rw,bind /usr/bin/nvidia-smi"
        " && echo remounted; true"
    )
    before = look(gpus.root / "usr")
    result = base.run(runtime, gpus, base.asking(b, ASKED))
    assert (result.code, result.out) == (0, ""), str(result)
    assert look(gpus.root / "usr") == before


# --- CVE-2024-0136, CVE-2024-0137: programs of the image, run by the host before the container


def test_no_program_of_the_image_runs(runtime, bundle, gpus, canary):
    b = bundle.sh("ls /ran 2>/dev/null; true")
    loader(b)
    b.put("/etc/ld.so.conf", "/lib64\n")
    for path in ("/sbin/ldconfig", "/sbin/ldconfig.real", "/usr/bin/nvidia-cdi-hook"):
        b.put(path, f"#!/bin/sh\necho ran >/ran; echo ran >>{canary}/secret\n", 0o755)
    hooks = [
        base.cdi_hook("update-ldcache", "--folder", "/lib64", "--ldconfig-path", "/sbin/ldconfig")
    ]
    b.patch(hooks={"createContainer": hooks})
    result = base.run(runtime, gpus, base.asking(b, ASKED))
    assert (result.code, result.out) == (0, ""), str(result)


# --- CVE-2025-23359: the image's compat libraries, as a source of mounts or of the cache


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/usr/local/cuda/compat", "{canary}"),
        ("/usr/local/cuda", "{canary}/.."),
        ("/usr/local/cuda/compat/libcuda.so.999.1", "{canary}/libcuda.so.999.1"),
        ("/usr/local/cuda/compat/libcuda.so.999.1", "/proc/self/root{canary}/libcuda.so.999.1"),
        ("/usr/local/cuda/compat/libcuda.so.999.1", "/dev/zero"),
    ],
)
def test_no_library_of_the_host_by_way_of_compat(runtime, bundle, gpus, canary, path, target):
    b = bundle.sh("grep -c 999 /etc/ld.so.cache; find / -xdev -name '*999*' -type f; true")
    loader(b)
    link(b, path, out_of(b, target.format(canary=canary)) if "zero" not in target else target)
    result = base.run(runtime, gpus, base.asking(b, ASKED))
    assert result.out.split() == ["0"], str(result)


# --- CVE-2025-23266: hooks with the variables, or in the directory, of the image


def test_a_hook_sees_nothing_of_the_image(runtime, bundle, gpus, workdir):
    said = Path(workdir) / "said"
    program = Path(workdir) / "nvidia-cdi-hook"
    program.write_text(f"#!/bin/sh\nenv >{said}\npwd >>{said}\ncat >/dev/null\n")
    program.chmod(0o755)
    b = bundle("true")
    b.put("/evil.so")
    hook = {"path": str(program), "args": ["nvidia-cdi-hook", "novel"], "env": ["A=1"]}
    b.patch(hooks={"createContainer": [hook]})
    env = [ASKED, "LD_PRELOAD=./evil.so", "LD_LIBRARY_PATH=/proc/self/cwd", "LD_AUDIT=/evil.so"]
    assert base.run(runtime, gpus, base.asking(b, *env)).code == 0
    words = said.read_text()
    assert "A=1\n" in words
    assert "LD_" not in words
    assert "NVIDIA_VISIBLE_DEVICES" not in words
    assert not words.splitlines()[-1].startswith(b.inside("/"))


# --- CVE-2025-23267: the loader's files are links


@pytest.mark.parametrize("way", ["create", "hook"])
@pytest.mark.parametrize(
    "path", ["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc"]
)
def test_the_loaders_files_are_written_nowhere_else(runtime, bundle, gpus, canary, path, way):
    b = bundle("true")
    loader(b)
    end = canary if path in ("/etc", "/etc/ld.so.conf.d") else canary / "secret"
    link(b, path, out_of(b, end))
    if way == "hook":
        folder = "/usr/lib/x86_64-linux-gnu"
        source = f"{gpus.root}{folder}/libcuda.so.{machines.VERSION}"
        b.config["mounts"].append(
            {"destination": "/opt/x/libcuda.so.1.1", "source": source, "options": ["bind", "ro"]}
        )
        hooks = [base.cdi_hook("update-ldcache", "--folder", "/opt/x")]
        b.patch(hooks={"createContainer": hooks})
    else:
        base.asking(b, ASKED)
    base.run(runtime, gpus, b)


# --- what else an image can ask for


def test_an_image_cannot_have_mig_configured(runtime, bundle, gpus):
    gpus.mig(2, 9)
    b = bundle.sh("ls /dev/nvidia-caps 2>/dev/null; ls /proc/driver/nvidia 2>/dev/null; true")
    env = [ASKED, "NVIDIA_MIG_CONFIG_DEVICES=all", "NVIDIA_MIG_MONITOR_DEVICES=all"]
    assert base.run(runtime, gpus, base.asking(b, *env)).out == ""


@pytest.mark.parametrize(
    "links",
    [
        {"/usr/lib": "{canary}", "/lib64": "usr/lib"},
        {"/lib64": "{canary}"},
        {"/usr/lib64": "/proc/1/root{canary}"},
        {"/lib": "/lib"},  # a loop
        {"/usr/lib": "../../../../../../.."},
    ],
)
def test_linked_folders_of_libraries(runtime, bundle, gpus, canary, links, host):
    b = bundle.sh("ls /usr/lib/secret /lib64/secret /usr/lib64/secret 2>/dev/null; true")
    for path, target in links.items():
        link(b, path, out_of(b, target.format(canary=canary)) if "{" in target else target)
    assert "secret" not in base.run(runtime, gpus, base.asking(b, ASKED)).out
    assert host.leftovers() == []
