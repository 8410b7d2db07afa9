"""GPUs in real containers, on a machine that is a directory: nodes, rules, libraries, loaders.

The driver's majors have no driver here, so opening a node gives ENXIO where the rules allow it
and EPERM where they do not.  The stand-in for libcuda is a real library with its real soname,
which programs of real images find through their own loader.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.support import only_ocirt
from tests.unit.hpc import machines

pytestmark = only_ocirt("other runtimes leave GPUs to hooks")

GCC = shutil.which("gcc")
MUSL = shutil.which("musl-gcc")
LDCONFIG = shutil.which("ldconfig", path="/sbin:/usr/sbin:/usr/bin")
DENY_ALL = {"allow": False, "access": "rwm"}

LIBRARY = "int cuInit(void) { return 42; }\n"
PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
  void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
  if (!cuda) { printf("%s\\n", dlerror()); return 1; }
  int (*init)(void) = (int (*)(void))dlsym(cuda, "cuInit");
  Dl_info info;
  dladdr((void *)init, &info);
  printf("%d %s\\n", init(), info.dli_fname);
  return 0;
}
"""
FOUND = "42 /run/ocirt/hpc/lib64/libcuda.so.1"

needs_gcc = pytest.mark.skipif(GCC is None, reason="needs gcc")
needs_musl = pytest.mark.skipif(MUSL is None, reason="needs musl-gcc")
needs_ldconfig = pytest.mark.skipif(LDCONFIG is None, reason="needs glibc's ldconfig")


@pytest.fixture
def gpus(workdir):
    """Eight GPUs, and a driver whose libcuda can be loaded."""
    gpus = machines.eight(Path(workdir) / "machine")
    machines.install(gpus)
    if GCC:
        cuda = gpus.root / f"usr/lib/x86_64-linux-gnu/libcuda.so.{machines.VERSION}"
        build(cuda, LIBRARY, "-shared", "-nostdlib", "-fPIC", "-Wl,-soname,libcuda.so.1")
    gpus.host()
    settings = gpus.write("/hpc.toml", f'[stage]\nhost-root = "{gpus.root}"\n')
    settings.chmod(0o600)
    return gpus


def build(path, source, *options, compiler=None):
    subprocess.run(
        [compiler or GCC, "-x", "c", "-", "-o", path, *options],
        input=source, text=True, check=True, timeout=60,
    )  # fmt: skip


def asking(bundle, *env, **changes):
    bundle.config["process"]["env"] += env
    bundle.patch(**changes)
    return bundle


def run(runtime, gpus, bundle):
    return runtime(
        "--hpc-config", str(gpus.root / "hpc.toml"), "run", "--bundle", bundle.path, bundle.id
    )


def put(bundle, source, destination=None):
    path = bundle.inside(destination or source)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(source, path)


def put_glibc(bundle, program, folder=""):
    """Put what a program loads where the host has it, or into a folder; the loader in its place."""
    text = subprocess.run(["ldd", bundle.inside(program)], capture_output=True, text=True).stdout
    for word in text.split():
        if word.startswith("/"):
            put(bundle, word, folder + os.path.basename(word) if folder else word)
            if "ld-linux" in word:
                put(bundle, word)


# --- nodes and rules


def test_the_gpus_asked_for_and_no_other(runtime, bundle, gpus):
    b = bundle.sh(
        "cd /dev; ls -d nvidia*; for n in nvidia2 nvidiactl other; do head -c 1 $n; done; true",
        linux={
            "devices": [{"path": "/dev/other", "type": "c", "major": 195, "minor": 0}],
            "resources": {"devices": [DENY_ALL]},
        },
    )
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.out.split() == ["nvidia-uvm", "nvidia-uvm-tools", "nvidia2", "nvidiactl"]
    lines = result.err.splitlines()
    assert ["No such device or address" in line for line in lines[:2]] == [True, True], lines
    assert "Operation not permitted" in lines[2]


NATIVE = "/usr/lib64/libcuda.so.1"


def in_the_images_folders(gpus):
    settings = gpus.root / "hpc.toml"
    settings.write_text(settings.read_text() + '[nvidia]\nlayout = "native"\n')


@needs_gcc
def test_a_program_opens_the_driver_by_its_usual_path(runtime, bundle, gpus):
    in_the_images_folders(gpus)
    b = bundle.sh(f"/bin/find; ls -l {os.path.dirname(NATIVE)}")
    build(b.inside("/bin/find"), PROGRAM.replace('"libcuda.so.1"', f'"{NATIVE}"'), "-ldl")
    put_glibc(b, "/bin/find")
    os.makedirs(b.inside("/usr/lib64"))
    os.symlink("libcuda.so.1.0", b.inside(NATIVE))
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.out.splitlines()[0] == f"42 {NATIVE}", str(result)
    assert f"libcuda.so.1 -> libcuda.so.{machines.VERSION}" in result.out


