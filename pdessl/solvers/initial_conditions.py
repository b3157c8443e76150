"""Families of random initial fields; each trajectory's draw depends on its own random stream only."""

# B batch, C components of the state, X space (one axis per dimension), d dimensions, J terms of a series

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import SchemaError

__all__ = ["FAMILIES", "GaussianRandomField", "InitialCondition", "SineSeries", "fourier_series", "random_stream"]


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
    """A family of random initial fields: numbers are drawn once per trajectory, then evaluated on any grid."""

    dimensions: ClassVar[int] = 1

    @abstractmethod
    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return the random numbers of one trajectory; their shape is the same for all, and no grid is involved."""

    @abstractmethod
    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate drawn numbers on a grid.

        Args:
            draws: numbers of B trajectories as :meth:`draw` returns them, stacked, shape (B, ...).
            points: nodes per axis, d numbers.
            lengths: extent of each axis, shape (B, d).

        Returns:
            The state at time 0, shape (B, C, *X), float64: at x_j = j L / N on periodic axes, at cell centres
            (j + 1/2) L / N between walls.

        Raises:
            SchemaError: the grid cannot hold the field.
        """

    def sample(
        self, n: int, points: int | Sequence[int], length: float | Sequence[float] = 2 * math.pi, seed: int = 0
    ) -> Tensor:
        """Draw n initial fields on a grid.

        Field k depends on the seed and on k alone: more fields, or other points, leave the first as they were (finer
        points show the same field).

        Args:
            n: how many, >= 1.
            points: nodes per axis; one number for all axes, or d of them.
            length: extent of each axis, > 0, the same way.
            seed: of the draws, >= 0.

        Returns:
            The state at time 0, shape (n, C, *X), float64; nodes as :meth:`fields` says.

        Raises:
            SchemaError: a size out of range, another number of axes, or a grid that cannot hold the field.
        """
        grid = [points] * self.dimensions if isinstance(points, int) else [int(p) for p in points]
        lengths = [length] * self.dimensions if isinstance(length, (int, float)) else [float(v) for v in length]
        name = type(self).__name__
        if len(grid) != self.dimensions or len(lengths) != self.dimensions:
            raise SchemaError(
                f"{name}.sample got points {points} and length {length}; expected one number each, or "
                f"{self.dimensions}, one per axis."
            )
        if n < 1 or seed < 0 or min(grid) < 1 or not all(0 < v < math.inf for v in lengths):
            raise SchemaError(
                f"{name}.sample got n {n}, points {points}, length {length}, seed {seed}; expected n and points >= 1, "
                "a finite length > 0 and a seed >= 0."
            )
        draws = torch.stack([self.draw(random_stream(seed, "sample", k, "physics")) for k in range(n)])
        return self.fields(draws, grid, torch.tensor(lengths, dtype=torch.float64).expand(n, -1))

    @property
    def highest(self) -> int | None:
        """Highest wave number along any axis, in units of 2π/L, or None where there is no such limit."""
        return None

    def coefficients(self, stream: np.random.Generator) -> dict[str, float]:
        """Return named coefficients of the field that :meth:`draw` makes from a stream in the same state.

        They are what a dataset file with ``record: true`` stores, as targets of a regression. Default: none.
        """
        return {}


def fourier_series(amplitudes: Tensor, points: int) -> Tensor:
    """Return Re Σ_j a_j exp(2πi j x / L) at x = 0, L/points, ... for amplitudes (B, J + 1), shape (B, points).

    Raises:
        SchemaError: the grid cannot hold the highest wave number, J, after dealiasing.
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

    @property
    def highest(self) -> int:
        """Highest wave number."""
        return int(self.wave_numbers[1])

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw the complex Fourier amplitudes a_j, j = 0 ... highest, of :func:`fourier_series`."""
        return torch.from_numpy(self._modes(*self._terms(stream)))

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate amplitudes (B, highest + 1) on a grid; see :meth:`InitialCondition.fields`."""
        return fourier_series(draws, points[0])[:, None]

    def coefficients(self, stream: np.random.Generator) -> dict[str, float]:
        """Return the coefficients of u(x) = m + Σ_l c_l cos(2π l x / L) + s_l sin(2π l x / L), and the drawn terms.

        ``initial_mean``, ``initial_cosine_l`` and ``initial_sine_l`` determine the field and are determined by it.
        ``term_amplitude_j``, ``term_wave_number_j``, ``term_phase_j`` (before the rescaling to ``rms``) are what was
        drawn; two terms of the same wave number cannot be told apart in the field.
        """
        amplitude, number, phase, mean = self._terms(stream)
        modes = self._modes(amplitude, number, phase, mean)
        found = _cosines_and_sines(modes, self.wave_numbers[0])
        for j in range(self.terms):
            found |= {
                f"term_amplitude_{j + 1}": float(amplitude[j]),
                f"term_wave_number_{j + 1}": float(number[j]),
                f"term_phase_{j + 1}": float(phase[j]),
            }
        return found

    def _terms(self, stream: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        low, high = self.wave_numbers
        amplitude = stream.uniform(-self.amplitude, self.amplitude, self.terms)
        number = stream.integers(low, high + 1, self.terms)
        phase = stream.uniform(0.0, 2 * math.pi, self.terms)
        mean = stream.uniform(-self.mean, self.mean) if self.mean else 0.0
        return amplitude, number, phase, mean

    def _modes(self, amplitude: np.ndarray, number: np.ndarray, phase: np.ndarray, mean: float) -> np.ndarray:
        modes = np.zeros(self.highest + 1, dtype=np.complex128)
        # A sin(θ + φ) = Re(-i A e^{iφ} e^{iθ})
        np.add.at(modes, number, -1j * amplitude * np.exp(1j * phase))
        return _finish(modes, mean, self.rms)


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

    def fields(self, draws: Tensor, points: Sequence[int], lengths: Tensor) -> Tensor:
        """Evaluate amplitudes (B, highest + 1) on a grid; see :meth:`InitialCondition.fields`."""
        return fourier_series(draws, points[0])[:, None]

    def coefficients(self, stream: np.random.Generator) -> dict[str, float]:
        """Return the mean and the amplitudes of cosine and sine of every wave number, as :class:`SineSeries` does."""
        return _cosines_and_sines(self.draw(stream).numpy(), 1)

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Draw the complex Fourier amplitudes a_j, j = 0 ... highest, of :func:`fourier_series`."""
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


def _cosines_and_sines(modes: np.ndarray, lowest: int) -> dict[str, float]:
    found = {"initial_mean": float(modes[0].real)}
    for wave in range(lowest, len(modes)):
        found[f"initial_cosine_{wave}"] = float(modes[wave].real)
        found[f"initial_sine_{wave}"] = -float(modes[wave].imag)
    return found


#: Families by the name a dataset file uses.
FAMILIES: dict[str, type[InitialCondition]] = {
    "sine_series": SineSeries,
    "gaussian_random_field": GaussianRandomField,
}
