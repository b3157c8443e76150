"""Families of random initial fields; each trajectory's draw depends on its own random stream only."""

# B batch, X grid points, J terms of a series

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError

__all__ = ["FAMILIES", "GaussianRandomField", "InitialCondition", "SineSeries", "random_stream"]


def random_stream(seed: int, split: str, trajectory: int, purpose: str, attempt: int = 0) -> np.random.Generator:
    """Return the random stream of one trajectory: a function of its arguments only, whatever the batch or the machine.

    Args:
        seed: seed of the dataset, >= 0.
        split: name of the split; renaming it changes the draws, the order of splits does not.
        trajectory: number k of the trajectory in its split.
        purpose: what is drawn (``physics``, ``noise``), so that changing one does not move the other.
        attempt: 0, then counted up when a draw is rejected.
    """
    key = (zlib.crc32(split.encode()), zlib.crc32(purpose.encode()), trajectory, attempt)
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=key)))


class InitialCondition(ABC):
    """A family of random periodic fields: modes are drawn once and may then be evaluated on any grid."""

    @abstractmethod
    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return the complex Fourier amplitudes a_j, j = 0 ... J, of u(x) = Re Σ_j a_j exp(2πi j x / L), shape (J +
        1,).
        """

    @staticmethod
    def evaluate(amplitudes: Tensor, points: int) -> Tensor:
        """Return the fields (B, points) of amplitudes (B, J + 1) at x = 0, L/points, ...

        Raises:
            SchemaError: the grid cannot hold the highest wave number.
        """
        highest = amplitudes.shape[-1] - 1
        if 3 * highest >= points:
            raise SchemaError(
                f"initial condition has wave numbers up to {highest}; {points} points keep those below {points / 3:.0f}"
            )
        spectrum = amplitudes * (points / 2)
        spectrum = torch.cat([2 * spectrum[..., :1].real.to(spectrum.dtype), spectrum[..., 1:]], dim=-1)
        return torch.fft.irfft(spectrum, n=points)


@dataclass(frozen=True)
class SineSeries(InitialCondition):
    """Sum of sines with random amplitudes, wave numbers and phases.

        u(x) = m + Σ_{j=1}^{J} A_j sin(2π l_j x / L + φ_j)

    A_j uniform in [-amplitude, amplitude], l_j uniform in {wave_numbers[0], ..., wave_numbers[1]}, φ_j uniform in [0,
    2π), the mean m uniform in [-mean, mean].

    Args:
        terms: J, >= 1.
        amplitude: > 0, unit of u.
        wave_numbers: lowest and highest wave number, 1 <= low <= high.
        mean: >= 0, unit of u. A mean moves everything with its speed where the equation has the term u u_x.
        rms: if given, fields are rescaled so that their root mean square about m is this, unit of u.

    Source: Brandstetter, Welling, Worrall (2022), arXiv:2202.07643, appendix: J = 5, amplitude 0.5, wave numbers 1 to
        3.
    """

    terms: int = 5
    amplitude: float = 0.5
    wave_numbers: Sequence[int] = (1, 3)
    mean: float = 0.0
    rms: float | None = None

    def __post_init__(self) -> None:
        low, high = _pair("wave_numbers", self.wave_numbers)
        if self.terms < 1 or self.amplitude <= 0 or self.mean < 0 or (self.rms is not None and self.rms <= 0):
            raise SchemaError("SineSeries: terms must be >= 1, amplitude and rms > 0, mean >= 0.")
        if not 1 <= low <= high:
            raise SchemaError(
                f"SineSeries: wave_numbers must be [low, high] with 1 <= low <= high, found [{low}, {high}]."
            )

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw one field; see :meth:`InitialCondition.draw`."""
        low, high = self.wave_numbers
        amplitude = stream.uniform(-self.amplitude, self.amplitude, self.terms)
        number = stream.integers(low, high + 1, self.terms)
        phase = stream.uniform(0.0, 2 * math.pi, self.terms)
        mean = stream.uniform(-self.mean, self.mean) if self.mean else 0.0
        modes = np.zeros(high + 1, dtype=np.complex128)
        # A sin(θ + φ) = Re(-i A e^{iφ} e^{iθ})
        np.add.at(modes, number, -1j * amplitude * np.exp(1j * phase))
        return torch.from_numpy(_finish(modes, mean, self.rms))


@dataclass(frozen=True)
class GaussianRandomField(InitialCondition):
    """Gaussian random field with a power-law spectrum above a corner.

        <|a_j|²> ∝ (1 + (j / corner)²)^(-exponent),    j = 1 ... highest

    Args:
        rms: expected root mean square, > 0, unit of u.
        corner: wave number of the corner, > 0, in units of 2π/L.
        exponent: > 0; at large j the energy falls like j^(-2 exponent).
        highest: highest wave number, >= 1.
        mean: the mean is uniform in [-mean, mean], unit of u.
    """

    rms: float = 0.5
    corner: float = 3.0
    exponent: float = 4.0
    highest: int = 16
    mean: float = 0.0

    def __post_init__(self) -> None:
        if min(self.rms, self.corner, self.exponent) <= 0 or self.highest < 1 or self.mean < 0:
            raise SchemaError("GaussianRandomField: rms, corner and exponent must be > 0, highest >= 1, mean >= 0.")

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw one field; see :meth:`InitialCondition.draw`."""
        j = np.arange(1, self.highest + 1)
        power = (1 + (j / self.corner) ** 2) ** (-self.exponent)
        # <|a_j|²>/2 summed over j is the mean square.
        spread = self.rms * np.sqrt(power / power.sum())
        modes = np.zeros(self.highest + 1, dtype=np.complex128)
        modes[1:] = spread * (stream.standard_normal(self.highest) + 1j * stream.standard_normal(self.highest))
        mean = stream.uniform(-self.mean, self.mean) if self.mean else 0.0
        return torch.from_numpy(_finish(modes, mean, None))


def _pair(name: str, value: Sequence[int]) -> tuple[int, int]:
    if len(value) != 2:
        raise SchemaError(f"{name} must be [low, high], found {list(value)}.")
    return value[0], value[1]


def _finish(modes: np.ndarray, mean: float, rms: float | None) -> np.ndarray:
    if rms is not None:
        size = math.sqrt(float((np.abs(modes[1:]) ** 2).sum()) / 2)
        modes = modes * (rms / size if size > 0 else 0.0)
    modes[0] = mean
    return modes


#: Families by the name a dataset file uses.
FAMILIES: dict[str, type[InitialCondition]] = {"sine_series": SineSeries, "gaussian_random_field": GaussianRandomField}
