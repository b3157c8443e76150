"""Checks for anybody's transformations: is this map really a symmetry of this equation?

The check is finite and needs no generator: take a random jet of a solution with exact rational coordinates, transform
it, and evaluate the equation on the image, with 40 digits. Jets are truncated Taylor series, so that the chain rule is
carried out by arithmetic on series, and any map written with + - * / ** and elementary functions can be checked.
"""

# J multi-index of derivatives, d + 1 independent variables (time and space)

from __future__ import annotations

import functools
import inspect
import itertools
import math
import operator
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import mpmath
import sympy

from pdessl.equations import Equation, load_equation, parse_expression
from pdessl.equations.expression import Derivative, Expression, Names, Number, Sum, evaluate, walk
from pdessl.errors import EquationError, SymmetryError, did_you_mean
from pdessl.symmetry.flow import EPSILON, Flow
from pdessl.symmetry.generator import SymmetryGenerator, to_sympy
from pdessl.symmetry.prolongation import PDESystem
from pdessl.symmetry.taylor import TaylorSeries, inverse_matrix
from pdessl.symmetry.verification import symmetries

__all__ = ["TaylorSeries", "assert_symmetry", "finite_residual"]

_DIGITS = 40

Map = SymmetryGenerator | Flow | Mapping[str, Any] | Callable[..., Mapping[str, Any]]


def assert_symmetry(
    transformation: Map,
    equation: str | Equation | None = None,
    strengths: Iterable[float] = (-0.2, 0.05, 0.3),
    trials: int = 2,
    seed: int = 0,
    tolerance: float = 1e-30,
) -> None:
    """Raise unless the transformation maps solutions of the equation to solutions.

    Args:
        transformation: one of
            a :class:`SymmetryGenerator` or a :class:`Flow`;
            a dictionary coordinate -> image, as text (a polynomial) or sympy expression, with ``epsilon`` for the
            strength, ``{"x": "x + epsilon*t", "u": "u + epsilon"}``; coordinates that are absent stay;
            a function ``f(epsilon, t, x, u) -> {coordinate: image}`` of those coordinates and parameters that it names,
            or of all by ``**coordinates``; they support ``+ - * / **`` and ``numpy.exp`` and the like.
            A map that moves a parameter gives its image too, ``{"nu": ...}``.
        equation: name in the catalog, or an :class:`Equation`; a generator brings its own.
        strengths: values of epsilon to try.
        trials: random jets per strength.
        seed: of the random jets.
        tolerance: largest residual, relative to the largest term of the equation.

    Raises:
        SymmetryError: not a symmetry (equation, strength and residual are named), or a map that cannot be evaluated.

    Source: the transformed derivatives are D' = A⁻¹ D with A = D x'; Olver (1993), section 2.3.
    """
    for strength in strengths:
        for trial in range(trials):
            residuals = finite_residual(transformation, equation, strength, seed + trial)
            for (text, residual), number in zip(residuals.items(), itertools.count(1)):
                if not residual <= tolerance:
                    raise SymmetryError(
                        f"not a symmetry: at epsilon = {strength} equation {number}, '{text}', is left with residual "
                        f"{residual:.1e} of its largest term (tolerance {tolerance:.0e}). "
                        + (
                            _nearest(transformation, equation)
                            or "If the map also changes a parameter, give the image of that parameter; else check its "
                            "signs, powers and factors."
                        )
                    )


def finite_residual(
    transformation: Map, equation: str | Equation | None = None, strength: float = 0.1, seed: int = 0
) -> dict[str, float]:
    """Return, per equation, the residual on the image of one random jet, relative to the largest term of the equation.

    Arguments as in :func:`assert_symmetry`.
    """
    if equation is None:
        if not isinstance(transformation, SymmetryGenerator):
            raise SymmetryError("say which equation: assert_symmetry(my_map, 'burgers').")
        equation = transformation.equation
    loaded = load_equation(equation)
    with mpmath.workdps(_DIGITS):
        jet = _random_jet(loaded, seed)
        images = _images(transformation, loaded, mpmath.mpf(strength), jet)
        return _residuals(loaded, images)


