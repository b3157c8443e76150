"""Libraries of terms: derivatives of monomials of the fields, what an evolution law is a combination of."""

# C fields, D derived fields, d space axes

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pdessl.errors import DataError

__all__ = [
    "Derived",
    "Form",
    "Term",
    "curl_form",
    "curl_library",
    "default_library",
    "plain_form",
    "primitives",
    "rates",
    "reactions",
]


@dataclass(frozen=True)
class Term:
    """A term q ∂_t^n ∂^α (Π_f u_f^m_f) of an evolution law.

    Args:
        powers: m, one whole number >= 0 per field, measured ones first, then derived ones.
        orders: α, one whole number >= 0 per space axis.
        time: n >= 0; the left side of a law, and the friction of one of second order, have one.
        factor: name of a recorded parameter of the runs, q; empty: 1.
    """

    powers: tuple[int, ...]
    orders: tuple[int, ...]
    time: int = 0
    factor: str = ""

    def text(self, fields: Sequence[str], axes: Sequence[str]) -> str:
        """Return the term as people write it, for example ``(u^2)_x``."""
        factors = [f if m == 1 else f"{f}^{m}" for f, m in zip(fields, self.powers, strict=True) if m]
        body = " ".join(factors) or "1"
        letters = "t" * self.time + "".join(a * n for a, n in zip(axes, self.orders, strict=True))
        if letters:
            body = f"{body}_{letters}" if sum(self.powers) == 1 else f"({body})_{letters}"
        return f"{self.factor} {body}" if self.factor else body

    def expanded(self, fields: Sequence[str], axes: Sequence[str], letters: Mapping[str, str] | None = None) -> str:
        """Return the term by the product rule in the language of equations, for example ``2*u*u_x``.

        Args:
            fields: names, one per power.
            axes: names of the space axes.
            letters: letter by name of a factor; None: the name is the letter.
        """
        start = tuple(sorted((f, "") for f, m in zip(fields, self.powers, strict=True) for _ in range(m)))
        terms: Counter[tuple[tuple[str, str], ...]] = Counter({start: 1})
        for axis, order in (("t", self.time), *zip(axes, self.orders, strict=True)):
            for _ in range(order):
                grown: Counter[tuple[tuple[str, str], ...]] = Counter()
                for factors, count in terms.items():
                    for i, (name, by) in enumerate(factors):
                        grown[tuple(sorted((*factors[:i], (name, by + axis), *factors[i + 1 :])))] += count
                terms = grown
        if not terms:  # a derivative of a constant
            return "0"
        known = [(letters or {}).get(self.factor, self.factor)] if self.factor else []
        written = []
        for factors, count in terms.items():
            names = known + [f"{name}_{by}" if by else name for name, by in factors]
            written.append("*".join(([str(count)] if count > 1 or not names else []) + names))
        return " + ".join(written)


@dataclass(frozen=True)
class Derived:
    """A field that is a sum of derivatives of measured ones, such as the vorticity w = v_x - u_y.

    Args:
        name: its name, unlike those of fields and axes.
        parts: (weight, number of the field, orders) each.
    """

    name: str
    parts: tuple[tuple[float, int, tuple[int, ...]], ...]


def primitives(term: Term, derived: Sequence[Derived], fields: int) -> list[tuple[float, Term]]:
    """Return a term as a sum of (weight, term of measured fields alone).

    Raises:
        DataError: a product with a derived field, which has no weak form.
    """
    plain, extra = term.powers[:fields], term.powers[fields:]
    if not any(extra):
        return [(1.0, Term(plain, term.orders, term.time, term.factor))]
    if sum(term.powers) != 1:
        raise DataError(
            f"a term multiplies the derived field {derived[extra.index(max(extra))].name}, whose derivatives cannot be "
            "moved to the test function. Take derivatives of products of measured fields: (u v)_xx."
        )
    found = []
    for weight, field, orders in derived[extra.index(1)].parts:
        powers = tuple(int(i == field) for i in range(fields))
        summed = tuple(a + b for a, b in zip(term.orders, orders, strict=True))
        found.append((weight, Term(powers, summed, term.time, term.factor)))
    return found


def rates(fields: int, axes: int, order: int = 1) -> tuple[Term, ...]:
    """Return the time derivatives of the fields, of an order: what the law of each is about."""
    zero = (0,) * axes
    return tuple(Term(tuple(int(i == c) for i in range(fields)), zero, order) for c in range(fields))


def default_library(fields: int, axes: int, order: int = 1) -> tuple[Term, ...]:
    """Return the library that is tried where none is given.

    One field on one axis: u with derivatives to order 4, u² to order 2, (u³)_x. Otherwise: monomials of all fields to
    degree 2 with derivatives to order 2, and linear terms to order 4 on one axis; with several fields also products of
    three of them and 1, without derivatives, as reactions have them.

    Args:
        fields: number of fields, >= 1.
        axes: number of space axes, >= 1.
        order: of the law in time; of second order: with u_t and its second derivatives in space, which damp waves.
    """
    if fields == 1 and axes == 1:
        orders = {1: range(5), 2: range(3), 3: (1,)}
        found = [Term((m,), (r,)) for m, rs in orders.items() for r in rs]
    else:
        highest = {1: 4 if axes == 1 else 2, 2: 2} | ({0: 0, 3: 0} if fields > 1 else {})
        found = [
            Term(m, alpha)
            for m in itertools.product(range(4), repeat=fields)
            if sum(m) in highest
            for alpha in itertools.product(range(5), repeat=axes)
            if sum(alpha) <= highest[sum(m)]
        ]
    if order == 2:
        pure = [(0,) * axes, *(tuple(2 * int(i == j) for i in range(axes)) for j in range(axes))]
        found += [Term(rate.powers, alpha, 1) for rate in rates(fields, axes) for alpha in pure]
    return tuple(found)


