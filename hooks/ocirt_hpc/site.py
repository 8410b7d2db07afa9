"""What the site decides about the stage: /etc/ocirt/hpc.toml, and *.toml in /etc/ocirt/hpc.d.

KEYS is the table of all settings; one more is one more row.  [device.NAME] adds a kind of devices,
or changes one, by the fields of `kinds.py`.  A later file overrides an earlier
one key by key.  Files, and every directory above them, must belong to root (or, for a caller who
is not root, to the caller) and be writable for nobody else: who writes them decides what mounts
every container gets.
"""

from __future__ import annotations

import os

from ocirt.errors import At, ConfigError, KernelError
from ocirt_hpc import kinds

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
    ("policy", "env-requests"):         (True,    "whether variables of the container, which its"
                                                  " image may set, can ask for devices"),
    ("policy", "cdi-annotations"):      (False,   "whether annotations cdi.k8s.io/* count"),
    ("nvidia", "disable-require"):      (False,   "whether NVIDIA_REQUIRE_* is left unchecked"),
    ("nvidia", "capabilities"):         (["all"], "what NVIDIA_DRIVER_CAPABILITIES may ask for"),
    ("nvidia", "cuda-compat"):          (True,    "whether a newer libcuda of the image, made for"
                                                  " the host's driver, comes before the driver's"),
    ("rdma",   "with-gpus"):            ("none",  "RDMA devices for a container with GPUs that asks"
                                                  " for none: none, nearest, all"),
    ("rdma",   "management"):           (False,   "whether umad and issm nodes come with a device;"
                                                  " who has them can speak for the whole fabric"),
    ("rdma",   "memlock"):              ("unlimited", "RLIMIT_MEMLOCK with a device: unlimited,"
                                                  " keep, or bytes"),
    ("rdma",   "hints"):                (True,    "whether UCX_NET_DEVICES and NCCL_IB_HCA are set"
                                                  " where they are not"),
    ("rdma",   "hide-others"):          (True,    "whether sysfs lists only the given devices"),
}  # fmt: skip


class Site:
    """The settings, by section and key: `site["nvidia", "disable-require"]`."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], Any] = {key: row[0] for key, row in KEYS.items()}
        self.kinds: dict[str, dict[str, Any]] = {}
        self.files: list[str] = []

    def __getitem__(self, key: tuple[str, str]) -> Any:
        return self.values[key]


def there(file: str = FILE, folder: str = FOLDER) -> bool:
    """Whether the site has said anything: two looks, for callers in a hurry."""
    return os.path.exists(file) or os.path.exists(folder)


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
        text = _read(path, needed=bool(file))
        if text is not None:
            with At(path):
                _take(site, text)
            site.files.append(path)
    return site


def _read(path: str, *, needed: bool) -> str | None:
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
            _trust(os.fstat(fd), path)
            data = os.read(fd, LARGEST + 1)
            if len(data) > LARGEST:
                raise ConfigError(f"holds more than {LARGEST} bytes")
    finally:
        os.close(fd)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(path, "is not UTF-8") from None


def _trust(seen: os.stat_result, path: str) -> None:
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


def _take(site: Site, text: str) -> None:
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(error)) from None
    sections = {section for section, _ in KEYS}
    for name, row in _tables(document.pop("device", {}), "device").items():
        site.kinds[name] = _kind(row, f"device.{name}")
    for section, held in document.items():
        if section not in sections or not isinstance(held, dict):
            raise ConfigError(section, f"unknown section (have {', '.join(sorted(sections))})")
        for key, value in held.items():
            row = KEYS.get((section, key))
            with At(f"{section}.{key}"):
                if row is None:
                    known = ", ".join(sorted(name for one, name in KEYS if one == section))
                    raise ConfigError(f"unknown setting (have {known})")
                _check(value, row[0])
            site.values[section, key] = value


def _tables(held: object, where: str) -> dict[str, Any]:
    if not isinstance(held, dict) or not all(isinstance(row, dict) for row in held.values()):
        raise ConfigError(where, f"expected tables: [{where}.NAME]")
    return held


def _kind(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Hold a kind of devices to the fields of `kinds.py`."""
    for name, value in row.items():
        with At(f"{where}.{name}"):
            if name not in kinds.FIELDS:
                raise ConfigError(f"unknown setting (have {', '.join(sorted(kinds.FIELDS))})")
            _check(value, kinds.FIELDS[name][0])
    return {**kinds.KINDS.get(where.partition(".")[2], {}), **row}


def _check(value: object, default: object) -> None:
    """Hold a value to the type of the default."""
    words = {bool: "true or false", str: "a string", int: "an integer", list: "a list of strings"}
    wanted = type(default)
    fits = type(value) is wanted and (
        not isinstance(value, list) or all(isinstance(item, str) for item in value)
    )
    if not fits:
        raise ConfigError(f"expected {words[wanted]}")
