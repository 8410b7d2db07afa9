"""From a request in the environment to edits: nodes, files, loader, procfs."""

from __future__ import annotations

import struct

import pytest
from ocirt_hpc import edits, ldcache, loader
from ocirt_hpc.image import Image
from ocirt_hpc.notes import Notes
from ocirt_hpc.nvidia import compat, container, driver, policy, request, stage
from ocirt_hpc.nvidia.choice import choose
from ocirt_hpc.nvidia.policy import Policy
from ocirt_hpc.request import Asked
from ocirt_hpc.tree import Tree

from ocirt.errors import ConfigError, KernelError
from tests.unit.hpc.machines import UUID, VERSION, Machine, eight, install, library, workstation
from tests.unit.hpc.sites import Place


def config(*env):
    return {"process": {"env": list(env)}}


def nodes(machine, *names, wanted=("compute", "utility")):
    loaded = driver.find(machine.host())
    found = container.nodes(loaded, choose(loaded, names), set(wanted))
    return {node.path: (node.major, node.minor) for node in found}


@pytest.fixture
def rootfs(tmp_path):
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "lib64").mkdir()
    (root / "lib64/ld-linux-x86-64.so.2").touch()
    return root


def sections(machine, rootfs, *env):
    asked = request.find(config(*env), Notes(), Policy())
    tree, libraries = Tree("/state/hpc"), loader.Libraries()
    with Image(str(rootfs)) as image:
        made, _ = stage.sections(asked, machine.host(), image, tree, Notes(), libraries)
        if libraries.folders:
            way = loader.tell(image, libraries.entries, libraries.folders, tree)
            made.append((libraries.origin, way.edits))
    return made, tree


# --- requests


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ([], None),
        (["NVIDIA_VISIBLE_DEVICES="], None),
        (["NVIDIA_VISIBLE_DEVICES=void"], None),
        (["NVIDIA_VISIBLE_DEVICES=void", "CUDA_VERSION=11.0"], None),
        (["NVIDIA_VISIBLE_DEVICES=none"], ["none"]),
        (["NVIDIA_VISIBLE_DEVICES=0, 1"], ["0", "1"]),
        (["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=all"], ["all"]),
        (["CUDA_VERSION=11.4.3"], ["all"]),
        (["CUDA_VERSION=12.0.0", "NVIDIA_REQUIRE_CUDA=cuda>=12.0"], None),
    ],
)
def test_the_environment_asks(env, names):
    asked = request.find(config(*env), Notes(), Policy())
    assert (asked and asked.asked.names) == names


def test_an_old_image_asks_for_everything_and_its_cuda():
    asked = request.find(config("CUDA_VERSION=11.4.3"), Notes(), Policy())
    assert (asked.capabilities, asked.asked.explicit) == (["all"], False)
    assert asked.requirements == {"NVIDIA_REQUIRE_CUDA": "cuda>=11.4"}


def test_an_annotation_decides_before_the_environment():
    base = {**config("NVIDIA_VISIBLE_DEVICES=all"), "annotations": {"ocirt.hpc/gpus": "1"}}
    asked = request.find(base, Notes(), Policy(), env_requests=False)
    assert (asked.asked.names, asked.asked.where) == (["1"], "annotations.ocirt.hpc/gpus")
    assert (
        request.find(config("NVIDIA_VISIBLE_DEVICES=all"), Notes(), Policy(), env_requests=False)
        is None
    )


def test_requirements_can_be_disabled():
    env = ["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_REQUIRE_CUDA=cuda>=99"]
    assert request.find(config(*env), Notes(), Policy()).requirements
    assert not request.find(
        config(*env, "NVIDIA_DISABLE_REQUIRE=true"), Notes(), Policy()
    ).requirements


def test_the_site_limits_capabilities():
    asked = request.find(
        config("NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_DRIVER_CAPABILITIES=all"), Notes(), Policy()
    )
    asked.limit(["compute", "utility"])
    assert asked.capabilities == ["compute", "utility"]
    asked.capabilities = ["graphics"]
    with pytest.raises(ConfigError, match='the site does not allow "graphics"'):
        asked.limit(["compute"])


