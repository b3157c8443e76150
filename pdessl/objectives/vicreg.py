"""VICReg: invariance between views, variance and decorrelation within each."""

# n rows over all processes, D embedding width

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pdessl.objectives.distributed import check_embeddings, full_precision, row_count, sum_over_processes, world_size

__all__ = [
    "VICReg",
    "VICRegTerms",
    "covariance_term",
    "equilibrium_std",
    "invariance_term",
    "variance_term",
]

# Inside the square root of the standard deviation: it sets a length of 0.01, below which the hinge's pull fades.
EPSILON = 1e-4


class VICRegTerms(NamedTuple):
    """Terms of :class:`VICReg`: ``loss`` is weighted, the others are not; variance and covariance are sums over
    views.
    """

    loss: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


def _centred(z: Tensor, n: int) -> Tensor:
    # Two passes: E z² - (E z)² in float32 is wrong by a third at mean 100, standard deviation 0.1.
    return z - sum_over_processes(z.sum(dim=0)) / n


def _variance(centred: Tensor, n: int) -> Tensor:
    squares = sum_over_processes(centred.square().sum(dim=0))
    return 0.5 * torch.relu(1 - torch.sqrt(squares / (n - 1) + EPSILON)).mean()


def _covariance(centred: Tensor, n: int, debias: bool) -> Tensor:
    width = centred.shape[1]
    products = sum_over_processes(centred.T @ centred) / (n - 1)
    diagonal = products.diagonal()
    off_diagonal = products.square().sum() - diagonal.square().sum()
    if not debias:
        return off_diagonal / width
    if n < 4:
        raise ValueError(f"debias_covariance needs at least 4 rows over all processes, got {n}. Use larger batches.")
    pairs = diagonal.sum().square() - diagonal.square().sum()
    squares = centred.square()
    fourth = sum_over_processes((squares.sum(dim=1).square() - squares.square().sum(dim=1)).sum())
    unbiased = (n - 1) * (n - 2) * off_diagonal + pairs - n / (n - 1) * fourth
    # Not clamped at zero: clamping would bring the bias back.
    return (n - 1) / (n * (n - 2) * (n - 3)) * unbiased / width


def invariance_term(z: Tensor, z_prime: Tensor) -> Tensor:
    """Mean of (z - z')² over rows and columns, rows of all processes.

    Args:
        z: embeddings of the first view, shape (B, D).
        z_prime: embeddings of the second, the same rows in the same order.
    """
    with torch.autocast(z.device.type, enabled=False):
        difference = full_precision(z) - full_precision(z_prime)
        return sum_over_processes(difference.square().sum()) / (row_count(z) * z.shape[1])


def variance_term(z: Tensor) -> Tensor:
    """Half the mean over columns of max(0, 1 - sqrt(Var + 1e-4)), Var with n - 1.

    Args:
        z: embeddings, shape (B, D); n >= 2 rows over all processes.
    """
    with torch.autocast(z.device.type, enabled=False):
        n = row_count(z)
        return _variance(_centred(full_precision(z), n), n)


def covariance_term(z: Tensor, debias: bool = False) -> Tensor:
    """Sum of squared off-diagonal entries of the covariance matrix, divided by D.

    Args:
        z: embeddings, shape (B, D); n >= 2 rows over all processes, n >= 4 with ``debias``.
        debias: return the unbiased estimate (the U-statistic over distinct rows), which may be negative. Without it the
            value for uncorrelated columns of standard deviation s is s⁴ (D - 1) / (n - 1), not 0.
    """
    with torch.autocast(z.device.type, enabled=False):
        n = row_count(z)
        return _covariance(_centred(full_precision(z), n), n, debias)


def equilibrium_std(n: int, width: int, variance: float = 25.0, covariance: float = 1.0) -> float:
    """Standard deviation at which VICReg leaves decorrelated features, given n rows.

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


class VICReg(nn.Module):
    """Variance-invariance-covariance regularisation of two views.

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

    def __init__(
        self,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        debias_covariance: bool = False,
    ) -> None:
        super().__init__()
        for name, weight in {"invariance": invariance, "variance": variance, "covariance": covariance}.items():
            if not weight >= 0:
                raise ValueError(f"VICReg: {name} is {weight}; expected a weight >= 0.")
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.debias_covariance = debias_covariance
        self._floor_checked = False

    def forward(self, z: Tensor, z_prime: Tensor) -> VICRegTerms:
        """Return the terms for embeddings of two views, the same rows in the same order."""
        n = check_embeddings("VICReg", (z, z_prime))
        self._warn_of_noise_floor(n, z.shape[1])
        with torch.autocast(z.device.type, enabled=False):
            z, z_prime = full_precision(z), full_precision(z_prime)
            s = sum_over_processes((z - z_prime).square().sum()) / (n * z.shape[1])
            views = (_centred(z, n), _centred(z_prime, n))
            v = _variance(views[0], n) + _variance(views[1], n)
            c = _covariance(views[0], n, self.debias_covariance) + _covariance(views[1], n, self.debias_covariance)
            return VICRegTerms(self.invariance * s + self.variance * v + self.covariance * c, s, v, c)

    def _warn_of_noise_floor(self, n: int, width: int) -> None:
        if self._floor_checked or self.debias_covariance:
            return
        self._floor_checked = True
        settles = equilibrium_std(n, width, self.variance, self.covariance)
        if settles < 1 and (world_size() == 1 or dist.get_rank() == 0):
            widest = int(1 + self.variance * (n - 1) / (8 * self.covariance))
            warnings.warn(
                f"VICReg: with {n} rows and width {width} decorrelated features settle near std {settles:.2f}, not 1. "
                f"Use width <= {widest}, a larger batch, or debias_covariance=True.",
                stacklevel=3,
            )
