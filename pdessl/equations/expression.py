"""Expressions as trees, and the names they may use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from pdessl.errors import EquationError

__all__ = [
    "Derivative",
    "Expression",
    "Names",
    "Number",
    "Power",
    "Product",
    "Sum",
    "Variable",
    "evaluate",
    "negative",
    "product_of",
    "sum_of",
    "total_derivative",
    "walk",
]


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational number."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Variable:
    """An independent variable or a parameter."""

    name: str


@dataclass(frozen=True, slots=True)
class Derivative:
    """A field or arbitrary function (``by`` empty) or one of its derivatives; ``by`` holds sorted letters."""

    field: str
    by: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The derivative as it is written: ``u_xx``."""
        return f"{self.field}_{''.join(self.by)}" if self.by else self.field


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of two or more terms."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """The product of two or more factors."""

    factors: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Power:
    """A base to a whole power."""

    base: Expression
    exponent: int


Expression = Number | Variable | Derivative | Sum | Product | Power


@dataclass(frozen=True)
class Names:
    """The names a text may use.

    Args:
        independent: single letters, time and space.
        dependent: the fields.
        parameters: constants of the equation.
        functions: arbitrary functions that a family of generators may contain.
    """

    independent: tuple[str, ...]
    dependent: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for group, names in (
            ("independent variable", self.independent),
            ("field", self.dependent),
            ("parameter", self.parameters),
            ("function", self.functions),
        ):
            for name in names:
                if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                    raise EquationError(
                        f"'{name}' cannot be the name of a {group}: use ASCII letters and digits, a letter first."
                    )
                if group == "independent variable" and len(name) != 1:
                    raise EquationError(
                        f"independent variable '{name}' must be a single letter, because derivatives are "
                        f"written u_{name[0]}."
                    )
                if group in ("field", "function") and "_" in name:
                    raise EquationError(f"{group} '{name}' must not contain '_', which marks derivatives.")
                if name in seen:
                    raise EquationError(f"'{name}' is declared twice: as {seen[name]} and as {group}.")
                seen[name] = group
        for name in self.parameters:
            head = name.split("_", 1)[0]
            if "_" in name and seen.get(head) in ("field", "function"):
                raise EquationError(f"parameter '{name}' reads like a derivative of '{head}'; rename it.")

    @property
    def all(self) -> tuple[str, ...]:
        """All names, independents first."""
        return (*self.independent, *self.dependent, *self.parameters, *self.functions)


def sum_of(terms: Sequence[Expression]) -> Expression:
    """The sum, folded where it is a number or has one term."""
    if len(terms) == 1:
        return terms[0]
    if all(isinstance(t, Number) for t in terms):
        return Number(sum((t.value for t in terms if isinstance(t, Number)), Fraction(0)))
    return Sum(tuple(terms))


def product_of(factors: Sequence[Expression]) -> Expression:
    """The product, its numbers folded into one in front."""
    number = Fraction(1)
    rest: list[Expression] = []
    for factor in factors:
        if isinstance(factor, Number):
            number *= factor.value
        else:
            rest.append(factor)
    if not rest or number == 0:
        return Number(number)
    if number != 1:
        rest.insert(0, Number(number))
    return rest[0] if len(rest) == 1 else Product(tuple(rest))


def total_derivative(tree: Expression, letter: str, order: Sequence[str]) -> Expression:
    """D_letter of an expression by the rules of sums, products and powers; parameters are constants."""
    match tree:
        case Derivative(field=field, by=by):
            return Derivative(field, tuple(sorted((*by, letter), key=order.index)))
        case Sum(terms=terms):
            parts = [total_derivative(term, letter, order) for term in terms]
            return sum_of([p for p in parts if p != Number(Fraction(0))] or [Number(Fraction(0))])
        case Product(factors=factors):
            parts = [
                product_of([*factors[:i], total_derivative(factor, letter, order), *factors[i + 1 :]])
                for i, factor in enumerate(factors)
            ]
            return sum_of([p for p in parts if p != Number(Fraction(0))] or [Number(Fraction(0))])
        case Power(base=base, exponent=exponent):
            lowered = base if exponent == 2 else Power(base, exponent - 1)
            return product_of([Number(Fraction(exponent)), lowered, total_derivative(base, letter, order)])
        case Variable(name=name):
            return Number(Fraction(name == letter))
    return Number(Fraction(0))


def negative(tree: Expression) -> Expression:
    """The expression with the other sign."""
    return product_of([Number(Fraction(-1)), *(tree.factors if isinstance(tree, Product) else (tree,))])


def walk(tree: Expression) -> Iterator[Expression]:
    """Yield every node of a tree."""
    stack = [tree]
    while stack:
        node = stack.pop()
        yield node
        match node:
            case Sum(terms=children) | Product(factors=children):
                stack.extend(children)
            case Power(base=base):
                stack.append(base)


Value = TypeVar("Value")


def evaluate(tree: Expression, leaf: Callable[[Number | Variable | Derivative], Value]) -> Value:
    """Evaluate a tree by ``+``, ``*``, ``**`` of the type that ``leaf`` returns for numbers, variables, derivatives."""
    match tree:
        case Sum(terms=terms):
            total: Any = evaluate(terms[0], leaf)
            for term in terms[1:]:
                total = total + evaluate(term, leaf)
            return total
        case Product(factors=factors):
            product: Any = evaluate(factors[0], leaf)
            for factor in factors[1:]:
                product = product * evaluate(factor, leaf)
            return product
        case Power(base=base, exponent=exponent):
            raised: Any = evaluate(base, leaf)
            return raised**exponent
        case _:
            return leaf(tree)
