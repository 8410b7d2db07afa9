"""Ranks on paper: patterns, names, variables, configs."""

from __future__ import annotations

import pytest

from ocirt import jsonio, ranks
from ocirt.errors import ConfigError, Error

CONFIG = {
    "process": {"args": ["true"], "env": ["A=1"], "terminal": True},
    "linux": {"cgroupsPath": "/x", "resources": {"cpu": {"shares": 2}, "pids": {"limit": 3}}},
}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("%r", "3"),
        ("a%rb%nc", "a3b8c"),
        ("%%r", "%r"),
        ("%%%r", "%3"),
        ("100%%", "100%"),
        ("%%%%", "%%"),
        ("%r%r", "33"),
    ],
)
def test_a_pattern_is_expanded(pattern, text):
    assert ranks.expand(pattern, 3, 8, "--name") == text


@pytest.mark.parametrize("pattern", ["%", "a%", "%x", "%%%", "%R", "% r"])
def test_anything_else_after_a_percent_sign_is_refused(pattern):
    with pytest.raises(Error, match=r"^--name: .*: there is no %.?, only %r \(rank\)"):
        ranks.expand(pattern, 3, 8, "--name")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("web", ["web-0", "web-1"]),
        ("%r.web", ["0.web", "1.web"]),
        ("logs/", ["logs/0", "logs/1"]),
        ("of%n", ["of2-0", "of2-1"]),
        ("%%r", ["%r-0", "%r-1"]),
    ],
)
def test_a_pattern_without_the_rank_gets_it(pattern, found):
    assert ranks.spread(pattern, 2, "--output") == found


def test_names_are_ids():
    assert ranks.names("a", 3) == ["a-0", "a-1", "a-2"]
    with pytest.raises(Error, match="invalid container ID format"):
        ranks.names("a/b", 1)


@pytest.mark.parametrize(
    ("bundle", "name"),
    [("/a/web", "web"), ("/a/web/", "web"), ("/a/my job.1", "my_job_1"), ("/", "job"), ("/ä", "_")],
)
def test_containers_are_called_as_their_bundle(bundle, name):
    assert ranks.default_name(bundle) == name
    ranks.names(name, 1)


def test_every_style_says_who_and_how_many():
    for style, names in ranks.STYLES.items():
        assert ranks.RANK in names.values(), style
        assert ranks.SIZE in names.values(), style
    every = [name for names in ranks.STYLES.values() for name in names]
    assert len(every) == len(set(every))
    assert ranks.variables(["pmi"], 2, 5) == [
        "PMI_RANK=2", "PMI_SIZE=5", "MPI_LOCALRANKID=2", "MPI_LOCALNRANKS=5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [("none", []), ("", []), ("pmi", ["pmi"]), ("pmi,torch,pmi", ["pmi", "torch"])],
)
def test_styles_are_a_list(text, found):
    assert ranks.styles(text) == found


def test_an_unknown_style_is_refused():
    with pytest.raises(Error, match="--env-style: lam: not torch, slurm, ompi, pmi or none"):
        ranks.styles("torch,lam")


def test_what_ranks_have_in_common():
    common = ranks.common(CONFIG, [], True)
    assert common["process"] == {
        "args": ["true"],
        "env": ["A=1", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=29500"],
        "terminal": False,
    }
    assert ranks.common(CONFIG, ["a", "b"], False)["process"]["args"] == ["a", "b"]
    said = {"process": {"args": ["true"], "env": ["MASTER_PORT=1"]}}
    assert ranks.common(said, [], True)["process"]["env"] == [
        "MASTER_PORT=1", "MASTER_ADDR=127.0.0.1",
    ]  # fmt: skip
    assert CONFIG["process"]["terminal"] is True  # the original is as it was
    with pytest.raises(ConfigError, match="process: missing"):
        ranks.common({}, [], True)


def test_the_config_of_a_rank_differs_where_it_has_to():
    common = ranks.common(CONFIG, [], False)
    one = ranks.with_cgroup(ranks.with_env(common, ["RANK=1"]), "/x-1", "2-3")
    assert one["process"]["env"] == ["A=1", "RANK=1"]
    assert one["linux"] == {
        "cgroupsPath": "/x-1",
        "resources": {"cpu": {"shares": 2, "cpus": "2-3"}, "pids": {"limit": 3}},
    }
    assert ranks.with_cgroup(common, "", "") == common
    assert common["process"]["env"] == ["A=1"]
    assert common["linux"] == CONFIG["linux"]


def test_configs_are_written_down_as_ever():
    common = ranks.common({**CONFIG, "hostname": "bö\udc80x", "mounts": [{"a": [1]}]}, [], False)
    text = ranks.writer(common)
    for number in range(3):
        made = ranks.with_env(common, [f"RANK={number}"])
        made = ranks.with_limit(made, "RLIMIT_NOFILE", number, -1)
        made = ranks.with_cgroup({**made, "new": None}, f"/x-{number}", str(number))
        whole = jsonio.dumps(made).encode("utf-8", "surrogateescape")
        assert text(made) == whole
        assert text({**made, "linux": None}) != whole


def test_a_limit_is_added_unless_the_config_has_it():
    common = ranks.common(CONFIG, [], False)
    one = ranks.with_limit(common, "RLIMIT_NOFILE", 5, -1)
    assert one["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 5, "hard": (1 << 64) - 1}
    ]
    assert ranks.with_limit(one, "RLIMIT_NOFILE", 7, 7) == one
