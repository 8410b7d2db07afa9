"""The conversation with CRIU, with a stand-in that answers as the test wants."""

from __future__ import annotations

import os
import sys
import textwrap

import pytest

from ocirt.criu import check, rpc, swrk
from ocirt.errors import Error, KernelError

STANDIN = """\
#!{python} -IS
import array, os, signal, socket, sys
if sys.argv[1] != "swrk":
    print({printed!r})
    print("Error (criu/x.c:1): nothing works here", file=sys.stderr)
    sys.exit({code})
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, int(sys.argv[2]))
request = sock.recv(65536)
def say(text, *fds):
    sock.sendmsg([bytes.fromhex(text)],
                 [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
{script}
"""

VERSION = 'say("080a 1001 5206 0803 1011 2001")'  # 3.17.1
OK = 'say("0801 1001")'


@pytest.fixture
def standin(tmp_path):
    """`standin(script)`: the path of a program that does this once it has the request."""

    def make(script, printed="Version: 3.17.1", code=0):
        path = tmp_path / "criu"
        text = STANDIN.format(
            python=sys.executable, printed=printed, code=code, script=textwrap.dedent(script)
        )
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make


def ask(path, notified=None, kind=rpc.DUMP):
    service = swrk.Service(path)
    try:
        answer = service.ask({"type": kind, "opts": {"images_dir_fd": 0}}, notified)
        return answer, service.close()
    finally:
        service.close()


def open_fds():
    return sorted(os.listdir("/proc/self/fd"))


def children():
    """Return the pids of our children, dead ones that nobody has waited for as well."""
    pids = set()
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            pids.update(file.read().split())
    return pids


@pytest.fixture(autouse=True)
def leaves_nothing():
    """No descriptor and no child is left, however a conversation ends."""
    # What others left is not ours: with integration tests in one session, this is a subreaper.
    before = open_fds(), children()
    yield
    assert open_fds() == before[0]
    assert children() - before[1] == set()


def test_a_request_is_answered(standin):
    assert ask(standin(OK)) == ({"type": 1, "success": True}, 0)


def test_the_request_arrives_as_it_was_meant(standin):
    script = f'assert request.hex() == "08011202" + "0800"\n{OK}'
    assert ask(standin(script))[1] == 0


def test_notifications_are_answered_one_by_one(standin):
    seen = []
    script = f"""
    for name in ("network-lock", "post-dump"):
        data = name.encode()
        say("0806 1001 2a" + f"{{len(data) + 4:02x}}0a{{len(data):02x}}" + data.hex() + "1005")
        assert sock.recv(100).hex() == "08061801"
    {OK}
    """
    answer, code = ask(standin(script), lambda *notice: seen.append(notice))
    assert (answer["type"], code) == (1, 0)
    assert seen == [("network-lock", 5), ("post-dump", 5)]


NOTIFY = 'say("0806 1001 2a03 0a0178"'


def test_a_descriptor_comes_with_its_notification(standin):
    script = f"r, w = os.pipe(); os.write(w, b'hi'); {NOTIFY}, r)\nsock.recv(100); {OK}"
    found = []

    def notified(script, pid):
        found.append(service.take_fd())

    service = swrk.Service(standin(script))
    service.ask({"type": rpc.DUMP}, notified)
    service.close()
    assert os.read(found[0], 10) == b"hi"
    assert not os.get_inheritable(found[0])
    os.close(found[0])


def test_descriptors_that_nobody_asked_for_are_closed(standin):
    assert ask(standin(f"{NOTIFY}, 0, 1, 2)\nsock.recv(100); {OK}"), lambda *_: None)[1] == 0


def test_a_descriptor_that_did_not_come(standin):
    def notified(script, pid):
        service.take_fd()

    service = swrk.Service(standin(f"{NOTIFY})\nsock.recv(100)"))
    with pytest.raises(Error, match="criu sent no descriptor"):
        service.ask({"type": rpc.DUMP}, notified)
    service.close()


