"""Random numbers of an objective: equal on all processes, restored on resume."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StepDraws"]


class StepDraws(nn.Module):
    """A generator for each training step, seeded by (seed, step).

    The step is a buffer: it is saved with the objective, so that a resumed run draws what the uninterrupted one would
    have drawn. In ``eval`` mode the numbers are those of step 0 and nothing is counted, so that validation losses of
    different epochs compare. Numbers are drawn on the CPU: the same on every device and every process.

    Args:
        seed: of the sequence.
    """

    step: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self) -> torch.Generator:
        """Return the generator of this step, and count the step when training."""
        step = 0
        if self.training:
            self.step += 1
            step = int(self.step)
        return torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
