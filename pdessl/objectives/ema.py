"""The teacher of self-distillation: an exponential moving average of a module."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError

__all__ = ["ExponentialMovingAverage", "momentum"]


def momentum(step: int, steps: int, start: float, end: float, schedule: str = "cosine") -> float:
    """Momentum m of an optimiser step.

        cosine:  end - (end - start)(1 + cos(π k/K))/2        linear:  start + (end - start) k/K

    Args:
        step: k, the step that is made, counted from 0.
        steps: K; from step K on the momentum is ``end``.
        start: momentum of step 0, in [0, 1].
        end: momentum of step K, in [0, 1].
        schedule: ``cosine`` (BYOL), ``linear`` (I-JEPA, V-JEPA) or ``constant`` (``start`` throughout).
    """
    share = min(step / steps, 1.0) if steps > 0 else 1.0
    if schedule == "constant":
        return start
    if schedule == "linear":
        return start + (end - start) * share
    return end - (end - start) * (1 + math.cos(math.pi * share)) / 2


class ExponentialMovingAverage(nn.Module):
    """A copy of a module that follows it slowly: ξ <- m ξ + (1 - m) θ, once per optimiser step.

    Floating parameters and floating buffers (running means of batch norms) are averaged; integer and boolean buffers
    are copied, because a counter or an index has no average. The copy takes no gradient. Its state holds the step
    counter, so that a resumed run continues the schedule. Call :meth:`update` after each optimiser step, not after each
    micro-batch of an accumulated one. Copies in bfloat16 or float16 round small updates away: keep weights in float32.

    Args:
        module: the student θ; it is copied, not kept.
        start: m₀ in [0, 1].
        end: m at the last step.
        steps: K, optimiser steps of the run; it may be set later (``teacher.steps = ...``), before the first update.
        schedule: ``cosine``, ``linear`` or ``constant`` (see :func:`momentum`).

    Shapes:
        called as the module.

    Raises:
        SchemaError: a setting out of range.
        ShapeError: a student with other parameters or buffers.

    Source: Grill et al. (2020), arXiv:2006.07733, section 3.3 (cosine); Assran et al. (2023),
        arXiv:2301.08243 (linear, 0.996 to 1).
    """

    step: Tensor

    def __init__(
        self,
        module: nn.Module,
        start: float = 0.996,
        end: float = 1.0,
        steps: int = 0,
        schedule: Literal["cosine", "linear", "constant"] = "cosine",
    ) -> None:
        super().__init__()
        if not (0 <= start <= 1 and 0 <= end <= 1) or steps < 0 or schedule not in ("cosine", "linear", "constant"):
            raise SchemaError(
                f"ExponentialMovingAverage got start {start}, end {end}, steps {steps}, schedule '{schedule}'; "
                "expected momenta in [0, 1], steps >= 0 and cosine, linear or constant."
            )
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.start, self.end, self.steps, self.schedule = start, end, steps, schedule
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the averaged module returns, without gradient."""
        with torch.no_grad():
            return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module) -> float:
        """Move towards the student; return the momentum used."""
        if self.steps < 1 and self.schedule != "constant":
            raise SchemaError(
                "ExponentialMovingAverage was asked to update with steps 0; expected the number of optimiser steps of "
                "the run (teacher.steps = trainer.estimated_stepping_batches), or schedule 'constant'."
            )
        m = momentum(int(self.step), self.steps, self.start, self.end, self.schedule)
        ours = [*self.module.parameters(), *self.module.buffers()]
        theirs = [*student.parameters(), *student.buffers()]
        if [t.shape for t in ours] != [t.shape for t in theirs]:
            raise ShapeError(
                f"ExponentialMovingAverage holds {len(ours)} parameters and buffers and got a student with "
                f"{len(theirs)}, or with other shapes; expected the module it was made from."
            )
        for mine, new in zip(ours, theirs, strict=True):
            if mine.is_floating_point() or mine.is_complex():
                # m ξ + (1 - m) θ as ξ + (1 - m)(θ - ξ): a student that equals its teacher leaves it bitwise unchanged.
                mine.lerp_(new.to(mine.dtype), 1 - m)
            else:
                mine.copy_(new)
        self.step += 1
        return m
