"""Whose the program is, where its home is, and that its image knows the user.

    user.mode = "image"     as the config has it
                "fixed"     user.value: UID, UID:GID, or a name
                "caller"    who calls us; under an engine's daemon that is root
                "env"       the variable user.variable, which an image may set: never root;
                            user.value, where it is not set

Ids are the host's: files on shared file systems belong to them.  Where the container has a user
namespace they are translated, and one that it does not map is refused.  Names, homes and groups are
those that the host knows; a number that it does not know is just a number.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.errors import At, ConfigError
from ocirt_hpc.edits import Place
from ocirt_hpc.image import Image
from ocirt_hpc.request import NO_ENV, annotation, has_namespace, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.edits import Section
    from ocirt_hpc.host import Host
    from ocirt_hpc.notes import Notes
    from ocirt_hpc.site import Site
    from ocirt_hpc.tree import Tree

KEEP = "ocirt.hpc/user"
LARGEST_ID = (1 << 32) - 2
LARGEST_FILE = 1 << 20

FILE = ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"]
HOME = ["rbind", "rslave", "nosuid", "nodev"]

BARE_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
BARE_GROUP = "root:x:0:\nnobody:x:65534:\n"


class Account:
    """A user of the host; `name` and `home` are "" where it knows none."""

    def __init__(self, uid: int, gid: int, name: str = "", home: str = "") -> None:
        self.uid = uid
        self.gid = gid
        self.name = name
        self.home = home
        self.shell = "/bin/sh"
        self.gids: list[int] = []  # additional groups
        self.groups: dict[int, str] = {}  # names of groups, as far as known


class _Users:
    """The users of one machine; of one that is a directory, those in its files."""

    def __init__(self, host: Host) -> None:
        if host.root:
            lines = (host.text("/etc/passwd") or "").splitlines()
            users = [line.split(":") for line in lines if _id(line) and line.count(":") == 6]
            self.users = [(u[0], int(u[2]), int(u[3]), u[5], u[6]) for u in users]
            lines = (host.text("/etc/group") or "").splitlines()
            groups = [line.split(":") for line in lines if _id(line) and line.count(":") == 3]
            self.groups = [(g[0], int(g[2]), g[3].split(",")) for g in groups]
        self.local = not host.root

    def user(self, who: int | str) -> tuple[str, int, int, str, str] | None:
        """Return (name, uid, gid, home, shell) of a user by id or name."""
        if not self.local:
            return next((one for one in self.users if who in one[:2]), None)
        import pwd

        try:
            found = pwd.getpwuid(who) if isinstance(who, int) else pwd.getpwnam(who)
        except KeyError:
            return None
        return found.pw_name, found.pw_uid, found.pw_gid, found.pw_dir, found.pw_shell

    def gids(self, name: str, gid: int) -> list[int]:
        """Return the additional groups of a user."""
        if not self.local:
            return [number for _, number, members in self.groups if name in members]
        return [number for number in os.getgrouplist(name, gid) if number != gid]

    def group(self, gid: int) -> str:
        """Return the name of a group, or ""."""
        if not self.local:
            return next((name for name, number, _ in self.groups if number == gid), "")
        import grp

        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return ""


def sections(
    config: dict[str, Any], site: Site, host: Host, tree: Tree, notes: Notes, rootfs: str
) -> list[Section]:
    """Return the edits for the user and the home; [] where the image's user stays."""
    process = config.get("process")
    mode = site["user", "mode"]
    if not process:
        return []
    asked = annotation(config, KEEP)
    if asked is not None:
        if not site["user", "keep"] and mode != "image":
            raise ConfigError(asked.where, "the site does not allow it (user.keep in hpc.toml)")
        mode = "image"
    users = _Users(host)
    account = _wanted(mode, site, users, config, notes)
    if account is None:
        mode, user = "image", process.get("user") or {}
        account = _known(user.get("uid", 0), user.get("gid", 0), users)
    inside = _inside(config, account, mode)
    made: list[Section] = []
    if mode != "image":
        made.append((Place(f"hpc.toml: user.mode={mode}"), {"user": [inside]}))
    home = account.home
    if site["user", "set-home"] and home:
        made.append((Place("hpc.toml: user.set-home"), {"env": [f"HOME={home}"]}))
    # With the image's own user the image would choose whose home it gets.
    how = "none" if (site["user", "home"], mode) == ("bind", "image") else site["user", "home"]
    made += _home(how, account, inside, host, notes)
    if site["user", "accounts"]:
        with Image(rootfs) as image:
            made += _files(account, inside, image, tree)
    return made


def _wanted(
    mode: str, site: Site, users: _Users, config: dict[str, Any], notes: Notes
) -> Account | None:
    """Return whose the program is to be, in ids of the host; None: the image's user's."""
    if mode == "caller":
        account = _known(os.getuid(), os.getgid(), users)
        account.gids = [gid for gid in os.getgroups() if gid != account.gid]
        account.groups.update({gid: users.group(gid) for gid in account.gids})
        return account
    if mode == "env":
        name = site["user", "variable"]
        value = variables(config).get(name, "")
        if value and not site["policy", "env-requests"]:
            notes.leave_out(f"{name}={value}", NO_ENV)
        elif value:
            with At(f"process.env: {name}"):
                account = read(value, users)
                if 0 in (account.uid, account.gid, *account.gids):
                    raise ConfigError("a variable cannot ask for root")
                return account
    if mode in ("fixed", "env") and site["user", "value"]:
        with At("user.value in hpc.toml"):
            return read(site["user", "value"], users)
    return None


