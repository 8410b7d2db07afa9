"""What the loaded NVIDIA driver says of itself and its GPUs, in procfs.

    driver = driver.find(Host())          None: no driver is loaded
    driver.gpus[0].uuid                   "GPU-0ea1...": in the order of nvidia-smi

MIG devices are here by the numbers of their instances; their UUIDs and indices only NVML knows,
and `driver.nvml()` asks it.

Source: NVIDIA driver README, "Nvidia procfs"; open-gpu-kernel-modules, nv-procfs.c, nv-caps.c.
"""

from __future__ import annotations

from ocirt.errors import At, ConfigError, Error
from ocirt_hpc.host import Host, Node, pci_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_hpc.nvidia.nvml import Facts, Nvml
    from ocirt_hpc.site import Site

PROC = "/proc/driver/nvidia"
CAPS = "/proc/driver/nvidia-caps"
MODULE_VERSION = "/sys/module/nvidia/version"

GPU_MAJOR = 195  # assigned for good; /proc/devices calls it nvidia-frontend or nvidia
CONTROL, MODESET = 255, 254  # minors below it

VENDOR, DISPLAY = 0x10DE, 0x03  # of PCI: NVIDIA, display controllers
TEGRA = "/etc/nv_tegra_release"


class Mig:
    """A MIG device: its GPU instance, its compute instance.

    caps: of each of the two, the minor of its capability and the permissions of that node.
    """

    def __init__(self, gi: int, ci: int, caps: list[tuple[int, int]]) -> None:
        self.gi = gi
        self.ci = ci
        self.caps = caps


class Gpu:
    """One GPU: index of nvidia-smi, device minor, UUID, PCI address, model, MIG devices.

    folder: its name in procfs, whose domain may have 8 digits.  fault: why procfs tells no more of
    it than its address: it has fallen off the bus, or is half set up.
    """

    def __init__(self, minor: int, uuid: str, address: str, model: str, folder: str) -> None:
        self.index = -1
        self.minor = minor
        self.uuid = uuid
        self.address = address
        self.model = model
        self.folder = folder
        self.migs: list[Mig] = []
        self.fault: Error | None = None

    @property
    def path(self) -> str:
        """Its device node."""
        return f"/dev/nvidia{self.minor}"


class Places:
    """What a site says of the driver's libraries, beyond the usual places.

    search: folders where they are looked for first.  extra: names, or paths, with patterns, of
    libraries that go in with any GPU.
    """

    def __init__(self, search: Iterable[str] = (), extra: Iterable[str] = ()) -> None:
        self.search = tuple(search)
        self.extra = tuple(extra)


USUAL = Places()


def places(site: Site) -> Places:
    """Return what hpc.toml says of them."""
    return Places(site["nvidia", "library-search-path"], site["nvidia", "extra-libraries"])


class Driver:
    """The loaded driver: its version, its GPUs, and whose its device nodes are.

    files: where its files are, which need not be the host's root.  places: what the site says of
    its libraries.
    """

    def __init__(
        self, host: Host, version: str, nvml: Nvml | None, files: Host, places: Places
    ) -> None:
        self.host = host
        self.files = files
        self.places = places
        self.version = version
        self.gpus: list[Gpu] = []
        self.uid, self.gid, self.mode = 0, 0, 0o666
        self._nvml = nvml

    def nvml(self) -> Facts:
        """Return what NVML tells, which may take long; ConfigError when it does not."""
        if self._nvml is None:
            from ocirt_hpc.nvidia.nvml import Nvml

            self._nvml = Nvml(0)
        return self._nvml.facts(self.files, self.version, self.places)

    def capability(self, word: str) -> tuple[int, int]:
        """Return the minor of a capability of MIG's management, and its node's permissions."""
        return _cap(self.host, f"{PROC}/capabilities/mig/{word}", word, _minors(self.host))

    def node(self, path: str, major: int, minor: int, mode: int | None = None) -> Node:
        """Return the node at a path, the host's own or, where it lacks one, as it would be.

        mode: its permissions, if they are not those of all of the driver's nodes.  ConfigError when
        the host has another device there: left over from another boot.
        """
        there = self.host.node(path)
        if there is None:
            mode = self.mode if mode is None else mode
            return Node(path, major, minor, mode=mode, uid=self.uid, gid=self.gid)
        if (there.kind, there.major, there.minor) != ("c", major, minor):
            raise ConfigError(
                path,
                f"is device {there.major}:{there.minor}, the loaded driver's is"
                f" {major}:{minor}; remove the node",
            )
        return there


