"""Fans in the walls of a box, whose strength nobody sees: a source term for smoke in the plane."""

# B batch, S intervals, X, Y cells

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError, ShapeError
from pdessl.solvers.forcing import Actuators

__all__ = ["RandomFan"]

_WALLS = {"left": (0, 1.0), "right": (0, -1.0), "lower": (1, 1.0), "upper": (1, -1.0)}  # axis, and the way inwards


@dataclass(frozen=True)
class RandomFan:
    """Family of forces with no memory on a flow (u, v, s) in a box: a fan in a wall, of new strength in every interval.

        f(t, x, y) = a(t) exp(-d/depth) exp(-(r - place)²/(2 width²)) along the inward normal of the wall

    d is the distance from the wall and r the place along it, both in shares of the length of the box. a is normal with
    the given mean and deviation, independent between intervals and held within one: nothing that was seen tells what it
    does in the next. Smoke itself has no source.

    Args:
        amplitude: deviation of a, >= 0, length/time².
        interval: > 0, time over which a strength is held, best the step between frames.
        duration: time that is covered, from 0; the last strength holds afterwards.
        wall: ``left`` (x = 0), ``right``, ``lower`` (y = 0) or ``upper``.
        place: of the middle of the fan along the wall, in (0, 1).
        width: of the fan, > 0, a share of the wall; not below a cell.
        depth: how far it reaches into the box, > 0, likewise.
        mean: of a, length/time²; 0: it sucks as often as it blows.

    Raises:
        SchemaError: numbers out of range, or an unknown wall.
    """

    dimensions: ClassVar[int] = 2
    fields: ClassVar[tuple[str, ...] | None] = ("u", "v", "s")

    amplitude: float
    interval: float
    duration: float
    wall: str = "left"
    place: float = 0.5
    width: float = 0.1
    depth: float = 0.2
    mean: float = 0.0

    def __post_init__(self) -> None:
        if self.amplitude < 0 or not 0 < self.interval <= self.duration:
            raise SchemaError(
                f"RandomFan: amplitude {self.amplitude}, interval {self.interval}, duration {self.duration}; expected "
                "an amplitude >= 0 and 0 < interval <= duration."
            )
        if self.wall not in _WALLS:
            raise SchemaError(f"RandomFan: unknown wall '{self.wall}'. Known: {', '.join(_WALLS)}.")
        if not 0 < self.place < 1 or not min(self.width, self.depth) > 0:
            raise SchemaError(
                f"RandomFan: place {self.place}, width {self.width}, depth {self.depth}; expected a place between 0 "
                "and 1, and shares > 0."
            )

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return a of one trajectory, shape (1, S), float64, S the number of intervals."""
        count = math.ceil(self.duration / self.interval - 1e-9)
        return torch.from_numpy(self.mean + self.amplitude * stream.standard_normal((1, count)))

    def forcing(self, draws: Tensor, points: int | Sequence[int]) -> Actuators:
        """Return the source term of a batch as a function of times (B,), (B, 3, X, Y) at the centres of cells.

        Args:
            draws: shape (B, 1, S), as :meth:`draw` gives them, on the device of the simulation.
            points: cells (X, Y) of the solver.

        Raises:
            ShapeError: a grid of another number of axes.
            SchemaError: cells wider than the fan.
        """
        sizes = (points,) if isinstance(points, int) else tuple(points)
        if len(sizes) != 2:
            raise ShapeError(f"RandomFan: a grid of {len(sizes)} axes; expected 2.")
        axis, inwards = _WALLS[self.wall]
        if min(self.width * sizes[1 - axis], self.depth * sizes[axis]) < 1:
            raise SchemaError(
                f"RandomFan: width {self.width} and depth {self.depth} are less than a cell of {sizes}; use more "
                "points or a larger fan."
            )
        shares = [(torch.arange(n, dtype=draws.dtype, device=draws.device) + 0.5) / n for n in sizes]
        distance = shares[axis] if inwards > 0 else 1 - shares[axis]
        reach = torch.exp(-distance / self.depth)
        across = torch.exp(-0.5 * ((shares[1 - axis] - self.place) / self.width) ** 2)
        shape = torch.outer(reach, across) if axis == 0 else torch.outer(across, reach)
        profile = shape.new_zeros(1, 3, *sizes)
        profile[0, axis] = inwards * shape
        times = self.interval * torch.arange(draws.shape[2], dtype=torch.float64, device=draws.device)
        return Actuators(profile, draws, times)
