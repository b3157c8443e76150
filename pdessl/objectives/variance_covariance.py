"""Variance and covariance of embeddings: the anti-collapse term of VICReg, shared by every objective that takes one."""

# n rows over all processes, D embedding width; leading axes "..." are independent sets of rows

from __future__ import annotations

import warnings
from typing import ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.objectives.distributed import full_precision, row_count, sum_over_processes, world_size

__all__ = [
    "VarianceCovariance",
    "VarianceCovarianceTerms",
    "centred",
    "covariance_term",
    "equilibrium_std",
    "variance_term",
]

# Inside the square root of the standard deviation: it sets a length of 0.01, below which the hinge's pull fades.
EPSILON = 1e-4


class VarianceCovarianceTerms(NamedTuple):
    """Terms of :class:`VarianceCovariance`: ``loss`` is weighted, the others are not."""

    loss: Tensor
    variance: Tensor
    covariance: Tensor


def centred(z: Tensor, n: int) -> Tensor:
    """Return z (..., rows, D) minus its column means over the n rows of all processes."""
    # Two passes: E z² - (E z)² in float32 is wrong by a third at mean 100, standard deviation 0.1.
    return z - sum_over_processes(z.sum(dim=-2, keepdim=True)) / n


def _variance(deviations: Tensor, n: int, correction: int = 1) -> Tensor:
    squares = sum_over_processes(deviations.square().sum(dim=-2))
    return 0.5 * torch.relu(1 - torch.sqrt(squares / (n - correction) + EPSILON)).mean()


def _covariance(deviations: Tensor, n: int, debias: bool) -> Tensor:
    width = deviations.shape[-1]
    products = sum_over_processes(deviations.mT @ deviations) / (n - 1)
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    off_diagonal = products.square().sum(dim=(-2, -1)) - diagonal.square().sum(dim=-1)
    if not debias:
        return off_diagonal.mean() / width
    if n < 4:
        raise ValueError(f"debias_covariance needs at least 4 rows over all processes, got {n}. Use larger batches.")
    pairs = diagonal.sum(dim=-1).square() - diagonal.square().sum(dim=-1)
    squares = deviations.square()
    fourth = sum_over_processes((squares.sum(dim=-1).square() - squares.square().sum(dim=-1)).sum(dim=-1))
    unbiased = (n - 1) * (n - 2) * off_diagonal + pairs - n / (n - 1) * fourth
    # Not clamped at zero: clamping would bring the bias back.
    return ((n - 1) / (n * (n - 2) * (n - 3)) * unbiased).mean() / width


def variance_term(z: Tensor) -> Tensor:
    """Half the mean over columns of max(0, 1 - sqrt(Var + 1e-4)), Var with n - 1.

    Args:
        z: embeddings, shape (..., B, D); n >= 2 rows over all processes. Leading axes are averaged.
    """
    with torch.autocast(z.device.type, enabled=False):
        n = row_count(z, axis=-2)
        return _variance(centred(full_precision(z), n), n)


def covariance_term(z: Tensor, debias: bool = False) -> Tensor:
    """Sum of squared off-diagonal entries of the covariance matrix, divided by D.

    Args:
        z: embeddings, shape (..., B, D); n >= 2 rows over all processes, n >= 4 with ``debias``. Leading axes are
            averaged.
        debias: return the unbiased estimate (the U-statistic over distinct rows), which may be negative. Without it the
            value for uncorrelated columns of standard deviation s is s⁴ (D - 1) / (n - 1), not 0.
    """
    with torch.autocast(z.device.type, enabled=False):
        n = row_count(z, axis=-2)
        return _covariance(centred(full_precision(z), n), n, debias)


