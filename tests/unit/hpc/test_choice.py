"""Which containers get what the site adds: triggers, profiles, modules; who may ask."""

from __future__ import annotations

import pytest

from ocirt import create, hpc
from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import ALWAYS, Place

ON = {"ocirt.hpc/enabled": "true"}
SITE = '[stage]\ntrigger-env = ["HPC"]\n[env.set]\nSITE = "1"\n'

MODULES = """
[module.a]
env.set.M = "a"
env.append.ALL = "a"
requires = ["b", "c"]
[module.b]
env.append.ALL = "b"
requires = ["c"]
[module.c]
env.append.ALL = "c"
requires = ["a"]
[module.d]
env.append.ALL = "d"
conflicts = ["c"]
[module.e]
env.append.ALL = "e"
trigger-env = ["WANT_E"]
"""


@pytest.fixture
def place(tmp_path):
    machine = Machine(tmp_path / "machine")
    machine.host()
    return Place(tmp_path, machine)


@pytest.mark.parametrize(
    ("text", "env", "annotations", "given"),
    [
        (SITE, [], {}, False),
        (SITE, [], ON, True),
        (SITE, [], {"ocirt.hpc/enabled": "false"}, False),
        (SITE, ["HPC=1"], {}, True),
        (SITE, ["HPC=yes"], {"ocirt.hpc/enabled": "false"}, False),
        (SITE, ["HPC=false"], {}, False),
        (SITE, ["HPC=Off"], {}, False),
        (SITE, ["HPC="], {}, False),
        (SITE, ["HPCX=1"], {}, False),
        (SITE + "[policy]\nenv-requests = false\n", ["HPC=1"], {}, False),
        (SITE + "[policy]\nenv-requests = false\n", ["HPC=1"], ON, True),
        (SITE.replace("]\n", ']\ntrigger = "always"\n', 1), [], {}, True),
        (SITE.replace("]\n", ']\ntrigger = "never"\n', 1), ["HPC=1"], ON, False),
        (SITE.replace("]\n", "]\nenabled = false\n", 1), [], ON, False),
    ],
)
def test_the_trigger(place, text, env, annotations, given):
    assert ("SITE" in place.env(text, env=env, annotations=annotations)) is given


def test_explain_says_what_allowed_it(place):
    made = place.ask(SITE, annotations=ON)
    row = {"edit": "env", "what": "SITE=1", "from": "hpc.toml: env.set.SITE"}
    assert made.report == [{**row, "allowed": "annotations are the caller's"}]
    assert made.origins == {"process.env[2]": "hpc.toml: env.set.SITE"}
    made = place.ask(SITE, env=["HPC=1"])
    assert made.report == [{**row, "allowed": "policy.env-requests"}]
    made = place.ask(SITE + "[policy]\nenv-requests = false\n", env=["HPC=1"])
    assert [(row["from"], row["allowed"]) for row in made.report] == [("HPC=1", "left out")]


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"ocirt.hpc/enabled": "maybe"}, "annotations.ocirt.hpc/enabled: expected true or false"),
        ({"ocirt.hpc/modules": "a,x"}, r'ocirt.hpc/modules: there is no module "x" \(have a, b,'),
        ({"ocirt.hpc/modules": "../a"}, 'there is no module "../a"'),
        ({"ocirt.hpc/modules": ""}, 'there is no module ""'),
        (
            {"ocirt.hpc/profile": "p"},
            r'ocirt.hpc/profile: there is no profile "p" \(have hpc-job\)',
        ),
        ({"ocirt.hpc/profile": "hpc-job"}, r"does not allow hpc-job \(profile.hpc-job.allowed"),
        ({"ocirt.hpc/modules": "a,d"}, 'd.conflicts: module "d" cannot be with module "c"'),
    ],
)
def test_what_is_not_offered_is_refused(place, annotations, words):
    with pytest.raises(ConfigError, match=words):
        place.ask(MODULES, annotations=annotations)


@pytest.mark.parametrize(
    ("asked", "default", "expected"),
    [
        ("e", "[]", "e"),
        ("b", "[]", "b:c:a"),  # they require each other in a ring: all come, none twice
        ("e,e", "[]", "e"),
        ("d, e", "[]", "d:e"),
        ("none", '["e"]', None),
        ("d", '["e"]', "d"),
        (None, '["e"]', "e"),
    ],
)
def test_modules(place, asked, default, expected):
    annotations = {"ocirt.hpc/modules": asked} if asked else ON
    text = f"[stage]\ndefault-modules = {default}\n{MODULES}"
    assert place.env(text, annotations=annotations).get("ALL") == expected


