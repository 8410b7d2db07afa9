"""libseccomp, the part of it that makes programs: cold, since ctypes is dear.

The numbers and prototypes are those of its public header, seccomp.h, for the library's ABI 2
(2.5 and 2.6); tests/unit/plan/test_libseccomp.py holds them against the library itself.

Every call that can fail returns a negative errno; `Filter` turns it into a ConfigError with the
kernel's words for it.  The library never loads anything here: the program is exported, and the
init hands it to the kernel.
"""

from __future__ import annotations

import ctypes  # noqa: TID253 - a cold module, imported where a filter has to be compiled
from errno import EEXIST

from ocirt import system as os
from ocirt.errors import ConfigError, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

NAME = "libseccomp.so.2"

# enum scmp_filter_attr
ATTR_CTL_NNP = 3
ATTR_CTL_OPTIMIZE = 8

# enum scmp_compare
COMPARE = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

NO_SUCH_SYSCALL = -1  # __NR_SCMP_ERROR
MOST_ARGS = 6
LARGEST_DIRECT = 600  # beyond the tables of the architectures that have socketcall or ipc


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: a condition on one argument of a system call."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    """struct scmp_version."""

    _fields_ = (
        ("major", ctypes.c_uint),
        ("minor", ctypes.c_uint),
        ("micro", ctypes.c_uint),
    )


_CONTEXT = ctypes.c_void_p
PROTOTYPES = {
    "seccomp_version": (ctypes.POINTER(_Version), ()),
    "seccomp_init": (_CONTEXT, (ctypes.c_uint32,)),
    "seccomp_release": (None, (_CONTEXT,)),
    "seccomp_arch_native": (ctypes.c_uint32, ()),
    "seccomp_arch_resolve_name": (ctypes.c_uint32, (ctypes.c_char_p,)),
    "seccomp_arch_exist": (ctypes.c_int, (_CONTEXT, ctypes.c_uint32)),
    "seccomp_arch_add": (ctypes.c_int, (_CONTEXT, ctypes.c_uint32)),
    "seccomp_attr_set": (ctypes.c_int, (_CONTEXT, ctypes.c_int, ctypes.c_uint32)),
    "seccomp_syscall_resolve_name": (ctypes.c_int, (ctypes.c_char_p,)),
    "seccomp_syscall_resolve_name_arch": (ctypes.c_int, (ctypes.c_uint32, ctypes.c_char_p)),
    # a string of malloc(3), left to the end of the process
    "seccomp_syscall_resolve_num_arch": (ctypes.c_char_p, (ctypes.c_uint32, ctypes.c_int)),
    "seccomp_rule_add_array": (
        ctypes.c_int,
        (_CONTEXT, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)),
    ),
    "seccomp_export_bpf": (ctypes.c_int, (_CONTEXT, ctypes.c_int)),
}


class Library:
    """The loaded library; `path` is the file that it came from."""

    def __init__(self) -> None:
        try:
            self._calls = ctypes.CDLL(NAME)
        except OSError:
            raise ConfigError(
                f"needs {NAME}, which this machine lacks: "
                "install libseccomp2 (Debian, Ubuntu, SUSE) or libseccomp (Fedora, RHEL)"
            ) from None
        for name, (result, arguments) in PROTOTYPES.items():
            call = getattr(self._calls, name)
            call.restype, call.argtypes = result, arguments
        self.path = _path_of_loaded()

    def version(self) -> tuple[int, int, int]:
        """Return the version of the library that is loaded."""
        found = self._calls.seccomp_version().contents
        return found.major, found.minor, found.micro

    def native(self) -> int:
        """Return the token of this machine's architecture."""
        token: int = self._calls.seccomp_arch_native()
        return token

    def architecture(self, name: str) -> int:
        """Return the token of an architecture such as `x86_64`, 0 if the library has no such."""
        token: int = self._calls.seccomp_arch_resolve_name(name.encode())
        return token

    def syscall(self, name: str) -> int:
        """Return the number by which rules name a system call; a pseudo number if we lack it."""
        number: int = self._calls.seccomp_syscall_resolve_name(name.encode())
        return number

    def syscall_on(self, architecture: int, name: str) -> int:
        """Return the number of a system call on an architecture; negative if it has none."""
        number: int = self._calls.seccomp_syscall_resolve_name_arch(architecture, name.encode())
        return number

    def direct_number(self, architecture: int, name: str) -> int:
        """Return the number of a system call that the kernel really sees; -1 if there is none.

        For what once came by way of socketcall and ipc only, and now has a number of its own as
        well, the library's answer is a pseudo number.
        """
        number = self.syscall_on(architecture, name)
        if number >= 0 or number == NO_SUCH_SYSCALL:
            return number
        resolve, wanted = self._calls.seccomp_syscall_resolve_num_arch, name.encode()
        return next((n for n in range(LARGEST_DIRECT) if resolve(architecture, n) == wanted), -1)

    def filter(self, default_action: int) -> Filter:
        """Return a new filter without rules."""
        return Filter(self._calls, default_action)


class Filter:
    """One filter under construction, to be used in a `with`."""

    def __init__(self, calls: ctypes.CDLL, default_action: int) -> None:
        self._calls = calls
        self._context = calls.seccomp_init(default_action)
        if not self._context:
            raise ConfigError("defaultAction", "is not known to libseccomp or to this kernel")
        # no_new_privs is the business of process.noNewPrivileges alone.
        self._attribute(ATTR_CTL_NNP, 0)

    def __enter__(self) -> Filter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._calls.seccomp_release(self._context)

    def _attribute(self, attribute: int, value: int) -> None:
        _check(self._calls.seccomp_attr_set(self._context, attribute, value))

    def optimize(self) -> None:
        """Have the program search for a system call by halves, not from first to last."""
        self._attribute(ATTR_CTL_OPTIMIZE, 2)

    def add_architecture(self, token: int) -> None:
        """Let the filter judge the system calls of one more architecture."""
        if self._calls.seccomp_arch_exist(self._context, token):
            _check(self._calls.seccomp_arch_add(self._context, token))

    def add_rule(self, action: int, number: int, conditions: list[Comparison]) -> int:
        """Give `action` to a system call if all conditions hold; return 0 or -EEXIST."""
        array = (Comparison * len(conditions))(*conditions)
        result: int = self._calls.seccomp_rule_add_array(
            self._context, action, number, len(conditions), array
        )
        return result if result == -EEXIST else _check(result)

    def export(self) -> bytes:
        """Return the program, an array of struct sock_filter."""
        fd = os.memfd_create("seccomp")
        try:
            _check(self._calls.seccomp_export_bpf(self._context, fd))
            size = os.fstat(fd).st_size
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)


def _check(result: int) -> int:
    if result < 0:
        raise ConfigError("libseccomp", strerror(-result))
    return result


def _path_of_loaded() -> str:
    """Return the file that the loader took for libseccomp."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if path.rpartition("/")[2].startswith("libseccomp.so"):
                return "/" + path
    return ""
