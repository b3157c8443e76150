"""Expressions as trees, and the names they may use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from pdessl.errors import EquationError

__all__ = ["Derivative", "Expression", "Names", "Number", "Power", "Product", "Sum", "Variable", "evaluate", "walk"]


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