def test_a_failure_of_ours_is_told_to_criu(standin, tmp_path):
    told = tmp_path / "told"
    path = standin(f"{NOTIFY})\nopen({str(told)!r}, 'w').write(sock.recv(100).hex())")

    def notified(script, pid):
        raise Error("a hook failed")

    with pytest.raises(Error, match="a hook failed"):
        ask(path, notified)
    assert told.read_text() == "08061800"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sys.exit(3)", "criu failed: unexpected EOF: exit 3"),
        ("os.kill(os.getpid(), 9)", "criu failed: unexpected EOF: signal 9"),
        ("sock.close(); sys.exit(0)", "criu failed: unexpected EOF: exit 0"),
        ('say("0801 1000 3800")', "criu failed: type DUMP errno 0$"),
        ('say("0801 1000 3816")', r"criu failed: type DUMP errno 22 \(invalid argument\)"),
        ('say("0806 1000")', "criu failed: type NOTIFY errno 0"),
        ('say("0801")', "criu failed: type DUMP errno 0"),
        ('say("08ff01 1000")', "criu failed: type 255 errno 0"),
        ('say("0802 1001")', "criu answered DUMP with RESTORE"),
        ('say("0806 1001")', "criu answered DUMP with NOTIFY"),  # nobody listens to those here
        ('say("ffff")', "criu sent what is no message: cut short"),
        ('say("00" * 70000)', "criu sent what is no message: longer than 65536 bytes"),
    ],
)
def test_what_is_no_good_answer_is_a_failure(standin, script, words):
    with pytest.raises(Error, match=words):
        ask(standin(script))


def test_an_error_on_the_way_to_criu_is_ours(standin):
    def enter():
        raise KernelError(1, "--image-path")

    with pytest.raises(Error, match=r"^--image-path: operation not permitted$"):
        swrk.Service(standin(OK), enter)

    def stumble():
        os.open("/nowhere/at/all", os.O_RDONLY)

    with pytest.raises(KernelError, match=r"^/nowhere/at/all: no such file or directory$"):
        swrk.Service(standin(OK), stumble)


