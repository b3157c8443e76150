"""Collapse monitors: numbers that fall when a representation loses dimensions, long before a downstream score
shows it.
"""

# n rows, D width

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["CollapseSummary", "collapse_summary", "per_dimension_std", "rank_me"]


class CollapseSummary(NamedTuple):
    """Monitors of one set of embeddings; every one depends on ``rows`` and ``width``, which come with it."""

    std_min: float
    std_median: float
    share_collapsed: float
    correlation: float
    rank_me: float
    rows: int
    width: int


def _rows(z: Tensor) -> Tensor:
    if z.ndim != 2 or z.shape[0] < 2:
        raise ShapeError(f"collapse monitors got embeddings of shape {tuple(z.shape)}; expected (n, D) with n >= 2.")
    return z.detach().double()


def per_dimension_std(z: Tensor) -> Tensor:
    """Standard deviation of each column, with n - 1, in float64.

    Args:
        z: embeddings, shape (n, D), n >= 2.

    Returns:
        Shape (D,). A column near 0 no longer carries information.
    """
    return _rows(z).std(dim=0)


def rank_me(z: Tensor, centre: bool = True, epsilon: float = 1e-7) -> float:
    """Effective rank: exp of the entropy of the normalised singular values.

        RankMe = exp(-Σ_k p_k log p_k),   p_k = σ_k / Σσ + ε

    Between 1 (collapse to a line or point) and min(n, D). It grows with n: for Gaussian embeddings of width 128 it is
    59 at n = 64, 118 at n = 256, 127.5 at n = 4096. Compare values at one n only.

    Args:
        z: embeddings, shape (n, D).
        centre: subtract the column means first. The published definition does not (``False`` reproduces it), and then a
            common offset hides the rank.
        epsilon: ε; the p_k are not renormalised after adding it.

    Source: Garrido, Balestriero, Najman, LeCun (2023), arXiv:2210.02885.
    """
    z = _rows(z)
    if centre:
        z = z - z.mean(dim=0)
    singular = torch.linalg.svdvals(z)
    p = singular / singular.sum().clamp_min(torch.finfo(z.dtype).tiny) + epsilon
    return math.exp(-float((p * p.log()).sum()))


def collapse_summary(z: Tensor, collapsed_below: float = 0.05) -> CollapseSummary:
    """Return all monitors of a set of embeddings.

    Args:
        z: embeddings, shape (n, D); n >= 4 D where possible.
        collapsed_below: a column whose standard deviation is below this counts as collapsed; the default suits
            objectives that aim at 1.

    Returns:
        ``correlation`` is the mean squared off-diagonal correlation; its floor for independent columns is 1/(n - 1).
    """
    z = _rows(z)
    std = z.std(dim=0)
    n, width = z.shape
    unit = (z - z.mean(dim=0)) / std.clamp_min(torch.finfo(z.dtype).tiny)
    correlations = unit.T @ unit / (n - 1)
    off = correlations.square().sum() - correlations.diagonal().square().sum()
    return CollapseSummary(
        std_min=float(std.min()),
        std_median=float(std.median()),
        share_collapsed=float((std < collapsed_below).double().mean()),
        correlation=float(off / max(width * (width - 1), 1)),
        rank_me=rank_me(z),
        rows=n,
        width=width,
    )
