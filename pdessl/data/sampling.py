"""The order of batches: which trajectories, which windows of them, in which process."""

# B batch, N draws of an epoch, d space axes

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

from pdessl.data.cuts import batch_edges, rows_of_process
from pdessl.data.groups import GroupPairs
from pdessl.errors import DataError
from pdessl.solvers import random_stream
from pdessl.trajectory import Trajectories

__all__ = ["Draw", "IndexBatches", "PairDraw", "PairedWindows"]


class Draw(NamedTuple):
    """One batch to be.

    Args:
        numbers: numbers of the trajectories, shape (B,), int64.
        places: where the windows lie, uniform numbers in [0, 1), shape (B, 1 + d), time first; None: in the middle.
    """

    numbers: torch.Tensor
    places: torch.Tensor | None = None


class PairDraw(NamedTuple):
    """One batch of pairs to be: row by row another run of the same group (of a run alone: itself)."""

    runs: Draw
    partners: Draw


class PairedWindows(Dataset[Trajectories]):
    """Windows of runs with windows of their partners: one :class:`PairDraw` gives one batch with ``partner``.

    Args:
        windows: a dataset that is indexed by :class:`Draw`.
    """

    def __init__(self, windows: Dataset[Trajectories]) -> None:
        self.windows = windows

    def __getitem__(self, draw: PairDraw) -> Trajectories:
        return self.windows[draw.runs].replace(partner=self.windows[draw.partners])


class IndexBatches(DistributedSampler):
    """Batches of an epoch; the order, and the place of every window, is a function of (seed, epoch) only.

    Args:
        size: number of trajectories, or the numbers of several datasets that are mixed; their trajectories are numbered
            one after the other.
        batch_size: B, the most trajectories of a batch, over all processes. An epoch is cut into as few batches as that
            allows, of sizes that differ by at most one: every draw is in one of them.
        shuffle: permute anew every epoch.
        seed: seed of the permutations.
        replicas, rank: number of processes and the number of this one. Every batch is shared by all of them, row by row
            in the order of ranks: together they see what one process sees, in as many steps.
        weights: with several datasets, how often each is drawn, relative to the others; default their sizes, so that an
            epoch has every trajectory once. An epoch always has as many draws as there are trajectories, and each
            dataset its exact part of them, rounded: one that is drawn more often than it has trajectories repeats
            them evenly, of one that is drawn less often another part is seen every epoch.
        window_axes: 1 + d where windows are drawn at random, 0 where not.
        pairs: draw pairs of different runs of one group; B is then the number of pairs, and draws are
            :class:`PairDraw`. In place of ``shuffle``.

    ``start`` is the number of batches to skip, for one epoch, when a run is resumed in the middle of it.

    Raises:
        DataError: weights that are not positive numbers, one per dataset, or weights and pairs; a batch with fewer
            rows than there are processes.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        replicas: int = 1,
        rank: int = 0,
        weights: Sequence[float] | None = None,
        window_axes: int = 0,
        pairs: GroupPairs | None = None,
    ) -> None:
        sizes = [size] if isinstance(size, int) else list(size)
        # Being a DistributedSampler keeps Lightning from wrapping it: it divides the batches among processes itself.
        super().__init__(
            range(sum(sizes)), num_replicas=replicas, rank=rank, shuffle=shuffle, seed=seed, drop_last=False
        )
        self.sizes, self.size, self.batch_size, self.start = sizes, sum(sizes), batch_size, 0
        if weights is not None and (len(weights) != len(sizes) or not all(0 < w < math.inf for w in weights)):
            raise DataError(f"expected {len(sizes)} weights > 0, one per dataset, found {list(weights)}.")
        self.weights = None if weights is None else [float(w) for w in weights]
        if weights is not None and pairs is not None:
            raise DataError("pairs of a group are drawn as often as there are runs; leave out the weights of datasets.")
        self.window_axes, self.pairs = window_axes, pairs
        if pairs is not None:
            self.size = len(pairs)
        self._edges = batch_edges(self.size, batch_size)
        if self.size:  # the last batch is the smallest
            rows_of_process(self._edges[-1] - self._edges[-2], rank, replicas)

    def __len__(self) -> int:
        return len(self._edges) - 1

    def __iter__(self) -> Iterator[Draw | PairDraw]:
        order = self._order()
        places = None
        if self.window_axes and (self.shuffle or self.pairs is not None):
            shape = (*order.shape, self.window_axes)
            places = random_stream(self.seed, "batches", self.epoch, "windows").random(shape)
        skipped, self.start = self.start, 0
        batches = list(itertools.pairwise(self._edges))[skipped:]
        return iter([self._draw(order, places, self._mine(first, end)) for first, end in batches])

    def _mine(self, first: int, end: int) -> slice:
        rows = rows_of_process(end - first, self.rank, self.num_replicas)
        return slice(first + rows.start, first + rows.stop)

    @classmethod
    def _draw(cls, order: np.ndarray, places: np.ndarray | None, part: slice) -> Draw | PairDraw:
        if order.ndim == 2:
            return PairDraw(*(cls._draw(order[:, i], None if places is None else places[:, i], part) for i in (0, 1)))
        drawn = None if places is None else torch.from_numpy(places[part].copy())
        return Draw(torch.from_numpy(order[part].copy()), drawn)

    def _order(self) -> np.ndarray:
        """Return numbers of trajectories, (N,), or of both runs of pairs, (P, 2)."""
        if self.pairs is not None:
            return self.pairs.epoch(random_stream(self.seed, "batches", self.epoch, "order"), self.batch_size)
        if not self.shuffle:
            return np.arange(self.size)
        stream = random_stream(self.seed, "batches", self.epoch, "order")
        if self.weights is None:
            return stream.permutation(self.size)
        first = np.cumsum([0, *self.sizes])
        drawn = []
        for number, quota in enumerate(self.quotas()):
            rounds = math.ceil(quota / max(self.sizes[number], 1))
            numbers = [stream.permutation(self.sizes[number]) for _ in range(rounds)]
            drawn.append(first[number] + np.concatenate([np.zeros(0, dtype=np.int64), *numbers])[:quota])
        return stream.permutation(np.concatenate(drawn))

    def quotas(self) -> list[int]:
        """Return how many draws of an epoch fall on each dataset; they sum to the number of trajectories."""
        weights = np.asarray(self.weights if self.weights is not None else self.sizes, dtype=np.float64)
        exact = self.size * weights / weights.sum()
        quotas = np.floor(exact).astype(int)
        # What rounding down left over goes to the largest remainders.
        for number in np.argsort(quotas - exact, kind="stable")[: self.size - quotas.sum()]:
            quotas[number] += 1
        return quotas.tolist()
