"""Intervals calibrated by runs left out of the fit, whatever their width starts from."""

# n calibration runs, m new runs, D feature width, K fold models

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pdessl.errors import DataError
from pdessl.inference.readouts import Estimator

__all__ = ["CrossConformal", "CrossQuantiles"]


@dataclass(frozen=True, eq=False)
class CrossConformal:
    """Intervals from runs that each were predicted by a model which had not seen them.

        [ -Q{ R_i s_k(i)(z) - μ_k(i)(z) },  Q{ μ_k(i)(z) + R_i s_k(i)(z) } ],   Q the ⌈(n+1) level⌉-th smallest

    R_i = |y_i - μ_k(i)(z_i)|/s_k(i)(z_i) is the score of run i under model k(i). With one model and runs held out from
    it this is split conformal prediction, μ ± q s, with coverage of at least the level on exchangeable runs. With K
    models, each fitted without one fold, it is CV+: no label is spent on calibration alone; coverage is then close to
    the level in practice, and at least 2 level - 1 - sqrt(2/n) for any data. With quantiles l <= h in the place of μ,
    R_i = max(l - y_i, y_i - h)/s, and the ends are those of l below and of h above.

    Args:
        scores: R, (n,).
        fold: k(i), (n,), int64.

    Source: Lei et al. (2018), arXiv:1604.04173 (split, with scale); Barber, Candès, Ramdas, Tibshirani (2021),
        arXiv:1905.02928, section 3 and theorem 4 (CV+).
    """

    scores: NDArray[np.float64]
    fold: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of calibration runs."""
        return len(self.scores)

    def at(self, level: float, folds: Sequence[Estimator]) -> CrossConformal:
        """Return the rule for a level: scores of this kind are the same for all."""
        return self

    def ends(
        self,
        predictions: NDArray[np.float64],
        scales: NDArray[np.float64],
        level: float,
        upper: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lower and upper ends, (m,) each.

        Infinite where there are fewer than level/(1 - level) runs: no finite interval could keep the promise. Ends that
        would cross, because quantiles were far too wide, meet in the middle.

        Args:
            predictions: of every model, or its lower quantiles where ``upper`` is given, (K, m).
            scales: of every model, (K, m).
            level: in (0, 1).
            upper: upper quantiles, (K, m).

        Raises:
            DataError: a level outside (0, 1).
        """
        _check(level)
        n, m = len(self.scores), predictions.shape[1]
        rank = math.ceil((n + 1) * level - 1e-9)
        if rank > n:
            return np.full(m, -np.inf), np.full(m, np.inf)
        margin = self.scores[:, None] * scales[self.fold]
        above = (predictions if upper is None else upper)[self.fold] + margin
        high = np.partition(above, rank - 1, axis=0)[rank - 1]
        low = -np.partition(margin - predictions[self.fold], rank - 1, axis=0)[rank - 1]
        middle = (low + high) / 2
        return np.minimum(low, middle), np.maximum(high, middle)


@dataclass(frozen=True, eq=False)
class CrossQuantiles:
    """Calibration runs of conformalised quantiles: their scores depend on the level, so the runs are kept.

    Args:
        features: of the calibration runs, (n, D).
        truth: their labels on the scale of the readout, (n,).
        fold: k(i), the model that has not seen run i, (n,), int64.

    Source: Romano, Patterson, Candès (2019), arXiv:1905.03222; left out by folds: Gupta, Kuchibhotla, Ramdas (2022),
        arXiv:1910.10562.
    """

    features: Tensor
    truth: Tensor
    fold: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Number of calibration runs."""
        return len(self.truth)

    def at(self, level: float, folds: Sequence[Estimator]) -> CrossConformal:
        """Return the rule for a level, whose scores are those of the folds' quantiles at it.

        Raises:
            DataError: a level outside (0, 1).
        """
        _check(level)
        scores, y = np.empty(len(self.truth)), self.truth.numpy()
        for k, estimator in enumerate(folds):
            left = np.flatnonzero(self.fold == k)
            if len(left):
                low, high = estimator.ends(self.features[left], level)
                scores[left] = np.maximum(low - y[left], y[left] - high)
        return CrossConformal(scores, self.fold)


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"level {level}: the share of runs an interval shall hold lies between 0 and 1, e.g. 0.9.")
