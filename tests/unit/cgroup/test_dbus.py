"""The bytes of D-Bus, against the specification; and peers that do not keep to it."""

from __future__ import annotations

import os
import socket
import struct
import threading

import pytest

from ocirt.cgroup import dbus
from ocirt.errors import Error
from tests.unit.cgroup import peer

# The length of the header fields (0x6d) does not count the padding after the last one.
HELLO = (
    b"l\1\0\1" b"\0\0\0\0" b"\1\0\0\0" b"\x6d\0\0\0"
    b"\1\1o\0" b"\x15\0\0\0/org/freedesktop/DBus\0" b"\0\0"
    b"\2\1s\0" b"\x14\0\0\0org.freedesktop.DBus\0" b"\0\0\0"
    b"\3\1s\0" b"\x05\0\0\0Hello\0" b"\0\0"
    b"\6\1s\0" b"\x14\0\0\0org.freedesktop.DBus\0" b"\0\0\0"
)  # fmt: skip


def test_a_call_looks_as_the_specification_draws_it():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = dbus.Connection(ours)
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        assert connection.send(bus, "Hello") == 1
        data = theirs.recv(1000)
    assert data == HELLO


VALUES = (
    ("y", 7, "07"),
    ("b", True, "01000000"),
    ("n", -2, "feff"),
    ("q", 515, "0302"),
    ("i", -1, "ffffffff"),
    ("u", 16909060, "04030201"),
    ("x", -1, "ffffffffffffffff"),
    ("t", (1 << 64) - 1, "ffffffffffffffff"),
    ("d", 1.0, "000000000000f03f"),
    ("s", "foo", "03000000666f6f00"),
    ("s", "+", "010000002b00"),
    ("o", "/a", "020000002f6100"),
    ("g", "as", "02617300"),
    ("v", ("u", 1), "01750000" "01000000"),
    ("ay", [1, 2], "02000000" "0102"),
    # "an array of INT64 has eight bytes of padding that its length does not count"
    ("ax", [5], "08000000" "00000000" "0500000000000000"),
    ("a(ss)", [("a", "b")], "0e000000" "00000000" "010000006100" "0000" "010000006200"),
    ("a(sv)", [], "00000000" "00000000"),
    ("(yu)", (1, 2), "01000000" "02000000"),
    ("a{sv}", [("k", ("b", False))],
     "10000000" "00000000" "010000006b00" "016200" "000000" "00000000"),
)  # fmt: skip


@pytest.mark.parametrize(("signature", "value", "text"), VALUES)
def test_values_become_these_bytes_and_come_back(signature, value, text):
    data = bytes(dbus.encode(signature, (value,)))
    assert data.hex() == text
    assert dbus.decode(signature, data) == [value]


def test_big_end_first_is_understood():
    assert dbus.decode("ut", bytes.fromhex("00000005000000000000000000000007"), ">") == [5, 7]


def test_a_boolean_is_one():
    assert dbus.decode("b", bytes.fromhex("01000000"))[0] is True


@pytest.mark.parametrize(
    ("signature", "parts"),
    [("ssa(sv)a(sa(sv))", ["s", "s", "a(sv)", "a(sa(sv))"]), ("a{s(ii)}u", ["a{s(ii)}", "u"])],
)
def test_a_signature_falls_into_its_types(signature, parts):
    assert dbus.split(signature) == parts


@pytest.mark.parametrize("signature", ["a", "(", "(s", ")", "()", "{}", "z", "a(", "(s}", " "])
def test_what_is_no_signature_is_told(signature):
    with pytest.raises(ValueError, match="signature"):
        dbus.split(signature)


HOSTILE = (
    ("s", "ff000000666f6f00"),  # longer than there is
    ("s", "03000000666f6f61"),  # no NUL at its end
    ("s", "ffffffff"),
    ("u", "0102"),
    ("ay", "ffffff7f00"),
    ("at", "0400000000000000" "01000000"),  # half a number
    ("v", "00"),  # of no type
    ("v", "02757500" "01000000" "02000000"),  # of two
    ("v", "017a00"),  # of one that there is not
    ("g", "ff"),
    ("v", "017600" * 100),  # variants in variants
    ("a()", "0400000000000000" "00000000"),  # of items that take no room
)  # fmt: skip


@pytest.mark.parametrize(("signature", "text"), HOSTILE)
def test_bytes_that_lie_are_refused(signature, text):
    with pytest.raises(dbus.Broken):
        dbus.decode(signature, bytes.fromhex(text))


def test_every_cut_of_a_message_is_refused_or_short():
    body = bytes(dbus.encode("uoss", (7, "/job/7", "x.scope", "done")))
    for length in range(len(body)):
        with pytest.raises(dbus.Broken):
            dbus.decode("uoss", body[:length])


