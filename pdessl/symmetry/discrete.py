"""Discrete symmetries: changes of sign and exchanges of two axes, computed from the equations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from pdessl.equations import Equation
from pdessl.symmetry.boundary import BoundaryClass
from pdessl.symmetry.polynomial import JetSpace, Polynomial, add_to
from pdessl.symmetry.prolongation import PDESystem

__all__ = ["DiscreteSymmetry", "discrete_symmetries"]


@dataclass(frozen=True)
class DiscreteSymmetry:
    """A change of signs, with or without an exchange of two space axes, that maps solutions to solutions.

    Args:
        flips: coordinates that change sign (after the exchange).
        swaps: pairs of coordinates that are exchanged.
        parameters: letters of the parameters that move; empty for a symmetry at fixed parameters.
        fixed: axes it moves whose coordinate the equations contain, such as a radius: there the mirror is at 0, and not
            in the middle of a box.
    """

    flips: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...] = ()
    parameters: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``EQV`` if a parameter changes sign or place, else ``SYM``."""
        return "EQV" if self.parameters else "SYM"

    @property
    def maps(self) -> dict[str, str]:
        """Coordinate -> its image as text, for the coordinates that move."""
        image = {a: b for a, b in self.swaps} | {b: a for a, b in self.swaps}
        return {c: ("-" if c in self.flips else "") + image.get(c, c) for c in dict.fromkeys((*image, *self.flips))}

    def text(self) -> str:
        """``-(x, u)``, or ``x <-> y, u <-> v, -(w)``."""
        words = [f"{a} <-> {b}" for a, b in self.swaps]
        if self.flips:
            words.append(f"-({', '.join(self.flips)})")
        if self.fixed:
            words[-1] += f" about {' and '.join(f'{axis} = 0' for axis in self.fixed)}"
        return ", ".join(words)

    def boundary(self, conditions: Mapping[str, Mapping[str, str]]) -> BoundaryClass:
        """Say what survives on a box: a mirror about its middle does; an exchange where both axes have like ends.

        Args:
            conditions: axis -> {field: condition}, of :func:`pdessl.symmetry.boundary.boundary_conditions`. They are
                homogeneous, so that no change of signs breaks them.
        """
        if self.fixed or any(set(entry.values()) == {"window"} for entry in conditions.values()):
            return BoundaryClass("window")
        image = {a: b for a, b in self.swaps} | {b: a for a, b in self.swaps}
        exchanged = [a for a in conditions if image.get(a) in conditions]
        if any({image.get(f, f): c for f, c in conditions[a].items()} != conditions[image[a]] for a in exchanged):
            return BoundaryClass("window")
        return BoundaryClass("square" if exchanged else "exact")


def discrete_symmetries(equation: Equation, system: PDESystem | None = None) -> list[DiscreteSymmetry]:
    """Return a generating set of the sign changes, and one exchange for each pair of space axes that admits one.

    Time is never reversed: that would turn the arrow of time. A change of signs keeps the leading derivatives, so it
    is a symmetry if and only if every term of the completed, reduced system has the parity of its leading derivative:
    linear algebra over the field of two elements. The signs that an exchange needs are found likewise, and the exchange
    is tested by reduction to zero.
    """
    system = system or PDESystem(equation)
    space = system.space
    movable = [c for c in equation.coordinates if c != "t"]
    parities = {_parity(lead, m, movable, space) for lead, m in _terms(system)}
    allowed = _even_with(parities, len(movable))
    fixed = sum(1 << i for i, c in enumerate(movable) if c in equation.parameters)
    allowed.sort(key=lambda f: (bool(f & fixed), f.bit_count(), f))
    basis: list[int] = []
    span = {0}
    for f in allowed:
        if f not in span:
            basis.append(f)
            span |= {f ^ g for g in span}
    names = [[c for i, c in enumerate(movable) if f >> i & 1] for f in basis]
    found = [DiscreteSymmetry(tuple(n), (), tuple(c for c in n if c in equation.parameters)) for n in names]
    for pair in combinations(equation.space, 2):
        exchange = _exchange(pair, equation, system, movable, span)
        if exchange:
            found.append(exchange)
    held = {space.letters[k] for p in system.symbolic for m in p for k, _ in space.exponents(m) if k < space.base}
    return [replace(s, fixed=tuple(a for a in equation.space if a in held and a in s.maps)) for s in found]


def _even_with(parities: Collection[int], count: int) -> list[int]:
    """All masks of ``count`` bits, but 0, that have an even number of bits in common with every given mask."""
    pivots: dict[int, int] = {}  # lowest bit of a row -> the row; no row holds the lowest bit of another
    for row in parities:
        for bit, other in pivots.items():
            row ^= other if row & bit else 0
        if row:
            low = row & -row
            pivots = {bit: other ^ (row if other & low else 0) for bit, other in pivots.items()} | {low: row}
    found = [0]
    for i in range(count):
        if 1 << i not in pivots:
            vector = 1 << i | sum(bit for bit, row in pivots.items() if row >> i & 1)
            found += [f ^ vector for f in found]
    return found[1:]


