"""What the ranks of a job read and write: one of them our input, all of them our output.

Lines are passed on whole, each with its rank in front (`[3] ...`), or go to files without passing
through us at all.  Where nobody reads our output, the ranks wait once their pipes are full, and we
do not: signals and failures are heard all the same.
"""

from __future__ import annotations

import select
import time
from errno import EPIPE, ETIMEDOUT

from ocirt import log
from ocirt import system as os
from ocirt.errors import At
from ocirt.sink import FULL, Sink, same

LONGEST = 1 << 16  # bytes of a line that are waited for; a longer one is broken
_CHUNK = 1 << 16
_LARGEST = 1 << 20  # bytes in a pipe, if somebody has made it larger: /proc/sys/fs/pipe-max-size


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
        self._sinks: dict[int, Sink] = {}
        self._poll: select.poll | None = None
        self._writing: dict[int, Sink] = {}  # by descriptor, those that have no room
        self._resting: set[int] = set()  # sources whose sink is full
        self._lost = 0  # the errno by which output has been lost; not EPIPE: nobody wanted it
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

    def sink(self, target: int) -> Sink:
        """Return what stands for stdout (1) or stderr (2): one, where both are the same."""
        if target not in self._sinks:
            other = self._sinks.get(3 - target)
            self._sinks[target] = other if other and same(1, 2) else Sink(target)
        return self._sinks[target]

    def say(self, data: bytes) -> None:
        """Write something of our own to stderr, after what has been written before."""
        self._put(2, data)

    # --- while ranks run

    def watch(self, poll: select.poll) -> None:
        """Have this poll tell what there is to `hear`."""
        self._poll = poll
        for fd in self.sources:
            poll.register(fd, select.POLLIN)
        for sink in set(self._sinks.values()):
            self._settle(sink)

    def hear(self, fd: int) -> None:
        """Do what there is to do now that `fd` can be read, or written."""
        if fd in self._writing:
            sink = self._writing[fd]
            sink.write()
            self._settle(sink)
        elif fd in self.sources:
            self.pump(fd)

    def pump(self, fd: int) -> bool:
        """Pass on what a rank has written; False when that was all, and `fd` is closed."""
        source = self.sources[fd]
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        self._put(source.target, source.lines(data))
        if not data and fd in self.sources:
            self._end(fd)
        return fd in self.sources

    def _put(self, target: int, data: bytes) -> None:
        if data:
            sink = self.sink(target)
            sink.put(data)
            self._settle(sink)

    def _settle(self, sink: Sink) -> None:
        """Wait for room where there is none; let those wait who fill it."""
        if sink.error:
            self._broken(sink)
        poll = self._poll
        if poll is None:
            return
        if len(sink) and sink.fd not in self._writing:
            self._writing[sink.fd] = sink
            poll.register(sink.fd, select.POLLOUT)
        elif not len(sink) and sink.fd in self._writing:
            del self._writing[sink.fd]
            poll.unregister(sink.fd)
        if len(sink) >= FULL:
            for fd in self._of(sink) - self._resting:
                poll.unregister(fd)
                self._resting.add(fd)
        elif self._resting and len(sink) < FULL // 2:
            for fd in self._of(sink) & self._resting:
                poll.register(fd, select.POLLIN)
                self._resting.discard(fd)

    def _of(self, sink: Sink) -> set[int]:
        return {fd for fd, one in self.sources.items() if self.sink(one.target) is sink}

    def _broken(self, sink: Sink) -> None:
        """Let the ranks hear from the kernel that what they write goes nowhere."""
        for fd in self._of(sink):
            self._end(fd)
        if sink.error not in (EPIPE, self._lost):
            self._lost = sink.error
            if sink is not self._sinks.get(2):
                log.error(f"our output: {os.strerror(sink.error)}")

    def _end(self, fd: int) -> None:
        del self.sources[fd]
        if self._poll and fd not in self._resting:
            self._poll.unregister(fd)
        self._resting.discard(fd)
        os.close(fd)

    # --- when they have ended

    def drain(self) -> None:
        """Take all that has been written so far, and listen no longer.

        A process that a rank has left behind may hold its end for ever.
        """
        for fd in list(self.sources):
            for _ in range(_LARGEST // _CHUNK):
                if not (self._waiting(fd) and self.pump(fd)):
                    break
        for source in list(self.sources.values()):
            self._put(source.target, source.lines(b""))
            if source.fd in self.sources:
                self._end(source.fd)
        self._poll = None

    def _waiting(self, fd: int) -> bool:
        if fd not in self.sources:
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def flush(self, seconds: float | None) -> bool:
        """Write what is left, waiting so long for who reads it; None: until somebody does.

        Return whether nothing has been lost.
        """
        end = None if seconds is None else time.monotonic() + seconds
        for sink in dict.fromkeys(self._sinks.values()):
            poll = select.poll()
            poll.register(sink.fd, select.POLLOUT)
            while len(sink):
                left = None if end is None else max(0.0, end - time.monotonic()) * 1000
                if not poll.poll(left):
                    self._lost = ETIMEDOUT
                    break
                sink.write()
                self._settle(sink)
            sink.close()
        self._sinks.clear()
        return not self._lost
