"""SymmetryAlgebra: the verified generators of an equation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pdessl.equations import Equation
from pdessl.errors import CatalogError, SymmetryError, did_you_mean
from pdessl.symmetry.boundary import BoundaryClass, boundary_class, boundary_conditions
from pdessl.symmetry.discovery import MAX_DEGREE, Certificate, generic_dimensions
from pdessl.symmetry.discrete import discrete_symmetries
from pdessl.symmetry.generator import SymmetryGenerator
from pdessl.symmetry.naming import is_linear, scaling_weights
from pdessl.symmetry.nullspace import nullspace
from pdessl.symmetry.polynomial import JetSpace, Polynomial
from pdessl.symmetry.prolongation import PDESystem

__all__ = ["SymmetryAlgebra"]


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
            weights = scaling_weights(_polynomials(generator, space), space)
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
        """Return everything about the algebra as plain data (JSON-able); :meth:`text` writes the same for people.

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
        conditions = boundary_conditions(equation, boundary)
        warnings = self.confounded(seen)
        generators = []
        for g in self.generators:
            generators.append(
                {
                    "name": g.name,
                    "components": dict(g.components),
                    **_closed_form(g),
                    "kind": g.kind,
                    "moves": g.moves,
                    "family": g.family,
                    "named": g.named,
                    "boundary": _survival(boundary_class(g, conditions)),
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
            "boundary": conditions,
            "generators": generators,
            "families": [
                {
                    "name": d.name,
                    "components": dict(d.components),
                    "functions": {f: list(v) for f, (v, _) in d.functions.items()},
                    "where": [text for _, where in d.functions.values() for text in where],
                }
                for d in equation.declarations
                if d.functions
            ],
            "linear": is_linear(equation),
            "divided_by": list(system.reciprocals.letters),
            "discrete": [
                {
                    "text": s.text(),
                    "maps": s.maps,
                    "kind": s.kind,
                    "parameters": list(s.parameters),
                    "boundary": _survival(s.boundary(conditions)),
                }
                for s in discrete_symmetries(equation, system)
            ],
            "identifiable": identifiable,
            "integrability_conditions": [f"{system.space.text(c)} = 0" for c in system.conditions],
            "certificate": None
            if self.certificate is None
            else {
                **asdict(self.certificate),
                "complete": self.certificate.complete,
                "text": self.certificate.text(),
                "next_degree": self._next_degree(),
            },
        }

    def _next_degree(self) -> int | None:
        """Number of generators in the ansatz of one degree more; None where no ansatz is that large."""
        searched = self.certificate
        if searched is None or searched.degree >= MAX_DEGREE:
            return None
        return generic_dimensions(self.equation, searched.degree + 1, searched.projectable)[0]

    def text(self, boundary: str | Mapping[str, Any] | None = None, observed: Sequence[str] | None = None) -> str:
        """Return what :meth:`describe` says as text for people."""
        from pdessl.symmetry.presentation import text

        return text(self.describe(boundary, observed))


def _survival(found: BoundaryClass) -> dict[str, Any]:
    """What boundary conditions leave of a symmetry, as data."""
    return {
        "class": found.kind,
        "text": found.text(),
        "weights": {a: str(w) for a, w in found.weights.items()},
        "aperiodic": list(found.aperiodic),
    }


def _closed_form(generator: SymmetryGenerator) -> dict[str, Any]:
    """The flow as data: its images, or why there are none; and why it cannot be applied to batches, if it cannot."""
    from pdessl.symmetry.notation import images, vector_field  # needs sympy

    equation = generator.equation
    found: dict[str, Any] = {
        "vector_field": vector_field(generator), "flow": None, "flow_shown": None, "no_flow": None, "not_batched": None
    }  # fmt: skip
    try:
        flow = generator.flow
    except SymmetryError as error:
        return found | {"no_flow": str(error)}
    shown = images(flow.maps, (*equation.space, *equation.dependent))
    return found | {"flow": flow.text(), "flow_shown": shown, "not_batched": flow.obstruction}


def _polynomials(generator: SymmetryGenerator, space: JetSpace) -> dict[str, Polynomial]:
    field = {c: space.from_tree(tree) for c, tree in generator.trees.items()}
    return {c: p for c, p in field.items() if p}


def _monomial_text(exponents: Mapping[str, int]) -> str:
    def side(sign: int) -> list[str]:
        return [n + (f"**{abs(e)}" if abs(e) > 1 else "") for n, e in exponents.items() if e * sign > 0]

    over, under = "*".join(side(1)) or "1", side(-1)
    return over if not under else f"{over}/{under[0]}" if len(under) == 1 else f"{over}/({'*'.join(under)})"
