"""CUDA's forward compatibility: an image that brings a newer libcuda than the host's driver.

The image keeps it in COMPAT.  Where it is made for the host's driver it comes before the driver's
own in the loader's cache; it stays where it is, and is never a source of a mount.

What a library is made for stands in an ELF note of its own, as JSON.  Without one, a library of a
newer branch than the host's driver counts as made for it.

Source: CUDA compatibility guide, "Forward Compatibility"; nvidia-container-toolkit,
enable-cuda-compat, for the note.
"""

from __future__ import annotations

from ocirt import jsonio, log
from ocirt import system as os
from ocirt.errors import Error
from ocirt_hpc import elf, ldcache
from ocirt_hpc.nvidia import require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_hpc.image import Image
    from ocirt_hpc.ldcache import Entry

COMPAT = "/usr/local/cuda/compat"
NOTE, OWNER = ".note.cuda.fwd_compatibility", "NVIDIA Corporation"
MOST_FILES = 64


def find(image: Image, driver_version: str) -> list[Entry]:
    """Return the image's libraries that the loader should prefer; [] when it has none of use."""
    names = image.names(COMPAT)[:MOST_FILES]
    tails = (name.removeprefix("libcuda.so.") for name in names if name.startswith("libcuda.so."))
    for version in filter(_is_version, tails):
        fd = image.open(f"{COMPAT}/libcuda.so.{version}")
        if fd is None:
            continue
        try:
            fits = _fits(fd, version, driver_version)
        except Error as error:
            log.warning(f"the image's {COMPAT}/libcuda.so.{version} is left alone: {error}")
            fits = False
        finally:
            os.close(fd)
        if fits:
            log.debug(f"the image's libcuda {version} comes before the driver's {driver_version}")
            return _entries(image, names, version)
    return []


def _fits(fd: int, version: str, driver_version: str) -> bool:
    """Whether a libcuda of this version is made for a host with this driver."""
    branch = int(driver_version.partition(".")[0])
    found = elf.note(fd, NOTE)
    if found is None or found[0] != OWNER:
        return int(version.partition(".")[0]) > branch
    document = jsonio.parse(found[1].rstrip(b"\0"))
    drivers = document.get("Driver") if isinstance(document, dict) else None
    if not isinstance(drivers, list):
        return False
    return branch in drivers and require.compare(version, driver_version) > 0


def _is_version(text: str) -> bool:
    """Whether this ends the name of a library itself; `1` is a link to one."""
    try:
        return len(require.numbers(text)) > 1
    except ValueError:
        return False


def _entries(image: Image, names: list[str], version: str) -> list[Entry]:
    """Return what the loader is to know of the libraries of that version."""
    found = []
    for name in names:
        fd = image.open(f"{COMPAT}/{name}") if name.endswith(f".so.{version}") else None
        if fd is None:
            continue
        try:
            one = ldcache.entry(elf.read(fd), f"{COMPAT}/{name}")
        except Error:
            one = None
        finally:
            os.close(fd)
        if one is not None:
            found.append(one)
    return found
