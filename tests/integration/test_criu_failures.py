"""What `checkpoint` and `restore` do when CRIU fails them, with a stand-in that does.

It runs everywhere: no real CRIU is asked.  What a real one does is in test_checkpoint.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tests.integration.support import only_ocirt

pytestmark = only_ocirt("other runtimes find CRIU by PATH, and word its failures otherwise")

STANDIN = """\
#!{python} -IS
import os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, int(sys.argv[2]))
request = sock.recv(1 << 20)
def say(text):
    sock.send(bytes.fromhex(text))
def notify(script, pid=0):
    data = script.encode()
    tail = b"\\x0a" + bytes([len(data)]) + data + b"\\x10" + varint(pid)
    sock.send(b"\\x08\\x06\\x10\\x01\\x2a" + bytes([len(tail)]) + tail)
    return sock.recv(100).hex() == "08061801"
def varint(number):
    data = b""
    while number > 127:
        data += bytes([number & 127 | 128])
        number >>= 7
    return data + bytes([number])
kind = request[1]
if kind == 10:
    say({version!r})
    sys.exit()
# images_dir_fd is the first field of the options, below their length.
options = request[4:] if request[3] < 128 else request[5:] if request[4] < 128 else request[6:]
folder = f"/proc/self/fd/{{options[1]}}"
def write(name, text=""):
    with open(f"{{folder}}/{{name}}", "w") as file:
        file.write(text)
{script}
"""

NEW, OLD = "080a 1001 5206 0804 1001 2001", "080a 1001 5204 0802 1063"

# Something that lives, as a restored process would: our own child's child.
CHILD = """
def child():
    import ctypes
    libc = ctypes.CDLL(None)
    # clone(CLONE_PARENT): a sibling, and so a child of the runtime.
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    pid = libc.syscall(number, 0x8000, 0, 0, 0, 0)
    if not pid:
        os.execv("/bin/sleep", ["sleep", "1000"])
    return pid
