"""Independent small trainings side by side, in processes of one thread each.

Networks this small gain little from a second thread, so that two processes of one thread each finish sooner than one
process of two.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError
from pdessl.experiments.cluster_jobs import Cluster
from pdessl.experiments.training import quietly
from pdessl.models import load, save_pretrained
from pdessl.models.encoder import network_of

__all__ = ["Shared", "Workers", "each", "spread"]

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Shared:
    """What every job works on: the pretrained encoder, the data, and the settings of the comparison."""

    encoder: nn.Module
    data: PDEDataModule
    settings: Any


_shared: Shared | None = None
_prepared_for = ""  # the call that this process was last prepared for


class Workers:
    """Processes that serve several calls of :func:`each` or :func:`spread`: started at the first, ended at the end.

    A process imports torch and Lightning first, which takes as long as many a training.

    Args:
        count: of processes, at most as many as the first call has jobs; with 1 everything runs here.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: multiprocessing.pool.Pool | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.terminate()  # also on an error or Ctrl-C
            self._pool.join()
            self._pool = None

    def run(self, work: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield what :func:`_work` gives of every piece of work, in order."""
        if self._pool is None:
            processes = min(self.count, max(len(work), 1))
            self._pool = multiprocessing.get_context("spawn").Pool(processes, _start)
        yield from self._pool.imap(_work, work)


def _prepare(encoder: str, allow: tuple[str, ...], data_settings: Mapping[str, Any], settings: Any) -> None:
    """Set up a worker: it reads encoder and data itself, so that no tensor crosses between processes.

    The data are made with everything that the parent's were made with: crop, splits, mapping, fields and seed.
    """
    global _shared
    data = PDEDataModule(**{**data_settings, "num_workers": 0})
    data.setup()
    _shared = Shared(load(encoder, allow=allow), data, settings)


def _run(work: tuple[Callable[[Shared, Job], Result], Job]) -> Result:
    function, job = work
    assert _shared is not None  # noqa: S101  (set by _prepare)
    with quietly():
        return function(_shared, job)


def _refuse_other_data(data: PDEDataModule) -> None:
    """Refuse data that workers, which make theirs from the arguments of the parent's, would not see alike."""
    if type(data) is not PDEDataModule:
        raise DataError(
            f"worker processes make their data as PDEDataModule, not as {type(data).__name__}: use workers=1, or give "
            "PDEDataModule a mapping of its own."
        )
    fresh = PDEDataModule(**data.settings)
    changed = [name for name, value in vars(fresh).items() if name in data.settings and vars(data)[name] != value]
    if changed:
        raise DataError(
            f"'{changed[0]}' of the data module was changed after it was made, which worker processes would not see: "
            f"give it to PDEDataModule({changed[0]}=...), or use workers=1."
        )


def spread(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | Workers | Cluster = 1,
    prepare: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield ``function(job)`` for every job, in order, in processes of one thread each where there are several.

    Args:
        function: of the top level of a module.
        jobs: picklable values.
        workers: processes, or how many to start for these jobs alone; with 1 everything runs here. Or a cluster,
            for jobs that need no preparation and find what they need in the folder of their study.
        prepare: called once in every process with ``arguments``, before its first job.
        arguments: picklable.
    """
    if isinstance(workers, Cluster):
        if prepare is not None:
            raise DataError("jobs that share an encoder in memory run on one machine: give a number of workers.")
        yield from workers.run(function, jobs)
        return
    if isinstance(workers, int):
        with Workers(workers) as own:
            yield from spread(function, jobs, own, prepare, arguments)
        return
    if workers.count <= 1:
        for job in jobs:
            yield function(job)
        return
    call = uuid.uuid4().hex
    yield from workers.run([(call, prepare, arguments, function, job) for job in jobs])


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    torch.set_num_threads(1)


def _work(work: tuple[str, Callable[..., None] | None, tuple[Any, ...], Callable[[Any], Any], Any]) -> Any:
    """Do a job in a worker, which is prepared for the call that it belongs to unless it is already."""
    global _prepared_for
    call, prepare, arguments, function, job = work
    if call != _prepared_for:
        if prepare is not None:
            prepare(*arguments)
        _prepared_for = call
    return function(job)


def each(
    function: Callable[[Shared, Job], Result], jobs: Sequence[Job], shared: Shared, workers: int | Workers = 1
) -> Iterator[Result]:
    """Yield ``function(shared, job)`` for every job, in order.

    Args:
        function: of the top level of a module; results must be picklable and should hold numpy arrays, not tensors.
        jobs: small picklable values.
        shared: what all jobs work on.
        workers: processes, or how many to start for these jobs alone. With 1 everything runs here. With more, a script
            that calls this must be guarded by ``if __name__ == "__main__":``, as everywhere in :mod:`multiprocessing`.

    Raises:
        DataError: more than one worker, and data that another process could not make again.
    """
    count = workers if isinstance(workers, int) else workers.count
    if count <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield function(shared, job)
        return
    _refuse_other_data(shared.data)
    inner = network_of(shared.encoder)
    with tempfile.TemporaryDirectory() as folder:
        encoder = Path(folder) / "encoder"
        save_pretrained(encoder, shared.encoder, {})
        package = type(inner).__module__.split(".")[0]
        arguments = (str(encoder), (package,), shared.data.settings, shared.settings)
        yield from spread(_run, [(function, job) for job in jobs], workers, _prepare, arguments)
