"""Equations as text: the safe parser, the file format of ``symmetries/``, and residuals on gridded data."""

from pdessl.equations.equation import (
    BOUNDARY_CONDITIONS,
    STRENGTH_UNITS,
    Equation,
    GeneratorDeclaration,
)
from pdessl.equations.expression import Names
from pdessl.equations.file import load_equation
from pdessl.equations.parser import parse_equation, parse_expression

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
