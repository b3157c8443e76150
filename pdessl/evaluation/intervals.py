"""The conformal quantile, measured coverage of intervals, and what chance allows of it."""

# n calibration runs, m new runs

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pdessl.errors import DataError, ShapeError

__all__ = ["Coverage", "conformal_quantile", "coverage", "share_by_chance"]


def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """Return the ⌈(n + 1) level⌉-th smallest of n scores: a new exchangeable score is below it with at least ``level``.

    Args:
        scores: of runs that were not used for training, shape (n,). One score per run: windows of one run are not
            exchangeable with those of another.
        level: in (0, 1), e.g. 0.9.

    Returns:
        The quantile; infinity where n is too small for the level (below level/(1 - level)), which is honest.

    Raises:
        DataError: no scores, or one that is not finite, or a level outside (0, 1).

    Source: Vovk, Gammerman, Shafer (2005); Lei et al. (2018), arXiv:1604.04173, section 2.2.
    """
    s = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not len(s) or not np.isfinite(s).all() or not 0 < level < 1:
        raise DataError(
            f"a conformal quantile needs finite scores and a level in (0, 1); got {len(s)} scores, "
            f"{int((~np.isfinite(s)).sum())} of them not finite, and level {level}."
        )
    # Exact arithmetic at the boundary: (n + 1) level is often a whole number that floats miss by an ulp.
    rank = math.ceil((len(s) + 1) * level - 1e-9)
    return math.inf if rank > len(s) else float(np.partition(s, rank - 1)[rank - 1])


@dataclass(frozen=True)
class Coverage:
    """Measured coverage of intervals on held-out runs.

    Args:
        level: wanted.
        share: measured share of truths inside.
        low, high: central 95 % of the share that a rule keeping its promise has, see :func:`share_by_chance`.
        width: mean width, in the unit of the target.
        count: runs.
    """

    level: float
    share: float
    low: float
    high: float
    width: float
    count: int

    @property
    def honest(self) -> bool:
        """Whether the measured share is not below what chance allows."""
        return self.share >= self.low


def share_by_chance(level: float, count: int, calibrated_on: int | None = None) -> tuple[float, float]:
    """Central 95 % of the share of ``count`` truths inside intervals that keep their promise.

    Intervals that hold a truth with probability ``level`` whatever the calibration runs were: binomial. Split conformal
    ones keep it on average over calibration sets of n exchangeable runs; given one set, the probability is itself drawn
    from Beta(k, n + 1 - k) with k = ⌈(n + 1) level⌉, and the share is beta-binomial.

    Args:
        level: promised coverage, in (0, 1).
        count: runs the share is measured on.
        calibrated_on: n, or None for the binomial.

    Source: Vovk (2012), Conditional validity of inductive conformal predictors, arXiv:1209.2673; Angelopoulos and Bates
        (2021), arXiv:2107.07511, section 3.2.
    """
    from scipy.stats import betabinom, binom

    if calibrated_on is None:
        bounds = binom.interval(0.95, count, level)
    else:
        k = math.ceil((calibrated_on + 1) * level - 1e-9)
        if k > calibrated_on:
            return 1.0, 1.0  # infinite intervals
        bounds = betabinom.interval(0.95, count, k, calibrated_on + 1 - k)
    return float(bounds[0]) / count, float(bounds[1]) / count


def coverage(
    truth: ArrayLike, low: ArrayLike, high: ArrayLike, level: float, calibrated_on: int | None = None
) -> Coverage:
    """Measure how often intervals hold the truth.

    Args:
        truth: shape (m,).
        low: lower ends, shape (m,).
        high: upper ends, shape (m,).
        level: what was promised.
        calibrated_on: runs of a split conformal calibration, for what chance allows.
    """
    y, a, b = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (truth, low, high))
    if not len(y) == len(a) == len(b) or not len(y):
        raise ShapeError(f"coverage got {len(y)} truths for {len(a)} and {len(b)} ends; expected as many of each.")
    bounds = share_by_chance(level, len(y), calibrated_on)
    return Coverage(
        level=level,
        share=float(((a <= y) & (y <= b)).mean()),
        low=bounds[0],
        high=bounds[1],
        width=float((b - a).mean()),
        count=len(y),
    )