# --- nodes


def test_nodes_by_what_is_wanted(tmp_path):
    machine = eight(tmp_path)
    control = {"/dev/nvidiactl": (195, 255)}
    uvm = {"/dev/nvidia-uvm": (510, 0), "/dev/nvidia-uvm-tools": (510, 1)}
    assert nodes(machine, "0") == {"/dev/nvidia2": (195, 2), **control, **uvm}
    assert nodes(machine, "0", wanted=["utility"]) == {"/dev/nvidia2": (195, 2), **control}


def test_graphics_wants_the_nodes_of_drm(tmp_path):
    machine = workstation(tmp_path)
    path = "/sys/bus/pci/devices/0000:65:00.0/drm"
    machine.write(f"{path}/card1/dev", "226:1\n")
    machine.write(f"{path}/renderD128/dev", "226:128\n")
    assert "/dev/dri/card1" not in nodes(machine, "0")
    found = nodes(machine, "0", wanted=["graphics"])
    assert (found["/dev/dri/card1"], found["/dev/dri/renderD128"]) == ((226, 1), (226, 128))


def test_graphics_has_the_links_of_udev_and_a_profile(tmp_path, rootfs):
    machine = workstation(tmp_path / "host")
    install(machine)
    path = "/sys/bus/pci/devices/0000:65:00.0/drm"
    machine.write(f"{path}/card1/dev", "226:1\n")
    machine.write(f"{path}/renderD128/dev", "226:128\n")
    env = ["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_DRIVER_CAPABILITIES=graphics"]
    made, tree = sections(machine, rootfs, *env)
    links = [link for _, section in made for link in section.get("links", ())]
    assert {link["path"]: link["target"] for link in links} == {
        "/dev/dri/by-path/pci-0000:65:00.0-card": "../card1",
        "/dev/dri/by-path/pci-0000:65:00.0-render": "../renderD128",
    }
    assert b'"EGLVisibleDGPUDevices",1]' in tree.files["nvidia-application-profile"]
    made, tree = sections(machine, rootfs, env[0])
    assert not any(section.get("links") for _, section in made)
    assert "nvidia-application-profile" not in tree.files


def test_a_module_that_is_not_loaded_is_named_with_the_command(tmp_path):
    machine = workstation(tmp_path)
    del machine.devices["nvidia-uvm"]
    with pytest.raises(ConfigError, match=r"nvidia-uvm is not there; as root.*nvidia-modprobe -u"):
        nodes(machine, "0")


def test_the_group_that_may_use_a_node_is_added(tmp_path):
    machine = workstation(tmp_path)
    machine.write("/proc/driver/nvidia/params", "DeviceFileGID: 44\nDeviceFileMode: 432\n")
    machine.nodes.clear()
    loaded = driver.find(machine.host())
    made = edits.node_edits(container.nodes(loaded, choose(loaded, ["0"]), {"utility"}))
    assert made["additionalGids"] == [44]
    assert {node["permissions"] for node in made["deviceNodes"]} == {"rw"}


def test_channels(tmp_path):
    machine = workstation(tmp_path)
    machine.devices["nvidia-caps-imex-channels"] = 240
    (node,) = container.channels(driver.find(machine.host()), ["7"])
    assert (node.path, node.major, node.minor) == (
        "/dev/nvidia-caps-imex-channels/channel7", 240, 7,
    )  # fmt: skip
    with pytest.raises(ConfigError, match='"x" is not an IMEX channel'):
        container.channels(driver.find(machine.host()), ["x"])


