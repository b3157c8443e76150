"""Distributions of single numbers: physical parameters, domain lengths, durations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pdessl.errors import SchemaError, did_you_mean
from pdessl.schema import Count, Finite, Positive, fill, read_value

__all__ = ["Distribution"]


@dataclass(frozen=True)
class _Shared:
    distribution: str = "constant"
    unit: str = ""
    per: Count | dict[str, Count] = 1
    power: Positive = 1.0


@dataclass(frozen=True)
class _Constant(_Shared):
    value: Finite = field(kw_only=True)


@dataclass(frozen=True)
class _Uniform(_Shared):
    low: Finite = field(kw_only=True)
    high: Finite = field(kw_only=True)


@dataclass(frozen=True)
class _LogUniform(_Shared):
    low: Positive = field(kw_only=True)
    high: Positive = field(kw_only=True)


@dataclass(frozen=True)
class _Choice(_Shared):
    values: tuple[Finite, ...] = field(kw_only=True)


@dataclass(frozen=True)
class _Spaced(_Uniform):
    count: Count = field(kw_only=True)


@dataclass(frozen=True)
class _LogSpaced(_LogUniform):
    count: Count = field(kw_only=True)


_ARGUMENTS = {
    "constant": _Constant, "uniform": _Uniform, "log_uniform": _LogUniform, "choice": _Choice, "spaced": _Spaced,
    "log_spaced": _LogSpaced,
}  # fmt: skip


@dataclass(frozen=True)
class Distribution:
    """Distribution of one number per trajectory, or per group of consecutive trajectories.

    Args:
        kind: ``constant`` (low), ``uniform`` on [low, high], ``log_uniform`` on [low, high] with low > 0, ``choice``
            with equal weights among ``values``; or one after another and from the start again, whatever the seed,
            ``values`` in equal distances from low to high (``spaced``), or in equal ratios (``log_spaced``).
        low, high, values: see kind.
        unit: unit of the number, free text.
        per: how many consecutive trajectories of a split share one drawn value, >= 1; or a mapping from split to that
            number, 1 for splits it does not name. :meth:`shared_by` reads either.
        power: > 0; numbers are drawn by their roots of this order, and a file states low, high and values of the roots:
            with ``power`` 2 the square of what is uniform. Other than 1 only with low > 0.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[float, ...] = ()
    unit: str = ""
    per: int | Mapping[str, int] = 1
    power: float = 1.0

    @staticmethod
    def parse(value: Any, where: str) -> Distribution:
        """Read a number, or a mapping with ``distribution`` and its arguments.

        Raises:
            SchemaError: with ``where`` (file and key), what was found and what was expected.
        """
        value = read_value(Finite | dict[str, Any], value, where)
        if isinstance(value, float):
            return Distribution("constant", value, value)
        kind = value.get("distribution", "constant")
        if kind not in _ARGUMENTS:
            raise SchemaError(
                f"{where}.distribution: unknown '{kind}'.{did_you_mean(str(kind), _ARGUMENTS)} "
                f"Known: {', '.join(_ARGUMENTS)}."
            )
        given = fill(_ARGUMENTS[kind], value, where)
        if isinstance(given, _Choice):
            if not given.values:
                raise SchemaError(f"{where}.values: expected at least one number, found none.")
            low, high, values = min(given.values), max(given.values), given.values
        else:
            low, high = (given.value, given.value) if isinstance(given, _Constant) else (given.low, given.high)
            values = ()
        if low > high:
            raise SchemaError(f"{where}: expected low <= high, found {low} and {high}.")
        if given.power != 1 and low <= 0:
            raise SchemaError(f"{where}.power: {given.power} of numbers from {low}; expected numbers > 0, or power 1.")
        if isinstance(given, (_Spaced, _LogSpaced)):
            values = _between(low, high, given.count, kind == "log_spaced")
        if given.power != 1:
            low, high, values = low**given.power, high**given.power, [v**given.power for v in values]
        return Distribution(kind, low, high, tuple(values), given.unit, given.per, given.power)

    def shared_by(self, split: str) -> int:
        """Return how many consecutive trajectories of a split share one drawn value."""
        return int(self.per.get(split, 1)) if isinstance(self.per, Mapping) else self.per

    def draw(self, stream: np.random.Generator, number: int = 0) -> float:
        """Draw one number.

        Args:
            stream: what is random comes from it.
            number: of the trajectory, or of the group that shares the value: it decides which of spaced values is next.
        """
        if self.kind == "constant":
            return self.low
        if self.kind == "uniform":
            if self.power == 1:
                return float(stream.uniform(self.low, self.high))
            root = 1 / self.power
            return float(stream.uniform(self.low**root, self.high**root) ** self.power)
        if self.kind == "log_uniform":
            return float(math.exp(stream.uniform(math.log(self.low), math.log(self.high))))
        if self.kind == "choice":
            return self.values[int(stream.integers(len(self.values)))]
        return self.values[number % len(self.values)]


def _between(low: float, high: float, count: int, ratios: bool) -> list[float]:
    if count == 1:
        return [low]
    return (np.geomspace if ratios else np.linspace)(low, high, count).tolist()