def _terms(system: PDESystem) -> Iterator[tuple[int, int]]:
    """(monomial of the lead, monomial of a term) of all rules, reduced against each other."""
    for lead, right in system.rules.items():
        unit = system.space.units[system.space.jet(*lead)]
        for m in system.reduce(right):
            yield unit, m


def _parity(first: int, second: int, movable: Sequence[str], space: JetSpace) -> int:
    """Bit mask of the coordinates that occur an odd number of times in both monomials together."""
    mask = 0
    for monomial in (first, second):
        for k, e in space.exponents(monomial):
            if e % 2 == 0:
                continue
            if k < space.base:
                letters = [space.letters[k]]
            else:
                number, index = space.derivative(k)
                odd = [i for i, n in zip(space.independent, index, strict=True) if n % 2]
                letters = [space.fields[number].removeprefix("1/"), *odd]
            for letter in letters:
                if letter in movable:
                    mask ^= 1 << movable.index(letter)
    return mask


def _exchange(
    pair: tuple[str, str], equation: Equation, system: PDESystem, movable: Sequence[str], span: set[int]
) -> DiscreteSymmetry | None:
    """The exchange of two axes with the fewest sign changes, or None."""
    for swaps in _field_swaps(pair, equation):
        conditions = _sign_conditions(swaps, system, movable)
        if conditions is None:
            continue
        one = 1 << len(movable)  # stands for the number 1: <f, q> = 1 is <f + one, q + one> = 0
        signs = [f ^ one for f in _even_with(conditions, len(movable) + 1) if f & one]
        tried: set[int] = set()
        for f in sorted(signs, key=lambda f: (f.bit_count(), f)):
            if f in tried:
                continue
            tried |= {f ^ g for g in span}  # sign changes that are symmetries make no difference
            flips = tuple(c for i, c in enumerate(movable) if f >> i & 1)
            if all(not system.reduce(_image(p, swaps, flips, system.space)) for p in system.polynomials):
                moved = tuple(p for p in equation.parameters if p in flips or any(p in s for s in swaps))
                return DiscreteSymmetry(flips, swaps, moved)
    return None


def _sign_conditions(swaps: Sequence[tuple[str, str]], system: PDESystem, movable: Sequence[str]) -> set[int] | None:
    """What is asked of changes of signs that make an exchange a symmetry; None: no change does.

    Terms of one parity change sign together, so that sum_g s_g P_g = 0 over the parities g, P_g what the images of the
    terms of parity g reduce to. A monomial that occurs in one P_g only never goes away; one in two fixes s_g s_h.

    Returns:
        masks as :func:`_even_with` takes them; the bit after the last coordinate stands for the number 1.
    """
    one, conditions = 1 << len(movable), set()
    for p in system.polynomials:
        parts: dict[int, Polynomial] = {}
        for m, c in p.items():
            reduced = system.reduce(_image({m: c}, swaps, (), system.space))
            add_to(parts.setdefault(_parity(0, m, movable, system.space), {}), reduced)
        for m in {m for part in parts.values() for m in part}:
            (g, a), *others = [(g, part[m]) for g, part in parts.items() if m in part]
            if not others or (len(others) == 1 and abs(others[0][1]) != abs(a)):
                return None
            if len(others) == 1:
                h, b = others[0]
                conditions.add(g ^ h ^ (one if a * b > 0 else 0))
    return conditions


def _field_swaps(pair: tuple[str, str], equation: Equation) -> Iterator[tuple[tuple[str, str], ...]]:
    """Ways to exchange components of vectors, and parameters, together with two axes; fewest parameters first."""
    a, b = pair
    vectors = tuple((v[a], v[b]) for v in equation.vectors.values() if a in v and b in v)
    fields: list[tuple[tuple[str, str], ...]] = [vectors]
    if not equation.vectors:  # typed in: nothing says which fields are components of a vector
        fields = [(), *(((f, g),) for f, g in combinations(equation.dependent, 2))]
        fields += [
            (one, two)
            for one, two in combinations(list(combinations(equation.dependent, 2)), 2)
            if not set(one) & set(two)
        ]
    constants = [(), *(((p, q),) for p, q in combinations(equation.parameters, 2))]
    for parameters, components in product(constants, fields):
        yield (pair, *components, *parameters)


def _image(p: Polynomial, swaps: Sequence[tuple[str, str]], flips: Sequence[str], space: JetSpace) -> Polynomial:
    """The polynomial after the exchange and the sign changes."""
    partner = {a: b for a, b in swaps} | {b: a for a, b in swaps}
    result: Polynomial = {}
    for m, c in p.items():
        new = 0
        for k, e in space.exponents(m):
            if k < space.base:
                letter = space.letters[k]
                sign = letter in flips
                target = space.number(partner.get(letter, letter))
            else:
                number, index = space.derivative(k)
                name = space.fields[number]
                image = partner.get(name, name)
                letters = [partner.get(i, i) for i, n in zip(space.independent, index, strict=True) for _ in range(n)]
                odd = sum(i in flips for i, n in zip(space.independent, index, strict=True) for _ in range(n))
                sign = (odd + (name in flips)) % 2 == 1
                target = space.jet(space.fields.index(image), space.index_of(letters))
            new += e * space.units[target]
            if sign and e % 2:
                c = -c
        add_to(result, {new: c})
    return result
