"""One parameter that a model predicts, and what of a model its card and its folder hold."""

# m new runs, K fold models

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pdessl.evaluation.novelty import Novelty
from pdessl.inference.conformal import CrossConformal, CrossQuantiles
from pdessl.inference.encoding import RunEncoder
from pdessl.inference.format import InputFormat
from pdessl.inference.readouts import Estimator
from pdessl.inference.views import Views
from pdessl.models.scale import from_scale

__all__ = ["FittedModel", "Target"]


@dataclass(frozen=True, eq=False)
class Target:
    """One parameter that a model predicts.

    Args:
        name: as users know it.
        scale: ``log`` or ``linear``: on which the readout works.
        unit: of the parameter; empty where unknown.
        low, high: smallest and largest label: the range of validity.
        count: labelled runs.
        estimator: makes the prediction.
        folds: make the interval; the estimator itself where calibration runs were given apart.
        conformal: scores of the calibration runs, or the runs themselves where scores depend on the level.
    """

    name: str
    scale: str
    unit: str
    low: float
    high: float
    count: int
    estimator: Estimator
    folds: tuple[Estimator, ...]
    conformal: CrossConformal | CrossQuantiles

    def predict(self, features: Tensor, level: float) -> tuple[NDArray[np.float64], ...]:
        """Return prediction, lower and upper end in the parameter's own unit, (m,) each."""
        value = self.estimator.predict(features)
        rule = self.conformal.at(level, self.folds)
        lower, upper = (np.stack(ends) for ends in zip(*(f.ends(features, level) for f in self.folds), strict=True))
        low, high = rule.ends(lower, np.stack([f.scale(features) for f in self.folds]), level, upper)
        # Fold models differ from the one that predicts; an interval always holds its own prediction.
        found = value, np.minimum(low, value), np.maximum(high, value)
        return tuple(from_scale(torch.from_numpy(f), self.scale).numpy() for f in found)


class FittedModel(Protocol):
    """What a :class:`pdessl.inference.ParameterModel` is made of; see there."""

    @property
    def encoder(self) -> nn.Module | RunEncoder:
        """What makes features."""

    @property
    def views(self) -> Views:
        """That they are averaged over."""

    @property
    def format(self) -> InputFormat:
        """The input it takes."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The parameters it predicts."""

    @property
    def novelty(self) -> Novelty:
        """Distance of features from those of training."""

    @property
    def trunk_novelty(self) -> Novelty | None:
        """That of the values below the encoder's head."""

    @property
    def level(self) -> float:
        """Of the intervals."""

    @property
    def record(self) -> Mapping[str, Any]:
        """Plain data for the card."""

    @property
    def head(self) -> nn.Module | None:
        """The trained head that the readouts are columns of."""

    @property
    def seed(self) -> int:
        """Of the views."""

    @property
    def layer(self) -> str:
        """Of the encoder that is read."""
