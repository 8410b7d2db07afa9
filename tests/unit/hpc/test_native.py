"""The driver's libraries in the image's own folders: which ones, and what of the image stays."""

from __future__ import annotations

import pytest

from ocirt.errors import ConfigError
from tests.unit.hpc.machines import VERSION, install, library, workstation
from tests.unit.hpc.sites import BASE, Place

NATIVE = '[nvidia]\nlayout = "native"\n'
GPU = ["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_DRIVER_CAPABILITIES=compute"]
CUDA = f"libcuda.so.{VERSION}"
TRIPLET = "/usr/lib/x86_64-linux-gnu"


@pytest.fixture
def place(tmp_path):
    machine = workstation(tmp_path / "host")
    install(machine)
    machine.host()
    for path in machine.nodes:
        machine.write(path, "")
    place = Place(tmp_path, machine)
    for folder in ("etc", "lib64", "usr"):
        (place.rootfs / folder).mkdir()
    (place.rootfs / "lib64/ld-linux-x86-64.so.2").touch()
    return place


def image(place, path, content=b""):
    """Put a file into the image."""
    file = place.rootfs / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def given(place, monkeypatch, env=GPU, **options):
    """Return the destinations of the libraries, and the links by path."""
    from ocirt_hpc import stage

    monkeypatch.setattr(stage, "Host", lambda root: place.machine.host())
    made = place.ask(NATIVE, env=env, **options)
    mounts = {one["destination"]: one["source"] for one in made.config["mounts"]}
    return made, mounts, {path: target for path, target, _ in made.links}


@pytest.mark.parametrize(
    ("has", "folder"),
    [
        ((), "/usr/lib64"),
        (("/etc/debian_version",), TRIPLET),
        (("/usr/lib64/x",), "/usr/lib64"),
    ],
)
def test_the_folder_is_the_distributions(place, monkeypatch, has, folder):
    for path in has:
        image(place, path)
    made, mounts, links = given(place, monkeypatch)
    assert mounts[f"{folder}/{CUDA}"] == f"{place.machine.root}{TRIPLET}/{CUDA}"
    assert links[f"{folder}/libcuda.so.1"] == CUDA
    assert links[f"{folder}/libcuda.so"] == "libcuda.so.1"
    assert links[f"{folder}/gbm/nvidia-drm_gbm.so"] == "../libnvidia-allocator.so.1"
    assert f"{folder}/{CUDA}" in made.no_links
    assert "/run/ocirt/hpc" not in mounts


def test_the_loader_is_told(place, monkeypatch):
    from ocirt_hpc import ldcache

    image(place, "/etc/debian_version")
    made, mounts, _ = given(place, monkeypatch)
    assert "/etc/ld.so.cache" in mounts
    found = {one.name: one.path for one in ldcache.parse(made.tree.files["ld.so.cache"])}
    assert found["libcuda.so.1"] == f"{TRIPLET}/libcuda.so.1"


@pytest.mark.parametrize(("more", "folder"), [((), "/usr/lib"), (("/usr/lib32/x",), "/usr/lib32")])
def test_libraries_of_32_bits(place, monkeypatch, more, folder):
    data = library("libcuda.so.1", bits=32)
    place.machine.write(f"/usr/lib/i386-linux-gnu/{CUDA}", data)
    for path in more:
        image(place, path)
    env = ["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_DRIVER_CAPABILITIES=compute,compat32"]
    _, mounts, _ = given(place, monkeypatch, env)
    assert {f"/usr/lib64/{CUDA}", f"{folder}/{CUDA}"} <= mounts.keys()
    image(place, "/etc/debian_version")
    _, mounts, _ = given(place, monkeypatch, env)
    assert {f"{TRIPLET}/{CUDA}", f"/usr/lib/i386-linux-gnu/{CUDA}"} <= mounts.keys()


def test_a_folder_that_is_a_link_is_taken_where_it_leads(place, monkeypatch):
    (place.rootfs / "usr/lib").mkdir()
    (place.rootfs / "usr/lib64").symlink_to("../../../../usr/lib")
    _, mounts, links = given(place, monkeypatch)
    assert f"/usr/lib/{CUDA}" in mounts
    assert links["/usr/lib/libcuda.so.1"] == CUDA


def test_a_file_of_the_image_is_covered_and_stays(place, monkeypatch):
    file = image(place, "/usr/lib64/libcuda.so.1", b"the image's")
    stub = image(place, "/usr/lib64/libcuda.so", b"a stub")
    _, mounts, links = given(place, monkeypatch)
    source = f"{place.machine.root}{TRIPLET}/{CUDA}"
    assert (mounts["/usr/lib64/libcuda.so.1"], mounts[f"/usr/lib64/{CUDA}"]) == (source, source)
    assert not {"/usr/lib64/libcuda.so.1", "/usr/lib64/libcuda.so"} & links.keys()
    assert (file.read_bytes(), stub.read_bytes()) == (b"the image's", b"a stub")


@pytest.mark.parametrize("target", ["/bin/sh", "../../etc/shadow", "none"])
def test_nothing_is_mounted_through_a_link_of_the_image(place, monkeypatch, target):
    (place.rootfs / "usr/lib64").mkdir()
    (place.rootfs / "usr/lib64" / CUDA).symlink_to(target)
    sentence = f"the image's /usr/lib64/{CUDA} is a link, and nothing is mounted through it"
    with pytest.raises(ConfigError, match=sentence):
        given(place, monkeypatch)


def test_a_folder_that_leads_nowhere_is_refused(place, monkeypatch):
    (place.rootfs / "usr/lib64").symlink_to("/none")
    with pytest.raises(ConfigError, match="the image's /usr/lib64 is a link"):
        given(place, monkeypatch)


def test_another_runtime_and_an_image_without_room_get_the_private_layout(place, monkeypatch):
    from ocirt_hpc.image import Image

    made, mounts, _ = given(place, monkeypatch, foreign=True)
    assert f"/run/ocirt/hpc/lib64/{CUDA}" in mounts
    why = "it takes links, which another runtime does not make"
    assert ('nvidia.layout="native"', why) in [(row["from"], row["what"]) for row in made.report]
    image(place, "/run/x")
    monkeypatch.setattr(Image, "readonly", True)
    made, mounts, _ = given(place, monkeypatch)
    assert f"/run/ocirt/hpc/lib64/{CUDA}" in mounts
    assert "nothing can be added to the image" in [row["what"] for row in made.report]


def test_the_plan_walks_through_no_link(place, monkeypatch):
    from ocirt import plan
    from ocirt.plan.ops import NO_LINKS

    bare = {**BASE, "linux": {"namespaces": [{"type": "mount"}]}}
    made, _, _ = given(place, monkeypatch, config=bare)
    context = plan.Context(made.config, "x", str(place.path), str(place.rootfs))
    context.no_links = made.no_links
    binds = {op.args[2]: op.args[-1] for op in plan.compile(made.config, context)
             if op.name == "bind"}  # fmt: skip
    assert binds[f"/usr/lib64/{CUDA}"] & NO_LINKS
    assert not binds["/etc/ld.so.cache"] & NO_LINKS
