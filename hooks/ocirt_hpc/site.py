"""What the site decides about the stage: /etc/ocirt/hpc.toml, and *.toml in /etc/ocirt/hpc.d.

KEYS is the table of all settings; one more is one more row.  [device.NAME] adds a kind of devices,
or changes one, by the fields of `kinds.py`.  [[mounts]], [env], [[devices]] and [limits] are what
containers get beyond that (`parts.py`), all of them or, in a [module.NAME] or a [profile.NAME],
those that ask for it (`choice.py`).  A later file overrides an earlier one key by key, a module or
a profile as a whole, and adds its mounts, variables, nodes and limits.  Files, and every directory
above them, must belong to root (or, for a caller who is not root, to the caller) and be writable
for nobody else: who writes them decides what mounts every container gets.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError, KernelError
from ocirt_hpc import kinds, parts, toml
from ocirt_hpc.parts import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE, FOLDER = "/etc/ocirt/hpc.toml", "/etc/ocirt/hpc.d"
LARGEST = 1 << 20

S_IFMT, S_IFREG, S_ISVTX = 0o170000, 0o100000, 0o1000

KEYS: dict[tuple[str, str], tuple[object, str]] = {
    # section     key                    default  what it decides
    ("stage",  "enabled"):              (True,    "whether the stage acts on requests at all"),
    ("stage",  "host-root"):            ("/",     "where /proc, /sys, /dev and /usr of the host"
                                                  " are looked at; for demonstrations and tests"),
    ("stage",  "trigger"):              ("requested", "which containers get the site's mounts,"
                                                  " variables and so on: requested, always, never"),
    ("stage",  "trigger-env"):          ([],      "variables that ask for them, by any value but"
                                                  " false, no, off, 0, none and void"),
    ("stage",  "default-modules"):      ([],      "modules of a container that names none"),
    ("stage",  "loader"):               ("cache", "how programs find the libraries: cache, env"
                                                  " (LD_LIBRARY_PATH), both, none"),
    ("stage",  "on-missing"):           ("auto",  "what it is when a host has no such devices at"
                                                  " all: error, warn, ignore; auto: error, if some"
                                                  " were named, else warn"),
    ("policy", "env-requests"):         (True,    "whether variables of the container, which its"
                                                  " image may set, can ask for devices"),
    ("policy", "cdi-annotations"):      (False,   "whether annotations cdi.k8s.io/* count"),
    ("user",   "mode"):                 ("image", "whose the program is: image, fixed,"
                                                  " caller, env"),
    ("user",   "value"):                ("",      "fixed: UID, UID:GID, or a name that the host"
                                                  " knows; env: the same, without the variable"),
    ("user",   "variable"):             ("OCIRT_USER", "env: the variable that holds such a value,"
                                                  " but not root's"),
    ("user",   "keep"):                 (False,   "whether ocirt.hpc/user=keep leaves the user as"
                                                  " the image has it"),
    ("user",   "set-home"):             (False,   "whether HOME is the user's home on the host"),
    ("user",   "home"):                 ("none",  "what is there: bind, tmpfs, none"),
    ("user",   "accounts"):             (False,   "whether /etc/passwd and /etc/group know the"
                                                  " user"),
    ("hooks",  "dirs"):                 ([],      "directories of hooks in the form of oci-hooks"
                                                  " 1.0.0; a later one's files replace others"),
    ("nvidia", "request-default"):      ("none",  "GPUs of a container that asks for none: none,"
                                                  " all, or job: what a batch system has given"),
    ("nvidia", "disable-require"):      (False,   "whether NVIDIA_REQUIRE_* is left unchecked"),
    ("nvidia", "capabilities"):         (["all"], "what NVIDIA_DRIVER_CAPABILITIES may ask for"),
    ("nvidia", "driver-root"):          ("/",     "below what the driver has its files"),
    ("nvidia", "mps"):                  ("auto",  "who gets the folder of MPS: asked, never, or"
                                                  " auto: any GPU's container as well, where"
                                                  " /tmp/nvidia-mps is there"),
    ("nvidia", "cdi-kinds"):            ([],      "kinds of CDI devices that a variable may name,"
                                                  " beside nvidia.com/gpu"),
    ("nvidia", "library-search-path"):  ([],      "folders where the driver's libraries are looked"
                                                  " for before the usual ones"),
    ("nvidia", "extra-libraries"):      ([],      "libraries, by name or path, with patterns, that"
                                                  " go in with any GPU"),
    ("nvidia", "layout"):               ("private", "where the driver's libraries are in a"
                                                  " container: private (/run/ocirt/hpc), or native"
                                                  " (/usr/lib64, or as its distribution has it)"),
    ("nvidia", "cuda-compat"):          (True,    "whether a newer libcuda of the image, made for"
                                                  " the host's driver, comes before the driver's"),
    ("nvidia", "emulate-hooks"):        (True,    "whether the work of nvidia-cdi-hook is done"
                                                  " here, and the hook left out"),
    ("nvidia", "mig-management"):       (False,   "whether the annotation ocirt.hpc/mig-management"
                                                  " can give what MIG is managed by"),
    ("nvidia", "nvml-timeout"):         (30,      "seconds that NVML may take, where nothing else"
                                                  " can tell; 0: it is never asked"),
    ("rdma",   "with-gpus"):            ("none",  "RDMA devices for a container with GPUs that asks"
                                                  " for none: none, nearest, all"),
    ("rdma",   "management"):           (False,   "whether umad and issm nodes come with a device;"
                                                  " who has them can speak for the whole fabric"),
    ("rdma",   "memlock"):              ("unlimited", "RLIMIT_MEMLOCK with a device: unlimited,"
                                                  " keep, or bytes"),
    ("rdma",   "hca-handles"):          (0,       "how many handles (contexts) of a device a"
                                                  " container can have (rdma cgroup); 0: no limit"),
    ("rdma",   "hca-objects"):          (0,       "the same for objects: memory regions, queues"),
    ("rdma",   "move"):                 ("caller", "in mode exclusive (rdma-system(8)), who can"
                                                  " have devices moved in: never, caller, any"),
    ("rdma",   "userland"):             ("never", "whether the host's libibverbs and providers go"
                                                  " in: never, auto (where the image's will not"
                                                  " do), always"),
    ("rdma",   "hints"):                (True,    "whether UCX_NET_DEVICES, NCCL_IB_HCA and others"
                                                  " are set where they are not"),
    ("rdma",   "hugepages"):            ("caller", "who gets a file system of huge pages: never,"
                                                  " caller (ocirt.hpc/hugepages), always (with any"
                                                  " device)"),
    ("rdma",   "hide-others"):          (True,    "whether sysfs lists only the given devices"),
    ("topology", "cpuset"):             ("suggest", "CPUs and memory nearest to the devices:"
                                                  " suggest (in explain), apply, off"),
}  # fmt: skip


# settings that are lists of absolute paths
PATHS = (("nvidia", "library-search-path"), ("nvidia", "extra-libraries"))

# settings that take one of these words
WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("stage", "trigger"): ("requested", "always", "never"),
    ("stage", "loader"): ("cache", "env", "both", "none"),
    ("stage", "on-missing"): ("auto", "error", "warn", "ignore"),
    ("nvidia", "request-default"): ("none", "job", "all"),
    ("nvidia", "layout"): ("private", "native"),
    ("nvidia", "mps"): ("auto", "asked", "never"),
    ("rdma", "with-gpus"): ("none", "nearest", "all"),
    ("rdma", "userland"): ("never", "auto", "always"),
    ("rdma", "move"): ("never", "caller", "any"),
    ("rdma", "hugepages"): ("never", "caller", "always"),
    ("topology", "cpuset"): ("suggest", "apply", "off"),
    ("user", "mode"): ("image", "fixed", "caller", "env"),
    ("user", "home"): ("none", "bind", "tmpfs"),
}


class Site:
    """The settings, by section and key: `site["nvidia", "disable-require"]`."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {key: row[0] for key, row in KEYS.items()}
        self.kinds: dict[str, dict[str, Any]] = {}
        self.parts: list[Part] = []  # of every container that gets any
        self.modules: dict[str, Part] = {}
        self.profiles = {
            name: Part(f"profile {name}: ", row) for name, row in parts.PROFILES.items()
        }
        self.files: list[str] = []

    def __getitem__(self, key: tuple[str, str]) -> Any:
        return self.values[key]


