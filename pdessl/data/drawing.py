"""The random numbers of a trajectory: a function of the dataset's seed, the split and the trajectory's number only."""

# B batch, d number of space axes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pdessl.data.recipe import DatasetRecipe
from pdessl.solvers import random_stream

__all__ = ["Draw", "draw"]


@dataclass(frozen=True, eq=False)
class Draw:
    """What was drawn for one trajectory.

    Args:
        initial: numbers of the initial field, see :meth:`pdessl.solvers.InitialCondition.draw`.
        lengths: domain length per axis, d numbers.
        parameters: physical parameters.
        time_scale: factor of the times of the frames.
        coefficients: named coefficients of the initial field, where the dataset records them.
        forcing: numbers of the source term, where the dataset has one.
    """

    initial: Tensor
    lengths: tuple[float, ...]
    parameters: dict[str, float]
    time_scale: float = 1.0
    coefficients: dict[str, float] = field(default_factory=dict)
    forcing: Tensor | None = None


def draw(recipe: DatasetRecipe, split: str, trajectory: int, attempt: int = 0) -> Draw:
    """Draw one trajectory.

    Args:
        recipe: the dataset.
        split: name of the split.
        trajectory: number in the split.
        attempt: 0, then counted up when a draw is rejected. A parameter that a group of trajectories shares stays.
    """
    family = recipe.initial_condition
    stream = random_stream(recipe.seed, split, trajectory, "physics", attempt)
    initial = family.draw(stream)
    drawn = tuple(length.draw(stream, trajectory) for length in recipe.lengths)
    parameters = {}
    for name, distribution in recipe.parameters.items():
        if (shared := distribution.shared_by(split)) > 1:
            group = random_stream(recipe.seed, split, trajectory // shared, f"group:{name}")
            parameters[name] = distribution.draw(group, trajectory // shared)
        else:
            parameters[name] = distribution.draw(stream, trajectory)
    coefficients = {}
    if recipe.records_coefficients:
        coefficients = family.coefficients(random_stream(recipe.seed, split, trajectory, "physics", attempt))
    # A constant takes nothing from its stream, which need not be made then.
    scale = recipe.time_scale
    constant = scale.kind == "constant"
    return Draw(
        initial,
        drawn if len(drawn) == recipe.dimensions else drawn * recipe.dimensions,
        parameters,
        scale.low
        if constant
        else scale.draw(random_stream(recipe.seed, split, trajectory, "time", attempt), trajectory),
        coefficients,
        recipe.forcing and recipe.forcing.draw(random_stream(recipe.seed, split, trajectory, "forcing", attempt)),
    )


def stack(draws: Sequence[Draw]) -> tuple[Tensor, Tensor]:
    """Return the numbers of the initial fields (B, ...) and the lengths (B, d), float64, of several draws."""
    lengths = torch.tensor([d.lengths for d in draws], dtype=torch.float64)
    return torch.stack([d.initial for d in draws]), lengths
