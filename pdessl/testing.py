"""Checks for anybody's transformations: is this map really a symmetry of this equation?

The check is finite and needs no generator: take a random jet of a solution with exact rational coordinates, transform
it, and evaluate the equation on the image, with 40 digits. Jets are truncated Taylor series, so that the chain rule is
carried out by arithmetic on series, and any map written with + - * / ** and elementary functions can be checked.
"""

# J multi-index of derivatives, d + 1 independent variables (time and space)

from __future__ import annotations

import inspect
import itertools
import math
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
                        f"{residual:.1e} of its largest term (tolerance {tolerance:.0e}). If the map also changes a "
                        "parameter, give the image of that parameter; else check its signs, powers and factors."
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
        return mpmath.mpf(sympy.N(expression, _DIGITS + 5)._mpf_) if not expression.is_Rational else (
            mpmath.mpf(int(expression.p)) / int(expression.q)
        )
    arguments = [_series(a, values) for a in expression.args]
    if expression.is_Add:
        return _fold(arguments, lambda a, b: a + b)
    if expression.is_Mul:
        return _fold(arguments, lambda a, b: a * b)
    if expression.is_Pow:
        return arguments[0] ** (int(expression.exp) if expression.exp.is_Integer else arguments[1])
    name = expression.func.__name__
    argument = arguments[0]
    if name not in _ELEMENTARY:
        raise SymmetryError(f"the map contains '{name}'; known functions: {', '.join(_ELEMENTARY)}.")
    return getattr(argument, name)() if isinstance(argument, TaylorSeries) else getattr(mpmath, name)(argument)


_ELEMENTARY = ("exp", "log", "sin", "cos", "sinh", "cosh")


def _fold(items: Sequence[Any], operation: Callable[[Any, Any], Any]) -> Any:
    total = items[0]
    for item in items[1:]:
        total = operation(total, item)
    return total


def _residuals(equation: Equation, images: Mapping[str, Any]) -> dict[str, float]:
    order = max((len(n.by) for tree in equation.trees for n in walk(tree) if isinstance(n, Derivative)), default=0)
    axes, count = equation.independent, len(equation.independent)
    as_series = {
        n: v if isinstance(v, TaylorSeries) else TaylorSeries.constant(v, count, order) for n, v in images.items()
    }
    for name in equation.parameters:
        if any(c != 0 for j, c in as_series[name].coefficients.items() if any(j)):
            raise SymmetryError(f"the image of the parameter '{name}' varies in space or time; it must not.")
    inverse = _inverse([[as_series[a].derivative(i) for a in axes] for i in range(count)])
    derivatives: dict[tuple[str, tuple[str, ...]], TaylorSeries] = {}

    def derived(field: str, by: tuple[str, ...]) -> TaylorSeries:
        if not by:
            return as_series[field]
        key = (field, tuple(sorted(by)))
        if key not in derivatives:
            inner, row = derived(field, key[1][1:]), inverse[axes.index(key[1][0])]
            derivatives[key] = _fold([row[j] * inner.derivative(j) for j in range(count)], lambda a, b: a + b)
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


def _inverse(matrix: list[list[TaylorSeries]]) -> list[list[TaylorSeries]]:
    """Invert a matrix of series by Gauss-Jordan elimination, pivoting on the constant terms."""
    n = len(matrix)
    unit = matrix[0][0]
    rows = [[*row, *[TaylorSeries.constant(int(i == k), unit.variables, unit.order) for k in range(n)]]
            for i, row in enumerate(matrix)]
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(rows[i][k].value))
        if rows[pivot][k].value == 0:
            raise SymmetryError("the map of time and space is not invertible at a random point.")
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [e / rows[k][k] for e in rows[k]]
        for i in range(n):
            if i != k:
                rows[i] = [a - rows[i][k] * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]


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
        if number not in values:
            fraction = Fraction(draw.choice((1, 2, 3, 5, 7, 8)), draw.choice((4, 9, 10, 11)))
            values[number] = fraction if count <= number < space.base else fraction * draw.choice((-1, 1))
        return values[number]

    def exact(number: int) -> Fraction:
        reduced = system.reduce(space.variable(number))
        terms = (c * math.prod(value(k) ** e for k, e in space.exponents(m)) for m, c in reduced.items())
        return sum(terms, Fraction(0))

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


