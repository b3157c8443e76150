"""A batch on a CPU in groups that fit into the cache, one thread per group."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["in_groups"]

LARGEST = 1 << 16  # grid points of a group: larger ones leave the cache, smaller ones wait for the calls
SMALLEST = 1 << 12  # grid points below which a thread of its own gains nothing


def in_groups(run: Callable[[slice], None], batch: int, points: int, device: torch.device) -> None:
    """Run a function on slices of a batch, in as many threads as torch may use.

    Whole groups in parallel, each single-threaded, beat threads that share every small operation. Anywhere but on a CPU
    the batch stays whole. Nothing is recorded for gradients.

    Args:
        run: called with slices that cover the batch; writes its results to rows of its own.
        batch: number of trajectories.
        points: grid points of each.
        device: where they are.
    """
    threads = torch.get_num_threads()
    count = max(math.ceil(batch * points / LARGEST), min(threads, batch * points // SMALLEST))
    if device.type != "cpu" or count <= 1:
        with torch.no_grad():
            run(slice(0, batch))
        return
    count = threads * math.ceil(count / threads)  # no thread is left without a group at the end
    edges = [batch * i // count for i in range(count + 1)]
    groups = [slice(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]

    def alone(rows: slice) -> None:
        with torch.no_grad():  # grad mode belongs to the thread
            run(rows)

    if threads == 1:
        for rows in groups:
            alone(rows)
        return
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for _ in pool.map(alone, groups):
            pass
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
