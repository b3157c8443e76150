"""Equations as text: the safe parser, the file format of ``symmetries/``, and residuals on gridded data."""

from pdessl.equations.equation import (
    BOUNDARY_CONDITIONS,
    STRENGTH_UNITS,
    Equation,
    GeneratorDeclaration,
    load_equation,
)
from pdessl.equations.expression import Names, parse_equation, parse_expression

__all__ = [
    "BOUNDARY_CONDITIONS",
    "STRENGTH_UNITS",
    "Equation",
    "GeneratorDeclaration",
    "Names",
    "load_equation",
    "parse_equation",
    "parse_expression",
]
