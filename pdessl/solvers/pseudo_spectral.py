"""Fourier pseudo-spectral integration of semi-linear equations on a periodic interval, batched."""

# B batch, X grid points, K kept Fourier modes (2/3 rule), T output times

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pdessl.solvers.legs import Leg

__all__ = [
    "ETDRK4",
    "integrate",
    "interpolate",
    "kept_modes",
    "sample",
    "spectral_tail",
    "tail_and_peak",
    "tail_ratio",
    "to_modes",
    "tracked",
    "wave_numbers",
]

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


def interpolate(field: Tensor, points: Sequence[int]) -> Tensor:
    """Evaluate the Fourier series of periodic fields (..., *X), each X even, on another grid (..., *points)."""
    for axis, n in enumerate(points, start=-len(points)):
        have = field.shape[axis]
        modes = torch.fft.rfft(field, dim=axis, norm="forward")
        modes.narrow(axis, have // 2, 1).mul_(0.5)  # on a finer grid the highest mode stands for k and for -k
        field = torch.fft.irfft(modes, n=n, dim=axis, norm="forward")
    return field


def spectral_tail(spectrum: Tensor) -> Tensor:
    """Return the largest amplitude in the last tenth of the kept modes over the largest of all, over all frames.

    Args:
        spectrum: shape (B, T, K). The mean (mode 0) does not count.

    Returns:
        Shape (B,). Below about 1e-3 the field is resolved; near 1 energy piles up at the grid scale. 0 for a field that
        is constant.
    """
    return tail_ratio(tail_and_peak(spectrum).amax(dim=1))


def tail_and_peak(spectrum: Tensor) -> Tensor:
    """Return the largest amplitude in the last tenth of modes (..., K), and of all but the mean, shape (..., 2)."""
    spectrum = spectrum.detach()
    # Squares: a root per mode would cost more than the transform of a frame.
    power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
    modes = power.shape[-1]
    tail = power[..., max(1, modes - max(1, modes // 10)) :].amax(dim=-1)
    return torch.stack([tail, power[..., 1:].amax(dim=-1)], dim=-1).sqrt()


def tail_ratio(amplitudes: Tensor) -> Tensor:
    """Return the ratio of the two amplitudes of :func:`tail_and_peak`, 0 where both are 0."""
    tail, peak = amplitudes.unbind(dim=-1)
    return torch.where(peak > 0, tail / peak, torch.zeros_like(tail))


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
    back: Tensor
    double: Tensor
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
        stage = stage * scale
        # The last stage, half · a + stage · (2 n3 - n1), in terms of v: it shares full · v with the result.
        back, double = (half - 1) * stage, 2 * stage
        weights = (first * scale, 2 * middle * scale, last * scale)
        return ETDRK4(*(c.to(dtype) for c in (half * half, half, stage, back, double, *weights)))

    def scaled(self, factor: Tensor) -> ETDRK4:
        """Return the scheme for a nonlinear term that is given without its factor, shape (B, *K)."""
        weights = (self.stage, self.back, self.double, self.first, self.middle, self.last)
        return ETDRK4(self.full, self.half, *(factor * w for w in weights))

    def advance(self, v: Tensor, nonlinear: Callable[[Tensor, float], Tensor]) -> Tensor:
        """Return v one step later; ``nonlinear(v, c)`` gives N at the fraction c of the step."""
        decayed, fully = self.half * v, self.full * v
        n = nonlinear(v, 0.0)
        result = torch.addcmul(fully, self.first, n)
        last = torch.addcmul(fully, self.back, n)
        n = nonlinear(torch.addcmul(decayed, self.stage, n), 0.5)
        result = torch.addcmul(result, self.middle, n)
        n = nonlinear(torch.addcmul(decayed, self.stage, n), 0.5)
        result = torch.addcmul(result, self.middle, n)
        n = nonlinear(torch.addcmul(last, self.double, n), 1.0)
        return torch.addcmul(result, self.last, n)

    def advance_in_place(self, v: Tensor, nonlinear: Callable[[float], Tensor], memory: Sequence[Tensor]) -> None:
        """Overwrite v by v one step later, by the arithmetic of :meth:`advance` but without temporaries or a graph.

        Each N is used up before the next is computed: few arrays live at a time, and they stay in the cache.

        Args:
            v: shape (B, *K); holds the argument of each stage when ``nonlinear(c)`` is called.
            nonlinear: gives N(v) at the fraction c of the step.
            memory: three tensors of the shape of v.
        """
        decayed, last, result = memory
        torch.mul(self.half, v, out=decayed)
        torch.mul(self.full, v, out=last)
        n = nonlinear(0.0)
        torch.addcmul(decayed, self.stage, n, out=v)
        torch.addcmul(last, self.first, n, out=result)
        last.addcmul_(self.back, n)
        del n
        n = nonlinear(0.5)
        torch.addcmul(decayed, self.stage, n, out=v)
        result.addcmul_(self.middle, n)
        del n
        n = nonlinear(0.5)
        torch.addcmul(last, self.double, n, out=v)
        result.addcmul_(self.middle, n)
        del n
        torch.addcmul(result, self.last, nonlinear(1.0), out=v)


def integrate(
    modes: Tensor,
    linear: Tensor,
    legs: Sequence[Leg],
    points: int,
    steepening: Tensor | None,
    length: Tensor,
    source: Callable[[Leg, Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Integrate u_t = L u - a ∂x(u²/2) + source(t) and yield the spectrum at each output time, shape (B, K).

    Where nothing asks for gradients the steps are taken in place: what is yielded is then overwritten by the next step.

    Args:
        modes: kept modes of the field at time 0, shape (B, K), complex64 or complex128: the precision of the steps.
        linear: symbol of L, shape (B, K), float64 or complex128.
        legs: the steps to take, see :meth:`pdessl.solvers.Simulator.legs`.
        points: nodes X of the grid on which u² is evaluated; 2/3 dealiasing removes its aliasing error exactly.
        steepening: a, shape (B,); None for a linear equation, which is solved exactly without a source.
        length: L, shape (B,).
        source: gives the kept modes of the source term, shape (B, K), for a leg and times (B,) in it; or None.
    """
    k = modes.shape[-1]
    linear = linear.to(torch.complex128)
    # The factor of rfft(w²), w = points · u = irfft(v) without its 1/points, which costs a pass.
    factor = None if steepening is None else -0.5j / points**2 * steepening[:, None] * wave_numbers(length, k)
    exact = factor is None and source is None
    differentiable = tracked(modes, linear, factor) or (source is not None and torch.is_grad_enabled())
    if not differentiable and not exact:
        padded = modes.new_zeros(modes.shape[0], points // 2 + 1)
        head = padded[:, :k]
        head.copy_(modes)
        modes, memory = head, [torch.empty_like(modes) for _ in range(3)]

    def nonlinear(v: Tensor, step: float, leg: Leg) -> Tensor:
        result = None
        if factor is not None:
            field = torch.fft.irfft(v, n=points, norm="forward")
            result = torch.fft.rfft(field * field if differentiable else field.mul_(field))[:, :k]
            if source is None:
                return result  # the scheme carries the factor
            result = factor.to(result.dtype) * result
        assert source is not None  # noqa: S101  (without one the steps are exact, or the product was all)
        added = source(leg, leg.start + step * leg.step)
        return added.clone() if result is None else result + added

    def after(v: Tensor, step: float, steps: int, leg: Leg) -> Tensor:
        return nonlinear(v, steps + step, leg)

    scheme: ETDRK4 | None = None
    for leg in legs:
        if leg.steps and exact:
            modes = torch.exp(linear * (leg.step * leg.steps)[:, None]).to(modes.dtype) * modes
        elif leg.steps:
            if scheme is None or leg.renewed:
                # One row serves a batch that shares its equation, lengths and times.
                rows = slice(0, 1) if not differentiable and _alike(linear, leg.step, factor) else slice(None)
                scheme = ETDRK4.build(linear[rows], leg.step[rows], modes.dtype)
                if factor is not None and source is None:
                    scheme = scheme.scaled(factor[rows].to(modes.dtype))
            for n in range(leg.steps):
                if differentiable:
                    modes = scheme.advance(modes, partial(after, steps=n, leg=leg))
                else:
                    scheme.advance_in_place(modes, partial(after, padded, steps=n, leg=leg), memory)
        if leg.observed:
            yield modes


def tracked(*tensors: Tensor | None) -> bool:
    """Return whether a derivative, backward or forward, is to be taken through any of the tensors."""
    given = [t for t in tensors if t is not None]
    backward = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    return backward or any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in given)


def _alike(*tensors: Tensor | None) -> bool:
    return all(t is None or bool((t == t[:1]).all()) for t in tensors)
