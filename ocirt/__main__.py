"""`python3 -m ocirt`: the command line from a source tree; installed, the launcher calls it."""

from __future__ import annotations

from ocirt.cli import console

if __name__ == "__main__":
    console()
