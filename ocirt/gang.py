"""Several containers from one process: all of them start, or none is left.

Every rank is a container like any other, made by the steps of create.py, with a state directory
that the other verbs know.  What one process can do that N could not: read and check the bundle
once, have several inits at work at the same time, start all when all are ready, and end the rest
when one fails.
"""

from __future__ import annotations

import select
import time

from ocirt import container, log
from ocirt import system as os
from ocirt.create import Draft, steps
from ocirt.errors import At, Error, Exists, HookError
from ocirt.kernel import procfs, signals
from ocirt.launch import sealed_copy
from ocirt.undo import Undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ocirt.cgroup.fs import Manager
    from ocirt.console import Signals
    from ocirt.create import Made, Wish
    from ocirt.pmi import Server
    from ocirt.streams import Streams

WINDOW = 8  # inits at work at the same time; what limits us is our own work, and the kernel's locks

SIGKILL, SIGTERM, SIGCHLD, SIGCONT, SIGSTOP = 9, 15, 17, 18, 19
ENDING = (1, 2, 15)  # SIGHUP, SIGINT, SIGTERM: after one of these a job is expected to end
STOPPING = (20, 21, 22)  # SIGTSTP, SIGTTIN, SIGTTOU: the job stops with us, as a shell expects
OURS = frozenset({SIGCHLD, 23, 28})  # SIGURG, SIGWINCH: about ourselves, not passed on


class Rank:
    """One container of the gang.  code: what its program ended with, None until then."""

    __slots__ = ("_steps", "_undo", "code", "draft", "made", "name", "number", "root", "wish")

    def __init__(self, number: int, wish: Wish) -> None:
        self.number = number
        self.name = wish.container_id
        self.root = wish.root
        self.wish: Wish | None = wish
        self.draft: Draft | None = None
        self.made: Made | None = None
        self.code: int | None = None
        self._undo = Undo()
        self._steps: Generator[int, None, Made] | None = None

    @property
    def pid(self) -> int:
        """The pid of the init, 0 before there is one and once it has been reaped."""
        return self.made.pid if self.made and self.code is None else 0

    def decide(self, stdio: tuple[int, ...]) -> Draft:
        """Decide everything, with these descriptors for the program, from 0 on."""
        assert self.wish is not None
        self.wish.stdio = stdio
        with At(self.name):
            self.draft = Draft(self.wish)
            if not self.number:  # what is to be said of the bundle is said once
                for warning in self.draft.warnings():
                    log.warning(warning)
        return self.draft

    def step(self) -> int:
        """Go on with making it; return the descriptor to wait for, -1 when it is made."""
        if self._steps is None:
            assert self.draft is not None
            self._steps = steps(self.draft, self._undo)
        try:
            with At(self.name):
                return next(self._steps)
        except StopIteration as end:
            self.made = end.value
            self.draft = self.wish = None
        return -1

    def take_back(self) -> None:
        """Undo what has been made of it."""
        if self._steps is not None:
            self._steps.close()
        self._undo.run()

    def settle(self) -> None:
        """Keep it: from here on `delete` is how it goes.  Others may act on it now."""
        assert self.made is not None
        self.made.container.unlock()
        self._undo, self._steps = Undo(), None


