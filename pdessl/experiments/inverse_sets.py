"""Sets of an inverse benchmark: runs divided by the value of a parameter, seen through short windows with noise."""

# B runs, T frames, P targets

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.data import generate
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.data.store import Store
from pdessl.errors import DataError, SchemaError
from pdessl.experiments.inverse_degradation import Degradation, degraded
from pdessl.schema import Positive, Size
from pdessl.solvers import random_stream
from pdessl.trajectory import Trajectories

__all__ = ["PLACES", "Held", "InverseSet", "Shown", "content_hash", "folder_of", "place_of", "windows"]

#: Where a run lies: among the values that are trained on, between them, or beyond.
PLACES = ("in", "middle", "extreme")
_ROUNDING = 1e-9  # relative; ends of ranges are often values of the grid
_SPLITS = ("labelled", "validation", "test")


@dataclass(frozen=True)
class Shown:
    """How a target is shown and scored: under which name, and as which root of the parameter of the equation.

    Args:
        name: what readers see; default the parameter's.
        root: 2 where the equation has the square of what is asked for.
    """

    name: str = ""
    root: Positive = 1.0


@dataclass(frozen=True)
class InverseSet:
    """Runs of one equation with unknown parameters.

    Args:
        dataset: a dataset file, by name or path.
        targets: parameters that are to be found, with how they are shown.
        by: the parameter whose value divides the runs.
        ranges: ``in``, ``middle`` and ``extreme``, each a list of [low, high] of the parameter as it is shown, ends
            included; of two that share an end the first named has it.
        prior: per target the range that estimates without labels look in, as it is shown.
        changes: other values of the dataset file.
        size: runs of ``labelled``, ``validation`` and ``test``.
        equation: formulation that residuals are made of; default the dataset's.
    """

    dataset: str
    targets: dict[str, Shown]
    by: str
    ranges: dict[str, tuple[tuple[float, float], ...]]
    prior: dict[str, tuple[Positive, Positive]]
    changes: dict[str, Any] = field(default_factory=dict)
    size: dict[str, Size] = field(default_factory=dict)
    equation: str | None = None

    def __post_init__(self) -> None:
        if set(self.ranges) != set(PLACES) or any(low > high for r in self.ranges.values() for low, high in r):
            raise SchemaError(f"ranges: expected {', '.join(PLACES)} with [low, high] each, found {dict(self.ranges)}.")
        if not self.targets or self.by not in self.targets or set(self.prior) != set(self.targets):
            raise SchemaError(
                f"targets {', '.join(self.targets) or 'none'}: expected one or more, 'by' ({self.by}) among them, and "
                f"a prior of each (found one of {', '.join(self.prior) or 'none'})."
            )

    def recipe(self) -> DatasetRecipe:
        """Return the dataset that is generated: none of its runs is unlabelled."""
        recipe = load_recipe(self.dataset, overrides=self.changes)
        size = {name: 0 for name in recipe.splits if name not in _SPLITS}
        return load_recipe(recipe, size={**size, **self.size})

    def name(self, target: str) -> str:
        """Return what readers see of a target."""
        return self.targets[target].name or target

    def shown(self, values: Tensor) -> Tensor:
        """Return parameters of the equation (B, P) as they are shown; what is below 0 counts as 0 under a root."""
        columns = [values[:, i] for i in range(values.shape[1])]
        roots = [s.root for s in self.targets.values()]
        return torch.stack([c if r == 1 else c.clamp_min(0) ** (1 / r) for c, r in zip(columns, roots, strict=True)], 1)

    def hidden(self, values: Tensor) -> Tensor:
        """Return what is shown (B, P) as parameters of the equation."""
        roots = [s.root for s in self.targets.values()]
        return torch.stack([values[:, i] ** r if r != 1 else values[:, i] for i, r in enumerate(roots)], dim=1)


def place_of(values: np.ndarray, ranges: Mapping[str, Any]) -> np.ndarray:
    """Return for each value the name of the range it lies in, the first of those that hold it, or an empty text."""
    found = np.full(len(values), "", dtype=object)
    for name in reversed(PLACES):
        for low, high in ranges[name]:
            found[(values >= low * (1 - _ROUNDING)) & (values <= high * (1 + _ROUNDING))] = name
    return found


