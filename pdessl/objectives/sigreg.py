"""SIGReg and LeJEPA: embeddings pulled towards an isotropic Gaussian by their characteristic function."""

# n rows over all processes, D embedding width, K slices, V views; leading axes "..." are independent sets of rows

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pdessl.errors import ShapeError
from pdessl.objectives.distributed import (
    check_embeddings,
    full_precision,
    mean_over_rows,
    row_count,
    sum_over_processes,
)
from pdessl.objectives.draws import StepDraws
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views

__all__ = ["GAUSSIAN_VALUE", "LeJEPA", "LeJEPATerms", "SIGReg", "SIGRegTerms", "draw_slices", "sigreg_term"]

# (t, w, φ(t)) of the trapezoidal rule on t = 0 ... 3 with 17 knots, doubled because the integrand is even. The knot
# at 0 is left out: both characteristic functions are 1 there.
_SPACING = 3 / 16
_KNOTS = [(_SPACING * i, _SPACING * (1 if i == 16 else 2), math.exp(-((_SPACING * i) ** 2) / 2)) for i in range(1, 17)]
# Expected value of the statistic for standard Gaussian embeddings, at any n.
GAUSSIAN_VALUE = sum(weight * gaussian * (1 - gaussian**2) for _, weight, gaussian in _KNOTS)


class SIGRegTerms(NamedTuple):
    """Terms of :class:`SIGReg`.

    ``loss`` is weighted; ``gaussianity`` is the statistic over its expectation for Gaussian embeddings, 1 when they
    are, and grows as n when they are not.
    """

    loss: Tensor
    gaussianity: Tensor


class LeJEPATerms(NamedTuple):
    """Terms of :class:`LeJEPA`: ``loss`` is weighted; ``gaussianity`` is the mean over views (see SIGRegTerms)."""

    loss: Tensor
    invariance: Tensor
    gaussianity: Tensor