def test_the_images_links_lead_no_library_astray(runtime, bundle, gpus):
    in_the_images_folders(gpus)
    b = bundle.sh("cat /victim")
    os.makedirs(b.inside("/usr/lib64"))
    os.symlink("/victim", b.inside(f"/usr/lib64/libcuda.so.{machines.VERSION}"))
    with open(b.inside("/victim"), "w") as file:
        file.write("mine")
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.code == 1
    assert "is a link, and nothing is mounted through it" in result.err
    with open(b.inside("/victim")) as file:
        assert file.read() == "mine"


def test_a_gpu_that_has_fallen_off_the_bus(runtime, bundle, gpus, host):
    file = gpus.root / "proc/driver/nvidia/gpus/0000:27:00.0/information"
    file.unlink()
    file.mkdir()
    result = run(runtime, gpus, asking(bundle("true"), "NVIDIA_VISIBLE_DEVICES=1"))
    assert (result.code, result.out) == (1, "")
    sentence = (
        "NVIDIA_VISIBLE_DEVICES=1: GPU 1 (0000:27:00.0): /proc/driver/nvidia/gpus/0000:27:00.0/"
    )
    assert sentence in result.err
    assert host.leftovers() == []
    assert run(runtime, gpus, asking(bundle("true"), "NVIDIA_VISIBLE_DEVICES=0")).code == 0


def test_a_mig_device_is_its_gpu_and_two_capabilities(runtime, bundle, gpus):
    gpus.mig(2, 9)
    name = f"MIG-{machines.UUID.format(2)}/9/0"
    b = bundle.sh("cd /dev; ls -d nvidia?; ls nvidia-caps")
    result = run(runtime, gpus, asking(b, f"NVIDIA_VISIBLE_DEVICES={name}"))
    minor = 3 + 9 * (15 * 2 + 9)
    assert result.out.split() == ["nvidia2", f"nvidia-cap{minor}", f"nvidia-cap{minor + 1}"]


@pytest.mark.parametrize("value", ["void", ""])
def test_nothing_asked_nothing_done(runtime, bundle, gpus, value):
    b = bundle.sh("ls -d /dev/nvidia* /run/ocirt 2>/dev/null; true")
    assert run(runtime, gpus, asking(b, f"NVIDIA_VISIBLE_DEVICES={value}")).out == ""


def test_none_gives_the_driver_without_a_gpu(runtime, bundle, gpus):
    b = bundle.sh("cd /dev; ls -d nvidia*; ls -l /usr/bin/nvidia-smi | cut -c 1-10")
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=none"))
    assert result.out.split() == [
        "nvidia-uvm", "nvidia-uvm-tools", "nvidiactl", "-rw-r--r--",
    ]  # fmt: skip


def test_capabilities_select_files(runtime, bundle, gpus):
    b = bundle.sh("ls /run/ocirt/hpc/lib64")
    env = ["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_DRIVER_CAPABILITIES=utility"]
    names = run(runtime, gpus, asking(b, *env)).out.split()
    assert names == ["libnvidia-ml.so.1", f"libnvidia-ml.so.{machines.VERSION}"]


def test_the_hook_of_dockers_gpus_is_replaced(runtime, bundle, gpus):
    hook = {"path": "/nonexistent/nvidia-container-runtime-hook", "args": ["x", "prestart"]}
    b = bundle.sh("ls /dev/nvidia2", hooks={"prestart": [hook]})
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.out.strip() == "/dev/nvidia2", str(result)


# --- loaders


