"""Discovery: all symmetries of a system inside a polynomial ansatz, parameter motions included, with a certificate.

The determining equations are linear in the unknown coefficients of the ansatz. They are collected with the parameters
as indeterminates, solved exactly over the rationals, and the solutions are pruned to those that are independent over
functions of the parameters. The certificate repeats the count at one random numeric parameter point, where no degree in
the parameters limits it; both counts agree when the parameter degree was high enough.

Source: Olver, Applications of Lie Groups to Differential Equations (1993), section 2.4; Ovsiannikov, Group Analysis of
    Differential Equations (1982), section 6.4, for equivalence transformations.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from math import gcd, lcm

from pdessl.equations import Equation
from pdessl.errors import SymmetryError
from pdessl.symmetry.nullspace import PRIME, Span, nullspace, rank_modulo
from pdessl.symmetry.polynomial import BITS, Coefficient, JetSpace, Multiindex, Polynomial, add_to
from pdessl.symmetry.prolongation import PDESystem

__all__ = [
    "MAX_DEGREE",
    "Certificate",
    "VectorField",
    "find_fields",
    "generic_dimensions",
    "parameter_point",
    "residues",
]

VectorField = dict[str, Polynomial]  # coordinate -> component
MAX_DEGREE = 8
MAX_UNKNOWNS = 20_000


@dataclass(frozen=True)
class Certificate:
    """What was searched and how many generators exist there.

    Args:
        degree: degree of the ansatz in independents and fields.
        parameter_degree: degree in the parameters at which the count was reached.
        projectable: whether the components on independents were taken free of the fields.
        symmetries: number of SYM found, independent over functions of the parameters.
        equivalences: number of EQV found.
        generic: number of generators at a random numeric parameter point, an upper bound inside the same ansatz.
        generic_symmetries: how many of them keep the parameters there.
        unknowns: coefficients in the ansatz.
        determining: distinct determining equations.
    """

    degree: int
    parameter_degree: int
    projectable: bool
    symmetries: int
    equivalences: int
    generic: int
    generic_symmetries: int
    unknowns: int
    determining: int

    @property
    def complete(self) -> bool:
        """Whether everything inside the ansatz was found."""
        return self.symmetries + self.equivalences == self.generic and self.symmetries == self.generic_symmetries

    def text(self) -> str:
        """One sentence for people."""
        found = self.symmetries + self.equivalences
        kind = (
            "projectable: x' and t' free of the fields, fields enter linearly; --general searches others too"
            if self.projectable
            else "general: fields may enter every component"
        )
        ansatz = f"polynomial components of degree <= {self.degree}, {kind}"
        if self.complete:
            return (
                f"Complete within the ansatz ({ansatz}; degree <= {self.parameter_degree} in the parameters): "
                f"{_count(self.symmetries, 'symmetry', 'symmetries')} and "
                f"{_count(self.equivalences, 'equivalence transformation', 'equivalence transformations')}, the "
                "dimension at a generic parameter point."
            )
        return (
            f"Not complete: {found} found, {self.symmetries} of them keeping the parameters, but {self.generic} exist "
            f"at a generic parameter point within the ansatz ({ansatz}), {self.generic_symmetries} of them keeping the "
            f"parameters; raise the parameter degree above {self.parameter_degree}."
        )


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _monomials(space: JetSpace, variables: Sequence[int], degree: int, linear: Sequence[int] = ()) -> Iterator[int]:
    """Monomials of total degree <= degree in the variables, with at most one factor among ``linear``."""
    for n in range(degree + 1):
        for choice in combinations_with_replacement(variables, n):
            m = sum(space.units[k] for k in choice)
            yield m
            if n < degree:
                yield from (m + space.units[k] for k in linear)


def _ansatz(system: PDESystem, degree: int, projectable: bool) -> list[tuple[str, int]]:
    """All (coordinate, parameter-free monomial) of the ansatz, parameter motions excluded."""
    space, equation = system.space, system.equation
    independents = [space.number(i) for i in equation.independent]
    fields = [space.number(f) for f in equation.dependent]
    on_space = list(_monomials(space, independents if projectable else [*independents, *fields], degree))
    on_fields = list(_monomials(space, independents, degree, linear=fields)) if projectable else on_space
    return [
        *((c, m) for c in equation.independent for m in on_space),
        *((c, m) for c in equation.dependent for m in on_fields),
    ]


def _determining(
    system: PDESystem, unknowns: Iterable[tuple[str, int]]
) -> Iterator[tuple[tuple[str, int], list[Polynomial]]]:
    """Yield each unknown with its contribution to every equation, reduced."""
    caches: dict[int, dict[Multiindex, Polynomial]] = {}
    for coordinate, monomial in unknowns:
        cache = caches.setdefault(monomial, {system.space.zero_index: {monomial: 1}})
        yield (
            (coordinate, monomial),
            [system.reduce(system._contribution(i, coordinate, cache)) for i in range(len(system.polynomials))],
        )


def _total(monomial: int) -> int:
    degree = 0
    while monomial:
        degree += monomial & 31
        monomial >>= BITS
    return degree


def find_fields(
    equation: Equation, degree: int, parameter_degree: int, projectable: bool = True, system: PDESystem | None = None
) -> tuple[list[VectorField], PDESystem, int, int]:
    """Return independent generators, SYM first, then EQV, in textbook form.

    Args:
        equation: the system.
        degree: degree of the ansatz in independents and fields.
        parameter_degree: degree of the ansatz in the parameters.
        projectable: components on independents free of the fields, those on fields linear in the fields.
        system: the completed system, if it is at hand.

    Returns:
        (fields, system, number of unknowns, number of distinct determining equations)

    Raises:
        SymmetryError: the ansatz has more than 20,000 unknowns.
    """
    system = system or PDESystem(equation)
    space = system.space
    parameters = [space.number(p) for p in equation.parameters]
    factors = list(_monomials(space, parameters, parameter_degree))
    base = _ansatz(system, degree, projectable)
    motions = [(p, m) for p in equation.parameters for m in (0, *(space.units[k] for k in parameters))]
    unknowns: list[tuple[str, int, int]] = [(c, m, f) for c, m in base for f in factors] + [
        (c, 0, m) for c, m in motions
    ]
    if len(unknowns) > MAX_UNKNOWNS:
        raise SymmetryError(
            f"{equation.name}: the ansatz of degree {degree} and parameter degree {parameter_degree} has "
            f"{len(unknowns)} "
            f"unknowns; at most {MAX_UNKNOWNS} are solved. Lower one of the degrees."
        )
    # High columns stay free: plain monomials and parameter motions, which gives the basis of the textbooks.
    order = sorted(
        range(len(unknowns)),
        key=lambda n: (
            unknowns[n][0] in equation.parameters,
            -_total(unknowns[n][2]),
            -_total(unknowns[n][1]),
            -n,
        ),
    )
    column = {unknowns[n]: k for k, n in enumerate(order)}
    rows: dict[tuple[int, int], dict[int, Coefficient]] = {}
    for (c, m), contributions in _determining(system, base):
        for factor in factors:
            k = column[c, m, factor]
            for i, p in enumerate(contributions):
                for monomial, coefficient in p.items():
                    rows.setdefault((i, system.reciprocals.cancelled(monomial + factor)), {})[k] = coefficient
    for c, m in motions:
        for i, p in enumerate(system.prolong({c: {m: 1}})):
            for monomial, coefficient in p.items():
                rows.setdefault((i, monomial), {})[column[c, 0, m]] = coefficient
    distinct = _distinct(rows.values())
    basis = nullspace(distinct, len(unknowns))
    raw: list[VectorField] = []
    for vector in basis:
        field: VectorField = {}
        for k, coefficient in vector.items():
            c, m, f = unknowns[order[k]]
            field.setdefault(c, {})[m + f] = coefficient
        raw.append({c: field[c] for c in equation.coordinates if c in field})
    return _pruned(raw, equation, space), system, len(unknowns), len(distinct)


def _distinct(rows: Iterable[dict[int, Coefficient]]) -> list[dict[int, Coefficient]]:
    """Rows without those that are multiples of another."""
    seen: dict[tuple[object, ...], dict[int, Coefficient]] = {}
    for row in rows:
        items = sorted(row.items())
        lead = items[0][1]
        key = tuple(items) if lead == 1 else tuple((k, -c) for k, c in items) if lead == -1 else tuple(items)
        seen.setdefault(key, row)
    return list(seen.values())


def parameter_point(equation: Equation) -> dict[str, int]:
    """A fixed pseudo-random parameter point modulo :data:`~pdessl.symmetry.nullspace.PRIME`."""
    draw = random.Random(20260101)
    return {p: draw.randrange(2**32, PRIME) for p in equation.parameters}


def residues(field: VectorField, space: JetSpace, point: Mapping[str, int]) -> dict[object, int]:
    """A vector field at a numeric parameter point, modulo the prime: {(coordinate, monomial): coefficient}."""
    numbers = {space.number(p): v for p, v in point.items()}
    vector: dict[object, int] = {}
    for c, p in field.items():
        for m, coefficient in p.items():
            value = coefficient.numerator * pow(coefficient.denominator, -1, PRIME) % PRIME
            for k, v in numbers.items():
                if e := (m >> (BITS * k)) & 31:
                    m -= e << (BITS * k)
                    value = value * pow(v, e, PRIME) % PRIME
            key = (c, m)
            vector[key] = (vector.get(key, 0) + value) % PRIME
    return vector


def _pruned(raw: Sequence[VectorField], equation: Equation, space: JetSpace) -> list[VectorField]:
    """Keep what is independent over functions of the parameters, simplest first, SYM before EQV."""
    parameters = set(equation.parameters)
    numbers = [space.number(p) for p in equation.parameters]

    def parameter_degree(field: VectorField) -> int:
        return max(
            (sum((m >> (BITS * k)) & 31 for k in numbers) for c, p in field.items() if c not in parameters for m in p),
            default=0,
        )

    def simplicity(field: VectorField) -> tuple[bool, int, int, int, list[int]]:
        moves = any(c in parameters for c in field)
        terms = sum(len(p) for p in field.values())
        moved = [equation.coordinates.index(c) for c in field]
        return moves, parameter_degree(field), max(_total(m) for p in field.values() for m in p), terms, moved

    point = parameter_point(equation)
    span = Span()
    kept = [f for f in sorted(raw, key=simplicity) if span.add(residues(f, space, point))]
    shorter = [_shortened(f, raw, parameters) for f in kept]
    check = Span()
    if not all([check.add(residues(f, space, point)) for f in shorter]):
        shorter = kept
    return [_signed(f, equation, space) for f in sorted(shorter, key=simplicity)]


def _size(field: VectorField) -> int:
    return sum(len(p) for p in field.values())


def _shortened(field: VectorField, raw: Sequence[VectorField], parameters: set[str]) -> VectorField:
    """Add rational multiples of other solutions as long as that leaves fewer terms."""
    moves = any(c in parameters for c in field)
    others = [g for g in raw if g is not field and (moves or not any(c in parameters for c in g))]
    again = True
    while again:
        again = False
        for other in others:
            ratios = {
                Fraction(field[c][m]) / v for c, p in other.items() for m, v in p.items() if m in field.get(c, {})
            }
            for ratio in ratios:
                candidate = {c: dict(p) for c, p in field.items()}
                for c, p in other.items():
                    add_to(candidate.setdefault(c, {}), p, -ratio)
                candidate = {c: p for c, p in candidate.items() if p}
                if candidate and _size(candidate) < _size(field):
                    field, again = candidate, True
                    break
    return field


def _signed(field: VectorField, equation: Equation, space: JetSpace) -> VectorField:
    """Whole coefficients without common factor; the first term in print is positive."""
    coefficients = [Fraction(v) for p in field.values() for v in p.values()]
    factor = Fraction(lcm(*(v.denominator for v in coefficients)))
    factor /= gcd(*(int(v * factor) for v in coefficients))
    ordered = [c for c in equation.coordinates if c in field]
    lead = [c for c in ordered if c in equation.parameters] or ordered
    if space.text(field[lead[0]]).startswith("-"):
        factor = -factor
    return {c: {m: int(v * factor) for m, v in field[c].items()} for c in ordered}


def generic_dimensions(equation: Equation, degree: int, projectable: bool = True) -> tuple[int, int]:
    """Number of generators at a random numeric parameter point: all of them, and those that keep the parameters.

    Since parameters are constants of the total derivatives, the determining equations hold point by point, so this
    bounds the number of generators independent over functions of the parameters, whatever their degree in them. The
    second number tells whether two generators that move a parameter combine to one that does not.
    """
    draw = random.Random(7)
    values = {p: draw.randrange(10**5, 10**6) for p in equation.parameters}
    system = PDESystem(equation, values=values)
    still = _ansatz(system, degree, projectable)
    unknowns = [*still, *((p, 0) for p in equation.parameters)]
    rows: dict[tuple[int, int], dict[int, Coefficient]] = {}
    for k, (_, contributions) in enumerate(_determining(system, unknowns)):
        for i, p in enumerate(contributions):
            for monomial, coefficient in p.items():
                rows.setdefault((i, monomial), {})[k] = coefficient
    ordered = sorted(_distinct(rows.values()), key=len)
    total = len(unknowns) - rank_modulo(ordered)
    if not equation.parameters:
        return total, total
    kept = [{k: c for k, c in row.items() if k < len(still)} for row in ordered]
    return total, len(still) - rank_modulo(sorted((row for row in kept if row), key=len))