def test_what_a_module_requires_comes_before_it(place):
    text = """
[module.top]
env.append.ALL = "top"
requires = ["left", "right"]
[module.left]
env.append.ALL = "left"
requires = ["base"]
[module.right]
env.append.ALL = "right"
requires = ["base"]
[module.base]
env.append.ALL = "base"
"""
    got = place.env(text, annotations={"ocirt.hpc/modules": "top"})["ALL"]
    assert got == "base:left:right:top"


def test_a_variable_can_ask_for_a_module_that_says_so(place):
    assert place.env(MODULES, env=["WANT_E=1"])["ALL"] == "e"
    assert "ALL" not in place.env(MODULES, env=["WANT_E=0"])
    assert "ALL" not in place.env(MODULES, env=["ocirt.hpc/modules=a", "WANT_A=1"])
    closed = f"{MODULES}[policy]\nenv-requests = false\n"
    assert "ALL" not in place.env(closed, env=["WANT_E=1"])


def test_profiles(place):
    text = f'{SITE}{MODULES}[profile.p]\nenv.set.P = "1"\nmodules = ["e"]\n'
    for options in ({"annotations": {"ocirt.hpc/profile": "p"}}, {"profile": "p"}):
        got = place.env(text, **options)
        assert (got["SITE"], got["P"], got["ALL"]) == ("1", "1", "e")
    with pytest.raises(ConfigError, match='--hpc-profile: there is no profile "q"'):
        place.ask(text, profile="q")
    assert "P" not in place.env(f"{text}[profile.q]\n", profile="p",
                                annotations={"ocirt.hpc/profile": "q"})  # fmt: skip


def test_who_may_share_namespaces_with_the_host(place):
    asked = {"ocirt.hpc/profile": "hpc-job"}
    assert place.ask("", annotations=asked, rootless=True) is not None
    assert place.ask("[profile.hpc-job]\nallowed = true\n", annotations=asked) is not None
    assert place.ask("", profile="hpc-job") is not None
    with pytest.raises(ConfigError, match="does not allow hpc-job"):
        place.ask("", annotations=asked)
    # What an image sets asks for no profile at all.
    assert place.ask("", env=["ocirt.hpc/profile=hpc-job"]) is None


@pytest.mark.parametrize(
    "annotations", [{"ocirt.hpc/modules": "e"}, {"ocirt.hpc/profile": "hpc-job"}]
)
def test_never_is_never(place, annotations):
    text = f'[stage]\ntrigger = "never"\n{MODULES}'
    with pytest.raises(ConfigError, match=r"stage.trigger is never"):
        place.ask(text, annotations=annotations, rootless=True)
    assert place.ask(text, env=["WANT_E=1"]) is None


@pytest.mark.parametrize(
    ("text", "env", "wakes"),
    [
        ("", ["A=1"], False),
        (ALWAYS, [], True),
        ("stage.trigger = 'always'\n", [], True),
        ('[stage]\ntrigger = "alw\\u0061ys"\n', [], True),
        ('[stage]\ntrigger = """\nalways"""\n', [], True),
        ('[hooks]\ndirs = ["/etc/h"]\n', [], True),
        (SITE, ["HPC=1"], True),
        (SITE.replace('"', "'"), ["HPC=1"], True),
        (SITE, ["HP=1", "PC=1"], False),
        ('x = ["it\'s"]\n', ["it's=1"], True),
        ("x = ['', \"\"]\n", ["=1", "", "A\nB=1"], False),
        (MODULES, ["WANT_E=1"], True),
        (MODULES, ["A=1"], False),
        ("# long\n" * 10000, [], True),
    ],
)
def test_the_site_wakes_the_stage(tmp_path, text, env, wakes):
    (tmp_path / "hpc.toml").write_text(text)
    assert hpc.mentioned(env, str(tmp_path)) is wakes


def test_a_plain_container_pays_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(create, "SITE", str(tmp_path / "none"))
    monkeypatch.setattr(hpc, "apply", lambda *a, **k: pytest.fail("the stage was woken"))
    draft = create.Draft.__new__(create.Draft)
    draft.wish = create.Wish("x", str(tmp_path), str(tmp_path))
    draft.config = {"process": {"env": ["HPC=1"]}}
    assert draft._edits() is None
