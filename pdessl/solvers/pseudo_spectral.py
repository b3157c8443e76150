"""Fourier pseudo-spectral integration of semi-linear equations on a periodic interval, batched."""

# B batch, X grid points, K kept Fourier modes (2/3 rule), T output times

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.solvers.simulator import Leg

__all__ = ["ETDRK4", "integrate", "kept_modes", "sample", "spectral_tail", "to_modes", "wave_numbers"]

CONTOUR_POINTS = 16  # trapezoid error of the mean over the unit circle is about 1/(16 + 3)!, below round-off


def kept_modes(points: int) -> int:
    """Return how many modes (the mean included) survive 2/3 dealiasing of a quadratic term: all k with 3 k < points."""
    return (points - 1) // 3 + 1


def wave_numbers(length: Tensor, modes: int) -> Tensor:
    """Return 2π j / L for j = 0 ... modes - 1, shape (B, K), for lengths of shape (B,)."""
    j = torch.arange(modes, dtype=length.dtype, device=length.device)
    return 2 * math.pi * j / length[:, None]


def to_modes(field: Tensor) -> Tensor:
    """Return the kept Fourier modes (B, K) of a real field (B, X)."""
    return torch.fft.rfft(field)[..., : kept_modes(field.shape[-1])]


def sample(spectrum: Tensor, points: int, observed: int | None = None, sampling: str = "points") -> Tensor:
    """Evaluate a spectrum on an equidistant grid whose first node is x = 0.

    Args:
        spectrum: kept modes of a field on ``points`` nodes, shape (..., K), as :func:`to_modes` scales them.
        points: nodes of the grid of the spectrum.
        observed: nodes of the returned grid; default ``points``. A coarser one must divide ``points``.
        sampling: ``points`` (the value at the node), ``cell_average`` (mean over a cell centred on the node, what a
            sensor of finite size reads) or ``spectral`` (the field with all modes the coarse grid cannot hold removed).

    Returns:
        Values of shape (..., observed).
    """
    observed = points if observed is None else observed
    modes = spectrum.shape[-1]
    if sampling == "spectral":
        kept = min(modes, (observed - 1) // 2 + 1)
        return torch.fft.irfft(spectrum[..., :kept], n=observed) * (observed / points)
    if sampling == "cell_average":
        j = torch.arange(modes, dtype=spectrum.real.dtype, device=spectrum.device)
        spectrum = spectrum * torch.sinc(j / observed)
    return torch.fft.irfft(spectrum, n=points)[..., :: points // observed]


def spectral_tail(spectrum: Tensor) -> Tensor:
    """Return the largest amplitude in the last tenth of the kept modes over the largest of all, over all frames.

    Args:
        spectrum: shape (B, T, K). The mean (mode 0) does not count.

    Returns:
        Shape (B,). Below about 1e-3 the field is resolved; near 1 energy piles up at the grid scale. 0 for a field that
        is constant.
    """
    amplitude = spectrum.detach().abs()
    modes = amplitude.shape[-1]
    tail = amplitude[..., max(1, modes - max(1, modes // 10)) :].amax(dim=(-1, -2))
    largest = amplitude[..., 1:].amax(dim=(-1, -2))
    return torch.where(largest > 0, tail / largest, torch.zeros_like(tail))


@dataclass(frozen=True, eq=False)
class ETDRK4:
    """Coefficients of the fourth-order exponential time-differencing Runge-Kutta method of Cox and Matthews.

        v' = L v + N(v, t),    L diagonal, integrated exactly

    The coefficients hold quotients such as (e^z - 1)/z, z = h L, that lose all digits near z = 0. They are computed as
    means over a circle of radius 1 around z, the whole circle, and stay complex: taking the real part (enough only
    when L is real) silently lowers the order for dispersive equations such as KdV.

    Source: Cox, Matthews (2002); Kassam, Trefethen (2005).
    """

    full: Tensor
    half: Tensor
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor

    @staticmethod
    def build(linear: Tensor, step: Tensor, dtype: torch.dtype = torch.complex128) -> ETDRK4:
        """Compute the coefficients in complex128 and return them in ``dtype``.

        Args:
            linear: L, shape (B, *K), real or complex.
            step: h, shape (B,), time.
            dtype: complex128 or complex64.
        """
        h = step.reshape(-1, *(1,) * (linear.ndim - 1)).to(torch.complex128)
        z = linear * h
        stage, first, middle, last = (torch.zeros_like(z) for _ in range(4))
        for m in range(CONTOUR_POINTS):
            angle = 2 * math.pi * (m + 0.5) / CONTOUR_POINTS
            r = z + complex(math.cos(angle), math.sin(angle))
            e_half = torch.exp(r / 2)
            e = e_half * e_half
            inverse = 1 / r
            cube = inverse * inverse * inverse
            stage = stage + (e_half - 1) * inverse
            first = first + (-4 - r + e * (4 - r * (3 - r))) * cube
            middle = middle + (2 + r + e * (r - 2)) * cube
            last = last + (-4 - r * (3 + r) + e * (4 - r)) * cube
        scale = h / CONTOUR_POINTS
        half = torch.exp(z / 2)
        coefficients = (half * half, half, stage * scale, first * scale, 2 * middle * scale, last * scale)
        return ETDRK4(*(c.to(dtype) for c in coefficients))

    def advance(self, v: Tensor, nonlinear: Callable[[Tensor, float], Tensor]) -> Tensor:
        """Return v one step later; ``nonlinear(v, c)`` gives N at the fraction c of the step."""
        decayed = self.half * v
        n1 = nonlinear(v, 0.0)
        a = torch.addcmul(decayed, self.stage, n1)
        n2 = nonlinear(a, 0.5)
        b = torch.addcmul(decayed, self.stage, n2)
        n3 = nonlinear(b, 0.5)
        c = torch.addcmul(self.half * a, self.stage, 2 * n3 - n1)
        n4 = nonlinear(c, 1.0)
        v = torch.addcmul(self.full * v, self.first, n1)
        v = torch.addcmul(v, self.middle, n2 + n3)
        return torch.addcmul(v, self.last, n4)


def integrate(
    modes: Tensor,
    linear: Tensor,
    legs: Sequence[Leg],
    points: int,
    flux: Callable[[Tensor], Tensor] | None,
    length: Tensor,
    source: Callable[[Leg, Tensor], Tensor] | None = None,
) -> Tensor:
    """Integrate u_t = L u - ∂x flux(u) + source(t) and return the spectrum at the output times.

    Args:
        modes: kept modes of the field at time 0, shape (B, K), complex64 or complex128: the precision of the steps.
        linear: symbol of L, shape (B, K), float64 or complex128.
        legs: the steps to take, see :meth:`pdessl.solvers.Simulator.legs`.
        points: nodes X of the grid on which the flux is evaluated.
        flux: function of the field (B, X), at most quadratic (2/3 dealiasing removes the aliasing of a quadratic term
            exactly). None for a linear equation, which is then solved exactly.
        length: L, shape (B,).
        source: gives the source term (B, X) for a leg and times (B,) in it, or None.

    Returns:
        Spectrum, shape (B, T, K).
    """
    k = modes.shape[-1]
    minus_ik = (-1j * wave_numbers(length, k)).to(modes.dtype)
    linear = linear.to(torch.complex128)
    frames = []
    scheme: ETDRK4 | None = None
    for leg in legs:
        if leg.steps and flux is None and source is None:
            modes = torch.exp(linear * (leg.step * leg.steps)[:, None]).to(modes.dtype) * modes
        elif leg.steps:
            if scheme is None or leg.renewed:
                scheme = ETDRK4.build(linear, leg.step, modes.dtype)
            for number in range(leg.steps):
                now = leg.start + number * leg.step

                def nonlinear(v: Tensor, c: float, leg: Leg = leg, now: Tensor = now) -> Tensor:
                    result = None
                    if flux is not None:
                        result = minus_ik * torch.fft.rfft(flux(torch.fft.irfft(v, n=points)))[:, :k]
                    if source is not None:
                        added = torch.fft.rfft(source(leg, now + c * leg.step))[:, :k]
                        result = added if result is None else result + added
                    return result

                modes = scheme.advance(modes, nonlinear)
        if leg.observed:
            frames.append(modes)
    return torch.stack(frames, dim=1)
