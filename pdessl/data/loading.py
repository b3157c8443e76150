"""The loader of batches: reads ahead, and knows its place in the epoch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from pdessl.data.sampling import IndexBatches
from pdessl.errors import DataError
from pdessl.trajectory import Trajectories

__all__ = ["TrajectoryLoader", "read_ahead"]

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield items that a thread takes from an iterable meanwhile, at most ``depth`` of them in advance.

    An error in the iterable is raised where its item would have come. The thread ends with the generator.
    """
    ready: queue.Queue[tuple[Item | None, BaseException | None, bool]] = queue.Queue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        try:
            iterator = iter(items)
            while room.acquire() and not stopped.is_set():
                try:
                    ready.put((next(iterator), None, False))
                except StopIteration:
                    break
            ready.put((None, None, True))
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller
            ready.put((None, error, True))

    thread = threading.Thread(target=work, name="pdessl-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
            # Freed before the next is asked for: its memory may serve again.
            del item
            room.release()
    finally:
        stopped.set()
        room.release()
        thread.join()


class TrajectoryLoader(DataLoader):
    """Yields whole batches of trajectories; its place in the epoch goes into Lightning's checkpoint and comes back.

    Args:
        windows: what is read: indexed by what the sampler yields, one index a batch.
        sampler: the order.
        num_workers: processes that read; 0: a thread of this process reads ahead.
        ahead: batches read in advance, per process; 0 only when they are asked for (in this process).
        start_method: how processes are started: ``fork``, ``spawn``, ``forkserver``; None: the system's default.
        pin_memory: copy batches to page-locked memory, from which a GPU fetches them while it computes.
    """

    def __init__(
        self,
        windows: Dataset[Trajectories],
        sampler: IndexBatches,
        num_workers: int = 0,
        ahead: int = 2,
        start_method: str | None = None,
        pin_memory: bool = False,
    ) -> None:
        if num_workers < 0 or ahead < 0:
            raise DataError(f"num_workers and ahead must be at least 0, found {num_workers} and {ahead}.")
        workers = {"prefetch_factor": max(ahead, 1), "multiprocessing_context": start_method} if num_workers else {}
        super().__init__(
            windows,
            sampler=sampler,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory and torch.cuda.is_available(),
            **workers,
        )
        self._seen, self._ahead = 0, ahead if num_workers == 0 else 0

    def __iter__(self) -> Iterator[Trajectories]:
        self._seen = self.sampler.start
        batches = super().__iter__()
        for batch in read_ahead(batches, self._ahead) if self._ahead else batches:
            self._seen += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch have been used."""
        return {"seen": self._seen % max(len(self), 1)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Skip the batches already used, once."""
        self.sampler.start = int(state["seen"])
