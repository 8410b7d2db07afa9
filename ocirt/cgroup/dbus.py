"""Speak D-Bus: enough of it to call systemd, and to hear what it says afterwards.

`encode` and `decode` turn values into bytes and back by a signature; `Connection` logs in, sends
calls and sorts what comes.  Nothing here knows systemd.  What the other side sends is not to be
believed: lengths are held against what is there, and every wait has an end.

    y n q i u x t  numbers     b  bool      d  float     s o g  str
    a…  list                   (…) {…}  tuple            v  (signature, value)

D-Bus Specification, "Type System", "Marshaling", "Message Protocol", "Authentication Protocol".
"""

from __future__ import annotations

import time
from _socket import AF_UNIX, SOCK_STREAM, socket
from _struct import pack, unpack_from

from ocirt import system as os
from ocirt.errors import Error, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CALL, RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_TO, DESTINATION, SENDER, SIGNATURE = range(1, 9)

_NUMBERS = {
    "y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d",
    "h": "I",
}  # fmt: skip
_WIDTHS = {"B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "d": 8}
_ALIGN = {
    "y": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "g": 1, "v": 1, "(": 8, "{": 8,
}  # fmt: skip  # the others: 4
_OTHERS = "biuhsoa"
_CLOSE = {"(": ")", "{": "}"}

LARGEST = 1 << 24  # bytes of a message; systemd's are some hundred, the specification's limit 2^27
_DEEPEST = 32  # containers within containers
PATIENCE = 30.0  # seconds for an answer
_LINE = 1 << 14  # the longest line while logging in


class Closed(Error):  # noqa: N818 - as the state of a connection
    """The other side has closed the connection, or none could be made."""


class Refused(Error):  # noqa: N818 - the answer, as callers know it
    """The other side answered a call with an error; `name` is its D-Bus name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class Broken(Error):  # noqa: N818 - what it is
    """What came is no D-Bus."""

    def __init__(self, what: str) -> None:
        super().__init__("no sensible D-Bus message", what)


# --- values


def split(signature: str) -> list[str]:
    """Return the complete types that a signature is made of; ValueError where it is none."""
    found, at = [], 0
    while at < len(signature):
        end = _end(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def _end(signature: str, at: int) -> int:
    code = signature[at : at + 1]
    if code == "a":
        return _end(signature, at + 1)
    at += 1
    if code in _CLOSE and signature[at : at + 1] != _CLOSE[code]:
        while signature[at : at + 1] != _CLOSE[code]:
            at = _end(signature, at)
        return at + 1
    if not code or code in _CLOSE or (code not in _ALIGN and code not in _OTHERS):
        raise ValueError(f"{signature!r} is no signature")
    return at


def encode(signature: str, values: Sequence[Any], out: bytearray | None = None) -> bytearray:
    """Return `values` as bytes, little end first; they start at a multiple of 8."""
    out = bytearray() if out is None else out
    for part, value in zip(split(signature), values, strict=True):
        _put(out, part, value)
    return out


def _put(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    out += bytes(-len(out) % _ALIGN.get(code, 4))
    if code in _NUMBERS:
        out += pack("<" + _NUMBERS[code], value)
    elif code in "so":
        data = value.encode("utf-8", "surrogateescape")
        out += pack("<I", len(data)) + data + b"\0"
    elif code == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif code == "v":
        _put(out, "g", value[0])
        _put(out, *value)
    elif code == "a":
        length = len(out)
        out += bytes(4)
        out += bytes(-len(out) % _ALIGN.get(kind[1], 4))
        start = len(out)
        for item in value:
            _put(out, kind[1:], item)
        out[length : length + 4] = pack("<I", len(out) - start)
    else:
        encode(kind[1:-1], value, out)


def decode(signature: str, data: bytes, order: str = "<") -> list[Any]:
    """Return the values in `data`; Broken where they are not what the signature says."""
    try:
        reader = _Reader(data, order)
        return [reader.take(part, 0) for part in split(signature)]
    except ValueError as error:
        raise Broken(str(error)) from None


class _Reader:
    """Takes values off bytes, one after the other."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order
        self.at = 0

    def take(self, kind: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        code = kind[0]
        self._align(code)
        if code in _NUMBERS:
            found = self._number(_NUMBERS[code])
            return bool(found) if code == "b" else found
        if code in "so":
            return self._text(self._number("I"))
        if code == "g":
            return self._text(self._number("B"))
        if code == "v":
            inner = split(self._text(self._number("B")))
            if len(inner) != 1:
                raise ValueError("a variant holds one value")
            return inner[0], self.take(inner[0], depth + 1)
        if code == "a":
            return self._array(kind[1:], depth)
        return tuple([self.take(part, depth + 1) for part in split(kind[1:-1])])

    def _align(self, code: str) -> None:
        self.at += -self.at % _ALIGN.get(code, 4)

    def _number(self, code: str) -> Any:
        start = self.at
        self.at += _WIDTHS[code]
        if self.at > len(self.data):
            raise ValueError("a number is cut off")
        return unpack_from(self.order + code, self.data, start)[0]

    def _text(self, length: int) -> str:
        end = self.at + length
        if end >= len(self.data) or self.data[end]:
            raise ValueError("a string does not end where it should")
        text = self.data[self.at : end].decode("utf-8", "surrogateescape")
        self.at = end + 1
        return text

    def _array(self, kind: str, depth: int) -> list[Any]:
        length = self._number("I")
        self._align(kind[0])
        end = self.at + length
        if end > len(self.data):
            raise ValueError("an array is longer than its message")
        found = []
        while self.at < end:
            found.append(self.take(kind, depth + 1))
        if self.at != end:
            raise ValueError("an array does not end where it should")
        return found


# --- messages


class Message:
    """kind, serial, fields (by their numbers), and the body as bytes."""

    def __init__(self, kind: int, serial: int, fields: dict[int, Any], body: bytes = b"") -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = body
        self.order = "<"

    def values(self) -> list[Any]:
        """Return what the body holds."""
        return decode(self.fields.get(SIGNATURE, ""), self.body, self.order)

    def pack(self) -> bytes:
        """Return the message as bytes."""
        kinds = {PATH: "o", REPLY_TO: "u", SIGNATURE: "g"}
        rows = [(n, (kinds.get(n, "s"), value)) for n, value in self.fields.items() if value]
        head = (ord("l"), self.kind, 0, 1, len(self.body), self.serial, rows)
        data = encode("yyyyuua(yv)", head)
        data += bytes(-len(data) % 8)
        return bytes(data) + self.body


def size(head: bytes) -> int:
    """Return the bytes of the message that starts with these 16."""
    order = {0x6C: "<", 0x42: ">"}.get(head[0])
    if order is None or head[3] != 1:
        raise Broken("unknown byte order or version")
    body, _, fields = unpack_from(order + "III", head, 4)
    total: int = 16 + fields + -fields % 8 + body
    if total > LARGEST:
        raise Broken(f"{total} bytes")
    return total


def unpack(data: bytes) -> Message:
    """Return the message that `data` is, its body yet to be looked at."""
    order = "<" if data[0] == 0x6C else ">"
    _, kind, _, _, length, serial, rows = decode("yyyyuua(yv)", data, order)
    fields = {}
    for number, (signature, value) in rows:
        wanted = {PATH: "o", REPLY_TO: "u", SIGNATURE: "g"}.get(number, "s")
        if number <= SIGNATURE and signature != wanted:
            raise Broken(f"header field {number} is of type {signature}")
        fields[number] = value
    message = Message(kind, serial, fields, data[len(data) - length :])
    message.order = order
    return message


# --- a connection


def connect(path: str, listen: Sequence[str] = ()) -> Connection:
    """Connect to a UNIX socket, an abstract one if the path starts with NUL, and log in."""
    for name in ("", str(os.geteuid())):
        connection = Connection(_dial(path), listen)
        try:
            connection.login(name)
        except BaseException as error:
            connection.close()
            if not isinstance(error, Closed) or name:
                raise
        else:
            break
    return connection


def _dial(path: str) -> socket:
    link = socket(AF_UNIX, SOCK_STREAM)
    try:
        link.settimeout(PATIENCE)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                link.connect(path)
                return link
            except BlockingIOError:  # its queue is full
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
    except OSError as error:
        link.close()
        raise Closed(path.replace("\0", "@"), strerror(error.errno or 0)) from None
    except BaseException:
        link.close()
        raise


class Connection:
    """A conversation with one peer, or by way of a bus with many.

    heard: the signals named in `listen` that came while something else was waited for.
    """

    def __init__(self, link: socket, listen: Sequence[str] = ()) -> None:
        self._link = link
        self._unread = b""
        self._serial = 0
        self._listen = listen
        self.heard: list[Message] = []

    def close(self) -> None:
        self._link.close()

    def login(self, name: str) -> None:
        """Say who we are; "": who the kernel says, which is right in a user namespace, too.

        All in one piece, the end of it before the answer: systemd hears what comes together with
        that end only when still more comes.
        """
        given = f" {name.encode().hex()}" if name else "\r\nDATA"
        self._write(f"\0AUTH EXTERNAL{given}\r\nBEGIN\r\n".encode())
        end = time.monotonic() + PATIENCE
        line = self._line(end)
        if line.startswith(b"DATA"):
            line = self._line(end)
        if not line.startswith(b"OK"):
            raise Closed(f"D-Bus: we are not let in: {line[:80]!r}")

    def send(
        self, to: tuple[str, str, str], member: str, signature: str = "", values: Sequence[Any] = ()
    ) -> int:
        """Call a method of `to` (destination, path, interface); return what `answer` wants."""
        self._serial += 1
        destination, path, interface = to
        fields = {
            PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination,
            SIGNATURE: signature,
        }  # fmt: skip
        message = Message(CALL, self._serial, fields, bytes(encode(signature, values)))
        self._write(message.pack())
        return self._serial

    def answer(self, serial: int) -> list[Any]:
        """Wait for the answer to a call; Refused if it is an error."""
        end = time.monotonic() + PATIENCE
        while True:
            message = self._next(end)
            if message.kind == SIGNAL:
                self._keep(message)
            elif message.fields.get(REPLY_TO) != serial:
                continue  # the answer to a call of which nobody cares
            elif message.kind == RETURN:
                return message.values()
            elif message.kind == ERROR:
                values = message.values()
                text = values[0] if values and isinstance(values[0], str) else ""
                raise Refused(str(message.fields.get(ERROR_NAME)), text)

    def signal(self, end: float) -> Message:
        """Return the next signal of those we listen for; `end` as time.monotonic counts."""
        while not self.heard:
            message = self._next(end)
            if message.kind == SIGNAL:
                self._keep(message)
        return self.heard.pop(0)

    def _keep(self, message: Message) -> None:
        if message.fields.get(MEMBER) in self._listen:
            self.heard.append(message)

    def _next(self, end: float) -> Message:
        length = size(self._read(16, end))
        data = self._read(length, end)
        self._unread = self._unread[length:]
        return unpack(data)

    def _read(self, count: int, end: float) -> bytes:
        """Return the next `count` bytes, which stay unread."""
        while len(self._unread) < count:
            self._more(end)
        return self._unread[:count]

    def _line(self, end: float) -> bytes:
        while b"\r\n" not in self._unread:
            if len(self._unread) > _LINE:
                raise Broken("a line without an end")
            self._more(end)
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def _more(self, end: float) -> None:
        left = end - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._link.settimeout(left)
            data = self._link.recv(1 << 16)
        except TimeoutError:
            raise Error("D-Bus: no answer in time") from None
        except OSError as error:
            raise Closed("D-Bus", strerror(error.errno or 0)) from None
        if not data:
            raise Closed("D-Bus: connection closed")
        self._unread += data

    def _write(self, data: bytes) -> None:
        try:
            self._link.settimeout(PATIENCE)
            self._link.sendall(data)
        except OSError as error:
            raise Closed("D-Bus", strerror(error.errno or 0)) from None
