"""A batch on a CPU in groups that fit into the cache, one thread per group."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

__all__ = ["in_groups"]

LARGEST = 128  # trajectories whose working set stays in a core's cache
SMALLEST = 16  # below this the calls cost more than what they compute

Result = TypeVar("Result")


def in_groups(run: Callable[[slice], Result], batch: int, device: torch.device) -> list[Result]:
    """Run a function on slices of a batch, in as many threads as torch may use, and return the results in order.

    Whole groups in parallel, each single-threaded, beat threads that share every small operation. Anywhere but on a CPU
    the batch stays whole. Nothing is recorded for gradients.

    Args:
        run: called with slices of the batch that cover it; must not write to what it shares.
        batch: number of trajectories.
        device: where they are.
    """
    threads = torch.get_num_threads()
    count = max(math.ceil(batch / LARGEST), min(threads, batch // SMALLEST))
    if device.type != "cpu" or count == 1:
        with torch.no_grad():
            return [run(slice(0, batch))]
    count = threads * math.ceil(count / threads)  # no thread is left without a group at the end
    edges = [batch * i // count for i in range(count + 1)]
    groups = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]

    def alone(rows: slice) -> Result:
        with torch.no_grad():  # grad mode belongs to the thread
            return run(rows)

    if threads == 1:
        return [alone(rows) for rows in groups]
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(alone, groups))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