def test_channels_are_asked_for_as_gpus_are():
    env = ["NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_IMEX_CHANNELS=0,1"]
    assert request.find(config(*env), Notes(), Policy()).channels.names == ["0", "1"]
    noted = {**config(*env), "annotations": {"ocirt.hpc/gpus": "0"}}
    notes = Notes()
    assert request.find(noted, notes, Policy(), env_requests=False).channels is None
    assert notes.left_out[0][0] == "NVIDIA_IMEX_CHANNELS"
    noted["annotations"]["ocirt.hpc/imex"] = "2"
    assert request.find(noted, Notes(), Policy(), env_requests=False).channels.names == ["2"]
    told = Policy()
    told.env = False
    del noted["annotations"]["ocirt.hpc/imex"]
    assert request.find(noted, Notes(), told).channels is None


def test_mig_is_managed_where_the_site_lets_annotations_ask(tmp_path):
    machine = workstation(tmp_path / "host")
    install(machine)
    machine.mig(0, 1)
    machine.write("/proc/driver/nvidia/capabilities/mig/config", "DeviceFileMode: 256\n")
    machine.host()
    place = Place(tmp_path, machine)
    asked = {"annotations": {"ocirt.hpc/gpus": "all", "ocirt.hpc/mig-management": "config"}}
    with pytest.raises(ConfigError, match=r"mig-management: not allowed \(nvidia.mig-man"):
        place.ask("", **asked)
    allowed = "[nvidia]\nmig-management = true\n"
    made = place.ask(allowed, **asked)
    (node,) = [one for one in made.config["linux"]["devices"] if one["path"].endswith("cap1")]
    assert (node["major"], node["minor"], node["fileMode"]) == (236, 1, 0o400)
    asked["annotations"]["ocirt.hpc/mig-management"] = "all"
    with pytest.raises(ConfigError, match='mig-management: "all" is none of config, monitor'):
        place.ask(allowed, **asked)
    made = place.ask(allowed, env=["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_MIG_CONFIG_DEVICES=all"])
    assert not [one for one in made.config["linux"]["devices"] if one["path"].endswith("cap1")]
    assert [row["from"] for row in made.report if row["allowed"] == "left out"] == [
        "NVIDIA_MIG_CONFIG_DEVICES"
    ]


@pytest.mark.parametrize(
    ("how", "cache", "variable"),
    [("cache", True, False), ("env", False, True), ("both", True, True), ("none", False, False)],
)
def test_the_site_says_how_programs_find_the_libraries(tmp_path, rootfs, how, cache, variable):
    machine = workstation(tmp_path / "host")
    install(machine)
    machine.host()
    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place", machine)
    place.rootfs = rootfs
    made = place.ask(f'[stage]\nloader = "{how}"\n', env=["NVIDIA_VISIBLE_DEVICES=0"])
    assert ("ld.so.cache" in made.tree.files) is cache
    assert ("LD_LIBRARY_PATH=/run/ocirt/hpc/lib64" in made.config["process"]["env"]) is variable


# --- procfs


def test_procfs_shows_the_chosen_gpus_alone(tmp_path):
    machine = eight(tmp_path)
    machine.mig(2, 9)
    loaded = driver.find(machine.host())
    tree = Tree("/state/hpc")
    chosen = choose(loaded, [f"MIG-{UUID.format(2)}/9/0", "1"])
    (mount,) = container.proc_edits(loaded, chosen, tree)["mounts"]
    assert mount["hostPath"] == "/state/hpc/proc-driver-nvidia"
    base = "proc-driver-nvidia"
    assert sorted(tree.files) == [
        f"{base}/capabilities/gpu2/mig/gi9/access",
        f"{base}/capabilities/gpu2/mig/gi9/ci0/access",
        f"{base}/gpus/0000:07:00.0/information",
        f"{base}/gpus/0000:27:00.0/information",
        f"{base}/params",
        f"{base}/version",
    ]
    assert b"ModifyDeviceFiles: 0" in tree.files[f"{base}/params"]


# --- the whole way


