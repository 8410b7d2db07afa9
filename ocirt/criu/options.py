"""Which option of `checkpoint` and `restore` is which field of CRIU's request.

One table: the command line reads its options from it, and the request its fields.  One more
switch of CRIU's is one more row, and one more field in rpc.py if that lacks it.

criu(8); CRIU: images/rpc.proto.
"""

from __future__ import annotations

from ocirt.criu import check, rpc
from ocirt.errors import At, Error
from ocirt.kernel.consts import CLONE_NEWNET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    CommandRow = tuple[str, str, str, Any, str]  # a row as ocirt/cli/options.py wants it
    Row = tuple[int, str, str, Any, str, Callable[[Any], Any] | None, int, str]


def _cgroups_mode(text: str) -> int:
    if text not in rpc.CGROUP_MODES:
        raise Error("invalid manage-cgroups-mode value")
    return rpc.CGROUP_MODES[text]


def _network_lock(text: str) -> int:
    if text not in rpc.NETWORK_LOCKS:
        raise Error(f"{text!r} is not one of {', '.join(rpc.NETWORK_LOCKS)}")
    return rpc.NETWORK_LOCKS[text]


def _page_server(text: str) -> dict[str, Any]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port):
        raise Error("Use --page-server ADDRESS:PORT to specify page server")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise Error("Invalid port number")
    return {"address": host, "port": int(port)}


def _empty_namespaces(names: list[str]) -> int:
    for name in names:
        if name != "network":
            raise Error(f'namespace "{name}" is not supported')
    # Always: interfaces and their addresses are the work of engines and hooks, not ours.
    return CLONE_NEWNET


CHECKPOINT, RESTORE = 1, 2
BOTH = CHECKPOINT | RESTORE

OPTIONS: tuple[Row, ...] = (
    # verbs       option             value   default  field            convert  CRIU since  help
    (CHECKPOINT, "leave-running",    "",     False,   "leave_running",    None, 0,
     "let the container go on afterwards"),
    (BOTH,       "tcp-established",  "",     False,   "tcp_established",  None, 0,
     "allow open TCP connections"),
    (CHECKPOINT, "tcp-skip-in-flight", "",   False,   "tcp_skip_in_flight", None, 0,
     "leave out TCP connections that are not yet established"),
    (RESTORE,    "tcp-close",        "",     False,   "tcp_close",        None, 0,
     "bring TCP connections back closed"),
    (CHECKPOINT, "link-remap",       "",     False,   "link_remap",       None, 0,
     "allow open files whose name is gone, by linking them back"),
    (BOTH,       "ext-unix-sk",      "",     False,   "ext_unix_sk",      None, 0,
     "allow unix sockets whose other end is outside"),
    (BOTH,       "shell-job",        "",     False,   "shell_job",        None, 0,
     "allow a session or a terminal of the caller's"),
    (BOTH,       "file-locks",       "",     False,   "file_locks",       None, 0,
     "allow file locks, as no one else holds them"),
    (BOTH,       "lazy-pages",       "",     False,   "lazy_pages",       None, 0,
     "bring memory back on first use, from a page server (userfaultfd)"),
    (CHECKPOINT, "page-server",      "ADDRESS:PORT", "", "ps",            _page_server, 0,
     "send memory to a page server instead of the image directory"),
    (BOTH,       "auto-dedup",       "",     False,   "auto_dedup",       None, 0,
     "free memory images that a later one has replaced"),
    (BOTH,       "manage-cgroups-mode", "MODE", "",   "manage_cgroups_mode", _cgroups_mode, 0,
     "what CRIU does about cgroups: soft, full, strict or ignore (CRIU's own default: soft)"),
    (BOTH,       "empty-ns",         "NAME", (),      "empty_ns",         _empty_namespaces, 0,
     "make this namespace but fill it with nothing: network, which is so anyway"),
    (BOTH,       "network-lock",     "METHOD", "",    "network_lock",     _network_lock, 31700,
     "how connections are held still: iptables, nftables or skip"),
    (RESTORE,    "lsm-profile",      "TYPE:NAME", "", "lsm_profile",      str, 31600,
     "another profile, such as apparmor:NAME or selinux:LABEL"),
    (RESTORE,    "lsm-mount-context", "CONTEXT", "",  "lsm_mount_context", str, 31600,
     "another SELinux context for what is mounted"),
)  # fmt: skip

# Set even when nothing asks for it: their converters say what that means.
_ALWAYS = ("manage_cgroups_mode", "empty_ns")


def rows(verb: int) -> tuple[CommandRow, ...]:
    """Return the options of a verb for its command line."""
    return tuple(
        [
            (name, "", value, default, text)
            for verbs, name, value, default, _, _, _, text in OPTIONS
            if verbs & verb
        ]
    )


def fields(verb: int, arguments: Any) -> dict[str, Any]:
    """Return what the options of a verb set in criu_opts; Error names the option at fault."""
    found = {}
    for name, field, convert, value, _ in _given(verb, arguments):
        if convert is None:
            found[field] = True
            continue
        with At(f"--{name}"):
            found[field] = convert(value)
    return found


def require(verb: int, arguments: Any, version: int) -> None:
    """Refuse the options that this version of CRIU does not know: it would pass them over."""
    for name, _, _, _, since in _given(verb, arguments):
        if version < since:
            wanted = f"{since // 10000}.{since // 100 % 100}"
            raise Error(f"--{name} requires at least CRIU {wanted}")
    check.require(version)


def _given(verb: int, arguments: Any) -> Iterator[tuple[str, str, Any, Any, int]]:
    for verbs, name, _, _, field, convert, since, _ in OPTIONS:
        if verbs & verb:
            value = getattr(arguments, name.replace("-", "_"))
            if value or field in _ALWAYS:
                yield name, field, convert, value, since
