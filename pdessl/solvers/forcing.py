"""Source terms that vary in time: actuator signals, and families of random forces: travelling sines, and kicks."""

# B batch, A actuators, S times of a signal, J terms of a series, C channels, X space (one axis per dimension)

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from pdessl.errors import DataError, SchemaError, ShapeError

__all__ = ["Actuators", "Forcing", "ForcingFamily", "RandomForcing", "SineForcing", "TimeVarying", "delayed"]

#: A source term: times (B,) -> fields (B, *X), or (B, C, *X) where the state has several channels.
Forcing = Callable[[Tensor], Tensor]


class ForcingFamily(Protocol):
    """A family of random forces that a dataset file names.

    Attributes:
        dimensions: number of space axes.
        fields: of the states it acts on, in order; None: of any state of one field.
    """

    dimensions: ClassVar[int]
    fields: ClassVar[tuple[str, ...] | None]

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return the numbers of one trajectory, of one shape for all; they do not depend on the grid."""
        ...

    def forcing(self, draws: Tensor, points: Any) -> Forcing:
        """Return the source term of a batch of such numbers, (B, ...), on a grid.

        Args:
            draws: as :meth:`draw` gives them, on the device of the simulation.
            points: nodes of the solver: a number on one axis, a number per axis on several.
        """
        ...


class TimeVarying(ABC):
    """A source term that knows where it is not smooth in time: simulators end a step there.

    A scheme of fourth order that steps across a jump is of first order; without a word, unless somebody looks.
    """

    #: Whether it is constant between its switches (it is then evaluated once between two of them).
    held: bool = False

    @property
    @abstractmethod
    def switches(self) -> Tensor | None:
        """Times at which it, or its slope, jumps, shape (S,) or (B, S), increasing; None if nowhere."""

    @abstractmethod
    def __call__(self, time: Tensor) -> Tensor:
        """Return the source term at times (B,), shape (B, *X) or (B, C, *X)."""


@dataclass(frozen=True, eq=False)
class _Delayed(TimeVarying):
    forcing: TimeVarying
    first: Tensor

    @property
    def held(self) -> bool:  # type: ignore[override]  # a class attribute of those that are always or never held
        return self.forcing.held

    @property
    def switches(self) -> Tensor | None:
        found = self.forcing.switches
        return None if found is None else found - self.first

    def __call__(self, time: Tensor) -> Tensor:
        return self.forcing(time + self.first.flatten())


def delayed(forcing: Forcing, first: Tensor) -> Forcing:
    """Return a forcing by a clock that shows 0 at the time ``first``, shape (1,) or (B, 1)."""
    if isinstance(forcing, TimeVarying):
        return _Delayed(forcing, first)
    return lambda time: forcing(time + first.flatten())


class Actuators(TimeVarying):
    """Source term of actuators with fixed profiles and signals in time, f(t, x) = Σ_a s_a(t) p_a(x).

    Signals are samples at given times, either held until the next one (what a digital controller does) or joined by
    straight lines. Before the first time the first sample holds, after the last one the last. Differentiable in signals
    and profiles.

    Args:
        profiles: p_a on the solver's grid, shape (A, *X), or (A, C, *X) for a state of several channels.
        signals: s_a, shape (B, A, S), unit of the field over time.
        times: of the samples, shape (S,) or (B, S), increasing.
        interpolation: ``hold`` or ``linear``.

    Raises:
        ShapeError: shapes that do not fit.
        DataError: times that do not increase, values that are not finite, or an unknown interpolation.
    """

    def __init__(self, profiles: Tensor, signals: Tensor, times: Tensor, interpolation: str = "hold") -> None:
        times = torch.as_tensor(times, dtype=torch.float64, device=signals.device)
        if signals.ndim != 3 or profiles.ndim < 2 or profiles.shape[0] != signals.shape[1]:
            raise ShapeError(
                f"Actuators: profiles {tuple(profiles.shape)} and signals {tuple(signals.shape)} do not fit; expected "
                "(A, *X) and (B, A, S)."
            )
        samples = signals.shape[2]
        if times.ndim not in (1, 2) or times.shape[-1] != samples or (times.ndim == 2 and len(times) != len(signals)):
            raise ShapeError(
                f"Actuators: times have shape {tuple(times.shape)}, expected ({samples},) or ({len(signals)}, "
                f"{samples}), one per sample of the signals."
            )
        if bool((times.diff(dim=-1) <= 0).any()):
            raise DataError("Actuators: the times of the samples must increase.")
        for name, values in (("profiles", profiles), ("signals", signals), ("times", times)):
            if not bool(torch.isfinite(values.detach()).all()):
                raise DataError(f"Actuators: {name} are not finite.")
        if interpolation not in ("hold", "linear"):
            raise DataError(f"Actuators: unknown interpolation '{interpolation}'. Known: hold, linear.")
        self.profiles, self.signals, self.times = profiles, signals, times
        self.held = interpolation == "hold"

    @staticmethod
    def gaussian(
        centres: Tensor | Sequence[float] | Sequence[Sequence[float]],
        width: float,
        points: int | Sequence[int],
        domain_length: float | Sequence[float],
    ) -> Tensor:
        """Return profiles exp(-|x - c|²/(2 w²)) on a periodic grid, |x - c| the distance to the nearest image.

        Args:
            centres: c, shape (A,) or (A, d), length.
            width: w, > 0, length.
            points: grid points X, a number per axis.
            domain_length: length of each axis; one domain for the whole batch.

        Returns:
            Shape (A, *X), float64.

        Raises:
            DataError: a width that is not positive.
        """
        if not width > 0:
            raise DataError(f"Actuators: width must be > 0, found {width}.")
        grid = (points,) if isinstance(points, int) else tuple(points)
        lengths = (domain_length,) * len(grid) if isinstance(domain_length, (int, float)) else tuple(domain_length)
        middle = torch.as_tensor(centres, dtype=torch.float64)
        middle = middle[:, None] if middle.ndim == 1 else middle
        if middle.ndim != 2 or middle.shape[1] != len(grid) or len(lengths) != len(grid):
            raise ShapeError(
                f"Actuators: centres have shape {tuple(middle.shape)}, expected (A, {len(grid)}) for the grid {grid}."
            )
        profiles = torch.ones((len(middle),) + (1,) * len(grid), dtype=torch.float64)
        for axis, (count, length) in enumerate(zip(grid, lengths, strict=True)):
            x = torch.arange(count, dtype=torch.float64) * (length / count)
            distance = torch.remainder(x - middle[:, axis : axis + 1] + length / 2, length) - length / 2
            shape = [len(middle)] + [1] * len(grid)
            shape[1 + axis] = count
            profiles = profiles * torch.exp(-0.5 * (distance / width) ** 2).reshape(shape)
        return profiles

    @property
    def switches(self) -> Tensor:
        """Times of the samples."""
        return self.times

    def values(self, time: Tensor) -> Tensor:
        """Return the signals at times (B,), shape (B, A)."""
        b, samples = len(self.signals), self.times.shape[-1]
        times = self.times.expand(b, samples)
        after = torch.searchsorted(times.contiguous(), time.to(times).expand(b)[:, None].contiguous(), right=True)
        left = (after - 1).clamp(0, samples - 1)
        index = left[:, None].expand(b, self.signals.shape[1], 1)
        value = self.signals.gather(2, index)[..., 0]
        if self.held or samples == 1:
            return value
        right = after.clamp(0, samples - 1)
        start, end = times.gather(1, left)[:, 0], times.gather(1, right)[:, 0]
        share = torch.where(end > start, (time - start) / (end - start).clamp_min(1e-300), torch.zeros_like(start))
        following = self.signals.gather(2, right[:, None].expand_as(index))[..., 0]
        return torch.lerp(value, following, share[:, None].to(value))

    def __call__(self, time: Tensor) -> Tensor:
        """Return the source term at times (B,), shape (B, *X) or (B, C, *X)."""
        signals = self.values(time)
        return torch.tensordot(signals, self.profiles.to(signals), dims=1)


@dataclass(frozen=True)
class SineForcing:
    """Family of random smooth forcings on a periodic domain, a sum of travelling sines.

        f(t, x) = Σ_{j=1}^{J} A_j sin(ω_j t + 2π l_j x / L + φ_j)

    A_j uniform in [-amplitude, amplitude], ω_j uniform in [-frequency, frequency], l_j uniform in {wave_numbers[0],
    ..., wave_numbers[1]}, φ_j uniform in [0, 2π).

    Args:
        terms: J, >= 1.
        amplitude: > 0, unit of the field over time.
        frequency: > 0, 1/time.
        wave_numbers: lowest and highest wave number, 1 <= low <= high.

    Source: Brandstetter, Worrall, Welling (2022), arXiv:2202.03376, the combined equation: L = 16, J = 5, amplitude
        0.5, frequency 0.4, wave numbers 1 to 3.
    """

    dimensions: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...] | None] = None

    terms: int = 5
    amplitude: float = 0.5
    frequency: float = 0.4
    wave_numbers: Sequence[int] = (1, 3)

    def __post_init__(self) -> None:
        if self.terms < 1 or not min(self.amplitude, self.frequency) > 0:
            raise SchemaError("SineForcing: terms must be >= 1, amplitude and frequency > 0.")
        if len(self.wave_numbers) != 2 or not 1 <= self.wave_numbers[0] <= self.wave_numbers[1]:
            raise SchemaError(
                f"SineForcing: wave_numbers must be [low, high] with 1 <= low <= high, found {list(self.wave_numbers)}."
            )

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return A, ω, l, φ of one trajectory, shape (4, J), float64; they do not depend on the grid."""
        low, high = self.wave_numbers
        drawn = (
            stream.uniform(-self.amplitude, self.amplitude, self.terms),
            stream.uniform(-self.frequency, self.frequency, self.terms),
            stream.integers(low, high + 1, self.terms),
            stream.uniform(0.0, 2 * math.pi, self.terms),
        )
        return torch.from_numpy(np.stack(drawn).astype(np.float64))

    @staticmethod
    def forcing(draws: Tensor, points: int) -> Forcing:
        """Return the source term of a batch as a function of times (B,).

        Args:
            draws: shape (B, 4, J), as :meth:`draw` gives them, on the device of the simulation.
            points: grid points X of the solver, more than three times the highest wave number.

        Raises:
            SchemaError: a grid that cannot hold the waves.
        """
        amplitude, frequency, number, phase = draws.unbind(dim=1)
        if 3 * float(number.max()) >= points:
            raise SchemaError(
                f"SineForcing has wave numbers up to {int(number.max())}; {points} points keep those below "
                f"{points / 3:.0f}."
            )
        x = torch.arange(points, dtype=draws.dtype, device=draws.device) * (2 * math.pi / points)
        carrier = number[:, :, None] * x + phase[:, :, None]
        sine, cosine = torch.sin(carrier), torch.cos(carrier)

        def evaluate(time: Tensor) -> Tensor:
            # sin(ωt + θ) from sin θ and cos θ, which do not change: no sine of a field per stage.
            angle = frequency * time[:, None]
            return torch.einsum("bj,bjx->bx", amplitude * torch.sin(angle), cosine) + torch.einsum(
                "bj,bjx->bx", amplitude * torch.cos(angle), sine
            )

        return evaluate


