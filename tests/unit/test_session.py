"""A test session that is asked to end takes its fixtures down: tests/conftest.py."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SUITE = """
import time, pytest

@pytest.fixture(scope="session")
def daemon():
    yield print("<begun>", flush=True)
    print("<ended>", flush=True)

def test_that_hangs(daemon):
    time.sleep(1000)
"""


def test_sigterm_ends_a_session_as_an_interrupt_does(tmp_path):
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    line = [sys.executable, "-m", "pytest", "-s", "-p", "tests.conftest", "--rootdir", tmp_path]
    with subprocess.Popen(
        [*line, suite], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as session:
        assert any("<begun>" in row for row in session.stdout)
        session.send_signal(signal.SIGTERM)
        rest = session.stdout.read()
        assert "<ended>" in rest, rest
        assert session.wait() == 2, rest
