"""A container's life by three ways: the launcher alone, the embedded interpreter, and Python.

Which way is taken is baked into a launcher when it is built, and nothing else can choose it.  An
option that the launcher does not know (`--debug`) keeps it from acting alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import struct
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import TREE
from tests.integration.support import Runtime, only_ocirt

pytestmark = only_ocirt("has three ways")

WAYS = ("quick", "embedded", "python")


@pytest.fixture(scope="session")
def programs(base):
    """A launcher for each way; `quick` stands before what an installation has."""
    native = runpy.run_path(f"{TREE}/packaging/native.py")
    interpreter = native["Interpreter"](native["own_python"]())
    if interpreter.obstacle():
        pytest.skip(interpreter.obstacle())
    native["compile_init"]()
    folder = Path(TREE, "ocirt")
    assert native["compile_embedded"](TREE, native["own_python"](), folder, sealed=False)
    found = {}
    for way, embedded in (("embedded", interpreter), ("python", None)):
        found[way] = str(
            native["compile_launcher"](
                home=TREE,
                python=native["own_python"](),
                output=Path(base, f"ocirt-{way}"),
                embedded=embedded,
            )
        )
    return {"quick": found["embedded"], **found}


class OneWay(Runtime):
    """The runtime by one way only; its log holds errors, as without --debug."""

    alone = False

    def argv(self, *args):
        path, *rest = super().argv(*args)
        return [path, *([] if self.alone else ["--log-level", "warning"]), *rest]


@pytest.fixture
def way(programs, host, workdir):
    """Make the runtime of a way."""
    made = []

    def make(name):
        runtime = OneWay(programs[name], "ocirt", workdir, host)
        runtime.alone = name == "quick"
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        runtime.close()


def plain(text, bundle):
    """Leave out what differs from container to container."""
    text = text.replace(bundle.path, "PATH").replace(bundle.id, "ID")
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r"\b\d{2,7}\b *", "N ", text)


def life(runtime, bundle):
    """Let a container live by every verb; return what each has said, and how it ended."""
    said = []

    def say(*args, **popen):
        found = runtime(*args, **popen)
        words = (found.code, found.out, found.err, *found.errors)
        said.append((args[0], *[plain(str(word), bundle) for word in words]))

    name = bundle.id
    say("state", name)
    runtime.create(bundle)
    say("create", "--bundle", bundle.path, name)
    for verb in ("state", "start", "start", "state", "pause", "state", "resume"):
        say(verb, name)
    say("exec", name, "sh", "-c", "echo in; exit 3")
    say("exec", name, "no-such-program")
    say("exec", "--env", "A=\u00fc", name, "printenv", "A")
    say("ps", "--format", "json", name)
    say("ps", name, "-o", "comm")
    say("list", "--quiet")
    say("list", "--format", "json")
    say("update", "--pids-limit", "77", name)
    say("delete", name)
    say("kill", name, "NONSENSE")
    say("kill", name, "KILL")
    runtime.wait(bundle)
    for verb in ("state", "start", "kill", "exec", "delete", "delete", "state"):
        say(verb, name, *(["true"] if verb == "exec" else []))
    return said


def test_a_life_is_the_same_by_every_way(way, bundle):
    lives = {}
    for name in WAYS:
        box = bundle.sleeping()
        runtime = way(name)
        last = bundle("sh", "-c", "echo over; exit 4")
        lives[name] = life(runtime, box)
        done = runtime.run(last)
        lives[name].append((done.code, done.out, done.err))
    for name in WAYS[1:]:
        for one, other in zip(lives["quick"], lives[name], strict=True):
            assert one == other, name


BROKEN = {
    "seccomp": {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NONSENSE"}}},
    "mount": {"mounts": [{"destination": "/x", "type": "nonsense", "source": "x"}]},
    "program": {"process": {"args": ["/no/such/program"]}},
    "type": {"process": {"noNewPrivileges": "false"}},
    "namespace": {"linux": {"namespaces": [{"type": "pid", "path": "/no/such/path"}]}},
    "hook": {"hooks": {"createRuntime": [{"path": "/bin/false"}]}},
    "cgroup": {"linux": {"resources": {"memory": {"limit": 1}}}},
}


@pytest.mark.parametrize("verb", ["create", "run"])
@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_refused_is_refused_in_the_same_words(way, bundle, fault, verb):
    answers = []
    for name in WAYS:
        box = bundle("true", **BROKEN[fault])
        runtime = way(name)
        result = runtime.refuses_to_create(box, verb=verb)
        answers.append(plain(result.error, box))
    assert len(set(answers)) == 1


# --- the launcher's record


def tampered(record):
    """Return records that the launcher must leave alone, by what is wrong with them."""
    (size,) = struct.unpack_from("=I", record, 4)
    return {
        "empty": b"",
        "truncated": record[: size // 2],
        "longer": record + b"more",
        "foreign": b"\x7fELF" + record[4:],
        "of another version": b"OCQ2" + record[4:],
        "without a pid": record[:16] + bytes(8) + record[24:],
        "with many texts": record[:12] + struct.pack("=I", 1 << 31) + record[16:],
        "noise": bytes(reversed(record)),
    }


@pytest.mark.parametrize("name", ["embedded", "python"])
@pytest.mark.parametrize("fault", [*tampered(bytes(64)), "of another owner", "a link", "a folder"])
def test_a_record_that_is_wrong_leaves_the_verb_to_python(way, bundle, fault, name):
    box = bundle.sleeping()
    runtime = way(name)
    runtime.alone = True
    pid = runtime.create(box)
    path = os.path.join(runtime.root, box.id, "quick")
    with open(path, "rb") as file:
        record = file.read()
    if fault == "of another owner":
        os.chown(path, 12345, 12345)
    elif fault == "a folder":
        os.unlink(path)
        os.mkdir(path)
    elif fault == "a link":
        os.rename(path, box.path + "/quick")
        os.symlink(box.path + "/quick", path)
    else:
        with open(path, "wb") as file:
            file.write(tampered(record)[fault])
    state = runtime.state(box)
    assert (state["status"], state["pid"], state["id"]) == ("created", pid, box.id)
    runtime.start(box)
    assert runtime.status(box) == "running"
    runtime.kill(box, "KILL")
    runtime.wait(box)
    assert runtime.status(box) == "stopped"
    if fault == "a folder":
        os.rmdir(path)
    runtime.delete(box)


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete"])
@pytest.mark.parametrize("fault", ["half", "nothing", "no object", "version", "gone"])
def test_a_state_that_is_wrong_is_refused_by_every_way(way, bundle, fault, verb):
    """With a record that is wrong as well: what has one that is right needs no state.json."""
    if (fault, verb) == ("gone", "delete"):
        pytest.skip("an empty directory is cleared away; the init would stay")
    answers = []
    for name in WAYS:
        box = bundle.sleeping()
        runtime = way(name)
        runtime.create(box)
        folder = os.path.join(runtime.root, box.id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{folder}/quick")
        path = f"{folder}/state.json"
        with open(path) as file:
            text = file.read()
        version = json.loads(text)["version"]
        texts = {
            "half": text[: len(text) // 2],
            "nothing": "",
            "no object": "[1]",
            "version": text.replace(f'"version":{version}', f'"version":{version + 1}'),
        }
        os.unlink(path)
        if fault in texts:
            assert texts[fault] != text
            with open(path, "w") as file:
                file.write(texts[fault])
        found = runtime(verb, box.id)
        answers.append((found.code, plain(found.error, box), found.out))
        assert found.code == 1, str(found)
        assert found.error
        with open(path, "w") as file:
            file.write(text)
        runtime("delete", "--force", box.id)
    assert len(set(answers)) == 1


def test_the_tests_ran_what_they_say(programs):
    """Each launcher becomes what its name says."""
    for way, mark in (("embedded", f"ocirt-python{sys.version.split()[0]}"), ("python", "")):
        with open(programs[way], "rb") as file:
            assert (b"ocirt-python3." in file.read()) == bool(mark)
