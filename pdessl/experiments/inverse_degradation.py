"""What instruments do to fields: a low-pass, salt and pepper, an uneven mesh; and the filter against outliers."""

# B runs, C channels, T frames, X space

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.inference.frame_shooting import smoothed
from pdessl.schema import Count, Range

__all__ = ["Degradation", "degraded", "despiked"]

_FAR = 5.0  # deviations of a node from the median around it, in robust standard deviations, that noise does not reach
_LEAST = 0.75  # of the standard deviation of the field: peaks that the grid resolves stay below it
_PASSES = 12  # of filling in; each shrinks the error of what is missing by about the share of nodes that are there


@dataclass(frozen=True)
class Degradation:
    """What is done to noisy frames, in this order.

    Args:
        low_pass: cut-off k_c of a Butterworth filter as a share of the largest wave number of the grid: a factor
            1/√(1 + (k/k_c)^(2 order)) for every mode, k the modulus of its wave number. None: no filter.
        order: of the filter.
        salt: share of nodes that hold the least (half of them) or the greatest value of their field in the window.
        uneven: nodes are where the mesh has been moved by up to this share of the spacing, evenly drawn, along each
            axis; the values there (by trigonometric interpolation, exact) are brought back linearly.

    Source: the three kinds are those of PDEInvBench (2026), arXiv:2605.25353; their sizes are ours.
    """

    low_pass: Annotated[float, Range(above=0, high=1)] | None = None
    order: Count = 4
    salt: Annotated[float, Range(0, high=1)] = 0.0
    uneven: Annotated[float, Range(0, high=1)] = 0.0

    @property
    def none(self) -> bool:
        """Whether nothing is done."""
        return self.low_pass is None and not self.salt and not self.uneven


def degraded(fields: Tensor, of: Degradation, draw: Callable[..., Tensor]) -> Tensor:
    """Return fields as they come from a worse instrument.

    Args:
        fields: of runs on even periodic grids, (B, C, T, *X), float64; each X even.
        of: see :class:`Degradation`.
        draw: gives numbers evenly drawn from [0, 1), of a shape (B, ...).

    Raises:
        ShapeError: an odd number of nodes.
    """
    if of.low_pass is not None:
        fields = _low_pass(fields, of.low_pass, of.order)
    if of.salt:
        drawn = draw(*fields.shape)
        inner = tuple(range(2, fields.ndim))
        low, high = fields.amin(dim=inner, keepdim=True), fields.amax(dim=inner, keepdim=True)
        fields = torch.where(drawn < of.salt / 2, low, torch.where(drawn >= 1 - of.salt / 2, high, fields))
    if of.uneven:
        for axis in range(3, fields.ndim):
            moved = of.uneven * (draw(len(fields), fields.shape[axis]) - 0.5)
            values = torch.einsum("bij,bctj...->bcti...", _resampling(moved), fields.movedim(axis, 3))
            fields = values.movedim(3, axis)
    return fields


def _low_pass(fields: Tensor, cut_off: float, order: int) -> Tensor:
    axes = tuple(range(3, fields.ndim))
    square = torch.zeros(())
    for i, axis in enumerate(axes):
        n = fields.shape[axis]
        wave = torch.fft.rfftfreq(n, 1 / n) if axis == axes[-1] else torch.fft.fftfreq(n, 1 / n)
        share = (2 * wave / n).double()
        square = square + share.square().reshape([-1 if i == j else 1 for j in range(len(axes))])
    factor = (1 + (square.sqrt() / cut_off) ** (2 * order)).rsqrt()
    return torch.fft.irfftn(torch.fft.rfftn(fields, dim=axes) * factor, s=fields.shape[3:], dim=axes)


def _resampling(moved: Tensor) -> Tensor:
    """Return the matrices (B, n, n) to values at the even nodes, linear between nodes moved by shares (B, n)."""
    n = moved.shape[1]
    if n % 2:
        raise ShapeError(f"{n} nodes; expected an even number along an axis that is resampled.")
    node = torch.arange(n, dtype=moved.dtype)
    place = node + moved
    apart = math.pi * (place[:, :, None] - node) / n
    kernel = torch.sin(n * apart) / (n * torch.tan(apart))
    exact = torch.where(torch.sin(apart).abs() < 1e-12, torch.ones_like(kernel), kernel)
    left = torch.where(place <= node, node, node - 1)  # number of the moved node at the left of an even one
    before, after = left % n, (left + 1) % n
    start = place.gather(1, before.long()) + (left - before)
    end = place.gather(1, after.long()) + (left + 1 - after)
    share = ((node - start) / (end - start)).clamp(0, 1)
    rows = torch.arange(len(moved))[:, None]
    return exact[rows, before.long()] * (1 - share)[:, :, None] + exact[rows, after.long()] * share[:, :, None]


def despiked(fields: Tensor) -> Tensor:
    """Replace outliers by what the rest of the field says of their places.

    An outlier is further from the median of the five nodes around it (three by three where there are two axes) than
    five robust standard deviations of that distance, and than three quarters of the field's deviation: clean fields
    that their grid resolves well stay as they are. What is missing is filled in by the part of the field that stands
    out of noise (:func:`pdessl.inference.frame_shooting.smoothed`), again and again until the two agree.

    Args:
        fields: periodic, (B, C, T, *X), each X even.

    Source: Hampel (1974) for the rule; Papoulis (1975) and Gerchberg (1974) for the filling.
    """
    shifts = range(-2, 3) if fields.ndim == 4 else range(-1, 2)
    around = [fields]
    for axis in range(3, fields.ndim):
        around = [f.roll(s, dims=axis) for f in around for s in shifts]
    middle = torch.stack(around).median(dim=0).values
    off = (fields - middle).abs()
    flat = off.flatten(2)
    size = 1.4826 * flat.median(dim=2).values
    spread = _LEAST * fields.flatten(2).std(dim=2)
    bound = torch.maximum(_FAR * size, spread).reshape(*size.shape, *[1] * (fields.ndim - 2))
    missing = off > bound
    found = torch.where(missing, middle, fields)
    if not bool(missing.any()):
        return found
    for _ in range(_PASSES):
        found = torch.where(missing, smoothed(found)[0], found)
    return found
