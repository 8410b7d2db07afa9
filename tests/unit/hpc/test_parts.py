"""What a site adds to containers: mounts, variables, nodes, limits, namespaces of the host."""

from __future__ import annotations

import copy

import pytest
from ocirt_hpc import parts, stage

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import ALWAYS, BASE, Place


@pytest.fixture
def place(tmp_path):
    machine = Machine(tmp_path / "machine")
    machine.folders("/scratch", "/opt/site", "/dev/shm")
    for name, minor in (("fuse", 229), ("acme0", 0), ("acme1", 1)):
        machine.node(f"/dev/{name}", 10, minor)
        machine.write(f"/dev/{name}", "")
    machine.host()
    return Place(tmp_path, machine)


@pytest.fixture
def nodes(place, monkeypatch):
    """Let the stage see the machine's nodes, which are plain files."""
    lstat = place.machine.lstat
    host = stage.Host
    monkeypatch.setattr(stage, "Host", lambda root: host(root, lstat=lstat))


def mounts(made):
    return {one["destination"]: one for one in made.config["mounts"]}


def test_a_mount_follows_the_host_and_gives_nothing_back(place):
    made = place.ask(ALWAYS + '[[mounts]]\nsource = "/scratch"\n')
    assert mounts(made)["/scratch"] == {
        "destination": "/scratch",
        "source": f"{place.machine.root}/scratch",
        "options": ["rbind", "rslave", "nosuid", "nodev"],
    }
    assert made.name("mounts[1].source") == "hpc.toml: mounts[0].hostPath"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('["ro"]', ["rbind", "ro", "rslave", "nosuid", "nodev"]),
        ('["bind", "rprivate", "suid", "dev"]', ["bind", "rprivate", "suid", "dev"]),
    ],
)
def test_options_of_a_mount(place, options, expected):
    text = f'[[mounts]]\nsource = "/opt/site"\ndestination = "/s"\noptions = {options}\n'
    assert mounts(place.ask(ALWAYS + text))["/s"]["options"] == expected