def test_what_comes_before_is_done_to_a_process_that_waits(standin, tmp_path):
    seen = []

    def before(pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            seen.append((pid, b"\0swrk\0" in file.read()))

    service = swrk.Service(standin(OK), before=before)
    assert seen == [(service.pid, False)]
    service.ask({"type": rpc.DUMP})
    service.close()

    def fail(pid):
        raise Error("no cgroup for it")

    told = tmp_path / "told"
    with pytest.raises(Error, match="no cgroup for it"):
        swrk.Service(standin(OK), enter=told.touch, before=fail)
    assert not told.exists()


def test_a_program_that_cannot_be_executed(tmp_path):
    path = tmp_path / "criu"
    path.write_text("#!/nowhere/interpreter\n")
    path.chmod(0o755)
    with pytest.raises(KernelError, match=f"^{path}: no such file or directory$"):
        swrk.Service(str(path))


def test_criu_gets_what_it_is_to_keep_and_where_programs_are(standin, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/bin")
    reading, writing = os.pipe()
    path = standin(f"os.write({writing}, os.environ['PATH'].encode())\n{OK}")
    service = swrk.Service(path, keep=(writing,))
    service.ask({"type": rpc.DUMP})
    service.close()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "/bin:/usr/local/sbin:/usr/sbin:/sbin"


# --- where it is, what it is


def test_criu_is_found_by_path_or_where_it_usually_is(standin, tmp_path, monkeypatch):
    path = standin(OK)
    monkeypatch.setenv("PATH", f"/nowhere:{tmp_path}")
    assert swrk.find("criu") == path
    assert swrk.find(path) == path
    monkeypatch.setattr(swrk, "FALLBACK", str(tmp_path))
    monkeypatch.delenv("PATH")
    assert swrk.find("criu").endswith("/criu")
    with pytest.raises(Error, match='"kriu": executable file not found in \\$PATH: install CRIU'):
        swrk.find("kriu")
    with pytest.raises(Error, match="--criu: /nowhere/criu: no such program"):
        swrk.find("/nowhere/criu")


def test_a_directory_is_no_program(tmp_path, monkeypatch):
    (tmp_path / "criu").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(swrk, "FALLBACK", str(tmp_path))
    with pytest.raises(Error, match="executable file not found"):
        swrk.find("criu")
    with pytest.raises(Error, match="no such program"):
        swrk.find(str(tmp_path / "criu"))


def test_the_version_is_one_number(standin):
    assert check.version(standin(VERSION)) == 31701
    assert check.version(standin('say("080a 1001 5204 0804 1001")')) == 40100


@pytest.mark.parametrize("script", ["sys.exit(1)", 'say("080a 1000")', 'say("0801 1001")'])
def test_no_version_is_an_error(standin, script):
    with pytest.raises(Error, match="CRIU version check failed: criu"):
        check.version(standin(script))


def test_a_feature_is_there_or_not(standin):
    check.require_feature(standin('say("0809 1001 4202 0801")'), "mem_track")
    for answer in ("0809 1001", "0809 1001 4202 0800"):
        with pytest.raises(Error, match=r"criu is missing features: \[mem_track\]"):
            check.require_feature(standin(f'say("{answer}")'), "mem_track")
    with pytest.raises(Error, match=r"CRIU feature check failed: .*: .*nothing works here"):
        check.require_feature(standin('say("0809 1000")', code=1), "mem_track")


def test_a_look_tells_version_and_reason(standin):
    assert check.look(standin(VERSION)) == ("3.17.1", "")
    reason = "Error (criu/x.c:1): nothing works here"
    assert check.look(standin(VERSION, code=1)) == ("3.17.1", reason)
    assert check.look(standin('say("080a 1001 5204 0804 1001")')) == ("4.1", "")
    assert check.look(standin('say("080a 1001 5204 0802 1001")'))[1] == "3.0 or later is needed"
    version, reason = check.look(standin("sys.exit(1)"))
    assert version == "unknown"
    assert "CRIU version check failed" in reason


# --- what its log says


def test_the_first_and_the_last_error_of_the_log(tmp_path):
    path = tmp_path / "dump.log"
    path.write_text(
        "(00.001) Version: 4.1\n"
        "(00.002) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: no\n"
        "(00.003) Warn  (criu/x.c:1): never mind\n"
        "(00.004)      1: Error (criu/a.c:1): the cause\n"
        "(00.005) Error (criu/b.c:2): on the way\n"
        "(00.006) Error (criu/c.c:3): what follows from it\n"
        "(00.007) Error (criu/cr-dump.c:2111): Dumping FAILED.\n"
        "(00.008) Error (criu/d.c:4): cleaning up\n"
    )
    assert swrk.complaint(str(path)) == (
        f"log file {path}: Error (criu/a.c:1): the cause; Error (criu/c.c:3): what follows from it"
    )


@pytest.mark.parametrize("text", ["", "(00.1) fine\n", "(00.1) Error (x.c:1): Dumping FAILED.\n"])
def test_a_log_without_errors_is_named_all_the_same(tmp_path, text):
    path = tmp_path / "dump.log"
    path.write_text(text)
    assert swrk.complaint(str(path)) == f"log file {path}"


def test_one_error_is_said_once(tmp_path):
    path = tmp_path / "dump.log"
    path.write_bytes(b"(00.1) Error (x.c:1): only \xff\n")
    assert swrk.complaint(str(path)).count("only") == 1


def test_a_log_that_is_not_there(tmp_path):
    assert swrk.complaint(str(tmp_path / "no.log")) == f"no log file {tmp_path}/no.log"
