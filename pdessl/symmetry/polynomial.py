"""Polynomials on a jet space with exact coefficients, fast in plain Python.

A polynomial is a dictionary {monomial: coefficient}; a coefficient is an int or a Fraction, never zero. A monomial is
one Python int with six bits per variable: five for the exponent and a guard bit above them. So the product of two
monomials is one integer addition, and one mask tells whether any exponent has overflowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from pdessl.equations.expression import Derivative, Expression, Number, Power, Product, Sum, Variable
from pdessl.errors import SymmetryError

__all__ = ["BITS", "JetSpace", "Multiindex", "Polynomial", "add_to", "scaled"]

Coefficient = int | Fraction
Polynomial = dict[int, Coefficient]
Multiindex = tuple[int, ...]

BITS = 6
_EXPONENT = 31
_GUARD = 32


def add_to(target: Polynomial, source: Polynomial, factor: Coefficient = 1) -> None:
    """Add ``factor * source`` to ``target`` in place."""
    get = target.get
    for monomial, coefficient in source.items():
        value = get(monomial, 0) + factor * coefficient
        if value:
            target[monomial] = value
        else:
            target.pop(monomial, None)


def scaled(polynomial: Polynomial, factor: Coefficient) -> Polynomial:
    """Return ``factor * polynomial``."""
    return {m: c * factor for m, c in polynomial.items()} if factor else {}


def _exact(value: Fraction) -> Coefficient:
    return value.numerator if value.denominator == 1 else value


class JetSpace:
    """The variables of a PDE system: independents, parameters, and derivatives of the fields, allotted on first use.

    Args:
        independent: letters; multi-indices count derivatives in this order, time first.
        fields: names of the fields (and of adjoined arbitrary functions), highest in the ranking first.
        parameters: letters of the constants.
    """

    def __init__(self, independent: Sequence[str], fields: Sequence[str], parameters: Sequence[str]) -> None:
        self.independent, self.fields, self.parameters = tuple(independent), tuple(fields), tuple(parameters)
        self.base = len(self.independent) + len(self.parameters)
        self.letters = (*self.independent, *self.parameters)
        self._derivatives: list[tuple[int, Multiindex]] = []
        self.units = [1 << (BITS * k) for k in range(self.base)]
        self.guards = sum(u * _GUARD for u in self.units)
        self.jets: dict[tuple[int, Multiindex], int] = {}
        self.on_new_jet: Callable[[int], None] = lambda _: None
        self.zero_index: Multiindex = (0,) * len(self.independent)
        self.axis_units = [
            tuple(int(i == k) for k in range(len(self.independent))) for i in range(len(self.independent))
        ]
        self._raised: list[dict[int, int]] = [{} for _ in self.independent]

    # ------------------------------------------------------------------ variables

    def jet(self, field: int, index: Multiindex) -> int:
        """Number of the variable u^field_index."""
        number = self.jets.get((field, index))
        if number is None:
            number = self.base + len(self._derivatives)
            self.jets[field, index] = number
            self._derivatives.append((field, index))
            self.units.append(1 << (BITS * number))
            self.guards |= self.units[number] * _GUARD
            self.on_new_jet(number)
        return number

    def derivative(self, number: int) -> tuple[int, Multiindex]:
        """Field and multi-index of a variable that is no letter, that is, numbered from ``base`` on."""
        return self._derivatives[number - self.base]

    def number(self, name: str) -> int:
        """Number of an independent, a parameter, or a field without derivative."""
        if name in self.independent:
            return self.independent.index(name)
        if name in self.parameters:
            return len(self.independent) + self.parameters.index(name)
        return self.jet(self.fields.index(name), self.zero_index)

    def index_of(self, by: Sequence[str]) -> Multiindex:
        """Multi-index of derivative letters."""
        return tuple(sum(b == i for b in by) for i in self.independent)

    def jet_text(self, number: int) -> str:
        """A variable as it is written: ``u_xx``."""
        if number < self.base:
            return self.letters[number]
        field, index = self.derivative(number)
        letters = "".join(i * n for i, n in zip(self.independent, index, strict=True))
        return f"{self.fields[field]}_{letters}" if letters else self.fields[field]

    def _display(self, number: int) -> tuple[int, int, tuple[int, ...]]:
        """Sort key of a variable in print: base variables, then jets by field and order, x before y."""
        if number < self.base:
            return -1, number, ()
        field, index = self.derivative(number)
        return field, sum(index), tuple(-n for n in index)

    def exponents(self, monomial: int) -> Iterator[tuple[int, int]]:
        """Yield (variable, exponent) of a monomial, lowest variable first."""
        while monomial:
            k = ((monomial & -monomial).bit_length() - 1) // BITS
            e = (monomial >> (BITS * k)) & _EXPONENT
            yield k, e
            monomial -= e << (BITS * k)

    # ------------------------------------------------------------------ arithmetic

    def constant(self, value: Coefficient) -> Polynomial:
        """The constant polynomial."""
        return {0: value} if value else {}

    def variable(self, number: int) -> Polynomial:
        """The polynomial that is one variable."""
        return {self.units[number]: 1}

    def multiply(self, p: Polynomial, q: Polynomial) -> Polynomial:
        """The product.

        Raises:
            SymmetryError: an exponent exceeds 31.
        """
        if len(p) > len(q):
            p, q = q, p
        result: Polynomial = {}
        get = result.get
        guards = self.guards
        for m1, c1 in p.items():
            for m2, c2 in q.items():
                m = m1 + m2
                if m & guards:
                    raise SymmetryError(
                        f"an exponent exceeds {_EXPONENT}; polynomials of such degree are not supported."
                    )
                result[m] = get(m, 0) + c1 * c2
        return {m: c for m, c in result.items() if c}

    def power(self, p: Polynomial, exponent: int) -> Polynomial:
        """A whole power."""
        result = self.constant(1)
        for _ in range(exponent):
            result = self.multiply(result, p)
        return result

    def partial(self, p: Polynomial, number: int) -> Polynomial:
        """The partial derivative by one variable."""
        shift, unit = BITS * number, self.units[number]
        result: Polynomial = {}
        for m, c in p.items():
            e = (m >> shift) & _EXPONENT
            if e:
                result[m - unit] = c * e
        return result

    def total(self, p: Polynomial, axis: int) -> Polynomial:
        """The total derivative D_axis; parameters are constants."""
        result: Polynomial = {}
        get, units, guards, raised, n, base = (
            result.get,
            self.units,
            self.guards,
            self._raised[axis],
            len(self.independent),
            self.base,
        )
        for m, c in p.items():
            rest = m
            while rest:
                k = ((rest & -rest).bit_length() - 1) // BITS
                e = (rest >> (BITS * k)) & _EXPONENT
                rest -= e << (BITS * k)
                if k < base:
                    if k != axis or k >= n:
                        continue
                    new = m - units[k]
                else:
                    target = raised.get(k)
                    if target is None:
                        field, index = self.derivative(k)
                        target = self.jet(
                            field, tuple(a + b for a, b in zip(index, self.axis_units[axis], strict=True))
                        )
                        raised[k] = target
                        guards = self.guards
                    new = m - units[k] + units[target]
                    if new & guards:
                        raise SymmetryError(
                            f"an exponent exceeds {_EXPONENT}; polynomials of such degree are not supported."
                        )
                result[new] = get(new, 0) + c * e
        return {m: c for m, c in result.items() if c}

    # ------------------------------------------------------------------ conversion

    def from_tree(self, tree: Expression) -> Polynomial:
        """Expand a parsed expression."""
        match tree:
            case Number(value=value):
                return self.constant(_exact(value))
            case Variable(name=name):
                return self.variable(self.number(name))
            case Derivative(field=field, by=by):
                return self.variable(self.jet(self.fields.index(field), self.index_of(by)))
            case Sum(terms=terms):
                total: Polynomial = {}
                for term in terms:
                    add_to(total, self.from_tree(term))
                return total
            case Product(factors=factors):
                product = self.constant(1)
                for factor in factors:
                    product = self.multiply(product, self.from_tree(factor))
                return product
            case Power(base=base, exponent=exponent):
                return self.power(self.from_tree(base), exponent)
        raise TypeError(f"not an expression: {tree!r}")

    def substitute(self, p: Polynomial, values: Mapping[int, Coefficient]) -> Polynomial:
        """Replace variables by numbers."""
        result: Polynomial = {}
        for m, c in p.items():
            for k, value in values.items():
                e = (m >> (BITS * k)) & _EXPONENT
                if e:
                    m -= e << (BITS * k)
                    c = c * value**e
            add_to(result, {m: c})
        return result

    def text(self, p: Polynomial, limit: int | None = None) -> str:
        """The polynomial as it would be typed, constants before coordinates; at most ``limit`` terms."""
        if not p:
            return "0"

        n = len(self.independent)

        def order(monomial: int) -> tuple[Any, ...]:
            powers = dict(self.exponents(monomial))
            jets = sum(e for k, e in powers.items() if k >= self.base)
            constants = sum(e for k, e in powers.items() if n <= k < self.base)
            return -jets, constants, -sum(powers.values()), sorted((self._display(k), -e) for k, e in powers.items())

        monomials = sorted(p, key=order)
        shown = monomials if limit is None else monomials[:limit]
        out = ""
        for m in shown:
            c = p[m]
            powers = sorted(
                self.exponents(m), key=lambda power: (not n <= power[0] < self.base, self._display(power[0]))
            )
            factors = [self.jet_text(k) + (f"**{e}" if e > 1 else "") for k, e in powers]
            size = abs(c)
            if size != 1 or not factors:
                factors.insert(0, str(size))
            term = "*".join(factors)
            out += (" - " if c < 0 else " + ") + term if out else ("-" if c < 0 else "") + term
        if len(shown) < len(monomials):
            out += f" + ... ({len(monomials)} terms)"
        return out


@lru_cache(maxsize=4096)
def subindices(index: Multiindex) -> tuple[tuple[Multiindex, int], ...]:
    """All (K, binomial(index, K)) with 0 < K <= index."""
    from itertools import product
    from math import comb, prod

    return tuple(
        (k, prod(comb(j, i) for j, i in zip(index, k, strict=True)))
        for k in product(*(range(j + 1) for j in index))
        if any(k)
    )