@needs_gcc
@needs_ldconfig
@pytest.mark.parametrize("layout", ["debian", "rocky", "no cache", "read-only"])
def test_a_glibc_program_finds_the_driver(runtime, bundle, gpus, layout, workdir):
    b = bundle("/bin/cuda", root={"path": "rootfs", "readonly": layout == "read-only"})
    build(b.inside("/bin/cuda"), PROGRAM)
    put_glibc(b, "/bin/cuda", "/lib64/" if layout == "rocky" else "")
    put(b, LDCONFIG, "/sbin/ldconfig")
    if layout == "rocky":
        os.makedirs(b.inside("/usr"), exist_ok=True)
        os.symlink("../lib64", b.inside("/usr/lib64"))
    if layout != "no cache":
        b.put("/etc/ld.so.conf", "/lib64\n/opt/own\n")
        # An own libcuda in the image, which must not win.
        os.makedirs(b.inside("/opt/own"))
        build(b.inside("/opt/own/libcuda.so.1"), LIBRARY.replace("42", "1"), "-shared",
              "-nostdlib", "-fPIC", "-Wl,-soname,libcuda.so.1")  # fmt: skip
        subprocess.run([LDCONFIG, "-r", b.inside("/")], check=True, timeout=60)
    asking(b, "NVIDIA_VISIBLE_DEVICES=0")
    result = run(runtime, gpus, b)
    assert result.out.strip() == FOUND, str(result)
    b.config["process"]["args"] = ["/sbin/ldconfig", "-p"]
    b.save()
    lines = run(runtime, gpus, b).out.splitlines()
    cuda = [line.split(" => ")[1] for line in lines if line.startswith("\tlibcuda.so.1 (")]
    assert cuda == ["/run/ocirt/hpc/lib64/libcuda.so.1"]


@needs_musl
def test_a_musl_program_finds_the_driver(runtime, bundle, gpus):
    b = bundle("/bin/cuda")
    build(b.inside("/bin/cuda"), PROGRAM, compiler=MUSL)
    put(b, os.path.realpath("/lib/ld-musl-x86_64.so.1"), "/lib/ld-musl-x86_64.so.1")
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.out.strip() == FOUND, str(result)


@needs_gcc
def test_an_image_that_nothing_can_be_added_to(runtime, bundle, gpus, host_mount):
    """As a squashfs file that is mounted, with no layer above it."""
    b = bundle("/bin/cuda")
    build(b.inside("/bin/cuda"), PROGRAM)
    put_glibc(b, "/bin/cuda")
    os.makedirs(b.inside("/run"), exist_ok=True)
    root = b.inside("/")
    host_mount("--bind", root, root)
    subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True, timeout=20)
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.out.strip() == FOUND, str(result)


def test_a_static_image_gets_nodes_and_no_cache(runtime, bundle, gpus):
    b = bundle.sh("ls /dev/nvidia2; ls /etc/ld.so.cache 2>&1 | tail -c 10")
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    assert result.out.splitlines() == ["/dev/nvidia2", "directory"], str(result)


# --- what an engine has applied of a CDI file


def cdi_hook(*args):
    """Return a hook whose program no machine has: nobody may run it."""
    return {"path": "/nonexistent/nvidia-cdi-hook", "args": ["nvidia-cdi-hook", *args]}


@needs_gcc
@needs_ldconfig
def test_the_work_of_nvidia_cdi_hook_is_done_without_it(runtime, bundle, gpus):
    b = bundle("/bin/cuda")
    build(b.inside("/bin/cuda"), PROGRAM)
    put_glibc(b, "/bin/cuda")
    folder, name = "/opt/driver", f"libcuda.so.{machines.VERSION}"
    source = f"{gpus.root}/usr/lib/x86_64-linux-gnu/{name}"
    mount = {"destination": f"{folder}/{name}", "source": source, "options": ["bind", "ro"]}
    b.put(f"{folder}/libcuda.so", "an old one")
    b.config["mounts"].append(mount)
    hooks = [
        cdi_hook("create-symlinks", "--link", f"libcuda.so.1::{folder}/libcuda.so",
                 "--link", "../card1::/dev/dri/by-path/pci-0000:07:00.0-card"),
        cdi_hook("update-ldcache", "--folder", folder),
        cdi_hook("update-application-profile"),
    ]  # fmt: skip
    b.patch(hooks={"createContainer": hooks})
    result = run(runtime, gpus, b)
    assert result.out.strip() == f"42 {folder}/libcuda.so.1", str(result)
    assert os.readlink(b.inside(f"{folder}/libcuda.so.1")) == name
    assert os.readlink(b.inside(f"{folder}/libcuda.so")) == "libcuda.so.1"
    # A second start finds everything as it has to be.
    assert run(runtime, gpus, b).out == result.out


def test_such_a_hook_alone_wakes_the_stage(runtime, bundle):
    b = bundle.sh("readlink /opt/a.so")
    b.patch(hooks={"createContainer": [cdi_hook("create-symlinks", "--link", "b::/opt/a.so")]})
    assert runtime("run", "--bundle", b.path, b.id).out.strip() == "b"


def test_a_command_that_nobody_knows_is_run_as_a_hook(runtime, bundle, gpus):
    b = bundle("true")
    b.patch(hooks={"createContainer": [cdi_hook("novel")]})
    runtime.check_refusal(run(runtime, gpus, b), "", "/nonexistent/nvidia-cdi-hook")


