"""SymmetryAlgebra: the verified generators of an equation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

from pdessl.equations import Equation, GeneratorDeclaration, Names, load_equation, parse_expression
from pdessl.equations.expression import Derivative, Expression, Power, Product, Sum, walk
from pdessl.errors import CatalogError, EquationError, SymmetryError, did_you_mean
from pdessl.symmetry.boundary import boundary_class, boundary_conditions, discrete_symmetries
from pdessl.symmetry.discovery import (
    Certificate,
    VectorField,
    find_fields,
    generic_dimension,
    parameter_point,
    residues,
)
from pdessl.symmetry.generator import SymmetryGenerator
from pdessl.symmetry.nullspace import Span, nullspace
from pdessl.symmetry.polynomial import BITS, JetSpace, Polynomial, add_to
from pdessl.symmetry.prolongation import PDESystem

__all__ = ["SymmetryAlgebra", "discover", "suggest_name", "symmetries", "verify"]


@dataclass(frozen=True, eq=False)
class SymmetryAlgebra:
    """The symmetry generators of one equation, in the canonical order in which their flows are composed.

    Args:
        equation: the equation.
        generators: verified generators; members of infinite families are listed one by one.
        certificate: what was searched and whether everything was found; None until discovery has been run.
    """

    equation: Equation
    generators: tuple[SymmetryGenerator, ...]
    certificate: Certificate | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the generators in canonical order."""
        return tuple(g.name for g in self.generators)

    @property
    def symmetries(self) -> list[SymmetryGenerator]:
        """The generators that leave the parameters unchanged (SYM)."""
        return [g for g in self.generators if g.kind == "SYM"]

    @property
    def equivalences(self) -> list[SymmetryGenerator]:
        """The generators that move parameters (EQV)."""
        return [g for g in self.generators if g.kind == "EQV"]

    @property
    def unnamed(self) -> list[SymmetryGenerator]:
        """Generators that were discovered and are not declared in the equation file."""
        return [g for g in self.generators if not g.named]

    def __getitem__(self, name: str) -> SymmetryGenerator:
        for generator in self.generators:
            if generator.name == name:
                return generator
        raise CatalogError(
            f"{self.equation.name} has no generator named '{name}'.{did_you_mean(name, self.names)} "
            f"Generators: {', '.join(self.names)}."
        )

    def __iter__(self) -> Iterator[SymmetryGenerator]:
        return iter(self.generators)

    def __len__(self) -> int:
        return len(self.generators)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def confounded(self, observed: Sequence[str] | None = None) -> dict[str, str]:
        """Name the symmetries that look like a motion of a parameter to someone who sees only some fields.

        A SYM that changes a hidden field h keeps the parameters; but if an equivalence transformation of hidden fields
        and parameters alone undoes the change of h, the pair is the same data as a pair with another parameter. Such a
        generator is no honest positive pair for that parameter.

        Args:
            observed: the fields that are seen; by default those of the equation file.

        Returns:
            name of the generator -> explanation; empty if there is none.
        """
        equation = self.equation
        seen = equation.observed if observed is None else tuple(observed)
        hidden = [f for f in equation.dependent if f not in seen]
        space = JetSpace(equation.independent, equation.dependent, equation.parameters)
        fields = {g.name: _polynomials(g, space) for g in self.generators}
        allowed = set(hidden) | set(equation.parameters)
        inner = [g for g in self.equivalences if set(fields[g.name]) <= allowed]
        found: dict[str, str] = {}
        for generator in self.symmetries:
            for h in hidden:
                if h not in fields[generator.name]:
                    continue
                columns = [fields[g.name].get(h, {}) for g in (*inner, generator)]
                rows: dict[int, dict[int, Any]] = {}
                for k, p in enumerate(columns):
                    for m, c in p.items():
                        rows.setdefault(m, {})[k] = c
                for vector in nullspace(list(rows.values()), len(columns)):
                    own = vector.get(len(inner), 0)
                    moved = {p for k, g in enumerate(inner) if vector.get(k) for p in g.moves}
                    if own and moved:
                        found[generator.name] = (
                            f"changes the hidden field {h}; to someone who does not see {h} it looks like a change of "
                            f"{', '.join(sorted(moved))}, which stays fixed. Not used as a positive pair by default."
                        )
        return found

    def identifiable(self, given: Sequence[str] = ()) -> list[str]:
        """Return the products of powers of parameters (and given scales) that no scaling changes.

        Everything else can be learnt only relative to a scale that the data fix: lengths or amplitudes.

        Args:
            given: scales that are known besides the parameters: a space axis for the size of the domain (``x``), a
                field for its amplitude.

        Returns:
            texts such as ``viscosity/scalar_diffusivity``; empty if there is none.
        """
        equation = self.equation
        space = JetSpace(equation.independent, equation.dependent, equation.parameters)
        scalings, mixed = [], set()
        for generator in self.generators:
            weights = _scaling(generator, space)
            if weights is None:
                mixed |= {c for c in generator.components if c in equation.parameters}
            else:
                scalings.append(weights)
        # Last columns stay free in the nullspace, so scales come first: each invariant then belongs to one parameter.
        names = [*given, *(p for p in equation.parameters if p not in mixed)]
        rows = [{k: w[n] for k, n in enumerate(names) if w.get(n)} for w in scalings]
        entries = {parts[next(iter(parts))]: name for name, parts in equation.vectors.items()}
        label = {n: equation.parameter_names.get(n) or ("domain_size" if n in equation.space else entries.get(n, n))
                 for n in names}  # fmt: skip
        found = []
        for vector in nullspace(rows, len(names)):
            exponents = {names[k]: e for k, e in sorted(vector.items(), reverse=True)}
            if any(n in equation.parameters for n in exponents):
                lead = next(e for n, e in exponents.items() if n in equation.parameters)
                found.append(_monomial_text({label[n]: e if lead > 0 else -e for n, e in exponents.items()}))
        return found

    def describe(
        self, boundary: str | Mapping[str, Any] | None = None, observed: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return everything about the algebra as plain data (JSON-able); flows excepted.

        Args:
            boundary: boundary conditions, see :func:`pdessl.symmetry.boundary.boundary_conditions`; None: those of the
                equation file.
            observed: the fields that are seen; by default those of the equation file.
        """
        equation = self.equation
        seen = equation.observed if observed is None else tuple(observed)
        for f in seen:
            if f not in equation.dependent:
                raise SymmetryError(
                    f"{equation.name} has no field '{f}'.{did_you_mean(f, equation.dependent)} "
                    f"Fields: {', '.join(equation.dependent)}."
                )
        system = PDESystem(equation)
        warnings = self.confounded(seen)
        generators = []
        for g in self.generators:
            where = boundary_class(g, boundary)
            generators.append(
                {
                    "name": g.name,
                    "components": dict(g.components),
                    "kind": g.kind,
                    "moves": g.moves,
                    "family": g.family,
                    "named": g.named,
                    "boundary": {
                        "class": where.kind,
                        "text": where.text(),
                        "weights": {a: str(w) for a, w in where.weights.items()},
                        "aperiodic": list(where.aperiodic),
                    },
                    "hidden": [f for f in equation.dependent if f not in seen and f in g.components],
                    "warning": warnings.get(g.name),
                    "strength": {"max": g.strength_max, "unit": g.strength_unit},
                    "declaration": None if g.named else g.declaration(),
                }
            )
        identifiable: dict[str, list[str]] = {"parameters": self.identifiable()}
        if equation.space:
            axis = equation.space[0]
            identifiable["parameters and domain size"] = self.identifiable([axis])
            amplitudes = [next(iter(p.values())) for p in equation.vectors.values()] or list(equation.dependent)
            seen_amplitudes = [f for f in amplitudes if f in seen]
            identifiable["parameters, domain size and amplitudes"] = self.identifiable([axis, *seen_amplitudes])
        return {
            "equation": {
                "name": equation.name,
                "title": equation.title,
                "texts": list(equation.texts),
                "independent": list(equation.independent),
                "dependent": list(equation.dependent),
                "observed": list(seen),
                "parameters": {
                    p: {"name": equation.parameter_names[p], "unit": equation.parameter_units.get(p)}
                    for p in equation.parameters
                },
                "references": list(equation.references),
            },
            "boundary": boundary_conditions(equation, boundary),
            "generators": generators,
            "families": [
                {
                    "name": d.name,
                    "components": dict(d.components),
                    "functions": {f: list(v) for f, (v, _) in d.functions.items()},
                }
                for d in equation.declarations
                if d.functions
            ],
            "discrete": [
                {"text": s.text(), "maps": s.maps, "kind": s.kind, "parameters": list(s.parameters)}
                for s in discrete_symmetries(equation, system)
            ],
            "identifiable": identifiable,
            "integrability_conditions": [f"{system.space.text(c)} = 0" for c in system.conditions],
            "certificate": None
            if self.certificate is None
            else {**asdict(self.certificate), "complete": self.certificate.complete, "text": self.certificate.text()},
        }


def _polynomials(generator: SymmetryGenerator, space: JetSpace) -> dict[str, Polynomial]:
    field = {c: space.from_tree(tree) for c, tree in generator.trees.items()}
    return {c: p for c, p in field.items() if p}


def _scaling(generator: SymmetryGenerator, space: JetSpace) -> dict[str, Any] | None:
    """Weights of a scaling, coordinate -> weight; None for any other generator.

    A frame that moves with the scaling (``x: x + c*t``) changes no length.
    """
    weights = {}
    for c, p in _polynomials(generator, space).items():
        own = space.units[space.number(c)]
        time = space.units[space.number("t")]
        moving = [m for m in p if m != own]
        if own not in p or (moving and (c not in space.independent or any(not m & 31 or m % time for m in moving))):
            return None
        if any(k != space.number("t") and not len(space.independent) <= k < space.base for m in moving
               for k, _ in space.exponents(m)):  # fmt: skip
            return None
        weights[c] = p[own]
    return weights


def _monomial_text(exponents: Mapping[str, int]) -> str:
    def side(sign: int) -> list[str]:
        return [n + (f"**{abs(e)}" if abs(e) > 1 else "") for n, e in exponents.items() if e * sign > 0]

    over, under = "*".join(side(1)) or "1", side(-1)
    return over if not under else f"{over}/{under[0]}" if len(under) == 1 else f"{over}/({'*'.join(under)})"


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


def discover(
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
        projectable: leave the fields out of the components on independents, and only linear in those on fields. True
            loses nothing for evolution equations of order two or more.

    Raises:
        EquationError: no leading derivative can be solved for.
        SymmetryError: a declared generator is not admitted, or the ansatz is too large.
    """
    loaded = load_equation(equation)
    degree = loaded.ansatz["degree"] if degree is None else degree
    if not 1 <= degree <= 8:
        raise SymmetryError(f"degree {degree}: the ansatz needs a degree from 1 to 8.")
    declared = symmetries(loaded)
    generic = generic_dimension(loaded, degree, projectable)
    first = loaded.ansatz["parameter_degree"] if parameter_degree is None else parameter_degree
    last = max(first, 4) if parameter_degree is None and loaded.parameters else first
    for q in range(first, last + 1):
        fields, system, unknowns, rows = find_fields(loaded, degree, q, projectable)
        if len(fields) == generic:
            break
    moving = sum(any(c in loaded.parameters for c in f) for f in fields)
    certificate = Certificate(degree, q, projectable, len(fields) - moving, moving, generic, unknowns, rows)
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
                texts = _instantiate(declaration, {function: "*".join(choice) or "1"}, equation)
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


def suggest_name(components: Mapping[str, str], equation: Equation) -> str:
    """Suggest a human name for a vector field from its pattern."""
    moved = [c for c in components if c in equation.parameters]
    axes = [c for c in components if c in equation.space]
    suffix = f"_{axes[0]}" if len(equation.space) > 1 and axes else ""
    trees = {c: parse_expression(text, equation.names) for c, text in components.items()}
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    field = {c: space.from_tree(t) for c, t in trees.items()}
    own = {c: {space.units[space.number(c)]} for c in field}
    if len(field) == 1:
        ((c, p),) = field.items()
        if set(p) == {0}:
            return "time_translation" if c == "t" else f"space_translation{suffix}" if c in axes else f"{c}_shift"
    if all(set(p) == own[c] for c, p in field.items()):
        if moved:
            return "_".join((*(equation.parameter_names[c] for c in moved), "scaling"))
        return "scaling" if "t" in field or axes else f"{'_'.join(field)}_scaling"
    if moved:
        return "_".join((*(equation.parameter_names[c] for c in moved), "motion"))
    time = space.units[space.number("t")]
    if field.get("t") and set(field["t"]) and all(m % time == 0 and (m & 31) == 2 for m in field["t"]):
        return "projective"
    if "t" not in field and len(axes) == 2:
        i, j = (space.units[space.number(a)] for a in axes)
        if set(field[axes[0]]) == {j} and set(field[axes[1]]) == {i}:
            return "rotation" if len(equation.space) == 2 else f"rotation_{''.join(axes)}"
        if set(field[axes[0]]) == {j + time} and set(field[axes[1]]) == {i + time}:
            return "rotating_frame"
    if "t" not in field and len(axes) == 1 and all((m & 31) for m in field[axes[0]]):
        return f"galilean_boost{suffix}" if all((m & 31) == 1 for m in field[axes[0]]) else f"acceleration{suffix}"
    if not axes and "t" not in field:
        plain = all(k < space.base for p in field.values() for m in p for k, _ in space.exponents(m))
        return f"{'_'.join(field)}_{'gauge' if plain else 'motion'}"
    return "generator"


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
            components = _instantiate(declaration, choice, equation)
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


def _instantiate(declaration: GeneratorDeclaration, choice: Mapping[str, str], equation: Equation) -> dict[str, str]:
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
