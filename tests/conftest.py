"""What every test shares: the folder says what a test needs.

tests/unit and tests/house need nothing but Python; tests/integration needs root and a kernel
that lets it make containers (`-m "not root"` leaves it out).
"""

from __future__ import annotations

import os

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))


def pytest_collection_modifyitems(items):
    for item in items:
        if str(item.path).startswith(os.path.join(HERE, "integration") + os.sep):
            item.add_marker(pytest.mark.root)