"""


@pytest.fixture
def standin(workdir):
    """`standin(script, version)`: a path for --criu."""

    def make(script, version=NEW):
        path = os.path.join(workdir, "criu")
        with open(path, "w") as file:
            text = textwrap.dedent(script)
            file.write(STANDIN.format(python=sys.executable, version=version, script=text))
        os.chmod(path, 0o755)
        return path

    return make


@pytest.fixture
def box(runtime, bundle):
    """A container that runs."""
    made = bundle.sleeping()
    runtime.started(made)
    return made


def dump(runtime, box, criu, *options, **expected):
    images = os.path.join(box.path, "images")
    verb = ("--criu", criu, "checkpoint", "--image-path", images, *options, box.id)
    runtime.refuses(*verb, **expected)
    return images


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sys.exit(3)", "criu failed: unexpected EOF: exit 3: "),
        ("os.kill(os.getpid(), 9)", "criu failed: unexpected EOF: signal 9: "),
        ('say("0801 1000 3816")', "criu failed: type DUMP errno 22 (invalid argument): "),
        ('say("ffff")', "criu sent what is no message: cut short: "),
        ('say("0802 1001")', "criu answered DUMP with RESTORE: "),
        ('say("0801 1001"); sys.exit(1)', "criu failed: exit 1: "),
        ('notify("network-lock"); sys.exit(4)', "criu failed: unexpected EOF: exit 4: "),
    ],
)
def test_a_failed_dump_leaves_the_container_and_nothing_else(
    runtime, host, box, standin, script, words
):
    before = host.look()
    log = 'write("dump.log", "(00.1) Error (criu/x.c:1): the reason\\n")\n'
    images = dump(
        runtime, box, standin(f'write("core-1.img")\nwrite("inventory.img")\n{log}{script}'),
        ours=f"{words}log file {box.path}/images/dump.log: Error (criu/x.c:1): the reason",
    )  # fmt: skip
    assert os.listdir(images) == ["dump.log"]
    assert runtime.status(box) == "running"
    assert host.look() == before


def test_images_of_an_earlier_checkpoint_stay(runtime, box, standin):
    images = os.path.join(box.path, "images")
    os.mkdir(images)
    for name in ("core-1.img", "notes"):
        with open(os.path.join(images, name), "w") as file:
            file.write("old")
    dump(runtime, box, standin('write("pages-1.img"); sys.exit(1)'), ours="unexpected EOF: exit 1")
    assert sorted(os.listdir(images)) == ["core-1.img", "notes"]


def test_a_criu_that_dies_with_the_container_frozen(runtime, host, box, standin):
    files = [f"{path}/{name}" for path in host.cgroups()
             for name in ("freezer.state", "cgroup.freeze")]  # fmt: skip
    file = next(path for path in sorted(files, key=len) if os.path.exists(path))
    word = "FROZEN" if file.endswith("freezer.state") else "1"
    dump(
        runtime, box, standin(f"open({file!r}, 'w').write({word!r})\nos.kill(os.getpid(), 9)"),
        ours="signal 9",
    )  # fmt: skip
    assert runtime.status(box) == "running"


def test_a_pre_dump_ends_however_criu_ends(runtime, box, standin):
    # It waits for the next one and calls it a failure that there is none.
    features = 'if kind == 9:\n    say("0809 1001 4202 0801"); sys.exit()\n'
    criu = standin(f'{features}say("0804 1001"); sock.recv(9); sys.exit(1)')
    images = os.path.join(box.path, "images")
    runtime.ok("--criu", criu, "checkpoint", "--pre-dump", "--image-path", images, box.id)
    assert runtime.status(box) == "running"


def test_a_pre_dump_needs_a_kernel_that_tracks_memory(runtime, box, standin):
    criu = standin('say("0809 1001 4202 0800")')
    images = dump(runtime, box, criu, "--pre-dump", ours="criu is missing features: [mem_track]")
    assert not os.path.exists(images)


def test_a_criu_that_is_too_old(runtime, host, box, bundle, standin):
    criu = standin("sys.exit(9)", version=OLD)
    words = "CRIU version 29900 must be 30000 or higher"
    images = dump(runtime, box, criu, ours=words)
    assert not os.path.exists(images)
    other = bundle.sleeping()
    make_images(images)
    before = host.look()
    runtime.refuses(*restoring(criu, other, images), ours=words)
    assert host.look() == before


def make_images(folder, text='["/dev/null", "/dev/null", "/dev/null"]'):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "descriptors.json"), "w") as file:
        file.write(text)
    return folder


def restoring(criu, bundle, images, *options):
    into = ("--bundle", bundle.path, "--detach", "--pid-file", bundle.pid_file)
    return ("--criu", criu, "restore", "--image-path", images, *into, *options, bundle.id)


@pytest.fixture
def broken(runtime, host, bundle, standin):
    """`broken(script, words)`: a restore that fails like this, with all that it may not leave."""

    def fail(script, words, text='["/dev/null", "/dev/null", "/dev/null"]', **config):
        made = bundle.sleeping(**config)
        images = make_images(os.path.join(made.path, "images"), text)
        result = runtime(*restoring(standin(CHILD + script), made, images))
        assert result.code == 1, str(result)
        assert len(result.errors) == 1, str(result)
        assert words in result.error, str(result)
        assert host.leftovers() == []
        assert not os.path.exists(made.pid_file)
        return made, result

    return fail


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sys.exit(3)", "criu failed: unexpected EOF: exit 3"),
        ('say("0802 1000")', "criu failed: type RESTORE errno 0"),
        ('say("ffff")', "criu sent what is no message"),
        ('say("0801 1001")', "criu answered RESTORE with DUMP"),
        ('notify("post-restore", child()); sys.exit(1)', "unexpected EOF: exit 1"),
        ('notify("post-restore", child()); os.kill(os.getpid(), 9)', "unexpected EOF: signal 9"),
        ('notify("post-restore", 0)', "criu failed: it restored nothing"),
        ('notify("post-restore", 4000000)', "criu failed: it restored nothing"),
        ('say("0802 1001 2202 0801")', "criu failed: it restored another process than it said"),
        ('notify("orphan-pts-master")', "criu sent no descriptor"),
    ],
)
def test_a_failed_restore_leaves_nothing(broken, script, words):
    _, result = broken(script, words)
    assert "restore.log" in result.error or "restored another" in result.error


def test_a_process_that_is_none_of_our_children_is_left_alone(broken):
    # A confused CRIU, or one that means ill: pid 1 is not the container.
    broken(
        'notify("post-restore", 1); sys.exit(1)', "criu failed: it restored 1, which is not ours"
    )


def test_a_restore_that_works_out_has_its_pid_everywhere(runtime, bundle, standin):
    script = (
        'pid = child()\nassert notify("setup-namespaces", pid)\n'
        'assert notify("post-restore", pid)\n'
        'data = varint(pid); sock.send(b"\\x08\\x02\\x10\\x01\\x22" + bytes([1 + len(data)]) '
        '+ b"\\x08" + data)'
    )
    # No network of its own: the stand-in makes no namespaces.
    made = bundle.sleeping()
    spaces = [s for s in made.config["linux"]["namespaces"] if s["type"] != "network"]
    made.patch(linux={"namespaces": spaces})
    images = make_images(os.path.join(made.path, "images"))
    criu = standin(CHILD + script)
    quiet = subprocess.DEVNULL  # which the container keeps
    runtime.ok(*restoring(criu, made, images), stdout=quiet, stderr=quiet)
    state = runtime.state(made)
    assert (state["pid"], state["status"]) == (runtime.pid(made), "running")
    assert os.listdir(os.path.join(runtime.root, made.id)) != []
    assert not os.path.exists(os.path.join(runtime.root, made.id, "criu-root"))
    runtime.delete(made, "--force")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "descriptors.json"),
        ("{}", "descriptors.json: not a list of strings"),
        ("[1, 2, 3]", "descriptors.json: not a list of strings"),
        ("[" * 100_000, "descriptors.json"),
    ],
)
def test_descriptors_that_are_none(broken, text, words):
    broken("sys.exit(1)", words, text=text)


def test_a_hook_that_fails_is_told_to_criu(broken, workdir):
    told = os.path.join(workdir, "told")
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo no; exit 3"]}
    spaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    broken(
        f'open({told!r}, "w").write(str(notify("setup-namespaces", child())))',
        "error running createRuntime hook #0: exit status 3, stdout: no",
        hooks={"createRuntime": [hook]},
        linux={"namespaces": spaces},
    )
    with open(told) as file:
        assert file.read() == "False"


def test_what_cannot_be_brought_back_is_refused_before_anything_happens(broken, workdir):
    for kind, words in (
        ("mount", "CRIU needs a mount namespace of the container's own"),
        ("cgroup", "CRIU cannot put a container into a cgroup namespace"),
    ):
        name = {"mount": "mnt"}.get(kind, kind)
        spaces = [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}]
        spaces = [s for s in spaces if s["type"] != kind]
        spaces.append({"type": kind, "path": f"/proc/self/ns/{name}"})
        _, result = broken("sys.exit(1)", words, linux={"namespaces": spaces})
        assert "linux.namespaces" in result.error


def test_the_request_says_where_everything_is(runtime, bundle, standin, workdir):
    """Read the request with the tables of ours; what CRIU makes of it test_checkpoint.py shows."""
    asked = os.path.join(workdir, "asked")
    made = bundle.sleeping(
        more_mounts=[{"destination": "/data", "source": workdir, "options": ["rbind"]}],
        linux={"maskedPaths": ["/proc/keys"]},
        annotations={"org.criu.config": ""},
    )
    images = make_images(os.path.join(made.path, "images"), '["pipe:[7]", "", "/dev/null"]')
    criu = standin(f'open({asked!r}, "wb").write(request); sys.exit(1)')
    runtime.refuses(*restoring(criu, made, images, "--tcp-close"), ours="unexpected EOF")
    from ocirt.criu import rpc

    with open(asked, "rb") as file:
        data = file.read()
    found = rpc.decode("criu_req", data)["opts"]
    assert found["tcp_close"] is True
    assert found["rst_sibling"] is True
    assert "config_file" not in found
    assert found["root"] == os.path.join(runtime.root, made.id, "criu-root")
    for pair in (("/data", workdir), ("/dev/null", "/dev/null")):
        entry = rpc.encode("ext_mount_map", dict(zip(("key", "val"), pair, strict=True)))
        assert entry in data
    assert rpc.encode("inherit_fd", {"key": "pipe:[7]", "fd": 0}) in data
    assert json.dumps(made.id)[1:-1].encode() in data  # the cgroups' paths
