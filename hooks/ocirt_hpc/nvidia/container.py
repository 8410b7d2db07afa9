"""What a container needs for the GPUs that were chosen for it, as edits of its config.

Device nodes with their rules, the driver's files by capability in a place of their own, the links
that programs look for, and /proc/driver/nvidia with the chosen GPUs alone.

Libraries go to a place of their own (loader.py), one bind mount each, on a folder that the stage
makes: nothing of the image is covered, and it is the same for every distribution.
"""

from __future__ import annotations

from ocirt import jsonio
from ocirt import system as os
from ocirt.errors import ConfigError
from ocirt_hpc import loader
from ocirt_hpc.nvidia.driver import CONTROL, GPU_MAJOR, MODESET, PROC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ocirt_hpc.host import Host, Node
    from ocirt_hpc.ldcache import Entry
    from ocirt_hpc.nvidia.choice import Chosen
    from ocirt_hpc.nvidia.driver import Driver, Gpu
    from ocirt_hpc.nvidia.files import File
    from ocirt_hpc.nvidia.native import Native
    from ocirt_hpc.tree import Tree

# A socket must be writable to be connected to.
OPTIONS = {
    "library": loader.MAPPED,
    "program": loader.MAPPED,
    "config": ("bind", "ro", "nosuid", "nodev", "noexec", "private"),
    "firmware": ("bind", "ro", "nosuid", "nodev", "noexec", "private"),
    "socket": ("bind", "nosuid", "nodev", "noexec", "private"),
}

# link -> what has to be there for it, by the names of libraries
LINKS = {
    "libcuda.so": "libcuda.so.1",
    "libGLX_indirect.so.0": "libGLX_nvidia.so.0",
    "libnvidia-opticalflow.so": "libnvidia-opticalflow.so.1",
    "gbm/nvidia-drm_gbm.so": "libnvidia-allocator.so.1",
    "libnvidia-vulkan-producer.so": "libnvidia-vulkan-producer.so.",  # whichever version
}
XORG_MODULE = "libglxserver_nvidia.so"

GRAPHIC = {"graphics", "video", "display"}

CHANNELS = "/dev/nvidia-caps-imex-channels"
MANAGEMENT = ("config", "monitor")
PARAMS = f"{PROC}/params"
PROFILE = "/etc/nvidia/nvidia-application-profiles-rc.d/10-container.conf"
MOST_MINORS = 64


# --- device nodes


def nodes(driver: Driver, chosen: Iterable[Chosen], wanted: set[str]) -> list[Node]:
    """Return the device nodes for the chosen GPUs, each once.

    ConfigError names the kernel module that is not loaded, and the command that loads it.
    """
    found: dict[str, Node] = {}

    def add(path: str, major: int, minor: int, mode: int | None = None) -> None:
        found[path] = driver.node(path, major, minor, mode)

    for one in chosen:
        add(one.gpu.path, GPU_MAJOR, one.gpu.minor)
        if one.mig is not None:
            major = _major(driver, "nvidia-caps", "modprobe nvidia")
            for minor, mode in one.mig.caps:
                add(f"/dev/nvidia-caps/nvidia-cap{minor}", major, minor, mode)
        if wanted & GRAPHIC:
            for node in _drm(driver, one.gpu):
                found[node.path] = node
    add("/dev/nvidiactl", GPU_MAJOR, CONTROL)
    if "compute" in wanted and found:
        major = _major(driver, "nvidia-uvm", "nvidia-modprobe -u -c 0")
        add("/dev/nvidia-uvm", major, 0)
        add("/dev/nvidia-uvm-tools", major, 1)
    if wanted & {"graphics", "display"} and driver.host.exists("/sys/module/nvidia_modeset"):
        add("/dev/nvidia-modeset", GPU_MAJOR, MODESET)
    return list(found.values())


