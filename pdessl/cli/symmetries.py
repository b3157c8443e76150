"""``pdessl symmetries``: the symmetry algebra of an equation, for reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdessl.cli.parsing import Parser

if TYPE_CHECKING:
    from pdessl.symmetry import SymmetryAlgebra, SymmetryGenerator

__all__ = ["describe", "main"]

_BOUNDARY = {
    "keeps": "keeps a periodic box",
    "rescales": "maps a periodic box onto one of another length",
    "breaks": "does not keep a periodic box: use on windows",
}


def _periodic_box(generator: SymmetryGenerator) -> str:
    """Say what the flow does to a periodic box, from the components along the space axes and the fields.

    A box of length L is kept when x' = x + r(t) and the field changes by nothing that depends on x; x' = s(t) x + r(t)
    with constant s makes a box of length s L; anything else (s of t, a field gaining a term in x) keeps none.
    """
    equation = generator.equation
    expressions = generator.expressions()
    letters = {str(s): s for e in expressions.values() for s in e.free_symbols}
    axes = [a for a in equation.independent if a != "t"]
    time = letters.get("t")
    kind = "keeps"
    for axis in axes:
        symbol = letters.get(axis)
        if symbol is None:
            continue
        for name, expression in expressions.items():
            slope = expression.diff(symbol)
            if slope == 0:
                continue
            if name != axis or (time is not None and time in slope.free_symbols):
                return _BOUNDARY["breaks"]
            kind = "rescales"
    return _BOUNDARY[kind]


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
        lines.append(f"    moves {moved}; {_periodic_box(generator)}")
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
        "which move parameters (and therefore labels), and what they do to a periodic box. A vector field that is no\n"
        "symmetry is refused, and the residual is printed.",
        examples=["pdessl symmetries burgers", "pdessl symmetries my_equation.yaml"],
        python="import pdessl\npdessl.symmetries('burgers')",
    )
    parser.add_argument("equation", help="name from 'pdessl list symmetries', or a YAML file")
    options = parser.parse_args(arguments)

    from pdessl.symmetry import symmetries

    print(describe(symmetries(options.equation)))
    return 0
