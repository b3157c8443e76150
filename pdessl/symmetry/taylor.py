"""Truncated Taylor series: the chain rule of every order by arithmetic, for the check of hand-written maps."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import mpmath

from pdessl.errors import SymmetryError

__all__ = ["TaylorSeries", "inverse_matrix"]


class TaylorSeries:
    """A power series in several variables, truncated at a total order, with multiple-precision coefficients.

    Args:
        coefficients: multi-index -> coefficient.
        variables: number of variables.
        order: highest total degree kept.
    """

    def __init__(self, coefficients: Mapping[tuple[int, ...], Any], variables: int, order: int) -> None:
        self.coefficients = {j: c for j, c in coefficients.items() if sum(j) <= order}
        self.variables, self.order = variables, order

    @staticmethod
    def constant(value: Any, variables: int, order: int) -> TaylorSeries:
        """Return a number as a series."""
        return TaylorSeries({(0,) * variables: mpmath.mpf(value)}, variables, order)

    @property
    def value(self) -> Any:
        """The constant term."""
        return self.coefficients.get((0,) * self.variables, mpmath.mpf(0))

    def derivative(self, variable: int) -> TaylorSeries:
        """Return the derivative with respect to one variable, one order lower."""
        lowered = {}
        for index, c in self.coefficients.items():
            if index[variable]:
                lower = tuple(e - (k == variable) for k, e in enumerate(index))
                lowered[lower] = c * index[variable]
        return TaylorSeries(lowered, self.variables, max(self.order - 1, 0))

    def _as_series(self, other: Any) -> TaylorSeries:
        return other if isinstance(other, TaylorSeries) else TaylorSeries.constant(other, self.variables, self.order)

    def __add__(self, other: Any) -> TaylorSeries:
        other = self._as_series(other)
        total = dict(self.coefficients)
        for index, c in other.coefficients.items():
            total[index] = total.get(index, 0) + c
        return TaylorSeries(total, self.variables, min(self.order, other.order))

    __radd__ = __add__

    def __neg__(self) -> TaylorSeries:
        return TaylorSeries({j: -c for j, c in self.coefficients.items()}, self.variables, self.order)

    def __sub__(self, other: Any) -> TaylorSeries:
        return self + (-self._as_series(other))

    def __rsub__(self, other: Any) -> TaylorSeries:
        return -self + other

    def __mul__(self, other: Any) -> TaylorSeries:
        other = self._as_series(other)
        order = min(self.order, other.order)
        product: dict[tuple[int, ...], Any] = {}
        for i, a in self.coefficients.items():
            if a == 0:
                continue
            room = order - sum(i)
            for j, b in other.coefficients.items():
                if sum(j) <= room:
                    index = tuple(map(sum, zip(i, j, strict=True)))
                    product[index] = product.get(index, 0) + a * b
        return TaylorSeries(product, self.variables, order)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> TaylorSeries:
        return self * self._as_series(other) ** -1

    def __rtruediv__(self, other: Any) -> TaylorSeries:
        return self._as_series(other) / self

    def __floordiv__(self, other: Any) -> TaylorSeries:
        raise TypeError("'//' rounds down and is no smooth map; '/' was probably meant")

    __rfloordiv__ = __floordiv__

    def __pow__(self, power: Any) -> TaylorSeries:
        if isinstance(power, TaylorSeries):
            return (self.log() * power).exp()
        if isinstance(power, int) and power >= 0:
            return functools.reduce(operator.mul, [self] * power, self._as_series(1))
        start = self.value
        if start == 0:
            raise SymmetryError(f"the map takes the power {power} of 0 at a random point.")
        return self._composed([start ** (power - k) * mpmath.binomial(power, k) for k in range(self.order + 1)])

    def __rpow__(self, base: Any) -> TaylorSeries:
        return (self * mpmath.log(base)).exp()

    def _composed(self, outer: Sequence[Any]) -> TaylorSeries:
        """Sum outer[k] h^k with h the series without its constant term (Horner)."""
        rest = self - self.value
        total = self._as_series(outer[-1])
        for c in reversed(outer[:-1]):
            total = total * rest + c
        return total

    def exp(self) -> TaylorSeries:
        """Return e to this series."""
        return self._composed([mpmath.exp(self.value) / math.factorial(k) for k in range(self.order + 1)])

    def log(self) -> TaylorSeries:
        """Return the natural logarithm."""
        start = self.value
        if not start > 0:
            raise SymmetryError("the map takes the logarithm of a number <= 0 at a random point.")
        return self._composed([mpmath.log(start), *(-((-1 / start) ** k) / k for k in range(1, self.order + 1))])

    def sqrt(self) -> TaylorSeries:
        """Return the square root."""
        return self ** mpmath.mpf("0.5")

    def sin(self) -> TaylorSeries:
        """Return the sine."""
        quarter = mpmath.pi / 2
        return self._composed([mpmath.sin(self.value + k * quarter) / math.factorial(k) for k in range(self.order + 1)])

    def cos(self) -> TaylorSeries:
        """Return the cosine."""
        return (self + mpmath.pi / 2).sin()

    def sinh(self) -> TaylorSeries:
        """Return the hyperbolic sine."""
        return (self.exp() - (-self).exp()) / 2

    def cosh(self) -> TaylorSeries:
        """Return the hyperbolic cosine."""
        return (self.exp() + (-self).exp()) / 2


def inverse_matrix(matrix: list[list[TaylorSeries]]) -> list[list[TaylorSeries]]:
    """Invert a matrix of series by Gauss-Jordan elimination, pivoting on the constant terms.

    Raises:
        SymmetryError: the constant terms are singular.
    """
    n = len(matrix)
    unit = matrix[0][0]
    rows = [
        [*row, *[TaylorSeries.constant(int(i == k), unit.variables, unit.order) for k in range(n)]]
        for i, row in enumerate(matrix)
    ]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k].value))
        if rows[pivot][k].value == 0:
            raise SymmetryError("the map of time and space is not invertible at a random point.")
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [e / rows[k][k] for e in rows[k]]
        for i in range(n):
            if i != k:
                rows[i] = [a - rows[i][k] * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]
