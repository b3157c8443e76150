"""The time of a run, divided where something happens: outputs, and jumps of the forcing."""

# B batch, T output times, S stretches between them

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import DataError

__all__ = ["Leg", "divide", "stretches"]


@dataclass(frozen=True, eq=False)
class Leg:
    """A stretch of time with neither an output nor a jump of the forcing inside, covered in equal steps.

    Args:
        start: time at its beginning, shape (B,).
        step: inner step of each trajectory, shape (B,), time.
        steps: number of steps; 0 where the leg has no duration (an output at time 0).
        observed: whether its end is an output time.
        renewed: whether ``step`` differs from that of the leg before, beyond round-off.
    """

    start: Tensor
    step: Tensor
    steps: int
    observed: bool
    renewed: bool

    @property
    def middle(self) -> Tensor:
        """The time half way, shape (B,)."""
        return self.start + 0.5 * self.steps * self.step


def stretches(times: Tensor, jumps: Tensor | None = None) -> tuple[Tensor, list[bool]]:
    """Return the ends (B, S) of the stretches without anything inside and, for each, whether it is an output time.

    Args:
        times: output times, shape (B, T), float64, increasing from 0 on.
        jumps: times where the forcing is not smooth, shape (S',) or (B, S'), increasing; or None.

    Raises:
        DataError: the jumps lie between different outputs in different trajectories.
    """
    if jumps is None or not jumps.numel():
        return times, [True] * times.shape[1]
    jumps = jumps.to(times).expand(times.shape[0], -1)
    slack = 1e-9 * times[:, -1:]
    # How many jumps lie clearly before each output; a jump at an output or at the start ends no further stretch.
    before = (jumps[:, None] < (times - slack)[:, :, None]).sum(dim=2)
    upto = (jumps[:, None] <= (times + slack)[:, :, None]).sum(dim=2)
    begun = (jumps <= slack).sum(dim=1, keepdim=True)
    if not bool((torch.cat([begun, before, upto], dim=1).diff(dim=0) == 0).all()):
        raise DataError(
            "the forcing jumps between different outputs in different trajectories. Give it times per trajectory "
            "(B, T_control) that lie alike among the output times, or simulate them apart."
        )
    ends, observed, done = [], [], int(begun[0])
    for frame, (low, high) in enumerate(zip(before[0].tolist(), upto[0].tolist(), strict=True)):
        ends += [*(jumps[:, i] for i in range(done, low)), times[:, frame]]
        observed += [*(False for _ in range(done, low)), True]
        done = max(done, high)
    return torch.stack(ends, dim=1), observed


def divide(edges: Tensor, step: Tensor, observed: Sequence[bool]) -> list[Leg]:
    """Divide stretches into equal steps, as many for all trajectories as the most demanding one needs.

    Args:
        edges: 0 and the ends of the stretches, shape (B, S + 1).
        step: longest step in each stretch, shape (B, S) or (B, 1), may be infinite.
        observed: for each stretch, whether its end is an output time.
    """
    durations = edges.diff(dim=1)
    # -1 where there is no time to cover: no step, while 0 (an exact scheme asks for infinite steps) makes one.
    counts = torch.where(durations > 0, durations / step, torch.full_like(durations, -1.0)).amax(dim=0)
    steps = [max(1, math.ceil(c - 1e-6)) if c >= 0 else 0 for c in counts.tolist()]
    step = durations / durations.new_tensor([max(1, n) for n in steps])
    # Equidistant times differ in the last digits; the coefficients of a scheme are worth keeping.
    same = (step.diff(dim=1).abs() <= 1e-12 * edges[:, -1:]).all(dim=0).tolist()
    return [Leg(edges[:, i], step[:, i], n, observed[i], not (i and same[i - 1])) for i, n in enumerate(steps)]
