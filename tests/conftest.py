"""What every test shares: the folder says what a test needs.

tests/unit and tests/house need nothing but Python; tests/integration needs root and a kernel
that lets it make containers (`-m "not root"` leaves it out).

`make test` has several processes at work, each on a file of its own.  Whatever a test makes for
the whole machine to see, such as a cgroup or a user, has the number of its process in its name.
"""

from __future__ import annotations

import os
import signal

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))


def pytest_configure(config):
    # `timeout`, a CI or a scheduler asks us to end: daemons, containers and cgroups end first.
    # SIGINT as well, which is ignored in what a shell has put in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if one_of_several(config):
        # One thread talks to the others' master; tests fork to be another program, or to exit.
        config.addinivalue_line(
            "filterwarnings",
            r"ignore:.* multi-threaded, use of \w+\(\) may lead to deadlocks:DeprecationWarning",
        )


def pytest_collection_modifyitems(config, items):
    for item in items:
        if str(item.path).startswith(os.path.join(HERE, "integration") + os.sep):
            item.add_marker(pytest.mark.root)
    if one_of_several(config):
        # The longest files first: nobody shall be left with one of them at the end.
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def one_of_several(config):
    """Whether this process has a share of the files, as pytest-xdist deals them out."""
    return hasattr(config, "workerinput")