def reactions(axes: int) -> tuple[Term, ...]:
    """Return the library of one field that reacts to third order and diffuses along each axis by itself."""
    second = [tuple(2 * int(i == j) for i in range(axes)) for j in range(axes)]
    return (*(Term((m,), (0,) * axes) for m in (1, 2, 3)), *(Term((1,), orders) for orders in second))


def curl_library(fields: int, pair: tuple[int, int]) -> tuple[Term, ...]:
    """Return the library for the vorticity of a plane flow without divergence, w being the last, derived field.

    What a local law of the velocity becomes under the curl: second derivatives of products of the velocities, of each
    with another field and of other fields; first ones of other fields; w with derivatives to order 2, and the other
    first derivative, u_y. Third derivatives of u and v other than those of w are left out: only laws without a
    preferred direction lead to them.

    Args:
        fields: number of measured fields.
        pair: numbers of the velocity along the first and the second axis.
    """
    found = []
    second = [(2, 0), (1, 1), (0, 2)]
    for first, other in itertools.combinations_with_replacement(range(fields), 2):
        powers = tuple(int(i == first) + int(i == other) for i in range(fields))
        found += [Term((*powers, 0), alpha) for alpha in second]
    for c in range(fields):
        alone = (*(int(i == c) for i in range(fields)), 0)
        found += [Term(alone, alpha) for alpha in ([(1, 0), (0, 1), *second] if c not in pair else [])]
    vorticity = (*(0 for _ in range(fields)), 1)
    found += [Term(vorticity, alpha) for alpha in [(0, 0), (1, 0), (0, 1), *second]]
    found.append(Term((*(int(i == pair[0]) for i in range(fields)), 0), (0, 1)))
    return tuple(found)


@dataclass(frozen=True)
class Form:
    """Left sides of a law, and the terms that the law of each may have.

    Args:
        name: for people.
        terms: K terms.
        targets: E left sides.
        derived: fields made of measured ones.
        allowed: per target, which terms its law may have, E times K.
        carriers: per target, whether its law may differ between runs; empty: all may.
    """

    name: str
    terms: tuple[Term, ...]
    targets: tuple[Term, ...]
    derived: tuple[Derived, ...]
    allowed: tuple[tuple[bool, ...], ...]
    carriers: tuple[bool, ...] = ()

    def mask(self, rank: int) -> list[list[list[bool]]]:
        """Return which coefficients a law of this rank may have, R + 1 times E times K.

        What a recorded parameter multiplies is the same in all runs: codes stand at terms without one.
        """
        carriers = self.carriers or (True,) * len(self.targets)
        slopes = [
            [a and carries and not term.factor for a, term in zip(row, self.terms, strict=True)]
            for row, carries in zip(self.allowed, carriers, strict=True)
        ]
        return [[list(row) for row in self.allowed], *[slopes] * rank]


def plain_form(
    fields: int, axes: int, order: int = 1, terms: Sequence[Term] | None = None, known: Sequence[str] = ()
) -> Form:
    """Return the form in which the rate of every field is a sum of terms.

    Args:
        fields: number of fields.
        axes: number of space axes.
        order: in time, 1 or 2.
        terms: the library; None: :func:`default_library`.
        known: parameters of the runs that multiply further copies of all terms.
    """
    library = tuple(default_library(fields, axes, order) if terms is None else terms)
    library += tuple(replace(term, factor=name) for name in known for term in library)
    left = rates(fields, axes, order)
    return Form("rates", library, left, (), tuple((True,) * len(library) for _ in left))


def curl_form(names: Sequence[str], axes: Sequence[str], pair: tuple[int, int], known: Sequence[str] = ()) -> Form:
    """Return the form in which the vorticity of two fields stands for them, so that no pressure is in the law.

    Args:
        names: of the measured fields.
        axes: of the two space axes.
        pair: numbers of the velocity along the first and the second axis.
        known: parameters of the runs that multiply further copies of all terms.
    """
    fields = len(names)
    letter = next(n for n in ("w", "omega", "vorticity") if n not in (*names, *axes))
    derived = Derived(letter, ((1.0, pair[1], (1, 0)), (-1.0, pair[0], (0, 1))))
    own = curl_library(fields, pair)
    other = tuple(replace(t, powers=(*t.powers, 0)) for t in default_library(fields, 2))
    left = [Term((*(0 for _ in names), 1), (0, 0), 1)]
    left += [replace(t, powers=(*t.powers, 0)) for c, t in enumerate(rates(fields, 2)) if c not in pair]
    terms = tuple(dict.fromkeys(own + (other if len(left) > 1 else ())))
    allowed = [tuple(t in own for t in terms)] + [tuple(t in other for t in terms)] * (len(left) - 1)
    terms += tuple(replace(term, factor=name) for name in known for term in terms)
    pairs = tuple(row * (1 + len(known)) for row in allowed)
    return Form(f"curl of {names[pair[0]]}, {names[pair[1]]}", terms, tuple(left), (derived,), pairs)
