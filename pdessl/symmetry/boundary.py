"""What boundary conditions leave of a symmetry, computed from its generator.

Periodic axis: a map of the box must turn lattice translations into lattice translations. For a generator this means
that the commutator [d/dx_i, v] = dv/dx_i is a constant combination of space translations. Walls: v must be tangent to
the wall (or stretch the box) and to the boundary condition. On interior windows every point symmetry acts, because it
acts on local solutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from pdessl.equations import BOUNDARY_CONDITIONS, Equation
from pdessl.errors import SymmetryError, did_you_mean
from pdessl.symmetry.generator import SymmetryGenerator
from pdessl.symmetry.polynomial import BITS, JetSpace, Polynomial, add_to

__all__ = ["BoundaryClass", "boundary_class", "boundary_conditions", "keeps_walls", "wall_conditions"]

_ORDER = ("exact", "rescales", "rotates", "shears", "window")


@dataclass(frozen=True)
class BoundaryClass:
    """How a generator gets on with boundary conditions.

    Args:
        kind: ``exact`` (same box), ``rescales`` (the lengths of the box change), ``rotates`` (the lattice turns; steps
            of 90 degrees are exact on a square box), ``shears`` (the lattice is sheared), ``square`` (an exchange of
            axes, exact where the box is a square), ``window`` (holds on interior windows only).
        weights: axis -> w, where the length of the box becomes exp(w * strength) times as long; text where it contains
            parameters.
        aperiodic: potentials (hidden fields that occur only differentiated) that lose their periodicity; all others
            keep it.
    """

    kind: str
    weights: Mapping[str, Fraction | str] = field(default_factory=dict)
    aperiodic: tuple[str, ...] = ()

    def text(self) -> str:
        """A few words for people."""
        words = {
            "exact": "exact on the box",
            "rescales": "rescales the box: "
            + ", ".join(f"L_{a} -> exp({_times(w)}) L_{a}" for a, w in self.weights.items()),
            "rotates": "rotates the box (90 degrees are exact on a square)",
            "shears": "shears the box (exact where it shifts one period by whole periods)",
            "square": "exact on a square box",
            "window": "interior windows only",
        }[self.kind]
        if self.aperiodic:
            words += f"; {', '.join(self.aperiodic)} loses periodicity"
        return words


def _times(weight: Fraction | str) -> str:
    if isinstance(weight, str):
        plain = weight.replace("**", "^").replace("*", " ")
        return f"({plain}) ε" if " + " in plain or " - " in plain else f"{plain} ε"
    return {Fraction(1): "ε", Fraction(-1): "-ε"}.get(weight, f"{weight} ε")


def boundary_conditions(
    equation: Equation, boundary: str | Mapping[str, str | Mapping[str, str]] | None = None
) -> dict[str, dict[str, str]]:
    """Spell out boundary conditions per axis and field.

    Args:
        equation: the equation.
        boundary: ``periodic``, ``noslip`` (vectors vanish, other fields have zero gradient; ``wall`` means the same),
            ``dirichlet``, ``zero_gradient``, ``window``; or one of these per axis; None: as the equation file says, and
            periodic where it says nothing.

    Returns:
        axis -> ``{"": "periodic"}`` or ``{"": "window"}`` or {field: condition}.

    Raises:
        SymmetryError: an unknown condition or axis.
    """
    if boundary is None:
        given: Mapping[str, str | Mapping[str, str]] = dict(equation.boundary)
    elif isinstance(boundary, str):
        given = dict.fromkeys(equation.space, boundary)
    else:
        given = boundary
    vectors = {c for parts in equation.vectors.values() if "" not in parts for c in parts.values()}
    result: dict[str, dict[str, str]] = {}
    for axis in given:
        if axis not in equation.space:
            raise SymmetryError(f"{equation.name} has no space axis '{axis}'. Axes: {', '.join(equation.space)}.")
    for axis in equation.space:
        entry = given.get(axis, "periodic")
        conditions = {"": entry} if isinstance(entry, str) else dict(entry)
        for condition in conditions.values():
            if condition not in (*BOUNDARY_CONDITIONS, "wall"):
                raise SymmetryError(
                    f"unknown boundary condition '{condition}'.{did_you_mean(condition, BOUNDARY_CONDITIONS)} "
                    f"Known: {', '.join(BOUNDARY_CONDITIONS)}."
                )
        whole = conditions.get("")
        if whole in ("noslip", "wall"):
            shown = [f for f in equation.dependent if f in equation.observed]
            walls = vectors or set(shown)
            conditions = {f: "noslip" if f in walls else "zero_gradient" for f in shown}
        elif whole in ("dirichlet", "zero_gradient"):
            conditions = {f: str(whole) for f in equation.dependent}
        result[axis] = conditions
    return result


def potentials(equation: Equation) -> tuple[str, ...]:
    """Hidden fields that the equations contain only differentiated, such as the pressure."""
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    plain = {f: space.number(f) for f in equation.dependent}
    polynomials = [space.from_tree(t) for t in equation.trees]
    return tuple(f for f in equation.hidden if not any((m >> (BITS * plain[f])) & 31 for p in polynomials for m in p))


def boundary_class(
    generator: SymmetryGenerator, boundary: str | Mapping[str, str | Mapping[str, str]] | None = None
) -> BoundaryClass:
    """Say what survives of a generator on a box with the given boundary conditions.

    Args:
        generator: a verified generator.
        boundary: see :func:`boundary_conditions`.

    Raises:
        SymmetryError: an unknown condition or axis.
    """
    equation = generator.equation
    conditions = boundary_conditions(equation, boundary)
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    components = {c: space.from_tree(tree) for c, tree in generator.trees.items()}
    components = {c: p for c, p in components.items() if p}
    found = [
        _periodic(axis, components, equation, space)
        if set(entry.values()) == {"periodic"}
        else BoundaryClass("exact")
        if set(entry.values()) == {"window"}
        else _wall(axis, entry, components, space)
        for axis, entry in conditions.items()
    ]
    if any(set(entry.values()) == {"window"} for entry in conditions.values()):
        return BoundaryClass("window")
    worst = max((c.kind for c in found), key=_ORDER.index, default="exact")
    weights = {a: w for c in found for a, w in c.weights.items()}
    walled = any(set(entry.values()) != {"periodic"} for entry in conditions.values())
    if worst == "window" or (worst in ("rotates", "shears") and walled):
        return BoundaryClass("window")
    aperiodic = tuple(dict.fromkeys(f for c in found for f in c.aperiodic))
    return BoundaryClass(worst, weights, aperiodic)


def _periodic(axis: str, components: Mapping[str, Polynomial], equation: Equation, space: JetSpace) -> BoundaryClass:
    """The commutator rule: dv/dx_i must be a constant combination of space translations."""
    free, constants = potentials(equation), {space.number(p) for p in equation.parameters}
    kind, weights, lost = "exact", {}, []
    for c, p in components.items():
        change = space.partial(p, space.number(axis))
        if not change:
            continue
        if c in free:
            lost.append(c)
        elif c == axis and all({k for k, _ in space.exponents(m)} <= constants for m in change):
            weights[axis] = Fraction(change[0]) if set(change) == {0} else space.text(change)
            kind = max(kind, "rescales", key=_ORDER.index)
        elif c in equation.space and set(change) == {0}:
            turned = space.partial(components.get(axis, {}), space.number(c))
            kind = max(kind, "rotates" if turned == {0: -change[0]} else "shears", key=_ORDER.index)
        else:
            return BoundaryClass("window")
    return BoundaryClass(kind, weights, tuple(lost))


def wall_conditions(equation: Equation, axis: str) -> dict[str, str]:
    """Return field -> condition at the walls of an axis: of the equation file, or no-slip and zero gradient."""
    conditions = boundary_conditions(equation)[axis]
    return boundary_conditions(equation, {axis: "wall"})[axis] if "" in conditions else conditions


def keeps_walls(generator: SymmetryGenerator, axis: str) -> bool:
    """Whether the conditions at the walls of an axis hold for the image too, wherever the walls are carried.

    A boost along a no-slip wall is none: the image slips. Shifts and scalings of the axis take its walls with them.

    Args:
        generator: a verified generator.
        axis: the axis with walls, see :func:`wall_conditions`.
    """
    equation = generator.equation
    conditions = wall_conditions(equation, axis)
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    components = {c: space.from_tree(tree) for c, tree in generator.trees.items()}
    if not space.partial(components.get(axis, {}), space.number(axis)):
        components.pop(axis, None)
    return _wall(axis, conditions, components, space).kind != "window"


def _wall(
    axis: str, conditions: Mapping[str, str], components: Mapping[str, Polynomial], space: JetSpace
) -> BoundaryClass:
    """Tangency to walls at 0 and L of one axis, and to the conditions there."""
    at = space.number(axis)
    normal = space.independent.index(axis)
    vanish = {space.number(f) for f, c in conditions.items() if f and c in ("noslip", "dirichlet")}
    flat = {f for f, c in conditions.items() if f and c == "zero_gradient"}
    vanish |= {space.jet(space.fields.index(f), space.axis_units[normal]) for f in flat}
    for f, c in conditions.items():  # a field that vanishes on the wall has vanishing tangential and time derivatives
        if f and c in ("noslip", "dirichlet"):
            number = space.fields.index(f)
            vanish |= {space.jet(number, u) for i, u in enumerate(space.axis_units) if i != normal}

    def on_wall(p: Polynomial) -> Polynomial:
        mask = sum(31 << (BITS * k) for k in vanish)
        return {m: c for m, c in p.items() if not m & mask}

    kind, weights = "exact", {}
    stretch = on_wall(components.get(axis, {}))
    if stretch:
        if set(stretch) != {space.units[at]}:
            return BoundaryClass("window")
        kind, weights = "rescales", {axis: Fraction(stretch[space.units[at]])}
    for f, condition in conditions.items():
        p = components.get(f, {})
        if condition in ("noslip", "dirichlet"):
            change = on_wall(p)
        else:  # the prolongation on u_n: D_n phi - sum_j (D_n xi^j) u_j
            number = space.fields.index(f)
            change = dict(space.total(p, normal))
            for i, letter in enumerate(space.independent):
                if letter in components:
                    slope = space.total(components[letter], normal)
                    add_to(change, space.multiply(slope, space.variable(space.jet(number, space.axis_units[i]))), -1)
            change = on_wall(change)
        if change:
            return BoundaryClass("window")
    return BoundaryClass(kind, weights)