class _PhaseSums(torch.autograd.Function):
    """Sums over rows of exp(i t u) at all knots: u (..., n, K) -> (..., K, knots, 2), real and imaginary part.

    The knots are multiples of the first: one cosine and one sine per entry, powers by multiplication. The derivative is
    a polynomial in the same phase (Horner). Two (n, K) complex arrays at a time, where autograd would keep sixteen.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        phase = torch.polar(torch.ones_like(u), _SPACING * u)
        ctx.save_for_backward(phase)
        power, sums = phase.clone(), []
        for _ in _KNOTS:
            sums.append(power.sum(dim=-2))
            power.mul_(phase)
        return torch.view_as_real(torch.stack(sums, dim=-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (phase,) = ctx.saved_tensors
        knots = gradient.new_tensor([t for t, _, _ in _KNOTS])
        coefficients = torch.view_as_complex(gradient.contiguous()).conj() * knots
        total = torch.zeros_like(phase)
        for i in reversed(range(len(_KNOTS))):
            total.add_(coefficients[..., None, :, i]).mul_(phase)
        return -total.imag


def draw_slices(width: int, slices: int, generator: torch.Generator) -> Tensor:
    """Return K directions uniform on the sphere, as columns of unit length, shape (D, K), float64 on the CPU."""
    directions = torch.randn(width, slices, generator=generator, dtype=torch.float64)
    return directions / directions.norm(dim=0).clamp_min(1e-300)


def sigreg_term(z: Tensor, slices: Tensor) -> Tensor:
    """Distance of the embeddings to a standard Gaussian, averaged over one-dimensional projections.

        T_k = n Σ_i w_i φ_i [(mean cos(t_i u_k) - φ_i)² + (mean sin(t_i u_k))²],   u = z A,  φ_i = exp(-t_i²/2)

    This is the Epps-Pulley statistic ∫ |φ_empirical - φ|² φ dt by the trapezoidal rule on t = 0 ... 3 (17 knots), both
    halves of the line. Nothing is centred or whitened: mean and covariance are part of what is compared.

    Args:
        z: embeddings, shape (..., B, D). Leading axes are averaged.
        slices: A, unit columns, shape (D, K), equal on all processes.

    Returns:
        Scalar: 1.0525 for a standard Gaussian at any n, 0.402 n for all rows at 0, up to 3.95 n far from it.

    Source: Balestriero, LeCun (2025), arXiv:2511.08544; Epps, Pulley (1983), Biometrika 70.
    """
    with torch.autocast(z.device.type, enabled=False):
        z = full_precision(z)
        n = row_count(z, axis=-2)
        u = z @ slices.to(z)
        real, imaginary = (sum_over_processes(_PhaseSums.apply(u)) / n).unbind(dim=-1)  # (..., K, knots)
        weight, gaussian = (z.new_tensor([knot[i] for knot in _KNOTS]) for i in (1, 2))
        return n * (((real - gaussian).square() + imaginary.square()) @ (weight * gaussian)).mean()


class SIGReg(nn.Module):
    """Pull embeddings towards an isotropic Gaussian (sketched, by random projections): LeJEPA's anti-collapse term.

        loss = weight · mean over slices of T_k         (times 1/n with ``scale_by_n=False``)

    See :func:`sigreg_term` for T. The statistic does not depend on n for Gaussian embeddings but grows as n for others:
    the same weight is a different trade-off at each batch size, unless ``scale_by_n`` is off.

    Args:
        weight: dimensionless, >= 0. LeJEPA's λ = 0.05 against mean (z - z')² of weight w is weight = 0.105 w per view.
        slices: K, projections per step; new ones each step.
        scale_by_n: keep the factor n of the statistic.
        seed: of the projections.

    Shapes:
        z (..., B, D), any float dtype -> scalars in float32 (float64 in, float64 out). Statistics are over all ranks;
        batches may differ in size. Time grows as 16 n K, memory as a few n K.

    Raises:
        ShapeError: z is not (..., B, D).
        ValueError: a setting out of range.

    Source: Balestriero, LeCun (2025), arXiv:2511.08544.
    """

    choose_when: ClassVar[str] = "as regulariser of any objective: one weight, no width-squared cost, small batches"

    def __init__(self, weight: float = 0.1, slices: int = 256, scale_by_n: bool = True, seed: int = 0) -> None:
        super().__init__()
        if not weight >= 0 or slices < 1:
            raise ValueError(f"SIGReg got weight {weight} and slices {slices}; expected weight >= 0 and slices >= 1.")
        self.weight, self.slices, self.scale_by_n = weight, slices, scale_by_n
        self.draws = StepDraws(seed)

    def forward(self, z: Tensor) -> SIGRegTerms:
        """Return the terms of one set of embeddings."""
        if z.ndim < 2:
            raise ShapeError(f"SIGReg got an embedding of shape {tuple(z.shape)}; expected (B, D).")
        statistic = sigreg_term(z, draw_slices(z.shape[-1], self.slices, self.draws()))
        loss = statistic if self.scale_by_n else statistic / row_count(z, axis=-2)
        return SIGRegTerms(self.weight * loss, statistic.detach() / GAUSSIAN_VALUE)


class LeJEPA(nn.Module):
    """Views agree while each is pulled towards an isotropic Gaussian: one weight, no projector tricks.

        loss = λ mean over views of SIGReg(z_v) + (1 - λ) mean over views, rows and columns of (z_v - c)²

    c is the mean of the sample's global views. For two views the second term is a quarter of the mean square
    difference. Any number of views; with local ones (smaller crops) the global views alone make the centre, and all
    views are drawn to it.

    Args:
        weight: λ in [0, 1]; 0.02 to 0.1 are usual.
        slices: K, projections per step; the views share them.
        scale_by_n: keep the factor n of the statistic (see :class:`SIGReg`).
        seed: of the projections.

    Shapes:
        z, z', ... each (B, D), any float dtype -> LeJEPATerms of scalars in float32 (float64 in, float64 out).
        Under DDP statistics are over all ranks; batches may differ in size.

    Raises:
        ShapeError, DataError: as :class:`VICReg`; also more global views than there are.
        ValueError: a setting out of range.

    Source: Balestriero, LeCun (2025), arXiv:2511.08544.
    """

    choose_when: ClassVar[str] = "two or more views; one weight to tune, batches too small for VICReg's covariance"
    # The spread of each dimension that it aims at, by which the monitors tell a collapse in scale.
    target_std: ClassVar[float] = 1.0

    def __init__(self, weight: float = 0.05, slices: int = 1024, scale_by_n: bool = True, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise ValueError(f"LeJEPA got weight {weight}; expected 0 to 1.")
        self.weight = weight
        self.regulariser = SIGReg(1.0, slices, scale_by_n, seed)

    def forward(self, views: Views) -> Terms:
        """Return the terms of all views together."""
        embeddings = [view.embedding for view in views]
        return Terms.of(self.terms(*embeddings, global_views=views.global_views))

    def terms(self, z: Tensor, z_prime: Tensor, *more: Tensor, global_views: int | None = None) -> LeJEPATerms:
        """Return the terms for embeddings of the views, the same rows in the same order.

        Args:
            z: embeddings of the first view, (B, D).
            z_prime: of the second.
            more: of further views.
            global_views: how many of the first views make the centre; None: all.
        """
        given = (z, z_prime, *more)
        check_embeddings("LeJEPA", given)
        count = len(given) if global_views is None else global_views
        if not 1 <= count <= len(given):
            raise ShapeError(f"LeJEPA got {len(given)} views and global_views {count}; expected 1 to {len(given)}.")
        with torch.autocast(z.device.type, enabled=False):
            views = torch.stack([full_precision(view) for view in given], dim=1)  # (B, V, D)
            invariance = mean_over_rows((views - views[:, :count].mean(dim=1, keepdim=True)).square())
            found = self.regulariser(views.transpose(0, 1))
            loss = self.weight * found.loss + (1 - self.weight) * invariance
            return LeJEPATerms(loss, invariance, found.gaussianity)