# --- hostile images


@needs_gcc
@pytest.mark.parametrize(
    "links",
    [
        {"/etc/ld.so.cache": "/etc/shadow"},
        {"/etc/ld.so.cache": "../../../../etc/shadow"},
        {"/run": "/../../../../tmp"},
        {"/usr": "/"},
        {"/lib64/ld-linux-x86-64.so.2": "/../../etc/passwd"},
    ],
)
def test_links_of_the_image_lead_nowhere_on_the_host(runtime, bundle, gpus, links, host):
    before = os.stat("/etc/shadow"), os.listdir("/tmp")
    b = bundle.sh("ls /dev/nvidia2")
    os.makedirs(b.inside("/lib64"), exist_ok=True)
    Path(b.inside("/lib64/ld-linux.so")).touch()
    for link, target in links.items():
        path = b.inside(link)
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)
    run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0"))
    after = os.stat("/etc/shadow"), os.listdir("/tmp")
    assert before[0].st_mtime_ns == after[0].st_mtime_ns
    assert [name for name in after[1] if name not in before[1] and "hpc" in name] == []
    assert host.leftovers() == []


NVML = f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{machines.VERSION}"
REFUSED = [
    # environment, sentence
    (["NVIDIA_VISIBLE_DEVICES=../../etc"], 'there is no NVIDIA GPU "../../etc" (have 0 GPU-'),
    # A child process has been asked, and has said why it cannot tell.
    (["NVIDIA_VISIBLE_DEVICES=0:1"], f"MIG-GPU-UUID/GI/CI: {NVML}: "),
    (["NVIDIA_VISIBLE_DEVICES=8"], "process.env: NVIDIA_VISIBLE_DEVICES=8: there is no NVIDIA GPU"),
    (["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_DRIVER_CAPABILITIES=gpu"], "unknown driver capability"),
    (["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_REQUIRE_CUDA=cuda>=99"], "this host does not satisfy it"),
    (["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_IMEX_CHANNELS=0"], "IMEX channel 0: the loaded"),
]


@pytest.mark.parametrize(("env", "sentence"), REFUSED)
def test_what_cannot_be_given_is_refused_before_anything_exists(
    runtime, bundle, gpus, env, sentence
):
    b = bundle("true")
    result = run(runtime, gpus, asking(b, *env))
    runtime.check_refusal(result, "", sentence)
    assert not os.path.exists(f"{runtime.root}/{b.id}")


PROC = "/proc/driver/nvidia"
BROKEN = [
    # file of the machine, its content or None for a directory, sentence
    (f"{PROC}/version", "?", f"process.env: NVIDIA_VISIBLE_DEVICES=0: {PROC}/version: names no"),
    (f"{PROC}/gpus/0000:07:00.0/information", None, "0000:07:00.0/information: is a directory"),
    (f"/usr/lib/x86_64-linux-gnu/libcuda.so.{machines.VERSION}", "x", "not an ELF file"),
    ("/etc/nvidia-container-runtime/config.toml", "disable-require = 1\n", "expected true or"),
]


@pytest.mark.parametrize(("path", "content", "sentence"), BROKEN)
def test_a_driver_half_there_is_refused_before_anything_exists(
    runtime, bundle, gpus, host, path, content, sentence
):
    (gpus.root / path.lstrip("/")).unlink(missing_ok=True)
    if content is None:
        (gpus.root / path.lstrip("/")).mkdir()
    else:
        gpus.write(path, content)
    b = bundle("true")
    runtime.check_refusal(run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=0")), "", sentence)
    assert not os.path.exists(f"{runtime.root}/{b.id}")
    assert host.leftovers() == []


def test_settings_that_others_could_write_are_refused(runtime, bundle, gpus):
    (gpus.root / "hpc.toml").chmod(0o666)
    result = run(runtime, gpus, asking(bundle("true"), "NVIDIA_VISIBLE_DEVICES=0"))
    runtime.check_refusal(result, "", "has to belong to root and be writable for root alone")


def test_the_site_can_say_that_the_environment_asks_for_nothing(runtime, bundle, gpus):
    with open(gpus.root / "hpc.toml", "a") as file:
        file.write("[policy]\nenv-requests = false\n")
    b = bundle.sh("ls -d /dev/nvidia* 2>/dev/null; true")
    result = run(runtime, gpus, asking(b, "NVIDIA_VISIBLE_DEVICES=all"))
    assert result.out == ""
    assert "env-requests is false" in str(result.log)
