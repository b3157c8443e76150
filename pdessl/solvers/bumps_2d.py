"""Smooth bumps on periodic rectangles: vortices, smoke, drops of water, patches of a reagent."""

# B batch, C components of the state, X Y grid points, K J kept modes, N bumps

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.incompressible_2d import FlowOperators
from pdessl.solvers.series_2d import Series2D
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["ReactionPatches", "SmokeBlobs", "VortexPair", "Vortices", "WaterDrops"]

BUMP_TAIL = 5.25  # k r at which the spectrum of a bump has fallen to 1e-3 of its top


def _bump_modes(grid: SpectralGrid, lengths: Tensor, centres: Tensor, radii: Tensor, heights: Tensor) -> Tensor:
    """Return the amplitudes (B, 1, K, J) of Σ_n a_n exp(-|x - x_n|² / r_n²), periodic.

    Args:
        grid: the modes' grid.
        lengths: domain lengths, shape (B, 2).
        centres: x_n as parts of the domain lengths, shape (B, N, 2).
        radii: r_n, shape (B, N), length.
        heights: a_n, shape (B, N).
    """
    kx, ky = grid.kx[:, :, :, 0], grid.ky[:, :, 0]
    place = centres * lengths[:, None]
    factors = []
    for axis, k in enumerate((kx, ky)):
        exponent = torch.complex(-((radii[..., None] * k) ** 2) / 4, -k * place[..., axis, None])
        factors.append(torch.exp(exponent))
    strength = heights * math.pi * radii**2 / lengths.prod(dim=1)[:, None]
    return torch.einsum("bn,bnk,bnj->bkj", strength.to(factors[0].dtype), *factors)[:, None]


