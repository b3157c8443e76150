"""Progress of a generation: what is reported after every shard, and a bar, or lines, with rate and remaining time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Progress", "reporting"]

_EVERY = 20.0  # seconds between two lines


@dataclass(frozen=True)
class Progress:
    """What is reported while generating.

    Args:
        split: split being written.
        done, total: trajectories of all splits.
        rejected: draws thrown away so far.
        seconds: since the start; trajectories that were already there do not count in ``rate``.
        rate: trajectories per second of this run.
    """

    split: str
    done: int
    total: int
    rejected: int
    seconds: float
    rate: float


class _Lines:
    """A line now and then where no bar can be shown, from some seconds on: short work says nothing."""

    def __init__(self, name: str, every: float = _EVERY) -> None:
        self.name, self.every, self._last = name, every, 0.0

    def __call__(self, state: Progress) -> None:
        if state.seconds - self._last < self.every:
            return
        self._last = state.seconds
        left = (state.total - state.done) / max(state.rate, 1e-9)
        print(
            f"{self.name}: {state.split}, {state.done} of {state.total}, {state.rate:.3g}/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def reporting(
    progress: bool | Callable[[Progress], None] | None, name: str, total: int, done: int
) -> Iterator[Callable[[Progress], None]]:
    """Yield the function to call with the state: the user's own, one that moves a bar, or one that does nothing."""
    if callable(progress):
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if progress is False:
        yield lambda _: None
        return
    if progress is None and not console.is_terminal:
        yield _Lines(name)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(name, total=total, completed=done, rate="")

        def show(state: Progress) -> None:
            rejected = f", {state.rejected} redrawn" if state.rejected else ""
            bar.update(
                task, completed=state.done, description=f"{name}: {state.split}", rate=f"{state.rate:.0f}/s{rejected}"
            )

        yield show
