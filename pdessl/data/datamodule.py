"""Batches of trajectories for Lightning: in memory, whole batches at a time, in an order that can be resumed."""

# B batch

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from pdessl.data.generation import generate as generate_store
from pdessl.data.store import MANIFEST, Store
from pdessl.errors import DataError, StoreError
from pdessl.solvers import random_stream
from pdessl.trajectory import Trajectories

__all__ = ["FieldStatistics", "IndexBatches", "PDEDataModule", "TrajectoryLoader"]


@dataclass(frozen=True)
class FieldStatistics:
    """Mean and standard deviation of one field over a training split, in the unit of the field."""

    mean: float
    std: float


class _InMemory(Dataset[Trajectories]):
    def __init__(self, trajectories: Trajectories) -> None:
        self.trajectories = trajectories

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, indices: torch.Tensor) -> Trajectories:
        return self.trajectories[indices]


class IndexBatches(DistributedSampler):
    """Lists of indices, one list a batch; the order is a function of (seed, epoch) only.

    Args:
        size: number of trajectories.
        batch_size: B of every batch over one process.
        shuffle: permute anew every epoch.
        drop_last: leave out the incomplete batch at the end.
        seed: seed of the permutations.
        replicas, rank: number of processes and the number of this one. All processes get the same number of batches;
            whole batches are dealt out in turn, and missing ones repeat from the start.

    ``start`` is the number of batches to skip, for one epoch, when a run is resumed in the middle of it.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        replicas: int = 1,
        rank: int = 0,
    ) -> None:
        # Being a DistributedSampler keeps Lightning from wrapping it: it divides the batches among processes itself.
        super().__init__(range(size), num_replicas=replicas, rank=rank, shuffle=shuffle, seed=seed, drop_last=drop_last)
        self.size, self.batch_size, self.start = size, batch_size, 0

    def __len__(self) -> int:
        batches = self.size // self.batch_size if self.drop_last else math.ceil(self.size / self.batch_size)
        return math.ceil(batches / self.num_replicas)

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = np.arange(self.size)
        if self.shuffle:
            order = random_stream(self.seed, "batches", self.epoch, "order").permutation(self.size)
        batches = [order[i : i + self.batch_size] for i in range(0, self.size, self.batch_size)]
        if self.drop_last and batches and len(batches[-1]) < self.batch_size:
            batches.pop()
        wanted = len(self) * self.num_replicas
        batches = (batches * math.ceil(wanted / max(len(batches), 1)))[:wanted]
        start, self.start = self.start, 0
        return iter([torch.from_numpy(b.copy()) for b in batches[self.rank :: self.num_replicas][start:]])


class TrajectoryLoader(DataLoader):
    """Yields whole batches of trajectories; its place in the epoch goes into Lightning's checkpoint and comes back."""

    def __init__(self, trajectories: Trajectories, sampler: IndexBatches, num_workers: int = 0) -> None:
        super().__init__(
            _InMemory(trajectories),
            sampler=sampler,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )
        self._seen = 0

    def __iter__(self) -> Iterator[Trajectories]:
        self._seen = self.sampler.start
        for batch in super().__iter__():
            self._seen += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch have been used."""
        return {"seen": self._seen % max(len(self), 1)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Skip the batches already used, once."""
        self.sampler.start = int(state["seen"])


