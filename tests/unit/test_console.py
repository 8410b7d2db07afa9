"""What a foreground verb catches, and what it must not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import os, sys
from ocirt.console import Signals
signals = Signals()
os.kill(os.getpid(), int(sys.argv[1]))
print(list(signals.read()))
"""


def sent(number):
    line = [sys.executable, "-c", CODE, str(int(number))]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGABRT, 64])
def test_what_is_sent_is_kept(number):
    assert sent(number).stdout == f"[{int(number)}]\n"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL])
def test_a_fault_of_our_own_ends_us(number):
    assert sent(number).returncode == -number
