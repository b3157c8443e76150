"""Scores of many forecasts of one future: energy score, coverage, and the best of some."""

# M samples of each row, n rows, E entries of a row

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = ["best_error", "energy_score", "sample_coverage"]


def _flat(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if samples.ndim < 2 or samples.shape[1:] != truth.shape or not samples.numel():
        raise ShapeError(
            f"got samples {tuple(samples.shape)} of truths {tuple(truth.shape)}; expected (M, n, ...) and (n, ...)."
        )
    rows = len(truth)
    return samples.detach().double().reshape(len(samples), rows, -1), truth.detach().double().reshape(rows, -1)


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """Return the energy score of each row, (n,): the smaller, the better; least, in the mean, for the truth.

        mean_m |x_m - y| - ½ mean_{m ≠ k} |x_m - x_k|,    |·| the root mean square over the entries of a row

    Unbiased for any number of samples (the second mean leaves out m = k). Of one sample it is its error, so that a
    deterministic forecast is scored on the same scale. In one dimension: the continuous ranked probability score.

    Args:
        samples: x, (M, n, ...).
        truth: y, (n, ...).

    Raises:
        ShapeError: shapes that do not fit.

    Source: Gneiting, Raftery (2007), section 4.2; the unbiased form: Ferro (2014).
    """
    x, y = _flat(samples, truth)
    near = (x - y).square().mean(dim=2).sqrt().mean(dim=0)
    if len(x) < 2:
        return near
    apart = torch.zeros_like(near)
    for one in x:
        apart += (x - one).square().mean(dim=2).sqrt().sum(dim=0)
    return near - apart / (2 * len(x) * (len(x) - 1))


def sample_coverage(samples: Tensor, truth: Tensor, level: float = 0.9) -> tuple[float, float]:
    """Return the share of entries between the k-th smallest and the k-th largest sample, and what is promised there.

    If truth and samples are exchangeable, an entry lies there with probability 1 - 2k/(M + 1) exactly; k is the largest
    for which that is at least ``level``, or 1: few samples promise less.

    Args:
        samples: (M, n, ...), M >= 2.
        truth: (n, ...).
        level: in (0, 1).

    Raises:
        ShapeError: shapes that do not fit.
        DataError: one sample, or a level outside (0, 1).
    """
    x, y = _flat(samples, truth)
    if len(x) < 2 or not 0 < level < 1:
        raise DataError(f"coverage of {len(x)} samples at {level}; expected two or more, and a level in (0, 1).")
    k = max(1, math.floor((1 - level) / 2 * (len(x) + 1) + 1e-9))
    ordered = x.sort(dim=0).values
    inside = (ordered[k - 1] <= y) & (y <= ordered[len(x) - k])
    return float(inside.double().mean()), 1 - 2 * k / (len(x) + 1)


def best_error(samples: Tensor, truth: Tensor, count: int) -> Tensor:
    """Return the least root mean square error among the first ``count`` samples of each row, (n,).

    Raises:
        ShapeError: shapes that do not fit, or fewer samples.
    """
    x, y = _flat(samples, truth)
    if not 1 <= count <= len(x):
        raise ShapeError(f"the best of {count} samples, of which there are {len(x)}.")
    return (x[:count] - y).square().mean(dim=2).sqrt().amin(dim=0)
