"""The whole algebra of an equation: what a polynomial ansatz contains, matched with what its file declares."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations_with_replacement

from pdessl.equations import Equation, load_equation, parse_expression
from pdessl.errors import SymmetryError
from pdessl.symmetry.algebra import SymmetryAlgebra
from pdessl.symmetry.discovery import (
    MAX_DEGREE,
    Certificate,
    VectorField,
    find_fields,
    generic_dimensions,
    parameter_point,
    residues,
)
from pdessl.symmetry.generator import SymmetryGenerator
from pdessl.symmetry.naming import suggest_name
from pdessl.symmetry.nullspace import Span
from pdessl.symmetry.polynomial import BITS
from pdessl.symmetry.prolongation import PDESystem
from pdessl.symmetry.verification import instantiate, symmetries

__all__ = ["find_symmetries"]


def find_symmetries(
    equation: str | os.PathLike[str] | Equation,
    degree: int | None = None,
    parameter_degree: int | None = None,
    projectable: bool = True,
) -> SymmetryAlgebra:
    """Find all symmetries with polynomial components, match them with the declared ones, and certify the count.

    The declared generators come first under their own names. What was found besides follows, with a suggested name and
    ``named = False``; such generators have strength 0, so they are not drawn unless asked for.

    Args:
        equation: name in the catalog, path, or :class:`~pdessl.equations.Equation`.
        degree: degree of the components in independents and fields; by default that of the equation file (2).
        parameter_degree: degree in the parameters; by default raised from that of the equation file until the count is
            that of a generic parameter point.
        projectable: leave the fields out of the components on independents, and only linear in those on fields. Many
            equations have no other symmetries (KdV, Burgers); some do: curve shortening, u_t (1 + u_x^2) = u_xx, has 5,
            of which 4 are projectable, all but the rotation of x and u. False searches all components that are
            polynomials of the degree in independents and fields; the certificate says which was searched.

    Raises:
        EquationError: no leading derivative can be solved for.
        SymmetryError: a declared generator is not admitted, or the ansatz is too large.
    """
    loaded = load_equation(equation)
    degree = loaded.ansatz["degree"] if degree is None else degree
    if not 1 <= degree <= MAX_DEGREE:
        raise SymmetryError(f"degree {degree}: the ansatz needs a degree from 1 to {MAX_DEGREE}.")
    declared = symmetries(loaded)
    generic, still = generic_dimensions(loaded, degree, projectable)
    first = loaded.ansatz["parameter_degree"] if parameter_degree is None else parameter_degree
    last = max(first, 4) if parameter_degree is None and loaded.parameters else first
    for q in range(first, last + 1):
        fields, system, unknowns, rows = find_fields(loaded, degree, q, projectable)
        moving = sum(any(c in loaded.parameters for c in f) for f in fields)
        if len(fields) == generic and len(fields) - moving == still:
            break
    certificate = Certificate(degree, q, projectable, len(fields) - moving, moving, generic, still, unknowns, rows)
    extra = _unmatched(fields, declared, system, degree)
    return SymmetryAlgebra(loaded, (*declared.generators, *extra), certificate)


def _unmatched(
    fields: Sequence[VectorField], declared: SymmetryAlgebra, system: PDESystem, degree: int
) -> list[SymmetryGenerator]:
    """The discovered fields outside the span of the declared ones, named by their pattern."""
    equation, space = declared.equation, system.space
    point = parameter_point(equation)
    span = Span()
    for g in declared:
        span.add(residues({c: space.from_tree(tree) for c, tree in g.trees.items()}, space, point))
    names = set(declared.names)
    extra: list[SymmetryGenerator] = []

    def append(field: VectorField, family: str | None) -> None:
        texts = {c: space.text(p) for c, p in field.items()}
        base = name = family or suggest_name(texts, equation)
        k = 1
        while name in names:
            k += 1
            name = f"{base}_{k}"
        names.add(name)
        extra.append(SymmetryGenerator(name, texts, equation, family=family, named=False))

    remaining = [f for f in fields if span.reduced(residues(f, space, point))]
    for declaration in equation.declarations:  # further members of declared families, at higher degree
        if not declaration.functions or any(where for _, where in declaration.functions.values()):
            continue
        (function, (variables, _)), *more = declaration.functions.items()
        if more or not remaining:
            continue
        for power in range(degree + 1):
            for choice in combinations_with_replacement(variables, power):
                texts = instantiate(declaration, {function: "*".join(choice) or "1"}, equation)
                member = {c: space.from_tree(parse_expression(t, equation.names)) for c, t in texts.items()}
                top = max(_degree(m) for p in member.values() for m in p)
                if top <= degree and span.add(residues(member, space, point)):
                    append(member, declaration.name)
    for f in remaining:
        if span.add(residues(f, space, point)):
            append(f, None)
    return extra


def _degree(monomial: int) -> int:
    total = 0
    while monomial:
        total += monomial & 31
        monomial >>= BITS
    return total
