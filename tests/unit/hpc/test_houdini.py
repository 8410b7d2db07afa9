"""An ini of Houdini in our words: every key, and whatever else a file may hold."""

from __future__ import annotations

import random
import tomllib

import pytest
from ocirt_hpc import houdini, site

INI = """\
[default]
debug=true
# If true, apply houdini onto each container
force-houdini=false
trigger-label=houdini
trigger-env=HOUDINI_ENABLED
mounts=/home:/home,/opt/site:/opt/site:ro, data:/data,/x:/y:z
environment=DATA=/data|OPTS=a=b=c|=x|LONE
force-environment=false
devices=/dev/fuse,/dev/infiniband/uverbs0,eth0
[container]
remove-label=houdini.container.remove
remove=true
privileged-trigger-env=HOUDINI_CONTAINER_PRIVILEGED

[user]
keep-user-label=houdini.user.keep
keep-user-env=HOUDINI_KEEP_USER
mode=default
default=1000:1000
key=HOUDINI_USER
set-home-env=true

[gpu]
force=false
trigger-env=HOUDINI_GPU_ENABLED
trigger-label=houdini-gpu-enabled
mounts=/opt/cuda
environment=CUDA_HOME=/opt/cuda
force-environment=true
cuda-files=libcuda,libnvidia-x
cuda-libpath=/usr/lib/x86_64-linux-gnu/
"""


@pytest.fixture
def loaded(tmp_path):
    """Return the site that a converted ini makes, and the comments."""

    def load(text):
        converted = houdini.convert(text)
        file = tmp_path / "hpc.toml"
        file.touch(mode=0o600)
        file.write_text(converted, encoding="utf-8", errors="surrogatepass")
        comments = [line[2:] for line in converted.splitlines() if line.startswith("# ")]
        return site.load(str(file)), comments

    return load


def test_every_key_has_its_counterpart_or_a_reason(loaded):
    here, comments = loaded(INI)
    assert here["stage", "trigger"] == "requested"
    assert here["stage", "trigger-env"] == [
        "HOUDINI_ENABLED", "HOUDINI_GPU_ENABLED", "NVIDIA_VISIBLE_DEVICES", "HOUDINI_GPU_REQUESTED",
    ]  # fmt: skip
    (part,) = here.parts
    assert part.get("mounts") == [
        {"source": "/home", "destination": "/home"},
        {"source": "/opt/site", "destination": "/opt/site", "options": ["rbind", "ro"]},
        {"source": "/x", "destination": "/y"},
    ]
    assert part.get("env") == {"default": {"DATA": "/data", "OPTS": "a=b=c"}}
    assert part.get("devices") == [
        {"path": "/dev/fuse", "access": "rwm", "optional": True},
        {"path": "/dev/infiniband/uverbs0", "access": "rwm", "optional": True},
    ]
    user = {key: value for (section, key), value in here.values.items() if section == "user"}
    assert user == {
        "mode": "fixed", "value": "1000:1000", "variable": "OCIRT_USER", "keep": True,
        "set-home": True, "home": "none", "accounts": False,
    }  # fmt: skip
    gpu = here.modules["gpu"]
    assert gpu.get("trigger-env") == here["stage", "trigger-env"][1:]
    assert gpu.get("gpus") == ""
    assert here["nvidia", "library-search-path"] == ["/usr/lib/x86_64-linux-gnu"]
    assert here["nvidia", "extra-libraries"] == ["libnvidia-x*.so*"]
    assert gpu.get("mounts") == [{"source": "/opt/cuda", "destination": "/opt/cuda"}]
    assert gpu.get("env") == {"set": {"CUDA_HOME": "/opt/cuda"}}
    text = "\n".join(comments)
    for section, key in houdini.WITHOUT:
        assert f"{section}.{key} = " in text
    for words in (
        'default: mounts[0].source: "data" is not absolute; left out',
        "default.mounts: /x:/y:z: of the options only ro and rw are known",
        "default.environment: =x is not NAME=VALUE; left out",
        "default.environment: LONE is not NAME=VALUE; left out",
        'default: devices[0].path: "eth0" is not absolute; left out',
        "user.key = HOUDINI_USER: only user.mode = env reads it",
        "HOUDINI_GPU_REQUESTED (N free GPUs)",
    ):
        assert words in text


def test_every_key_of_the_ini_is_known():
    known = {f"{section}.{key}" for section, keys in houdini.KNOWN.items() for key in keys}
    known |= {f"{section}.{key}" for section, key in houdini.WITHOUT}
    section, used = "", set()
    for line in INI.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            used.add(f"{section}.{line.partition('=')[0]}")
    assert used == known


def test_the_result_acts_as_the_ini_did(tmp_path):
    from tests.unit.hpc.machines import Machine
    from tests.unit.hpc.sites import Place

    machine = Machine(tmp_path / "machine")
    for path in ("home", "opt/site", "x"):
        (machine.root / path).mkdir(parents=True)
    machine.host()
    place = Place(tmp_path, machine)
    text = houdini.convert(INI)
    made = place.ask(text, env=["HOUDINI_ENABLED=true", "DATA=/mine"])
    assert "DATA=/mine" in made.config["process"]["env"]
    assert "OPTS=a=b=c" in made.config["process"]["env"]
    assert made.config["process"]["user"]["uid"] == 1000
    assert {one["destination"] for one in made.config["mounts"]} >= {"/home", "/opt/site", "/y"}
    assert place.ask(text) is None


