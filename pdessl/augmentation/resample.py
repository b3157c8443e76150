"""Evaluation of B-splines at new places: axis by axis, or where the axes mix. Never in time.

Coefficients come from :func:`pdessl.augmentation.filters.filter_axes`. Frames come before channels, so that what shares
a geometry lies together in memory. Positions are in units of the source grid (node j lies at position j).
"""

# B batch, T time frames, C channels, X one space axis of N nodes, P target nodes, d number of space axes,
# G geometries: B where all frames are read at the same places, else B T

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.augmentation.filters import Ends, multiply_axis
from pdessl.errors import ShapeError

__all__ = ["sample_affine", "sample_axis"]


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


def sample_axis(coefficients: Tensor, positions: Tensor, axis: int, ends: Ends, order: int = 5) -> Tensor:
    """Evaluate a B-spline along one space axis.

    Args:
        coefficients: (B, T, C, *X), from :func:`filter_axes`.
        positions: in cells, (B, T, P) or (B, 1, P), float64.
        axis: space axis, 0 ... d - 1.
        ends: of :class:`pdessl.augmentation.filters.AxisFilter`; positions on an open axis are those of nodes or
            between.
        order: 3 (cubic) or 5 (quintic).

    Returns:
        The values, with P nodes on the axis.

    Raises:
        ShapeError: positions that do not fit the fields.
    """
    b, t, c = coefficients.shape[:3]
    if positions.dim() != 3 or positions.shape[0] != b or positions.shape[1] not in (1, t):
        raise ShapeError(
            f"positions {tuple(positions.shape)} must be ({b}, {t} or 1, P) to fit coefficients "
            f"{tuple(coefficients.shape)}."
        )
    n = coefficients.shape[3 + axis]
    base = positions.floor()
    weights = torch.stack(_weights((positions - base).to(coefficients.dtype), order), dim=-1)
    taps = torch.arange(order + 1, device=positions.device) - order // 2
    nodes = base.to(torch.int64)[..., None] + taps
    if ends == "wrapped":
        nodes = nodes.remainder(n)
    elif ends == "open":  # there are coefficients beyond the ends, except where their weight is 0
        nodes = (nodes + order // 2).clamp(min=0, max=n - 1)
    elif n > 1:
        nodes = nodes.remainder(2 * n - 2)
        nodes = torch.minimum(nodes, 2 * n - 2 - nodes)
    else:
        nodes = torch.zeros_like(nodes)
    sharing = coefficients[0].numel() // (n * positions.shape[1])
    if sharing >= 16:  # many lines are read at the same places: one matrix product serves them all
        matrix = weights.new_zeros((*positions.shape, n)).scatter_add_(-1, nodes, weights)
        return multiply_axis(coefficients, matrix, axis)
    dim, shape = 3 + axis, [b, positions.shape[1], 1] + [1] * (coefficients.dim() - 3)
    shape[dim] = positions.shape[2]
    full = list(coefficients.shape)
    full[dim] = positions.shape[2]
    terms = (
        coefficients.gather(dim, nodes[..., k].reshape(shape).expand(full)) * weights[..., k].reshape(shape)
        for k in range(order + 1)
    )
    return functools.reduce(torch.Tensor.add_, terms)


def sample_affine(
    coefficients: Tensor,
    matrix: Tensor,
    offset: Tensor,
    points: Sequence[int],
    ends: Sequence[Ends],
    order: int = 3,
    memory: list[Tensor] | None = None,
) -> Tensor:
    """Evaluate a tensor-product B-spline on an affine image of a grid, which may mix the space axes.

        result[j] = spline(offset + matrix · (j - (points - 1) / 2))

    B-splines are positive, so a pair of neighbouring taps is one linear interpolation at the right place between them;
    the spline is a sum of (order + 1) / 2 linear interpolations per axis.

    Args:
        coefficients: (B, T, C, *X) with d = 2 or 3 space axes, from :func:`filter_axes`.
        matrix: cells per target node, (B, T, d, d) or (B, 1, d, d), float64.
        offset: position of the middle of the target grid in cells, (B, T, d) or (B, 1, d), float64.
        points: nodes of the target grid, one number per axis.
        ends: per axis, of :class:`pdessl.augmentation.filters.AxisFilter`; positions on an open axis are those of nodes
            or between.
        order: 3 or 5.
        memory: a list, empty at first, that keeps scratch memory from one call to the next; fresh memory is slow.

    Returns:
        (B, T, C, *points).

    Raises:
        ShapeError: a matrix or an offset that does not fit the fields.

    Source: Sigg, Hadwiger, "Fast third-order texture filtering", GPU Gems 2 (2005), chapter 20.
    """
    b, t, c = coefficients.shape[:3]
    sizes = coefficients.shape[3:]
    d = len(sizes)
    frames = {1, t}
    if (
        d not in (2, 3)
        or matrix.shape[0] != b
        or matrix.shape[2:] != (d, d)
        or offset.shape[::2] != (b, d)
        or not (matrix.shape[1] in frames and offset.shape[1] in frames)
    ):
        raise ShapeError(
            f"matrix {tuple(matrix.shape)} and offset {tuple(offset.shape)} must be ({b}, {t} or 1, {d}, {d}) and "
            f"({b}, {t} or 1, {d}), with d = 2 or 3, to fit coefficients {tuple(coefficients.shape)}."
        )
    shared = matrix.shape[1] == offset.shape[1] == 1
    g = b if shared else b * t
    matrix = matrix.expand(b, g // b, d, d).reshape(g, d, d)
    offset = offset.expand(b, g // b, d).reshape(g, d)
    table = _extended(coefficients.reshape(g, -1, *sizes), ends, order)

    pairs = (order + 1) // 2
    # One block of memory for everything of the size of the target grid. First the places of all pairs along all axes,
    # in the order that grid_sample wants (the last axis first), then their shares, then scratch.
    shape = (d * (pairs + 1) + 3, g, *points)
    work = memory.pop() if memory and memory[0].shape == shape else table.new_empty(shape)
    if memory is not None:
        memory[:] = [work]
    places, shares, scratch = work[: d * pairs], work[d * pairs : -3], work[-3:]
    weights: list[list[Tensor]] = []
    for plane, i in enumerate(reversed(range(d))):
        period = sizes[i] if ends[i] == "wrapped" else None
        _affine_positions(matrix[:, i].detach(), offset[:, i].detach(), points, period, scratch)
        write = _cubic_pairs if order == 3 else _quintic_pairs
        weights.append(write(scratch, table.shape[2 + i], places[plane * pairs :][:pairs], shares[plane]))

    # grid_sample gives whole trajectories to threads: a single one is handed over in as many pieces as there are.
    threads = torch.get_num_threads() if g == 1 and table.device.type == "cpu" else 1
    split = max(k for k in range(1, threads + 1) if table.shape[1] % k == 0)

    def sampled(chosen: tuple[int, ...]) -> Tensor:
        if len(chosen) == d:
            numbers = [plane * pairs + k for plane, k in enumerate(chosen)]
            apart = numbers[1] - numbers[0]
            grid = places[numbers[0] :: apart][:2] if d == 2 else torch.stack([places[k] for k in numbers])
            grid = grid.movedim(0, -1).expand(split * g, *points, d)
            return torch.nn.functional.grid_sample(
                table.reshape(split * g, -1, *table.shape[2:]),
                grid,
                mode="bilinear",
                padding_mode="border",
                align_corners=True,
            ).reshape(g, -1, *points)
        share = weights[len(chosen)]
        first = sampled((*chosen, 0))
        if pairs == 2:
            return first.lerp_(sampled((*chosen, 1)), share[0])
        first.mul_(share[0])
        for k in range(1, pairs):
            first.addcmul_(sampled((*chosen, k)), share[k])
        return first

    return sampled(()).reshape(b, t, c, *points)


def _affine_positions(row: Tensor, offset: Tensor, points: Sequence[int], period: int | None, scratch: Tensor) -> None:
    """Write positions along one axis (G, *P) to ``scratch[0]``; computed in float64 up to the last sum."""
    if period is not None:
        offset = offset.remainder(period)
    terms = []
    for k, p in enumerate(points):
        node = torch.arange(p, dtype=torch.float64, device=row.device) - (p - 1) / 2
        term = row[:, k, None] * node
        if k == 0:
            term = term + offset[:, None]
        terms.append(term.to(scratch.dtype).reshape(-1, *[p if i == k else 1 for i in range(len(points))]))
    torch.add(functools.reduce(torch.add, terms[:-1]), terms[-1], out=scratch[0])
    if period is not None:
        torch.mul(scratch[0], 1 / period, out=scratch[1])
        scratch[0].sub_(scratch[1].floor_(), alpha=period)


def _cubic_pairs(scratch: Tensor, extended: int, places: Tensor, share: Tensor) -> list[Tensor]:
    """Write the places of both pairs of taps, in units of grid_sample, and the share g of the second: (1 - g, g).

        g = (1 + 3 t + 3 t² - 2 t³) / 6,    first pair at -1 + (4 - 6 t² + 3 t³) / 6 (1 - g),    second at 1 + t³ / 6 g

    ``scratch[0]`` holds the positions. Few passes over memory, as these are what costs.
    """
    t, square, other = scratch
    scale = 2 / (extended - 1)

    def number(value: float) -> Tensor:
        return torch.full((), value, dtype=t.dtype, device=t.device)

    near, far = places
    torch.floor(t, out=near)
    t.sub_(near)
    # A node lies one place later in the extended table, whose ends are -1 and 1.
    torch.add(number(2 * scale - 1), near, alpha=scale, out=far)
    torch.add(number(-1), near, alpha=scale, out=near)
    half, sixth = number(1 / 2), number(1 / 6)
    torch.add(half, t, alpha=-1 / 3, out=share)
    torch.addcmul(half, t, share, out=share)
    torch.addcmul(sixth, t, share, out=share)
    torch.mul(t, t, out=square)
    torch.mul(square, t, out=other)
    far.addcdiv_(other, share, value=scale / 6)
    torch.add(number(-1), t, alpha=0.5, out=t)
    torch.addcmul(number(2 / 3), square, t, out=square)
    torch.sub(number(1), share, out=other)
    near.addcdiv_(square, other, value=scale)
    return [share[:, None]]


def _quintic_pairs(scratch: Tensor, extended: int, places: Tensor, share: Tensor) -> list[Tensor]:
    """Write the places of the three pairs of taps, in units of grid_sample; return their shares."""
    t, base = scratch[0], scratch[1]
    scale = 2 / (extended - 1)
    torch.floor(t, out=base)
    weights = _weights(t.sub_(base), 5)
    shares = []
    for k, place in enumerate(places):
        total = torch.add(weights[2 * k], weights[2 * k + 1])
        torch.add(base, 2 * k, out=place)
        place.addcdiv_(weights[2 * k + 1], total).mul_(scale).sub_(1)
        shares.append(total[:, None])
    return shares


def _extended(table: Tensor, ends: Sequence[Ends], order: int) -> Tensor:
    """Repeat nodes beyond both ends of every axis of (G, C, *X), so that all taps lie inside.

    On an open axis they are there, but for the last tap of the last node, whose weight is 0.
    """
    left, right = order // 2, order // 2 + 1
    sizes = table.shape[2:]
    more = [(0, 0) if e == "open" else (left, right) for e in ends]
    result = table.new_empty((*table.shape[:2], *[a + n + b for n, (a, b) in zip(sizes, more, strict=True)]))
    inside = result
    for i, (n, (before, _)) in enumerate(zip(sizes, more, strict=True)):
        inside = inside.narrow(2 + i, before, n)
    inside.copy_(table)
    for i, n in enumerate(sizes):
        dim, (before, after) = 2 + i, more[i]
        for node in (*range(-before, 0), *range(n, n + after)):
            if ends[i] == "wrapped":
                same = node % n
            else:
                same = node % (2 * n - 2) if n > 1 else 0
                same = min(same, 2 * n - 2 - same)
            result.select(dim, before + node).copy_(result.select(dim, before + same))
    return result
