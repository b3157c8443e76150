"""Distributions of single numbers: physical parameters, domain lengths, durations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pdessl.data.schema import check_keys, check_type, is_number
from pdessl.errors import SchemaError, did_you_mean

__all__ = ["Distribution"]

_ARGUMENTS = {
    "constant": ("value",),
    "uniform": ("low", "high"),
    "log_uniform": ("low", "high"),
    "choice": ("values",),
}


@dataclass(frozen=True)
class Distribution:
    """Distribution of one number per trajectory, or per group of consecutive trajectories.

    Args:
        kind: ``constant`` (low), ``uniform`` on [low, high], ``log_uniform`` on [low, high] with low > 0, or ``choice``
            with equal weights among ``values``.
        low, high, values: see kind.
        unit: unit of the number, free text.
        per: how many consecutive trajectories of a split share one drawn value, >= 1; or a mapping from split to that
            number, 1 for splits it does not name. :meth:`shared_by` reads either.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[float, ...] = ()
    unit: str = ""
    per: int | Mapping[str, int] = 1

    @staticmethod
    def parse(value: Any, where: str) -> Distribution:
        """Read a number, or a mapping with ``distribution`` and its arguments.

        Raises:
            SchemaError: with ``where`` (file and key), what was found and what was expected.
        """
        if is_number(value):
            return Distribution("constant", float(value), float(value))
        check_type(value, dict, where)
        kind = value.get("distribution", "constant")
        if kind not in _ARGUMENTS:
            raise SchemaError(
                f"{where}.distribution: unknown '{kind}'.{did_you_mean(str(kind), _ARGUMENTS)} "
                f"Known: {', '.join(_ARGUMENTS)}."
            )
        wanted = _ARGUMENTS[kind]
        check_keys(value, ("distribution", "unit", "per", *wanted), wanted, where)
        unit, per = str(value.get("unit", "")), value.get("per", 1)
        for split, number in per.items() if isinstance(per, Mapping) else [("", per)]:
            place = f"{where}.per.{split}" if split else f"{where}.per"
            check_type(number, int, place)
            if number < 1:
                raise SchemaError(f"{place}: expected a number of trajectories >= 1, found {number}.")
        if kind == "choice":
            values = value["values"]
            if not isinstance(values, list) or not values or not all(is_number(v) for v in values):
                raise SchemaError(f"{where}.values: expected a list of numbers, found {values!r}.")
            return Distribution(kind, min(values), max(values), tuple(float(v) for v in values), unit, per)
        numbers = [value[key] for key in wanted]
        for key, number in zip(wanted, numbers, strict=True):
            check_type(number, float, f"{where}.{key}")
        low, high = float(numbers[0]), float(numbers[-1])
        if low > high or (kind == "log_uniform" and low <= 0):
            raise SchemaError(
                f"{where}: expected {'0 < ' if kind == 'log_uniform' else ''}low <= high, found {low} and {high}."
            )
        if not math.isfinite(low + high):
            raise SchemaError(f"{where}: expected finite numbers, found {low} and {high}.")
        return Distribution(kind, low, high, (), unit, per)

    def shared_by(self, split: str) -> int:
        """Return how many consecutive trajectories of a split share one drawn value."""
        return int(self.per.get(split, 1)) if isinstance(self.per, Mapping) else self.per

    def draw(self, stream: np.random.Generator) -> float:
        """Draw one number."""
        if self.kind == "constant":
            return self.low
        if self.kind == "uniform":
            return float(stream.uniform(self.low, self.high))
        if self.kind == "log_uniform":
            return float(math.exp(stream.uniform(math.log(self.low), math.log(self.high))))
        return self.values[int(stream.integers(len(self.values)))]