def load(file: str = "", *, folder: str = FOLDER) -> Site:
    """Return the site's settings; ConfigError or KernelError names the file and the key.

    file: one to read instead of the usual ones; it has to exist.
    """
    site = Site()
    paths = [file or FILE]
    if not file:
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            names = []
        paths += [f"{folder}/{name}" for name in names if name.endswith(".toml")]
    for path in paths:
        held = text(path, needed=bool(file))
        if held is not None:
            with At(path):
                _take(site, held, os.path.basename(path))
            site.files.append(path)
    _check_names(site)
    if site["user", "mode"] == "image" and site["user", "home"] == "bind":
        raise ConfigError(
            "user.home in hpc.toml", "with user.mode image, images would choose whose home"
        )
    if site["user", "mode"] == "fixed" and not site["user", "value"]:
        raise ConfigError("user.mode in hpc.toml", "fixed needs user.value")
    return site


def text(path: str, *, needed: bool = True) -> str | None:
    """Return what a file of the site's holds, None for none; ConfigError unless it is trusted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if needed:
            raise
        return None
    except OSError as error:
        raise KernelError(error.errno or 0, path) from error
    try:
        with At(path):
            trust(os.fstat(fd), path)
            data = os.read(fd, LARGEST + 1)
            if len(data) > LARGEST:
                raise ConfigError(f"holds more than {LARGEST} bytes")
    finally:
        os.close(fd)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(path, "is not UTF-8") from None


def trust(seen: os.stat_result, path: str) -> None:
    """Refuse a file that somebody else could have written, or could put another in place of."""
    if seen.st_mode & S_IFMT != S_IFREG:
        raise ConfigError("is not a regular file")
    owners = {0, os.geteuid()}
    place, what = os.path.realpath(path), seen
    while True:
        loose = what.st_mode & 0o022 and not what.st_mode & S_ISVTX
        if what.st_uid not in owners or loose:
            raise ConfigError(
                f"{place} has to belong to root and be writable for root alone"
                f" (it belongs to {what.st_uid}, mode {what.st_mode & 0o7777:04o})"
            )
        if place == "/":
            return
        place = os.path.dirname(place)
        what = os.stat(place)


def _take(site: Site, content: str, file: str) -> None:
    document = toml.loads(content)
    for name, row in _tables(document.pop("device", {}), "device").items():
        site.kinds[name] = _kind(row, f"device.{name}")
    for kind, known, held in (
        ("module", parts.MODULE, site.modules),
        ("profile", parts.PROFILE, site.profiles),
    ):
        for name, row in _tables(document.pop(kind, {}), kind).items():
            where = f"{kind}.{name}."
            if kind == "profile":
                row = {**parts.PROFILES.get(name, {}), **row}
            parts.check(row, known, where)
            held[name] = Part(f"{file}: {where}", row)
    top = {name: document.pop(name) for name in parts.PART if name in document}
    if top:
        parts.check(top, parts.PART)
        site.parts.append(Part(f"{file}: ", top))
    sections = sorted({section for section, _ in KEYS} | {*parts.PART})
    for section, settings in document.items():
        if section not in sections or not isinstance(settings, dict):
            raise ConfigError(section, f"unknown section (have {', '.join(sections)})")
        defaults = {name: KEYS[one, name][0] for one, name in sorted(KEYS) if one == section}
        parts.settings(settings, defaults, f"{section}.")
        for key, value in settings.items():
            words = WORDS.get((section, key))
            if words and value not in words:
                raise ConfigError(f"{section}.{key}", f'"{value}" is none of {", ".join(words)}')
            if value.__class__ is int and not 0 <= value < 1 << 31:
                raise ConfigError(f"{section}.{key}", f"{value} is not from 0 to {(1 << 31) - 1}")
            for path in value if (section, key) in PATHS else ():
                if "/" in path or key == "library-search-path":
                    with At(f"{section}.{key}"):
                        parts.path(path)
            site.values[section, key] = value


def _check_names(site: Site) -> None:
    """Refuse what is named and is in none of the files: modules, profiles, kinds of devices."""
    named = [("stage.default-modules in hpc.toml", site["stage", "default-modules"])]
    for part in site.modules.values():
        named += [(f"{part.where}{field}", part.get(field)) for field in ("requires", "conflicts")]
    named += [(f"{part.where}modules", part.get("modules")) for part in site.profiles.values()]
    for where, names in named:
        for name in names:
            if name not in site.modules:
                there = ", ".join(sorted(site.modules)) or "none"
                raise ConfigError(where, f'there is no module "{name}" (have {there})')
    devices = {"nvidia", "rdma", *kinds.KINDS, *site.kinds}
    for part in (*site.parts, *site.modules.values(), *site.profiles.values()):
        for index, mount in enumerate(part.get("mounts")):
            for field, have in (("profile", site.profiles.keys()), ("device", devices)):
                name = mount.get("when", {}).get(field, "")
                if name and name not in have and not (field == "device" and "/" in name):
                    where = f"{part.where}mounts[{index}].when.{field}"
                    raise ConfigError(where, f'"{name}" is none of {", ".join(sorted(have))}')


def _tables(held: object, where: str) -> dict[str, Any]:
    if not isinstance(held, dict) or not all(isinstance(row, dict) for row in held.values()):
        raise ConfigError(where, f"expected tables: [{where}.NAME]")
    return held


def _kind(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Hold a kind of devices to the fields of `kinds.py`."""
    from ocirt_hpc import kindrows

    parts.settings(row, {name: kinds.FIELDS[name][0] for name in sorted(kinds.FIELDS)}, f"{where}.")
    kindrows.check(where, row)
    return {**kinds.KINDS.get(where.partition(".")[2], {}), **row}