def test_a_source_that_is_not_there(place):
    text = ALWAYS + '[[mounts]]\nsource = "/scratch"\n[[mounts]]\nsource = "/gone"\n'
    with pytest.raises(ConfigError, match=r"^hpc.toml: mounts\[1\]: this host has no /gone$"):
        place.ask(text)
    made = place.ask(text + "if-exists = true\n")
    assert list(mounts(made)) == ["/proc", "/scratch"]
    assert made.report[-1] == {
        "edit": "", "what": "this host has no /gone", "from": "hpc.toml: mounts[1]",
        "allowed": "left out",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[mounts]]\nsource = "scratch"\n', r"mounts\[0\].source: \"scratch\" is not absolute"),
        ("[[mounts]]\n", r"mounts\[0\].source: \"\" is not absolute"),
        ('[[mounts]]\nsource = "/a/../b"\n', 'holds "..'),
        ('[[mounts]]\nsource = "/a\\u0000"\n', "holds a control character"),
        ('[[mounts]]\nsource = "/a"\ndestination = "b"\n', r"\[0\].destination: \"b\" is not"),
        ('[[mounts]]\nsource = "/a"\ndestination = "/x/.."\n', 'destination: "/x/.." holds'),
        ('[[mounts]]\nsource = "/a"\ndestination = "/."\n', "root is not to be covered"),
        ('[[mounts]]\nsource = "/a"\noptions = ["rshared"]\n', '"rshared" would let the container'),
        ('[[mounts]]\nsource = "/a"\noptions = "ro"\n', "options: expected a list of strings"),
        ('[[mounts]]\nsrc = "/a"\n', r"mounts\[0\].src: unknown setting \(have source,"),
        ("[module.m]\nmounts = [1]\n", "module.m.mounts: expected tables"),
        ('[[devices]]\npath = "/etc/passwd"\n', r"devices\[0\].path: .* is not below /dev"),
        ('[[devices]]\npath = "/dev/*/x"\n', "only the last name can be a pattern"),
        ('[[devices]]\npath = "/dev/x"\naccess = "rx"\n', 'access: "rx" is not made of r, w, m'),
        ('[[devices]]\npath = "/dev/x"\naccess = ""\n', 'access: "" is not made of'),
        ('[env.set]\n"A=B" = "c"\n', "env.set: 'A=B' is no name of a variable"),
        ("[env.set]\nA = 1\n", "env.set.A: expected a string"),
        ('[env.put]\nA = "1"\n', r"env.put: unknown setting \(have set, default"),
        ('[env]\nunset = "A"\n', "env.unset: expected a list of strings"),
        ('[env.set]\nA = "\\u0000"\n', "env.set.A: holds a null byte"),
        ("[limits]\nsize = 1\n", r"limits.size: unknown limit \(have as,"),
        ("[limits]\nstack = -1\n", "limits.stack: expected a number"),
        (f'[limits]\nstack = "{"9" * 5000}"\n', "limits.stack: expected a number"),
        ("[limits]\nstack = true\n", "limits.stack: expected a number"),
        ('[limits]\nstack = "1:2:3"\n', "limits.stack: expected a number"),
        ('[limits]\nstack = "2:1"\n', "limits.stack: the soft limit is above the hard one"),
        ("[limits]\nstack = 99999999999999999999\n", "limits.stack: expected a number"),
        ('[module.m]\nenv = {set = {A = 1}}\n', "module.m.env.set.A: expected a string"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_before_anybody_needs_it(place, text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        place.ask(text)
    assert str(caught.value).startswith(str(place.file))


def test_variables(place):
    text = """
[env.set]
A = "2"
[env.default]
PATH = "/none"
LICENSE = "port@host"
[env.prepend]
PATH = "/opt/site/bin"
[env.append]
MANPATH = "/opt/site/man"
[env]
unset = ["B", "A"]
"""
    with pytest.raises(ConfigError, match="Cannot declare"):  # TOML itself, twice [env]
        place.ask(ALWAYS + text.replace("[env]", "[env.set]"))
    text = '[env]\nunset = ["B", "A"]\n' + text.replace('[env]\nunset = ["B", "A"]\n', "")
    assert place.env(ALWAYS + text, env=["B=3"]) == {
        "PATH": "/opt/site/bin:/bin", "A": "2", "LICENSE": "port@host", "MANPATH": "/opt/site/man",
    }  # fmt: skip


def test_paths_are_not_doubled(place):
    text = ALWAYS + '[env.prepend]\nP = "/a"\n[env.append]\nP = "/b"\n'
    assert place.env(text, env=["P=/x"])["P"] == "/a:/x:/b"
    assert place.env(text, env=["P=/a:/x:/b"])["P"] == "/a:/x:/b"
    assert place.env(text, env=["P=/ab:/x"])["P"] == "/a:/ab:/x:/b"


def test_nodes(place, nodes):
    text = '[[devices]]\npath = "/dev/acme*"\naccess = "r"\n[[devices]]\npath = "/dev/fuse"\n'
    made = place.ask(ALWAYS + text)
    found = [node["path"] for node in made.config["linux"]["devices"]]
    assert found == ["/dev/acme0", "/dev/acme1", "/dev/fuse"]
    rules = made.config["linux"]["resources"]["devices"]
    assert [rule["access"] for rule in rules] == ["r", "r", "rw"]
    assert made.name("linux.devices[1].path") == "hpc.toml: devices[0].path"
    text = '[[devices]]\npath = "/dev/gone*"\n'
    with pytest.raises(ConfigError, match=r"devices\[0\]: this host has no device /dev/gone\*"):
        place.ask(ALWAYS + text)
    assert len(place.ask(f"{ALWAYS}{text}optional = true\n").report) == 1


def test_limits(place, monkeypatch):
    monkeypatch.setattr(parts, "highest", lambda name: 4096 if name == "stack" else parts.UNLIMITED)
    text = '[limits]\nmemlock = "unlimited"\nstack = "1024:8192"\nnofile = "unlimited:unlimited"\n'
    made = place.ask(ALWAYS + text)
    assert made.config["process"]["rlimits"] == [
        {"type": "RLIMIT_MEMLOCK", "soft": parts.UNLIMITED, "hard": parts.UNLIMITED},
        {"type": "RLIMIT_STACK", "soft": 1024, "hard": 4096},
        {"type": "RLIMIT_NOFILE", "soft": parts.UNLIMITED, "hard": parts.UNLIMITED},
    ]
    assert made.report[-1]["what"] == "what is above 4096, our own hard limit"


def test_what_the_config_says_itself_stays_and_explain_says_so(place):
    limit = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}
    config = {**BASE, "process": {**BASE["process"], "rlimits": [limit]}}
    made = place.ask(f'{ALWAYS}[limits]\ncore = 0\n[env.default]\nA = "2"\n', config=config)
    assert made.config["process"]["rlimits"] == [limit]
    assert [row["what"] for row in made.report] == [
        "A=2 (the config's own stays)", "RLIMIT_CORE 0:0 (the config's own stays)",
    ]  # fmt: skip


def test_our_own_limits_can_be_asked_for():
    assert all(parts.highest(name) >= 0 for name in parts.LIMITS)


def test_the_job_profile_shares_what_ranks_need(place):
    before = copy.deepcopy(BASE)
    made = place.ask("", profile="hpc-job")
    linux = made.config["linux"]
    assert [space["type"] for space in linux["namespaces"]] == ["mount"]
    assert linux["sysctl"] == {"user.max": "1"}
    assert "hostname" not in made.config
    assert mounts(made)["/dev/shm"]["source"] == f"{place.machine.root}/dev/shm"
    assert before == BASE


def test_a_site_can_extend_the_job_profile(place):
    text = '[profile.hpc-job]\nhost-namespaces = ["network"]\nenv.set.J = "1"\n'
    made = place.ask(text, profile="hpc-job")
    kinds = [space["type"] for space in made.config["linux"]["namespaces"]]
    assert kinds == ["mount", "pid", "ipc", "uts"]
    assert made.config["hostname"] == "box"
    assert "J=1" in made.config["process"]["env"]
    assert "/dev/shm" in mounts(made)
