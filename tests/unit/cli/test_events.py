"""Durations as Go writes them, since that is what callers of runc give."""

from __future__ import annotations

import pytest

from ocirt.cli.events import duration
from ocirt.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("+5s", 5),
        ("-5s", -5),
        ("0", 0),
        ("0s", 0),
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("5.s", 5),
        ("1h2m3s4ms5us6ns", 3723.004005006),
        ("3µs", 3e-6),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "soon", "1..2s", "5sx", ".s", "-", "+", "1sm", "1 s", "5S", "--5s", "1e3s"],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="for flag -interval: parse error"):
        duration(text)
