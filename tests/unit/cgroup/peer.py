"""A systemd for tests: it speaks D-Bus on a socket and does what a table says."""

from __future__ import annotations

import os
import socket
import struct
import threading

from ocirt.cgroup import dbus

MANAGER = "org.freedesktop.systemd1"
JOB = "/org/freedesktop/systemd1/job/7"


class Fault(Exception):  # noqa: N818 - an answer
    """What a handler raises to answer with an error: name, text."""


def removed(unit, job=JOB, result="done"):
    """Return the signal that a job has ended."""
    body = dbus.encode("uoss", (7, job, unit, result))
    fields = {
        dbus.PATH: "/org/freedesktop/systemd1",
        dbus.INTERFACE: f"{MANAGER}.Manager",
        dbus.MEMBER: "JobRemoved",
        dbus.SIGNATURE: "uoss",
    }
    return dbus.Message(dbus.SIGNAL, 99, fields, bytes(body)).pack()


class Systemd(threading.Thread):
    """calls: (member, values) in the order of coming.  answers: {member: function of values}.

    A function returns (signature, values), None for silence, or bytes to be sent as they are;
    it may raise Fault, or ConnectionError to hang up.  after: {member: bytes to send behind the
    answer}, before: ahead of it.
    """

    def __init__(self, path, *, is_bus=False, names=("",), version="252.39-1~deb12u1"):
        super().__init__(daemon=True)
        self.path = str(path)
        self.is_bus = is_bus
        self.names = names  # who may log in; "" is whoever the kernel says
        self.calls = []
        self.logins = []
        self.before = {}
        self.after = {}
        self.answers = {
            "Hello": lambda values: ("s", (":1.1",)),
            "Get": lambda values: ("v", (("s", version),)),
            "StartTransientUnit": lambda values: ("o", (JOB,)),
            "StopUnit": lambda values: ("o", (JOB,)),
        }
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.start()

    def members(self):
        return [member for member, _ in self.calls]

    def called(self, member):
        return [values for name, values in self.calls if name == member]

    def run(self):
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link:
                try:
                    self.serve(link)
                except (ConnectionError, EOFError):
                    pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(5)

    def serve(self, link):
        lines = self.login(link)
        if not lines:
            return
        greeted = not self.is_bus
        while True:
            head = self.exactly(link, 16)
            message = dbus.unpack(head + self.exactly(link, dbus.size(head) - 16))
            member = message.fields[dbus.MEMBER]
            assert greeted or member == "Hello"
            greeted = True
            values = message.values()
            self.calls.append((member, values))
            link.sendall(self.before.get(member, b""))
            link.sendall(self.answer(message, member, values))
            unit = values[0] if values else ""
            late = {"StartTransientUnit": removed(unit), "StopUnit": removed(unit)}
            link.sendall(self.after.get(member, late.get(member, b"")))

    def answer(self, message, member, values):
        fields = {dbus.REPLY_TO: message.serial}
        kind, body = dbus.RETURN, b""
        try:
            found = self.answers.get(member, lambda values: ("", ()))(values)
        except Fault as fault:
            kind, found = dbus.ERROR, ("s", (fault.args[1],))
            fields[dbus.ERROR_NAME] = fault.args[0]
        if found is None:
            return b""
        if isinstance(found, bytes):
            return found
        fields[dbus.SIGNATURE] = found[0]
        body = bytes(dbus.encode(*found))
        return dbus.Message(kind, 1, fields, body).pack()

    def login(self, link):
        """Read up to BEGIN, by the letter of the specification."""
        assert self.exactly(link, 1) == b"\0"
        identity = None
        while True:
            line = self.line(link)
            self.logins.append(line)
            if line == "AUTH EXTERNAL":
                link.sendall(b"DATA\r\n")
            elif line == "DATA":
                identity = ""
            elif line.startswith("AUTH EXTERNAL "):
                identity = bytes.fromhex(line.rpartition(" ")[2]).decode()
            elif line == "BEGIN":
                return identity in self.names
            if identity is not None and line != "BEGIN":
                ok = identity in self.names
                link.sendall(b"OK 0123456789abcdef\r\n" if ok else b"REJECTED EXTERNAL\r\n")

    def line(self, link):
        found = b""
        while not found.endswith(b"\r\n"):
            found += self.exactly(link, 1)
        return found[:-2].decode()

    @staticmethod
    def exactly(link, count):
        data = b""
        while len(data) < count:
            more = link.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def raw(kind, serial, signature, body, *, order="<", **fields):
    """Return a message made by hand, of either byte order."""
    rows = b""
    for number, code, value in (
        (5, "u", fields.get("reply")),
        (8, "g", signature),
    ):
        if value is None:
            continue
        rows += bytes(-len(rows) % 8)
        rows += bytes([number, 1, ord(code), 0])
        if code == "u":
            rows += struct.pack(order + "I", value)
        else:
            rows += bytes([len(value)]) + value.encode() + b"\0"
    head = bytes([ord("l" if order == "<" else "B"), kind, 0, 1])
    head += struct.pack(order + "III", len(body), serial, len(rows))
    return head + rows + bytes(-len(rows) % 8) + body
