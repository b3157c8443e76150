"""Resampling of gridded fields: Fourier shifts on periodic axes, B-splines elsewhere. Never in time.

Positions are in units of the source grid (node j lies at position j). One call touches the array once; a filter that
removes what a coarser target grid cannot hold is folded into the prefilter of the spline.
"""

# B batch, C channels, T time frames, X one space axis of N nodes, P target nodes, d number of space axes

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["bspline_coefficients", "fourier_shift", "sample_axis", "sample_points"]


def fourier_shift(fields: Tensor, cells: Sequence[Tensor | None]) -> Tensor:
    """Shift periodic axes by any number of cells: the result at node j is the trigonometric interpolant at j - cells.

    Exact for band-limited fields. For an even number of nodes the Nyquist mode is multiplied by the cosine of its
    phase, the only real choice. Whole cells give ``roll`` to round-off.

    Args:
        fields: (B, C, T, *X), float32 or float64.
        cells: per space axis a shift of shape (B, T) or (B, 1), or None for an axis that stays.
    """
    d = fields.dim() - 3
    axes = [i for i in range(d) if cells[i] is not None]
    if not axes:
        return fields
    dims = [3 + i for i in axes]
    spectrum = torch.fft.rfftn(fields, dim=dims)
    for i in axes:
        shift, n = cells[i], fields.shape[3 + i]
        assert shift is not None
        half = i == axes[-1]
        modes = torch.fft.rfftfreq(n, 1 / n, device=fields.device, dtype=torch.float64) if half else torch.fft.fftfreq(
            n, 1 / n, device=fields.device, dtype=torch.float64
        )
        # Turns are reduced modulo 1 in float64; the trigonometry then loses nothing in float32.
        turns = shift.to(torch.float64)[:, :, None] * (modes / n)
        angle = (-2 * torch.pi * (turns - turns.round())).to(fields.dtype)
        phase = torch.polar(torch.ones_like(angle), angle)
        if n % 2 == 0:
            phase[..., n // 2] = torch.cos(angle[..., n // 2]).to(phase.dtype)
        shape = [phase.shape[0], 1, phase.shape[1]] + [1] * d
        shape[3 + i] = phase.shape[2]
        spectrum = spectrum * phase.reshape(shape)
    return torch.fft.irfftn(spectrum, s=[fields.shape[k] for k in dims], dim=dims)


# ------------------------------------------------------------------------------------------------ B-splines


def bspline_coefficients(
    fields: Tensor, axis: int, periodic: bool, order: int = 5, coarsening: Tensor | None = None
) -> Tensor:
    """Return the B-spline coefficients along one space axis, so that the spline interpolates the fields.

    The prefilter is a division by the spectrum of the sampled B-spline: on a periodic axis directly, otherwise on the
    mirrored signal (even about both end nodes), which is what the usual recursive filter computes.

    Args:
        fields: (B, C, T, *X).
        axis: space axis, 0 ... d - 1.
        periodic: wrap, or mirror.
        order: 3 or 5.
        coarsening: target spacing / source spacing, (B, T) or (B, 1); where it exceeds 1, modes that the target grid
            cannot hold are removed.

    Returns:
        Coefficients of the same shape.

    Source: Unser, Aldroubi, Eden (1993), IEEE Trans. Signal Processing 41, 821.
    """
    dim, n = 3 + axis, fields.shape[3 + axis]
    signal = fields
    if not periodic and n > 1:
        inside = fields.narrow(dim, 1, n - 2).flip(dim) if n > 2 else fields.narrow(dim, 0, 0)
        signal = torch.cat([fields, inside], dim=dim)
    length = signal.shape[dim]
    spectrum = torch.fft.rfft(signal, dim=dim)
    gain = _prefilter(length, order, fields.dtype, fields.device)
    if coarsening is not None:
        modes = torch.arange(gain.shape[0], device=fields.device) / (length / 2)
        keep = modes * coarsening[:, :, None].to(torch.float64) <= 1 + 1e-9
        shape = [keep.shape[0], 1, keep.shape[1]] + [1] * (fields.dim() - 3)
        shape[dim] = keep.shape[2]
        spectrum = spectrum * (gain * keep.to(fields.dtype)).reshape(shape)
    else:
        spectrum = spectrum * gain.reshape([-1] + [1] * (fields.dim() - 1 - dim))
    return torch.fft.irfft(spectrum, n=length, dim=dim).narrow(dim, 0, n)


@functools.lru_cache(maxsize=64)
def _prefilter(length: int, order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 / spectrum of the sampled B-spline, on the modes of rfft."""
    centre = {3: (4 / 6, 1 / 6), 5: (66 / 120, 26 / 120, 1 / 120)}[order]
    angle = 2 * torch.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length
    response = centre[0] + 2 * sum(c * torch.cos(k * angle) for k, c in enumerate(centre[1:], start=1))
    return (1 / response).to(device, dtype)


def _weights(offset: Tensor, order: int) -> list[Tensor]:
    """B-spline at the order + 1 nodes around a point; ``offset`` in [0, 1) is measured from node ``order // 2``."""
    t, s = offset, 1 - offset
    if order == 3:
        t2, s2 = t * t, s * s
        return [s2 * s / 6, 2 / 3 - t2 * (2 - t) / 2, 2 / 3 - s2 * (2 - s) / 2, t2 * t / 6]
    def half(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The quintic B-spline at distances a, 1 + a and 2 + a, for a in [0, 1]."""
        b, a2 = 1 - a, a * a
        b2 = b * b
        near = (66 - 60 * a2 + 30 * a2 * a2 - 10 * a2 * a2 * a) / 120
        far = b2 * b2 * b / 120
        # 1 + a = 2 - b: the middle piece, expanded about the node at distance 2.
        middle = (1 + 5 * b + 10 * b2 + 10 * b2 * b + 5 * b2 * b2 - 5 * b2 * b2 * b) / 120
        return near, middle, far

    near_t, middle_t, far_t = half(t)
    near_s, middle_s, far_s = half(s)
    return [far_t, middle_t, near_t, near_s, middle_s, far_s]


def _index(node: Tensor, n: int, periodic: bool) -> Tensor:
    """Fold node numbers into 0 ... n - 1, by wrapping or by mirroring about the end nodes."""
    if periodic:
        return node.remainder(n)
    if n == 1:
        return torch.zeros_like(node)
    node = node.remainder(2 * n - 2)
    return torch.minimum(node, 2 * n - 2 - node)


def sample_axis(
    fields: Tensor,
    positions: Tensor,
    axis: int,
    periodic: bool,
    order: int = 5,
    coarsening: Tensor | None = None,
) -> Tensor:
    """Interpolate along one space axis by a B-spline.

    Args:
        fields: (B, C, T, *X).
        positions: in cells, (B, T, P) or (B, 1, P), float64.
        axis: space axis, 0 ... d - 1.
        periodic: wrap, or mirror.
        order: 3 (cubic) or 5 (quintic).
        coarsening: see :func:`bspline_coefficients`.

    Returns:
        The fields with the axis replaced by P nodes.

    Raises:
        ShapeError: positions that do not fit the fields.
    """
    b, t = fields.shape[0], fields.shape[2]
    if positions.dim() != 3 or positions.shape[0] != b or positions.shape[1] not in (1, t):
        raise ShapeError(
            f"positions {tuple(positions.shape)} must be ({b}, {t} or 1, P) to fit fields {tuple(fields.shape)}."
        )
    dim, n = 3 + axis, fields.shape[3 + axis]
    coefficients = bspline_coefficients(fields, axis, periodic, order, coarsening)
    base = positions.floor()
    weights = _weights((positions - base).to(fields.dtype), order)
    base = base.to(torch.int64)
    shape = [b, 1, positions.shape[1]] + [1] * (fields.dim() - 3)
    shape[dim] = positions.shape[2]
    full = list(fields.shape)
    full[dim] = positions.shape[2]
    result: Tensor | None = None
    for k, weight in enumerate(weights):
        index = _index(base + (k - order // 2), n, periodic).reshape(shape).expand(full)
        term = coefficients.gather(dim, index) * weight.reshape(shape)
        result = term if result is None else result.add_(term)
    assert result is not None
    return result


def sample_points(
    fields: Tensor,
    positions: Tensor,
    periodic: Sequence[bool],
    order: int = 3,
    coarsening: Tensor | None = None,
) -> Tensor:
    """Interpolate at points that mix the space axes (rotations) by a tensor-product B-spline.

    Args:
        fields: (B, C, T, *X) with d space axes.
        positions: in cells, (B, T, *P, d) or (B, 1, *P, d) with d target axes, float64.
        periodic: per axis, wrap or mirror.
        order: 3 or 5.
        coarsening: see :func:`bspline_coefficients`; one factor for all axes.

    Returns:
        (B, C, T, *P).
    """
    b, c, t = fields.shape[:3]
    sizes, target = fields.shape[3:], positions.shape[2:-1]
    d = len(sizes)
    if positions.shape[0] != b or positions.shape[1] not in (1, t) or positions.shape[-1] != d:
        raise ShapeError(
            f"positions {tuple(positions.shape)} must be ({b}, {t} or 1, *P, {d}) to fit fields {tuple(fields.shape)}."
        )
    coefficients = fields
    for axis in range(d):
        coefficients = bspline_coefficients(coefficients, axis, periodic[axis], order, coarsening)
    slices = positions.shape[1]
    if slices == 1:  # one geometry for all frames: frames ride along as channels
        coefficients = coefficients.reshape(b, c * t, 1, *sizes)
    # Nodes as rows of a table, everything that shares a geometry as its columns; one weighted sum of rows per point.
    columns = coefficients.shape[1]
    count = int(torch.Size(sizes).numel())
    table = coefficients.movedim(1, -1).reshape(b * slices * count, columns)
    base = positions.floor()
    offsets = (positions - base).to(fields.dtype).reshape(b * slices, -1, d)
    nodes = base.to(torch.int64).reshape(b * slices, -1, d)
    index = (torch.arange(b * slices, device=fields.device) * count).reshape(-1, 1, 1)
    weight = torch.ones_like(offsets[..., :1])
    for i in range(d):  # the taps of each axis multiply those of the axes before it
        near = [_index(nodes[..., i] + (k - order // 2), sizes[i], periodic[i]) for k in range(order + 1)]
        taps = torch.stack(near, dim=-1)
        stride = int(torch.Size(sizes[i + 1 :]).numel())
        index = (index[..., :, None] + (taps * stride)[..., None, :]).flatten(-2)
        along = torch.stack(_weights(offsets[..., i], order), dim=-1)
        weight = (weight[..., :, None] * along[..., None, :]).flatten(-2)
    found = torch.nn.functional.embedding_bag(
        index.reshape(-1, index.shape[-1]), table, mode="sum", per_sample_weights=weight.reshape(-1, weight.shape[-1])
    )
    found = found.reshape(b, slices, -1, columns).movedim(-1, 1)
    return found.reshape(b, c, t, *target)
