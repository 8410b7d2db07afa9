"""Whose the program is: modes, homes, the accounts that the image knows."""

from __future__ import annotations

import os

import pytest

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import Machine
from tests.unit.hpc.sites import ALWAYS, BASE, Place

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
ann:x:1000:100:Ann:/home/ann:/bin/zsh
svc:x:33:33:svc:/:/bin/false
broken
bad:x:NaN:1:x:/:/bin/sh
"""
GROUP = "users:x:100:\nfabric:x:500:ann,bob\nwheel:x:0:root\n"


@pytest.fixture
def place(tmp_path):
    machine = Machine(tmp_path / "machine")
    machine.write("/etc/passwd", PASSWD)
    machine.write("/etc/group", GROUP)
    (machine.root / "home/ann").mkdir(parents=True)
    machine.host()
    return Place(tmp_path, machine)


def user(made):
    return made.config["process"]["user"]


def mounts(made):
    return {one["destination"]: one for one in made.config["mounts"]}


@pytest.mark.parametrize(
    ("value", "uid", "gid", "gids"),
    [
        ("ann", 1000, 100, [500]),
        ("1000", 1000, 100, [500]),
        ("1000:7", 1000, 7, [500]),
        ("4242:7", 4242, 7, []),
    ],
)
def test_a_fixed_user(place, value, uid, gid, gids):
    made = place.ask(f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "{value}"\n')
    assert user(made) == {"uid": uid, "gid": gid, "additionalGids": gids}
    # Capabilities in force are root's affair; engines leave them out for anybody else.
    assert made.config["process"]["capabilities"] == {"bounding": ["CAP_KILL"]}
    assert made.report[0]["what"] == f"{uid}:{gid}"
    assert made.name("process.user.uid") == "hpc.toml: user.mode=fixed.uid"


def test_root_keeps_its_capabilities(place):
    made = place.ask(f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "root"\n')
    assert user(made)["uid"] == 0
    assert made.config["process"]["capabilities"] == BASE["process"]["capabilities"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("bob", 'the host knows no user "bob"'),
        ("4242", 'knows no user 4242; say "4242:GID"'),
        ("1000:users", "is not UID, UID:GID or a name"),
        (":", "is not UID, UID:GID or a name"),
        ("1000:", "is not UID, UID:GID or a name"),
        ("-1:0", 'knows no user "-1"'),
        ("4294967295:0", "holds a number that is no id"),
        ("9" * 5000, "holds a number that is no id"),
        ("1000:" + "9" * 5000, "holds a number that is no id"),
        ("\u0661\u0660:5", "knows no user"),
        ("../etc", "knows no user"),
    ],
)
def test_a_value_that_means_nobody(place, value, words):
    with pytest.raises(ConfigError, match=words) as caught:
        place.ask(f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "{value}"\n')
    assert str(caught.value).startswith("user.value in hpc.toml: ")
    with pytest.raises(ConfigError, match=words) as caught:
        place.ask(f'{ALWAYS}[user]\nmode = "env"\n', env=[f"OCIRT_USER={value}"])
    assert str(caught.value).startswith("process.env: OCIRT_USER: ")


@pytest.mark.parametrize("value", ["a\0b", "\udcff", "a\nb:1", "root\x1b"])
def test_a_variable_of_noise_is_an_error_that_can_be_read(place, value):
    with pytest.raises(ConfigError, match="is not UID, UID:GID or a name") as caught:
        place.ask(f'{ALWAYS}[user]\nmode = "env"\n', env=[f"OCIRT_USER={value}"])
    assert str(caught.value).isprintable()


def test_the_caller(place):
    made = place.ask(f'{ALWAYS}[user]\nmode = "caller"\n')
    assert (user(made)["uid"], user(made)["gid"]) == (os.getuid(), os.getgid())
    assert set(user(made)["additionalGids"]) == set(os.getgroups()) - {os.getgid()}


ENV = f'{ALWAYS}[user]\nmode = "env"\nvariable = "RUN_AS"\n'


def test_a_variable_names_the_user_where_the_site_says_so(place):
    assert user(place.ask(ENV, env=["RUN_AS=1000:100"]))["uid"] == 1000
    assert place.ask(ENV) is None
    closed = place.ask(f"{ENV}[policy]\nenv-requests = false\n", env=["RUN_AS=1000:100"])
    assert user(closed) == {"uid": 0, "gid": 0}
    assert closed.report[0]["allowed"] == "left out"
    # No variable switches the user where the site has another mode.
    assert place.ask(ALWAYS, env=["OCIRT_USER=1000:100", "RUN_AS=1000:100"]) is None


def test_without_the_variable_it_is_the_sites(place):
    text = f'{ENV}value = "ann"\n'
    assert user(place.ask(text))["uid"] == 1000
    assert user(place.ask(text, env=["RUN_AS=1001:100"]))["uid"] == 1001
    closed = place.ask(f"{text}[policy]\nenv-requests = false\n", env=["RUN_AS=1001:100"])
    assert user(closed)["uid"] == 1000


@pytest.mark.parametrize("value", ["root", "0", "0:0", "1000:0", "00:5"])
def test_a_variable_cannot_ask_for_root(place, value):
    with pytest.raises(ConfigError, match="RUN_AS: a variable cannot ask for root"):
        place.ask(ENV, env=[f"RUN_AS={value}"])


def test_keep(place):
    text = f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "ann"\n'
    keep = {"ocirt.hpc/user": "keep"}
    with pytest.raises(ConfigError, match="the site does not allow it"):
        place.ask(text, annotations=keep)
    assert place.ask(f"{text}keep = true\n", annotations=keep) is None
    with pytest.raises(ConfigError, match=r"ocirt.hpc/user: expected keep"):
        place.ask(text, annotations={"ocirt.hpc/user": "0:0"})


def test_ids_of_the_host_are_translated(place):
    def mapped(first):
        rows = [{"containerID": 0, "hostID": first, "size": 10}]
        linux = {"namespaces": [{"type": "user"}], "uidMappings": rows,
                 "gidMappings": [{"containerID": 5, "hostID": 100, "size": 1}]}  # fmt: skip
        return {**BASE, "linux": linux}

    text = f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "ann"\n'
    made = place.ask(text, config=mapped(995))
    assert user(made) == {"uid": 5, "gid": 5, "additionalGids": []}
    with pytest.raises(ConfigError, match=r"uid 1000 of the host is not in linux.uidMappings"):
        place.ask(text, config=mapped(2000))


def test_home(place):
    text = f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "ann"\nset-home = true\nhome = '
    made = place.ask(f'{text}"bind"\n')
    assert "HOME=/home/ann" in made.config["process"]["env"]
    assert mounts(made)["/home/ann"]["source"] == f"{place.machine.root}/home/ann"
    assert mounts(made)["/home/ann"]["options"] == ["rbind", "rslave", "nosuid", "nodev"]
    made = place.ask(f'{text}"tmpfs"\n')
    assert mounts(made)["/home/ann"] == {
        "destination": "/home/ann", "source": "tmpfs", "type": "tmpfs",
        "options": ["nosuid", "nodev", "mode=0700", "uid=1000", "gid=100"],
    }  # fmt: skip
    assert list(mounts(place.ask(f'{text}"none"\n'))) == ["/proc"]


@pytest.mark.parametrize("value", ["svc", "4242:7"])
def test_who_has_no_home_gets_none(place, value):
    text = f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "{value}"\nhome = "bind"\n'
    made = place.ask(text)
    assert list(mounts(made)) == ["/proc"]
    assert made.report[-1]["what"].endswith("has no home on this host")


def test_an_image_does_not_choose_whose_home_it_gets(place):
    text = f'{ALWAYS}[user]\nmode = "env"\nhome = "bind"\n'
    config = {**BASE, "process": {**BASE["process"], "user": {"uid": 1000, "gid": 0}}}
    made = place.ask(text, config=config)
    assert made is None
    text = f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "ann"\nhome = "bind"\nkeep = true\n'
    assert place.ask(text, config=config, annotations={"ocirt.hpc/user": "keep"}) is None


ACCOUNTS = f'{ALWAYS}[user]\nmode = "fixed"\nvalue = "ann"\naccounts = true\n'


def test_the_image_knows_the_user(place):
    (place.rootfs / "etc").mkdir()
    (place.rootfs / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nubuntu:x:1000:1000::/home/ubuntu:/bin/sh\nann:x:7:7::/:/bin/sh"
    )
    (place.rootfs / "etc/group").write_bytes(b"root:x:0:\nwww:x:33:\xff\n")
    made = place.ask(ACCOUNTS)
    assert made.tree.files == {
        "etc/passwd": b"ann:x:1000:100::/home/ann:/bin/zsh\nroot:x:0:0::/root:/bin/sh\n",
        "etc/group": b"users:x:100:\nfabric:x:500:ann\nroot:x:0:\nwww:x:33:\xff\n",
    }
    mount = mounts(made)["/etc/passwd"]
    assert mount["source"] == f"{place.path}/files/etc/passwd"
    assert mount["options"] == ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"]


def test_an_image_without_accounts_or_with_a_trap(place, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret:x:1:1::/:/bin/sh\n")
    (place.rootfs / "etc").mkdir()
    (place.rootfs / "etc/passwd").symlink_to(secret)
    os.mkfifo(place.rootfs / "etc/group")
    files = place.ask(ACCOUNTS).tree.files
    assert b"secret" not in files["etc/passwd"]
    assert files["etc/passwd"].splitlines()[1] == b"root:x:0:0:root:/root:/bin/sh"
    assert files["etc/group"].splitlines()[0] == b"users:x:100:"


def test_a_user_that_the_host_does_not_know_has_a_name(place):
    made = place.ask(ACCOUNTS.replace('"ann"', '"4242:7"'))
    assert made.tree.files["etc/passwd"].startswith(b"user4242:x:4242:7::/:/bin/sh\n")
    assert made.tree.files["etc/group"].startswith(b"group7:x:7:\n")


def test_a_config_without_a_process_has_no_user(place):
    config = {name: part for name, part in BASE.items() if name != "process"}
    config["process"] = {"env": []}
    assert user(place.ask(ACCOUNTS, config=config))["uid"] == 1000


# --- who is alone in a user namespace: himself, by profile


ALONE = {
    "namespaces": [{"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
    "gidMappings": [{"containerID": 0, "hostID": 100, "size": 1}],
}
OWN = "[profile.mine]\nown-ids = true\n"


def alone(**linux):
    return {**BASE, "linux": {**BASE["linux"], **ALONE, **linux}}


def test_who_is_alone_in_a_user_namespace_is_himself(place):
    made = place.ask(OWN, profile="mine", config=alone())
    linux = made.config["linux"]
    assert linux["uidMappings"] == [{"containerID": 1000, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 100, "hostID": 100, "size": 1}]
    assert user(made) == {"uid": 1000, "gid": 100}
    assert made.config["process"]["capabilities"] == {"bounding": ["CAP_KILL"]}
    assert "1000:100, as on the host" in [row["what"] for row in made.report]


def test_the_image_knows_who_is_himself(place):
    made = place.ask(ACCOUNTS + OWN, profile="mine", config=alone())
    assert user(made)["uid"] == 1000
    assert made.tree.files["etc/passwd"].startswith(b"ann:x:1000:100::/home/ann:/bin/zsh\n")


@pytest.mark.parametrize(
    "linux",
    [
        {"uidMappings": [{"containerID": 0, "hostID": 1000, "size": 2}]},
        {"uidMappings": ALONE["uidMappings"] * 2},
        {"uidMappings": [{"containerID": 5, "hostID": 1000, "size": 1}]},
        {"uidMappings": [{"containerID": 0, "hostID": 0, "size": 1}]},
        {"gidMappings": []},
    ],
)
def test_who_is_not_alone_stays_as_he_is(place, linux):
    assert place.ask(OWN, profile="mine", config=alone(**linux)) is None
