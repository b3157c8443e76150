"""Projection onto divergence-free velocities in a closed box, by a direct solve in the cosine basis."""

# B batch, X, Y cells along the two axes

from __future__ import annotations

import math

import torch
from torch import Tensor

from pdessl.solvers.staggered import divergence, subtract_gradient

__all__ = ["BoxProjection", "cosine_basis"]


def cosine_basis(points: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the orthonormal basis of the discrete cosine transform (DCT-II), shape (points, points), float64.

    Row k is c_k cos(π k (i + 1/2) / points), c_0 = √(1/points), c_k = √(2/points): the eigenvectors of the second
    difference on cell centres with zero gradient at both ends, of eigenvalue 2 cos(π k / points) - 2.
    """
    i = torch.arange(points, dtype=torch.float64, device=device)
    basis = torch.cos(math.pi / points * i[:, None] * (i + 0.5)) * math.sqrt(2 / points)
    basis[0] = math.sqrt(1 / points)
    return basis


class BoxProjection:
    """Makes velocities on a staggered grid divergence-free, with walls that nothing passes.

        (u, v) - grad φ,    div grad φ = div (u, v),    normal velocity zero on the walls

    The five-point Laplacian with zero normal gradient is diagonal in the cosine basis, so that φ takes four products
    with dense matrices (two transforms, there and back) and a division: exact to round-off, with no iteration and no
    tolerance. Up to about 512 points per axis these products cost less than fast transforms of the same fields. They
    are float64 whatever the dtype of the velocities: products of float32 would leave a divergence a hundred times
    larger, and some graphics cards shorten them further to 10 bits.

    Args:
        points: cells X, Y.
        spacing: cell sizes hx, hy of each trajectory, shape (B, 2), on the device of the velocities.
    """

    def __init__(self, points: tuple[int, int], spacing: Tensor) -> None:
        self.spacing = spacing.to(torch.float64)
        self._x, self._y = (cosine_basis(n, spacing.device) for n in points)
        second = [
            2 * torch.cos(math.pi / n * torch.arange(n, dtype=torch.float64, device=spacing.device)) - 2 for n in points
        ]
        hx, hy = self.spacing.square().unbind(dim=1)
        eigenvalues = second[0][:, None] / hx[:, None, None] + second[1] / hy[:, None, None]
        eigenvalues[:, 0, 0] = math.inf  # the constant, which has no gradient, is left out
        self._inverse = 1 / eigenvalues

    def potential(self, source: Tensor) -> Tensor:
        """Return φ of zero mean with div grad φ = source - mean(source), shape (B, X, Y), float64."""
        spectrum = self._x @ source.to(torch.float64) @ self._y.T
        return self._x.T @ (spectrum * self._inverse) @ self._y

    def __call__(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the divergence-free part of face velocities (B, X, Y) that are zero on the lower walls."""
        spacing = self.spacing.to(u.dtype)
        potential = self.potential(divergence(u, v, spacing)).to(u.dtype)
        return subtract_gradient(u, v, potential, spacing)
