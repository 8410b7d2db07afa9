"""What to take back, newest first, when a verb fails half way."""

from __future__ import annotations

from ocirt import system as os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def close_all(fds: list[int]) -> None:
    """Close descriptors, and forget their numbers: closing the list again does nothing."""
    while fds:
        os.close(fds.pop())


class Undo:
    """Remembers steps as (function, arguments); `run` performs them backwards, each on its own."""

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def add(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Remember to call `function(*arguments)` if the verb fails from here on."""
        self._steps.append((function, arguments))

    def run(self) -> list[Exception]:
        """Take everything back; what fails is returned and does not stop the rest."""
        failures = []
        while self._steps:
            function, arguments = self._steps.pop()
            try:
                function(*arguments)
            except Exception as error:
                failures.append(error)
        return failures
