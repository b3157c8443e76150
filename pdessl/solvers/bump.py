"""One Gaussian bump on a periodic interval."""

# B batch, X grid points, K Fourier modes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.initial_conditions import InitialCondition, fourier_series
from pdessl.solvers.pseudo_spectral import kept_modes

__all__ = ["Bump"]


@dataclass(frozen=True)
class Bump(InitialCondition):
    """A Gaussian bump, with its periodic images, at a random place.

        u = h Σ_n exp(-(x - x_0 + n L)²/(2 w²)),    x_0/L uniform in [places[0], places[1]]

    Args:
        height: h, unit of u.
        width: w/L, > 0 and <= 0.25.
        places: lowest and highest x_0/L, 0 <= low <= high <= 1.
    """

    height: float = 1.0
    width: float = 0.06
    places: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.places) != 2 or not 0 <= self.places[0] <= self.places[1] <= 1 or not 0 < self.width <= 0.25:
            raise SchemaError(
                f"Bump: width {self.width} and places {list(self.places)}; expected a width in (0, 0.25] and places "
                "[low, high] with 0 <= low <= high <= 1, all in parts of the domain's length."
            )

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw x_0/L, shape (1,)."""
        return torch.tensor([stream.uniform(self.places[0], self.places[1])], dtype=torch.float64)

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate places (B, 1) on a grid; see :meth:`InitialCondition.fields`.

        Raises:
            SchemaError: a grid with fewer than three nodes in a width, which does not hold the bump.
        """
        count = points[0]
        if self.width * count < 2.5:
            raise SchemaError(
                f"Bump: {count} points do not hold a bump of width {self.width} L; expected "
                f"{math.ceil(2.5 / self.width)} or more."
            )
        k = 2 * math.pi * torch.arange(kept_modes(count), dtype=torch.float64, device=draws.device)
        # Fourier coefficients of the sum over images; the series has each of them twice but for the mean.
        size = self.height * self.width * math.sqrt(2 * math.pi) * torch.exp(-0.5 * (k * self.width) ** 2)
        size[1:] *= 2
        return fourier_series(torch.polar(size.expand(len(draws), -1), -k * draws), count)[:, None]