def test_every_edit_has_what_asked_for_it_as_origin(tmp_path, rootfs):
    machine = eight(tmp_path / "host")
    install(machine)
    made, tree = sections(machine, rootfs, "NVIDIA_VISIBLE_DEVICES=0")
    assert {origin for origin, _ in made} == {"NVIDIA_VISIBLE_DEVICES=0"}
    mounts = [mount for _, section in made for mount in section.get("mounts", ())]
    where = {mount["containerPath"]: mount["hostPath"] for mount in mounts}
    library = f"libcuda.so.{VERSION}"
    root = machine.root
    assert where["/run/ocirt/hpc"] == "/state/hpc"
    assert where[f"/run/ocirt/hpc/lib64/{library}"] == f"{root}/usr/lib/x86_64-linux-gnu/{library}"
    assert where["/etc/ld.so.cache"] == "/state/hpc/ld.so.cache"
    assert tree.links["lib64/libcuda.so.1"] == library
    assert tree.links["lib64/libcuda.so"] == "libcuda.so.1"
    names = {one.name: one.path for one in ldcache.parse(tree.files["ld.so.cache"])}
    assert names["libcuda.so.1"] == "/run/ocirt/hpc/lib64/libcuda.so.1"


def test_no_driver_is_an_error_only_for_named_devices(tmp_path, rootfs):
    machine = Machine(tmp_path / "host")
    assert sections(machine, rootfs, "NVIDIA_VISIBLE_DEVICES=all")[0] == []
    with pytest.raises(ConfigError, match="VISIBLE_DEVICES=0: no NVIDIA driver is loaded"):
        sections(machine, rootfs, "NVIDIA_VISIBLE_DEVICES=0")


# --- a driver whose files are elsewhere, nodes that are not there


def test_the_drivers_files_can_be_elsewhere(tmp_path, rootfs):
    machine = workstation(tmp_path / "host")
    elsewhere = Machine(machine.root / "run/nvidia/driver")
    install(elsewhere)
    asked = request.find(config("NVIDIA_VISIBLE_DEVICES=0"), Notes(), Policy())
    asked.driver_root = "/run/nvidia/driver"
    tree, libraries = Tree("/state/hpc"), loader.Libraries()
    with Image(str(rootfs)) as image:
        made, _ = stage.sections(asked, machine.host(), image, tree, Notes(), libraries)
    mounts = {
        one["containerPath"]: one["hostPath"] for _, held in made for one in held.get("mounts", ())
    }
    library = f"libcuda.so.{VERSION}"
    source = f"/usr/lib/x86_64-linux-gnu/{library}"
    assert mounts[f"/run/ocirt/hpc/lib64/{library}"] == f"{elsewhere.root}{source}"
    assert mounts["/usr/bin/nvidia-smi"] == f"{elsewhere.root}/usr/bin/nvidia-smi"
    nodes = [one["path"] for _, held in made for one in held.get("deviceNodes", ())]
    assert "/dev/nvidia0" in nodes
    asked.driver_root = "/nowhere"
    with (
        Image(str(rootfs)) as image,
        pytest.raises(ConfigError, match=r"no library of the loaded.* below .*/host/nowhere"),
    ):
        stage.sections(asked, machine.host(), image, tree, Notes(), libraries)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/dev/nvidia0", "nvidia-modprobe -c 0"),
        ("/dev/nvidiactl", "nvidia-modprobe -c 255"),
        ("/dev/nvidia-uvm", "nvidia-modprobe -u -c 0"),
        ("/dev/nvidia-uvm-tools", "nvidia-modprobe -u -c 0"),
    ],
)
def test_who_cannot_make_nodes_is_told_who_can(tmp_path, rootfs, path, command):
    machine = workstation(tmp_path / "host")
    install(machine)
    del machine.nodes[path]
    asked = request.find(config("NVIDIA_VISIBLE_DEVICES=0"), Notes(), Policy())
    with Image(str(rootfs)) as image:
        given = (image, Tree("/state/hpc"), Notes(), loader.Libraries())
        assert stage.sections(asked, machine.host(), *given)[0]
        asked.new_nodes = False
        with pytest.raises(ConfigError) as caught:
            stage.sections(asked, machine.host(), *given)
    said = str(caught.value)
    assert said.startswith(f"process.env: NVIDIA_VISIBLE_DEVICES=0: {path}: is not there, and")
    assert said.endswith(f"as root on the host: {command}")