@pytest.mark.parametrize(
    "head",
    [
        b"x\2\0\1" + bytes(12),
        b"l\2\0\2" + bytes(12),
        b"l\2\0\1" + struct.pack("<III", 1 << 27, 1, 0),
        b"l\2\0\1" + struct.pack("<III", 0, 1, 0xFFFFFFF0),
    ],
)
def test_a_head_that_cannot_be_is_refused(head):
    with pytest.raises(dbus.Broken):
        dbus.size(head)


def test_a_header_field_of_another_type_is_refused():
    rows = bytes([5, 1, ord("s"), 0]) + b"\1\0\0\0x\0"
    head = b"l\2\0\1" + struct.pack("<III", 0, 1, len(rows))
    with pytest.raises(dbus.Broken, match="header field 5"):
        dbus.unpack(head + rows + bytes(-len(rows) % 8))


# --- conversations

TO = ("a.b", "/a", "a.b")


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield dbus.Connection(ours, ("Wanted",)), theirs


def test_answers_are_told_from_signals_and_from_other_answers(pair):
    connection, theirs = pair
    theirs.sendall(
        peer.removed("nobody asked")
        + peer.raw(2, 5, None, b"", reply=77)
        + peer.raw(2, 6, "u", struct.pack(">I", 9), order=">", reply=1)
    )
    assert connection.answer(connection.send(TO, "Do")) == [9]
    assert connection.heard == []


def test_an_answer_may_come_in_single_bytes(pair):
    connection, theirs = pair
    data = peer.raw(2, 6, "s", bytes(dbus.encode("s", ("slow",))), reply=1)

    def dribble():
        for byte in data:
            theirs.sendall(bytes([byte]))

    thread = threading.Thread(target=dribble)
    thread.start()
    assert connection.answer(connection.send(TO, "Do")) == ["slow"]
    thread.join()


def test_an_error_keeps_its_name_and_its_text(pair):
    connection, theirs = pair
    fields = {dbus.REPLY_TO: 1, dbus.ERROR_NAME: "a.b.No", dbus.SIGNATURE: "s"}
    theirs.sendall(dbus.Message(3, 1, fields, bytes(dbus.encode("s", ("not now",)))).pack())
    with pytest.raises(dbus.Refused, match="not now") as caught:
        connection.answer(connection.send(TO, "Do"))
    assert caught.value.name == "a.b.No"


def test_the_end_of_a_connection_is_no_hang(pair):
    connection, theirs = pair
    theirs.sendall(b"l\2\0\1")
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(dbus.Closed):
        connection.answer(connection.send(TO, "Do"))


def test_silence_ends_with_an_error(pair, monkeypatch):
    monkeypatch.setattr(dbus, "PATIENCE", 0.05)
    connection, _ = pair
    with pytest.raises(Error, match="no answer in time"):
        connection.answer(connection.send(TO, "Do"))


def test_a_stream_of_nonsense_ends_as_well(pair, monkeypatch):
    monkeypatch.setattr(dbus, "PATIENCE", 0.2)
    connection, theirs = pair
    stop = threading.Event()

    def chatter():
        while not stop.is_set():
            try:
                theirs.sendall(peer.removed("x"))
            except OSError:
                return

    thread = threading.Thread(target=chatter)
    thread.start()
    with pytest.raises(Error, match="no answer in time"):
        connection.answer(connection.send(TO, "Do"))
    stop.set()
    connection.close()
    thread.join()


# --- logging in


@pytest.mark.parametrize("names", [("",), (str(os.geteuid()),)])
def test_it_logs_in_without_a_name_and_else_with_one(tmp_path, names):
    systemd = peer.Systemd(tmp_path / "bus", names=names)
    connection = dbus.connect(systemd.path)
    assert connection.answer(connection.send(TO, "Hello")) == [":1.1"]
    connection.close()
    systemd.close()
    assert systemd.logins[:3] == ["AUTH EXTERNAL", "DATA", "BEGIN"]


def test_who_is_not_let_in_is_told(tmp_path):
    systemd = peer.Systemd(tmp_path / "bus", names=())
    with pytest.raises(dbus.Closed, match="not let in"):
        dbus.connect(systemd.path)
    systemd.close()


def test_a_socket_that_is_not_there_is_named(tmp_path):
    with pytest.raises(dbus.Closed, match="bus: no such file or directory"):
        dbus.connect(str(tmp_path / "bus"))


def test_a_peer_that_talks_without_end_while_logging_in_is_left(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "bus"))
    listener.listen()

    def talk():
        link, _ = listener.accept()
        try:
            while True:
                link.sendall(b"x" * 4096)
        except OSError:
            link.close()

    thread = threading.Thread(target=talk)
    thread.start()
    with pytest.raises(dbus.Broken, match="without an end"):
        dbus.connect(str(tmp_path / "bus"))
    thread.join(5)
    listener.close()
