"""What the stage costs, in a unit that no load changes: calls of functions, C's own included."""

from __future__ import annotations

import json
import sys

import pytest

from ocirt import create, hpc
from tests.unit.hpc import machines, sites

# A look at the environment, the annotations, the mounts, and for /etc/ocirt: well below 1 ms.
MOST_PLAIN = 120
# Eight GPUs and eight NICs: 9000 calls are some 5 ms.
MOST_ASKED = 9000


def calls(function, *args):
    """Return what a function returns, and how many calls it makes."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        made = function(*args)
    finally:
        sys.setprofile(None)
    return made, count


def plain(tmp_path, variables):
    config = dict(sites.BASE, mounts=[{"destination": f"/m/{n}"} for n in range(16)])
    config["process"] = {**config["process"], "env": [f"A{n}=1" for n in range(variables)]}
    wish = create.Wish("plain", str(tmp_path), str(tmp_path))
    draft = create.Draft.__new__(create.Draft)
    draft.wish, draft.config, draft.bundle = wish, config, str(tmp_path)
    return draft


def test_who_asks_for_nothing_pays_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(create, "SITE", str(tmp_path / "none"))
    made, count = calls(plain(tmp_path, 20)._edits)
    assert made is None
    assert count < MOST_PLAIN


def test_settings_that_do_not_concern_a_container_cost_it_little(tmp_path, monkeypatch):
    monkeypatch.setattr(create, "SITE", str(tmp_path))
    (tmp_path / "hpc.toml").write_text('[[mounts]]\nsource = "/scratch"\n' + "# more\n" * 200)
    made, count = calls(plain(tmp_path, 20)._edits)
    assert made is None
    assert count < 2 * MOST_PLAIN


@pytest.fixture
def asked(tmp_path):
    """Return what asks for all GPUs and NICs of a machine."""
    machine = machines.eight_and_eight(tmp_path / "machine")
    machines.install(machine)
    machine.host()
    settings = tmp_path / "hpc.toml"
    settings.touch(mode=0o600)
    settings.write_text(f'[stage]\nhost-root = "{machine.root}"\n')
    (tmp_path / "rootfs").mkdir()
    config = json.loads(json.dumps(sites.BASE))
    config["process"]["env"] += ["NVIDIA_VISIBLE_DEVICES=all", "OCIRT_RDMA_DEVICES=all"]

    def ask():
        place = str(tmp_path / "place")
        return hpc.apply(config, str(tmp_path / "rootfs"), place, devices=[], site=str(settings))

    return ask


def test_eight_gpus_and_eight_nics_are_found_quickly(asked):
    asked()  # loads the modules
    made, count = calls(asked)
    assert len(made.config["linux"]["devices"]) == 8 + 3 + 8 + 1
    assert count < MOST_ASKED