@dataclass(frozen=True, eq=False)
class Held:
    """The runs of a set: those that train, those that choose and calibrate, and those that score, by place.

    Args:
        of: the set.
        recipe: the dataset.
        training, validation: runs in distribution.
        test: runs per place.
    """

    of: InverseSet
    recipe: DatasetRecipe
    training: Trajectories
    validation: Trajectories
    test: dict[str, Trajectories]

    @staticmethod
    def make(of: InverseSet, folder: Path) -> Held:
        """Generate a set into a folder, or read what is there, and divide it.

        Raises:
            DataError: no run in one of the places.
            StoreError: the folder holds something else.
        """
        recipe = of.recipe()
        store = generate(recipe, folder, resume=True, progress=False)
        training, validation = (Held._chosen(of, store, name, "in") for name in ("labelled", "validation"))
        return Held(of, recipe, training, validation, {p: Held._chosen(of, store, "test", p) for p in PLACES})

    @staticmethod
    def _chosen(of: InverseSet, store: Store, split: str, place: str) -> Trajectories:
        values = torch.from_numpy(store.parameter_values(split)[of.by]).double() ** (1 / of.targets[of.by].root)
        rows = np.flatnonzero(place_of(values.numpy(), of.ranges) == place)
        if len(rows) < 2:
            raise DataError(
                f"{of.dataset}: {len(rows)} runs of split {split} have a value of '{of.name(of.by)}' that is {place}; "
                "expected 2 or more. Ask for more of them (size)."
            )
        return store.load(split, rows)

    def truth(self, runs: Trajectories) -> Tensor:
        """Return the targets of runs as they are shown, (B, P), float64."""
        return self.of.shown(torch.stack([runs.parameters[n].double() for n in self.of.targets], dim=1))

    def bare(self, runs: Trajectories) -> Trajectories:
        """Return runs without the values that are asked for, with those that belong to the equation."""
        known = {n: torch.full((len(runs),), v, dtype=torch.float64) for n, v in self.recipe.constants.items()}
        return runs.replace(parameters={n: v for n, v in known.items() if n not in self.of.targets})


def windows(
    runs: Trajectories, frames: int, noise: float, seed: int, purpose: str, degradation: Degradation | None = None
) -> Trajectories:
    """Cut a window of each run, at a place of its own, add white noise, and degrade it.

    Args:
        runs: the runs.
        frames: T.
        noise: standard deviation over that of each field of the whole run.
        seed: of places and noise; they depend on the number of the run besides, not on the runs beside it.
        purpose: what tells draws of the same seed apart.
        degradation: what else is done to the frames; default nothing.

    Raises:
        DataError: runs shorter than the window.
    """
    b, _, total = runs.fields.shape[:3]
    if not 2 <= frames <= total:
        raise DataError(f"windows of {frames} frames of runs with {total}; expected 2 to {total}.")
    numbers = range(b) if runs.index is None else runs.index.tolist()
    streams = [random_stream(seed, purpose, int(k), "window") for k in numbers]
    starts = torch.tensor([int(s.integers(total - frames + 1)) for s in streams])
    taken = starts[:, None] + torch.arange(frames)
    every = torch.arange(b)[:, None]
    fields = runs.fields.transpose(1, 2)[every, taken].transpose(1, 2).double()
    if noise:
        spread = runs.fields.double().flatten(2).std(dim=2)
        drawn = np.stack([s.standard_normal(tuple(fields.shape[1:])) for s in streams])
        fields = fields + noise * spread.reshape(b, -1, *[1] * (fields.ndim - 2)) * torch.from_numpy(drawn)
    if degradation is not None and not degradation.none:
        own = [random_stream(seed, purpose, int(k), "degradation") for k in numbers]
        fields = degraded(fields, degradation, lambda *s: torch.from_numpy(np.stack([g.random(s[1:]) for g in own])))
    return runs.replace(fields=fields, time=runs.time[every, taken])


def content_hash(content: Any) -> str:
    """Return the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def folder_of(root: str | os.PathLike[str], name: str) -> Path:
    """Return the folder of a set's data."""
    return Path(root) / "data" / name
