"""Initial fields on periodic rectangles given by their Fourier amplitudes, and the exact one of Taylor and Green."""

# B batch, C components of the state, X Y grid points, K J kept modes

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.initial_conditions import InitialCondition
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["Series2D", "TaylorGreen"]


class Series2D(InitialCondition):
    """Fields given by their Fourier amplitudes: the same function on every grid that holds its modes."""

    dimensions: ClassVar[int] = 2

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate draws on a grid; see :meth:`InitialCondition.fields`."""
        grid = SpectralGrid.build(lengths.to(torch.float64), points)
        if self.highest is not None and 3 * self.highest >= min(points):
            raise SchemaError(
                f"initial condition has wave numbers up to {self.highest}; a grid of {'x'.join(map(str, points))} "
                f"points keeps those below {min(points) / 3:.0f}."
            )
        return grid.to_fields(self.modes(draws, grid, lengths))

    @abstractmethod
    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of the state, shape (B, C, K, J)."""


@dataclass(frozen=True)
class TaylorGreen(Series2D):
    """Cells of alternating sense of rotation: (u, v) of an exact solution that keeps its shape and decays.

        u = U cos(k_x x) sin(k_y y) k_y / k,    v = -U sin(k_x x) cos(k_y y) k_x / k,    k² = k_x² + k_y²

    with k_x = 2π n_x / L_x, k_y = 2π n_y / L_y. Every draw is the same; what varies between trajectories are the
    parameters and lengths.

    Args:
        speed: U, length/time.
        waves: (n_x, n_y), >= 1.

    Source: Taylor, Green, Proc. R. Soc. A 158 (1937).
    """

    speed: float = 1.0
    waves: Sequence[int] = (1, 1)

    def __post_init__(self) -> None:
        if len(self.waves) != 2 or min(self.waves) < 1:
            raise SchemaError(f"TaylorGreen: waves must be two numbers >= 1, found {list(self.waves)}.")

    @property
    def highest(self) -> int:
        """Highest wave number."""
        return max(self.waves)

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return one zero: nothing is random."""
        return torch.zeros(1, dtype=torch.float64)

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of (u, v)."""
        nx, ny = self.waves
        kx, ky = grid.kx[:, 0, nx, 0], grid.ky[:, 0, 0, ny]
        k = torch.sqrt(kx**2 + ky**2)
        modes = torch.zeros(len(draws), 2, *grid.shape, dtype=torch.complex128, device=draws.device)
        for sign in (1, -1):
            # cos a sin b and sin a cos b, each the real part of two waves exp(i (± a + b)) / 2i and so on
            modes[:, 0, sign * nx, ny] = -0.25j * self.speed * ky / k
            modes[:, 1, sign * nx, ny] = 0.25j * sign * self.speed * kx / k
        return modes
