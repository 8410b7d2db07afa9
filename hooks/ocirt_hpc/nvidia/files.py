"""The NVIDIA driver's files on the host, each with the capability that asks for it.

    files.find(host, "550.54.15", {"compute", "utility"})

Libraries are those that carry the version of the loaded driver, next to its libcuda or
libnvidia-ml; each belongs to the capability of its name in LIBRARIES, and one that no row knows
goes in with `all` alone.  A new library of the driver is one more word in a row.

Source: the driver's README, "Installed Components"; nvidia-container-toolkit and libnvidia-
container know the same names.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError, KernelError
from ocirt_hpc import elf, ldcache
from ocirt_hpc.nvidia.driver import USUAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ocirt_hpc.host import Host
    from ocirt_hpc.nvidia.driver import Places

# NVIDIA_DRIVER_CAPABILITIES, user guide, "Driver Capabilities".
CAPABILITIES = ("compute", "compat32", "graphics", "utility", "video", "display", "ngx")

# Some capabilities are worth nothing without others.
IMPLIED = {"video": "compute", "display": "graphics"}

# capability -> libraries, by the name before .so
LIBRARIES = {
    "utility": "libnvidia-ml libnvidia-cfg libnvidia-nscq",
    "compute": "libcuda libcudadebugger libnvidia-opencl libnvidia-gpucomp libnvidia-ptxjitcompiler"
    " libnvidia-fatbinaryloader libnvidia-allocator libnvidia-compiler libnvidia-pkcs11"
    " libnvidia-pkcs11-openssl3 libnvidia-nvvm libnvidia-nvvm70 libnvidia-tileiras",
    "video": "libvdpau_nvidia libnvidia-encode libnvidia-opticalflow libnvcuvid",
    "graphics": "libnvidia-eglcore libnvidia-glcore libnvidia-tls libnvidia-glsi libnvidia-fbc"
    " libnvidia-ifr libnvidia-rtcore libnvoptix libGLX_nvidia libEGL_nvidia libGLESv1_CM_nvidia"
    " libGLESv2_nvidia libnvidia-glvkspirv libnvidia-cbl libnvidia-egl-gbm libnvidia-egl-wayland"
    " libnvidia-egl-wayland2 libnvidia-egl-xcb libnvidia-egl-xlib libnvidia-vulkan-producer"
    " libnvidia-gpucomp libnvidia-allocator",
    "display": "libglxserver_nvidia nvidia_drv",
    "ngx": "libnvidia-ngx",
}

# Without these the capability is worth nothing.
MAIN = {"compute": "libcuda", "utility": "libnvidia-ml"}

# Those that are released on their own: their version is not the driver's.
OWN_VERSION = (
    "libnvidia-egl-gbm", "libnvidia-egl-wayland", "libnvidia-egl-wayland2", "libnvidia-egl-xcb",
    "libnvidia-egl-xlib",
)  # fmt: skip

PROGRAMS = {
    "utility": "nvidia-smi nvidia-debugdump nvidia-persistenced nv-fabricmanager",
    "compute": "nvidia-cuda-mps-control nvidia-cuda-mps-server nvidia-imex nvidia-imex-ctl",
    "display": "nvidia-xconfig",
}

# Found in the first of DATA that has it; in the container always where the row says.
DATA = ("/etc", "/usr/local/share", "/usr/share")
CONFIGS = (
    # capability  below DATA                                            below, in the container
    ("graphics", "glvnd/egl_vendor.d/10_nvidia.json",                    "/usr/share"),
    ("graphics", "egl/egl_external_platform.d/15_nvidia_gbm.json",       "/usr/share"),
    ("graphics", "egl/egl_external_platform.d/10_nvidia_wayland.json",   "/usr/share"),
    ("graphics", "egl/egl_external_platform.d/09_nvidia_wayland2.json",  "/usr/share"),
    ("graphics", "egl/egl_external_platform.d/20_nvidia_xcb.json",       "/usr/share"),
    ("graphics", "egl/egl_external_platform.d/20_nvidia_xlib.json",      "/usr/share"),
    ("graphics", "vulkan/icd.d/nvidia_icd.json",                         "/etc"),
    ("graphics", "vulkan/icd.d/nvidia_icd.x86_64.json",                  "/etc"),
    ("graphics", "vulkan/icd.d/nvidia_icd.aarch64.json",                 "/etc"),
    ("graphics", "vulkan/icd.d/nvidia_layers.json",                      "/etc"),
    ("graphics", "vulkan/implicit_layer.d/nvidia_layers.json",           "/etc"),
    ("graphics", "nvidia/nvoptix.bin",                                   "/usr/share"),
    ("display",  "X11/xorg.conf.d/10-nvidia.conf",                       "/usr/share"),
    ("display",  "X11/xorg.conf.d/nvidia-drm-outputclass.conf",          "/usr/share"),
    ("compute",  "OpenCL/vendors/nvidia.icd",                            "/etc"),
)  # fmt: skip

SOCKETS = {
    "utility": ("/run/nvidia-persistenced/socket", "/run/nvidia-fabricmanager/socket"),
}

# Where drivers install libraries, by how often they do.
TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "i386-linux-gnu")
FOLDERS = (
    "/usr/lib64",
    *(f"/usr/lib/{triplet}" for triplet in TRIPLETS),
    *(f"/usr/lib/{triplet}/nvidia/current" for triplet in TRIPLETS),
    "/lib64",
    *(f"/lib/{triplet}" for triplet in TRIPLETS),
    "/usr/lib32",
    "/usr/lib",
)
BELOW = ("", "/vdpau", "/xorg/modules/drivers", "/xorg/modules/extensions")

# Not PATH: that is the caller's.
PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

FIRMWARE = "/sys/module/firmware_class/parameters/path"


class File:
    """A file to be seen in a container: where it is on the host, what it is, why it goes in.

    source        on the host, below the driver's root
    kind          library, program, config, firmware, socket
    capability    the word of NVIDIA_DRIVER_CAPABILITIES; "all" for a library of unknown use,
                  "" for what every container with the driver gets
    destination   in the container; "" for a library: the stage has a place for those, but for
                  modules of Xorg
    soname, bits, machine   of a library
    """

    def __init__(self, source: str, kind: str, capability: str, destination: str = "") -> None:
        self.source = source
        self.kind = kind
        self.capability = capability
        self.destination = destination
        self.soname = ""
        self.bits = self.machine = 0
        self.entry: ldcache.Entry | None = None  # its path is the host's

    @property
    def name(self) -> str:
        """Its last name, such as libcuda.so.550.54.15."""
        return os.path.basename(self.source)


def capabilities(words: Iterable[str]) -> set[str]:
    """Return the capabilities that these words mean; ConfigError for an unknown one.

    `all` stays among them, since it asks for libraries of unknown use as well.
    """
    found: set[str] = set()
    for word in words:
        if word == "all":
            found.update(CAPABILITIES, ("all",))
        elif word in CAPABILITIES:
            found.add(word)
        else:
            known = ", ".join(CAPABILITIES)
            raise ConfigError(f'unknown driver capability "{word}" (have {known}, all)')
    found.update(IMPLIED[word] for word in tuple(found) if word in IMPLIED)
    return found


def find(host: Host, version: str, wanted: set[str], places: Places = USUAL) -> list[File]:
    """Return the driver's files that these capabilities ask for, libraries first.

    ConfigError when the host has libraries of another version than the loaded driver: an update
    without a reboot, after which no program can use a GPU.
    """
    return [
        *_libraries(host, version, wanted, places),
        *_programs(host, wanted),
        *_configs(host, wanted),
        *_firmware(host, version),
        *_sockets(host, wanted),
    ]


def nvml(host: Host, version: str, places: Places = USUAL) -> str:
    """Return the driver's library NVML; ConfigError when the host has none.

    version: of the loaded driver, or "" for whichever the host's loader would take.
    """
    name = f"libnvidia-ml.so.{version or 1}"
    for folder in _folders(host, version, places) if version else _candidates(host, places):
        if host.exists(f"{folder}/{name}"):
            return host.resolve(f"{folder}/{name}")
    raise ConfigError(f"this host has no {name}")


# --- libraries


def _libraries(host: Host, version: str, wanted: set[str], places: Places) -> Iterator[File]:
    seen: set[str] = set()
    rows = [(word, names.split()) for word, names in LIBRARIES.items()]
    bits = {64, 32} if "compat32" in wanted else {64}
    folders = _folders(host, version, places)
    for source in _extra(host, folders, places) if places.extra else ():
        file = _library(host, source, "")
        if source not in seen and file.bits in bits:
            seen.add(source)
            yield file
    for folder in folders:
        for name in host.names(folder):
            stem, _, tail = name.partition(".so")
            if not tail and stem != "nvidia_drv":
                continue
            if tail not in (f".{version}", "") and stem not in OWN_VERSION:
                continue
            words = [word for word, names in rows if stem in names] or ["all"]
            word = next((word for word in words if word in wanted), words[0])
            source = host.resolve(f"{folder}/{name}")
            if word not in wanted or source in seen:
                continue
            seen.add(source)
            file = _library(host, source, word)
            if file.bits in bits:
                yield file


def _library(host: Host, source: str, capability: str) -> File:
    # Xorg looks for its modules where the host has them; programs ask the loader.
    file = File(source, "library", capability, source if "/xorg/modules/" in source else "")
    with At(source):
        try:
            fd = os.open(host.root + source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise KernelError(error.errno or 0) from error
        try:
            found = elf.read(fd)
        finally:
            os.close(fd)
    file.soname, file.bits, file.machine = found.soname, found.bits, found.machine
    file.entry = ldcache.entry(found, source)
    return file


def _extra(host: Host, folders: list[str], places: Places) -> Iterator[str]:
    """Yield what the site's patterns name; ConfigError for one that names nothing.

    A pattern without a folder is looked for where the driver is, and in the site's own folders.
    """
    from fnmatch import fnmatchcase

    for pattern in places.extra:
        above, _, last = pattern.rpartition("/")
        here = [above] if above else [*folders, *places.search]
        found = [
            host.resolve(f"{folder}/{name}")
            for folder in here
            for name in host.names(host.resolve(folder))
            if fnmatchcase(name, last)
        ]
        # Of what a pattern fits there may be none on this host.
        if not found and not set("*?[") & set(last):
            raise ConfigError(
                "nvidia.extra-libraries in hpc.toml", f'this host has no library "{pattern}"'
            )
        yield from found


def _candidates(host: Host, places: Places) -> tuple[str, ...]:
    """Return the folders where the driver's libraries may be, the likeliest first."""
    return (*places.search, *FOLDERS, *_cached(host))