# --- the loader


def tell(rootfs, **options):
    tree = Tree("/state/hpc")
    entries = [ldcache.Entry("libcuda.so.1", "/run/x/libcuda.so.1", 0x303)]
    with Image(str(rootfs)) as image:
        return loader.tell(image, entries, ["/run/x"], tree, **options), tree


def test_a_broken_cache_of_the_image_is_left_out(rootfs):
    (rootfs / "etc/ld.so.cache").write_bytes(b"\xff" * 100)
    way, tree = tell(rootfs)
    assert way.how == "cache"
    assert [one.name for one in ldcache.parse(tree.files["ld.so.cache"])] == ["libcuda.so.1"]


def test_musl_searches_its_own_places_first(rootfs):
    (rootfs / "lib").mkdir()
    (rootfs / "lib/ld-musl-x86_64.so.1").touch()
    way, tree = tell(rootfs)
    assert way.how == "path"
    assert way.edits["mounts"][0]["containerPath"] == "/etc/ld-musl-x86_64.path"
    assert tree.files["ld-musl.path"] == b"/lib:/usr/local/lib:/usr/lib\n/run/x\n"
    (rootfs / "etc/ld-musl-x86_64.path").write_text("/opt/lib\n")
    assert tell(rootfs)[1].files["ld-musl.path"] == b"/opt/lib\n/run/x\n"


def test_where_no_file_can_be_laid_over_the_environment_has_to_do(rootfs):
    way, tree = tell(rootfs, room=lambda path: False)
    assert (way.how, way.edits) == ("env", {"envAppend": ["LD_LIBRARY_PATH=/run/x"]})
    assert not tree
    (rootfs / "etc/ld.so.cache").touch()
    assert tell(rootfs, room=lambda path: path == loader.CACHE)[0].how == "cache"


def test_a_static_image_needs_nothing(rootfs):
    (rootfs / "lib64/ld-linux-x86-64.so.2").unlink()
    assert tell(rootfs)[0].how == "none"


# --- the tree


def test_the_tree_is_made_as_it_was_told(tmp_path):
    tree = Tree(str(tmp_path / "hpc"))
    assert tree.file("a/b/c", b"text") == f"{tmp_path}/hpc/a/b/c"
    tree.link("a/link", "b/c")
    tree.folder("d")
    tree.write()
    assert (tmp_path / "hpc/a/link").read_bytes() == b"text"
    assert (tmp_path / "hpc/d").is_dir()
    with pytest.raises(KernelError, match="file exists"):
        tree.write()


# --- a newer libcuda of the image


