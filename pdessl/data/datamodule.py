"""Batches of trajectories for Lightning, from one dataset on disk or a mixture, in memory or larger than memory."""

# B batch, N trajectories, C channels, T frames, X space

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from pdessl.data.generation import generate as generate_store
from pdessl.data.groups import GroupPairs
from pdessl.data.identity import identity, shortened
from pdessl.data.labels import errors_of
from pdessl.data.lengths import long_enough
from pdessl.data.loading import TrajectoryLoader
from pdessl.data.manifest import MANIFEST
from pdessl.data.memory import available_memory, readable_size
from pdessl.data.resplitting import more_labels
from pdessl.data.sampling import Draw, IndexBatches, PairedWindows
from pdessl.data.selection import Selection
from pdessl.data.source import Source
from pdessl.data.splits import ROLES, assign_roles
from pdessl.data.statistics import FieldStatistics, field_statistics
from pdessl.data.store import open
from pdessl.data.windows import Crop, Windows
from pdessl.errors import CatalogError, DataError, StoreError
from pdessl.solvers import random_stream
from pdessl.trajectory import Trajectories

__all__ = ["Crop", "FieldStatistics", "Ingredient", "PDEDataModule"]


@dataclass(frozen=True)
class Ingredient:
    """One dataset of a mixture.

    Args:
        path: its folder or file.
        weight: how often it is drawn, relative to the others; default its number of trajectories.
        mapping: how its files are to be read, see :func:`pdessl.open`.
    """

    path: str
    weight: float | None = None
    mapping: str | None = None


