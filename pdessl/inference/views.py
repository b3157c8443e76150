"""Views of runs, as settings."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Literal

from pdessl.augmentation import LieAugmentation
from pdessl.schema import Count, Natural
from pdessl.trajectory import Trajectories

__all__ = ["Views"]


@dataclass(frozen=True)
class Views:
    """How views are drawn.

    Args:
        strengths: generator -> greatest strength, in the unit of the equation's file.
        window: frames and points of a view; None: whole runs.
        moves: parameters that generators may move, by name; labels move with them.
        reflections: draw the equation's reflections too, or those named.
        count: views that features or predictions are averaged over when evaluating.
        time: where in time a window lies: ``random``, ``early`` or ``late``, see
            :class:`pdessl.augmentation.LieAugmentation`.
    """

    strengths: dict[str, Natural] = field(default_factory=dict)
    window: tuple[Count, ...] | None = None
    moves: tuple[str, ...] = ()
    reflections: bool | tuple[str, ...] = False
    count: Count = 8
    time: Literal["random", "early", "late"] = "random"

    @property
    def drawn(self) -> bool:
        """Whether a view differs from its run at all."""
        return bool(self.strengths) or self.window is not None or bool(self.reflections)

    def within(self, runs: Trajectories) -> Views:
        """Return the views with a window that is no larger than the runs."""
        if self.window is None:
            return self
        window = tuple(min(size, here) for size, here in zip(self.window, runs.fields.shape[2:], strict=True))
        return dataclasses.replace(self, window=window)

    def augmentation(self, equation: str) -> LieAugmentation | None:
        """Return the augmentation, or None where nothing is drawn and nothing cut."""
        if not self.drawn:
            return None
        return _augmentation(
            equation, tuple(self.strengths.items()), self.window, self.moves, self.reflections, self.time
        )


@functools.lru_cache(maxsize=32)
def _augmentation(
    equation: str,
    strengths: tuple[tuple[str, float], ...],
    window: tuple[int, ...] | None,
    moves: tuple[str, ...],
    reflections: bool | tuple[str, ...],
    time: str,
) -> LieAugmentation:
    # Verifying the algebra and composing its flows takes 0.1 s; a sweep asks for the same views many times.
    return LieAugmentation(equation, dict(strengths), window=window, moves=moves, reflections=reflections, time=time)
