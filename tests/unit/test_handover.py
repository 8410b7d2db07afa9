"""What a caller hands over."""

from __future__ import annotations

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