def _nearest(transformation: Map, equation: str | Equation | None) -> str | None:
    """Say which declared generator the map resembles to first order in epsilon, and where it departs from it.

    None where no generator is declared, or the map is not the identity at epsilon = 0.
    """
    loaded = load_equation(equation if equation is not None else transformation.equation)  # type: ignore[union-attr]
    generators = list(symmetries(loaded))
    jets = [_random_jet(loaded, seed) for seed in range(100, 103)]
    with mpmath.workdps(_DIGITS):
        speeds = _speeds(transformation, loaded, jets)
        if speeds is None or not generators:
            return None
        best: tuple[tuple[int, int], str] = ((0, 0), "")
        for generator in generators:
            images = {c: to_sympy(tree) for c, tree in generator.trees.items()}
            known = [{c: _series(e, _values(jet)) for c, e in images.items()} for jet in jets]
            moved = [c for c in loaded.coordinates if c in images or any(abs(s[c]) > 1e-6 for s in speeds)]
            for lead in images:
                factor = speeds[0][lead] / known[0][lead] if known[0][lead] else mpmath.mpf(0)
                if abs(factor) < 1e-6:
                    continue
                pairs = list(zip(speeds, known, strict=True))
                same = [
                    c for c in moved if all(abs(s[c] - factor * k.get(c, 0)) < 1e-5 * (1 + abs(s[c])) for s, k in pairs)
                ]
                off = [c for c in moved if c not in same]
                score = (len(same), sum(c in loaded.independent for c in same))  # time and space before fields
                if off and score > best[0]:
                    times = "" if abs(factor - 1) < 1e-5 else f"{float(factor):.3g} times "
                    meant = ", ".join(f"{c} by {times}{generator.components.get(c, '0')}" for c in off)
                    like = f"{', '.join(same)} as {times}'{generator.name}' does"
                    best = (score, f"To first order it moves {like}, which moves {meant}.")
    return best[1] or (
        f"No generator of {loaded.name} moves a coordinate like that: {', '.join(g.name for g in generators)}."
    )


