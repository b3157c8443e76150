"""Where a model is unsure: several models that disagree, and how far ahead one may be believed."""

# B batch, N candidates, H control periods, A actuators, K kept Fourier modes, n calibration starts

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.control.environment import Environment
from pdessl.control.episodes import Situation
from pdessl.control.receding import Model
from pdessl.errors import DataError, ShapeError

__all__ = ["Ensemble", "usable_horizon"]


class Ensemble:
    """Several models of one environment: their mean is imagined, and where they disagree costs.

        x̂ = 1/n Σ_i x̂_i,    doubt = w/n Σ_i mean (û_i - û)²

    A plan that the models disagree about leads where they were not trained, and a search finds such plans: errors of a
    single model look like good luck. States are averaged: a price of the models' own
    (:class:`pdessl.control.receding.Priced`) is not asked.

    Args:
        environment: what is controlled.
        models: two or more, trained from different seeds.
        weight: w >= 0, in costs of a mean square.

    Raises:
        DataError: fewer than two, or a negative weight.

    Source: Chua et al. (2018), arXiv:1805.12114 (ensembles in planning); the variance as a price: Yu et al. (2020),
        arXiv:2005.13239.
    """

    def __init__(self, environment: Environment, models: Sequence[Model], weight: float = 1.0) -> None:
        if len(models) < 2 or not weight >= 0:
            raise DataError(f"an ensemble of {len(models)} models, weight {weight}: expected two or more, and >= 0.")
        self.environment, self.models, self.weight = environment, tuple(models), weight

    def imagine(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return the mean of what the models imagine, (B, N, H, K)."""
        return self.doubted(situation, actions)[0]

    def doubted(self, situation: Situation, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, and what the disagreement about each period costs, (B, N, H)."""
        several = torch.stack([model.imagine(situation, actions) for model in self.models])
        mean = several.mean(dim=0)
        return mean, self.weight * self.environment.mean_square(several - mean).mean(dim=0)


def usable_horizon(errors: Tensor, most: float, level: float = 0.9) -> int:
    """Return for how many periods ahead a model may be believed, 0 to H.

    The first periods in which the ⌈(n + 1) level⌉-th smallest error of each stays at or below ``most``: on a new start
    like these an error that far ahead passes it with probability 1 - level at most, each period by itself.

    Args:
        errors: of what was imagined k = 1 .. H periods ahead, (n, H).
        most: that is allowed, in their unit.
        level: in (0, 1).

    Raises:
        ShapeError: too few starts for the level.
        DataError: a level out of range.

    Source: Vovk, Gammerman, Shafer (2005).
    """
    if not 0 < level < 1:
        raise DataError(f"level {level}: expected a frequency between 0 and 1, e.g. 0.9.")
    rank = math.ceil((len(errors) + 1) * level - 1e-9)
    if errors.ndim != 2 or rank > len(errors):
        few = math.ceil(level / (1 - level) - 1e-9)
        raise ShapeError(f"errors {tuple(errors.shape)} at level {level}; expected (n, H) with n >= {few}.")
    beyond = ~(errors.sort(dim=0).values[rank - 1] <= most)  # an error that is not a number is beyond
    return int(beyond.long().argmax()) if bool(beyond.any()) else errors.shape[1]
