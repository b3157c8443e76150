"""A PDE system read from text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pdessl.equations.expression import Expression, Names
from pdessl.equations.parser import infer_names, parse_equation
from pdessl.errors import EquationError

if TYPE_CHECKING:
    from torch import Tensor

    from pdessl.trajectory import Trajectories

__all__ = ["BOUNDARY_CONDITIONS", "STRENGTH_UNITS", "Equation", "GeneratorDeclaration"]

# How the size of a strength is measured on the window that is augmented:
STRENGTH_UNITS = {
    "window": "shift of t or x as a fraction of the window",
    "window_displacement": "largest displacement inside the window as a fraction of the window",
    "log": "logarithm of the factor (the strength itself)",
    "angle": "radians",
    "window_angle": "largest angle inside the window, radians",
    "window_time": "strength times the duration of the window",
    "std": "shift of the field in standard deviations of that field",
}

BOUNDARY_CONDITIONS = ("periodic", "noslip", "dirichlet", "zero_gradient", "window")


@dataclass(frozen=True)
class GeneratorDeclaration:
    """One entry of ``generators:`` in an equation file, before anything is verified.

    Args:
        name: human name, the stable key in recipes and logs.
        components: coordinate -> component text; coordinates that are absent have component 0.
        trees: the same, parsed.
        functions: arbitrary function -> (its variables, texts of the equations it obeys).
        members: name of a member -> {function: text}; empty for a generator without arbitrary functions.
        strength_max: largest strength in ``strength_unit``; 0: known, not used unless asked for.
        strength_unit: one of :data:`STRENGTH_UNITS`.
        kind: an optional assertion, ``SYM`` or ``EQV``.
        source: ``file: generators.name`` for messages.
    """

    name: str
    components: Mapping[str, str]
    trees: Mapping[str, Expression]
    functions: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    strength_max: float = 0.0
    strength_unit: str = "log"
    kind: str | None = None
    source: str = ""


@dataclass(frozen=True, eq=False)
class Equation:
    """A system of polynomial PDEs.

    Made by :meth:`parse` from text, or by :func:`load_equation` from a file of ``symmetries/``.

    Args:
        name: name in the catalog; ``equation`` when typed in.
        title: one line for people.
        independent: time and space letters, ``("t", "x")``; a stationary equation has no ``t``.
        dependent: the fields, ``("u",)``.
        parameters: letters of the constants, ``("nu",)``.
        texts: the equations as they were written.
        trees: the equations as trees, each equal to zero.
        parameter_names: letter -> the name users see, ``{"nu": "viscosity"}``.
        parameter_units: letter -> unit text; letters without one are absent.
        positive: letters of the parameters that are positive.
        observed: the fields a network sees; all by default.
        vectors: field of tensor rank 1 or 0 -> {axis: component} or {"": component}.
        boundary: axis -> field or ``""`` -> condition, as usually solved.
        declarations: the declared generators, in the order in which their flows are composed.
        ansatz: degrees ``{"degree", "parameter_degree"}`` of the discovery.
        references: where it comes from.
        path: the file, if any.
    """

    name: str
    title: str
    independent: tuple[str, ...]
    dependent: tuple[str, ...]
    parameters: tuple[str, ...]
    texts: tuple[str, ...]
    trees: tuple[Expression, ...]
    parameter_names: Mapping[str, str]
    parameter_units: Mapping[str, str] = field(default_factory=dict)
    positive: frozenset[str] = frozenset()
    observed: tuple[str, ...] = ()
    vectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    boundary: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    declarations: tuple[GeneratorDeclaration, ...] = ()
    ansatz: Mapping[str, int] = field(default_factory=lambda: {"degree": 2, "parameter_degree": 1})
    references: tuple[str, ...] = ()
    path: Path | None = None

    def __post_init__(self) -> None:
        if "epsilon" in self.coordinates:
            raise EquationError(
                f"{self.name}: 'epsilon' is the strength of a symmetry's flow, x' = x + epsilon*t, and cannot be the "
                "letter of a field, or in a file of a parameter. Call it eps; in a file:  eps: {name: epsilon}"
            )

    @property
    def space(self) -> tuple[str, ...]:
        """The space letters."""
        return tuple(i for i in self.independent if i != "t")

    @property
    def coordinates(self) -> tuple[str, ...]:
        """Everything a generator may move: independents, fields, parameters."""
        return (*self.independent, *self.dependent, *self.parameters)

    @property
    def names(self) -> Names:
        """The names that texts about this equation may use."""
        return Names(self.independent, self.dependent, self.parameters)

    @property
    def hidden(self) -> tuple[str, ...]:
        """The fields that are not observed."""
        return tuple(f for f in self.dependent if f not in self.observed)

    def __repr__(self) -> str:
        return f"Equation({self.name}: {'; '.join(t if '=' in t else f'{t} = 0' for t in self.texts)})"

    @staticmethod
    def parse(
        text: str | Sequence[str],
        *,
        independent: Sequence[str] | None = None,
        dependent: Sequence[str] | None = None,
        parameters: Sequence[str] = (),
        name: str = "equation",
        title: str = "",
    ) -> Equation:
        """Read one equation or a system.

        Args:
            text: ``"u_t + u*u_x = nu*u_xx"``, or a list of such texts; an expression without ``=`` is equal to zero.
            independent: letters of time and space; by default those of the derivatives, ``t`` first; without ``t`` in
                the text the equation is stationary.
            dependent: the fields; by default the names that are differentiated, in order of appearance.
            parameters: letters of the constants. ``epsilon`` becomes the letter ``eps`` with the name epsilon: the
                strength of flows has that letter.
            name: name used in messages.
            title: one line for people.

        Raises:
            EquationError: the text cannot be read; the message shows the place.
        """
        texts = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, Sequence) else ()
        if not texts or not all(isinstance(t, str) for t in texts):
            raise EquationError(f"no equation given, but {text!r:.80}; write text such as 'u_t + u*u_x = nu*u_xx'.")
        if isinstance(parameters, str):
            parameters = tuple(p for p in re.split(r"[,\s]+", parameters) if p)
        parameters, letter, shown = tuple(parameters), "eps", {}
        if "epsilon" in parameters:
            while letter in parameters or any(re.search(rf"\b{letter}\b", t) for t in texts):
                letter += "0"
            texts = tuple(re.sub(r"\bepsilon\b", letter, t) for t in texts)
            parameters = tuple(letter if p == "epsilon" else p for p in parameters)
            shown = {letter: "epsilon"}
        found_independent, found_dependent = infer_names(texts, parameters)
        if independent is None:
            independent = found_independent
        if dependent is None:
            dependent = found_dependent
        if not dependent:
            raise EquationError(f"no derivative in '{texts[0]:.80}'; write derivatives as u_t, u_xx.")
        names = Names(tuple(independent), tuple(dependent), tuple(parameters))
        trees = tuple(parse_equation(t, names) for t in texts)
        return Equation(
            name=name,
            title=title,
            independent=names.independent,
            dependent=names.dependent,
            parameters=names.parameters,
            texts=texts,
            trees=trees,
            parameter_names={p: shown.get(p, p) for p in names.parameters},
            observed=names.dependent,
        )

    def residual(self, trajectories: Trajectories) -> tuple[Tensor, ...]:
        """Evaluate every equation on gridded trajectories; see :func:`pdessl.equations.residual.residual`."""
        from pdessl.equations.residual import residual  # needs torch

        return residual(self, trajectories)