def _speeds(transformation: Map, equation: Equation, jets: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The derivative of every coordinate's image by epsilon at 0; None if the map is not the identity there."""
    step, speeds = mpmath.mpf("1e-6"), []
    for jet in jets:
        try:
            after, before = (_values(_images(transformation, equation, e, jet)) for e in (step, -step))
        except (SymmetryError, ArithmeticError, ValueError):
            return None
        if any(abs((after[c] + before[c]) / 2 - v) > 1e-6 * (1 + abs(v)) for c, v in _values(jet).items()):
            return None
        speeds.append({c: (after[c] - before[c]) / (2 * step) for c in jet})
    return speeds


def _values(coordinates: Mapping[str, Any]) -> dict[str, Any]:
    return {c: v.value if isinstance(v, TaylorSeries) else v for c, v in coordinates.items()}


# ------------------------------------------------------------------------------------------------ transforming


def _images(transformation: Map, equation: Equation, strength: Any, jet: dict[str, Any]) -> dict[str, Any]:
    if isinstance(transformation, SymmetryGenerator):
        transformation = transformation.flow
    if isinstance(transformation, Flow):
        transformation = transformation.maps
    if isinstance(transformation, Mapping):
        names = Names(equation.independent, equation.dependent, (*equation.parameters, EPSILON.name))
        images = {}
        for coordinate, image in transformation.items():
            tree = image if isinstance(image, sympy.Expr) else _parsed(str(image), coordinate, names)
            images[coordinate] = _series(tree, {**jet, EPSILON.name: strength})
    else:
        try:
            images = dict(transformation(strength, **_asked_for(transformation, jet)))
        except TypeError as error:
            raise SymmetryError(
                f"the map cannot be evaluated on a Taylor series ({error}). Call it as f(epsilon, "
                f"{', '.join(f'{n}=...' for n in jet)}) and use + - * / ** and numpy functions."
            ) from error
    unknown = [n for n in images if n not in jet]
    if unknown:
        raise SymmetryError(
            f"the map gives an image of '{unknown[0]}', which {equation.name} does not have."
            f"{did_you_mean(unknown[0], jet)} Coordinates: {', '.join(jet)}."
        )
    return {**jet, **images}


def _parsed(text: str, coordinate: str, names: Names) -> sympy.Expr:
    try:
        return to_sympy(parse_expression(text, names))
    except EquationError as error:
        raise SymmetryError(
            f"the image of '{coordinate}': {error}\nText holds polynomials. With exp, sin, ... pass a sympy "
            f"expression, or a function f(epsilon, t, ...) -> {{coordinate: image}}."
        ) from None


def _asked_for(function: Callable[..., Any], jet: dict[str, Any]) -> dict[str, Any]:
    """Return the coordinates that a function has arguments for; all if that is not known."""
    try:
        arguments = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return jet
    if any(a.kind is inspect.Parameter.VAR_KEYWORD for a in arguments.values()):
        return jet
    return {name: value for name, value in jet.items() if name in arguments}


def _series(expression: sympy.Expr, values: Mapping[str, Any]) -> Any:
    """Evaluate a sympy expression on series, by walking the tree."""
    if expression.is_Symbol:
        if expression.name not in values:
            raise SymmetryError(
                f"the map contains '{expression.name}', which is no coordinate; write epsilon for its strength."
            )
        return values[expression.name]
    if expression.is_number:
        return (
            mpmath.mpf(sympy.N(expression, _DIGITS + 5)._mpf_)
            if not expression.is_Rational
            else (mpmath.mpf(int(expression.p)) / int(expression.q))
        )
    arguments = [_series(a, values) for a in expression.args]
    if expression.is_Add:
        return functools.reduce(operator.add, arguments)
    if expression.is_Mul:
        return functools.reduce(operator.mul, arguments)
    if expression.is_Pow:
        return arguments[0] ** (int(expression.exp) if expression.exp.is_Integer else arguments[1])
    name = expression.func.__name__
    argument = arguments[0]
    if name not in _ELEMENTARY:
        raise SymmetryError(f"the map contains '{name}'; known functions: {', '.join(_ELEMENTARY)}.")
    return getattr(argument, name)() if isinstance(argument, TaylorSeries) else getattr(mpmath, name)(argument)


_ELEMENTARY = ("exp", "log", "sin", "cos", "sinh", "cosh")


def _residuals(equation: Equation, images: Mapping[str, Any]) -> dict[str, float]:
    order = max((len(n.by) for tree in equation.trees for n in walk(tree) if isinstance(n, Derivative)), default=0)
    axes, count = equation.independent, len(equation.independent)
    as_series = {
        n: v if isinstance(v, TaylorSeries) else TaylorSeries.constant(v, count, order) for n, v in images.items()
    }
    for name in equation.parameters:
        if any(c != 0 for j, c in as_series[name].coefficients.items() if any(j)):
            raise SymmetryError(f"the image of the parameter '{name}' varies in space or time; it must not.")
    inverse = inverse_matrix([[as_series[a].derivative(i) for a in axes] for i in range(count)])
    derivatives: dict[tuple[str, tuple[str, ...]], TaylorSeries] = {}

    def derived(field: str, by: tuple[str, ...]) -> TaylorSeries:
        if not by:
            return as_series[field]
        key = (field, tuple(sorted(by)))
        if key not in derivatives:
            inner, row = derived(field, key[1][1:]), inverse[axes.index(key[1][0])]
            derivatives[key] = functools.reduce(operator.add, [row[j] * inner.derivative(j) for j in range(count)])
        return derivatives[key]

    def leaf(node: Any) -> Any:
        if isinstance(node, Number):
            return mpmath.mpf(node.value.numerator) / node.value.denominator
        if isinstance(node, Derivative):
            return derived(node.field, tuple(node.by)).value
        return as_series[node.name].value

    found = {}
    for text, tree in zip(equation.texts, equation.trees, strict=True):
        terms = [evaluate(term, leaf) for term in _terms(tree)]
        scale = max(abs(t) for t in terms)
        found[text] = float(abs(mpmath.fsum(terms)) / scale) if scale else 0.0
    return found


def _terms(tree: Expression) -> Sequence[Expression]:
    return tree.terms if isinstance(tree, Sum) else (tree,)


# ------------------------------------------------------------------------------------------------ jets


def _random_jet(equation: Equation, seed: int) -> dict[str, Any]:
    """Taylor series of every coordinate at a random rational point of a random solution.

    Parametric derivatives are drawn; the derivatives that the equation and its consequences fix are computed from them.
    """
    draw = random.Random(seed)
    system = PDESystem(equation)
    space, count = system.space, len(equation.independent)
    order = max(len(n.by) for tree in equation.trees for n in walk(tree) if isinstance(n, Derivative))
    values: dict[int, Fraction] = {}

    def value(number: int) -> Fraction:
        if number in system.reciprocals:
            return 1 / value(system.reciprocals.letter(number))
        if number not in values:
            fraction = Fraction(draw.choice((1, 2, 3, 5, 7, 8)), draw.choice((4, 9, 10, 11)))
            values[number] = fraction if count <= number < space.base else fraction * draw.choice((-1, 1))
        return values[number]

    def exact(number: int) -> Fraction:
        reduced = system.reduce(space.variable(number))
        terms = (c * math.prod(value(k) ** e for k, e in space.exponents(m)) for m, c in reduced.items())
        return Fraction(sum(terms))

    jet: dict[str, Any] = {}
    for i, name in enumerate(equation.independent):
        step = tuple(int(k == i) for k in range(count))
        start = value(space.number(name))
        jet[name] = TaylorSeries({(0,) * count: _real(start), step: mpmath.mpf(1)}, count, order)
    for a, name in enumerate(equation.dependent):
        coefficients = {}
        for index in itertools.product(range(order + 1), repeat=count):
            if sum(index) <= order:
                factorial = math.prod(math.factorial(k) for k in index)
                coefficients[index] = _real(exact(space.jet(a, index)) / factorial)
        jet[name] = TaylorSeries(coefficients, count, order)
    for name in equation.parameters:
        jet[name] = _real(value(space.number(name)))
    return jet


def _real(fraction: Fraction) -> Any:
    return mpmath.mpf(fraction.numerator) / fraction.denominator
