"""Linear filters along the space axes of gridded fields: Fourier shifts, prefilters of B-splines, low-passes.

All periodic axes are filtered in one Fourier transform, the others by a matrix each.
"""

# B batch, T time frames, C channels, X one space axis of N nodes, P target nodes

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["AxisFilter", "Ends", "filter_axes", "filter_reach", "multiply_axis"]

Ends = Literal["wrapped", "mirrored", "open"]

# Taps on each side of the low-pass, a sinc under a Hann window, so that what it reads is bounded.
_LOW_PASS = 24


@dataclass(frozen=True, eq=False)
class AxisFilter:
    """What is done to one whole axis before it is sampled.

    Args:
        ends: what lies beyond the end nodes. ``wrapped``: the axis is periodic. ``open``: nothing is known there. The
            low-pass then sees u(-x) = 2 u(0) - u(x), which keeps straight lines, and coefficients obey the not-a-knot
            condition: those beyond an end continue the ones inside as a polynomial of the degree of the spline, so
            that such polynomials are reproduced up to the end nodes. ``mirrored``: u(-x) = u(x), for a piece cut out
            of a periodic axis, whose ends are out of the reach of what is sampled.
        shift: cells, (B, T) or (B, 1): the result at node j is the trigonometric interpolant at j - shift. Exact for
            band-limited fields; for an even number of nodes the Nyquist mode is multiplied by the cosine of its phase,
            the only real choice. Periodic axes only.
        order: 3 or 5: return the coefficients of the B-spline of this order that interpolates the fields: one per node,
            and on an open axis order // 2 more beyond each end.
        coarsening: target spacing / source spacing, (B, T) or (B, 1); where it exceeds 1, modes that the target grid
            cannot hold are damped by a windowed sinc.
    """

    ends: Ends
    shift: Tensor | None = None
    order: int | None = None
    coarsening: Tensor | None = None


def filter_axes(fields: Tensor, filters: Sequence[AxisFilter | None]) -> Tensor:
    """Filter space axes: all periodic ones in one Fourier transform, the others each by a matrix of its nodes.

    Args:
        fields: (B, T, C, *X), float32 or float64.
        filters: one per space axis; None leaves the axis as it is.

    Source: prefilter as a division by the spectrum of the sampled B-spline: Unser, Aldroubi, Eden (1993), IEEE Trans.
        Signal Processing 41, 821. Not-a-knot: de Boor, A Practical Guide to Splines (2001), chapter IV.
    """
    d = fields.dim() - 3
    wrapped = [i for i, f in enumerate(filters) if f is not None and f.ends == "wrapped"]
    if wrapped:
        dims = [3 + i for i in wrapped]
        sizes = [fields.shape[k] for k in dims]
        spectrum = torch.fft.rfftn(fields, dim=dims)
        for i in wrapped:
            n, chosen = fields.shape[3 + i], filters[i]
            assert chosen is not None  # noqa: S101  (only axes with a filter are wrapped here)
            response = _response(chosen, _turns(n, i == wrapped[-1], fields.device), n, fields.dtype)
            shape = [*response.shape[:2], 1] + [1] * d
            shape[3 + i] = response.shape[2]
            spectrum.mul_(response.reshape(shape))
        fields = torch.fft.irfftn(spectrum, s=sizes, dim=dims)
    for i, f in enumerate(filters):
        if f is None or f.ends == "wrapped" or (f.ends == "mirrored" and fields.shape[3 + i] == 1):
            continue
        if f.shift is not None:
            raise ShapeError("a Fourier shift needs a periodic axis; sample this one by a B-spline.")
        operator = _open_operator if f.ends == "open" else _mirror_operator
        fields = multiply_axis(fields, operator(f, fields.shape[3 + i], fields.dtype, fields.device), i)
    return fields


