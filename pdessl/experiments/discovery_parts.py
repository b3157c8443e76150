"""Grams of runs in parts: one part after the other, in processes, or by the workers of a Dask cluster.

Grams belong to single runs, so that parts only have to be put in order: how runs are cut, and where parts are made,
changes nothing but the last digits (relative 1e-9; a product of matrices rounds differently with its size).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pdessl.data import open as open_data
from pdessl.data.cluster import connect, import_distributed
from pdessl.data.source import Source
from pdessl.errors import PdesslError, StoreError
from pdessl.experiments.processes import spread
from pdessl.files import replacing, versions
from pdessl.operators import Grams, Projection, weak_grams
from pdessl.operators.search import check

__all__ = ["Part", "grams_in_parts", "grams_of_part"]

_NAMES = ("halves", "noise", "level")
_RETRIES = 3  # of a part on a cluster, after errors of the machine it was on


@dataclass(frozen=True)
class Part:
    """Some runs of a dataset, and how they are read.

    Args:
        data: path of a store, a file or a folder of files, as every process that reads the part finds it.
        split: name of a split.
        rows: numbers of the runs.
        projection: terms, targets and test functions.
        known: recorded parameters that terms may be multiplied by.
        file: where the Grams are kept, and read from where they were made before; None: nowhere.
    """

    data: str
    split: str
    rows: range
    projection: Projection
    known: tuple[str, ...] = ()
    file: Path | None = field(default=None)

    @staticmethod
    def of(
        source: Source,
        data: str,
        split: str,
        rows: range,
        projection: Projection,
        known: Sequence[str],
        folder: Path | None,
    ) -> Part:
        """Return a part whose file, in a folder, is named by everything that its Grams depend on."""
        if folder is None:
            return Part(data, split, rows, projection, tuple(known))
        words = repr((source.name, split, rows, source.splits[split], source.shape(split), projection))
        name = f"grams_{hashlib.sha256(words.encode()).hexdigest()[:16]}.safetensors"
        return Part(data, split, rows, projection, tuple(known), folder / name)


def grams_of_part(part: Part, source: Source | None = None) -> Grams:
    """Return the Grams of a part, from its file where they were made before.

    Args:
        part: which runs.
        source: the dataset, where it is open already.

    Raises:
        DataError: a field of a run is constant, or not finite.
    """
    if part.file is not None:
        try:
            held = load_file(part.file)
            return Grams(*(held[name] for name in _NAMES))
        except (OSError, SafetensorError, KeyError):  # not there, or not finished
            part.file.parent.mkdir(parents=True, exist_ok=True)
    runs = (source or open_data(part.data)).load(part.split, part.rows).without_parameters(part.known)
    check(runs, part.rows.start)
    found = weak_grams(runs, part.projection)
    if part.file is not None:
        with replacing(part.file) as temporary:
            save_file({name: getattr(found, name).contiguous() for name in _NAMES}, temporary)
    return found


def grams_in_parts(
    parts: Sequence[Part], source: Source, workers: int = 1, scheduler: str | None = None
) -> Iterator[Grams]:
    """Return the Grams of each part, in order, as they are asked for.

    Args:
        parts: which runs.
        source: the dataset they are of.
        workers: processes of one thread each on this machine; with several a script that calls this must be guarded by
            ``if __name__ == "__main__":``.
        scheduler: address of a Dask scheduler, ``tcp://host:port``: its workers, who must see the data at the same
            path, make the parts. Files of parts are written by them, to a folder that they share.

    Raises:
        DependencyError: ``scheduler`` without the package distributed.
        StoreError: no scheduler or no worker there, another version of pdessl on a worker, or a part that keeps
            failing.
        DataError: runs that no law can be found in.
    """
    if scheduler is not None:
        made = _on_cluster(parts, scheduler)
    elif workers > 1 and len(parts) > 1:
        made = spread(_arrays, parts, workers)
    else:
        yield from (grams_of_part(part, source) for part in parts)
        return
    for arrays in made:
        yield Grams(*map(torch.from_numpy, arrays))


def _arrays(part: Part) -> list[NDArray[Any]]:
    """Return the Grams as arrays: no tensor crosses between processes."""
    found = grams_of_part(part)
    return [getattr(found, name).numpy() for name in _NAMES]


def _arrays_there(part: Part, expected: str) -> list[NDArray[Any]]:
    """Make a part on a worker of a cluster."""
    found = versions().get("pdessl")
    if found != expected:
        raise StoreError(
            f"a worker of the cluster has pdessl {found} (here {expected}). Install the same version there."
        )
    if not os.path.exists(part.data):
        raise StoreError(f"a worker of the cluster finds no {part.data}; put the data on a file system that all share.")
    torch.set_num_threads(1)
    return _arrays(part)


def _on_cluster(parts: Sequence[Part], scheduler: str) -> Iterator[list[NDArray[Any]]]:
    distributed = import_distributed()
    with connect(distributed, scheduler) as client:
        running: list[Future[Any]] = []
        waiting = iter(parts)
        while True:
            # No more than keeps every worker busy: what is finished waits in the memory of a worker.
            while len(running) < 2 * sum(client.nthreads().values()) + 1 and (part := next(waiting, None)):
                running.append(client.submit(_arrays_there, part, versions()["pdessl"], pure=False, retries=_RETRIES))
            if not running:
                return
            try:
                yield running.pop(0).result()
            except PdesslError:
                raise
            except distributed.KilledWorker as error:
                raise StoreError(
                    f"a part killed {error.allowed_failures + 1} workers one after another, most likely for want of "
                    "memory. Give the workers more; with scratch=FOLDER (--scratch) finished parts are kept."
                ) from None
            except Exception as error:
                raise StoreError(
                    f"a part failed {_RETRIES + 1} times on the cluster: {type(error).__name__}: {error}. With "
                    "scratch=FOLDER (--scratch) finished parts are kept."
                ) from error
