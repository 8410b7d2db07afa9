"""What is asked for, and where: a wish, and the machine (or a root directory) it is for."""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_RESERVED = ("runc", "crun", "default", "untrusted")


class Wish:
    """A runtime to register.

    name: as users of the engine will say it.  path: the program.  systemd: it shall let systemd
    make cgroups.  slurm22: for a Slurm before 23.02.
    """

    def __init__(
        self, name: str, path: str, *, systemd: bool = False, slurm22: bool = False
    ) -> None:
        # A label of DNS is what Kubernetes takes for a handler; the others take more.
        letters = name[:1] not in ("", "-") and name[-1:] != "-" and _LETTERS.issuperset(name)
        if not letters or len(name) > 63:
            raise ConfigError("--name", f"{name!r} is not made of a to z, 0 to 9 and inner dashes")
        if name in _RESERVED:
            raise ConfigError("--name", f"{name} means something else to engines")
        if not path.startswith("/"):
            raise ConfigError("--path", f"{path} is not absolute")
        if any(letter.isspace() or letter in "\"'\\%$`" for letter in path):
            raise ConfigError("--path", f"{path!r} needs quoting, which not every engine can do")
        self.name, self.path = name, path
        self.systemd, self.slurm22 = systemd, slurm22


class Site:
    """A machine, seen from `root`; `home`: where a user's own engines are configured, or ""."""

    def __init__(self, root: str = "/", home: str = "") -> None:
        self.root = os.path.realpath(root)
        self.home = home

    def at(self, path: str) -> str:
        """Return where an absolute path of the machine really is."""
        return os.path.join(self.root, path.lstrip("/"))

    def read(self, path: str) -> str:
        """Return the text of a file; "" when there is none."""
        try:
            with open(self.at(path), encoding="utf-8", newline="") as file:
                return file.read()
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError:
            raise ConfigError("is not UTF-8") from None

    def glob(self, pattern: str) -> list[str]:
        """Return the paths of a pattern whose last part may hold a `*`, in the order of names."""
        from fnmatch import fnmatchcase

        folder, _, last = pattern.rpartition("/")
        try:
            names = os.listdir(self.at(folder))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        return [f"{folder}/{name}" for name in sorted(names) if fnmatchcase(name, last)]

    def program(self, name: str) -> str:
        """Return the path of an installed program, or nothing."""
        for folder in PATH:
            if os.access(self.at(f"{folder}/{name}"), os.X_OK):
                return f"/{folder}/{name}"
        return ""


def user_home() -> str:
    """Return where a caller who is not root configures engines of his own; "" for root."""
    if os.geteuid() == 0:
        return ""
    return os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")


def ours(path: Any) -> bool:
    """Tell whether a path leads to an ocirt, by its name; options have paths, too."""
    if not isinstance(path, str) or path[:1] == "-":
        return False
    return os.path.basename(path).startswith("ocirt")


def toml(text: str) -> dict[str, Any]:
    """Return a TOML document."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("malformed TOML", str(error)) from None


def plain(text: str) -> dict[str, Any]:
    """Return the lines `Key="value"` of an oci.conf that say how containers are started."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip() in ("RunTimeRun", "RunTimeCreate"):
            found[key.strip()] = value.strip().strip("\"'")
    return found
