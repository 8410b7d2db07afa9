"""Signals by name, as signal(7) numbers them on x86, arm, riscv, powerpc and s390.

mips, sparc and alpha number them otherwise; ocirt does not run there (docs/scope.md).
"""

from __future__ import annotations

from ocirt.errors import Error

NAMES = [
    "HUP",
    "INT",
    "QUIT",
    "ILL",
    "TRAP",
    "ABRT",
    "BUS",
    "FPE",
    "KILL",
    "USR1",
    "SEGV",
    "USR2",
    "PIPE",
    "ALRM",
    "TERM",
    "STKFLT",
    "CHLD",
    "CONT",
    "STOP",
    "TSTP",
    "TTIN",
    "TTOU",
    "URG",
    "XCPU",
    "XFSZ",
    "VTALRM",
    "PROF",
    "WINCH",
    "IO",
    "PWR",
    "SYS",
]

NUMBERS = {name: number for number, name in enumerate(NAMES, 1)}
NUMBERS.update({"IOT": 6, "CLD": 17, "POLL": 29, "RTMIN": 34, "RTMAX": 64})

LAST = 64


def parse(text: str) -> int:
    """Return the number of a signal given as `15`, `TERM`, `SIGTERM`, `sigterm` or `RTMIN+3`.

    0 is one, too: the kernel only looks whether there is somebody to get it.
    """
    if text.isascii() and text.isdigit():
        number = int(text)
        if number <= LAST:
            return number
    name = text.upper().removeprefix("SIG")
    if name in NUMBERS:
        return NUMBERS[name]
    base, sign, offset = name.partition("+" if "+" in name else "-")
    if base in ("RTMIN", "RTMAX") and sign and offset.isascii() and offset.isdigit():
        number = NUMBERS[base] + int(sign + offset)
        if NUMBERS["RTMIN"] <= number <= LAST:
            return number
    raise Error(f'unknown signal "{text}"')
