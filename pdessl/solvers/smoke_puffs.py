"""Initial smoke between walls: a few round puffs in a part of the box."""

# B batch, N puffs, X, Y cells along the two axes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.initial_conditions import InitialCondition

__all__ = ["SmokePuffs"]


@dataclass(frozen=True)
class SmokePuffs(InitialCondition):
    """Fluid at rest with round puffs of smoke.

        s(x) = Σ_n exp(-|x - x_n|²/r²),    u = v = 0

    x_n uniform in a part of the box. Cut off by the walls, without images behind them.

    Args:
        number: N, >= 1.
        radius: r, as part of the longer side, 0 < r <= 1/2; over 2 cells, or the grid makes it another.
        x, y: [low, high] of the centres along each axis, as parts of the sides, 0 <= low <= high <= 1.
    """

    dimensions: ClassVar[int] = 2

    number: int = 1
    radius: float = 0.1
    x: Sequence[float] = (0.0, 1.0)
    y: Sequence[float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.number < 1 or not 0 < self.radius <= 0.5:
            raise SchemaError(
                f"SmokePuffs: number {self.number}, radius {self.radius}; expected number >= 1 and 0 < radius <= 1/2."
            )
        for name, part in (("x", self.x), ("y", self.y)):
            if len(part) != 2 or not 0 <= part[0] <= part[1] <= 1:
                raise SchemaError(
                    f"SmokePuffs: {name} must be [low, high] with 0 <= low <= high <= 1, found {list(part)}."
                )

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return the centres of one trajectory, as parts of the sides, shape (N, 2)."""
        low, high = np.array([self.x, self.y], dtype=np.float64).T
        return torch.from_numpy(stream.uniform(low, high, (self.number, 2)))

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Return u = 0, v = 0, s at cell centres, shape (B, 3, X, Y); see :meth:`InitialCondition.fields`."""
        size = self.radius * lengths.amax(dim=1)[:, None, None]
        bumps = []
        for axis, count in enumerate(points):
            nodes = (torch.arange(count, dtype=torch.float64, device=draws.device) + 0.5) / count
            distance = lengths[:, axis, None, None].to(draws) * (nodes - draws[..., axis : axis + 1])
            bumps.append(torch.exp(-(distance / size.to(draws)).square()))  # (B, N, X or Y)
        smoke = torch.einsum("bnx,bny->bxy", *bumps)
        return torch.stack([torch.zeros_like(smoke), torch.zeros_like(smoke), smoke], dim=1)
