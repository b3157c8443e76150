"""How an epoch is cut into batches, and a batch into the rows of each process."""

from __future__ import annotations

from pdessl.errors import DataError

__all__ = ["batch_edges", "rows_of_process"]


def batch_edges(count: int, most: int) -> list[int]:
    """Return where batches begin and end: [0, ..., count].

    As few batches as hold everything at no more than ``most`` each, of sizes that differ by at most one, larger ones
    first. A last batch of what is left over could be a single run, of which no statistic can be made.

    Args:
        count: draws of an epoch, >= 0.
        most: draws of a batch, >= 1.
    """
    batches = -(-count // most)
    even, larger = divmod(count, batches) if batches else (0, 0)
    return [i * even + min(i, larger) for i in range(batches + 1)]


def rows_of_process(count: int, rank: int, processes: int) -> slice:
    """Return which rows of a batch a process has: all of them in order of rank, numbers that differ by at most one.

    Raises:
        DataError: more processes than rows.
    """
    if count < processes:
        raise DataError(
            f"a batch of {count} trajectories cannot be shared by {processes} processes: each needs at least one. "
            "Raise batch_size (it counts the trajectories of all processes), or set trainer.devices lower."
        )
    return slice(count * rank // processes, count * (rank + 1) // processes)