def read(value: str, users: _Users) -> Account:
    """Return the account that UID, UID:GID or a name means."""
    who, colon, group = value.partition(":")
    for word in (who, group) if colon else (who,):
        if word.isascii() and word.isdecimal():
            # Python refuses to read very long numbers.
            if len(word) > 10 or int(word) > LARGEST_ID:
                raise ConfigError(f'"{value:.80}" holds a number that is no id')
        elif word is group or not word or not word.isprintable():
            raise ConfigError(f"{value!r:.80} is not UID, UID:GID or a name")
    number = int(who) if who.isascii() and who.isdecimal() else None
    found = users.user(who if number is None else number)
    if found is None and number is None:
        raise ConfigError(f'the host knows no user "{who}"')
    if found is None and not colon:
        raise ConfigError(f'the host knows no user {who}; say "{who}:GID"')
    uid = found[1] if found else number or 0
    return _known(uid, int(group) if colon else found[2] if found else 0, users, groups=True)


def _known(uid: int, gid: int, users: _Users, *, groups: bool = False) -> Account:
    """Return what the host knows of a user."""
    account, found = Account(uid, gid), users.user(uid)
    if found:
        account.name, account.home = found[0], found[3]
        account.shell = found[4] or account.shell
        if groups:
            account.gids = users.gids(found[0], gid)
    account.groups = {one: users.group(one) for one in (gid, *account.gids)}
    return account


def _inside(config: dict[str, Any], account: Account, mode: str) -> dict[str, Any]:
    """Return the user as the config has to name him: in ids of the container."""
    linux, user = config.get("linux") or {}, config["process"].get("user") or {}
    if mode == "image":
        return {"uid": user.get("uid", 0), "gid": user.get("gid", 0)}
    found: dict[str, Any] = {"uid": account.uid, "gid": account.gid}
    gids = account.gids
    if has_namespace(config, "user"):
        for field, word in (("uid", "uidMappings"), ("gid", "gidMappings")):
            number = _mapped(linux.get(word) or (), found[field])
            if number is None:
                raise ConfigError(
                    f"hpc.toml: user.mode={mode}",
                    f"{field} {found[field]} of the host is not in linux.{word}",
                )
            found[field] = number
        inside = [_mapped(linux.get("gidMappings") or (), gid) for gid in gids]
        gids = [gid for gid in inside if gid is not None]
    found["additionalGids"] = gids
    return found


def _mapped(mappings: Any, number: int) -> int | None:
    for row in mappings:
        if 0 <= number - row["hostID"] < row["size"]:
            inside: int = row["containerID"] + number - row["hostID"]
            return inside
    return None


def _home(
    how: str, account: Account, inside: dict[str, Any], host: Host, notes: Notes
) -> list[Section]:
    """Return the edits that put something at the user's home."""
    origin, home = Place(f"hpc.toml: user.home={how}"), os.path.normpath(account.home or "/")
    if how == "none":
        return []
    # Homes such as / and /bin, of users that are services, are nobody's.
    if home.count("/") < 2 and home != "/root":
        notes.leave_out(origin, f"uid {account.uid} has no home on this host")
        return []
    if how == "bind":
        if not host.there(home):
            notes.leave_out(origin, f"this host has no {home}")
            return []
        mount = {"containerPath": home, "hostPath": host.root + home, "options": HOME}
    else:
        options = ["nosuid", "nodev", "mode=0700", f"uid={inside['uid']}", f"gid={inside['gid']}"]
        mount = {"containerPath": home, "hostPath": "tmpfs", "type": "tmpfs", "options": options}
    return [(origin, {"mounts": [mount]})]


def _files(account: Account, inside: dict[str, Any], image: Image, tree: Tree) -> list[Section]:
    """Return the edits that make /etc/passwd and /etc/group know the user: copies of the image's.

    A line of the image's with the same name or number gives way; the image itself stays.
    """
    uid, gid = inside["uid"], inside["gid"]
    name = account.name or f"user{uid}"
    line = f"{name}:x:{uid}:{gid}::{account.home or '/'}:{account.shell}"
    groups = {gid: account.groups.get(account.gid) or f"group{gid}"}
    if "additionalGids" in inside and inside["additionalGids"] == account.gids:
        groups.update({one: account.groups.get(one) or f"group{one}" for one in account.gids})
    lines = [
        f"{word}:x:{number}:{name if number != gid else ''}" for number, word in groups.items()
    ]
    made: list[Section] = []
    for path, bare, rows in (
        ("/etc/passwd", BARE_PASSWD, [line]),
        ("/etc/group", BARE_GROUP, lines),
    ):
        held = image.read(path, LARGEST_FILE)
        text = bare if held is None else held.decode("utf-8", "surrogateescape")
        own = {field for row in rows for field in (row.split(":")[0], row.split(":")[2])}
        kept = [row for row in text.splitlines() if not own & {row.split(":")[0], _id(row)}]
        content = "\n".join([*rows, *kept, ""]).encode("utf-8", "surrogateescape")
        source = tree.file(path[1:], content)
        mount = {"containerPath": path, "hostPath": source, "options": FILE}
        made.append((Place(f"hpc.toml: user.accounts {path}"), {"mounts": [mount]}))
    return made


def _id(row: str) -> str:
    """Return the number in a row of such a file, or ""."""
    number = row.split(":")[2] if row.count(":") >= 2 else ""
    return number if number.isascii() and number.isdecimal() else ""
