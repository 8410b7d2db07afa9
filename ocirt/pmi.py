"""PMI-1, the part that a node-local job needs: ranks of MPICH and its kin find each other.

Each rank inherits one end of a socket, whose number PMI_FD names, and speaks in lines:

    cmd=init pmi_version=1 pmi_subversion=1     ->  cmd=response_to_init ... rc=0
    cmd=put kvsname=K key=a value=b             ->  cmd=put_result rc=0 msg=success
    cmd=barrier_in                              ->  cmd=barrier_out, once all ranks are in
    cmd=get kvsname=K key=a                     ->  cmd=get_result rc=0 msg=success value=b
    cmd=finalize                                ->  cmd=finalize_ack
    cmd=abort exitcode=3                            ends the job

What ranks write is believed no further than that: what is no line of this kind ends the
conversation with that rank, and the store has a limit.  Spawning more ranks is refused.

The wire protocol of PMI-1 as MPICH's libraries speak it ("PMI: A Scalable Parallel
Process-Management Interface for Extreme-Scale Systems", 2010).
"""

from __future__ import annotations

from _socket import socket, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FD = 3  # the first number behind stdin, stdout and stderr

KEY, VALUE, NAME = 64, 1024, 256  # bytes: what clients are told, NUL included
LONGEST = 4096  # bytes of a line
MOST = 64 << 20  # bytes of all keys and values
FAILED = "rc=-1 msg="


class Client:
    """One rank's conversation."""

    __slots__ = ("rank", "rest", "socket", "spawning")

    def __init__(self, rank: int, sock: socket) -> None:
        self.rank = rank
        self.socket = sock
        self.rest = b""
        self.spawning = False  # inside of a command of several lines


class Server:
    """The ranks' directory.

    aborted: is called with the rank that asks for the end of the job, and the exit code it wants.
    """

    def __init__(self, size: int, name: str, aborted: Callable[[int, int], None]) -> None:
        self._size = size
        self._name = f"kvs_{name}"[: NAME - 1]
        self._aborted = aborted
        # How ranks are spread over nodes: one block of one node with all of them.
        self._store = {"PMI_process_mapping": f"(vector,(0,1,{size}))"}
        self._room = MOST
        self._waiting: set[int] = set()  # ranks in the barrier
        self._theirs: dict[int, socket] = {}
        self.clients: dict[int, Client] = {}

    def open(self, rank: int) -> int:
        """Return the end for a rank's program; `close` comes once its init has it."""
        ours, theirs = socketpair()
        ours.setblocking(False)
        self.clients[ours.fileno()] = Client(rank, ours)
        self._theirs[rank] = theirs
        return theirs.fileno()

    def close(self, rank: int) -> None:
        """Close our copy of a rank's end."""
        if rank in self._theirs:
            self._theirs.pop(rank).close()

    def hear(self, fd: int) -> bool:
        """Answer what a rank asks; False when it has nothing more to ask, and `fd` is closed."""
        client = self.clients.get(fd)
        if client is None:
            return False
        try:
            data = client.socket.recv(1 << 16)
            lines = (client.rest + data).split(b"\n")
            client.rest = lines.pop()
            goes_on = bool(data) and len(client.rest) <= LONGEST
            for line in lines:
                goes_on = goes_on and self._line(client, line)
        except BlockingIOError:
            goes_on = True
        except OSError:
            goes_on = False
        if not goes_on:
            del self.clients[fd]
            client.socket.close()
        return goes_on

    def _line(self, client: Client, line: bytes) -> bool:
        text = line.decode("utf-8", "surrogateescape")
        if client.spawning or text.startswith("mcmd="):
            client.spawning = text != "endcmd"
            return client.spawning or self._say(
                client, f"cmd=spawn_result {FAILED}spawn_is_not_supported"
            )
        # A value may hold blanks, and comes last.
        head, has_value, value = text.partition(" value=")
        words = dict(word.split("=", 1) for word in head.split() if "=" in word)
        answer = getattr(self, f"_do_{words.get('cmd')}", None)
        if answer is None:
            return False
        if has_value:
            words["value"] = value
        reply: str | None = answer(client, words)
        return reply is None or self._say(client, reply)

    @staticmethod
    def _say(client: Client, text: str) -> bool:
        # It waits for the answer to one question at a time, so that there is always room.
        data = text.encode("utf-8", "surrogateescape") + b"\n"
        try:
            return client.socket.send(data) == len(data)
        except BlockingIOError:
            return False

    # --- one method for each command

    def _do_init(self, client: Client, words: dict[str, str]) -> str:
        known = words.get("pmi_version") == "1"
        return f"cmd=response_to_init pmi_version=1 pmi_subversion=1 rc={0 if known else -1}"

    def _do_get_maxes(self, client: Client, words: dict[str, str]) -> str:
        return f"cmd=maxes rc=0 kvsname_max={NAME} keylen_max={KEY} vallen_max={VALUE}"

    def _do_get_appnum(self, client: Client, words: dict[str, str]) -> str:
        return "cmd=appnum rc=0 appnum=0"

    def _do_get_my_kvsname(self, client: Client, words: dict[str, str]) -> str:
        return f"cmd=my_kvsname rc=0 kvsname={self._name}"

    def _do_get_universe_size(self, client: Client, words: dict[str, str]) -> str:
        return f"cmd=universe_size rc=0 size={self._size}"

    def _do_put(self, client: Client, words: dict[str, str]) -> str:
        key, value = words.get("key", ""), words.get("value", "")
        if words.get("kvsname") != self._name or not 0 < len(key) < KEY or len(value) >= VALUE:
            return f"cmd=put_result {FAILED}not_a_key_and_value_of_this_job"
        old = self._store.get(key)
        more = len(value) + (len(key) if old is None else -len(old))
        if more > self._room:
            return f"cmd=put_result {FAILED}no_room_left"
        self._room -= more
        self._store[key] = value
        return "cmd=put_result rc=0 msg=success"

    def _do_get(self, client: Client, words: dict[str, str]) -> str:
        value = self._store.get(words.get("key", ""))
        if value is None or words.get("kvsname") != self._name:
            return f"cmd=get_result {FAILED}key_not_found"
        return f"cmd=get_result rc=0 msg=success value={value}"

    def _do_barrier_in(self, client: Client, words: dict[str, str]) -> None:
        self._waiting.add(client.rank)
        if len(self._waiting) < self._size:
            return
        self._waiting.clear()
        for one in self.clients.values():
            self._say(one, "cmd=barrier_out rc=0")

    def _do_finalize(self, client: Client, words: dict[str, str]) -> str:
        return "cmd=finalize_ack rc=0"

    def _do_abort(self, client: Client, words: dict[str, str]) -> None:
        code = words.get("exitcode", "")
        self._aborted(client.rank, int(code) & 255 if code.isascii() and code.isdigit() else 1)
