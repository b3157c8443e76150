"""Initial fields with one wave of every length down to a shortest one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.initial_conditions import FAMILIES, InitialCondition, fourier_series

__all__ = ["Harmonics"]

_NODES = 32  # per shortest wave, on which the largest value is looked for: at most 0.2 % below the true one


@dataclass(frozen=True)
class Harmonics(InitialCondition):
    """Sines of every whole wave number up to a highest, scaled to a largest value.

        u(x) = c Σ_{l = 1 ... highest} A_l sin(2π l x / L + φ_l),    A_l ~ U(-1, 1), φ_l ~ U(0, 2π), max|u| = peak

    Args:
        highest: of the wave numbers, >= 1.
        peak: largest absolute value, > 0, unit of u.

    Source: the initial fields of APEBench: Koehler et al. (2024), arXiv:2411.00180.
    """

    highest: int = 5
    peak: float = 1.0

    def __post_init__(self) -> None:
        if self.highest < 1 or self.peak <= 0:
            raise SchemaError(f"Harmonics: highest {self.highest}, peak {self.peak}; expected >= 1 and > 0.")

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw the complex Fourier amplitudes a_j, j = 0 ... highest, of :func:`fourier_series`."""
        amplitude = stream.uniform(-1.0, 1.0, self.highest)
        phase = stream.uniform(0.0, 2 * math.pi, self.highest)
        # A sin(θ + φ) = Re(-i A e^{iφ} e^{iθ})
        modes = torch.from_numpy(np.concatenate([[0.0], -1j * amplitude * np.exp(1j * phase)]))
        return modes * (self.peak / fourier_series(modes[None], _NODES * self.highest).abs().max())

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate amplitudes (B, highest + 1) on a grid; see :meth:`InitialCondition.fields`."""
        return fourier_series(draws, points[0])[:, None]


FAMILIES["harmonics"] = Harmonics