class PDEDataModule(lightning.LightningDataModule):
    """Batches of :class:`pdessl.Trajectories` from a store.

    Args:
        path: folder of the store.
        batch_size: trajectories per batch.
        labels: number of labelled trajectories to use; default all. Subsets are nested: the first 32 of a seed are
            among its first 64.
        seed: chooses the labelled subset and the order of batches.
        train: ``unlabelled`` (pretraining: batches have no parameters and are all full) or ``labelled`` (supervised).
        dataset: name or file of the dataset that is generated into ``path`` when there is no store yet; default: a
            missing store is an error.
        size: with ``dataset``: trajectories per split, see :func:`pdessl.data.generate`.
        num_workers: processes that prepare batches. The data are in memory and a batch is one indexing operation, so 0
            is the fastest.

    Loaders: ``train_dataloader``: the split named by ``train``. ``val_dataloader``: a list of [labelled, validation],
    in fixed order, with parameters, for online probes. ``test_dataloader``: the split test. ``labelled``,
    ``validation``, ``test`` and ``unlabelled`` give the trajectories themselves after ``setup``.

    Fields stay in the units of the data (symmetry transformations need them); ``statistics`` has the mean and standard
    deviation of each field over the training split for models to normalise with.

    Raises:
        StoreError: no store at ``path`` and no ``dataset``, or an interrupted one; the message says which command
            helps.
        DataError: more labels than there are, or a batch larger than the training split.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: int = 64,
        labels: int | None = None,
        seed: int = 0,
        train: str = "unlabelled",
        dataset: str | None = None,
        size: int | dict[str, int] | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, found {batch_size}.")
        if labels is not None and labels < 1:
            raise DataError(f"labels must be at least 1, found {labels}; leave it out to use all.")
        if train not in ("unlabelled", "labelled"):
            raise DataError(f"train must be 'unlabelled' or 'labelled', found '{train}'.")
        self.path, self.batch_size, self.labels, self.seed = Path(path), batch_size, labels, seed
        self.train_split, self.dataset, self.size, self.num_workers = train, dataset, size, num_workers
        self._held: dict[str, Trajectories] = {}
        self._statistics: dict[str, FieldStatistics] | None = None

    def prepare_data(self) -> None:
        """Generate the store if it is missing and ``dataset`` was given; Lightning calls this on one process."""
        if self.dataset is not None:
            generate_store(self.dataset, self.path, size=self.size, resume=True)
        elif not (self.path / MANIFEST).is_file():
            raise StoreError(
                f"no store at {self.path}. Make it: pdessl generate burgers --out {self.path} "
                f"(any name of 'pdessl list datasets'), or give the data module dataset=..., which "
                f"generates it on first use."
            )

    def setup(self, stage: str | None = None) -> None:
        """Open the store; splits are read on first use."""
        if not (self.path / MANIFEST).is_file():
            self.prepare_data()
        self.store = Store(self.path)

    # ------------------------------------------------------------------------------- splits

    def _split(self, name: str) -> Trajectories:
        if name not in self._held:
            if not hasattr(self, "store"):
                self.setup()
            self._held[name] = self.store.load(name)
        return self._held[name]

    @property
    def unlabelled(self) -> Trajectories:
        """The unlabelled split, without parameters."""
        return self._split("unlabelled").without_parameters()

    @property
    def labelled(self) -> Trajectories:
        """The first ``labels`` trajectories of the labelled split in an order drawn from ``seed``, with parameters."""
        return self.labelled_subset(self.labels, self.seed)

    @property
    def validation(self) -> Trajectories:
        """The validation split, with parameters."""
        return self._split("validation")

    @property
    def test(self) -> Trajectories:
        """The test split, with parameters."""
        return self._split("test")

    def labelled_subset(self, labels: int | None, seed: int = 0) -> Trajectories:
        """Return ``labels`` trajectories of the labelled split; nested for one seed, different between seeds.

        Raises:
            DataError: the split has fewer.
        """
        everything = self._split("labelled")
        if labels is None:
            return everything
        if labels > len(everything):
            raise DataError(
                f"{labels} labels asked for, the store has {len(everything)}. Ask for at most that, or generate more: "
                f"{self.store.command.replace(str(self.path), 'ANOTHER_FOLDER')} --size labelled={labels}"
            )
        order = random_stream(seed, "labelled", 0, "subset").permutation(len(everything))
        return everything[order[:labels]]

    @property
    def statistics(self) -> dict[str, FieldStatistics]:
        """Mean and standard deviation per field over the training split only (unlabelled, or the labelled subset)."""
        if self._statistics is None:
            data = self.unlabelled if self.train_split == "unlabelled" else self.labelled
            values = data.fields.to(torch.float64).transpose(0, 1).flatten(1)
            mean, std = values.mean(dim=1).tolist(), values.std(dim=1).tolist()
            self._statistics = {n: FieldStatistics(m, s) for n, m, s in zip(data.field_names, mean, std, strict=True)}
        return self._statistics

    # ------------------------------------------------------------------------------ loaders

    def _loader(self, data: Trajectories, shuffle: bool, drop_last: bool, divide: bool = True) -> TrajectoryLoader:
        trainer = self.trainer if divide else None
        replicas, rank = (trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)
        sampler = IndexBatches(len(data), self.batch_size, shuffle, drop_last, self.seed, replicas, rank)
        return TrajectoryLoader(data, sampler, self.num_workers)

    def train_dataloader(self) -> TrajectoryLoader:
        """Shuffled batches; in pretraining without parameters and always of ``batch_size`` trajectories."""
        if self.train_split == "labelled":
            return self._loader(self.labelled, shuffle=True, drop_last=False)
        data = self.unlabelled
        if len(data) < self.batch_size:
            raise DataError(
                f"batch_size {self.batch_size} exceeds the {len(data)} unlabelled trajectories; "
                f"lower it to {len(data)}."
            )
        return self._loader(data, shuffle=True, drop_last=True)

    def val_dataloader(self) -> list[TrajectoryLoader]:
        """Loaders of the labelled subset and of the validation split, in fixed order, with parameters."""
        return [self._loader(part, shuffle=False, drop_last=False) for part in (self.labelled, self.validation)]

    def test_dataloader(self) -> TrajectoryLoader:
        """The test split in fixed order, with parameters."""
        return self._loader(self.test, shuffle=False, drop_last=False)

    def predict_dataloader(self) -> TrajectoryLoader:
        """The test split, as :meth:`test_dataloader`."""
        return self.test_dataloader()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the data: recipe and statistics."""
        return {
            "recipe_hash": self.store.manifest["recipe_hash"],
            "statistics": {n: [s.mean, s.std] for n, s in self.statistics.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume a run on other data.

        Raises:
            StoreError: the checkpoint was trained on a store made by another recipe.
        """
        found = Store(self.path).manifest["recipe_hash"]
        if found != state_dict["recipe_hash"]:
            raise StoreError(
                f"the checkpoint was trained on a store with recipe {state_dict['recipe_hash'][:12]}, "
                f"{self.path} has {found[:12]}. Give the path of the store it was trained on."
            )
        self._statistics = {n: FieldStatistics(*values) for n, values in state_dict["statistics"].items()}
