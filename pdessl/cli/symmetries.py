"""``pdessl symmetries``: the symmetry algebra of an equation, for reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdessl.cli.parsing import Parser

if TYPE_CHECKING:
    from pdessl.symmetry import SymmetryAlgebra, SymmetryGenerator

__all__ = ["describe", "main"]

def _vector_field(generator: SymmetryGenerator) -> str:
    terms = []
    for name, expression in generator.expressions().items():
        if expression == 0:
            continue
        text = str(expression).replace("**", "^").replace("*", " ")
        many = expression.is_Add
        terms.append(f"∂{name}" if text == "1" else f"({text}) ∂{name}" if many else f"{text} ∂{name}")
    return " + ".join(terms).replace("+ -", "- ")


def describe(algebra: SymmetryAlgebra) -> str:
    """Return the algebra as text: the equation, then each generator with its flow, kind, and what it moves.

    Args:
        algebra: as given by :func:`pdessl.symmetries`; every generator in it has been verified exactly.
    """
    from pdessl.symmetry.boundary import boundary_class, discrete_symmetries

    equation = algebra.equation
    names = [f"{letter} = {name}" for letter, name in equation.parameter_names.items()]
    lines = [equation.title or equation.name, *(f"    {text}" for text in equation.texts)]
    lines += [f"    parameters: {', '.join(names)}"] if names else []
    lines.append("")
    for generator in algebra.generators:
        kind = {"SYM": "symmetry", "EQV": "equivalence (changes parameters)"}.get(generator.kind, generator.kind)
        lines.append(f"{generator.name}: {kind}")
        lines.append(f"    v = {_vector_field(generator)}")
        flow = "; ".join(f"{name}' = {text}" for name, text in generator.flow.text().items() if text != name)
        lines.append(f"    flow by epsilon: {flow}")
        moved = ", ".join(generator.moves) or "no parameter"
        lines.append(f"    moves {moved}; {boundary_class(generator).text()}")
    reflections = discrete_symmetries(equation)
    if reflections:
        lines += ["", "discrete: " + "; ".join(d.text() for d in reflections)]
    lines.append("")
    lines.append(
        "Every generator was verified exactly: its prolongation annihilates the equation on the equation's solutions."
    )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.symmetries`, print."""
    parser = Parser(
        "symmetries",
        "Print the symmetries of an equation of the catalog, or of a YAML file: the vector fields, their flows,\n"
        "which move parameters (and therefore labels), and what boundary conditions leave of them. A vector\n"
        "field that is no symmetry is refused, and the residual is printed.",
        examples=["pdessl symmetries burgers", "pdessl symmetries my_equation.yaml"],
        python="import pdessl\npdessl.symmetries('burgers')",
    )
    parser.add_argument("equation", help="name from 'pdessl list symmetries', or a YAML file")
    options = parser.parse_args(arguments)

    from pdessl.symmetry import symmetries

    print(describe(symmetries(options.equation)))
    return 0
