"""A container's share of caches and memory bandwidth: linux.intelRdt, a directory of resctrl.

    RESCTRL/CLOS/schemata         what its processes may use; CLOS is closID or the container's id
    RESCTRL/CLOS/tasks            its processes; children of theirs come along
    RESCTRL/CLOS/mon_groups/ID    a group to count the container alone, where that is asked for

`draft` decides on paper, `Group` carries out.  A class that a config names may be shared, so
`create` takes it as it is, and nobody removes it; one named after the container ends with it.

runtime-spec, config-linux.md, "IntelRdt"; Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

from errno import ENOENT, ESRCH

from ocirt import system as os
from ocirt.cgroup.files import read
from ocirt.cgroup.stats import whole
from ocirt.errors import At, ConfigError, Error, KernelError
from ocirt.kernel.procfs import unescape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLACE = "linux.intelRdt"

# What `update` can change: the field, its resource, and what runc says where that is missing.
OPTIONS = (
    ("l3CacheSchema", "L3", "Intel RDT/CAT: l3 cache schema is not enabled"),
    ("memBwSchema", "MB", "Intel RDT/MBA: memory bandwidth schema is not enabled"),
)


def mount_point(root: str = "/") -> str:
    """Return where resctrl is mounted, or nothing.  root: of the machine to look at."""
    top = root.rstrip("/")
    with open(f"{top}/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            if tail.startswith("resctrl "):
                return top + unescape(head.split(" ", 5)[4])
    return ""


def draft(section: dict[str, Any], container_id: str, root: str = "/") -> Group:
    """Return the group that linux.intelRdt stands for; refuse what this machine cannot give."""
    top = mount_point(root)
    if not top:
        raise ConfigError(
            PLACE,
            "intelRdt is specified in config, but Intel RDT is not supported or enabled",
            "resctrl is not mounted",
        )
    clos = section.get("closID") or ""
    rows = lines(section)
    for row in rows:
        _check_resource(top, row)
    path = top if clos == "/" else f"{top}/{clos or container_id}"
    there = os.path.isdir(path)
    if clos and not there and not rows:
        raise ConfigError(f"{PLACE}.closID", f'no class of service "{clos}" (give a schema for it)')
    if clos and there:
        _check_same(path, rows)
        rows = []
    monitor = f"{path}/mon_groups/{container_id}" if section.get("enableMonitoring") else ""
    if monitor and not os.path.isdir(f"{top}/info/L3_MON"):
        raise ConfigError(f"{PLACE}.enableMonitoring", "resctrl does not monitor on this machine")
    return Group({"root": top, "path": path, "monitor": monitor, "ours": not clos}, rows)


def changed(
    record: dict[str, Any] | None, section: dict[str, Any], container_id: str, root: str = "/"
) -> Group:
    """Return the group of a container whose linux.intelRdt becomes `section`, with what to write.

    record: of the group that the container has; without one it gets one of its own.
    """
    top = record["root"] if record else mount_point(root)
    for field, name, sentence in OPTIONS:
        if section.get(field) and not (top and os.path.isdir(f"{top}/info/{name}")):
            raise Error(sentence)
    rows = lines(section)
    for row in rows:
        _check_resource(top, row)
    if record is None:
        path = f"{top}/{container_id}"
        record = {"root": top, "path": path, "monitor": "", "ours": True}
    return Group(record, rows)


def lines(section: dict[str, Any]) -> list[str]:
    """Return the lines for the file schemata, in the order of the specification."""
    caches, bandwidth = section.get("l3CacheSchema") or "", section.get("memBwSchema") or ""
    rows = caches.splitlines()
    if bandwidth:
        rows = [row for row in rows if not row.startswith("MB:")] + bandwidth.splitlines()
    return [row for row in [*rows, *(section.get("schemata") or ())] if row.strip()]


def _check_resource(top: str, row: str) -> None:
    name, colon, _ = row.partition(":")
    if not colon:
        raise ConfigError(PLACE, f'"{row}" is not a schema such as L3:0=ff;1=ff')
    if not os.path.isdir(f"{top}/info/{name.strip()}"):
        known = sorted(one for one in os.listdir(f"{top}/info") if "_MON" not in one)
        kinds = " ".join(one for one in known if os.path.isdir(f"{top}/info/{one}"))
        raise ConfigError(PLACE, f'"{row}"', f"not enabled on this machine, which has: {kinds}")


def _check_same(path: str, rows: list[str]) -> None:
    """Refuse to say anything else about a class than what it is."""
    has = dict(parse(row) for row in read(f"{path}/schemata").splitlines() if ":" in row)
    for row in rows:
        name, wanted = parse(row)
        if any(has.get(name, {}).get(domain) != value for domain, value in wanted.items()):
            there = [one.strip() for one in read(f"{path}/schemata").splitlines()]
            now = next((one for one in there if one.startswith(f"{name}:")), "nothing of it")
            raise ConfigError(f"{PLACE}.closID", f'the class exists and has {now}, not "{row}"')


def parse(row: str) -> tuple[str, dict[str, str]]:
    """Return a schema's resource and its values by domain, without leading zeros.

    >>> parse("  L3:0=00F;1=ff")
    ('L3', {'0': 'f', '1': 'ff'})
    """
    name, _, rest = row.strip().partition(":")
    values = {}
    for part in rest.split(";"):
        domain, _, value = part.partition("=")
        values[domain.strip().lstrip("0") or "0"] = value.strip().lower().lstrip("0") or "0"
    return name, values


class Group:
    """One container's place in resctrl.

    record: root (the mount point), path (of the class), monitor (of the monitoring group, or
    nothing), ours (whether the class ends with the container).  rows: the schemata to write.
    """

    def __init__(self, record: dict[str, Any], rows: list[str] | None = None) -> None:
        self.record = record
        self.rows = rows or []
        self._path: str = record["path"]
        self._monitor: str = record["monitor"]
        self._made = False

    def describe(self) -> list[str]:
        """Return what `create` makes and writes, a line each."""
        made = [] if os.path.isdir(self._path) else [self._path]
        rows = [f"{self._path}/schemata = {row}" for row in self.rows]
        return [*made, *rows, *([self._monitor] if self._monitor else [])]

    def create(self) -> None:
        """Make the directories and put the schemata into force; `undo` takes that back."""
        with At(PLACE):
            self._made = _make(self._path)
            if self.rows and (self._made or self.record["ours"]):
                self.write(self.rows)
            elif self.rows:  # another container has just made it
                _check_same(self._path, self.rows)
            if self._monitor:
                _make(self._monitor)

    def write(self, rows: list[str]) -> None:
        """Put schemata into force."""
        self._put(f"{self._path}/schemata", "".join(f"{row}\n" for row in rows))

    def attach(self, pid: int) -> None:
        """Move a process in; a class that somebody has removed is passed over."""
        for path in (self._path, self._monitor):
            if path and os.path.isdir(path):
                with At(PLACE):
                    self._put(f"{path}/tasks", str(pid))

    def attach_all(self, pid: int) -> None:
        """Move a running process in, each of its threads."""
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:  # ended meanwhile
            return
        for thread in threads:
            try:
                self.attach(int(thread))
            except KernelError as error:
                if error.errno != ESRCH:
                    raise

    def _put(self, path: str, text: str) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            said = read(f"{self.record['root']}/info/last_cmd_status").strip()
            more = [said] if said not in ("", "ok") else []
            raise KernelError(error.errno or 0, path, *more) from error

    def schemata(self) -> list[str]:
        """Return the lines that are in force."""
        return [row.strip() for row in read(f"{self._path}/schemata").splitlines()]

    def remove(self) -> None:
        """Remove what was made for this container alone; its processes go to the root class."""
        self._remove(self.record["ours"])

    def undo(self) -> None:
        """Remove what `create` has made."""
        self._remove(self._made)

    def _remove(self, whole_class: bool) -> None:
        for path in (self._monitor, self._path if whole_class else ""):
            if path:
                try:
                    os.rmdir(path)
                except OSError as error:
                    if error.errno != ENOENT:
                        raise KernelError(error.errno or 0, "unable to remove", path) from error

    def stats(self) -> dict[str, Any]:
        """Return what `events` prints of the group, keys as runc has them."""
        top = self.record["root"]
        found: dict[str, Any] = {}
        kinds = (
            ("l3_cache", "L3", ("cbm_mask", "min_cbm_bits", "num_closids")),
            ("mem_bw", "MB", ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")),
        )
        whose = {"_root": Group({**self.record, "path": top}).schemata(), "": self.schemata()}
        for key, name, files in kinds:
            if os.path.isdir(f"{top}/info/{name}"):
                texts = {file: read(f"{top}/info/{name}/{file}").strip() for file in files}
                found[f"{key}_info"] = {
                    file: text if file == "cbm_mask" else whole(text)
                    for file, text in texts.items()
                }
                for suffix, rows in whose.items():
                    schema = [row for row in rows if row.startswith(f"{name}:")]
                    found[f"{key}_schema{suffix}"] = "".join(schema)
        found["schemata"] = whose[""]
        self._count(found)
        return found

    def _count(self, found: dict[str, Any]) -> None:
        """Add the counters, one entry for each cache domain."""
        folder = f"{self._monitor or self._path}/mon_data"
        try:
            domains = sorted(name for name in os.listdir(folder) if name.startswith("mon_L3"))
        except OSError:
            return
        for key, files in (("mbm_stats", ("mbm_total_bytes", "mbm_local_bytes")),
                           ("cmt_stats", ("llc_occupancy",))):  # fmt: skip
            if domains and os.path.exists(f"{folder}/{domains[0]}/{files[0]}"):
                found[key] = [
                    {file: whole(read(f"{folder}/{domain}/{file}").strip()) for file in files}
                    for domain in domains
                ]


def _make(path: str) -> bool:
    """Make a directory; tell whether it is new."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True
