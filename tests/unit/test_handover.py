"""What a caller hands over."""

from __future__ import annotations

import os
import socket

import pytest

from ocirt import handover


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 0),
        ({"LISTEN_FDS": "2"}, 0),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "8"}, 0),
        ({"LISTEN_FDS": "2", "LISTEN_PID": "7"}, 2),
        ({"LISTEN_FDS": "-2", "LISTEN_PID": "7"}, 0),
        ({"LISTEN_FDS": "two", "LISTEN_PID": "7"}, 0),
    ],
)
def test_socket_activation_counts_only_when_it_is_meant_for_us(environ, count):
    assert handover.listen_fds(environ, 7) == count


def test_a_socket_that_the_config_names_as_pmi_fd():
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/dev/null") as file:
        number = ours.fileno()

        def found(value):
            env = ["PMI_FD=1", f"PMI_FD={value}"]
            return handover.pmi_fd({"process": {"env": env}})

        assert found(number) == -1, "one of our own: it would not be inherited"
        ours.set_inheritable(True)
        file_number = file.fileno()
        os.set_inheritable(file_number, True)
        assert found(number) == number
        for value in (file_number, 999_999, 10**20, "", "-1", "0", "x", f" {number}"):
            assert found(value) == -1, value
    assert found(number) == -1, "closed"
    assert handover.pmi_fd({}) == handover.pmi_fd({"process": {}}) == -1
