"""What each kind of machine gives a container: one readable file for each, golden/hpc/NAME.txt.

OCIRT_GOLDEN=write python -m pytest tests/unit/hpc/test_golden.py     writes them anew
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ocirt_hpc import ldcache, stage

from ocirt.cli.hpc import table
from ocirt.errors import Error
from tests.unit.hpc.profiles import PROFILES
from tests.unit.hpc.sites import Place

GOLDEN = Path(__file__).parent.parent / "golden/hpc"

# What the machine that runs the tests would decide otherwise.
SETTINGS = '[rdma]\nmemlock = "keep"\n[nvidia]\nnvml-timeout = 0\n'


def outcome(place, request):
    """Return a request and what comes of it as a reader wants it."""
    annotations = dict(one.split("=", 1) for one in request if one.startswith("ocirt.hpc/"))
    settings = SETTINGS + "".join(f"{one}\n" for one in request if " = " in one)
    env = [one for one in request if not one.startswith("ocirt.hpc/") and " = " not in one]
    lines = [f"$ {' '.join(request)}"]
    try:
        made = place.ask(settings, env=env, annotations=annotations)
    except Error as error:
        lines.append(named(place, f"refused: {error}"))
    else:
        report = made.report if made else []
        rows = [{key: named(place, value) for key, value in row.items()} for row in report]
        lines += table(rows).splitlines() if rows else ["nothing"]
        if made and made.tree:
            lines += [f"file  {path}" for path in made.tree.files]
            lines += [f"link  {path} -> {target}" for path, target in made.tree.links.items()]
            cache = made.tree.files.get("ld.so.cache", b"")
            entries = ldcache.parse(cache) if cache else []
            lines += [f"loader  {one.name} => {one.path} ({one.flags:#x})" for one in entries]
    return "\n".join(lines)


def named(place, text):
    """Return a text without the places of this run."""
    return text.replace(str(place.machine.root), "HOST").replace(str(place.path), "STATE")


@pytest.mark.parametrize("name", PROFILES)
def test_what_a_machine_gives_is_the_golden_text(name, tmp_path, monkeypatch):
    build, requests = PROFILES[name]
    machine = build(tmp_path / "host")
    for path in machine.nodes:
        machine.write(path, "")  # for who lists /dev
    machine.host()
    monkeypatch.setattr(stage, "Host", lambda root: machine.host())
    place = Place(tmp_path, machine)
    (place.rootfs / "lib64").mkdir()
    (place.rootfs / "lib64/ld-linux-x86-64.so.2").touch()
    made = [outcome(place, request) for request in requests]
    text = f"{build.__doc__ or name}\n\n" + "\n\n".join(made) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("OCIRT_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_text_is_left_over():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(PROFILES)
