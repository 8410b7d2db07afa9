"""What the ranks of a job read and write: one of them our input, all of them our output.

Lines are passed on whole, each with its rank in front (`[3] ...`), or go to files without passing
through us at all.
"""

from __future__ import annotations

from ocirt import system as os
from ocirt.console import write_all
from ocirt.errors import At

LONGEST = 1 << 16  # bytes of a line that are waited for; a longer one is broken
_CHUNK = 1 << 16


class Source:
    """One pipe that a rank writes to, `target` (1 or 2) being where it goes."""

    __slots__ = ("_rest", "fd", "label", "target")

    def __init__(self, fd: int, label: bytes, target: int) -> None:
        self.fd = fd
        self.label = label
        self.target = target
        self._rest = b""

    def lines(self, data: bytes) -> bytes:
        """Return the lines that `data` completes, labelled; without data, what is left.

        A carriage return ends a line as well: progress bars draw by it.
        """
        rows = (self._rest + data).splitlines(keepends=True)
        self._rest = b""
        if data and rows and not rows[-1].endswith(b"\n") and len(rows[-1]) < LONGEST:
            self._rest = rows.pop()  # one that ends in a carriage return may have its \n to come
        if rows and rows[-1][-1:] not in (b"\n", b"\r"):
            rows[-1] += b"\n"
        return b"".join([self.label + row for row in rows])


class Streams:
    """The descriptors of all ranks.

    stdin: the rank that reads ours, or -1.  output, errors: the file of each rank, or nothing;
    without `errors` both go to the same.  raw: hand down our own descriptors instead of pipes.
    """

    def __init__(
        self,
        *,
        stdin: int = 0,
        output: list[str] | None = None,
        errors: list[str] | None = None,
        raw: bool = False,
    ) -> None:
        self._stdin = stdin
        self._output = output or []
        self._errors = errors or []
        self._raw = raw
        self._null = -1
        self._theirs: dict[int, list[int]] = {}
        self.sources: dict[int, Source] = {}

    def open(self, rank: int) -> tuple[int, int, int]:
        """Return stdin, stdout and stderr of a rank; `close` comes once its init has them."""
        theirs = self._theirs[rank] = []
        if rank == self._stdin:
            first = 0
        else:
            if self._null < 0:
                self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
            first = self._null
        if self._output:
            out = self._file("--output", self._output[rank], theirs)
        else:
            out = self._pipe(rank, 1, theirs)
        if self._errors:
            return first, out, self._file("--error", self._errors[rank], theirs)
        return first, out, out if self._output else self._pipe(rank, 2, theirs)

    def _file(self, option: str, path: str, theirs: list[int]) -> int:
        with At(option):
            folder = os.path.dirname(path)
            if folder:
                os.makedirs(folder, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            theirs.append(os.open(path, flags, 0o666))
        return theirs[-1]

    def _pipe(self, rank: int, target: int, theirs: list[int]) -> int:
        if self._raw:
            return target
        ours, end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(ours, False)
        theirs.append(end)
        self.sources[ours] = Source(ours, b"[%d] " % rank, target)
        return end

    def close(self, rank: int) -> None:
        """Close our copies of a rank's ends: what it has written ends when it has ended."""
        for fd in self._theirs.pop(rank, ()):
            os.close(fd)

    def pump(self, fd: int) -> bool:
        """Pass on what a rank has written; False when that was all, and `fd` is closed."""
        source = self.sources.get(fd)
        if source is None:
            return False
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        text = source.lines(data)
        if text and not write_all(source.target, text):
            self._broken(source.target)
            return False
        if not data:
            self._end(fd)
        return bool(data)

    def _broken(self, target: int) -> None:
        """Let the ranks hear from the kernel that nobody reads what they write."""
        for fd in [fd for fd, source in self.sources.items() if source.target == target]:
            self._end(fd)

    def _end(self, fd: int) -> None:
        del self.sources[fd]
        os.close(fd)

    def drain(self) -> None:
        """Pass on all that has been written so far, and listen no longer.

        A process that a rank has left behind may hold its end for ever.
        """
        for fd in list(self.sources):
            while self._waiting(fd) and self.pump(fd):
                pass
        for source in list(self.sources.values()):
            write_all(source.target, source.lines(b""))
            self._end(source.fd)

    def _waiting(self, fd: int) -> bool:
        if fd not in self.sources:
            return False
        import select

        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))