def _folders(host: Host, version: str, places: Places) -> list[str]:
    """Return the folders that hold the driver's libraries, and those below that it uses."""
    names = (f"libcuda.so.{version}", f"libnvidia-ml.so.{version}")
    found: dict[str, None] = {}
    for folder in _candidates(host, places):
        path = host.resolve(folder)
        if path not in found and any(host.exists(f"{path}/{name}") for name in names):
            found[path] = None
    if not found:
        other = _other(host, version, places)
        if other:
            raise ConfigError(
                other,
                f"is not of the loaded NVIDIA driver {version};"
                " reboot, or load the driver that is installed",
            )
        raise ConfigError(
            f"no library of the loaded NVIDIA driver {version} in {', '.join(FOLDERS[:3])}"
            f" or the other usual places{' below ' + host.root if host.root else ''}"
        )
    return [path + below for path in found for below in BELOW]


def _cached(host: Host) -> list[str]:
    """Return the folders where the host's own loader finds libcuda."""
    try:
        with open(f"{host.root}/etc/ld.so.cache", "rb") as file:
            entries = ldcache.parse(file.read(ldcache.LARGEST + 1))
    except (OSError, ConfigError):
        return []
    wanted = ("libcuda.so.1", "libnvidia-ml.so.1")
    return [os.path.dirname(one.path) for one in entries if one.name in wanted]