class Gang:
    """The ranks of a job, from the first that is made to the last that is deleted.

    signals: those that are sent to us.  told: is called with the number of ranks that are made,
    later of those that have ended.
    """

    def __init__(
        self,
        wishes: list[Wish],
        streams: Streams,
        signals: Signals,
        told: Callable[[str, int], None],
    ) -> None:
        self.ranks = [Rank(number, wish) for number, wish in enumerate(wishes)]
        self._streams = streams
        self._signals = signals
        self._told = told
        self._poll = select.poll()
        self._poll.register(signals, select.POLLIN)
        self._manager: Manager | None = None  # of a shared cgroup
        self._settled = False
        self._ended = 0
        self._deadline: float | None = None
        self._signal = 0  # the first that we were told to end by
        self._told_to_end = 0  # how often
        self._result = 0  # of the first rank that failed
        self.pmi: Server | None = None  # who answers ranks that speak PMI-1
        self.shared = False  # whether all ranks live in one cgroup
        self.keep_going = False
        self.grace = 0.0  # seconds between SIGTERM and SIGKILL

    # --- before the start

    def make(self) -> None:
        """Make every container, up to the gate."""
        for rank in self.ranks:
            if os.path.lexists(os.path.join(rank.root, rank.name)):
                with At(rank.name):
                    raise Exists
        program = sealed_copy()
        for rank in self.ranks:
            assert rank.wish is not None
            rank.wish.program = program
        # The first one alone: what is wrong with the bundle shows before there are many.
        self._make(self.ranks[:1])
        self._make(self.ranks[1:])
        os.close(program)

    def _share(self, draft: Draft) -> None:
        """Make the cgroup that all ranks are to live in, as the first one's config says."""
        manager = draft.manager
        if manager is None:
            return
        with At(self.ranks[0].name):
            manager.create(draft.linux.get("resources") or {})
            self._manager = manager
            manager.delegate(draft.config)
        manager.shared = True
        for rank in self.ranks[1:]:
            assert rank.wish is not None
            rank.wish.cgroup = manager.record()

    def _make(self, ranks: list[Rank]) -> None:
        waiting = list(reversed(ranks))
        at_work: dict[int, Rank] = {}
        while waiting or at_work:
            while waiting and len(at_work) < WINDOW:
                rank = waiting.pop()
                try:
                    draft = rank.decide(self._open(rank.number))
                    if self.shared and not rank.number:
                        self._share(draft)
                    self._step(rank, at_work, -1)
                finally:
                    self._close(rank.number)
            for fd, _ in self._poll.poll():
                if fd == self._signals.fileno():
                    self._interrupted()
                elif fd in at_work:
                    self._step(at_work.pop(fd), at_work, fd)

    def _open(self, number: int) -> tuple[int, ...]:
        """Return the descriptors of a rank's program."""
        stdio = self._streams.open(number)
        return (*stdio, self.pmi.open(number)) if self.pmi else stdio

    def _close(self, number: int) -> None:
        """Close our copies: its init has them."""
        self._streams.close(number)
        if self.pmi:
            self.pmi.close(number)

    def _step(self, rank: Rank, at_work: dict[int, Rank], before: int) -> None:
        fd = rank.step()
        if fd != before:
            if before >= 0:
                self._poll.unregister(before)
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)
        if fd >= 0:
            at_work[fd] = rank
        else:
            self._told("made", sum(1 for one in self.ranks if one.made))

    def _interrupted(self) -> None:
        for number in self._signals.read():
            if number in ENDING:
                error = Error(f"SIG{signals.NAMES[number - 1]}: no rank has been started")
                error.exit_code = 128 + number
                raise error

    def start(self) -> dict[int, Rank]:
        """Let all ranks go; return the gates, which close as each becomes its program."""
        gates: dict[int, Rank] = {}
        try:
            for rank in self.ranks:
                assert rank.made is not None
                with At(rank.name):
                    gates[container.open_gate(rank.made.container)] = rank
            for gate, rank in gates.items():
                assert rank.made is not None
                container.let_go(rank.made.container, gate)
        except BaseException:
            for gate in gates:
                os.close(gate)
            raise
        for rank in self.ranks:
            rank.settle()
        self._settled = True
        return gates

    # --- while they run

    def watch(self, gates: dict[int, Rank]) -> int:
        """See all ranks through to their end; return what the job ends with."""
        poll, streams = self._poll, self._streams
        for gate in gates:
            poll.register(gate, 0)
        streams.watch(poll)
        asking = self.pmi.clients if self.pmi else {}
        for fd in asking:
            poll.register(fd, select.POLLIN)
        self._reap()
        while self._ended < len(self.ranks):
            for fd, _ in poll.poll(self._patience()):
                if fd == self._signals.fileno():
                    self._hear()
                elif fd in gates:
                    poll.unregister(fd)
                    os.close(fd)
                    self._poststart(gates.pop(fd))
                elif not (self.pmi and fd in asking):
                    streams.hear(fd)
                elif not self.pmi.hear(fd):
                    poll.unregister(fd)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._kill_all()
        for fd in gates:
            os.close(fd)
        streams.drain()
        return self._result

    def _patience(self) -> float | None:
        """Return the milliseconds until those who were told to end have had their time."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic()) * 1000 + 1

    def _hear(self) -> None:
        for number in self._signals.read():
            if number == SIGCHLD:
                self._reap()
            elif number in ENDING:
                self._told_to_end += 1
                if self._signal:
                    self._kill_all()  # twice is meant seriously
                else:
                    self._signal = number
                    self._end_all(number)
            elif number in STOPPING:
                self._everywhere(SIGSTOP)
                self._signals.stand_still(number)
            elif number == SIGCONT:
                self._everywhere(SIGCONT)
            elif number not in OURS:
                self._send(number)

    def _send(self, number: int) -> None:
        for rank in self.ranks:
            if rank.pid:
                os.kill(rank.pid, number)  # our own child, not yet reaped: the pid is its own

    def _everywhere(self, number: int) -> None:
        """Send a signal to all processes of all ranks."""
        for rank in self.ranks:
            if rank.pid and rank.made:
                try:
                    container.kill(rank.made.container, number, everyone=True)
                except Error as error:
                    log.warning(f"{rank.name}: {error}")

    def patience(self) -> float | None:
        """Return the seconds that who reads our output still has, None for as many as he likes."""
        told = sum(1 for number in self._signals.read() if number in ENDING)
        if not (told or self._signal):
            return None
        return self.grace if told + self._told_to_end == 1 else 0.0

    def _end_all(self, number: int) -> None:
        """Tell all to end; those that the kernel does not let hear it are killed.

        To the first process of a pid namespace a signal that it does not catch is not delivered:
        that would have ended any other.
        """
        self._deadline = time.monotonic() + self.grace
        for rank in self.ranks:
            if rank.pid:
                os.kill(rank.pid, number if heeds(rank.pid, number) else SIGKILL)

    def _kill_all(self) -> None:
        self._deadline = None
        self._send(SIGKILL)

    def _reap(self) -> None:
        by_pid = {rank.pid: rank for rank in self.ranks if rank.pid}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in by_pid:
                code = os.waitstatus_to_exitcode(status)
                self._has_ended(by_pid[pid], code)

    def _has_ended(self, rank: Rank, code: int) -> None:
        rank.code = code if code >= 0 else 128 - code
        self._ended += 1
        self._told("ended", self._ended)
        if not code:
            return
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        if code == -SIGKILL and self._out_of_memory(rank):
            how += ", out of memory"
        self._failed(rank, rank.code, how)

    def _failed(self, rank: Rank, code: int, how: str) -> None:
        if self._signal:
            self._result = self._result or 128 + self._signal
            return
        if self._result and not self.keep_going:
            return  # it was told to end
        self._result = self._result or code
        rest = "" if self.keep_going else "; the others are ended"
        log.error(f"rank {rank.number} ({rank.name}): {how}{rest}")
        if not self.keep_going:
            self._end_all(SIGTERM)

    @staticmethod
    def _out_of_memory(rank: Rank) -> bool:
        """Whether the kernel has killed in this rank's cgroup, for lack of memory."""
        assert rank.made is not None
        manager = container.manager_of(rank.made.container)
        return manager is not None and manager.oom_killed()

    def aborted(self, number: int, code: int) -> None:
        """End the job since a rank asks for it, in words of its own."""
        rank = self.ranks[number]
        if rank.code is None:
            self._failed(rank, code or 1, f"MPI_Abort, exit status {code}")

    def _poststart(self, rank: Rank) -> None:
        assert rank.made is not None
        if rank.code is not None:
            return
        try:
            container.poststart(rank.made.container)
        except HookError as error:
            self._failed(rank, error.exit_code, str(error))

    # --- the end

    def delete(self) -> None:
        """Delete all containers, as far as nobody else has done so."""
        for rank in self.ranks:
            try:
                for failure in container.delete(rank.root, rank.name, force=True):
                    log.warning(f"{rank.name}: {failure}")
            except Error as error:
                log.warning(f"{rank.name}: {error}")
        self._sweep()

    def take_back(self) -> None:
        """Leave nothing, wherever it was that something failed."""
        self._kill_all()
        if self._settled:
            self.delete()
            return
        for rank in reversed(self.ranks):
            rank.take_back()
        self._sweep()

    def _sweep(self) -> None:
        """Remove the shared cgroup, with what ranks have left in there."""
        if self._manager is not None:
            self._manager.kill(SIGKILL)
            self._manager.undo()


def heeds(pid: int, number: int) -> bool:
    """Whether a signal would reach the program, or be ignored by its own will."""
    try:
        spaces = procfs.field(pid, "NSpid").split()
        if len(spaces) < 2 or spaces[-1] != "1":
            return True
        masks = [int(procfs.field(pid, name), 16) for name in ("SigCgt", "SigIgn")]
    except (OSError, ValueError):
        return True  # it has ended
    return any(mask >> number - 1 & 1 for mask in masks)
