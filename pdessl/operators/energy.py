"""Inference by minimising an energy: the code of a run is the one under which what happens was foreseen best."""

# B runs, R codes, N errors of a run

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["Minimum", "Prior", "minimise"]

_FIRST = 1e-3  # damping of the first step, share of the curvature
_MOST, _LEAST = 1e12, 1e-12


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed of a code before the run is looked at: normal, independent.

    Args:
        mean: (B, R).
        deviation: > 0, (B, R).
    """

    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True, eq=False)
class Minimum:
    """Codes at which an energy is smallest.

    Args:
        codes: (B, R), float64.
        deviation: from the curvature there, (B, R): standard errors where the errors are independent, of equal size,
            and nearly linear in the code. They are not calibrated.
        energy: E there, and at the start, (B,) each.
        start: energy at the start.
    """

    codes: Tensor
    deviation: Tensor
    energy: Tensor
    start: Tensor


def minimise(
    errors: Callable[[Tensor], Tensor],
    start: Tensor,
    size: Tensor,
    prior: Prior | None = None,
    rounds: int = 4,
    curvature: bool = True,
) -> Minimum:
    """Return the codes that minimise the energy of runs, by damped Gauss-Newton steps; never worse ones than the start.

        E(z) = ½ Σ_n e_n(z)² + ½ Σ_r ((z_r - m_r)/s_r)²

    e are the errors of a forecast under the code z, in units of their deviation. Slopes are one-sided differences, all
    runs are stepped at once, and each has its own damping. The curvature JᵀJ + s⁻² at the minimum gives the standard
    errors; where the errors are larger than their deviation says, by the factor f² = Σ e²/(N - R) > 1, JᵀJ counts 1/f²
    (N: those that are not exactly 0).

    Args:
        errors: codes (B, R) -> errors (B, N); the energy of a run depends on its own row only.
        start: the guess of an encoder, (B, R).
        size: typical size of each code, > 0, (R,) or (B, R): a difference is a thousandth of it, or of the code.
        prior: None: none.
        rounds: steps that are tried, >= 0.
        curvature: whether the deviation is asked for; else it is NaN, and R evaluations are saved.

    A run whose errors are not finite at the start keeps its code, with infinite energy and deviation.

    Raises:
        ShapeError: errors that are not (B, N), or codes that are not (B, R).

    Source: Levenberg (1944), Marquardt (1963).
    """
    codes = start.double()
    at = errors(codes)
    if codes.ndim != 2 or at.ndim != 2 or len(at) != len(codes):
        raise ShapeError(f"codes {tuple(start.shape)} gave errors {tuple(at.shape)}; expected (B, R) and (B, N).")
    lost = ~torch.isfinite(at).all(dim=1)
    at = at.masked_fill(lost[:, None], 0.0)
    least = torch.as_tensor(size, dtype=torch.float64).expand(codes.shape).clamp_min(1e-12)
    precision = None if prior is None else 1 / prior.deviation.double().square()
    mean = codes if prior is None else prior.mean.double()

    def energy(found: Tensor, z: Tensor) -> Tensor:
        prior_part = 0.0 if precision is None else (precision * (z - mean).square()).sum(dim=1)
        return 0.5 * (found.square().sum(dim=1) + prior_part)

    value = first = energy(at, codes).masked_fill(lost, torch.inf)
    damping = at.new_full((len(codes),), _FIRST)
    for _ in range(rounds):
        slope = _slope(errors, codes, at, least)
        left, right = slope.mT @ slope, (slope.mT @ at[:, :, None])[:, :, 0]
        if precision is not None:
            left, right = left + torch.diag_embed(precision), right + precision * (codes - mean)
        ridge = damping[:, None] * left.diagonal(dim1=1, dim2=2) + 1e-300
        tried = codes - torch.linalg.solve(left + torch.diag_embed(ridge), right)
        tried = torch.where(tried.isfinite().all(dim=1, keepdim=True), tried, codes)
        new = errors(tried)
        after = energy(new, tried)
        better = (after < value) & ~lost
        codes = torch.where(better[:, None], tried, codes)
        at, value = torch.where(better[:, None], new, at), torch.where(better, after, value)
        damping = torch.where(better, damping / 10, damping * 100).clamp(_LEAST, _MOST)
    if not curvature:
        return Minimum(codes, torch.full_like(codes, torch.nan), value, first)
    slope = _slope(errors, codes, at, least)
    left_over = ((at != 0).sum(dim=1) - codes.shape[1]).clamp_min(1)
    inflated = (at.square().sum(dim=1) / left_over).clamp_min(1.0)
    bent = slope.mT @ slope / inflated[:, None, None]
    bent = bent if precision is None else bent + torch.diag_embed(precision)
    flat = lost[:, None] | (bent.diagonal(dim1=1, dim2=2) <= 0)
    inverse = torch.linalg.pinv(bent.masked_fill(lost[:, None, None], 0.0), hermitian=True)
    deviation = inverse.diagonal(dim1=1, dim2=2).clamp_min(0.0).sqrt().masked_fill(flat, torch.inf)
    return Minimum(codes, deviation, value, first)


def _slope(errors: Callable[[Tensor], Tensor], codes: Tensor, at: Tensor, least: Tensor) -> Tensor:
    """Return the derivatives of errors by each code, (B, N, R)."""
    columns = []
    for r in range(codes.shape[1]):
        step = 1e-3 * torch.maximum(codes[:, r].abs(), least[:, r])
        moved = codes.clone()
        moved[:, r] += step
        columns.append((errors(moved) - at) / step[:, None])
    found = torch.stack(columns, dim=2)
    return found.where(torch.isfinite(found).all(dim=(1, 2), keepdim=True), torch.zeros_like(found))
