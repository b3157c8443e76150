"""Random fields and random incompressible flows of a given spectrum on periodic rectangles."""

# B batch, C components of the state, K J kept modes

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError
from pdessl.solvers.incompressible_2d import FlowOperators
from pdessl.solvers.series_2d import Series2D
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["RandomField2D", "RandomFlow2D"]


@dataclass(frozen=True)
class _Random(Series2D):
    """What random fields of a given spectrum share.

        E(j) ∝ (j/p)^rise / (1 + (j/p)^(rise + fall)),    j = |k| L / 2π, L the longest side

    E is the mean square per unit of j: it rises to about j = p and falls beyond. Modes with an index above ``highest``
    on either axis are absent.

    Args:
        rms: expected root mean square, > 0, unit of the field.
        peak: p, > 0.
        rise: >= 0.
        fall: > 0.
        highest: highest wave number on each axis, >= 1, in units of 2π / side.
        mean: the mean of each component is uniform in [-mean, mean], unit of the field.
    """

    rms: float = 1.0
    peak: float = 4.0
    rise: float = 3.0
    fall: float = 4.0
    highest: int = 16
    mean: float = 0.0

    def __post_init__(self) -> None:
        if min(self.rms, self.peak, self.fall) <= 0 or min(self.rise, self.mean) < 0 or self.highest < 1:
            raise SchemaError(
                f"{type(self).__name__}: rms, peak and fall must be > 0, rise and mean >= 0, highest >= 1."
            )

    @property
    def count(self) -> int:
        """Number of independent components."""
        return 1

    @property
    def means(self) -> int:
        """Number of components that have a mean."""
        return self.count

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw a complex normal number per component and mode, and the means: (components, 2 highest + 1, highest + 1)
        numbers and, as the last component, a row of means.
        """
        shape = (self.count, 2 * self.highest + 1, self.highest + 1)
        numbers = np.zeros((shape[0] + 1, *shape[1:]), dtype=np.complex128)
        numbers[:-1] = stream.standard_normal(shape) + 1j * stream.standard_normal(shape)
        numbers[-1, : self.means, 0] = stream.uniform(-self.mean, self.mean, self.means) if self.mean else 0.0
        return torch.from_numpy(numbers)

    def _components(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return amplitudes without the mean, shape (B, components, K, J), of expected mean square rms²."""
        size, (k, j) = self.highest, grid.shape
        # Numbers drawn for j_x = 0 ... h, -h ... -1 take their places among the kept modes.
        own = SpectralGrid.build(lengths.to(torch.float64), (3 * size + 1,) * 2)
        waves = torch.sqrt(own.k_squared) * lengths.amax(dim=1)[:, None, None, None] / (2 * math.pi)
        ratio = waves.clamp_min(1e-300) / self.peak
        # In two dimensions the number of modes grows with j: the energy per mode is E / j.
        power = torch.where(waves > 0, ratio ** (self.rise - 1) / (1 + ratio ** (self.rise + self.fall)), 0.0)
        weight = torch.full((size + 1,), 2.0, dtype=torch.float64, device=draws.device)
        weight[0] = 1.0  # modes with j_y > 0 stand for their complex conjugates, too
        spread = self.rms * torch.sqrt(power / (power * weight).sum(dim=(2, 3), keepdim=True) / 2)
        values = spread * draws[:, : self.count]
        # Modes with j_y = 0 come in pairs of complex conjugates.
        values[:, :, size + 1 :, 0] = values[:, :, 1 : size + 1, 0].flip(-1).conj()
        modes = values.new_zeros(*values.shape[:2], k, j)
        modes[:, :, : size + 1, : size + 1] = values[:, :, : size + 1]
        modes[:, :, k - size :, : size + 1] = values[:, :, size + 1 :]
        return modes


@dataclass(frozen=True)
class RandomField2D(_Random):
    """Gaussian random fields, one or several independent components, with the spectrum of E(j).

        E(j) ∝ (j/p)^rise / (1 + (j/p)^(rise + fall)),    j = |k| L / 2π, L the longest side

    Args:
        rms: expected root mean square of each component, > 0, unit of the field.
        peak: p, > 0: waves in L at which E is largest, about.
        rise, fall: E grows like j^rise below the peak and falls like j^-fall above; rise >= 0, fall > 0.
        highest: highest wave number on each axis, >= 1.
        mean: the mean of each component is uniform in [-mean, mean].
        components: 1 for a scalar, 2 for a velocity vector with a divergence.
    """

    components: int = 1

    @property
    def count(self) -> int:
        """Number of components."""
        return self.components

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of all components."""
        modes = self._components(draws, grid, lengths)
        modes[:, :, 0, 0] = draws[:, -1, : self.components, 0]
        return modes


@dataclass(frozen=True)
class RandomFlow2D(_Random):
    """Random incompressible flow: Gaussian velocity (u, v) without divergence, with the energy spectrum E(j).

        E(j) ∝ (j/p)^rise / (1 + (j/p)^(rise + fall)),    j = |k| L / 2π, L the longest side

    Args:
        rms: expected root mean square of the velocity, √<u² + v²>, > 0, length/time.
        peak: p, > 0: waves in L at which E is largest, about. The eddies are about L / 2p wide.
        rise, fall: E grows like j^rise below the peak and falls like j^-fall above; rise >= 0, fall > 0. Decaying
            turbulence ends near fall = 3 to 4.
        highest: highest wave number on each axis, >= 1.
        mean: each component of the uniform flow is uniform in [-mean, mean], length/time.
    """

    @property
    def means(self) -> int:
        """Two: u and v."""
        return 2

    def modes(self, draws: Tensor, grid: SpectralGrid, lengths: Tensor) -> Tensor:
        """Return the amplitudes of (u, v)."""
        # |velocity| of a mode of the vorticity is |w| / k: the random field is -k ψ.
        waves = torch.sqrt(grid.k_squared)
        modes = FlowOperators(grid).velocity * (waves * self._components(draws, grid, lengths))
        modes[:, :, 0, 0] = draws[:, -1, :2, 0]
        return modes