def channels(driver: Driver, ids: Iterable[str]) -> list[Node]:
    """Return the nodes of IMEX channels, by which GPUs of several nodes share memory."""
    found = []
    wanted = list(ids)
    if wanted == ["all"]:
        names = driver.host.dev_names(CHANNELS)
        wanted = [name.removeprefix("channel") for name in names if name.startswith("channel")]
        if not wanted:
            raise ConfigError(f"this host has no IMEX channel in {CHANNELS}")
    for text in wanted:
        if not (text.isascii() and text.isdecimal() and int(text) < 1 << 20):
            raise ConfigError(f'"{text}" is not an IMEX channel')
        major = driver.host.major("nvidia-caps-imex-channels")
        if major is None:
            raise ConfigError(f"IMEX channel {text}: the loaded NVIDIA driver has none")
        path = f"{CHANNELS}/channel{int(text)}"
        found.append(driver.node(path, major, int(text)))
    return found


def management(driver: Driver, words: Iterable[str]) -> list[Node]:
    """Return the nodes of the capabilities that MIG is managed by: config, monitor."""
    major = _major(driver, "nvidia-caps", "modprobe nvidia")
    found = []
    for word in words:
        if word not in MANAGEMENT:
            raise ConfigError(f'"{word}" is none of {", ".join(MANAGEMENT)}')
        minor, mode = driver.capability(word)
        found.append(driver.node(f"/dev/nvidia-caps/nvidia-cap{minor}", major, minor, mode))
    return found


def need(found: Iterable[Node]) -> None:
    """Refuse nodes that the host lacks, for a container that can only have the host's own.

    ConfigError names the first, and the command that makes it.
    """
    for node in found:
        if not node.there:
            raise ConfigError(
                node.path,
                "is not there, and without root's rights no device node can be made;"
                f" as root on the host: {_command(node)}",
            )


def _command(node: Node) -> str:
    """Return what makes a node on the host (nvidia-modprobe(1))."""
    name = os.path.basename(node.path)
    if name.startswith("nvidia-uvm"):
        return "nvidia-modprobe -u -c 0"
    if name == "nvidia-modeset":
        return "nvidia-modprobe -m"
    if name.startswith("nvidia-cap"):
        return f"nvidia-modprobe -f FILE, one of {PROC}/capabilities"
    if name.startswith("channel"):
        return f"mknod {node.path} c {node.major} {node.minor}"
    return f"nvidia-modprobe -c {node.minor}"


def _major(driver: Driver, name: str, command: str) -> int:
    major = driver.host.major(name)
    if major is None:
        raise ConfigError(f"/proc/devices: {name} is not there; as root on the host: {command}")
    return major


def _drm(driver: Driver, gpu: Gpu) -> list[Node]:
    """Return the GPU's nodes below /dev/dri, by the numbers that sysfs tells."""
    pci = driver.host.pci(gpu.address)
    found = []
    for name in pci.names("drm") if pci else ():
        numbers = driver.host.text(f"{pci.path}/drm/{name}/dev") if pci else None
        if numbers and name.startswith(("card", "renderD")):
            major, _, minor = numbers.partition(":")
            found.append(driver.node(f"/dev/dri/{name}", int(major), int(minor)))
    return found


def drm_links(driver: Driver, chosen: Iterable[Chosen]) -> dict[str, Any]:
    """Return the links that udev makes to the nodes below /dev/dri, by PCI address."""
    made = []
    for one in chosen:
        for node in _drm(driver, one.gpu):
            name = os.path.basename(node.path)
            kind = "card" if name.startswith("card") else "render"
            path = f"/dev/dri/by-path/pci-{one.gpu.address}-{kind}"
            made.append({"path": path, "target": f"../{name}"})
    return {"links": made}


# --- files


