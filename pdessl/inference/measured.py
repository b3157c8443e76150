"""What a model makes of runs that nothing was fitted on: errors, coverage, novelty."""

# m runs

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pdessl.evaluation.intervals import Coverage, coverage
from pdessl.evaluation.metrics import error_in_percent, nmse

__all__ = ["Measured", "MeasuredParameter"]


@dataclass(frozen=True, eq=False)
class MeasuredParameter:
    """How a model does on one parameter.

    Args:
        error: relative error in %, see :func:`pdessl.evaluation.metrics.error_in_percent`; NaN where all labels are 0.
        nmse: mean squared error over the variance of the labels; NaN where these are all the same.
        coverage: of the intervals.
        truth, prediction, low, high: of every run, (m,), in the parameter's own unit.
    """

    error: float
    nmse: float
    coverage: Coverage
    truth: NDArray[np.float64]
    prediction: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @staticmethod
    def of(
        truth: NDArray[np.float64],
        prediction: NDArray[np.float64],
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        level: float,
        calibrated_on: int | None = None,
    ) -> MeasuredParameter:
        """Compare predictions and intervals with labels, (m,) each."""
        guess, label = torch.from_numpy(prediction), torch.from_numpy(truth)
        return MeasuredParameter(
            error=float(error_in_percent(guess, label)) if truth.any() else math.nan,
            nmse=float(nmse(guess, label)) if np.ptp(truth) > 0 else math.nan,
            coverage=coverage(truth, low, high, level, calibrated_on),
            truth=truth,
            prediction=prediction,
            low=low,
            high=high,
        )


@dataclass(frozen=True, eq=False)
class Measured:
    """How a model does on runs.

    Args:
        count: m.
        novelty: of every run, (m,).
        in_distribution: whether each is like the runs of training, (m,) bool.
        parameters: by name, those that the runs have labels of.
    """

    count: int
    novelty: NDArray[np.float64]
    in_distribution: NDArray[np.bool_]
    parameters: Mapping[str, MeasuredParameter]

    def plain(self) -> dict[str, Any]:
        """Return plain data: ``count``, ``novel`` (share), and by parameter ``error`` in % and ``coverage`` (share)."""
        return {
            "count": self.count,
            "novel": 1 - float(self.in_distribution.mean()),
            "error": {name: found.error for name, found in self.parameters.items()},
            "coverage": {name: found.coverage.share for name, found in self.parameters.items()},
        }
