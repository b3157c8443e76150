"""An equation as a sum of monomials, each with its parameters, and which of them are unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pdessl.equations import Equation
from pdessl.equations.expression import Derivative, Expression, Number, Variable, evaluate
from pdessl.errors import EquationError, did_you_mean

__all__ = ["Monomial", "letters_of", "monomials", "unknown_terms"]

Key = tuple[tuple[Variable | Derivative, int], ...]


@dataclass(frozen=True)
class Monomial:
    """One term of an equation, ``coefficient · parameters · independents · fields and their derivatives``.

    Args:
        coefficient: the number in front.
        variables: letters of parameters and independent variables with their powers.
        factors: fields and derivatives with their powers.
    """

    coefficient: Fraction
    variables: dict[str, int]
    factors: dict[Derivative, int]


class _Polynomial:
    """A polynomial in letters and derivatives; only what :func:`pdessl.equations.expression.evaluate` asks for."""

    def __init__(self, terms: dict[Key, Fraction]) -> None:
        self.terms = {key: c for key, c in terms.items() if c}

    def __add__(self, other: _Polynomial) -> _Polynomial:
        terms = dict(self.terms)
        for key, c in other.terms.items():
            terms[key] = terms.get(key, Fraction(0)) + c
        return _Polynomial(terms)

    def __mul__(self, other: _Polynomial) -> _Polynomial:
        terms: dict[Key, Fraction] = {}
        for a, c in self.terms.items():
            for b, d in other.terms.items():
                powers = Counter(dict(a)) + Counter(dict(b))
                key = tuple(sorted(powers.items(), key=lambda item: repr(item[0])))
                terms[key] = terms.get(key, Fraction(0)) + c * d
        return _Polynomial(terms)

    def __pow__(self, exponent: int) -> _Polynomial:
        result = _Polynomial({(): Fraction(1)})
        for _ in range(exponent):
            result = result * self
        return result


def _leaf(node: Number | Variable | Derivative) -> _Polynomial:
    if isinstance(node, Number):
        return _Polynomial({(): node.value})
    return _Polynomial({((node, 1),): Fraction(1)})


def monomials(tree: Expression) -> list[Monomial]:
    """Expand a tree into monomials."""
    found = []
    for key, coefficient in evaluate(tree, _leaf).terms.items():
        variables = {node.name: power for node, power in key if isinstance(node, Variable)}
        factors = {node: power for node, power in key if isinstance(node, Derivative)}
        found.append(Monomial(coefficient, variables, factors))
    return found


def letters_of(equation: Equation, unknown: Sequence[str]) -> tuple[str, ...]:
    """Return the letters of parameters given by the names users see.

    Raises:
        EquationError: the equation has no such parameter.
    """
    names = {name: letter for letter, name in equation.parameter_names.items()}
    for name in unknown:
        if name not in names:
            raise EquationError(
                f"{equation.name} has no parameter '{name}'.{did_you_mean(name, names)} "
                f"Parameters: {', '.join(names) or 'none'}."
            )
    return tuple(names[name] for name in unknown)


def unknown_terms(equation: Equation, letters: Sequence[str]) -> list[tuple[Expression, list[tuple[int, Monomial]]]]:
    """Return the equations that hold an unknown, each with its monomials and which unknown (or -1) each multiplies.

    Raises:
        EquationError: an unknown enters other than linearly, or nowhere.
    """
    found, seen = [], set()
    for tree in equation.trees:
        terms = []
        for term in monomials(tree):
            here = {letter: term.variables[letter] for letter in letters if letter in term.variables}
            if sum(here.values()) > 1:
                raise EquationError(
                    f"{equation.name} is not linear in {', '.join(here)}; least squares of its terms cannot find it."
                )
            seen |= set(here)
            terms.append((letters.index(next(iter(here))) if here else -1, term))
        if any(k >= 0 for k, _ in terms):
            found.append((tree, terms))
    if missing := set(letters) - seen:
        raise EquationError(f"no equation of {equation.name} holds {', '.join(sorted(missing))}.")
    return found
