"""Flows: the finite transformations exp(ε·v) of a vector field in closed form."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy

from pdessl.errors import SymmetryError

__all__ = ["EPSILON", "Flow", "as_expression", "names_of", "polynomial_in"]

EPSILON = sympy.Symbol("epsilon")


@dataclass(frozen=True, eq=False)
class Flow:
    """The one-parameter group exp(ε·v) in closed form.

        t' = T(ε, t),  x' = X(ε, t, x, u; μ),  u' = U(ε, t, x, u; μ),  μ' = G(ε, μ)

    Args:
        maps: image of every coordinate, in plain symbols of the coordinates and ``Symbol("epsilon")``.
        independent: names of the independent variables, time first if there is one.
        dependent: names of the fields.
        parameters: letters of the parameters.
    """

    maps: Mapping[str, sympy.Expr]
    independent: tuple[str, ...]
    dependent: tuple[str, ...]
    parameters: tuple[str, ...] = ()

    def text(self) -> dict[str, str]:
        """Return the images that differ from the identity as text, for example ``{"x": "x + epsilon*t"}``."""
        return {n: str(e) for n, e in self.maps.items() if e != sympy.Symbol(n)}

    def at(self, strength: sympy.Expr | int) -> dict[str, sympy.Expr]:
        """Return the maps at one exact strength, for example ``sympy.Rational(1, 3)``."""
        return {n: e.subs(EPSILON, strength) for n, e in self.maps.items()}

    @functools.cached_property
    def obstruction(self) -> str | None:
        """Why the flow is not slice-affine, or None.

        Slice-affine: t' depends on t alone, x' is affine in x, u' is affine in u with a part of degree <= 2 in x added,
        and μ' depends on μ alone; every coefficient may depend on t, μ and ε.
        """
        if "t" not in self.independent:
            return "the equation has no time t, which trajectories have"
        time, space = self.independent[0], [sympy.Symbol(n) for n in self.independent[1:]]
        fields = [sympy.Symbol(n) for n in self.dependent]
        parameters = {sympy.Symbol(n) for n in self.parameters}
        found = self.maps[time].free_symbols & {*space, *fields}
        if found:
            return f"{time}' = {self.maps[time]} depends on {names_of(found)}"
        for name in self.independent[1:]:
            image = self.maps[name]
            if image.free_symbols & set(fields):
                return f"{name}' = {image} depends on {names_of(image.free_symbols & set(fields))}"
            if _degree(image, space) > 1:
                return f"{name}' = {image} is not affine in {', '.join(self.independent[1:])}"
        for name in self.dependent:
            image = self.maps[name]
            if _degree(image, fields) > 1:
                return f"{name}' = {image} is not affine in {', '.join(self.dependent)}"
            if any(sympy.diff(image, u).free_symbols & set(space) for u in fields):
                return f"{name}' = {image} multiplies a field by a function of space"
            if _degree(image.subs(dict.fromkeys(fields, 0)), space) > 2:
                return f"{name}' = {image} adds more than a quadratic function of space"
        for name in self.parameters:
            found = self.maps[name].free_symbols - parameters - {EPSILON}
            if found:
                return f"{name}' = {self.maps[name]} depends on {names_of(found)}"
        return None

    @functools.cached_property
    def needed_parameters(self) -> frozenset[str]:
        """Letters of the parameters in t', x' or u': a batch must hold their values to be transformed."""
        used: set[sympy.Symbol] = set()
        for name in (*self.independent, *self.dependent):
            used |= self.maps[name].free_symbols
        return frozenset(n for n in self.parameters if sympy.Symbol(n) in used)

    @functools.cached_property
    def moved_parameters(self) -> frozenset[str]:
        """Letters of the parameters that the flow moves."""
        return frozenset(n for n in self.parameters if self.maps[n] != sympy.Symbol(n))


def as_expression(component: Any, coordinate: str) -> sympy.Expr:
    """Return a component of a vector field as an expression; numbers are taken, text is not evaluated.

    Raises:
        SymmetryError: text, or anything else that is neither an expression nor a number.
    """
    try:
        # Without strict, text would be handed to Python's eval.
        found = sympy.sympify(component, strict=True)
    except sympy.SympifyError:
        found = None
    if not isinstance(found, sympy.Expr):
        raise SymmetryError(
            f"component '{coordinate}' is {type(component).__name__} {component!r:.60}, expected a sympy expression or "
            f"a number; text is not evaluated here. Write it with symbols, such as 2*sympy.Symbol('t'), or have text "
            f"read and verified:  pdessl.symmetry.verify('burgers', {{'x': 't', 'u': '1'}})"
        )
    return found


def polynomial_in(expression: sympy.Expr, variables: list[sympy.Symbol]) -> sympy.Poly | None:
    """Return the expression as a polynomial in the variables, or None where it is none."""
    try:
        polynomial = sympy.Poly(expression, *variables)
    except sympy.PolynomialError:
        return None
    return polynomial if not any(c.has(*variables) for c in polynomial.coeffs()) else None


def _degree(expression: sympy.Expr, variables: list[sympy.Symbol]) -> int:
    """Total degree in the variables; 99 where it is no polynomial."""
    if not variables or not expression.has(*variables):
        return 0
    polynomial = polynomial_in(sympy.expand(expression), variables)
    return 99 if polynomial is None else int(polynomial.total_degree())


def names_of(symbols: Any) -> str:
    """Return the names of symbols, sorted, for messages."""
    return ", ".join(sorted(str(s) for s in symbols))