@dataclass(frozen=True)
class RandomForcing:
    """Family of forces with no memory on a periodic domain: new random amplitudes of a few waves in every interval.

        f(t, x) = Σ_k σ_k [a_k(t) cos(2π k x / L) + b_k(t) sin(2π k x / L)],    σ_k ∝ k^(-slope),  Σ_k σ_k² = amplitude²

    a_k, b_k are standard normal, independent between waves and intervals; k runs from wave_numbers[0] to
    wave_numbers[1]. Held, f has mean 0 and deviation ``amplitude`` at every place and time, and nothing that was seen
    before an interval tells what it does there: of the fields after it, a forecaster can at best know the distribution.

    Args:
        amplitude: >= 0, unit of the field over time; 0 is no force.
        interval: > 0, time over which amplitudes are held, best the step between frames.
        duration: time that is covered, from 0; the last amplitudes hold afterwards.
        wave_numbers: lowest and highest k, 1 <= low <= high.
        slope: of the spectrum.
        interpolation: ``hold``, or ``linear``: joined by straight lines, so that the force is continuous and what it
            does next is partly told by what it does now (and its deviation smaller between, by √½ half-way).
    """

    dimensions: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...] | None] = None

    amplitude: float
    interval: float
    duration: float
    wave_numbers: Sequence[int] = (1, 2)
    slope: float = 0.0
    interpolation: str = "hold"

    def __post_init__(self) -> None:
        if self.amplitude < 0 or not 0 < self.interval <= self.duration:
            raise SchemaError(
                f"RandomForcing: amplitude {self.amplitude}, interval {self.interval}, duration {self.duration}; "
                "expected an amplitude >= 0 and 0 < interval <= duration."
            )
        if len(self.wave_numbers) != 2 or not 1 <= self.wave_numbers[0] <= self.wave_numbers[1]:
            raise SchemaError(
                f"RandomForcing: wave_numbers must be [low, high] with 1 <= low <= high, found "
                f"{list(self.wave_numbers)}."
            )
        if self.interpolation not in ("hold", "linear"):
            raise SchemaError(f"RandomForcing: unknown interpolation '{self.interpolation}'. Known: hold, linear.")

    @property
    def waves(self) -> Tensor:
        """The wave numbers k, (K,)."""
        return torch.arange(self.wave_numbers[0], self.wave_numbers[1] + 1, dtype=torch.float64)

    def draw(self, stream: np.random.Generator) -> Tensor:
        """Return a and b of one trajectory, shape (2 K, S), float64, S the number of intervals."""
        count = math.ceil(self.duration / self.interval - 1e-9)
        return torch.from_numpy(stream.standard_normal((2 * len(self.waves), count)))

    def forcing(self, draws: Tensor, points: int) -> Actuators:
        """Return the source term of a batch as a function of times (B,).

        Args:
            draws: shape (B, 2 K, S), as :meth:`draw` gives them, on the device of the simulation.
            points: grid points X of the solver, more than three times the highest wave number.

        Raises:
            SchemaError: a grid that cannot hold the waves.
        """
        waves = self.waves.to(draws)
        if 3 * self.wave_numbers[1] >= points:
            raise SchemaError(
                f"RandomForcing has wave numbers up to {self.wave_numbers[1]}; {points} points keep those below "
                f"{points / 3:.0f}."
            )
        size = waves**-self.slope
        size = self.amplitude * size / size.square().sum().sqrt()
        angle = waves[:, None] * torch.arange(points, dtype=draws.dtype, device=draws.device) * (2 * math.pi / points)
        profiles = torch.cat([size[:, None] * torch.cos(angle), size[:, None] * torch.sin(angle)])
        times = self.interval * torch.arange(draws.shape[2], dtype=torch.float64, device=draws.device)
        return Actuators(profiles, draws, times, self.interpolation)
