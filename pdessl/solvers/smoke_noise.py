"""Initial smoke between walls: the absolute value of very smooth noise."""

# B batch, J highest wave number, X, Y cells along the two axes

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.initial_conditions import InitialCondition

__all__ = ["SmokeNoise"]

# Modes below this are left out, k² in units of 1/scale².
LOWEST = 0.1


@dataclass(frozen=True)
class SmokeNoise(InitialCondition):
    """Fluid at rest with smoke |n|, n periodic noise of zero mean and unit variance with a steep spectrum.

        n(x) = Re Σ_j (a_j + i b_j) k_j^(-2 smoothness) exp(2πi (j_1 x / L_1 + j_2 y / L_2)),
        k_j = scale √((j_1/L_1)² + (j_2/L_2)²),    only k_j² > 0.1,    |j_1|, |j_2| <= highest

    a_j, b_j are independent standard normal numbers; n is divided by its standard deviation over the box. With the
    default smoothness 1/4000 of the variance is not in the four longest waves, so that n is close to
    A cos(2πx/L + φ) + B cos(2πy/L + ψ): a family of three parameters.

    Args:
        scale: > 0, length. It chooses which long waves are left out; those that remain do not depend on it.
        smoothness: > 0, half the exponent of the amplitude spectrum.
        highest: J, >= 1, highest wave number drawn along either axis.

    Source: the noise with which PDEArena's smoke begins (scale 11, smoothness 6 on a box of 32); Gupta, Brandstetter
        (2022), arXiv:2209.15616.
    """

    dimensions: ClassVar[int] = 2

    scale: float = 11.0
    smoothness: float = 6.0
    highest: int = 8

    def __post_init__(self) -> None:
        if not min(self.scale, self.smoothness) > 0 or self.highest < 1:
            raise SchemaError("SmokeNoise: scale and smoothness must be > 0, highest >= 1.")

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return a_j and b_j of one trajectory, shape (2, 2J + 1, 2J + 1), j from -J to J along both axes."""
        width = 2 * self.highest + 1
        return torch.from_numpy(stream.standard_normal((2, width, width)))

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Return u = 0, v = 0, s = |n| at cell centres, shape (B, 3, X, Y); see :meth:`InitialCondition.fields`."""
        if min(points) <= 2 * self.highest:
            raise SchemaError(
                f"SmokeNoise has wave numbers up to {self.highest}; {'x'.join(map(str, points))} cells hold those "
                f"below {min(points) / 2:g}. Use more cells, or highest: {(min(points) - 1) // 2}."
            )
        j = torch.arange(-self.highest, self.highest + 1, dtype=torch.float64, device=draws.device)
        frequency = j / lengths[:, :, None].to(draws.device)  # (B, 2, 2J + 1)
        square = self.scale**2 * (frequency[:, 0, :, None].square() + frequency[:, 1, None, :].square())
        weight = torch.where(square > LOWEST, square.clamp_min(LOWEST) ** -self.smoothness, 0.0)
        if not bool((weight > 0).flatten(1).any(dim=1).all()):
            longest = float(lengths.amax())
            raise SchemaError(
                f"SmokeNoise: on a box of {longest:.4g} all waves up to number {self.highest} are too long for scale "
                f"{self.scale:g}. Use highest >= {math.ceil(longest / self.scale)}, or a larger scale."
            )
        modes = torch.complex(draws[:, 0], draws[:, 1]) * weight
        # A real field has half the sum of a mode and the conjugate of its opposite.
        modes = 0.5 * (modes + modes.flip(1, 2).conj())
        modes = modes / modes.abs().square().sum(dim=(1, 2), keepdim=True).sqrt()
        waves = []
        for count in points:
            centre = (torch.arange(count, dtype=torch.float64, device=draws.device) + 0.5) * (2 * math.pi / count)
            waves.append(torch.exp(1j * j[:, None] * centre))
        smoke = (waves[0].T @ modes @ waves[1]).real.abs()
        rest = torch.zeros_like(smoke)
        return torch.stack([rest, rest, smoke], dim=1)