class TaylorSeries:
    """A power series in several variables, truncated at a total order, with multiple-precision coefficients.

    Args:
        coefficients: multi-index -> coefficient.
        variables: number of variables.
        order: highest total degree kept.
    """

    def __init__(self, coefficients: Mapping[tuple[int, ...], Any], variables: int, order: int) -> None:
        self.coefficients = {j: c for j, c in coefficients.items() if sum(j) <= order}
        self.variables, self.order = variables, order

    @staticmethod
    def constant(value: Any, variables: int, order: int) -> TaylorSeries:
        """Return a number as a series."""
        return TaylorSeries({(0,) * variables: mpmath.mpf(value)}, variables, order)

    @property
    def value(self) -> Any:
        """The constant term."""
        return self.coefficients.get((0,) * self.variables, mpmath.mpf(0))

    def derivative(self, variable: int) -> TaylorSeries:
        """Return the derivative with respect to one variable, one order lower."""
        lowered = {}
        for index, c in self.coefficients.items():
            if index[variable]:
                lower = tuple(e - (k == variable) for k, e in enumerate(index))
                lowered[lower] = c * index[variable]
        return TaylorSeries(lowered, self.variables, max(self.order - 1, 0))

    def _as_series(self, other: Any) -> TaylorSeries:
        return other if isinstance(other, TaylorSeries) else TaylorSeries.constant(other, self.variables, self.order)

    def __add__(self, other: Any) -> TaylorSeries:
        other = self._as_series(other)
        total = dict(self.coefficients)
        for index, c in other.coefficients.items():
            total[index] = total.get(index, 0) + c
        return TaylorSeries(total, self.variables, min(self.order, other.order))

    __radd__ = __add__

    def __neg__(self) -> TaylorSeries:
        return TaylorSeries({j: -c for j, c in self.coefficients.items()}, self.variables, self.order)

    def __sub__(self, other: Any) -> TaylorSeries:
        return self + (-self._as_series(other))

    def __rsub__(self, other: Any) -> TaylorSeries:
        return -self + other

    def __mul__(self, other: Any) -> TaylorSeries:
        other = self._as_series(other)
        order = min(self.order, other.order)
        product: dict[tuple[int, ...], Any] = {}
        for i, a in self.coefficients.items():
            if a == 0:
                continue
            room = order - sum(i)
            for j, b in other.coefficients.items():
                if sum(j) <= room:
                    index = tuple(map(sum, zip(i, j, strict=True)))
                    product[index] = product.get(index, 0) + a * b
        return TaylorSeries(product, self.variables, order)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> TaylorSeries:
        return self * self._as_series(other) ** -1

    def __rtruediv__(self, other: Any) -> TaylorSeries:
        return self._as_series(other) / self

    def __floordiv__(self, other: Any) -> TaylorSeries:
        raise TypeError("'//' rounds down and is no smooth map; '/' was probably meant")

    __rfloordiv__ = __floordiv__

    def __pow__(self, power: Any) -> TaylorSeries:
        if isinstance(power, TaylorSeries):
            return (self.log() * power).exp()
        if isinstance(power, int) and power >= 0:
            return _fold([self._as_series(1)] + [self] * power, lambda a, b: a * b)
        start = self.value
        if start == 0:
            raise SymmetryError(f"the map takes the power {power} of 0 at a random point.")
        return self._composed([start ** (power - k) * mpmath.binomial(power, k) for k in range(self.order + 1)])

    def __rpow__(self, base: Any) -> TaylorSeries:
        return (self * mpmath.log(base)).exp()

    def _composed(self, outer: Sequence[Any]) -> TaylorSeries:
        """Sum outer[k] h^k with h the series without its constant term (Horner)."""
        rest = self - self.value
        total = self._as_series(outer[-1])
        for c in reversed(outer[:-1]):
            total = total * rest + c
        return total

    def exp(self) -> TaylorSeries:
        """Return e to this series."""
        return self._composed([mpmath.exp(self.value) / math.factorial(k) for k in range(self.order + 1)])

    def log(self) -> TaylorSeries:
        """Return the natural logarithm."""
        start = self.value
        if not start > 0:
            raise SymmetryError("the map takes the logarithm of a number <= 0 at a random point.")
        return self._composed([mpmath.log(start), *(-((-1 / start) ** k) / k for k in range(1, self.order + 1))])

    def sqrt(self) -> TaylorSeries:
        """Return the square root."""
        return self ** mpmath.mpf("0.5")

    def sin(self) -> TaylorSeries:
        """Return the sine."""
        quarter = mpmath.pi / 2
        return self._composed(
            [mpmath.sin(self.value + k * quarter) / math.factorial(k) for k in range(self.order + 1)]
        )

    def cos(self) -> TaylorSeries:
        """Return the cosine."""
        return (self + mpmath.pi / 2).sin()

    def sinh(self) -> TaylorSeries:
        """Return the hyperbolic sine."""
        return (self.exp() - (-self).exp()) / 2

    def cosh(self) -> TaylorSeries:
        """Return the hyperbolic cosine."""
        return (self.exp() + (-self).exp()) / 2
