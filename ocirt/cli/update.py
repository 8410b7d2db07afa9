"""ocirt update: give a container other limits while it runs."""

from __future__ import annotations

import sys

from ocirt import jsonio
from ocirt import update as limits
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.cli.options import Arguments
    from ocirt.cli.settings import Settings

USAGE = "[options] ID"
WORDS = (1, 1)
OPTIONS = (
    # long                short  value     default  help
    ("resources",          "r",  "FILE",   "",  "take all from FILE (-: stdin), linux.resources"),
    ("blkio-weight",       "",   "N",      0,   "weight of block input and output, 10 to 1000"),
    ("cpu-period",         "",   "USEC",   "",  "length of a CFS period"),
    ("cpu-quota",          "",   "USEC",   "",  "CPU time in each period; -1 lifts the limit"),
    ("cpu-burst",          "",   "USEC",   "",  "CPU time to save up beyond the quota"),
    ("cpu-share",          "",   "N",      "",  "CPU shares, against those of other containers"),
    ("cpu-rt-period",      "",   "USEC",   "",  "length of a realtime period"),
    ("cpu-rt-runtime",     "",   "USEC",   "",  "realtime CPU time in each period"),
    ("cpuset-cpus",        "",   "LIST",   "",  "CPUs to run on, such as 0-3,7"),
    ("cpuset-mems",        "",   "LIST",   "",  "memory nodes to use"),
    ("cpu-idle",           "",   "N",      "",  "1: run only when nobody else wants to; 0: do not"),
    ("memory",             "",   "BYTES",  "",  "memory limit; k, m, g, t may follow; -1 lifts it"),
    ("memory-reservation", "",   "BYTES",  "",  "memory that is reclaimed last"),
    ("memory-swap",        "",   "BYTES",  "",  "limit on memory and swap together; -1 lifts it"),
    ("pids-limit",         "",   "N",      0,   "most processes; -1 lifts the limit"),
    ("l3-cache-schema",    "",   "SCHEMA", "",  "L3 cache, such as L3:0=ff;1=f (resctrl)"),
    ("mem-bw-schema",      "",   "SCHEMA", "",  "memory bandwidth, such as MB:0=20;1=70 (resctrl)"),
    ("kernel-memory",      "",   "BYTES",  "",  ""),  # gone from the kernel, still given
    ("kernel-memory-tcp",  "",   "BYTES",  "",  ""),
)  # fmt: skip
ABOUT = """\
What is not given stays as it is, and so does what is given as 0. The JSON of --resources, which
overrides every other option, is a part of linux.resources; its device rules are ignored:

   {"memory": {"limit": 536870912, "swap": 536870912}, "cpu": {"quota": 50000, "period": 100000},
    "pids": {"limit": 100}}"""

UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def size(text: str) -> int:
    """Read a number of bytes: `64m`, `1.5G`, `100kb`, `2MiB`, -1."""
    if text == "-1":
        return -1
    number = text.lower()
    number = number.removesuffix("b").removesuffix("i") if number[-1:] == "b" else number
    shift = UNITS.get(number[-1:], 0)
    number = (number[:-1] if shift else number).removesuffix(" ")
    whole, point, rest = number.partition(".")
    digits = whole + rest
    if (
        not (digits.isascii() and digits.isdecimal() and whole and (rest or not point))
        or len(text) > 40
    ):
        raise ValueError(f"invalid size: '{text}'")
    found = (int(digits) << shift) // int("1" + "0" * len(rest))
    if found >= 1 << 63:
        raise ValueError(f"invalid size: '{text}'")
    return found


def signed(text: str) -> int:
    """Read a whole number."""
    return _whole(text, text[1:] if text[:1] in ("-", "+") else text)


def unsigned(text: str) -> int:
    """Read a whole number that is not negative."""
    return _whole(text, text)


def _whole(text: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
        raise ValueError(f'parsing "{text}": invalid syntax')
    return int(text)


FIELDS: tuple[tuple[str, str, str, Callable[[str], Any]], ...] = (
    # option              section   field              how it is read
    ("cpuset-cpus",        "cpu",    "cpus",            str),
    ("cpuset-mems",        "cpu",    "mems",            str),
    ("cpu-idle",           "cpu",    "idle",            signed),
    ("cpu-burst",          "cpu",    "burst",           unsigned),
    ("cpu-period",         "cpu",    "period",          unsigned),
    ("cpu-rt-period",      "cpu",    "realtimePeriod",  unsigned),
    ("cpu-share",          "cpu",    "shares",          unsigned),
    ("cpu-quota",          "cpu",    "quota",           signed),
    ("cpu-rt-runtime",     "cpu",    "realtimeRuntime", signed),
    ("memory",             "memory", "limit",           size),
    ("memory-swap",        "memory", "swap",            size),
    ("kernel-memory",      "memory", "kernel",          size),
    ("kernel-memory-tcp",  "memory", "kernelTCP",       size),
    ("memory-reservation", "memory", "reservation",     size),
)  # fmt: skip

# option: field of linux.intelRdt
RDT = {"l3-cache-schema": "l3CacheSchema", "mem-bw-schema": "memBwSchema"}


def run(arguments: Arguments, settings: Settings) -> int:
    """Change the limits; 0, or an Error and everything as before."""
    change = from_file(arguments.resources) if arguments.resources else from_options(arguments)
    given = {field: getattr(arguments, name.replace("-", "_")) for name, field in RDT.items()}
    rdt = {field: schema for field, schema in given.items() if schema}
    limits.update(settings.root, arguments.words[0], change, rdt)
    return 0


def from_file(path: str) -> dict[str, Any]:
    """Return a part of linux.resources, checked as that of a config is; without what is unknown."""
    from ocirt import shape

    if path == "-":
        change = jsonio.parse(sys.stdin.buffer.read(jsonio.LARGEST + 1))
    else:
        change = jsonio.load(path)
    if change is None:
        return {}
    shape.check(change, shape.RESOURCES, "linux.resources")
    return {section: part for section, part in change.items() if section in shape.RESOURCES[0]}


def from_options(arguments: Arguments) -> dict[str, Any]:
    """Return the part of linux.resources that the options stand for."""
    given: dict[str, str] = {
        name: getattr(arguments, name.replace("-", "_")) for name, *_ in OPTIONS
    }
    change: dict[str, Any] = {}
    for option, section, field, convert in FIELDS:
        if text := given[option]:
            try:
                change.setdefault(section, {})[field] = convert(text)
            except ValueError as error:
                raise Error(f"invalid value for {option}: {error}") from None
    if weight := arguments.blkio_weight:
        change["blockIO"] = {"weight": weight}
    if most := arguments.pids_limit:
        change["pids"] = {"limit": most}
    return change