def note(payload):
    """Return a library with the note that says what it is made for."""
    body = library("libcuda.so.1")
    owner, text = b"NVIDIA Corporation\0", payload.encode()
    data = struct.pack("<3I", len(owner), len(text), 1) + owner + bytes(-len(owner) % 4) + text
    names = b"\0.shstrtab\0.note.cuda.fwd_compatibility\0"
    at = len(body)
    headers = at + len(data) + len(names)
    sections = [
        struct.pack("<2I4Q2I2Q", *fields)
        for fields in (
            (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
            (1, 3, 0, 0, at + len(data), len(names), 0, 0, 1, 0),
            (11, 7, 0, 0, at, len(data), 0, 0, 4, 0),
        )
    ]
    head = bytearray(body)
    struct.pack_into("<Q", head, 40, headers)
    struct.pack_into("<3H", head, 58, 64, 3, 1)
    return bytes(head) + data + names + b"".join(sections)


@pytest.mark.parametrize(
    ("version", "payload", "used"),
    [
        ("560.28.03", None, True),
        ("545.1", None, False),
        ("550.90.07", None, False),  # the same branch, and no word
        ("560.28.03", '{"Format": 1, "Driver": [535, 550]}', True),
        ("560.28.03", '{"Driver": [535]}', False),
        ("550.40.07", '{"Driver": [550]}', False),  # older than the host's
        ("560.28.03", '{"Driver": 550}', False),
        ("560.28.03", "[", False),
    ],
)
def test_a_newer_libcuda_of_the_image(rootfs, version, payload, used):
    folder = rootfs / "usr/local/cuda-12.6/compat"
    folder.mkdir(parents=True)
    (rootfs / "usr/local/cuda").symlink_to("/usr/local/cuda-12.6")
    made = library("libcuda.so.1") if payload is None else note(payload)
    (folder / f"libcuda.so.{version}").write_bytes(made)
    (folder / f"libnvidia-nvvm.so.{version}").write_bytes(library("libnvidia-nvvm.so.4"))
    (folder / "libcuda.so.1").symlink_to(f"libcuda.so.{version}")
    with Image(str(rootfs)) as image:
        found = compat.find(image, VERSION)
    base = "/usr/local/cuda/compat"
    assert [(one.name, one.path) for one in found] == (
        [
            ("libcuda.so.1", f"{base}/libcuda.so.{version}"),
            ("libnvidia-nvvm.so.4", f"{base}/libnvidia-nvvm.so.{version}"),
        ]
        if used
        else []
    )


def test_the_images_libcuda_comes_before_the_drivers(tmp_path, rootfs):
    machine = eight(tmp_path / "host")
    install(machine)
    folder = rootfs / "usr/local/cuda/compat"
    folder.mkdir(parents=True)
    (folder / "libcuda.so.560.28.03").write_bytes(library("libcuda.so.1"))
    _, tree = sections(machine, rootfs, "NVIDIA_VISIBLE_DEVICES=0")
    paths = {one.name: one.path for one in ldcache.parse(tree.files["ld.so.cache"])}
    assert paths["libcuda.so.1"] == "/usr/local/cuda/compat/libcuda.so.560.28.03"
    assert paths["libnvidia-ml.so.1"] == "/run/ocirt/hpc/lib64/libnvidia-ml.so.1"


def test_a_compat_that_leads_outside_is_nothing(rootfs):
    (rootfs / "usr/local").mkdir(parents=True)
    (rootfs / "usr/local/cuda").symlink_to("/../../../../../usr/local/cuda")
    with Image(str(rootfs)) as image:
        assert compat.find(image, VERSION) == []


# --- what the site has told NVIDIA's toolkit


def toolkit(machine, text):
    machine.write("/etc/nvidia-container-runtime/config.toml", text)
    return policy.load(machine.host())


ENV = "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n"


def test_only_privileged_containers_may_ask_by_variable(tmp_path):
    told = toolkit(Machine(tmp_path), ENV + "[nvidia-container-cli]\nload-kmods = true\n")
    base = config("NVIDIA_VISIBLE_DEVICES=0")
    notes = Notes()
    assert request.find(base, notes, told) is None
    assert "lets no variable ask for GPUs" in notes.left_out[0][1]
    base["annotations"] = {"ocirt.hpc/gpus": "1"}
    assert request.find(base, Notes(), told).asked.names == ["1"]
    del base["annotations"]
    base["process"]["capabilities"] = {"bounding": ["CAP_SYS_ADMIN"]}
    assert request.find(base, Notes(), told).asked.names == ["0"]


def test_mounts_ask_where_the_toolkit_takes_them(tmp_path):
    told = toolkit(Machine(tmp_path), "accept-nvidia-visible-devices-as-volume-mounts = true\n")
    base = config("NVIDIA_VISIBLE_DEVICES=all")
    place = "/var/run/nvidia-container-devices"
    base["mounts"] = [
        {"destination": f"{place}/GPU-1", "source": "/dev/null"},
        {"destination": f"{place}/3", "source": "/dev/null"},
        {"destination": f"{place}/no", "source": "/etc"},
    ]
    assert request.find(base, Notes(), told).asked.names == ["GPU-1", "3"]
    for name in ("imex/7", "cdi/nvidia.com/gpu/5", "cdi/nvidia.com/gpu=6"):
        base["mounts"].append({"destination": f"{place}/{name}", "source": "/dev/null"})
    found = request.find(base, Notes(), told)
    assert (found.asked.names, found.channels.names) == (["GPU-1", "3", "5", "6"], ["7"])
    assert request.find(base, Notes(), Policy()).asked.names == ["all"]


def test_swarm_and_capabilities_and_requirements(tmp_path):
    told = toolkit(
        Machine(tmp_path),
        'swarm-resource = "DOCKER_RESOURCE_GPU,DOCKER_RESOURCE_MIG"\n'
        'supported-driver-capabilities = "compute,utility"\ndisable-require = true\n',
    )
    env = ["DOCKER_RESOURCE_GPU=GPU-1", "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_REQUIRE_CUDA=cuda>99"]
    found = request.find(config(*env, "NVIDIA_DRIVER_CAPABILITIES=all"), Notes(), told)
    assert found.asked.names == ["GPU-1"]
    assert (found.capabilities, found.requirements) == (["compute", "utility"], {})
    with pytest.raises(ConfigError, match=r'"graphics" \(supported-driver-capabilities in /etc'):
        request.find(config(*env, "NVIDIA_DRIVER_CAPABILITIES=graphics"), Notes(), told)


def test_more_of_what_the_toolkit_was_told(tmp_path):
    told = toolkit(
        Machine(tmp_path),
        "[features]\nignore-imex-channel-requests = true\n"
        "no-additional-gids-for-device-nodes = true\n"
        '[nvidia-container-cli]\nroot = "/run/nvidia/driver"\n'
        '[nvidia-container-runtime.modes.legacy]\ncuda-compat-mode = "disabled"\n',
    )
    notes = Notes()
    found = request.find(config("NVIDIA_VISIBLE_DEVICES=0", "NVIDIA_IMEX_CHANNELS=0"), notes, told)
    assert (found.channels, found.gids, found.compat) == (None, False, False)
    assert found.driver_root == "/run/nvidia/driver"
    assert notes.left_out[0][0] == "NVIDIA_IMEX_CHANNELS"
    told = toolkit(Machine(tmp_path), "[features]\ndisable-cuda-compat-lib-hook = true\n")
    assert not request.find(config("NVIDIA_VISIBLE_DEVICES=0"), Notes(), told).compat


def test_what_the_toolkit_was_told_by_anybody_does_not_count(tmp_path):
    machine = Machine(tmp_path)
    toolkit(machine, "disable-require = true\n")
    (tmp_path / "etc/nvidia-container-runtime/config.toml").chmod(0o666)
    with pytest.raises(ConfigError, match=r"config.toml: .*has to belong to root"):
        policy.load(machine.host())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("features = 1\n", "config.toml: features: expected a table"),
        (
            "[features]\nno-additional-gids-for-device-nodes = 1\n",
            "features.no-add.*: expected true",
        ),
        ("x = ", "config.toml: "),
        ("disable-require = 1\n", "disable-require: expected true or false"),
    ],
)
def test_a_broken_config_of_the_toolkit_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        toolkit(Machine(tmp_path), text)


@pytest.mark.parametrize("value", ["nvidia.com/gpu=1", "runtime.nvidia.com/gpu=1", "1"])
def test_names_of_cdi_need_no_cdi_file(value):
    found = request.find(config(f"NVIDIA_VISIBLE_DEVICES={value}"), Notes(), Policy())
    assert found.asked.names == ["1"]


def test_the_command_line_decides_before_all(tmp_path):
    base = {**config("NVIDIA_VISIBLE_DEVICES=all"), "annotations": {"ocirt.hpc/gpus": "1"}}
    found = request.find(base, Notes(), Policy(), by_name=Asked("nvidia.com/gpu=0", "", "--device"))
    assert (found.asked.names, found.asked.where) == (["0"], "--device")