def equilibrium_std(n: int, width: int, variance: float = 25.0, covariance: float = 1.0) -> float:
    """Standard deviation at which variance and covariance terms leave decorrelated features, given n rows.

        s = min(1, [μ (n - 1) / (8 ν (D - 1))]^(1/3))

    It balances the hinge against the sampling floor of the covariance term, for independent features.

    Args:
        n: rows over all processes.
        width: D.
        variance: weight μ.
        covariance: weight ν.
    """
    if width < 2 or covariance == 0:
        return 1.0
    return min(1.0, (variance * (n - 1) / (8 * covariance * (width - 1))) ** (1 / 3))


class VarianceCovariance(nn.Module):
    """Keep each dimension's spread above 1 and decorrelate the dimensions: VICReg's anti-collapse term.

        loss = μ v(z) + ν c(z)

    v: half the mean over dimensions of max(0, 1 - sqrt(var + 1e-4)). c: sum of squared off-diagonal covariances / D.
    At collapse 0.495 μ. With n rows the covariance term of decorrelated unit features is (D - 1)/(n - 1), not 0; a
    warning is given, once, when that floor pulls the standard deviation below 1.

    Args:
        variance, covariance: μ, ν, dimensionless, >= 0.
        debias_covariance: subtract the sampling floor exactly (needs n >= 4; the term may then be negative).
        unbiased_variance: divide the variance by n - 1; ``False`` divides by n, as the published temporal JEPA does.
        name: of the objective it belongs to, for messages.

    Shapes:
        z (..., B, D), any float dtype -> scalars in float32 (float64 in, float64 out). Leading axes are independent
        sets of rows, and averaged. Statistics are over all ranks; batches may differ in size.

    Raises:
        ShapeError: z is not (..., B, D).
        ValueError: fewer than 2 rows over all ranks, or a negative weight.

    Source: Bardes, Ponce, LeCun (2022), arXiv:2105.04906, eq. 1 to 4; factor 1/2 and division by D as in the authors'
        code. The floor, its removal and the warning: ours (a U-statistic over distinct rows).
    """

    choose_when: ClassVar[str] = "as regulariser of any objective: the default; wants some 8 ν D / μ rows in a batch"

    def __init__(
        self,
        variance: float = 25.0,
        covariance: float = 1.0,
        debias_covariance: bool = False,
        unbiased_variance: bool = True,
        name: str = "VarianceCovariance",
    ) -> None:
        super().__init__()
        for key, weight in {"variance": variance, "covariance": covariance}.items():
            if not weight >= 0:
                raise ValueError(f"{name}: {key} is {weight}; expected a weight >= 0.")
        self.variance, self.covariance, self.debias_covariance = variance, covariance, debias_covariance
        self.unbiased_variance, self.name = unbiased_variance, name
        self._floor_checked = False

    def forward(self, z: Tensor) -> VarianceCovarianceTerms:
        """Return the terms of one set of embeddings."""
        if z.ndim < 2:
            raise ShapeError(f"{self.name} got an embedding of shape {tuple(z.shape)}; expected (B, D).")
        n = row_count(z, axis=-2)
        if n < 2:
            raise ValueError(f"{self.name} got {n} rows over all processes; its statistics need at least 2.")
        self._warn_of_noise_floor(n, z.shape[-1])
        with torch.autocast(z.device.type, enabled=False):
            deviations = centred(full_precision(z), n)
            v = _variance(deviations, n, correction=int(self.unbiased_variance))
            c = _covariance(deviations, n, self.debias_covariance)
            return VarianceCovarianceTerms(self.variance * v + self.covariance * c, v, c)

    def _warn_of_noise_floor(self, n: int, width: int) -> None:
        if self._floor_checked or self.debias_covariance:
            return
        self._floor_checked = True
        settles = equilibrium_std(n, width, self.variance, self.covariance)
        if settles < 1 and (world_size() == 1 or dist.get_rank() == 0):
            widest = int(1 + self.variance * (n - 1) / (8 * self.covariance))
            warnings.warn(
                f"{self.name}: with {n} rows and width {width} decorrelated features settle near std {settles:.2f}, "
                f"not 1. Use width <= {widest}, a larger batch, or debias_covariance=True.",
                stacklevel=3,
            )