def filter_reach(order: int, dtype: torch.dtype, coarsening: bool) -> int:
    """Nodes beyond a sampled point whose values matter, in the given arithmetic."""
    # The prefilter decays by its largest pole per node: 0.268 (cubic), 0.431 (quintic).
    pole = {3: 0.268, 5: 0.431}[order]
    decay = math.ceil(math.log(torch.finfo(dtype).eps) / math.log(pole))
    return decay + order // 2 + 1 + (_LOW_PASS if coarsening else 0)


@functools.lru_cache(maxsize=64)
def _turns(n: int, half: bool, device: torch.device) -> Tensor:
    """Turns per node of the modes of a Fourier transform."""
    modes = torch.fft.rfftfreq if half else torch.fft.fftfreq
    return modes(n, 1.0, dtype=torch.float64).to(device)


def _response(chosen: AxisFilter, turns: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Factor of every mode, (B | 1, T | 1, modes)."""
    gain = None
    if chosen.order is not None:
        gain = _prefilter(turns, chosen.order)[None, None]
    if chosen.coarsening is not None:
        damped = _low_pass(chosen.coarsening, turns)
        gain = damped if gain is None else gain * damped
    if chosen.shift is None:
        return (torch.ones_like(turns)[None, None] if gain is None else gain).to(dtype)
    # Turns are reduced modulo 1 in float64; the trigonometry then loses nothing in float32.
    angle = chosen.shift.to(torch.float64)[:, :, None] * turns
    angle = ((angle - angle.round()) * (-2 * math.pi)).to(dtype)
    size = torch.ones_like(angle) if gain is None else gain.to(dtype).expand_as(angle)
    phase = torch.polar(size, angle)
    if n % 2 == 0:
        phase[..., n // 2] = (size[..., n // 2] * torch.cos(angle[..., n // 2])).to(phase.dtype)
    return phase


def _prefilter(turns: Tensor, order: int) -> Tensor:
    """1 / spectrum of the sampled B-spline."""
    centre, *rest = {3: (4 / 6, 1 / 6), 5: (66 / 120, 26 / 120, 1 / 120)}[order]
    response = torch.full_like(turns, centre)
    for k, c in enumerate(rest, start=1):
        response += 2 * c * torch.cos(2 * math.pi * k * turns)
    return 1 / response


def _low_pass(coarsening: Tensor, turns: Tensor) -> Tensor:
    """Response of the windowed sinc, (B, T | 1, modes): 1 wherever the target grid is not coarser."""
    cut = 1 / coarsening.to(torch.float64).clamp(min=1)[..., None]
    k = torch.arange(1, _LOW_PASS + 1, dtype=torch.float64, device=turns.device)
    taps = 2 * cut * torch.sinc(cut * k) * torch.cos(math.pi * k / (2 * _LOW_PASS + 2)).square()
    return (cut + taps @ torch.cos(2 * math.pi * k[:, None] * turns)) / (cut + taps.sum(dim=-1, keepdim=True))


def _mirror_operator(chosen: AxisFilter, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The filter as a matrix on the nodes, (N, N) or (B, T | 1, N, N)."""
    if chosen.coarsening is None:
        assert chosen.order is not None  # noqa: S101  (a filter coarsens or has an order)
        return _mirrored_prefilter(n, chosen.order, dtype, device)
    synthesis, analysis, turns = _cosines(n, device)
    gain = _response(chosen, turns, n, dtype)
    return synthesis.to(dtype) @ (gain[..., None] * analysis.to(dtype))


@functools.lru_cache(maxsize=64)
def _mirrored_prefilter(n: int, order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    synthesis, analysis, turns = _cosines(n, device)
    return (synthesis @ (_prefilter(turns, order)[:, None] * analysis)).to(dtype)


@functools.lru_cache(maxsize=64)
def _cosines(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine series of signals mirrored about both end nodes: modes to nodes, nodes to modes, turns per node."""
    j = torch.arange(n, dtype=torch.float64)
    turns = j / (2 * (n - 1))
    synthesis = torch.cos(2 * math.pi * j[:, None] * turns)
    ends = torch.ones(n, dtype=torch.float64)
    ends[0] = ends[-1] = 0.5
    analysis = synthesis.T * ends[:, None] * ends * (2 / (n - 1))
    return synthesis.to(device), analysis.to(device), turns.to(device)


def _open_operator(chosen: AxisFilter, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The filter as a matrix from the nodes to them (low-pass) or to coefficients, (K, N) or (B, T | 1, K, N)."""
    if chosen.coarsening is None:
        assert chosen.order is not None  # noqa: S101  (a filter coarsens or has an order)
        return _not_a_knot(n, chosen.order, device).to(dtype)
    line, synthesis, analysis, turns = _sines(n, chosen.order, device)
    gain = _response(AxisFilter("open", coarsening=chosen.coarsening), turns, n, dtype)
    return line.to(dtype) + synthesis.to(dtype) @ (gain[..., None] * analysis.to(dtype))


@functools.lru_cache(maxsize=64)
def _not_a_knot(n: int, order: int, device: torch.device) -> Tensor:
    """From values at the nodes to coefficients on them and order // 2 beyond each end, (N + 2 (order // 2), N)."""
    beyond, degree = order // 2, min(order, n - 1)
    extended = torch.zeros(n + 2 * beyond, n, dtype=torch.float64)
    extended[beyond : beyond + n] = torch.eye(n, dtype=torch.float64)
    for k in range(beyond):
        at = k - beyond  # a place beyond the first node: the polynomial through the first degree + 1, by Lagrange
        for i in range(degree + 1):
            weight = math.prod((at - j) / (i - j) for j in range(degree + 1) if j != i)
            extended[k, i] = extended[-1 - k, n - 1 - i] = weight
    taps = {3: (1 / 6, 4 / 6, 1 / 6), 5: (1 / 120, 26 / 120, 66 / 120, 26 / 120, 1 / 120)}[order]
    sampled = sum(c * extended[k : k + n] for k, c in enumerate(taps))
    return (extended @ torch.linalg.inv(sampled)).to(device)


@functools.lru_cache(maxsize=64)
def _sines(n: int, order: int | None, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signals as the line through their end nodes and a sine series, which continues them by a point reflection.

    Returns:
        (from nodes to the line, from modes to the rest, from nodes to modes, turns per node). With an order, the first
        two give coefficients of the B-spline instead of values.
    """
    j, last = torch.arange(n, dtype=torch.float64), max(n - 1, 1)
    line = torch.zeros(n, n, dtype=torch.float64)
    line[:, -1] = j / last
    line[:, 0] = 1 - j / last
    turns = j[1:-1] / (2 * last)
    synthesis = torch.sin(2 * math.pi * j[:, None] * turns)
    analysis = synthesis.T @ (torch.eye(n, dtype=torch.float64) - line) * (2 / last)
    line, synthesis, analysis, turns = (m.to(device) for m in (line, synthesis, analysis, turns))
    if order is not None:
        knots = _not_a_knot(n, order, device)
        line, synthesis = knots @ line, knots @ synthesis
    return line, synthesis, analysis, turns


def multiply_axis(fields: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """Multiply one space axis by a matrix (P, N) or (B, T | 1, P, N)."""
    b, t, c = fields.shape[:3]
    before, after = fields.shape[3 : 3 + axis], fields.shape[4 + axis :]
    n, p = matrix.shape[-1], matrix.shape[-2]
    if not after:
        shared = matrix.dim() == 2 or matrix.shape[1] == 1
        rows = fields.reshape((b, -1, n) if shared else (b, t, -1, n))
        result = rows @ (matrix if matrix.dim() == 2 or not shared else matrix[:, 0]).transpose(-1, -2)
    else:
        result = (matrix if matrix.dim() == 2 else matrix[:, :, None]) @ fields.reshape(b, t, -1, n, math.prod(after))
    return result.reshape(b, t, c, *before, p, *after)
