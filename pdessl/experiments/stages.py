"""The time of each stage of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pdessl.written import say

__all__ = ["Stages"]


class Stages:
    """Announces the stages of a run and keeps how long each took.

    Args:
        announce: receives one line when a stage ends; default prints it.
    """

    def __init__(self, announce: Callable[[str], None] = say) -> None:
        self.seconds: dict[str, float] = {}
        self._announce = announce

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage. Its time is kept, and printed, only when it ends without an error."""
        start = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - start
        self._announce(f"{name:<44s}{self.seconds[name]:8.1f} s")

    @property
    def total(self) -> float:
        """Seconds of all stages together."""
        return sum(self.seconds.values())