EXAMPLE = """\
[default]
mounts=/home:/home
environment=DATA=/data
[container]
remove=true
[user]
keep-user-label=houdini.user.keep
mode=static
default=1000:1000
[gpu]
trigger-env=HOUDINI_GPU_ENABLED
mounts=/opt/nv:/usr/lib/nv:ro
environment=LD_LIBRARY_PATH=/usr/lib/nv|NVIDIA_VISIBLE_DEVICES=all
force-environment=true
cuda-files=libcuda
cuda-libpath=/usr/lib/x86_64-linux-gnu/
"""


def test_a_gpu_by_the_ini_alone(tmp_path):
    """Its variable asks for a GPU, and the ini says which: so it stands in Houdini's own words."""
    from tests.unit.hpc.machines import install, workstation
    from tests.unit.hpc.sites import Place

    machine = workstation(tmp_path / "machine")
    install(machine)
    machine.folders("home", "opt/nv")
    place = Place(tmp_path, machine)
    text = houdini.convert(EXAMPLE)
    made = place.ask(text, env=["HOUDINI_GPU_ENABLED=true", "LD_LIBRARY_PATH=/mine"])
    env = dict(one.split("=", 1) for one in made.config["process"]["env"])
    assert (env["LD_LIBRARY_PATH"], env["DATA"]) == ("/usr/lib/nv", "/data")
    assert "/dev/nvidia0" in {node["path"] for node in made.config["linux"]["devices"]}
    mounts = {one["destination"]: one.get("options", ()) for one in made.config["mounts"]}
    assert "ro" in mounts["/usr/lib/nv"]
    assert "/home" in mounts
    assert made.config["process"]["user"]["uid"] == 1000
    # Without a GPU there is neither its part nor a node.
    made = place.ask(text, env=["HOUDINI_ENABLED=true"])
    assert "devices" not in made.config["linux"]
    assert "/usr/lib/nv" not in {one["destination"] for one in made.config["mounts"]}
    assert place.ask(text, env=["HOUDINI_ENABLED=false"]) is None


@pytest.mark.parametrize(
    ("text", "section", "key", "value"),
    [
        ("", "stage", "trigger", "requested"),
        ("force-houdini=TRUE", "stage", "trigger", "always"),
        ("\ufeff[ Default ]\r\n Force-Houdini = t \r\n", "stage", "trigger", "always"),
        ("[default]\nforce-houdini=perhaps\n", "stage", "trigger", "requested"),
        ("force-houdini=yes", "stage", "trigger", "requested"),
        ("[default]\nforce-houdini=true # all\n", "stage", "trigger", "always"),
        # As its code has it: static sets the user, and default is what there is without a mode.
        ("[user]\nmode=static\ndefault=1:1\n", "user", "value", "1:1"),
        ("[user]\nmode=static\n", "user", "mode", "image"),
        ("[user]\nmode=static\ndefault=1:1\nset-home-env=true\n", "user", "set-home", False),
        ("[user]\ndefault=docker\n", "user", "mode", "fixed"),
        ("[user]\ndefault=docker:users\n", "user", "value", "docker"),
        ("[user]\ndefault=1000:users\n", "user", "value", "1000"),
        ("[user]\nmode=env\ndefault=7:7\n", "user", "value", "7:7"),
        ("[user]\nmode=default\ndefault=7:7\nset-home-env=true\n", "user", "set-home", True),
        ("[gpu]\ncuda-files=libx\n", "nvidia", "extra-libraries", []),
        ("[gpu]\ncuda-libpath=/a/,b,/c\n", "nvidia", "library-search-path", ["/a", "/c"]),
        ("[user]\nmode=default\n", "user", "mode", "image"),
        ("[user]\nmode=env\n", "user", "variable", "HOUDINI_USER"),
        ("[user]\nmode=env\nkey='RUN AS'\n", "user", "variable", "RUN AS"),
        ("[user]\nmode=magic\n", "user", "mode", "image"),
    ],
)
def test_quirks(loaded, text, section, key, value):
    assert loaded(text)[0][section, key] == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("A=1|B=2", {"A": "1", "B": "2"}),
        ("A=1;B=2", {"A": "1", "B": "2"}),
        ("A=1;2", {"A": "1;2"}),
        ("A=1|B=2;C=3", {"A": "1", "B": "2;C=3"}),
        ('A="quoted \\ path"', {"A": '"quoted \\ path"'}),
        ("A=1 # what it is", {"A": "1"}),
        ("A=é\x7f", {"A": "é\x7f"}),
        (" A = 1 | ", {"A": " 1"}),
    ],
)
def test_variables(loaded, value, expected):
    (part,) = loaded(f"[default]\nenvironment={value}\n")[0].parts
    assert part.get("env") == {"default": expected}


def test_noise_makes_good_settings_all_the_same(loaded):
    chance = random.Random(7)
    pieces = [*INI.splitlines(), "[", "]", "=", "[[x]]", "mode=env", "mounts=:,::,/a:/..,/b:/b:rw"]
    letters = "ab=[]|;,:#\"'\\/\0\x01\x7f\u2028é\U0001f600 \t\n"
    for _ in range(300):
        lines = chance.choices(pieces, k=chance.randrange(12))
        for _ in range(chance.randrange(4)):
            noise = "".join(chance.choices(letters, k=12))
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(pieces) + noise)
        loaded("\n".join(lines))


def test_the_output_is_toml():
    assert tomllib.loads(houdini.convert(INI))["module"]["gpu"]["env"]["set"]