def file_edits(
    root: str, found: Iterable[File], tree: Tree, own: Native | None = None
) -> tuple[dict[str, Any], list[Entry]]:
    """Return the mounts of the driver's files, and what its libraries are to the loader.

    The folders of the libraries, and their links, go to `tree`, or to `own`: the image's folders.
    root: before each source.
    """
    mounts, entries, links = [], [], []
    for file in found:
        destination = file.destination
        if file.name.startswith(f"{XORG_MODULE}."):
            path = f"{os.path.dirname(destination)}/{XORG_MODULE}"
            links.append({"path": path, "target": file.name})
        options = list(OPTIONS[file.kind])
        entry = None
        if file.kind == "library" and not destination:
            below = "vdpau/" if "/vdpau/" in file.source else ""
            if own is not None:
                made, entry = own.put(file, root + file.source, options, below)
                mounts += made
            else:
                destination, entry = loader.put(
                    tree, file.name, file.soname, file.bits, file.entry, below
                )
            if entry is not None:
                entries.append(entry)
        if destination:
            mounts.append(
                {"containerPath": destination, "hostPath": root + file.source, "options": options}
            )
    if own is not None:
        for folder in own.folders:
            for link, target in _links(own.names(folder)):
                own.link(f"{folder}/{link}", target)
        links += [{"path": path, "target": target} for path, target in own.links.items()]
    for folder in loader.FOLDERS.values():
        start = f"{folder}/"
        held = sorted(tree.files.keys() | tree.links.keys())
        for link, target in _links([one[len(start) :] for one in held if one.startswith(start)]):
            tree.link(start + link, target)
    return {"mounts": mounts, "links": links}, entries


def _links(held: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the links of LINKS, and where they lead, that a folder with these names lacks."""
    for link, wanted in LINKS.items():
        fitting = [
            name
            for name in held
            if name == wanted or (wanted.endswith(".") and name.startswith(wanted))
        ]
        if fitting and link not in held:
            yield link, "../" * link.count("/") + fitting[0]


def proc_edits(
    driver: Driver, chosen: Iterable[Chosen], tree: Tree, managed: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the mount that shows /proc/driver/nvidia with the chosen GPUs alone.

    ModifyDeviceFiles is 0 in it: the driver's libraries must not try to make nodes.
    """
    base = "proc-driver-nvidia"
    source = tree.folder(base)
    for name in ("version", "registry"):
        _copy(driver, name, f"{base}/{name}", tree)
    text = params(driver.host)
    if text is not None:
        tree.file(f"{base}/params", text.encode())
    tree.folder(f"{base}/gpus")
    for one in chosen:
        folder = f"gpus/{one.gpu.folder}"
        for name in driver.host.names(f"{PROC}/{folder}"):
            _copy(driver, f"{folder}/{name}", f"{base}/{folder}/{name}", tree)
        if one.mig is not None:
            above = f"capabilities/gpu{one.gpu.minor}/mig/gi{one.mig.gi}"
            for name in (f"{above}/access", f"{above}/ci{one.mig.ci}/access"):
                _copy(driver, name, f"{base}/{name}", tree)
    for word in managed:
        _copy(driver, f"capabilities/mig/{word}", f"{base}/capabilities/mig/{word}", tree)
    mount = {
        "containerPath": PROC,
        "hostPath": source,
        "options": ["bind", "ro", "nosuid", "nodev", "noexec", "private"],
    }
    return {"mounts": [mount]}


def params(host: Host) -> str | None:
    """Return the driver's parameters for a container, or None when there are none."""
    text = host.text(PARAMS)
    return text and text.replace("ModifyDeviceFiles: 1", "ModifyDeviceFiles: 0") + "\n"


def profile_edits(minors: Iterable[int], tree: Tree) -> dict[str, Any]:
    """Return the mount that has EGL and Vulkan see the GPUs with these minors alone.

    Source: driver README, "Application Profiles"; libnvidia-container and nvidia-cdi-hook write
    the same.
    """
    mask = sum(1 << minor for minor in {*minors} if 0 <= minor < MOST_MINORS)
    if not mask:
        return {}
    profile = {"name": "_container_", "settings": ["EGLVisibleDGPUDevices", mask]}
    rule: dict[str, Any] = {"pattern": [], "profile": profile["name"]}
    text = jsonio.dumps({"profiles": [profile], "rules": [rule]})
    source = tree.file("nvidia-application-profile", f"{text}\n".encode())
    options = list(OPTIONS["config"])
    return {"mounts": [{"containerPath": PROFILE, "hostPath": source, "options": options}]}


def _copy(driver: Driver, name: str, path: str, tree: Tree) -> None:
    text = driver.host.text(f"{PROC}/{name}")
    if text is not None:
        tree.file(path, f"{text}\n".encode())
