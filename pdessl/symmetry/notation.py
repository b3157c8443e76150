"""Closed flows and vector fields as people write them: ``x' = x + ε t``, ``v = t ∂x + ∂u``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import sympy

if TYPE_CHECKING:
    from pdessl.symmetry.generator import SymmetryGenerator

__all__ = ["images", "show", "tidy", "vector_field"]

_EPSILON = sympy.Symbol("epsilon")


def tidy(expression: sympy.Expr, variables: Sequence[str]) -> sympy.Expr:
    """Return an equal expression, collected in the given variables, with one exponential per coefficient.

    Args:
        expression: image of a coordinate under a flow.
        variables: names of the space axes and fields; coefficients of their monomials are factored.
    """
    symbols = {sympy.Symbol(v) for v in variables}
    expanded = sympy.expand(expression, power_base=False, power_exp=False, log=False)
    collected: dict[sympy.Expr, sympy.Expr] = {}
    for term in sympy.Add.make_args(expanded):
        plain = [f for f in sympy.Mul.make_args(term) if f.as_base_exp()[0] in symbols]
        monomial = sympy.Mul(*plain)
        collected[monomial] = collected.get(monomial, sympy.Integer(0)) + term / monomial
    return sympy.Add(*(m * _coefficient(c) for m, c in collected.items()))


def _coefficient(coefficient: sympy.Expr) -> sympy.Expr:
    factors = _like_bases(sympy.Mul.make_args(coefficient))
    power = sympy.Add(*(f.args[0] for f in factors if isinstance(f, sympy.exp)))
    rest = sympy.Mul(*(f for f in factors if not isinstance(f, sympy.exp)))
    rest = min(rest, sympy.Mul(*_like_bases(sympy.Mul.make_args(sympy.factor(rest)))), key=sympy.count_ops)
    return rest * sympy.exp(sympy.factor(sympy.cancel(sympy.together(power))))


def _like_bases(factors: Sequence[sympy.Expr]) -> list[sympy.Expr]:
    """Write (ε t - 1)^n, n whole, with the base 1 - ε t where a root of that is another factor, so that they merge."""
    roots = {f.as_base_exp()[0] for f in factors if not f.as_base_exp()[1].is_integer}
    found = []
    for factor in factors:
        base, exponent = factor.as_base_exp()
        turned = sympy.expand(-base)
        if base.is_Add and exponent.is_Integer and turned in roots:
            factor = (-1) ** exponent * turned**exponent
        found.append(factor)
    return found


def show(expression: sympy.Expr, own: str | None = None) -> str:
    """Return an expression as text with ε for the strength, its own coordinate first and powers of ε last.

    Args:
        expression: what to write.
        own: name of the coordinate whose image this is.
    """
    if isinstance(expression, sympy.Add):
        return _sum(expression, own)
    if isinstance(expression, sympy.Mul):
        return _product(expression)
    if isinstance(expression, sympy.Pow):
        return _power(expression)
    if isinstance(expression, sympy.exp) or expression.is_Function:
        return f"{type(expression).__name__}({show(expression.args[0])})"
    return str(expression).replace("epsilon", "ε")


def _sum(expression: sympy.Expr, own: str | None = None) -> str:
    return _signed(show(term) for term in _terms(expression, own))


def _signed(terms: Iterable[str]) -> str:
    """Join terms, each of which may begin with a minus."""
    text = ""
    for term in terms:
        body = term.removeprefix("-")
        text += f" {'+' if body == term else '-'} {body}" if text else term
    return text


def _terms(expression: sympy.Expr, own: str | None = None) -> list[sympy.Expr]:
    """The terms of a sum in the order in which they are written: its own coordinate, then by powers of epsilon."""
    symbol = sympy.Symbol(own) if own else None

    def order(term: sympy.Expr) -> tuple[int, int, int, int, str]:
        powers = [f.as_base_exp()[1] for f in sympy.Mul.make_args(term) if f.as_base_exp()[0] == _EPSILON]
        degree = int(powers[0]) if powers and powers[0].is_Integer else int(term.has(_EPSILON))
        mine = symbol is not None and term.has(symbol)
        negative = term.could_extract_minus_sign()
        return (0 if mine else 1, degree, int(negative), len(str(term)), str(term))

    return sorted(sympy.Add.make_args(expression), key=order)


def _product(expression: sympy.Expr) -> str:
    negative, factors = False, []
    for factor in sympy.Mul.make_args(expression):
        base, exponent = factor.as_base_exp()
        if factor.is_number and factor.could_extract_minus_sign():
            factor, negative = -factor, not negative
        elif isinstance(base, sympy.Add) and exponent.is_Integer and _terms(base)[0].could_extract_minus_sign():
            factor, negative = (-base) ** exponent, negative ^ bool(exponent % 2)  # (1 - ε t) rather than (-1 + ε t)
        factors.append(factor)
    over, under = sympy.fraction(sympy.Mul(*factors, evaluate=False), exact=True)
    top, bottom = _factors(over), _factors(under)
    many = len(_parts(under)) > 1
    return ("-" if negative else "") + (top if under == 1 else f"{top}/{f'({bottom})' if many else bottom}")


def _parts(expression: sympy.Expr) -> list[sympy.Expr]:
    def order(factor: sympy.Expr) -> tuple[int, str]:
        base = factor.as_base_exp()[0]
        if factor.is_number:
            return (0, str(factor))
        if isinstance(factor, sympy.exp) or factor.is_Function:
            return (4, str(factor))
        if base.is_Symbol:
            return (2 if base == _EPSILON else 1 if len(str(base)) > 1 else 3, str(factor))
        return (5, str(factor))

    return sorted((f for f in sympy.Mul.make_args(expression) if f != 1), key=order)


def _factors(expression: sympy.Expr) -> str:
    parts = _parts(expression)
    if not parts:
        return "1"
    return " ".join(f"({_sum(p)})" if isinstance(p, sympy.Add) else show(p) for p in parts)


def _power(expression: sympy.Expr) -> str:
    base, exponent = expression.as_base_exp()
    if exponent.could_extract_minus_sign():
        below = show(base**-exponent)
        simple = base.is_Symbol or isinstance(base**-exponent, sympy.exp) or exponent == -sympy.Rational(1, 2)
        return f"1/{below}" if simple else f"1/({below})"
    if exponent == sympy.Rational(1, 2):
        return f"sqrt({show(base)})"
    if isinstance(base, sympy.Add) and exponent.is_even and _terms(base)[0].could_extract_minus_sign():
        base = -base
    below = show(base) if base.is_Symbol or base.is_Function else f"({show(base)})"
    return f"{below}^{show(exponent)}" if exponent.is_Integer or exponent.is_Symbol else f"{below}^({show(exponent)})"


def vector_field(generator: SymmetryGenerator) -> str:
    """Return a generator as text, ``t ∂x + ∂u``."""
    terms = []
    for name, component in generator.expressions().items():
        body = f"({show(component)})" if component.is_Add else show(component)
        if component != 0:
            terms.append({"1": f"∂{name}", "-1": f"-∂{name}"}.get(body, f"{body} ∂{name}"))
    return _signed(terms) or "0"


def images(maps: Mapping[str, sympy.Expr], variables: Sequence[str]) -> dict[str, str]:
    """Return the images that differ from the identity as text, tidied.

    Args:
        maps: coordinate -> its image, as :class:`pdessl.symmetry.Flow` holds them.
        variables: names of the space axes and fields.
    """
    return {n: show(tidy(e, variables), own=n) for n, e in maps.items() if e != sympy.Symbol(n)}
