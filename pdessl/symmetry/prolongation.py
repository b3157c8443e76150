"""Prolongation of vector fields, and reduction modulo a PDE system and its differential consequences.

With the multi-index J and the total derivatives D_i, the coefficient of the prolongation of v on u^a_J is

    phi^a_J = D_J phi^a - sum_i sum_{0 < K <= J} binom(J, K) (D_K xi^i) u^a_{J-K+e_i}

and v is admitted by Delta = 0 if and only if

    sum_i xi^i dDelta/dx^i + sum_k pi^k dDelta/dmu^k + sum_{a,J} phi^a_J dDelta/du^a_J

vanishes modulo the system. All arithmetic is exact.

Source: Olver, Applications of Lie Groups to Differential Equations (1993), theorem 2.36.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from pdessl.equations import Equation, Names, parse_equation
from pdessl.errors import EquationError
from pdessl.symmetry.polynomial import BITS, Coefficient, JetSpace, Multiindex, Polynomial, add_to, scaled, subindices
from pdessl.symmetry.reciprocals import Reciprocals, names_of_reciprocals

__all__ = ["PDESystem", "follows"]

_MAX_RULES = 60  # completion that runs past this many rules will not end
_MAX_TERMS = 20_000  # nor will a rewriting whose result grows past this many terms
_MAX_DEPTH = 100  # nor one in which so many values wait for each other


class PDESystem:
    """An equation solved for its leading derivatives, completed by its integrability conditions.

    Args:
        equation: the parsed system.
        functions: arbitrary functions to adjoin: name -> (variables they depend on, texts of equations they obey).
        values: numbers to put in place of parameters (dimension certificate).

    Attributes:
        space: the jet space.
        polynomials: the equations, expanded.
        conditions: hidden integrability conditions that completion found, as polynomials.
        reciprocals: the letters (independents, parameters) by which an equation was divided to solve it. What is found
            holds where they are not 0.

    Raises:
        EquationError: an equation that cannot be solved for a leading derivative, or completion that does not end.
    """

    def __init__(
        self,
        equation: Equation,
        functions: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None,
        values: Mapping[str, Coefficient] | None = None,
    ) -> None:
        functions = functions or {}
        self.equation = equation
        fields = (*equation.dependent, *functions, *names_of_reciprocals(equation))
        self.space = space = JetSpace(equation.independent, fields, equation.parameters)
        self.values = {space.number(p): v for p, v in (values or {}).items()}
        self.symbolic = [space.from_tree(tree) for tree in equation.trees]
        self.polynomials = [space.substitute(p, self.values) for p in self.symbolic] if self.values else self.symbolic
        self._labels = [f"equation {i + 1}, '{text}'," for i, text in enumerate(equation.texts)]
        for p, label in zip(self.symbolic, self._labels, strict=True):
            if not p:
                raise EquationError(f"{label} is 0 = 0 when multiplied out. Check it, or leave it out.")
        extra: list[tuple[Polynomial, str]] = []
        names = Names(equation.independent, equation.dependent, equation.parameters, tuple(functions))
        for name, (variables, where) in functions.items():
            number = space.fields.index(name)
            for axis, letter in enumerate(space.independent):
                if letter not in variables:
                    extra.append((space.variable(space.jet(number, space.axis_units[axis])), f"{name}_{letter} = 0"))
            for text in where:
                extra.append((space.substitute(space.from_tree(parse_equation(text, names)), self.values), f"'{text}'"))
        self.rules: dict[tuple[int, Multiindex], Polynomial] = {}
        self.conditions: list[Polynomial] = []
        self.reciprocals = Reciprocals(space)
        self._values: dict[int, Polynomial] = {}
        self._waiting: dict[int, None] = {}
        self._principal = 0  # mask of the exponents of all derivatives of leads
        space.on_new_jet = self._classify
        self._complete([*zip(self.polynomials, self._labels, strict=True), *extra])

    # ------------------------------------------------------------------ leading derivatives

    def _rank(self, number: int) -> tuple[int, int, int, Multiindex]:
        field, index = self.space.derivative(number)
        return index[0], sum(index), -field, index

    def _lead(self, p: Polynomial, label: str, reduced: bool = False) -> tuple[int, int]:
        """The derivative to solve for, and the monomial of its term: it is alone there, to the first power.

        The highest one that has a number as coefficient and no derivative of itself elsewhere in the equation
        (rewriting would not end); where there is none, the highest that has a product of letters as coefficient.

        Args:
            p: an equation.
            label: what messages call it.
            reduced: it was changed by the equations before it.
        """
        space = self.space
        jets: set[int] = set()
        for m in p:
            jets.update(k for k, _ in space.exponents(m) if k >= space.base and k not in self.reciprocals)
        if not jets:
            raise EquationError(
                f"{label} has the consequence {space.text(p, 6)} = 0, which holds no derivative: the system has "
                f"no solutions."
            )
        divided: tuple[int, int] | None = None
        for number in sorted(jets, key=self._rank, reverse=True):
            shift, unit = BITS * number, space.units[number]
            terms = [m for m in p if (m >> shift) & 31]
            if len(terms) != 1 or (terms[0] >> shift) & 31 != 1 or self._differentiated(number, jets):
                continue
            if terms[0] == unit:
                return number, unit
            factors = (k for k, _ in space.exponents(terms[0] - unit))
            if divided is None and all(k < space.base or k in self.reciprocals for k in factors):
                divided = number, terms[0]
        if divided:
            return divided
        highest = space.jet_text(max(jets, key=self._rank))
        if reduced:
            raise EquationError(
                f"{label} contradicts the equations before it, or says more than they do: they leave "
                f"{space.text(p, 6)} = 0 of it, where no derivative stands alone with a number as coefficient. Check "
                f"the signs, or leave one equation out."
            )
        raise EquationError(
            f"{label} cannot be solved for a leading derivative: none stands alone with a number, or a product of "
            f"variables and parameters, as coefficient "
            f"(highest: {highest}). Divide the equation by that coefficient and declare the quotient as a variable: "
            "rho*u_t + ... becomes u_t + w*(...) with w = 1/rho, whose own equation has to be added."
        )

    def _differentiated(self, number: int, jets: Iterable[int]) -> bool:
        """Whether a proper derivative of one variable is among others."""
        field, index = self.space.derivative(number)
        return any(
            f == field and j != index and all(a <= b for a, b in zip(index, j, strict=True))
            for f, j in map(self.space.derivative, jets)
        )

    def _divided(self, p: Polynomial, number: int, term: int) -> Polynomial:
        """What the variable equals where p = 0, given the one term it is in; letters beside it become 1/letter."""
        inverse = self._inverse(term - self.space.units[number])
        factor = -Fraction(1) / p[term]
        rest = {self.reciprocals.cancelled(m + inverse): c * factor for m, c in p.items() if m != term}
        return {m: (c.numerator if c.denominator == 1 else c) for m, c in rest.items()}

    def _inverse(self, letters: int) -> int:
        """One over a product of letters and variables 1/letter; rules of new ones are added."""
        known = len(self.reciprocals)
        inverse = sum(e * self.space.units[self.reciprocals.of(k)] for k, e in self.space.exponents(letters))
        if len(self.reciprocals) > known:
            self.rules |= self.reciprocals.rules()
            self._reset()
        return inverse

    def _classify(self, number: int) -> None:
        field, index = self.space.derivative(number)
        if any(f == field and all(a <= b for a, b in zip(lead, index, strict=True)) for f, lead in self.rules):
            self._principal |= 31 << (BITS * number)

    def _reset(self) -> None:
        self._values.clear()
        self._principal = 0
        for number in self.space.jets.values():
            self._classify(number)

    def _complete(self, equations: list[tuple[Polynomial, str]]) -> None:
        space = self.space
        queue = deque(equations)
        pending: deque[tuple[tuple[int, Multiindex], tuple[int, Multiindex]]] = deque()
        done: set[tuple[tuple[int, Multiindex], tuple[int, Multiindex]]] = set()
        steps = 0
        while queue or pending:
            steps += 1
            if steps > 20 * _MAX_RULES or len(self.rules) > _MAX_RULES:
                raise EquationError(
                    f"{self.equation.name}: completing the system by cross-derivatives does not end; write the "
                    f"equations so that "
                    "the highest derivative (most in t, then total order) stands alone in each."
                )
            if queue:
                given, label = queue.popleft()
                p = self.reduce(given)
                if not p:
                    continue
                number, term = self._lead(p, label, reduced=p != given)
                lead, rest = space.derivative(number), self._divided(p, number, term)
                for old in [
                    r for r in self.rules if r[0] == lead[0] and all(a <= b for a, b in zip(lead[1], r[1], strict=True))
                ]:
                    back = scaled(self.rules.pop(old), -1)
                    add_to(back, space.variable(space.jet(*old)))
                    queue.append((back, label))
                self.rules[lead] = rest
                self._reset()
                for other in self.rules:
                    if other != lead and other[0] == lead[0]:
                        pending.append((lead, other))
                continue
            first, second = pending.popleft()
            if (
                first not in self.rules
                or second not in self.rules
                or (first, second) in done
                or (second, first) in done
            ):
                continue
            done.add((first, second))
            top = tuple(max(a, b) for a, b in zip(first[1], second[1], strict=True))
            difference = self.reduce(self._raised(first, top))
            add_to(difference, self.reduce(self._raised(second, top)), -1)
            if difference:
                self.conditions.append(difference)
                queue.append(
                    (
                        difference,
                        f"the cross-derivative of {space.jet_text(space.jet(*first))} and "
                        f"{space.jet_text(space.jet(*second))}",
                    )
                )

    def _raised(self, lead: tuple[int, Multiindex], top: Multiindex) -> Polynomial:
        """D_{top - lead} of the right-hand side of a rule."""
        p = self.rules[lead]
        for axis, times in enumerate(b - a for a, b in zip(lead[1], top, strict=True)):
            for _ in range(times):
                p = self.reduce(self.space.total(p, axis))
        return p

    # ------------------------------------------------------------------ reduction

    def _value(self, number: int) -> Polynomial:
        """The reduced value of a derivative of a lead."""
        known = self._values.get(number)
        if known is not None:
            return known
        if number in self._waiting or len(self._waiting) > _MAX_DEPTH:
            raise self._endless(number)
        self._waiting[number] = None
        try:
            value = self._values[number] = self._computed(number)
        finally:
            del self._waiting[number]
        return value

    def _endless(self, number: int) -> EquationError:
        space = self.space
        rules = [f"{space.jet_text(space.jet(*lead))} = {space.text(right, 4)}" for lead, right in self.rules.items()]
        waiting = space.jet_text(next(iter(self._waiting), number))
        return EquationError(
            f"{self.equation.name}: rewriting {waiting} by the equations does not end. They were solved as "
            f"{'; '.join(rules[:4])}. Write the system so that in each equation the highest derivative (most in "
            f"t, then "
            "total order) stands alone with a number as coefficient."
        )

    def _computed(self, number: int) -> Polynomial:
        field, index = self.space.derivative(number)
        rule = self.rules.get((field, index))
        if rule is not None:
            value = self.reduce(rule)
        else:
            for axis in range(len(index)):
                lower = tuple(n - (k == axis) for k, n in enumerate(index))
                if lower[axis] >= 0 and any(
                    f == field and all(a <= b for a, b in zip(lead, lower, strict=True)) for f, lead in self.rules
                ):
                    value = self.reduce(self.space.total(self._value(self.space.jet(field, lower)), axis))
                    break
            else:
                raise AssertionError("a principal derivative without a lead")
        return value

    def reduce(self, p: Polynomial) -> Polynomial:
        """Rewrite every derivative of a lead, until only parametric derivatives are left."""
        space = self.space
        result: Polynomial = {}
        work = p
        while work:
            later: Polynomial = {}
            for given, c in work.items():
                m = self.reciprocals.cancelled(given) if self.reciprocals else given
                hit = m & self._principal
                if not hit:
                    value = result.get(m, 0) + c
                    if value:
                        result[m] = value
                    else:
                        result.pop(m, None)
                    continue
                k = (hit.bit_length() - 1) // BITS
                e = (m >> (BITS * k)) & 31
                replacement = self._value(k)
                if e > 1:
                    replacement = space.power(replacement, e)
                add_to(later, space.multiply({m - (e << (BITS * k)): c}, replacement))
                if len(later) > _MAX_TERMS:
                    raise self._endless(k)
            work = later
        return result

    # ------------------------------------------------------------------ prolongation

    def prolong(self, components: Mapping[str, Polynomial]) -> list[Polynomial]:
        """Return pr v of every equation, reduced; all empty if and only if v is admitted.

        Args:
            components: coordinate (independent, field, parameter) -> component.
        """
        space = self.space
        caches = {c: {space.zero_index: p} for c, p in components.items() if p}
        results = []
        for number in range(len(self.polynomials)):
            total: Polynomial = {}
            for coordinate, cache in caches.items():
                add_to(total, self._contribution(number, coordinate, cache))
            results.append(self.reduce(total))
        return results

    def partials(self, equation: int, symbolic: bool = False) -> dict[int, Polynomial]:
        """All non-zero partial derivatives of one equation, by variable; cached."""
        store = self.__dict__.setdefault("_partials", {})
        if (equation, symbolic) not in store:
            p = (self.symbolic if symbolic else self.polynomials)[equation]
            found = {}
            for number in sorted({k for m in p for k, _ in self.space.exponents(m)}):
                found[number] = self.space.partial(p, number)
            store[equation, symbolic] = found
        return store[equation, symbolic]

    def _derivative(self, cache: dict[Multiindex, Polynomial], index: Multiindex) -> Polynomial:
        """D_index of the polynomial at the zero index of ``cache``."""
        known = cache.get(index)
        if known is None:
            axis = next(i for i, n in enumerate(index) if n)
            lower = tuple(n - (i == axis) for i, n in enumerate(index))
            known = self.space.total(self._derivative(cache, lower), axis)
            cache[index] = known
        return known

    def _contribution(self, equation: int, coordinate: str, cache: dict[Multiindex, Polynomial]) -> Polynomial:
        """What one component of v adds to pr v of one equation, not reduced."""
        space = self.space
        component = cache[space.zero_index]
        if coordinate in space.parameters:
            number = space.number(coordinate)
            part = self.partials(equation, symbolic=True).get(number)
            if not part:
                return {}
            return space.multiply(component, space.substitute(part, self.values) if self.values else part)
        partials = self.partials(equation)
        total: Polynomial = {}
        if coordinate in space.independent:
            axis = space.independent.index(coordinate)
            if axis in partials:
                add_to(total, space.multiply(component, partials[axis]))
            for number, part in partials.items():
                if number < space.base:
                    continue
                field, index = space.derivative(number)
                inner: Polynomial = {}
                for k, binomial in subindices(index):
                    derivative = self._derivative(cache, k)
                    if derivative:
                        raised = tuple(j - n + (i == axis) for i, (j, n) in enumerate(zip(index, k, strict=True)))
                        add_to(inner, space.multiply(derivative, space.variable(space.jet(field, raised))), -binomial)
                if inner:
                    add_to(total, space.multiply(inner, part))
            return total
        field = space.fields.index(coordinate)
        for number, part in partials.items():
            if number >= space.base and space.derivative(number)[0] == field:
                derivative = self._derivative(cache, space.derivative(number)[1])
                if derivative:
                    add_to(total, space.multiply(derivative, part))
        return total


def follows(equation: Equation, source: Equation) -> bool:
    """Whether every solution of one equation solves another: its polynomials reduce to zero modulo the source.

    The velocity of a flow with pressure obeys the curl of the momentum equation, for example. False where the equation
    has a coordinate that the source lacks, or a parameter of another name.

    Args:
        equation: what may follow.
        source: from what.
    """
    if equation.independent != source.independent or not set(equation.dependent) <= set(source.dependent):
        return False
    if any(source.parameter_names.get(letter) != name for letter, name in equation.parameter_names.items()):
        return False
    system = PDESystem(source)
    return not any(system.reduce(system.space.from_tree(tree)) for tree in equation.trees)
