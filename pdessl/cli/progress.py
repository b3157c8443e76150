"""Progress of long work: a bar with rate and time left on a terminal, silence elsewhere; and the time of each stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Stages", "progress_bar"]


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function ``progress(done, total)`` that draws a bar on a terminal and does nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, rate="")
        start = time.monotonic()

        def progress(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:.3g}/s")

        yield progress


class Stages:
    """Announces the stages of a run and keeps how long each took.

    Args:
        announce: receives one line when a stage ends; default prints it.
    """

    def __init__(self, announce: Callable[[str], None] = print) -> None:
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
