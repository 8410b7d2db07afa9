"""What a plan may have to know about the machine, read when first asked for.

Compilers stay pure: they ask a `Host` and never open a file.  `root` is another root directory
to look at, which is how tests and the golden plans describe a machine.

The rest of a plan depends on the config alone, so a machine is a short list: what the runtime
itself may do, which security modules run, and which namespaces it stands in.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.kernel import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Host:
    """The machine that a plan is compiled for; each fact is looked up at most once."""

    __slots__ = ("_facts", "group", "root", "rootless", "setgroups", "unprivileged")

    def __init__(self, root: str = "/", rootless: bool = False, unprivileged: bool = False) -> None:
        self.root = root
        self.rootless = rootless
        self.unprivileged = unprivileged
        self.group = os.getegid()
        self.setgroups = ""  # of the container's user namespace, where that is known already
        self._facts: dict[str, Any] = {}

    def _read(self, path: str) -> str:
        """Return the text of a file below `root`, or nothing when it cannot be read."""
        try:
            return procfs.read(os.path.join(self.root, path)).decode("utf-8", "replace")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Whether the machine has this file; `path` is absolute."""
        return os.path.exists(os.path.join(self.root, path.lstrip("/")))

    def node(self, kind: str, numbers: str) -> str:
        """Return the path of a device's node; "" when there is none.

        kind: "char" or "block".  numbers: major and minor, as in `1:5`.
        """
        for line in self._read(f"sys/dev/{kind}/{numbers}/uevent").splitlines():
            if line.startswith("DEVNAME="):
                return f"/dev/{line[8:]}"
        return ""

    def bounding(self) -> int:
        """Return the mask of the capabilities that the runtime's own bounding set holds."""
        mask = self._facts.get("bounding")
        if mask is None:
            mask = 0
            for line in self._read("proc/self/status").splitlines():
                if line.startswith("CapBnd:"):
                    mask = int(line[7:], 16)
            self._facts["bounding"] = mask
        return mask

    def known(self) -> int:
        """Return the mask of the capabilities that the running kernel knows."""
        last = self._read("proc/sys/kernel/cap_last_cap").strip()
        return (2 << int(last)) - 1 if last.isdigit() else (1 << 64) - 1

    def apparmor(self) -> bool:
        """Whether AppArmor is on and its profiles can be asked for."""
        return self._read("sys/module/apparmor/parameters/enabled")[:1] == "Y"

    def selinux(self) -> bool:
        """Whether SELinux is on: a disabled one has no selinuxfs, or none that tells its mode."""
        return self._read("sys/fs/selinux/enforce") != ""

    def denies_groups(self, namespace: str | None) -> bool:
        """Whether a user namespace has setgroups(2) denied, which is for good.

        namespace: None for the runtime's own, else a path such as /proc/PID/ns/user; of one that
        is bound elsewhere nothing can be read, and the kernel will say so.
        """
        if self.setgroups:
            return self.setgroups == "deny"
        found = self._read("proc/self/setgroups").strip()
        if namespace and found != "deny" and namespace.endswith("/ns/user"):
            found = self._read(namespace.removesuffix("ns/user").lstrip("/") + "setgroups").strip()
        return found == "deny"

    def in_user_namespace(self) -> bool:
        """Whether the runtime is in a user namespace other than the first."""
        nested = self._facts.get("nested")
        if nested is None:
            rows = self._read("proc/self/uid_map").split()
            nested = self._facts["nested"] = rows not in ([], ["0", "0", "4294967295"])
        return bool(nested)

    def is_own_namespace(self, name: str, path: str) -> bool:
        """Whether `path` is the runtime's own namespace; `name` as below /proc/self/ns."""
        try:
            own = os.stat(os.path.join(self.root, "proc/self/ns", name))
            other = os.stat(path)
        except OSError:
            return False
        return (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)
