"""SymmetryGenerator: a vector field on time, space, fields and parameters that a PDE admits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pdessl.equations import Equation, parse_expression
from pdessl.equations.expression import Derivative, Expression, Number, Variable, evaluate

if TYPE_CHECKING:
    import sympy

    from pdessl.symmetry.flow import Flow

__all__ = ["SymmetryGenerator", "to_sympy"]


def to_sympy(tree: Expression) -> sympy.Expr:
    """Build the sympy expression of a parsed tree, in plain symbols (``Symbol("u")``; no derivative may occur)."""
    import sympy  # 0.3 s; only closed-form flows need it

    def leaf(node: Number | Variable | Derivative) -> sympy.Expr:
        if isinstance(node, Number):
            return sympy.Rational(node.value.numerator, node.value.denominator)
        return sympy.Symbol(node.name if isinstance(node, Variable) else node.text)

    return evaluate(tree, leaf)


@dataclass(frozen=True, eq=False)
class SymmetryGenerator:
    """An infinitesimal symmetry: a vector field whose flow maps solutions to solutions.

        v = xi^i(x, u; mu) d/dx^i + phi^a(x, u; mu) d/du^a + pi^k(mu) d/dmu^k

    Args:
        name: human name.
        components: coordinate -> component text, ``{"x": "t", "u": "1"}``; absent coordinates have component 0.
        equation: the equation that admits it.
        strength_max: largest strength drawn by default, in ``strength_unit``; 0: not drawn by default.
        strength_unit: one of :data:`pdessl.equations.STRENGTH_UNITS`.
        family: name of the infinite family this is a member of, or None.
        named: False for a generator that was discovered and is not declared; such a generator is never drawn.
    """

    name: str
    components: Mapping[str, str]
    equation: Equation
    strength_max: float = 0.0
    strength_unit: str = "log"
    family: str | None = None
    named: bool = True
    _trees: Mapping[str, Expression] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        body = ", ".join(f"{c}: {text}" for c, text in self.components.items())
        return f"SymmetryGenerator({self.name}: {{{body}}})"

    def __eq__(self, other: object) -> bool:
        """Equal when both have the same components on the same coordinates, however they are written."""
        if not isinstance(other, SymmetryGenerator):
            return NotImplemented
        mine = {c: e.expand() for c, e in self.expressions().items() if e.expand() != 0}
        return mine == {c: e.expand() for c, e in other.expressions().items() if e.expand() != 0}

    def __hash__(self) -> int:
        return hash(frozenset(c for c, e in self.expressions().items() if e.expand() != 0))

    @cached_property
    def trees(self) -> dict[str, Expression]:
        """The components as parsed trees."""
        names = self.equation.names
        return {c: self._trees.get(c) or parse_expression(text, names) for c, text in self.components.items()}

    def expressions(self) -> dict[str, sympy.Expr]:
        """Return every coordinate (independents, fields, parameters) with its component as a sympy expression."""
        import sympy  # see to_sympy

        return {c: to_sympy(self.trees[c]) if c in self.trees else sympy.Integer(0) for c in self.equation.coordinates}

    @cached_property
    def moves(self) -> dict[str, str]:
        """The parameters that are moved, by the name users see -> component text (in the letters of the equation)."""
        zero = parse_expression("0", self.equation.names)
        return {
            self.equation.parameter_names[c]: text
            for c, text in self.components.items()
            if c in self.equation.parameters and self.trees[c] != zero
        }

    @property
    def kind(self) -> str:
        """``SYM`` (parameters unchanged) or ``EQV`` (equivalence transformation: parameters, hence labels, move)."""
        return "EQV" if self.moves else "SYM"

    def declaration(self) -> str:
        """The line that declares this generator under ``generators:`` in an equation file."""
        body = ", ".join(f"{c}: {text}" for c, text in self.components.items())
        return f"{self.name}: {{field: {{{body}}}, strength: {self.strength_max:g}}}"

    @cached_property
    def flow(self) -> Flow:
        """The finite transformation exp(epsilon v) in closed form."""
        from pdessl.symmetry.exponential import exponentiate  # flows need sympy

        equation = self.equation
        return exponentiate(self.expressions(), equation.independent, equation.dependent, equation.parameters)
