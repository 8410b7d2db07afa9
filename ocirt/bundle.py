"""Find and read a bundle: the directory that holds config.json and, mostly, the root filesystem.

What comes out of `load` has the shape of the specification (`shape.check`), so later code may
take types and required fields for granted; whether it makes sense is for `checks.run` to say.
"""

from __future__ import annotations

from ocirt import jsonio, shape
from ocirt import system as os
from ocirt.errors import ConfigError, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

S_IFMT, S_IFDIR, S_IFREG, S_IFLNK = 0o170000, 0o040000, 0o100000, 0o120000


def resolve(bundle: str) -> str:
    """Return the absolute path of the bundle, which must be a directory."""
    if not bundle:
        raise ConfigError("the path of the bundle is empty")
    path = os.path.abspath(bundle)
    if _kind(path) != S_IFDIR:
        raise ConfigError(path, "not a directory")
    return path


def load(bundle: str, config: str = "config.json") -> dict[str, Any]:
    """Return the config of the bundle; `config` is relative to it, or absolute."""
    return load_with_text(bundle, config)[0]


def load_with_text(bundle: str, config: str = "config.json") -> tuple[dict[str, Any], bytes]:
    """Return the config, and the text that says just that: empty where it says more."""
    found, text = read(bundle, config)
    shape.check(found)  # takes out what is null
    return found, b"" if b"null" in text else text


def read(bundle: str, config: str = "config.json") -> tuple[dict[str, Any], bytes]:
    """Return the config as it was written, whatever its shape, and its text."""
    path = os.path.join(resolve(bundle), config)
    try:
        kind = os.stat(path).st_mode & S_IFMT
    except FileNotFoundError:
        raise ConfigError(f"JSON specification file {config} not found") from None
    except OSError as error:
        raise KernelError(error.errno or 0, path) from error
    except ValueError:
        raise ConfigError(repr(config), "holds a NUL character") from None
    if kind != S_IFREG:
        raise ConfigError(path, "not a regular file")
    text = jsonio.read(path)
    try:
        found: Any = jsonio.parse(text)
        if found.__class__ is not dict:
            raise ConfigError(shape.EXPECTED[dict])
    except ConfigError as error:
        error.segments.insert(0, path)
        raise
    if b"\\u0000" in text:
        _refuse_nul(found)
    return found, text


def rootfs(config: dict[str, Any], bundle: str) -> str:
    """Return the absolute path of the root filesystem: a directory, and no symbolic link."""
    root = config.get("root")
    if root is None:
        raise ConfigError("root", "missing")
    if not root["path"]:
        raise ConfigError("root.path", "is empty")
    path = os.path.abspath(os.path.join(bundle, root["path"]))
    try:
        kind = _kind(path, follow=False)
    except KernelError as error:
        error.segments[:0] = ["root.path", "invalid rootfs"]
        raise
    if kind == S_IFLNK:
        raise ConfigError("root.path", "invalid rootfs", path, "is a symbolic link")
    if kind != S_IFDIR:
        raise ConfigError("root.path", "invalid rootfs", path, "not a directory")
    return path


def dev_mount(config: dict[str, Any]) -> int | None:
    """Return the place in `mounts` of the host's own /dev, if that is the container's /dev.

    Nothing may be made in it then.
    """
    found = None
    for index, mount in enumerate(config.get("mounts") or ()):
        if mount["destination"].rstrip("/") == "/dev":
            options = mount.get("options") or ()
            bound = mount.get("type") == "bind" or "bind" in options or "rbind" in options
            found = index if bound else None
    return found


def _kind(path: str, follow: bool = True) -> int:
    try:
        return os.stat(path, follow_symlinks=follow).st_mode & S_IFMT
    except OSError as error:
        raise KernelError(error.errno or 0, path) from error
    except ValueError:
        raise ConfigError(repr(path), "holds a NUL character") from None


def _refuse_nul(config: dict[str, Any]) -> None:
    """Refuse a NUL character in what may reach the kernel: it would cut the string short."""
    for section in ("process", "root", "hostname", "domainname", "mounts", "hooks", "linux"):
        place = jsonio.find_text(config.get(section), lambda text: "\0" in text)
        if place is not None:
            dot = "." if place and place[0] != "[" else ""
            raise ConfigError(f"{section}{dot}{place}", "holds a NUL character")
