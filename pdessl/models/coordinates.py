"""Where in its view a node lies, as channels beside the fields."""

# B batch, C channels, grid: time and space axes, or space axes alone

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["append_coordinates", "coordinate_channels"]


def coordinate_channels(periodic: Sequence[bool]) -> int:
    """Return how many channels :func:`append_coordinates` adds: two for a periodic axis, one for another."""
    return sum(2 if wraps else 1 for wraps in periodic)


def append_coordinates(x: Tensor, periodic: Sequence[bool]) -> Tensor:
    """Return x (B, C, *grid) with the place of each node on each axis as further channels.

    On a periodic axis of N nodes cos(2πj/N) and sin(2πj/N), which have no seam; on another (2j + 1)/N - 1, between -1
    and 1, where node j of a coarser grid has the mean of those it covers. Places are those in the view, not in the
    trajectory that it was cut from.

    Args:
        x: values on a grid.
        periodic: for each axis of the grid, whether it closes on itself.
    """
    channels = []
    for axis, wraps in enumerate(periodic, start=2):
        size = x.shape[axis]
        j = torch.arange(size, dtype=torch.float32, device=x.device)
        angle = j * (2 * math.pi / size)
        values = [angle.cos(), angle.sin()] if wraps else [(2 * j + 1) / size - 1]
        shape = [size if k == axis else 1 for k in range(x.ndim)]
        channels += [v.to(x.dtype).view(shape).expand(len(x), 1, *x.shape[2:]) for v in values]
    return torch.cat([x, *channels], dim=1)
