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
from pdessl.objectives.distributed import unit_rows

__all__ = [
    "CollapseSummary",
    "LiDAR",
    "alignment",
    "alpha_req",
    "collapse_summary",
    "lidar",
    "normalised_std",
    "per_dimension_std",
    "rank_me",
    "uniformity",
]


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


def normalised_std(z: Tensor, centre: bool = True) -> float:
    """Mean over columns of the standard deviation of unit rows, times sqrt(D): 1 when isotropic, 0 at collapse.

    Unlike the plain deviation it does not depend on the scale of the embedding: for objectives that leave it free
    (cosine losses, Barlow Twins).

    Args:
        z: embeddings, shape (n, D).
        centre: subtract the column means first; a common offset otherwise lowers the value, as a collapse does. The
            published monitor does not (``False`` reproduces it).

    Source: Chen, He (2021), arXiv:2011.10566, figure 2.
    """
    z = _rows(z)
    if centre:
        z = z - z.mean(dim=0)
    return float(unit_rows(z).std(dim=0).mean()) * math.sqrt(z.shape[1])


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


class LiDAR(NamedTuple):
    """Result of :func:`lidar`: effective ``rank``, and ``signal``, 1 for views that share nothing."""

    rank: float
    signal: float


def lidar(views: Tensor, delta: float = 1e-4, epsilon: float = 1e-8) -> LiDAR:
    """Effective rank of what survives augmentation: of between-sample over within-sample covariance.

        Σ_b = Σ_x (μ_x - μ)(μ_x - μ)ᵀ / (n - 1),   Σ_w = Σ_x Σ_v (e_xv - μ_x)(e_xv - μ_x)ᵀ / (n (q - 1)) + δ I
        rank = exp(-Σ_k p_k log p_k),  p_k = λ_k / Σλ + ε,  λ the eigenvalues of Σ_w^(-1/2) Σ_b Σ_w^(-1/2)
        signal = q tr(Σ_w⁻¹ Σ_b) / D

    Embeddings that hold nothing but the augmentation have a *high* rank (30 of 32) and a signal near 1 (the F ratio,
    which also needs n (q - 1) well above D): read the two together.

    Args:
        views: embeddings of q views of each of n samples, shape (n, q, D), n and q >= 2.
        delta: δ.
        epsilon: ε; the p_k are not renormalised after adding it.

    Source: Thilak et al. (2024), arXiv:2312.04000; the signal is ours.
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2:
        raise ShapeError(f"lidar got embeddings of shape {tuple(views.shape)}; expected (n, q, D) with n, q >= 2.")
    e = views.detach().double()
    n, q, width = e.shape
    means = e.mean(dim=1)
    between = (means - means.mean(dim=0)) / math.sqrt(n - 1)
    within = ((e - means[:, None]) / math.sqrt(n * (q - 1))).flatten(0, 1)
    values, vectors = torch.linalg.eigh(within.T @ within)
    inverse_root = vectors / (values.clamp_min(0) + delta).sqrt()
    # Singular values squared: eigenvalues of the product without forming it.
    eigenvalues = torch.linalg.svdvals(between @ inverse_root).square()
    total = eigenvalues.sum()
    p = eigenvalues / total.clamp_min(torch.finfo(e.dtype).tiny) + epsilon
    return LiDAR(math.exp(-float((p * p.log()).sum())), float(q * total / width))


def alpha_req(z: Tensor, ranks: tuple[int, int] = (4, 100)) -> float:
    """Exponent α of the decay λ_k ~ k^-α of the eigenvalues of the covariance.

    Least squares of log λ_k on -log k with weights 1/k. About 1 is a spectrum that is neither flat (0, whitened) nor
    collapsed (large). It grows at small n: 1.09 for a true 1 at n = 256, D = 128.

    Args:
        z: embeddings, shape (n, D).
        ranks: first and last rank of the fit, from 1; the last is cut at min(n - 1, D). The authors give no range.

    Returns:
        α; NaN where fewer than three ranks have eigenvalues above rounding.

    Source: Agrawal, Mondal, Ghosh, Richards (2022), α-ReQ, NeurIPS 35; weights as in published code.
    """
    z = _rows(z)
    eigenvalues = torch.linalg.svdvals(z - z.mean(dim=0)).square() / (len(z) - 1)
    first, last = ranks[0], min(ranks[1], len(z) - 1, z.shape[1])
    kept = eigenvalues[first - 1 : last]
    kept = kept[kept > 1e-13 * eigenvalues[0]]
    if len(kept) < 3:
        return math.nan
    k = torch.arange(first, first + len(kept), dtype=z.dtype, device=z.device)
    weight = 1 / k / (1 / k).sum()
    x, y = -k.log(), kept.log()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return float((weight * x * y).sum() / (weight * x * x).sum())


def uniformity(z: Tensor, temperature: float = 2.0) -> float:
    """Log of the mean over pairs of exp(-t ‖u_i - u_j‖²), u = z/‖z‖: 0 at collapse, lower the more evenly spread.

    Args:
        z: embeddings, shape (n, D).
        temperature: t.

    Source: Wang, Isola (2020), arXiv:2005.10242, section 4.1.2; for n unit rows evenly spread in many dimensions -2t.
    """
    u = unit_rows(_rows(z))
    return float(torch.logsumexp(-temperature * torch.pdist(u).square(), dim=0)) - math.log(len(u) * (len(u) - 1) / 2)


def alignment(z: Tensor, z_prime: Tensor) -> float:
    """Mean of ‖u - u'‖² over partners, u = z/‖z‖: 0 where views agree, 2 where they are unrelated.

    Args:
        z: embeddings of the first view, shape (n, D).
        z_prime: of the second, the same rows in the same order.

    Source: Wang, Isola (2020), arXiv:2005.10242, section 4.1.1, exponent 2.
    """
    z, z_prime = _rows(z), _rows(z_prime)
    if z.shape != z_prime.shape:
        raise ShapeError(f"alignment got embeddings {tuple(z.shape)} and {tuple(z_prime.shape)}; expected the same.")
    return float((unit_rows(z) - unit_rows(z_prime)).square().sum(dim=1).mean())


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
