"""Barlow Twins: the cross-correlation of two views is the identity."""

# n rows over all processes, D embedding width

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.objectives.distributed import check_embeddings, full_precision, sum_over_processes
from pdessl.objectives.terms import Terms
from pdessl.objectives.variance_covariance import centred
from pdessl.objectives.views import Views, over_pairs

__all__ = ["BarlowTwins", "BarlowTwinsTerms", "cross_correlation"]

EPSILON = 1e-5


class BarlowTwinsTerms(NamedTuple):
    """Terms of :class:`BarlowTwins`: ``loss`` is weighted, the others are sums over matrix entries."""

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor


def cross_correlation(z: Tensor, z_prime: Tensor, n: int) -> Tensor:
    """Return the correlations C_ij of column i of z with column j of z', over the n rows of all processes.

        C = z̃ᵀ z̃' / n,   z̃ = (z - mean) / sqrt(var + 1e-5),   var with n

    Args:
        z: embeddings of the first view, shape (B, D), float32 or float64.
        z_prime: of the second, the same rows in the same order.
        n: rows over all processes.

    Returns:
        Shape (D, D).
    """
    normalised = []
    for view in (z, z_prime):
        deviations = centred(view, n)
        variance = sum_over_processes(deviations.square().sum(dim=0)) / n
        normalised.append(deviations / torch.sqrt(variance + EPSILON))
    return sum_over_processes(normalised[0].T @ normalised[1]) / n


class BarlowTwins(nn.Module):
    """Each dimension agrees between two views and is uncorrelated with every other: redundancy reduction.

        loss = Σ_i (C_ii - 1)² + λ Σ_{i≠j} C_ij²,   C the cross-correlation of z and z' over the batch

    Behaviour: exactly D when all rows are equal; λ D (D - 1) when both views hold D copies of one column. Scale and
    shift of a column do not enter (up to 1e-5 in the variance), so the spread is not controlled. Independent columns
    give λ D (D - 1)/(n - 1). Terms are sums, not means: the learning rate depends on D.

    Args:
        off_diagonal: λ >= 0; 0.0051 belongs to D = 8192.

    Shapes:
        z, z' (B, D), any float dtype -> BarlowTwinsTerms of scalars in float32 (float64 in, float64 out).
        Mean, variance and correlation are over all ranks; batches may differ in size.

    Raises:
        ShapeError: z and z' differ in shape, or are not (B, D).
        DataError: a non-finite entry.
        ValueError: fewer than 2 rows over all ranks, or a negative weight.

    Source: Zbontar, Jing, Misra, LeCun, Deny (2021), arXiv:2103.03230, eq. 1 and 2; 1e-5 as in a batch norm.
    """

    choose_when: ClassVar[str] = "two views; wide embeddings whose scale does not matter"

    def __init__(self, off_diagonal: float = 0.0051) -> None:
        super().__init__()
        if not off_diagonal >= 0:
            raise ValueError(f"BarlowTwins: off_diagonal is {off_diagonal}; expected a weight >= 0.")
        self.off_diagonal = off_diagonal

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self.terms(views[v].embedding, views[w].embedding), "BarlowTwins")

    def terms(self, z: Tensor, z_prime: Tensor) -> BarlowTwinsTerms:
        """Return the terms for embeddings of two views, the same rows in the same order."""
        n = check_embeddings("BarlowTwins", (z, z_prime))
        with torch.autocast(z.device.type, enabled=False):
            correlation = cross_correlation(full_precision(z), full_precision(z_prime), n)
            diagonal = correlation.diagonal()
            on = (diagonal - 1).square().sum()
            off = correlation.square().sum() - diagonal.square().sum()
            return BarlowTwinsTerms(on + self.off_diagonal * off, on, off)
