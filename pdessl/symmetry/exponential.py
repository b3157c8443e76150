"""Exponentials of vector fields: closed flows, solved for and checked.

The coordinates z = (t, x, u, μ) obey dz/dε = V(z). The dependency graph of V is split into strongly connected
components and solved in topological order, each solved flow being substituted into the next as a function of ε. A
component is a quadrature, an affine or Riccati equation, or a linear block; anything else is refused, never
approximated. Every flow is checked before it is returned: dz/dε = V(z) and z(0) = identity, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy

from pdessl.errors import SymmetryError
from pdessl.symmetry.flow import EPSILON, Flow, as_expression, names_of, polynomial_in

__all__ = ["exponentiate"]

# Solved with assumptions (real coordinates, positive parameters) so that square roots simplify; published without.
_EPS = sympy.Symbol("epsilon", real=True)


def exponentiate(
    components: Mapping[str, sympy.Expr],
    independent: Sequence[str],
    dependent: Sequence[str],
    parameters: Sequence[str] = (),
) -> Flow:
    """Return the flow of the vector field with the given components, in closed form and checked.

    Args:
        components: expression per coordinate (missing ones are 0), in plain symbols named like the coordinates.
        independent: names of the independent variables, time first.
        dependent: names of the fields.
        parameters: letters of the parameters.

    Raises:
        SymmetryError: a component that no closed form of the class covers, or that is text; the message names it.

    Source: design of the class: quadratures, affine, Riccati (Moebius) and linear blocks over the dependency graph;
        Olver, Applications of Lie Groups to Differential Equations (1993), section 1.3, for flows.
    """
    names = (*independent, *dependent, *parameters)
    unknown = [n for n in components if n not in names]
    if unknown:
        raise SymmetryError(f"component '{unknown[0]}' is no coordinate; the coordinates are {', '.join(names)}.")
    plain = {n: sympy.Symbol(n) for n in names}
    if "epsilon" in plain:
        raise SymmetryError("a coordinate is named 'epsilon', the name of the flow's strength; rename it.")
    own = {n: sympy.Symbol(n, real=True) if n not in parameters else sympy.Symbol(n, positive=True) for n in names}
    given = {n: as_expression(components.get(n, 0), n) for n in names}
    field = {own[n]: given[n].xreplace({plain[k]: own[k] for k in names}) for n in names}
    stray = set().union(*[e.free_symbols for e in field.values()]) - set(own.values())
    if stray:
        raise SymmetryError(f"the components contain {names_of(stray)}, which is no coordinate ({', '.join(names)}).")

    solved: dict[sympy.Symbol, sympy.Expr] = {}
    for block in _components(field):
        speeds = [field[z].subs(solved, simultaneous=True) for z in block]
        solution = _solve_single(block[0], speeds[0]) if len(block) == 1 else _solve_linear(block, speeds)
        solved |= {z: _tidy(e, own.values()) for z, e in zip(block, solution, strict=True)}
    _check(field, solved)
    back = {own[n]: plain[n] for n in names} | {_EPS: EPSILON}
    maps = {n: solved[own[n]].xreplace(back) for n in names}
    return Flow(maps, tuple(independent), tuple(dependent), tuple(parameters))


def _components(field: Mapping[sympy.Symbol, sympy.Expr]) -> list[list[sympy.Symbol]]:
    """Strongly connected components of the dependency graph, dependencies first."""
    nodes = list(field)
    edges = [(z, w) for z in nodes for w in field[z].free_symbols if w in field]
    blocks = sympy.utilities.iterables.strongly_connected_components((nodes, edges))
    return [sorted(block, key=nodes.index) for block in blocks]


def _solve_single(z: sympy.Symbol, speed: sympy.Expr) -> list[sympy.Expr]:
    """Solve dz/dε = c z² + b z + a with c, b, a functions of ε (constants where c is not 0)."""
    if not speed.has(z):
        return [z + _integral(speed)]
    polynomial = polynomial_in(speed, [z])
    neither = SymmetryError(f"no closed form for d{z}/dε = {speed}: neither affine nor Riccati with constants.")
    if polynomial is None or polynomial.degree() > 2:
        raise neither
    a, b, c = (polynomial.coeff_monomial(z**k) for k in range(3))
    if c != 0 and any(e.has(_EPS) for e in (a, b, c)):
        raise neither
    if c != 0:
        e = _exp2(sympy.Matrix([[b / 2, a], [-c, -b / 2]]) * _EPS)
        return [(e[0, 0] * z + e[0, 1]) / (e[1, 0] * z + e[1, 1])]
    growth = sympy.exp(_integral(b))
    return [growth * (z + _integral(sympy.simplify(a / growth)))]


def _solve_linear(block: list[sympy.Symbol], speeds: list[sympy.Expr]) -> list[sympy.Expr]:
    """Solve dz/dε = M z + b for several coupled coordinates."""
    named = ", ".join(f"d{z}/dε = {v}" for z, v in zip(block, speeds, strict=True))
    if any(sympy.diff(v, z).has(*block) for v in speeds for z in block):
        raise SymmetryError(f"no closed form for the coupled system {named}: it is not linear.")
    matrix = sympy.Matrix([[sympy.diff(v, z) for z in block] for v in speeds])
    zero = dict.fromkeys(block, 0)
    inhomogeneous = sympy.Matrix([v.subs(zero) for v in speeds])
    if matrix.has(_EPS):
        one, two = sympy.symbols("e1 e2", real=True)
        m1, m2 = matrix.subs(_EPS, one), matrix.subs(_EPS, two)
        if (m1 * m2 - m2 * m1).applyfunc(sympy.simplify) != sympy.zeros(len(block)):
            raise SymmetryError(
                f"no closed form for the coupled system {named}: its matrices at two strengths do not commute."
            )
        exponent = matrix.applyfunc(_integral)
    else:
        exponent = matrix * _EPS
    grow, shrink = _matrix_exponential(exponent), _matrix_exponential(-exponent)
    drive = (shrink * inhomogeneous).applyfunc(lambda e: sympy.trigsimp(sympy.expand(e))).applyfunc(_integral)
    return list((grow * (sympy.Matrix(block) + drive)).applyfunc(lambda e: sympy.trigsimp(sympy.expand(e))))


def _matrix_exponential(matrix: sympy.Matrix) -> sympy.Matrix:
    return _exp2(matrix) if matrix.shape == (2, 2) else matrix.exp().applyfunc(sympy.simplify)


def _exp2(matrix: sympy.Matrix) -> sympy.Matrix:
    """Exponential of a 2x2 matrix: e^a (cos ω + sin ω / ω N), N the trace-free part, ω² = det N."""
    half = matrix.trace() / 2
    rest = (matrix - half * sympy.eye(2)).applyfunc(sympy.expand)
    square = sympy.factor(sympy.expand(rest.det()))
    if square == 0:
        return sympy.exp(half) * (sympy.eye(2) + rest)
    # Both functions are even in ω, so any square root serves; posify avoids |t|.
    negative = sympy.posify(square)[0].is_negative
    positive, names = sympy.posify(-square if negative else square)
    omega = sympy.sqrt(positive).subs(names)
    cosine, sine = (sympy.cosh, sympy.sinh) if negative else (sympy.cos, sympy.sin)
    return sympy.exp(half) * (cosine(omega) * sympy.eye(2) + (sine(omega) / omega) * rest).applyfunc(sympy.cancel)


def _integral(speed: sympy.Expr) -> sympy.Expr:
    """Integral over the strength from 0 to ε, with logarithms combined to log(g(ε)/g(0)) so that they stay real."""
    if speed == 0:
        return sympy.Integer(0)
    if not speed.has(_EPS):
        return speed * _EPS
    speed = sympy.apart(sympy.together(speed), _EPS) if speed.is_rational_function(_EPS) else sympy.expand(speed)
    primitive = sympy.integrate(speed, _EPS)
    if primitive.has(sympy.Integral):
        raise SymmetryError(f"no closed form for the integral of {speed} over ε.")
    if primitive.has(sympy.Piecewise):
        primitive = sympy.piecewise_fold(primitive).args[0].expr
    for logarithm in primitive.atoms(sympy.log):
        inside = logarithm.args[0]
        if inside.has(_EPS):
            primitive = primitive.subs(logarithm, sympy.log(sympy.cancel(inside / inside.subs(_EPS, 0))))
    return sympy.expand(primitive - primitive.subs(_EPS, 0))


def _tidy(expression: sympy.Expr, coordinates: Any) -> sympy.Expr:
    """Bring a solved map to one fraction whose denominator is 1 at ε = 0, its numerator collected by coordinates."""
    expression = sympy.powsimp(sympy.expand(expression)) if expression.has(sympy.exp) else expression
    top, bottom = sympy.fraction(sympy.cancel(sympy.together(expression)))
    scale = bottom.subs(_EPS, 0)
    if scale.is_number and scale != 0:
        top, bottom = sympy.expand(top / scale), sympy.expand(bottom / scale)
    if bottom.has(_EPS):
        return sympy.collect(top, list(coordinates)) / bottom
    return sympy.collect(sympy.expand(top / bottom), list(coordinates))


def _check(field: Mapping[sympy.Symbol, sympy.Expr], solved: Mapping[sympy.Symbol, sympy.Expr]) -> None:
    for z, image in solved.items():
        start = sympy.simplify(image.subs(_EPS, 0) - z)
        drift = sympy.diff(image, _EPS) - field[z].subs(solved, simultaneous=True)
        drift = sympy.cancel(sympy.together(drift)) if not drift.has(sympy.cos, sympy.cosh) else sympy.expand(drift)
        if start != 0 or (drift != 0 and sympy.simplify(drift) != 0):
            raise SymmetryError(
                f"the closed form {z}' = {image} could not be confirmed: at ε = 0 it is off by {start}, and its "
                f"derivative by {sympy.simplify(drift)}."
            )
