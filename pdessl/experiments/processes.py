"""Independent small trainings side by side, in processes of one thread each.

Networks this small gain little from a second thread, so that two processes of one thread each finish sooner than one
process of two.
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError
from pdessl.experiments.training import quietly
from pdessl.models import load, save_pretrained
from pdessl.models.encoder import network_of

__all__ = ["Shared", "each", "spread"]

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Shared:
    """What every job works on: the pretrained encoder, the data, and the settings of the comparison."""

    encoder: nn.Module
    data: PDEDataModule
    settings: Any


_shared: Shared | None = None


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
    workers: int = 1,
    prepare: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Yield ``function(job)`` for every job, in order, in processes of one thread each where there are several.

    Args:
        function: of the top level of a module.
        jobs: picklable values.
        workers: processes; with 1 everything runs here.
        prepare: called once in every process with ``arguments``.
        arguments: picklable.
    """
    if workers <= 1:
        for job in jobs:
            yield function(job)
        return
    context = multiprocessing.get_context("spawn")
    # Leaving the block terminates the workers, also on an error or Ctrl-C.
    with context.Pool(min(workers, max(len(jobs), 1)), _start, (prepare, arguments)) as pool:
        yield from pool.imap(function, jobs)


def _start(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the workers
    torch.set_num_threads(1)
    if prepare is not None:
        prepare(*arguments)


def each(
    function: Callable[[Shared, Job], Result], jobs: Sequence[Job], shared: Shared, workers: int = 1
) -> Iterator[Result]:
    """Yield ``function(shared, job)`` for every job, in order.

    Args:
        function: of the top level of a module; results must be picklable and should hold numpy arrays, not tensors.
        jobs: small picklable values.
        shared: what all jobs work on.
        workers: processes. With 1 everything runs here. With more, a script that calls this must be guarded by
            ``if __name__ == "__main__":``, as everywhere in :mod:`multiprocessing`.

    Raises:
        DataError: more than one worker, and data that another process could not make again.
    """
    if workers <= 1 or len(jobs) <= 1:
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
