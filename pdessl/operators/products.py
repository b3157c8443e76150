"""Weak products for networks: integrals of standardised fields against test functions, and kernels of any shape."""

# B runs, C fields, T time frames, X nodes (d axes), F values at a node, E left sides, O outputs

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d

from pdessl.errors import ShapeError
from pdessl.operators.test_functions import bump, sliding

__all__ = ["Products", "waves"]

_POWER = 8
_CONVOLUTIONS = {1: conv1d, 2: conv2d}

_HALF_WIDTHS = {1: (9, 13), 2: (6, 4, 4)}
_STRIDES = {1: (2, 2), 2: (2, 2, 2)}


class Products(nn.Module):
    """Integrals against smooth test functions along time and every axis: what learned laws are made of.

    What is None is as the data say: as many axes as ``half_width`` has numbers for, all periodic, and as many fields as
    the left sides name, until :func:`pdessl.models.complete_networks` knows better.

    Args:
        fields: C.
        half_width: of the test function, frames and nodes along each axis; kernels have 2 h + 1 taps. None: 9 and 13;
            in the plane 6, 4 and 4.
        stride: distance of the positions, frames and nodes along each axis; None: 2.
        periodic: per space axis, whether it wraps round. Along others, positions are those whose window is whole.
        left: left sides of the law: ``[c]``, the rate of field c, or ``[a, b]``, the rate of ∂_x b - ∂_y a, in which
            a gradient that drives both and is not measured, as pressure does, has no part.

    Raises:
        ValueError: numbers that do not match the axes, or other left sides.
    """

    ratio: Tensor

    def __init__(
        self,
        fields: int | None,
        half_width: Sequence[int] | None,
        stride: Sequence[int] | None,
        periodic: Sequence[bool] | None,
        left: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.axes = len(periodic) if periodic is not None else len(half_width or (0, 0)) - 1
        self.periodic = tuple(bool(p) for p in periodic) if periodic is not None else (True,) * self.axes
        self.fields = 1 + max((c for entry in left for c in entry), default=0) if fields is None else fields
        self.left = tuple(tuple(entry) for entry in left)
        # As given: on as many axes as the data have, None means other numbers.
        self._given = {n: v and list(v) for n, v in (("half_width", half_width), ("stride", stride))}
        self.half_width = tuple(half_width or _HALF_WIDTHS.get(self.axes, ()))
        self.stride = tuple(stride or _STRIDES.get(self.axes, ()))
        if self.axes not in _CONVOLUTIONS or {len(self.half_width), len(self.stride)} != {1 + self.axes}:
            raise ValueError(
                f"half_width {list(self.half_width)} and stride {list(self.stride)} over {self.axes} space axes; "
                "expected one or two axes, and of each frames and the nodes along every axis."
            )
        pairs = [entry for entry in self.left if len(entry) == 2]
        known = all(len(entry) in (1, 2) and all(0 <= c < self.fields for c in entry) for entry in self.left)
        if not left or not known or len(pairs) > (1 if self.axes == 2 else 0) or any(a == b for a, b in pairs):
            raise ValueError(
                f"left sides {[list(entry) for entry in self.left]} of {self.fields} fields over {self.axes} axes; "
                "expected [c] for the rate of field c and, in the plane, at most one pair [a, b], the numbers of a "
                "velocity along x and y."
            )
        # The unit of b over that of a: of standardised fields it is not known.
        self.register_buffer("ratio", torch.zeros((), dtype=torch.float64), persistent=bool(pairs))
        self._made: dict[tuple[int, int, int, torch.dtype, torch.device], Tensor] = {}

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes such products again, under the names that networks have for it."""
        return {
            "in_channels": self.fields,
            **self._given,
            "left": [list(entry) for entry in self.left],
            "periodic": list(self.periodic),
        }

    @property
    def pair(self) -> tuple[int, int] | None:
        """The fields whose curl is a left side, or None."""
        return next(((e[0], e[1]) for e in self.left if len(e) == 2), None)

    def over_time(self, values: Tensor, order: int = 0) -> Tensor:
        """Integrate the derivative of an order in time of (B, F, T, *X), (B, F, T', *X), per frame.

        Raises:
            ShapeError: another number of axes, or fewer frames or nodes than a test function has.
        """
        if values.ndim != 3 + self.axes:
            raise ShapeError(
                f"got fields {tuple(values.shape)}; this law is one of {self.axes} space axes: expected (B, C, T, *X) "
                "with as many. Leave periodic and half_width out, or give them for as many axes."
            )
        sizes, taps = values.shape[2:], [2 * h + 1 for h in self.half_width]
        if any(n < t for n, t in zip(sizes, taps, strict=True)):
            raise ShapeError(
                f"got {sizes[0]} frames of {tuple(sizes[1:])} nodes; expected {taps[0]} frames or more and {taps[1:]} "
                "nodes, the widths of the test function. Give longer runs or larger views, or a smaller half_width."
            )
        return self._integrated(values, 0, order)

    def along(self, smooth: Tensor, orders: Sequence[int]) -> Tensor:
        """Integrate derivatives along the axes of what was integrated over time, (..., *X) -> (..., *X'), per node."""
        for axis, order in enumerate(orders, start=1):
            smooth = self._integrated(smooth, axis, order)
        return smooth

    def _integrated(self, values: Tensor, axis: int, order: int) -> Tensor:
        dim = axis - 1 - self.axes
        wraps, size = axis > 0 and self.periodic[axis - 1], values.shape[dim]
        key = axis, order, size, values.dtype, values.device
        if key not in self._made:
            with torch.inference_mode(False):  # what a validation makes, training uses
                matrix = sliding(bump(self.half_width[axis], _POWER, order), size, wraps)[:: self.stride[axis]]
                self._made[key] = matrix.to(values.device, values.dtype)
        return torch.movedim(torch.movedim(values, dim, -1) @ self._made[key].T, -1, dim)

    @torch.no_grad()
    def look(self, x: Tensor, spacing: Tensor | None) -> None:
        """Note, in the first batch of a training, in which unit of b, over that of a, ∂_x a + ∂_y b is 0."""
        if self.pair is None or not self.training or bool(self.ratio > 0):
            return
        steps, smooth = _spacings(spacing, len(x)).to(x), self.over_time(x)
        a, b = (
            (self.along(smooth[:, c], orders).flatten(1).square().mean(dim=1) / steps[:, axis].square()).mean()
            for c, orders, axis in ((self.pair[0], (1, 0), 1), (self.pair[1], (0, 1), 2))
        )
        self.ratio.copy_((a / b.clamp_min(1e-300)).sqrt())

    def curl(self, smooth: Sequence[Tensor], orders: Sequence[int], spacing: Tensor | None) -> Tensor:
        """Return the integrals of derivatives of ∂_x b - ∂_y a, in units of a and of 1/dx, (B, ..., *X').

        Args:
            smooth: a and b integrated over time, (B, ..., *X) each.
            orders: of the derivatives along x and y.
            spacing: time step and grid spacings of each run, (B, 3).
        """
        steps = _spacings(spacing, len(smooth[0])).to(smooth[0])
        bent = (steps[:, 1] / steps[:, 2]).reshape(-1, *(1,) * (smooth[0].ndim - 1))
        a, b = (
            self.along(values, (orders[0] + by[0], orders[1] + by[1]))
            for values, by in zip(smooth, ((0, 1), (1, 0)), strict=True)
        )
        return torch.where(self.ratio > 0, self.ratio, 1.0).to(a) * b - bent * a

    def rates(self, x: Tensor, spacing: Tensor | None) -> Tensor:
        """Return the integrals of the left sides, (B, E, T', *X'), per frame."""
        moving, found = self.over_time(x, 1), []
        for entry in self.left:
            if len(entry) == 1:
                found.append(self.along(moving[:, entry[0]], (0,) * self.axes))
            else:
                found.append(self.curl([moving[:, c] for c in entry], (0, 0), spacing))
        return torch.stack(found, dim=1)

    def under(self, smooth: Tensor, kernels: Tensor) -> Tensor:
        """Correlate (B, F, T', *X) with kernels (O, F, *taps) at the positions, (B, O, T', *X')."""
        values = self._wrapped(smooth.transpose(1, 2).flatten(0, 1))
        found = _CONVOLUTIONS[self.axes](values, kernels.to(values.dtype), stride=self.stride[1:])
        return found.unflatten(0, (len(smooth), -1)).transpose(1, 2)

    def under_each(self, smooth: Tensor, shapes: Sequence[Tensor]) -> Tensor:
        """Correlate (B, F, T', *X) with all products of shapes along each axis, (K_a, taps): (B, F·K, T', *X')."""
        values = self._wrapped(smooth)
        for axis, shape in enumerate(shapes):
            # (B, F, ..., taps) @ (taps, K): the waves along this axis come after those of the axes before it.
            spread = values.unfold(3 + axis, shape.shape[1], self.stride[1 + axis]) @ shape.T.to(values.dtype)
            values = spread.movedim(-1, 2).flatten(1, 2)
        return values

    def _wrapped(self, values: Tensor) -> Tensor:
        for axis, wraps in enumerate(self.periodic):
            if wraps:
                dim = axis - self.axes
                values = torch.cat([values, values.narrow(dim, 0, 2 * self.half_width[1 + axis])], dim=dim)
        return values


def waves(half_width: int) -> Tensor:
    """Return sines and cosines under a window, what kernels are sums of, (K, taps), each of norm 1."""
    j = np.arange(-half_width, half_width + 1) / (half_width + 1)
    count = half_width // 2
    made = [np.cos(np.pi * m * j) for m in range(count + 1)] + [np.sin(np.pi * m * j) for m in range(1, count + 1)]
    found = np.stack(made) * (1 - j**2) ** 2
    return torch.from_numpy(found / np.linalg.norm(found, axis=1, keepdims=True))


def _spacings(spacing: Tensor | None, count: int) -> Tensor:
    if spacing is None or spacing.shape != (count, 3):
        found = "none" if spacing is None else str(tuple(spacing.shape))
        raise ShapeError(
            f"a law of a curl got spacing {found}; expected ({count}, 3): the time step and the grid spacings of each "
            "run. Call the encoder with trajectories, or with spacing."
        )
    return spacing
