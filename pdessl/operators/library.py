"""Libraries of terms: derivatives of monomials of the fields, what an evolution law is a combination of."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Term", "default_library"]


@dataclass(frozen=True)
class Term:
    """A term ∂^α (Π_f u_f^m_f) of an evolution law.

    Args:
        powers: m, one whole number >= 0 per field.
        orders: α, one whole number >= 0 per space axis.
    """

    powers: tuple[int, ...]
    orders: tuple[int, ...]

    def text(self, fields: Sequence[str], axes: Sequence[str]) -> str:
        """Return the term as people write it, for example ``(u^2)_x``."""
        factors = [f if m == 1 else f"{f}^{m}" for f, m in zip(fields, self.powers, strict=True) if m]
        body = " ".join(factors) or "1"
        letters = "".join(a * n for a, n in zip(axes, self.orders, strict=True))
        if not letters:
            return body
        return f"{body}_{letters}" if sum(self.powers) == 1 else f"({body})_{letters}"

    def expanded(self, fields: Sequence[str], axes: Sequence[str]) -> str:
        """Return the term by the product rule in the language of equations, for example ``2*u*u_x``."""
        start = tuple(sorted((f, "") for f, m in zip(fields, self.powers, strict=True) for _ in range(m)))
        terms: Counter[tuple[tuple[str, str], ...]] = Counter({start: 1})
        for axis, order in zip(axes, self.orders, strict=True):
            for _ in range(order):
                grown: Counter[tuple[tuple[str, str], ...]] = Counter()
                for factors, count in terms.items():
                    for i, (name, by) in enumerate(factors):
                        grown[tuple(sorted((*factors[:i], (name, by + axis), *factors[i + 1 :])))] += count
                terms = grown
        if not terms:  # a derivative of a constant
            return "0"
        written = []
        for factors, count in terms.items():
            names = [f"{name}_{by}" if by else name for name, by in factors]
            written.append("*".join(([str(count)] if count > 1 or not names else []) + names))
        return " + ".join(written)


def default_library(fields: int, axes: int) -> tuple[Term, ...]:
    """Return the library that is tried where none is given.

    One field on one axis: u with derivatives to order 4, u² to order 2, (u³)_x. Otherwise: monomials of all fields to
    degree 2 with derivatives to order 2, and linear terms to order 4 on one axis.

    Args:
        fields: number of fields, >= 1.
        axes: number of space axes, >= 1.
    """
    if fields == 1 and axes == 1:
        orders = {1: range(5), 2: range(3), 3: (1,)}
        return tuple(Term((m,), (r,)) for m, rs in orders.items() for r in rs)
    powers = [m for m in itertools.product(range(3), repeat=fields) if 1 <= sum(m) <= 2]
    highest = {1: 4 if axes == 1 else 2, 2: 2}
    return tuple(
        Term(m, alpha)
        for m in powers
        for alpha in itertools.product(range(5), repeat=axes)
        if sum(alpha) <= highest[sum(m)]
    )
