"""Progress of a generation: what is reported after every shard, and a bar with rate and remaining time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Progress", "reporting"]


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
    if progress is False or (progress is None and not console.is_terminal):
        yield lambda _: None
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
