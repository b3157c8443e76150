"""Numbered places of which some are taken: nodes where sensors stand, steps at which they are read."""

# n experiments, M places taken in each

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import SchemaError

__all__ = ["Places", "on_lattice"]

_OFF = 1e-6  # of a unit, or of a value of many units, that a written value may be off


def on_lattice(values: Sequence[float], unit: float) -> tuple[list[int], bool]:
    """Return the nearest multiples of a unit, as numbers, and whether every value is one, to a millionth of it."""
    numbers = [round(value / unit) for value in values]
    return numbers, all(abs(v / unit - i) <= _OFF * max(1, abs(i)) for v, i in zip(values, numbers, strict=True))


@dataclass(frozen=True, eq=False)
class Places:
    """Places that are taken, ``apart`` from each other: shares in any order -> numbers.

    Args:
        count: M.
        first: lowest number.
        slots: numbers that are left for the lowest one when the others stand as close as they may.
        apart: least difference of two.
        fixed: numbers that are given, (M,), ascending; None: they are chosen.
    """

    count: int
    first: int
    slots: int
    apart: int
    fixed: Tensor | None

    @classmethod
    def between(
        cls, what: str, count: int, fixed: Sequence[float] | None, unit: float, first: int, last: int, apart: int
    ) -> Places:
        """Return places from ``first`` to ``last``.

        Args:
            what: ``sensors`` or ``times``, for messages.
            count: M.
            fixed: where they are, physical; None: they are chosen.
            unit: distance of two neighbouring numbers, physical.
            first: lowest number.
            last: highest one.
            apart: least difference of two.

        Raises:
            SchemaError: more than fit, or fixed ones that are no such places.
        """
        if fixed is not None:
            numbers, on = on_lattice(fixed, unit)
            numbers = sorted(numbers)
            close = any(b - a < apart for a, b in zip(numbers, numbers[1:], strict=False))
            if len(fixed) != count or close or not on or any(not first <= i <= last for i in numbers):
                raise SchemaError(
                    f"{what}.positions {list(fixed)}: expected {count} multiples of {unit:g} from {first * unit:g} to "
                    f"{last * unit:g}, {apart * unit:g} apart."
                )
            return cls(count, first, 0, apart, torch.tensor(numbers))
        slots = last - first + 1 - (count - 1) * apart
        if slots < 1:
            raise SchemaError(
                f"{what}: {count} of them, {apart * unit:g} apart, do not fit between {first * unit:g} and "
                f"{last * unit:g}. Fewer of them, a smaller distance, or a wider range would."
            )
        return cls(count, first, slots, apart, None)

    @property
    def free(self) -> int:
        """Return how many are chosen, M or 0."""
        return 0 if self.fixed is not None else self.count

    def of(self, share: Tensor) -> Tensor:
        """Return numbers, ascending, (n, M), of shares (n, M) of the range, in any order; of (n, 0) the fixed ones."""
        if self.fixed is not None:
            return self.fixed.expand(len(share), -1)
        within = (share.sort(dim=1).values * self.slots).floor().clamp_max(self.slots - 1).long()
        return self.first + within + self.apart * torch.arange(self.count)