def find(
    host: Host,
    nvml: Nvml | None = None,
    root: str = "/",
    places: Places = USUAL,
    *,
    whole: bool = True,
) -> Driver | None:
    """Return what the loaded driver says, or None when none is loaded.

    Errors name the file: a driver half loaded, or a GPU that says nothing of use.  nvml: how NVML
    is asked for what else nobody knows.  root: below what the driver has its files.  places: where
    its libraries are looked for.  whole: raise for a GPU that says nothing; else it has a `fault`,
    and keeps the others' numbers as they are.
    """
    text = host.text(f"{PROC}/version")
    if text is None:
        return None
    files = host if root == "/" else Host(host.root + root)
    version = _version(text) or host.text(MODULE_VERSION) or ""
    driver = Driver(host, version, nvml, files, places)
    if not driver.version:
        with At(f"{PROC}/version: names no version of the driver"):
            driver.version = driver.nvml().driver
    params = _fields(host.text(f"{PROC}/params") or "")
    driver.uid = _number(params, "DeviceFileUID", 0)
    driver.gid = _number(params, "DeviceFileGID", 0)
    driver.mode = _number(params, "DeviceFileMode", 0o666) & 0o777
    found = [_gpu(host, folder, whole=whole) for folder in host.names(f"{PROC}/gpus")]
    driver.gpus = sorted((gpu for gpu in found if gpu is not None), key=_place)
    for index, gpu in enumerate(driver.gpus):
        gpu.index = index
    _migs(driver)
    return driver


def _version(text: str) -> str:
    """Return the version out of `NVRM version: NVIDIA UNIX ... Kernel Module  535.104.05  ...`.

    "" when there is none.
    """
    for line in text.splitlines():
        if line.startswith("NVRM version:"):
            for word in line.split():
                if "." in word and all(part.isdecimal() for part in word.split(".")):
                    return word
    return ""


def absent(host: Host) -> str:
    """Word that no driver is loaded, and what the machine tells about that."""
    why = "no NVIDIA driver is loaded on this host"
    if host.node("/dev/dxg") is not None:
        return f"{why}: GPUs of WSL (/dev/dxg) are not known here"
    if host.exists(TEGRA):
        return (
            f"{why}: those of Tegra ({TEGRA}), with lists of files (mode csv), are not known here"
        )
    for pci in host.pcis():
        if pci.number("vendor") == VENDOR and (pci.number("class") or 0) >> 16 == DISPLAY:
            return f"{why}: the GPU at {pci.address} waits for one; as root: modprobe nvidia"
    return why


def _gpu(host: Host, folder: str, *, whole: bool) -> Gpu | None:
    """Return a GPU; None when the driver was told to leave it alone."""
    try:
        return _read(host, folder)
    except Error as error:
        if whole:
            raise
        lost = Gpu(-1, "", pci_address(folder), "", folder)
        lost.fault = error
        return lost


def _read(host: Host, folder: str) -> Gpu | None:
    path = f"{PROC}/gpus/{folder}/information"
    text = host.text(path)
    if text is None:
        raise ConfigError(path, "is not there")
    fields = _fields(text)
    if fields.get("GPU Excluded") == "Yes":
        return None
    minor = _number(fields, "Device Minor", -1)
    if minor < 0:
        raise ConfigError(path, "names no device minor")
    address = pci_address(fields.get("Bus Location") or folder)
    return Gpu(minor, fields.get("GPU UUID", ""), address, fields.get("Model", ""), folder)


def _place(gpu: Gpu) -> list[int]:
    """Order GPUs by PCI address, as NVML does."""
    return [int(part or "0", 16) for part in gpu.address.replace(".", ":").split(":")]


def _fields(text: str) -> dict[str, str]:
    """Return lines of `Name: value` as a dictionary."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _number(fields: dict[str, str], name: str, otherwise: int) -> int:
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def _migs(driver: Driver) -> None:
    """Find the MIG devices that exist, and the minors of their capabilities.

    mig-minors has a line for each that could exist; capabilities/ has those that do.
    """
    host = driver.host
    minors: dict[str, int] | None = None
    for gpu in driver.gpus:
        if gpu.fault is not None:
            continue
        mig = f"{PROC}/capabilities/gpu{gpu.minor}/mig"
        for gi in _numbered(host, mig, "gi"):
            for ci in _numbered(host, f"{mig}/gi{gi}", "ci"):
                minors = _minors(host) if minors is None else minors
                names = (f"gi{gi}/access", f"gi{gi}/ci{ci}/access")
                caps = [_cap(host, f"{mig}/{name}", f"gpu{gpu.minor}/{name}", minors)
                        for name in names]  # fmt: skip
                gpu.migs.append(Mig(gi, ci, caps))


def _cap(host: Host, path: str, name: str, minors: dict[str, int]) -> tuple[int, int]:
    """Return the minor of a capability, and the permissions of its node."""
    fields = _fields(host.text(path) or "")
    minor = minors.get(name) or _number(fields, "DeviceFileMinor", 0)
    if not minor:
        raise ConfigError(f"{CAPS}/mig-minors", f"has no line for {name}, and {path} no minor")
    return minor, _number(fields, "DeviceFileMode", 0o666) & 0o777


def _minors(host: Host) -> dict[str, int]:
    lines = (host.text(f"{CAPS}/mig-minors") or "").splitlines()
    pairs = (line.rpartition(" ") for line in lines)
    return {name: int(minor) for name, _, minor in pairs if minor.isdecimal()}


def _numbered(host: Host, path: str, prefix: str) -> list[int]:
    numbers = (name.removeprefix(prefix) for name in host.names(path) if name.startswith(prefix))
    return sorted(int(number) for number in numbers if number.isdecimal())
