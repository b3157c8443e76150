"""Trajectories simulated while training: never repeated, nothing on disk, the same by number as those of a store."""

# B batch, R processes that train, W worker processes of each

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from pdessl.data.cuts import rows_of_process
from pdessl.data.loading import TrajectoryLoader
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.data.sampling import Draw, IndexBatches
from pdessl.data.simulation import find_device, simulate_shard, threads
from pdessl.data.statistics import FieldStatistics, field_statistics
from pdessl.errors import DataError, StoreError
from pdessl.solvers import random_stream
from pdessl.trajectory import Trajectories

__all__ = ["SimulatedDataset", "StreamLoader", "StreamingDataModule"]


class SimulatedDataset(IterableDataset[Trajectories]):
    """Batches of trajectories, simulated when they are asked for.

    Trajectory k is the one a store of the dataset holds as number k of the split, of a size without end: batch i holds
    k = i B to (i + 1) B - 1. Process r of R has its share of the rows of every batch, in the order of ranks, and worker
    w of W of a :class:`torch.utils.data.DataLoader` has every W-th batch, in the order in which the loader collects
    them. So no trajectory comes twice, and which ones a step trains on depends neither on the number of processes nor
    on that of their workers.

    Args:
        dataset: name, path or recipe.
        split: name of the split.
        batch_size: B, trajectories of a batch over all processes.
        device: where trajectories are simulated and lie.
        batches: batches until iteration ends; default it never does.
        position: batches that have been used already. Iteration goes on from here, and moves it.
        rank, replicas: r and R.
        together: batches simulated at once: the more, the fuller are the groups that share a grid and a step.
        labels: keep the parameters; default as the dataset's file says for this split.
        workers: threads; default one per processor torch may use, 1 on a GPU or in a worker process.

    ``state_dict`` and ``load_state_dict`` hold the position; a resumed iteration yields the trajectories that an
    uninterrupted one would have, to round-off.

    Raises:
        CatalogError: no such dataset.
        DataError: settings out of range, or no such device.
    """

    def __init__(
        self,
        dataset: str | os.PathLike[str] | DatasetRecipe,
        split: str = "unlabelled",
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        batches: int | None = None,
        position: int = 0,
        rank: int = 0,
        replicas: int = 1,
        together: int = 4,
        labels: bool | None = None,
        workers: int | None = None,
    ) -> None:
        self.recipe = load_recipe(dataset)
        for name, value in (("batch_size", batch_size), ("together", together), ("batches", batches)):
            if value is not None and value < 1:
                raise DataError(f"SimulatedDataset: {name} must be at least 1, found {value}.")
        if not 0 <= rank < replicas or position < 0:
            raise DataError(
                f"SimulatedDataset: expected 0 <= rank < replicas and position >= 0, found rank {rank} of {replicas} "
                f"and position {position}."
            )
        rows_of_process(batch_size, rank, replicas)
        self.split, self.batch_size, self.device = split, batch_size, find_device(device)
        self.batches, self.position, self.rank, self.replicas = batches, position, rank, replicas
        self.together, self.workers = together, workers
        self.labels = self.recipe.splits.get(split, {}).get("labels", True) if labels is None else labels

    def __iter__(self) -> Iterator[Trajectories]:
        info = get_worker_info()
        worker, count = (0, 1) if info is None else (info.id, info.num_workers)
        end = None if self.batches is None else self.position + self.batches
        # Batches are counted from the start of the run; those of a worker are every count-th.
        place, held = self.position + worker, []
        while end is None or place < end:
            if not held:
                last = self.together if end is None else min(self.together, -(-(end - place) // count))
                held = self._simulate([place + i * count for i in range(last)], info is not None)
            if info is None:
                self.position = place + 1
            yield held.pop(0)
            place += count

    def _simulate(self, places: Sequence[int], in_worker: bool) -> list[Trajectories]:
        mine = rows_of_process(self.batch_size, self.rank, self.replicas)
        b = mine.stop - mine.start
        numbers = [place * self.batch_size + row for place in places for row in range(mine.start, mine.stop)]
        with threads(self.device, 1 if in_worker and self.workers is None else self.workers) as pool:
            whole = simulate_shard(self.recipe, self.split, numbers, self.device, pool, self.device).trajectories
        if not self.labels:  # what is constant in the whole dataset belongs to the equation
            whole = whole.replace(parameters={n: whole.parameters[n] for n in self.recipe.constants})
        return [whole[i * b : (i + 1) * b] for i in range(len(places))]

    def state_dict(self) -> dict[str, int]:
        """Return how many batches have been used."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on after the batches used already."""
        self.position = int(state["position"])


class StreamLoader:
    """An epoch of batches of a :class:`SimulatedDataset`; every epoch goes on where the one before ended.

    Args:
        dataset: what is simulated.
        batches: batches per epoch.
        num_workers: processes that simulate on their own while this one trains; 0: simulated here, on the dataset's
            device, which has to be the CPU otherwise.

    Its place goes into Lightning's checkpoint and comes back.
    """

    def __init__(self, dataset: SimulatedDataset, batches: int, num_workers: int = 0) -> None:
        if num_workers and dataset.device.type != "cpu":
            raise DataError(f"simulating on {dataset.device} is done in the training process: set num_workers to 0.")
        self.stream, self.batches, self.num_workers = dataset, batches, num_workers
        self._used, self._epoch = dataset.position, batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Trajectories]:
        self.stream.position, self.stream.batches = self._used, self._epoch
        self._epoch = self.batches
        simulated: Any = self.stream
        if self.num_workers:
            simulated = DataLoader(self.stream, batch_size=None, num_workers=self.num_workers)
        for batch in simulated:
            self._used += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches have been used since the training began."""
        return {"used": self._used}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on after them: the next epoch is the rest of the one they belong to."""
        self._used = int(state["used"])
        self._epoch = self.batches - self._used % self.batches


class _Fixed(Dataset[Trajectories]):
    """Trajectories in memory, by the batch."""

    def __init__(self, trajectories: Trajectories) -> None:
        self.trajectories = trajectories

    def __getitem__(self, draw: Draw) -> Trajectories:
        return self.trajectories[draw.numbers]


class StreamingDataModule(lightning.LightningDataModule):
    """Batches for Lightning that are simulated on the training device while it trains.

    Args:
        stream: name or file of the dataset.
        batch_size: trajectories per batch, over all processes of a run.
        batches: batches per epoch; default as many as the dataset's file has unlabelled trajectories for.
        labels: number of labelled trajectories for the online probe; default all of the dataset's file.
        seed: chooses the labelled subset.
        size: trajectories of the splits ``labelled``, ``validation`` and ``test`` instead of those of the file.
        overrides: other values for keys of the dataset's file, ``{observation.noise: 0.0}``.
        together: batches simulated at once, see :class:`SimulatedDataset`.
        num_workers: processes that simulate on the CPU meanwhile; 0: simulated on the training device.
        statistics_from: mean and standard deviation are those of so many first trajectories of the stream.
        path: not used. Recipes name the folder of a store there.

    Loaders: ``train_dataloader``: an epoch of new trajectories, without parameters. ``val_dataloader``: a list of
    [labelled, validation], the same every epoch, with parameters; these are simulated once and held in memory, as is
    ``test``. All are those that ``pdessl generate`` writes for the same dataset. Under DDP every
    process simulates its rows of each batch.

    Raises:
        CatalogError: no such dataset.
        DataError: settings out of range.
    """

    def __init__(
        self,
        stream: str,
        batch_size: int = 64,
        batches: int | None = None,
        labels: int | None = None,
        seed: int = 0,
        size: dict[str, int] | None = None,
        overrides: dict[str, Any] | None = None,
        together: int = 4,
        num_workers: int = 0,
        statistics_from: int = 1024,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("batches", batches), ("labels", labels)):
            if value is not None and value < 1:
                raise DataError(f"{name} must be at least 1, found {value}.")
        self.recipe = load_recipe(stream, size, overrides)
        self.batch_size, self.labels, self.seed, self.num_workers = batch_size, labels, seed, num_workers
        whole = self.recipe.splits.get("unlabelled", {}).get("size", 0) // batch_size
        self.batches, self.together, self.statistics_from = batches or max(1, whole), together, statistics_from
        self._held: dict[str, Trajectories] = {}
        self._statistics: dict[str, FieldStatistics] | None = None

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _share(self) -> tuple[int, int]:
        """Return the number of processes that train, and the rank of this one."""
        return (1, 0) if self.trainer is None else (self.trainer.world_size, self.trainer.global_rank)

    def _split(self, name: str) -> Trajectories:
        if name not in self._held:
            count = self.recipe.splits.get(name, {}).get("size", 0)
            if not count:
                raise DataError(f"{self.recipe.name} has no trajectories in split '{name}'; set size: {{{name}: ...}}.")
            self._held[name] = self._simulate(name, count)
        return self._held[name]

    def _simulate(self, split: str, count: int) -> Trajectories:
        with threads(self._device, None) as pool:
            return simulate_shard(self.recipe, split, range(count), self._device, pool).trajectories

    @property
    def labelled(self) -> Trajectories:
        """``labels`` trajectories of the labelled split, the first in an order drawn from ``seed``, with parameters."""
        everything = self._split("labelled")
        if self.labels is None:
            return everything
        if self.labels > len(everything):
            raise DataError(
                f"{self.labels} labels asked for, {self.recipe.name} has {len(everything)}; set size: {{labelled: N}}."
            )
        return everything[random_stream(self.seed, "labelled", 0, "subset").permutation(len(everything))[: self.labels]]

    @property
    def validation(self) -> Trajectories:
        """The validation split, with parameters."""
        return self._split("validation")

    @property
    def test(self) -> Trajectories:
        """The test split, with parameters."""
        return self._split("test")

    @property
    def statistics(self) -> dict[str, FieldStatistics]:
        """Mean and standard deviation of each field over the first trajectories of the stream."""
        if self._statistics is None:
            first = self._simulate("unlabelled", self.statistics_from)
            self._statistics = field_statistics([first.fields], first.field_names)
        return self._statistics

    def train_dataloader(self) -> StreamLoader:
        """An epoch of ``batches`` batches that no epoch before had."""
        replicas, rank = self._share()
        dataset = SimulatedDataset(
            self.recipe,
            batch_size=self.batch_size,
            device="cpu" if self.num_workers else self._device,
            rank=rank,
            replicas=replicas,
            together=self.together,
            labels=False,
        )
        return StreamLoader(dataset, self.batches, self.num_workers)

    def _fixed(self, data: Trajectories) -> TrajectoryLoader:
        order = IndexBatches(len(data), self.batch_size, False, self.seed, *self._share())
        return TrajectoryLoader(_Fixed(data), order, ahead=0)

    def val_dataloader(self) -> list[TrajectoryLoader]:
        """Loaders of the labelled subset and of the validation split, in fixed order, with parameters."""
        return [self._fixed(self.labelled), self._fixed(self.validation)]

    def test_dataloader(self) -> TrajectoryLoader:
        """The test split in fixed order, with parameters."""
        return self._fixed(self.test)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the data: the recipe and the statistics."""
        return {
            "recipe_hash": self.recipe.hash,
            "statistics": {n: [s.mean, s.std] for n, s in self.statistics.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume a run on another dataset.

        Raises:
            StoreError: the checkpoint was trained on one made by another recipe.
        """
        if self.recipe.hash != state_dict.get("recipe_hash"):
            raise StoreError(
                f"the checkpoint was trained on data with recipe {str(state_dict.get('recipe_hash'))[:12]}, "
                f"{self.recipe.name} has {self.recipe.hash[:12]}. Stream the dataset it was trained on."
            )
        self._statistics = {n: FieldStatistics(*values) for n, values in state_dict["statistics"].items()}
