"""Verification: a vector field is a symmetry when its prolongation vanishes on solutions, checked exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pdessl.equations import Equation, GeneratorDeclaration, Names, load_equation, parse_expression
from pdessl.equations.expression import Derivative, Expression, Power, Product, Sum, walk
from pdessl.errors import EquationError, SymmetryError, did_you_mean
from pdessl.symmetry.algebra import SymmetryAlgebra
from pdessl.symmetry.generator import SymmetryGenerator
from pdessl.symmetry.nullspace import nullspace
from pdessl.symmetry.polynomial import JetSpace, Polynomial, add_to
from pdessl.symmetry.prolongation import PDESystem

__all__ = ["instantiate", "symmetries", "verify"]


def symmetries(equation: str | os.PathLike[str] | Equation) -> SymmetryAlgebra:
    """Return the declared generators of an equation, every one verified by exact prolongation.

    Args:
        equation: name in the catalog, path of an equation file, or an :class:`~pdessl.equations.Equation`.

    Raises:
        CatalogError: no such equation.
        SchemaError: the file does not follow the format.
        SymmetryError: a declared generator is not admitted; the message prints the residual.
    """
    loaded = load_equation(equation)
    system = PDESystem(loaded)
    generators: list[SymmetryGenerator] = []
    for declaration in loaded.declarations:
        generators.extend(_verified(declaration, loaded, system))
    return SymmetryAlgebra(loaded, tuple(generators))


def verify(
    equation: str | os.PathLike[str] | Equation,
    components: Mapping[str, str | int | float],
    name: str = "candidate",
    functions: Mapping[str, tuple[Sequence[str], Sequence[str]]] | None = None,
) -> SymmetryGenerator:
    """Check a vector field of your own by exact prolongation, and return it as a generator.

    Args:
        equation: name in the catalog, path, or :class:`~pdessl.equations.Equation`.
        components: coordinate -> component, ``{"x": "t", "u": 1}``; coordinates that are absent do not move.
        name: name of the generator.
        functions: arbitrary functions in the components: name -> (variables, texts of the equations it obeys).

    Raises:
        EquationError: a component cannot be read, or is not that of a point symmetry.
        SymmetryError: not a symmetry; the message prints the residual polynomial.
    """
    loaded = load_equation(equation)
    functions = functions or {}
    names = Names(loaded.independent, loaded.dependent, loaded.parameters, tuple(functions))
    trees: dict[str, Expression] = {}
    for coordinate, text in components.items():
        if coordinate not in loaded.coordinates:
            raise SymmetryError(
                f"{loaded.name} has no variable '{coordinate}'.{did_you_mean(coordinate, loaded.coordinates)} "
                f"Variables: {', '.join(loaded.coordinates)}."
            )
        trees[coordinate] = parse_expression(str(text), names)
        for node in walk(trees[coordinate]):
            if isinstance(node, Derivative) and node.by and node.field not in functions:
                raise EquationError(
                    f"component {coordinate}: '{text}' contains the derivative {node.text}; only point "
                    f"symmetries are supported."
                )
    _check(PDESystem(loaded, functions), trees, f"{loaded.name}: generator '{name}'")
    return SymmetryGenerator(name, {c: str(t) for c, t in components.items()}, loaded)


def _check(system: PDESystem, trees: Mapping[str, Expression], label: str) -> None:
    """Raise SymmetryError with the residual unless the field with these components is admitted."""
    space, equation = system.space, system.equation
    field = {c: space.from_tree(tree) for c, tree in trees.items()}
    for coordinate in equation.parameters:
        for m in field.get(coordinate, {}):
            if any(k < len(space.independent) or k >= space.base for k, _ in space.exponents(m)):
                raise SymmetryError(
                    f"{label}: the component on the parameter '{coordinate}' may contain parameters only, found "
                    f"{space.text(field[coordinate])}."
                )
    residuals = system.prolong(field)
    failed = [(i, r) for i, r in enumerate(residuals) if r]
    if not failed:
        return
    lines = "".join(f"\n    equation {i + 1} ({equation.texts[i]}): {space.text(r, 12)}" for i, r in failed)
    body = ", ".join(f"{c}: {space.text(p)}" for c, p in field.items())
    hint = _repair(system, field, residuals)
    raise SymmetryError(
        f"{label}: {{{body}}} is not a symmetry of {equation.name}. Its prolongation leaves, modulo the equations, "
        f"instead of 0:{lines}\n    {hint}"
    )


def _repair(system: PDESystem, field: Mapping[str, Polynomial], residuals: Sequence[Polynomial]) -> str:
    """Say whether moving parameters in proportion to themselves would make the field admitted."""
    equation, space = system.equation, system.space
    rows: dict[tuple[int, int], dict[int, Any]] = {}
    free = [p for p in equation.parameters if not field.get(p)]
    for column, parameter in enumerate(free):
        for i, r in enumerate(system.prolong({parameter: space.variable(space.number(parameter))})):
            for m, c in r.items():
                rows.setdefault((i, m), {})[column] = c
    for i, r in enumerate(residuals):
        for m, c in r.items():
            rows.setdefault((i, m), {})[len(free)] = c
    for vector in nullspace(list(rows.values()), len(free) + 1):
        if last := vector.get(len(free)):
            moved = {free[c]: Fraction(v) / last for c, v in vector.items() if c < len(free)}
            text = ", ".join(f"{p}: {_weight(w)}{p}" for p, w in moved.items())
            return f"It is one when the parameters move too; add to the components: {text}."
    return "Check signs and factors of its components; 'pdessl symmetries' prints the generators that the equation has."


def _weight(w: Fraction) -> str:
    return {Fraction(1): "", Fraction(-1): "-"}.get(w, f"{w}*")


def _verified(declaration: GeneratorDeclaration, equation: Equation, system: PDESystem) -> list[SymmetryGenerator]:
    """Verify a declaration (a family with its functions adjoined) and return its members."""
    options: dict[str, Any] = {"strength_max": declaration.strength_max, "strength_unit": declaration.strength_unit}
    if not declaration.functions:
        _check(system, declaration.trees, declaration.source)
        found = [
            SymmetryGenerator(
                declaration.name, dict(declaration.components), equation, **options, _trees=dict(declaration.trees)
            )
        ]
    else:
        _check(PDESystem(equation, declaration.functions), declaration.trees, declaration.source)
        found = []
        for member, choice in declaration.members.items():
            components = instantiate(declaration, choice, equation)
            trees = {c: parse_expression(text, equation.names) for c, text in components.items()}
            _check(system, trees, f"{declaration.source}: member '{member}'")
            found.append(
                SymmetryGenerator(member, components, equation, **options, family=declaration.name, _trees=trees)
            )
    for generator in found:
        if declaration.kind and generator.kind != declaration.kind:
            raise SymmetryError(
                f"{declaration.source}: declared kind {declaration.kind}, but it is {generator.kind}: it moves "
                f"{', '.join(generator.moves) or 'no parameter'}."
            )
    return found


def instantiate(declaration: GeneratorDeclaration, choice: Mapping[str, str], equation: Equation) -> dict[str, str]:
    """Put polynomials in place of the arbitrary functions of a family."""
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    values = {f: space.from_tree(parse_expression(text, equation.names)) for f, text in choice.items()}

    def expand(tree: Expression) -> Polynomial:
        match tree:
            case Derivative(field=field, by=by) if field in values:
                p = values[field]
                for letter in by:
                    p = space.partial(p, space.number(letter))
                return p
            case Sum(terms=terms):
                total: Polynomial = {}
                for term in terms:
                    add_to(total, expand(term))
                return total
            case Product(factors=factors):
                product = space.constant(1)
                for factor in factors:
                    product = space.multiply(product, expand(factor))
                return product
            case Power(base=base, exponent=exponent):
                return space.power(expand(base), exponent)
        return space.from_tree(tree)

    components = {c: expand(tree) for c, tree in declaration.trees.items()}
    return {c: space.text(p) for c, p in components.items() if p}
