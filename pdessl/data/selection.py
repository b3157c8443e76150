"""Some trajectories of a dataset, from one or several of its splits."""

# N trajectories, n of them chosen

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdessl.data.source import Source
from pdessl.errors import DataError

__all__ = ["Selection"]


@dataclass(frozen=True, eq=False)
class Selection:
    """Trajectories of one source, from one or several of its splits.

    Args:
        source: the dataset.
        splits: names of splits.
        split: number in ``splits`` of each trajectory's split, shape (n,), int64.
        rows: number of each trajectory in its split, shape (n,), int64.
    """

    source: Source
    splits: tuple[str, ...]
    split: np.ndarray
    rows: np.ndarray

    @staticmethod
    def whole(source: Source, splits: Sequence[str]) -> Selection:
        """Return all trajectories of some splits, in their order."""
        sizes = [source.splits[name] for name in splits]
        number = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *(np.arange(n) for n in sizes)])
        return Selection(source, tuple(splits), number, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: np.ndarray | slice) -> Selection:
        return Selection(self.source, self.splits, self.split[numbers], self.rows[numbers])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one trajectory, (C, T, *X).

        Raises:
            DataError: the splits differ in shape.
        """
        used = [self.splits[i] for i in np.unique(self.split)] or list(self.splits[:1])
        shapes = {name: self.source.shape(name) for name in used}
        if len(set(shapes.values())) > 1:
            raise DataError(f"{self.source.name}: splits differ in shape: {shapes}. Use them apart, as other splits.")
        return next(iter(shapes.values()))

    def of_equal_shape(self) -> list[Selection]:
        """Return the trajectories as selections of one shape each, that of most trajectories first."""
        shapes = [self.source.shape(name) for name in self.splits]
        known = list(dict.fromkeys(shapes))
        kind = np.array([known.index(shape) for shape in shapes], dtype=np.int64)[self.split]
        counts = np.bincount(kind, minlength=len(known))
        return [self[kind == k] for k in np.argsort(-counts, kind="stable").tolist() if counts[k]] or [self]

    def groups(self) -> np.ndarray:
        """Return the group of each trajectory, shape (n,); see :meth:`Source.groups`."""
        return self._of_splits([self.source.groups(name) for name in self.splits])

    def parameter_values(self) -> dict[str, np.ndarray]:
        """Return the labels that all of its splits have, each of shape (n,), float64."""
        values = [self.source.parameter_values(name) for name in self.splits]
        names = [n for n in (values[0] if values else {}) if all(n in v for v in values)]
        return {n: self._of_splits([v[n] for v in values]) for n in names}

    def _of_splits(self, values: Sequence[np.ndarray]) -> np.ndarray:
        result = np.empty(len(self), values[0].dtype if values else np.float64)
        for number, held in enumerate(values):
            places = np.flatnonzero(self.split == number)
            result[places] = held[self.rows[places]]
        return result
