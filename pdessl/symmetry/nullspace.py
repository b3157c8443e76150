"""Exact nullspace of a sparse rational matrix, and rank modulo a prime."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import gcd, lcm

__all__ = ["PRIME", "Span", "nullspace", "rank_modulo"]

Row = dict[int, int]
PRIME = 2**61 - 1


def _primitive(row: dict[int, int | Fraction]) -> Row:
    """Clear denominators, divide by the content, make the coefficient of the lowest column positive."""
    denominator = lcm(*(c.denominator for c in row.values()))
    whole = {k: int(c * denominator) for k, c in row.items()}
    content = gcd(*whole.values())
    if whole[min(whole)] < 0:
        content = -content
    return {k: c // content for k, c in whole.items()} if content != 1 else whole


def nullspace(rows: Sequence[dict[int, int | Fraction]], columns: int) -> list[Row]:
    """Basis of the vectors that all rows annihilate, in the form that leaves high columns free.

    Args:
        rows: sparse rows {column: coefficient}.
        columns: number of columns. The pivot of a row is its lowest column, so put the columns that should be
            expressed through others first.

    Returns:
        primitive integer vectors {column: coefficient}, one per free column.
    """
    whole = [_primitive({k: c for k, c in row.items() if c}) for row in rows if any(row.values())]
    dead: set[int] = set()
    while True:  # a row with a single entry kills that unknown, which shortens other rows
        new = {next(iter(row)) for row in whole if len(row) == 1}
        if not new:
            break
        dead |= new
        whole = [short for row in whole if (short := {k: c for k, c in row.items() if k not in new})]
    unique = {tuple(sorted(row.items())) for row in (_primitive(dict(row)) for row in whole)}
    pivots: dict[int, Row] = {}
    for items in sorted(unique, key=lambda r: (len(r), r)):
        row = dict(items)
        while row:
            column = min(row)
            pivot = pivots.get(column)
            if pivot is None:
                pivots[column] = _primitive(dict(row))
                break
            row = _eliminate(row, pivot, column)
    for column in sorted(pivots, reverse=True):  # back-substitution
        row = pivots[column]
        while higher := [k for k in row if k != column and k in pivots]:
            row = _eliminate(row, pivots[higher[0]], higher[0])
        pivots[column] = row
    basis = []
    for free in range(columns):
        if free in dead or free in pivots:
            continue
        vector: dict[int, int | Fraction] = {free: 1}
        for column, row in pivots.items():
            if free in row:
                vector[column] = Fraction(-row[free], row[column])
        found = _primitive(vector)
        basis.append(found if found[free] > 0 else {k: -c for k, c in found.items()})
    return basis


def _eliminate(row: Row, pivot: Row, column: int) -> Row:
    a, b = row[column], pivot[column]
    g = gcd(a, b)
    scale, factor = b // g, a // g
    result = {k: c * scale for k, c in row.items()} if scale != 1 else dict(row)
    for k, c in pivot.items():
        value = result.get(k, 0) - factor * c
        if value:
            result[k] = value
        else:
            result.pop(k, None)
    if result:
        content = gcd(*result.values())
        if content != 1:
            result = {k: c // content for k, c in result.items()}
    return result


class Span:
    """A growing linear span modulo :data:`PRIME`; :meth:`add` says whether a vector was new."""

    def __init__(self) -> None:
        self._rows: dict[object, dict[object, int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def reduced(self, vector: dict[object, int]) -> dict[object, int]:
        """The vector modulo the span; empty if it lies in it."""
        row = {k: c % PRIME for k, c in vector.items() if c % PRIME}
        # Every pivot row is zero at all other pivots that existed when it was added, so repeat until none is left.
        while (hit := next((k for k in row if k in self._rows), None)) is not None:
            factor = row[hit]
            for k, c in self._rows[hit].items():
                value = (row.get(k, 0) - factor * c) % PRIME
                if value:
                    row[k] = value
                else:
                    row.pop(k, None)
        return row

    def add(self, vector: dict[object, int]) -> bool:
        """Add a vector; True if it was not in the span."""
        row = self.reduced(vector)
        if not row:
            return False
        pivot = next(iter(row))
        inverse = pow(row[pivot], -1, PRIME)
        row = {k: c * inverse % PRIME for k, c in row.items()}
        for key, old in self._rows.items():  # keep the form reduced, so that `reduced` ends
            if factor := old.get(pivot):
                for k, c in row.items():
                    value = (old.get(k, 0) - factor * c) % PRIME
                    if value:
                        old[k] = value
                    else:
                        old.pop(k, None)
                self._rows[key] = old
        self._rows[pivot] = row
        return True


def rank_modulo(rows: Iterable[dict[int, int | Fraction]]) -> int:
    """Rank of a sparse rational matrix modulo :data:`PRIME`; never more than the exact rank."""
    span = Span()
    for row in rows:
        span.add({k: c.numerator * pow(c.denominator, -1, PRIME) for k, c in row.items()})
    return len(span)