@dataclass(frozen=True)
class _Bumps(Series2D):
    """What families of Gaussian bumps share: places and radii."""

    number: int = 8
    radius: Sequence[float] = (0.04, 0.1)

    def __post_init__(self) -> None:
        self._check_range("radius", self.radius, 0.0)
        if self.number < 1 or not self.radius[1] <= 0.5:
            raise SchemaError(f"{type(self).__name__}: number must be >= 1 and radius at most half a side.")

    def _check_range(self, name: str, value: Sequence[float], above: float = -math.inf) -> None:
        if len(value) != 2 or not above < value[0] <= value[1]:
            limit = f"{above:g} < " if math.isfinite(above) else ""
            raise SchemaError(
                f"{type(self).__name__}: {name} must be [low, high] with {limit}low <= high, found {list(value)}."
            )

    @property
    def highest(self) -> int:
        """Wave number at which the spectrum of the narrowest bump has fallen to 1e-3."""
        return math.ceil(BUMP_TAIL / (2 * math.pi * self.radius[0]))

    def _draw(self, stream: np.random.Generator, height: Sequence[float]) -> Tensor:
        """Return columns centre x, centre y, radius (part of the longest side), height; shape (N, 4)."""
        centres = stream.uniform(0.0, 1.0, (self.number, 2))
        radii = stream.uniform(self.radius[0], self.radius[1], self.number)
        heights = stream.uniform(height[0], height[1], self.number)
        return torch.from_numpy(np.column_stack([centres, radii, heights]))

    @staticmethod
    def _sum(draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        radii = draws[..., 2] * lengths.amax(dim=1)[:, None]
        return _bump_modes(grid, lengths, draws[..., :2], radii, draws[..., 3])


@dataclass(frozen=True)
class Vortices(_Bumps):
    """Velocity (u, v) of Gaussian vortices at random places, of random sign.

        w = Σ_n ± a_n exp(-|x - x_n|² / r_n²) - mean

    Args:
        number: N, >= 1.
        radius: [low, high] of r_n, as parts of the longest side, 0 < low <= high <= 1/2; uniform.
        vorticity: [low, high] of a_n, 1/time; uniform.
        like_sign: all turn the same way.
    """

    vorticity: Sequence[float] = (4.0, 8.0)
    like_sign: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("vorticity", self.vorticity)

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw places, radii and signed heights, shape (N, 4)."""
        numbers = self._draw(stream, self.vorticity)
        if not self.like_sign:
            numbers[:, 3] *= torch.from_numpy(stream.choice([-1.0, 1.0], self.number))
        return numbers

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of (u, v)."""
        return FlowOperators(grid).velocity * self._sum(draws, grid, lengths)


@dataclass(frozen=True)
class VortexPair(Series2D):
    """Velocity (u, v) of two equal Gaussian vortices, at a random place and angle.

        w = a exp(-|x - x₁|² / r²) ± a exp(-|x - x₂|² / r²) - mean

    Two of like sign turn around each other and, nearer than about 3.5 radii, merge; two of opposite sign travel.

    Args:
        separation: |x₁ - x₂| as a part of the longest side, > 0.
        radius: r as a part of the longest side, 0 < r <= 1/2.
        vorticity: a, 1/time.
        like_sign: whether both turn the same way.
    """

    separation: float = 0.2
    radius: float = 0.07
    vorticity: float = 10.0
    like_sign: bool = True

    def __post_init__(self) -> None:
        if not (self.separation > 0 and 0 < self.radius <= 0.5):
            raise SchemaError("VortexPair: separation and radius must be > 0, the radius at most half a side.")

    @property
    def highest(self) -> int:
        """Wave number at which the spectrum of a vortex has fallen to 1e-3."""
        return math.ceil(BUMP_TAIL / (2 * math.pi * self.radius))

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw the middle (parts of the sides) and the angle, shape (3,)."""
        return torch.from_numpy(np.array([*stream.uniform(0.0, 1.0, 2), stream.uniform(0.0, 2 * math.pi)]))

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of (u, v)."""
        side = lengths.amax(dim=1)
        half = 0.5 * self.separation * side[:, None] * torch.stack([draws[:, 2].cos(), draws[:, 2].sin()], dim=1)
        offset = half / lengths
        centres = torch.stack([draws[:, :2] - offset, draws[:, :2] + offset], dim=1)
        heights = draws.new_tensor([self.vorticity, self.vorticity if self.like_sign else -self.vorticity])
        radii = (self.radius * side)[:, None].expand(-1, 2)
        vorticity = _bump_modes(grid, lengths, centres, radii, heights.expand(len(draws), -1))
        return FlowOperators(grid).velocity * vorticity


@dataclass(frozen=True)
class SmokeBlobs(_Bumps):
    """Blobs of smoke in a fluid at rest: (u, v, s) with u = v = 0.

        s = Σ_n a_n exp(-|x - x_n|² / r_n²)

    Args:
        number: N, >= 1.
        radius: [low, high] of r_n, as parts of the longest side, 0 < low <= high <= 1/2; uniform.
        density: [low, high] of a_n, unit of s; uniform.
    """

    density: Sequence[float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("density", self.density)

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw places, radii and heights, shape (N, 4)."""
        return self._draw(stream, self.density)

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of (u, v, s)."""
        scalar = self._sum(draws, grid, lengths)
        return torch.cat([torch.zeros_like(scalar), torch.zeros_like(scalar), scalar], dim=1)


@dataclass(frozen=True)
class WaterDrops(_Bumps):
    """Humps on water at rest: (u, v, h) with u = v = 0.

        h = depth + Σ_n a_n exp(-|x - x_n|² / r_n²)

    Args:
        number: N, >= 1.
        radius: [low, high] of r_n, as parts of the longest side, 0 < low <= high <= 1/2; uniform.
        height: [low, high] of a_n, length; uniform. N times the lowest must leave the depth positive.
        depth: > 0, length.
    """

    number: int = 3
    height: Sequence[float] = (-0.05, 0.1)
    depth: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("height", self.height)
        if not self.depth + self.number * min(self.height[0], 0.0) > 0:
            raise SchemaError("WaterDrops: depth + number * lowest height must be > 0.")

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw places, radii and heights, shape (N, 4)."""
        return self._draw(stream, self.height)

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of (u, v, h)."""
        humps = self._sum(draws, grid, lengths)
        humps[:, 0, 0, 0] += self.depth
        return torch.cat([torch.zeros_like(humps), torch.zeros_like(humps), humps], dim=1)


@dataclass(frozen=True)
class ReactionPatches(_Bumps):
    """Patches of activator in a fed reactor: (u, v) of the Gray-Scott model.

        m = 1 - exp(-Σ_n a_n exp(-|x - x_n|² / r_n²)),    u = 1 - m,    v = m / 2

    However many patches overlap, 0 <= m < 1.

    Args:
        number: N, >= 1.
        radius: [low, high] of r_n, as parts of the longest side, 0 < low <= high <= 1/2; uniform.
        amount: [low, high] of a_n, 0 < low <= high; uniform. 0.69 gives u = 1/2, v = 1/4, Pearson's values.

    Source: Pearson, Science 261 (1993), with smooth instead of square patches.
    """

    number: int = 12
    amount: Sequence[float] = (0.6, 0.8)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_range("amount", self.amount, 0.0)

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw places, radii and heights, shape (N, 4)."""
        return self._draw(stream, self.amount)

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate draws on a grid; see :meth:`InitialCondition.fields`."""
        total = super().fields(draws, points, lengths)
        return torch.cat([torch.exp(-total), -0.5 * torch.expm1(-total)], dim=1)

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of the sum of the bumps."""
        return self._sum(draws, grid, lengths)
