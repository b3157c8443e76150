"""Jobs of a study on the workers of a Dask cluster: the rows of one machine."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pdessl.data.cluster import connect, import_distributed
from pdessl.errors import StoreError
from pdessl.files import versions

__all__ = ["Cluster", "count_of"]

_ONE = threading.Lock()  # random numbers and threads of torch are those of a process: its jobs run one by one


class Cluster:
    """Workers of a Dask cluster that see the folder of a study, in place of processes of this machine.

    Args:
        scheduler: address, ``tcp://host:port``.
        folder: of the study, on a file system that all workers share: data, trainings and rows lie there.

    Raises:
        DependencyError: the package distributed is not installed.
    """

    def __init__(self, scheduler: str, folder: Path) -> None:
        self.scheduler, self.folder = scheduler, folder.resolve()
        self._distributed = import_distributed()

    @property
    def count(self) -> int:
        """Number of worker processes, at least 1.

        Raises:
            StoreError: no scheduler or no worker there.
        """
        with connect(self._distributed, self.scheduler) as client:
            return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))

    def run(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield ``function(job)`` for every job, in order; each runs in a worker, of which it has one thread of torch.

        Raises:
            StoreError: no scheduler or no worker there, one that does not see the folder or has other versions, or a
                job that kills its workers.
            PdesslError: what a job raises.
        """
        if not jobs:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / f".{uuid.uuid4().hex}.tmp"
        marker.touch()
        try:
            with connect(self._distributed, self.scheduler) as client:
                futures = [
                    client.submit(
                        _work,
                        function,
                        job,
                        str(marker),
                        versions(),
                        key=f"pdessl-study-{uuid.uuid4().hex}",
                        pure=False,
                    )
                    for job in jobs
                ]
                for number, future in enumerate(futures):
                    try:
                        yield future.result()
                    except self._distributed.KilledWorker as error:
                        raise StoreError(
                            f"job {number} of the study killed {error.allowed_failures + 1} workers one after another, "
                            "most likely for want of memory. Give the workers more; finished rows are kept."
                        ) from None
        finally:
            marker.unlink(missing_ok=True)


def count_of(workers: Any) -> int:
    """Return how many jobs run at a time: of a number of processes, that; of a cluster, its worker processes."""
    return int(workers if isinstance(workers, int) else workers.count)


def _work(function: Callable[[Any], Any], job: Any, marker: str, expected: dict[str, str]) -> Any:
    differ = [f"{n} {versions().get(n)} (here {v})" for n, v in expected.items() if versions().get(n) != v]
    if differ:
        raise StoreError(
            f"a worker of the cluster has {', '.join(differ)}; its rows would differ. Install the same versions there."
        )
    if not Path(marker).exists():
        raise StoreError(
            f"a worker of the cluster does not see {Path(marker).parent}. Give a folder of a file system that all "
            "workers share:  --out FOLDER"
        )
    with _ONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(job)
        finally:
            torch.set_num_threads(threads)
