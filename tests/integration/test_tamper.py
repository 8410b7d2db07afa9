"""States that were tampered with, half written, of another owner or version: nothing acts on them.

Every verb against every kind of damage: exit 1 with a sentence that names the file, the container
as it was.  What the launcher's own record may suffer stands in tests/unit/packaging/test_quick.py.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.integration.support import only_ocirt

pytestmark = only_ocirt("is about our own files")

VERBS = (
    ("state", "{id}"),
    ("start", "{id}"),
    ("kill", "{id}", "KILL"),
    ("kill", "--all", "{id}", "KILL"),
    ("delete", "{id}"),
    ("exec", "{id}", "true"),
    ("pause", "{id}"),
    ("resume", "{id}"),
    ("ps", "{id}"),
    ("update", "--pids-limit", "7", "{id}"),
    ("events", "--stats", "{id}"),
    ("checkpoint", "{id}"),
)


def text(change):
    """Return a damage that changes the text of state.json."""

    def damage(path):
        with open(path) as file:
            whole = file.read()
        with open(path, "w") as file:
            file.write(change(whole))

    return damage


def fields(**changes):
    return text(lambda whole: json.dumps({**json.loads(whole), **changes}))


def without(field):
    return text(lambda w: json.dumps({k: v for k, v in json.loads(w).items() if k != field}))


def instead(make):
    def damage(path):
        os.unlink(path)
        make(path)

    return damage


DAMAGES = {
    # damage                                              what is said
    "empty": (text(lambda _: ""), "holds no JSON"),
    "half": (text(lambda whole: whole[: len(whole) // 2]), "line 1 column"),
    "all but the last byte": (text(lambda whole: whole[:-1]), "line 1 column"),
    "zeros": (text(lambda whole: "\0" * len(whole)), "line 1 column 1"),
    "zeros at the end": (text(lambda whole: whole[:99] + "\0" * 200), "line 1 column"),
    "twice": (text(lambda whole: whole * 2), "line 1 column"),
    "a list": (text(lambda whole: f"[{whole}]"), "expected an object"),
    "an empty object": (text(lambda _: "{}"), "written by another runtime"),
    "the next version": (fields(version=2), "written by another version of ocirt"),
    "no version": (without("version"), "written by another runtime"),
    "another id": (fields(id="web"), "of another container, web"),
    "a pid in quotes": (fields(pid="1"), "pid: missing, or of another type"),
    "a truth for a pid": (fields(pid=True), "pid: missing, or of another type"),
    "a list of a cgroup": (fields(cgroup=[]), "cgroup: missing, or of another type"),
    "hooks by name": (fields(hooks={"poststop": 1}), "hooks: missing, or of another type"),
    "a bundle that is a number": (fields(bundle=7), "bundle: missing, or of another type"),
    "no start time": (without("start_time"), "start_time: missing, or of another type"),
    "of another owner": (lambda path: os.chown(path, 4242, -1), "belongs to user 4242"),
    "a directory": (instead(os.mkdir), "Is a directory"),
    "a FIFO": (instead(os.mkfifo), "state.json"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_verb_acts_on_a_state_that_is_not_what_was_written(runtime, bundle, damage):
    harm, saying = DAMAGES[damage]
    b = bundle.sleeping()
    pid = runtime.create(b)
    folder = os.path.join(runtime.root, b.id)
    path, aside = os.path.join(folder, "state.json"), f"{runtime.root}-state.json"
    os.link(path, aside)
    with open(path, "rb") as file:
        whole = file.read()
    # Written anew, for the launcher to have only this to tell it by.
    harm(path)
    names = sorted(os.listdir(folder))
    for verb, *words in VERBS:
        code = 255 if verb == "exec" else 1
        result = runtime(verb, *[word.format(id=b.id) for word in words])
        assert result.code == code, str(result)
        assert len(result.errors) == 1, str(result)
        assert "state.json" in result.error, str(result)
        assert saying.lower() in result.error.lower(), str(result)
        assert "internal error" not in result.error
    assert sorted(os.listdir(folder)) == names
    with open(f"/proc/{pid}/cmdline") as file:
        assert file.read().startswith("ocirt-init\0"), "the gate was opened"
    quiet = runtime.ok("list", "--format", "json")
    assert quiet.json() is None
    # The record as it was is believed again.
    (os.rmdir if os.path.isdir(path) else os.unlink)(path)
    os.chown(aside, 0, -1)
    with open(aside, "wb") as file:
        file.write(whole)
    os.rename(aside, path)
    assert runtime.status(b) == "created"
    runtime.delete(b, "--force")


def test_a_state_below_another_name_is_not_believed(runtime, bundle):
    b = bundle.sleeping()
    runtime.create(b)
    os.rename(os.path.join(runtime.root, b.id), os.path.join(runtime.root, "other"))
    for words in (("kill", "other", "KILL"), ("state", "other"), ("start", "other")):
        result = runtime(*words)
        assert result.code == 1, str(result)
        assert f"of another container, {b.id}" in result.error
    os.rename(os.path.join(runtime.root, "other"), os.path.join(runtime.root, b.id))
    assert runtime.status(b) == "created"
