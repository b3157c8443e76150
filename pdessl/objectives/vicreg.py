"""VICReg: invariance between views, variance and decorrelation within each."""

# n rows over all processes, D embedding width

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.objectives.distributed import check_embeddings, full_precision, row_count, sum_over_processes
from pdessl.objectives.terms import Terms
from pdessl.objectives.variance_covariance import VarianceCovariance
from pdessl.objectives.views import Views, over_pairs

__all__ = ["VICReg", "VICRegTerms", "invariance_term"]


class VICRegTerms(NamedTuple):
    """Terms of :class:`VICReg`: ``loss`` is weighted, the others are not; variance and covariance are sums over
    views.
    """

    loss: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def invariance_term(z: Tensor, z_prime: Tensor) -> Tensor:
    """Mean of (z - z')² over all entries, rows of all processes.

    Args:
        z: embeddings of the first view, shape (B, ..., D).
        z_prime: embeddings of the second, the same rows in the same order.
    """
    with torch.autocast(z.device.type, enabled=False):
        difference = full_precision(z) - full_precision(z_prime)
        return sum_over_processes(difference.square().sum()) / (row_count(z) * z[0].numel())


class VICReg(nn.Module):
    """Two views agree (invariance) while each keeps its variance and decorrelated dimensions.

        loss = λ s(z, z') + μ [v(z) + v(z')] + ν [c(z) + c(z')]

    s: mean square over rows and columns. v: half the mean of max(0, 1 - sqrt(var + 1e-4)), var with n - 1.
    c: sum of squared off-diagonal covariances / D. This is the normalisation of the authors' code, to which 25/25/1
    belongs.

    Behaviour: 24.75 when all rows are equal (with 25/25/1). With n rows the covariance term of decorrelated unit
    features is (D - 1)/(n - 1) per view, not 0; a warning is given, once, when that floor pulls the standard deviation
    below 1. Gradient accumulation does not enlarge n: the statistics are those of one micro-batch.

    Args:
        invariance, variance, covariance: λ, μ, ν, dimensionless, >= 0.
        debias_covariance: subtract the sampling floor exactly (needs n >= 4; the term may then be negative).

    Shapes:
        z, z' (B, D), any float dtype -> VICRegTerms of scalars in float32 (float64 in, float64 out).
        Under DDP statistics are over all ranks; batches may differ in size.

    Raises:
        ShapeError: z and z' differ in shape, or are not (B, D).
        DataError: a non-finite entry (its row is named).
        ValueError: fewer than 2 rows over all ranks, or a negative weight.

    Source: Bardes, Ponce, LeCun (2022), arXiv:2105.04906; factor 1/2 and division by D as in the authors' code.
    """

    choose_when: ClassVar[str] = "two views; the first to try: few settings, no negatives, from some 64 rows in a batch"
    # The spread of each dimension that it aims at, by which the monitors tell a collapse in scale.
    target_std: ClassVar[float] = 1.0

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        debias_covariance: bool = False,
    ) -> None:
        super().__init__()
        if not invariance >= 0:
            raise ValueError(f"VICReg: invariance is {invariance}; expected a weight >= 0.")
        self.invariance = invariance
        self.regulariser = VarianceCovariance(variance, covariance, debias_covariance, name="VICReg")

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self.terms(views[v].embedding, views[w].embedding), "VICReg")

    def terms(self, z: Tensor, z_prime: Tensor) -> VICRegTerms:
        """Return the terms for embeddings of two views, the same rows in the same order."""
        check_embeddings("VICReg", (z, z_prime))
        s = invariance_term(z, z_prime)
        of_z, of_z_prime = self.regulariser(z), self.regulariser(z_prime)
        v, c = of_z.variance + of_z_prime.variance, of_z.covariance + of_z_prime.covariance
        loss = self.invariance * s + self.regulariser.variance * v + self.regulariser.covariance * c
        return VICRegTerms(loss, s, v, c)
