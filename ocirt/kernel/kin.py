"""Which processes belong together, where no cgroup tells.

proc(5), "/proc/pid/stat"; pid_namespaces(7).
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.kernel import procfs


def of(pid: int, *, namespace: bool) -> list[int]:
    """Return a process and all its descendants, sorted.

    namespace: whoever lives in its pid namespace as well, as those do who were sent there from
    outside.  Processes that we may not look at are not ours.
    """
    parents = {}
    found = {pid}
    home = _namespace(pid) if namespace else ""
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            text = procfs.read(f"/proc/{name}/stat")
        except OSError:
            continue
        parents[int(name)] = int(text[text.rindex(b")") + 2 :].split(b" ", 2)[1])
        if home and _namespace(int(name)) == home:
            found.add(int(name))
    before = 0
    while before != len(found):
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return sorted(found & {*parents})


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