def _other(host: Host, version: str, places: Places) -> str | None:
    """Return a libcuda of another version, if the host has one."""
    for folder in _candidates(host, places):
        for name in host.names(host.resolve(folder)):
            found = name.removeprefix("libcuda.so.")
            if found != name and "." in found and found != version:
                return f"{folder}/{name}"
    return None


# --- everything else


def _programs(host: Host, wanted: set[str]) -> Iterator[File]:
    for word, names in PROGRAMS.items():
        if word in wanted:
            for name in names.split():
                for folder in PATH:
                    if host.exists(f"{folder}/{name}"):
                        source = host.resolve(f"{folder}/{name}")
                        yield File(source, "program", word, f"/usr/bin/{name}")
                        break


def _configs(host: Host, wanted: set[str]) -> Iterator[File]:
    for word, name, below in CONFIGS:
        if word in wanted:
            for folder in DATA:
                if host.exists(f"{folder}/{name}"):
                    yield File(host.resolve(f"{folder}/{name}"), "config", word, f"{below}/{name}")
                    break


def _firmware(host: Host, version: str) -> Iterator[File]:
    release = host.text("/proc/sys/kernel/osrelease") or ""
    base, updates = "/lib/firmware", "/lib/firmware/updates"
    folders = [host.text(FIRMWARE) or "", updates, base]
    if release:
        folders[1:] = [f"{updates}/{release}", updates, f"{base}/{release}", base]
    for folder in filter(None, folders):
        place = f"{folder}/nvidia/{version}"
        names = [name for name in host.names(place) if name.startswith("gsp")]
        for name in names:
            yield File(host.resolve(f"{place}/{name}"), "firmware", "", f"{place}/{name}")
        if names:
            return


def _sockets(host: Host, wanted: set[str]) -> Iterator[File]:
    for word, paths in SOCKETS.items():
        if word in wanted:
            for path in paths:
                if host.exists(path):
                    yield File(path, "socket", word, path)
