"""Derivatives of fields in space, as channels for a network."""

# B batch, C channels, X space (d axes), n orders

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.errors import SchemaError, ShapeError

__all__ = ["slopes"]

_KEPT = 2 / 3  # of the waves that a grid holds: what is above is mostly noise, which every derivative makes larger


def slopes(fields: Tensor, orders: int, periodic: Sequence[bool]) -> Tensor:
    """Return derivatives of orders 1 ... n along every axis, with respect to x/L, L the extent of the axis.

        periodic: F⁻¹ (2πi k)^m F u, k whole, of waves below 2/3 of the highest    walled: centred differences, m times

    Measured in extents of the axis they are those of the same field on any grid.

    Args:
        fields: (B, C, *X).
        orders: n, >= 1.
        periodic: per space axis, whether it is periodic; others have their nodes in the middle of cells.

    Shapes:
        (B, C, *X) -> (B, C, n · d, *X), all orders of the first axis first.

    Raises:
        SchemaError: n < 1.
        ShapeError: as many axes as ``periodic`` does not have, or a walled axis of fewer than 3 nodes.
    """
    if orders < 1:
        raise SchemaError(f"slopes got orders {orders}; expected 1 or more.")
    walled = [n for n, wraps in zip(fields.shape[2:], periodic, strict=False) if not wraps]
    if fields.ndim != 2 + len(periodic) or min(walled, default=3) < 3:
        raise ShapeError(
            f"slopes got fields {tuple(fields.shape)}; expected (B, C, *X) with {len(periodic)} space axes, walled "
            "ones of 3 nodes or more."
        )
    found = []
    for dim, wraps in enumerate(periodic, start=2):
        found += (_waves if wraps else _differences)(fields, dim, orders)
    return torch.stack(found, dim=2)


def _waves(fields: Tensor, dim: int, orders: int) -> list[Tensor]:
    n = fields.shape[dim]
    shape = [1] * fields.ndim
    shape[dim] = n // 2 + 1
    k = torch.arange(n // 2 + 1, device=fields.device, dtype=torch.float64)
    symbol = 2j * math.pi * k * (2 * k <= _KEPT * n)
    # Not in half precision, which has no transforms of every size.
    modes = torch.fft.rfft(fields.to(torch.promote_types(fields.dtype, torch.float32)), dim=dim)
    parts = []
    for m in range(1, orders + 1):
        moved = torch.fft.irfft(modes * (symbol**m).reshape(shape).to(modes.dtype), n=n, dim=dim)
        parts.append(moved.to(fields.dtype))
    return parts


def _differences(fields: Tensor, dim: int, orders: int) -> list[Tensor]:
    parts: list[Tensor] = []
    for _ in range(orders):
        (moved,) = torch.gradient(parts[-1] if parts else fields, spacing=1 / fields.shape[dim], dim=dim)
        parts.append(moved)
    return parts