class PDEDataModule(lightning.LightningDataModule):
    """Batches of :class:`pdessl.Trajectories` from datasets on disk.

    Args:
        path: a store, or files in any layout :func:`pdessl.open` reads.
        batch_size: most trajectories of a batch, over all processes of a run: on several devices each takes its rows of
            every batch, and a run on two of them sees what a run on one sees. An epoch has as few batches as that
            allows, of sizes that differ by at most one, so that every trajectory is in one of them.
        labels: number of labelled trajectories to use; default all. Subsets are nested: the first 32 of a seed are
            among its first 64.
        seed: chooses splits, the labelled subset, windows and the order of batches.
        train: ``unlabelled`` (pretraining: batches have no parameters) or ``labelled`` (supervised).
        dataset: name or file of the dataset that is generated into ``path`` when there is no store yet; default: a
            missing store is an error.
        size: with ``dataset``: trajectories per split, see :func:`pdessl.data.generate`.
        num_workers: processes that read batches. 0 is the fastest unless files are compressed: a thread reads ahead.
        mapping: how the files are to be read, see :func:`pdessl.open`.
        paths: in place of ``path``, which is not looked at then, several datasets that are mixed:
            ``[{path: a, weight: 2}, {path: b}]``.
        splits: which parts of a dataset serve as what, e.g. ``{labelled: valid, validation: 0.1}``; default see
            :func:`pdessl.data.splits.assign_roles`.
        group_by: what is never divided between training and the rest: ``file``, ``trajectory`` or a parameter's name.
        fields: channels to read; default all.
        stride: use every so many frames.
        crop: size of the windows batches hold: ``{frames: 16, points: 64}``. In training their place is drawn anew
            every epoch; elsewhere they lie in the middle.
        memory: GiB that may hold trajectories in this process; default half of what is available, shared among the
            processes of this machine. Datasets that need more are read from disk batch by batch.
        statistics_from: mean and standard deviation are taken of at most so many training trajectories.
        ahead: batches read in advance.
        start_method: how the processes of ``num_workers`` start, ``fork`` or ``spawn``; default the system's.
        grouped: what two runs have in common whose views pretraining takes as positives: ``file`` (the dataset's own
            groups), a recorded setting of which only equality counts, a list of groups, or several of these; see
            :func:`pdessl.data.groups.group_keys`. Batches then hold ``batch_size`` pairs: runs, and as ``partner`` of
            each another run of its group (:class:`pdessl.data.groups.GroupPairs`). None: two views of one run.
        runs: unlabelled trajectories of each dataset that are used, the first ones; default all.

    Loaders: ``train_dataloader``: what ``train`` names. ``val_dataloader``: a list of [labelled, validation], of those
    that there are, in fixed order, with parameters, for online probes. ``test_dataloader``: the test part.
    ``labelled``, ``validation``, ``test`` and ``unlabelled`` give the trajectories themselves, cut as in the loaders.

    Fields are float32 and stay in the units of the data (symmetry transformations need them); ``statistics`` has the
    mean and standard deviation of each field over the training part for models to normalise with.

    Raises:
        StoreError: no store at ``path`` and no ``dataset``, or an interrupted one; the message says which command
            helps.
        DataError: settings out of range, more labels than there are, a batch larger than the training part, or
            trajectories asked for at once that do not fit into memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        batch_size: int = 64,
        labels: int | None = None,
        seed: int = 0,
        train: str = "unlabelled",
        dataset: str | None = None,
        size: int | dict[str, int] | None = None,
        num_workers: int = 0,
        mapping: str | None = None,
        paths: list[Ingredient] | None = None,
        splits: dict[str, float | str] | None = None,
        group_by: str | None = None,
        fields: list[str] | None = None,
        stride: int = 1,
        crop: Crop | None = None,
        memory: float | None = None,
        statistics_from: int = 4096,
        ahead: int = 2,
        start_method: str | None = None,
        grouped: str | list[str] | None = None,
        runs: int | None = None,
    ) -> None:
        super().__init__()
        given = locals()
        # What another process makes the same data from, see pdessl.experiments.processes.
        self.settings = {name: given[name] for name in inspect.signature(PDEDataModule).parameters}
        counts = {
            "batch_size": batch_size,
            "stride": stride,
            "statistics_from": statistics_from,
            "labels": labels,
            "runs": runs,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                advice = "; leave it out to use all" if name in ("labels", "runs") else ""
                raise DataError(f"{name} must be at least 1, found {value}{advice}.")
        if train not in ("unlabelled", "labelled"):
            raise DataError(f"train must be 'unlabelled' or 'labelled', found '{train}'.")
        if grouped is not None and train == "labelled":
            raise DataError("grouped makes pairs for pretraining; with train: labelled leave it out.")
        if (path is None and paths is None) or paths == []:
            raise DataError("give path (one dataset) or paths (a list of datasets that are mixed).")
        if memory is not None and memory < 0:
            raise DataError(f"memory is a number of GiB, at least 0, found {memory}.")
        if paths is not None and (dataset is not None or mapping is not None):
            raise DataError("dataset and mapping belong to one path; with paths, give each entry its own mapping.")
        entries = paths if paths is not None else [Ingredient(os.fspath(path), None, mapping)]
        self.ingredients = [e if isinstance(e, Ingredient) else Ingredient(**e) for e in entries]
        self.path = Path(self.ingredients[0].path)
        self.batch_size, self.labels, self.seed, self.train_split = batch_size, labels, seed, train
        self.dataset, self.size, self.num_workers = dataset, size, num_workers
        self.splits, self.group_by, self.fields, self.stride = splits, group_by, fields, stride
        self.crop = Crop(**crop) if isinstance(crop, Mapping) else crop
        self.memory, self.statistics_from, self.ahead, self.start_method = memory, statistics_from, ahead, start_method
        self.grouped, self.runs = grouped, runs
        self.sources: list[Source] = []
        self._windows: dict[str, Windows] = {}
        self._statistics: dict[str, FieldStatistics] | None = None

    def prepare_data(self) -> None:
        """Generate the store if it is missing and ``dataset`` was given; Lightning calls this on one process."""
        if self.dataset is not None:
            generate_store(self.dataset, self.path, size=self.size, resume=True)
        for entry in self.ingredients:
            if not Path(entry.path).exists():
                raise StoreError(
                    f"no store at {entry.path}. Make it: pdessl generate burgers --out {entry.path} (any name of "
                    f"'pdessl list datasets'), or give the data module dataset=..., which generates it on first use."
                )

    def setup(self, stage: str | None = None) -> None:
        """Open the datasets and decide which trajectories serve as what; they are read on first use."""
        if self.sources:
            return
        if self.dataset is None or not (self.path / MANIFEST).is_file():
            self.prepare_data()
        self.sources = [open(e.path) if e.mapping is None else open(e.path, e.mapping) for e in self.ingredients]
        # What is shared in training shall be new to the model where it is scored.
        kept_together = self.grouped if self.group_by is None else self.group_by
        self._roles = [assign_roles(source, self.splits, kept_together, self.seed) for source in self.sources]
        for roles in self._roles if self.runs is not None else ():
            there = len(roles.get("unlabelled", ()))
            if self.runs > there:
                raise DataError(f"runs {self.runs} exceeds the {there} unlabelled trajectories; lower it to {there}.")
            roles["unlabelled"] = roles["unlabelled"][: self.runs]

    @property
    def store(self) -> Source:
        """The dataset; of a mixture the first."""
        if not self.sources:
            self.setup()
        return self.sources[0]

    # ------------------------------------------------------------------------------- parts

    def selections(self, role: str, short: bool = False) -> list[Selection]:
        """Return which trajectories of each dataset serve as ``unlabelled``, ``labelled``, ``validation`` or ``test``.

        One selection per number of frames; those shorter than a window only where ``short``.

        Raises:
            CatalogError: no dataset has any.
        """
        _ = self.store
        found = [roles[role] for roles in self._roles if role in roles]
        if role not in ROLES or not found:
            held = sorted({name for roles in self._roles for name in roles})
            raise CatalogError(f"{self.store.name} has nothing that serves as {role}; it has {', '.join(held)}.")
        return long_enough(found, 1 if short else self.crop.frames if self.crop else None, self.stride)[0]

    def _part(self, role: str) -> Windows:
        """Return a role's windows, held in memory if they fit beside what is held already."""
        if role not in self._windows:
            selections = [s for s in self.selections(role) if len(s)]
            every = self.selections(role, short=True)
            crop = self.crop or Crop()
            if common := long_enough(every, crop.frames, self.stride)[1]:
                crop = replace(crop, frames=common)  # runs differ in length
            if left := sum(map(len, every)) - sum(map(len, selections)):
                rank_zero_info(f"{role}: {left} runs are shorter than a window and left out")
            if not selections:
                raise DataError(f"{self.store.name} has no trajectories that serve as {role}: those splits are empty.")
            needed = sum(len(s) * math.prod(s.shape) * 4 for s in selections)
            allowed = self._allowed()
            held = needed <= allowed
            mapped = all(s.source.mapped(name) for s in selections for name in s.splits)
            how = "in memory" if held else "memory-mapped" if mapped else "streamed from disk"
            rank_zero_info(
                f"{role}: {sum(map(len, selections))} trajectories of {' x '.join(map(str, selections[0].shape))}, "
                f"{readable_size(needed)}: {how} ({readable_size(max(allowed, 0))} may be used)"
            )
            self._windows[role] = Windows(
                selections, crop, self.stride, self.fields, labels=role != "unlabelled", held=held
            )
        return self._windows[role]

    def _allowed(self) -> float:
        """Return the bytes that may still hold trajectories."""
        if self.memory is not None:
            return self.memory * 2**30 - sum(part.held_bytes for part in self._windows.values())
        processes = max(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), getattr(self.trainer, "num_devices", 1))
        return available_memory() / 2 / processes

    def _trajectories(self, role: str, numbers: np.ndarray | None = None) -> Trajectories:
        part = self._part(role)
        size = math.prod(part.batch_shape) * 4 * (len(part) if numbers is None else len(numbers))
        if not part.held_bytes and size > (available := available_memory()):
            raise DataError(
                f"{role}: {readable_size(size)} of trajectories asked for at once, {readable_size(available)} are "
                f"available. Use the loader, which reads batch by batch, fewer labels, or smaller windows: "
                f"crop: {{frames: ..., points: ...}}"
            )
        return part.everything() if numbers is None else part[Draw(torch.from_numpy(numbers))]

    @property
    def unlabelled(self) -> Trajectories:
        """The trajectories for pretraining, without parameters."""
        return self._trajectories("unlabelled")

    @property
    def labelled(self) -> Trajectories:
        """``labels`` labelled trajectories, the first in an order drawn from ``seed``, with parameters."""
        return self.labelled_subset(self.labels, self.seed)

    @property
    def validation(self) -> Trajectories:
        """The trajectories for validation, with parameters."""
        return self._trajectories("validation")

    @property
    def test(self) -> Trajectories:
        """The trajectories for testing, with parameters."""
        return self._trajectories("test")

    def labelled_subset(self, labels: int | None, seed: int = 0) -> Trajectories:
        """Return ``labels`` labelled trajectories; nested for one seed, different between seeds.

        Raises:
            DataError: there are fewer.
        """
        return self._trajectories("labelled", self.labelled_numbers(labels, seed))

    def label_errors(self, target: str, labels: int | None = None, seed: int = 0) -> np.ndarray | None:
        """Return the standard errors of the labels of :meth:`labelled_subset`, (n,), nan where none; None if none."""
        errors, numbers = errors_of(self.selections("labelled"), target), self.labelled_numbers(labels, seed)
        return errors if errors is None or numbers is None else errors[numbers]

    def labelled_runs(self, numbers: np.ndarray) -> Trajectories:
        """Return the labelled trajectories of these numbers, in their order."""
        return self._trajectories("labelled", numbers)

    def labelled_numbers(self, labels: int | None, seed: int = 0) -> np.ndarray | None:
        """Return which of the labelled trajectories :meth:`labelled_subset` returns, (n,); None: all, in order."""
        if labels is None:
            return None
        there = sum(map(len, self.selections("labelled")))
        if labels > there:
            kind = "store" if hasattr(self.store, "command") else "dataset"
            raise DataError(
                f"{labels} labels asked for, the {kind} has {there}. Ask for at most that, or "
                f"{more_labels(self.store, str(self.path), labels)}"
            )
        return random_stream(seed, "labelled", 0, "subset").permutation(there)[:labels]

    @property
    def statistics(self) -> dict[str, FieldStatistics]:
        """Mean and standard deviation per field over the training part only (unlabelled, or the labelled subset)."""
        if self._statistics is None:
            part = self._training_part()
            numbers = np.arange(len(part))
            if len(part) > self.statistics_from:
                chosen = random_stream(self.seed, "statistics", 0, "subset").permutation(len(part))
                numbers = np.sort(chosen[: self.statistics_from])
                rank_zero_info(f"mean and deviation are those of {len(numbers)} of {len(part)} training trajectories")
            self._statistics = field_statistics(part.whole_fields(numbers), part.field_names)
        return self._statistics

    def sample(self, count: int) -> Trajectories:
        """Return the first windows of the training part, as they are in a batch, at most so many."""
        part = self._training_part()
        return part[Draw(torch.arange(min(count, len(part))))]

    # ------------------------------------------------------------------------------ loaders

    def _training_part(self) -> Windows:
        return self._part("unlabelled") if self.train_split == "unlabelled" else self._labelled_part()

    def _labelled_part(self) -> Windows:
        part, numbers = self._part("labelled"), self.labelled_numbers(self.labels, self.seed)
        return part if numbers is None else part.subset(numbers)

    def _loader(self, part: Windows, shuffle: bool = False, pairs: GroupPairs | None = None) -> TrajectoryLoader:
        trainer = self.trainer
        sampler = IndexBatches(
            part.sizes_of_parts,
            self.batch_size,
            shuffle,
            self.seed,
            *((trainer.world_size, trainer.global_rank) if trainer is not None else (1, 0)),
            weights=self._weights(part) if shuffle else None,
            window_axes=part.window_axes,
            pairs=pairs,
        )
        # What is in memory is a batch by one indexing operation: nothing to read ahead.
        ahead = 0 if part.held_bytes and not self.num_workers else self.ahead
        read = part if pairs is None else PairedWindows(part)
        return TrajectoryLoader(read, sampler, self.num_workers, ahead, self.start_method, pin_memory=True)

    def _weights(self, part: Windows) -> list[float] | None:
        """Return the weights of the datasets of a mixture; None: every trajectory once an epoch."""
        if len(part.sizes_of_parts) == 1 or all(entry.weight is None for entry in self.ingredients):
            return None
        weights = {id(s): e.weight for s, e in zip(self.sources, self.ingredients, strict=True)}
        given = [weights[id(source)] for source in part.sources]
        return [size if w is None else w for w, size in zip(given, part.sizes_of_parts, strict=True)]

    def train_dataloader(self) -> TrajectoryLoader:
        """Shuffled batches of trajectories or pairs, each in one of them; in pretraining without parameters."""
        part = self._training_part()
        if self.train_split == "labelled":
            return self._loader(part, shuffle=True)
        pairs = self.pairs
        there, what = (len(part), "unlabelled trajectories") if pairs is None else (len(pairs), "pairs of an epoch")
        if there < self.batch_size:
            raise DataError(f"batch_size {self.batch_size} exceeds the {there} {what}; lower it to {there}.")
        if pairs is not None:
            task = getattr(self.trainer, "lightning_module", None)
            if task is not None and not getattr(task, "takes_partners", False):
                raise DataError(f"{type(task).__name__} does not take pairs of runs; leave grouped out.")
            several = f", up to {n} of a group in one batch" if (n := pairs.repeats(self.batch_size)) > 1 else ""
            rank_zero_info(f"grouped by {self.grouped}: {pairs}{several}")
        return self._loader(part, shuffle=True, pairs=pairs)

    @property
    def pairs(self) -> GroupPairs | None:
        """Pairs of runs of one group among the training runs; None where ``grouped`` is."""
        return None if self.grouped is None else GroupPairs.of(self.selections("unlabelled"), self.grouped)

    def val_dataloader(self) -> list[TrajectoryLoader]:
        """Loaders of the labelled subset and of the validation part, as far as there are any; else of all runs."""
        _ = self.store
        held = {role for roles in self._roles for role in roles}
        roles = ["labelled", "validation"]
        if self.train_split == "unlabelled":  # nothing is chosen by validation
            roles = [role for role in roles if role in held] or ["unlabelled"]
        return [self._loader(self._labelled_part() if role == "labelled" else self._part(role)) for role in roles]

    def test_dataloader(self) -> TrajectoryLoader:
        """The test part in fixed order, with parameters."""
        return self._loader(self._part("test"))

    def predict_dataloader(self) -> TrajectoryLoader:
        """The test part, as :meth:`test_dataloader`."""
        return self.test_dataloader()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; from page-locked memory while the device computes."""
        if isinstance(batch, Trajectories):
            return batch.to(device, non_blocking=batch.fields.is_pinned())
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    # -------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the data: what identifies them, and the statistics."""
        return {
            "data": [identity(source) for source in self.sources],
            "statistics": {n: [s.mean, s.std] for n, s in self.statistics.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to resume a run on other data.

        Raises:
            StoreError: the checkpoint was trained on other datasets.
        """
        _ = self.store
        found = [identity(source) for source in self.sources]
        if found != state_dict["data"]:
            names = ", ".join(source.name for source in self.sources)
            raise StoreError(
                f"the checkpoint was trained on data with recipe {shortened(state_dict['data'])}, {names} has "
                f"{shortened(found)}. Give the path of the data it was trained on."
            )
        self._statistics = {n: FieldStatistics(*values) for n, values in state_dict["statistics"].items()}
