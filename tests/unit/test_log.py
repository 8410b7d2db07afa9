"""Log lines are what containerd, Podman and people can read."""

from __future__ import annotations

import json
import re

import pytest

from ocirt import log


@pytest.fixture
def file(tmp_path):
    yield tmp_path / "log"
    log.configure()


def test_keys_are_in_order_and_nothing_is_escaped_without_need(file):
    log.configure(str(file), json=True)
    log.error('no "ü" \\ here\n')
    line = file.read_text()
    assert line.startswith('{"level":"error","msg":"no \\"ü\\" \\\\ here\\n","time":"')
    assert json.loads(line)["msg"] == 'no "ü" \\ here\n'


def test_a_text_line(file):
    log.configure(str(file))
    log.error("it broke")
    assert re.fullmatch(
        r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ" level=error msg="it broke"\n', file.read_text()
    )


def test_a_name_that_is_no_text_does_not_break_the_line(file, capfd):
    log.configure(str(file), json=True)
    log.error("b\udcffd")
    assert json.loads(file.read_text())["msg"] == "b?d"
    assert capfd.readouterr().err == "b\\udcffd\n"


def test_lines_are_appended(file):
    for _ in range(2):
        log.configure(str(file))
        log.error("again")
    assert len(file.read_text().splitlines()) == 2


def test_debug_lines_name_their_place(file):
    log.configure(str(file), json=True, level=log.DEBUG)
    log.debug("here")
    found = json.loads(file.read_text())
    assert list(found) == ["file", "func", "level", "msg", "time"]
    assert found["func"] == "test_debug_lines_name_their_place"
    assert "test_log.py:" in found["file"]


def test_debug_lines_are_written_only_when_asked_for(file):
    log.configure(str(file))
    log.debug("here")
    assert file.read_text() == ""


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    log.configure("/dev/full")
    log.error("it broke")
    log.configure()
