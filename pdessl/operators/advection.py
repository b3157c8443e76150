"""Rates along the flow: how fields change following the path of what a measured velocity carries."""

# B runs, C fields, T frames, X nodes (d space axes)

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.operators.test_functions import spacing
from pdessl.trajectory import Trajectories

__all__ = ["traced"]

_ROUNDS = 3  # of the path's own velocity


def traced(runs: Trajectories, velocity: Sequence[int]) -> Trajectories:
    """Return fields in the middle between frames and their rates along the flow, by tracing paths back and forth.

        X± = x ± τ/2 ū(x),   ū = (u(X₊, t + τ) + u(X₋, t)) / 2
        middle (f(X₊, t + τ) + f(X₋, t)) / 2,      rate (f(X₊, t + τ) - f(X₋, t)) / τ  =  f_t + u·∇f + O(τ²)

    Structures that are carried past a node between two frames leave a time derivative at the node that no sum over
    frames resolves, but hardly change along their path. Values between nodes are cubic (Keys, third order); paths that
    leave the domain through a wall end there.

    Args:
        runs: B runs on equally spaced frames, float64.
        velocity: number of the field that is the velocity along each space axis, length per time.

    Returns:
        runs with T - 1 frames, the middles of C fields and then their C rates.

    Source: semi-Lagrangian steps: Robert (1981); cubic convolution: Keys (1981), doi:10.1109/TASSP.1981.1163711.
    """
    before, after = runs.fields[:, :, :-1], runs.fields[:, :, 1:]
    steps = spacing(runs).to(runs.fields.dtype)
    shape = (len(runs), 1, 1, *[1] * len(runs.space))
    # Half a step of the path, in nodes per unit of velocity.
    halves = [(steps[:, 0] / steps[:, 1 + a] / 2).reshape(shape) for a in range(len(runs.space))]
    periodic = [kind == "periodic" for kind in runs.boundary]
    channels = list(velocity)
    along = (before[:, channels] + after[:, channels]) / 2
    for _ in range(_ROUNDS):
        moved = [along[:, a : a + 1] * half for a, half in enumerate(halves)]
        there = _at(after[:, channels], moved, periodic)
        along = (there + _at(before[:, channels], [-m for m in moved], periodic)) / 2
    moved = [along[:, a : a + 1] * half for a, half in enumerate(halves)]
    there, here = _at(after, moved, periodic), _at(before, [-m for m in moved], periodic)
    rates = (there - here) / steps[:, 0].reshape(shape)
    return runs.replace(
        fields=torch.cat([(there + here) / 2, rates], dim=1),
        time=(runs.time[:, 1:] + runs.time[:, :-1]) / 2,
        field_names=(*runs.field_names, *(f"rate of {name}" for name in runs.field_names)),
    )


def _at(fields: Tensor, moved: Sequence[Tensor], periodic: Sequence[bool]) -> Tensor:
    """Return values (B, C, T, *X) at places that are ``moved`` away from the nodes, (B, 1, T, *X) nodes per axis."""
    grid = fields.shape[3:]
    index, weights = [], []
    for axis, (n, wraps) in enumerate(zip(grid, periodic, strict=True)):
        nodes = torch.arange(n, device=fields.device, dtype=fields.dtype)
        place = moved[axis] + nodes.reshape(-1, *[1] * (len(grid) - 1 - axis))
        place = place if wraps else place.clamp(0, n - 1)
        low = place.floor()
        s = place - low
        weights.append((
            ((2 - s) * s - 1) * s / 2,
            ((3 * s - 5) * s * s + 2) / 2,
            ((4 - 3 * s) * s + 1) * s / 2,
            (s - 1) * s * s / 2,
        ))  # fmt: skip
        first = low.long() - 1
        index.append([(first + k) % n if wraps else (first + k).clamp(0, n - 1) for k in range(4)])
    flat = fields.flatten(3)
    total = torch.zeros_like(flat)
    for corner in itertools.product(range(4), repeat=len(grid)):
        number, weight = torch.zeros_like(index[0][0]), torch.ones_like(weights[0][0])
        for axis, k in enumerate(corner):
            number = number * grid[axis] + index[axis][k]
            weight = weight * weights[axis][k]
        found = flat.gather(3, number.flatten(3).expand(-1, fields.shape[1], -1, -1))
        total = total + weight.flatten(3) * found
    return total.reshape(fields.shape)
