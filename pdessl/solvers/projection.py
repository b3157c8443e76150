"""Projection onto divergence-free velocities in a closed box, by a direct solve with cosine transforms."""

# B batch, X, Y cells along the two axes

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdessl.solvers.cosine import CosineTransform
from pdessl.solvers.staggered import divergence, subtract_gradient

__all__ = ["BoxProjection"]


class BoxProjection:
    """Makes velocities on a staggered grid divergence-free, with walls that nothing passes.

        (u, v) - grad φ,    div grad φ = div (u, v),    normal velocity zero on the walls

    The five-point Laplacian with zero normal gradient is diagonal in the cosine basis, with eigenvalues
    (2 cos(π k / X) - 2) / hx² + (2 cos(π l / Y) - 2) / hy²: φ takes a transform there and back and a division, exact to
    round-off, with no iteration and no tolerance. The arithmetic is float64 whatever the dtype of the velocities: φ is
    larger than they are by the cells of the grid, and in float32 its round-off would leave a divergence a hundred times
    that of rounding the velocities.

    Args:
        points: cells X, Y.
        spacing: cell sizes hx, hy of each trajectory, shape (B, 2), float64, on the device of the velocities.
    """

    def __init__(self, points: tuple[int, int], spacing: Tensor) -> None:
        self._spacing = spacing
        self._x, self._y = (CosineTransform(n, torch.float64, spacing.device) for n in points)
        second = [
            2 * torch.cos(math.pi / n * torch.arange(n, dtype=torch.float64, device=spacing.device)) - 2 for n in points
        ]
        hx, hy = spacing.square().unbind(dim=1)
        eigenvalues = second[0] / hx[:, None, None] + second[1][:, None] / hy[:, None, None]
        eigenvalues[:, 0, 0] = math.inf  # the constant, which has no gradient, is left out
        self._inverse = 1 / eigenvalues  # y before x: the second transform leaves it so

    def potential(self, source: Tensor) -> Tensor:
        """Return φ of zero mean with div grad φ = source - mean(source), shape (B, X, Y)."""
        spectrum = self._x(self._y(source).transpose(-1, -2)) * self._inverse
        return self._y.inverse(self._x.inverse(spectrum).transpose(-1, -2))

    def __call__(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence-free part of face velocities (B, X, Y) that are zero on the lower walls."""
        dtype = u.dtype
        u, v = u.to(torch.float64), v.to(torch.float64)
        potential = self.potential(divergence(u, v, self._spacing))
        u, v = subtract_gradient(u, v, potential, self._spacing)
        return u.to(dtype), v.to(dtype)
