"""Test functions: smooth bumps on a grid, their derivatives, and the matrices that integrate against them."""

# B runs, C fields, T frames, X nodes (one axis per dimension)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.trajectory import Trajectories

__all__ = ["Windows", "bump", "sliding", "spacing"]


def bump(half_width: int, power: int, order: int) -> Tensor:
    """Return (-1)^r φ^(r) at the nodes j = -h..h in grid units, φ(j) = (1 - s²)^q with s = j/(h + 1), divided by Σφ.

    Args:
        half_width: h >= 1, nodes.
        power: q > r.
        order: r >= 0.

    Returns:
        (2h + 1,), float64. Integrating monomials to degree r by parts is exact as a sum over nodes too.

    Source: test functions of Messenger and Bortz (2021), arXiv:2007.02848.
    """
    s = np.arange(-half_width, half_width + 1, dtype=np.float64) / (half_width + 1)
    phi = np.polynomial.Polynomial([1, 0, -1]) ** power
    values = phi(s)
    if not order:
        return torch.from_numpy(values / values.sum())
    slope = (-1) ** order * phi.deriv(order)(s)
    powers = s[None] ** np.arange(order + 1)[:, None]  # (order + 1, nodes)
    wanted = np.zeros(order + 1)
    wanted[order] = np.prod(np.arange(1, order + 1)) * values.sum()
    # Sums over nodes are not quite integrals: a multiple of φ by a polynomial mends all moments to this order.
    mended = slope + np.linalg.solve((powers * values) @ powers.T, wanted - powers @ slope) @ (powers * values)
    return torch.from_numpy(mended / (values.sum() * (half_width + 1) ** order))


def sliding(weights: Tensor, size: int, wraps: bool) -> Tensor:
    """Return the matrix (positions, size) that sums nodes with weights (taps,) from every node on.

    Positions are those whose taps all lie on the axis: size - taps + 1, or all nodes where it wraps round.
    """
    taps = len(weights)
    rows = size if wraps else size - taps + 1
    columns = torch.arange(rows)[:, None] + torch.arange(taps)
    return weights.new_zeros(rows, size).scatter_add(1, columns % size, weights.expand(rows, -1))


class Windows:
    """Matrices that integrate against the test function along each axis, for one grid size.

    Args:
        runs: give sizes, boundaries and device.
        half_width: of the test function, frames and nodes along each axis, >= 1.
        power: q of the test function, above the highest order.
        stride: positions of the test function are this many frames and nodes apart.
        high_pass: waves along periodic axes whose numbers are all below it are taken out of what is integrated.

    Raises:
        ShapeError: windows that do not fit the grid, or a high pass where no axis is periodic.
    """

    def __init__(
        self,
        runs: Trajectories,
        half_width: Sequence[int],
        power: int,
        stride: Sequence[int] | None = None,
        high_pass: int = 0,
    ) -> None:
        sizes, periodic = runs.fields.shape[2:], (False, *(b == "periodic" for b in runs.boundary))
        if len(half_width) != len(sizes) or any(
            2 * h + 1 > n or h < 1 for h, n in zip(half_width, sizes, strict=False)
        ):
            raise ShapeError(
                f"test functions of half width {tuple(half_width)} do not fit {tuple(sizes)} frames and nodes; "
                f"expected {len(sizes)} numbers from 1 to half the grid. Give longer runs, or smaller half widths."
            )
        if high_pass and not any(periodic):
            raise ShapeError(f"high_pass {high_pass} takes out waves, but no axis is periodic; expected 0.")
        self.half, self.power, self.sizes, self.periodic = tuple(half_width), power, tuple(sizes), periodic
        self.stride = tuple(stride) if stride is not None else (1,) * len(sizes)
        self.high_pass, self.device = high_pass, runs.device
        self._made: dict[tuple[int, int, bool], Tensor] = {}

    def matrix(self, axis: int, order: int, low: bool = False) -> Tensor:
        """Return (positions, nodes); ``low``: only the waves below the high pass, along a periodic axis."""
        if (axis, order, low) not in self._made:
            n = self.sizes[axis]
            found = sliding(bump(self.half[axis], self.power, order), n, self.periodic[axis])
            if low and self.periodic[axis]:
                waves = torch.fft.rfft(found, dim=1)
                waves[:, self.high_pass :] = 0
                found = torch.fft.irfft(waves, n=n, dim=1)
            self._made[axis, order, low] = found[:: self.stride[axis]].to(self.device)
        return self._made[axis, order, low]

    def along(self, values: Tensor, axis: int, order: int, low: bool = False) -> Tensor:
        """Integrate values (B, T, *X) along one axis."""
        matrix = self.matrix(axis, order, low)
        return torch.movedim(torch.movedim(values, 1 + axis, -1) @ matrix.T, -1, 1 + axis)

    def overlap(self, axis: int, first: int, second: int, low: bool = False, made: Tensor | None = None) -> float:
        """Return the sum over nodes of the products of two derivatives of the test function.

        Args:
            axis: 0 for time.
            first: order of the one derivative.
            second: of the other.
            low: of the waves below the high pass alone.
            made: (nodes, n), what makes the nodes of fewer (:func:`pdessl.operators.refinement.interpolation`): the
                sum is over those, the mean over positions of the function, which lie on and between them.
        """
        one, other = (self.matrix(axis, order, low) for order in (first, second))
        if made is None:
            return float(one[0] @ other[0])
        count = made.shape[0] // made.shape[1]
        return float(((one[:count] @ made) * (other[:count] @ made)).sum(dim=1).mean())


def spacing(runs: Trajectories) -> Tensor:
    """Return time step and grid spacings, (B, 1 + d), float64.

    Raises:
        DataError: frames that are not equally spaced.
    """
    steps = runs.time.double().diff(dim=1)
    if not torch.allclose(steps, steps[:, :1].expand_as(steps), rtol=1e-4, atol=0.0):
        raise DataError(
            "the frames are not equally spaced in time, which the test functions need. Interpolate them first, e.g. "
            "dataset.interp(time=numpy.linspace(start, end, frames))."
        )
    points = torch.tensor(runs.fields.shape[3:], dtype=torch.float64, device=runs.device)
    periodic = torch.tensor([b == "periodic" for b in runs.boundary], device=runs.device)
    space = torch.where(periodic, runs.lengths.double() / points, runs.grid_spacing.double())
    return torch.cat([runs.time_step.double()[:, None], space], dim=1)
