"""Finite differences and averages on the staggered (MAC) grid of a closed two-dimensional box."""

# B batch, X, Y cells along the two axes. A scalar lives at cell centres ((i + 1/2) hx, (j + 1/2) hy), u on the lower x
# faces (i hx, (j + 1/2) hy), v on the lower y faces ((i + 1/2) hx, j hy). All have shape (B, X, Y): the upper walls,
# where the normal velocity is zero as on the lower ones, are not stored.

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["close", "divergence", "laplacian", "subtract_gradient", "to_centres", "to_faces"]

# Arguments of torch's pad: one layer of zeros below or above the x axis (-2) or the y axis (-1).
BELOW = {-2: (0, 0, 1, 0), -1: (1, 0)}
ABOVE = {-2: (0, 0, 0, 1), -1: (0, 1)}


def _cells(field: Tensor, axis: int, start: int | None, stop: int | None) -> Tensor:
    return field[..., start:stop, :] if axis == -2 else field[..., start:stop]


def _upper(field: Tensor, axis: int) -> Tensor:
    """Return the value on the upper face of each cell from those on the lower faces; zero on the upper wall."""
    return pad(_cells(field, axis, 1, None), ABOVE[axis])


def close(face: Tensor, axis: int) -> Tensor:
    """Return a face field with its values on the lower wall of its axis (-2 or -1) set to zero."""
    return pad(_cells(face, axis, 1, None), BELOW[axis])


def to_centres(face: Tensor, axis: int) -> Tensor:
    """Return the mean of the two faces of each cell."""
    return 0.5 * (face + _upper(face, axis))


def to_faces(centre: Tensor, axis: int) -> Tensor:
    """Return the mean of the two cells at each lower face; zero on the wall."""
    return pad(0.5 * (_cells(centre, axis, 1, None) + _cells(centre, axis, None, -1)), BELOW[axis])


def divergence(u: Tensor, v: Tensor, spacing: Tensor) -> Tensor:
    """Return (u_upper - u_lower) / hx + (v_upper - v_lower) / hy of each cell.

    Args:
        u: velocity along x on lower x faces (B, X, Y), zero on the lower wall.
        v: velocity along y on lower y faces (B, X, Y), zero on the lower wall.
        spacing: hx, hy, shape (B, 2).
    """
    hx, hy = spacing[:, 0, None, None], spacing[:, 1, None, None]
    return (_upper(u, -2) - u) / hx + (_upper(v, -1) - v) / hy


def subtract_gradient(u: Tensor, v: Tensor, potential: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
    """Return (u, v) - grad φ on the inner faces and zero on the lower walls.

    Args:
        u: velocity along x on lower x faces (B, X, Y).
        v: velocity along y on lower y faces (B, X, Y).
        potential: φ at cell centres (B, X, Y).
        spacing: hx, hy, shape (B, 2).
    """
    hx, hy = spacing[:, 0, None, None], spacing[:, 1, None, None]
    u = u[:, 1:] - (potential[:, 1:] - potential[:, :-1]) / hx
    v = v[..., 1:] - (potential[..., 1:] - potential[..., :-1]) / hy
    return pad(u, BELOW[-2]), pad(v, BELOW[-1])


def laplacian(face: Tensor, axis: int, spacing: Tensor, ghost: float) -> Tensor:
    """Return the five-point Laplacian of a face velocity, zero on the lower wall.

    Args:
        face: velocity along ``axis`` on its lower faces (B, X, Y), zero on the lower wall.
        axis: -2 for u, -1 for v.
        spacing: hx, hy, shape (B, 2).
        ghost: value half a cell outside a wall along which the velocity flows, in units of the value half a cell
            inside: -1 makes the velocity vanish on the wall, 0 half a cell behind it.
    """
    other = -3 - axis
    h = {-2: spacing[:, 0, None, None], -1: spacing[:, 1, None, None]}
    along = pad(_cells(face, axis, None, -1), BELOW[axis]) + _upper(face, axis) - 2 * face
    edges = (ghost * _cells(face, other, None, 1), ghost * _cells(face, other, -1, None))
    framed = torch.cat([edges[0], face, edges[1]], dim=other)
    across = _cells(framed, other, None, -2) + _cells(framed, other, 2, None) - 2 * face
    return close(along / h[axis].square() + across / h[other].square(), axis)
