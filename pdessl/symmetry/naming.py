"""Names of vector fields, from their pattern: what a physicist would call what was discovered."""

from __future__ import annotations

from collections.abc import Mapping

from pdessl.equations import Equation, parse_expression
from pdessl.symmetry.polynomial import Coefficient, JetSpace, Polynomial

__all__ = ["is_linear", "scaling_weights", "suggest_name"]


def is_linear(equation: Equation) -> bool:
    """Whether every term holds one field or derivative, so that solutions may be added and multiplied by numbers."""
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    return all(
        sum(e for k, e in space.exponents(m) if k >= space.base) == 1
        for tree in equation.trees
        for m in space.from_tree(tree)
    )


def scaling_weights(components: Mapping[str, Polynomial], space: JetSpace) -> dict[str, Coefficient] | None:
    """Weights of a scaling, coordinate -> weight; None for any other vector field.

    A frame that moves with the scaling (``x: x + c*t``) changes no length, a constant that is added to a field not how
    much it varies (``u: -u - 1``, a scaling about -1), and a function of the parameters as common factor no weight.
    """
    weights, factors = {}, set()
    time, constants = _time(space), set(range(len(space.independent), space.base))
    for c, p in components.items():
        own = space.number(c)
        rest = {m: _variables(m, space) for m in p}
        linear = [m for m, z in rest.items() if own in z and _variables(m - space.units[own], space) <= constants]
        if len(linear) != 1:
            return None
        del rest[linear[0]]
        if c in space.independent:
            moving = all(time in z and z <= constants | {time} for z in rest.values())
        else:
            moving = all(z <= constants for z in rest.values()) and (own not in constants or not rest)
        if not moving:
            return None
        weights[c] = p[linear[0]]
        factors.add(linear[0] - space.units[own])
    return weights if len(factors) == 1 else None


def suggest_name(components: Mapping[str, str], equation: Equation) -> str:
    """Suggest a human name for a vector field from its pattern."""
    space = JetSpace(equation.independent, equation.dependent, equation.parameters)
    field = {c: space.from_tree(parse_expression(text, equation.names)) for c, text in components.items()}
    moved = [c for c in field if c in equation.parameters]
    axes = [c for c in field if c in equation.space]
    suffix = f"_{axes[0]}" if len(equation.space) > 1 and axes else ""
    if len(field) == 1:
        ((c, p),) = field.items()
        if set(p) == {0}:
            return "time_translation" if c == "t" else f"space_translation{suffix}" if c in axes else f"{c}_shift"
    if moved:
        names = [equation.parameter_names[c] for c in moved]
        own = all(set(p) == {space.units[space.number(c)]} for c, p in field.items())
        return "_".join((*names, "scaling" if own else "motion"))
    if scaling_weights(field, space) is not None:
        return "scaling" if "t" in field or axes else f"{'_'.join(field)}_scaling"
    # Monomials of the components on independents, without their parameters: variable numbers, repeated.
    parts = {c: {_letters(m, space) for m in field[c]} for c in field if c in equation.independent}
    t = _time(space)
    if "t" in parts:
        if parts["t"] == {(t, t)}:
            return "projective"
        others = [space.number(a) for a in axes]
        if len(axes) == 1 and parts["t"] == {(others[0],)} and parts[axes[0]] == {(t,)}:
            return f"lorentz_boost{suffix}"
    elif len(axes) == 1:
        (x,) = (space.number(a) for a in axes)
        found = parts[axes[0]]
        if found == {(x, x)}:
            return f"projective_{axes[0]}"
        if found and all(set(z) == {t} for z in found):
            return f"galilean_boost{suffix}" if found == {(t,)} else f"acceleration{suffix}"
    elif len(axes) == 2:
        i, j = (space.number(a) for a in axes)
        pair = [parts[a] for a in axes]
        if pair == [{(j,)}, {(i,)}]:
            return "rotation" if len(equation.space) == 2 else f"rotation_{''.join(axes)}"
        if pair == [{(t, j)}, {(t, i)}]:
            return "rotating_frame"
        if pair in ([{(j,)}, {(t,)}], [{(t,)}, {(i,)}]):
            return "quasi_rotation"
    if any(len([z for z in p if len(z) == 2 and z[0] == z[1]]) > 1 for p in parts.values()):
        return "conformal"
    if parts:
        return "generator"
    plain = all(k < space.base for p in field.values() for m in p for k in _variables(m, space))
    if plain and is_linear(equation):
        lead = max((_letters(m, space) for p in field.values() for m in p), key=lambda z: (len(z), [-k for k in z]))
        return f"superposition_{''.join(equation.independent[k] for k in lead)}"
    return f"{'_'.join(field)}_{'gauge' if plain else 'motion'}"


def _time(space: JetSpace) -> int:
    """The number of the variable t; of no variable where the equation is stationary."""
    return space.number("t") if "t" in space.independent else -1


def _variables(monomial: int, space: JetSpace) -> set[int]:
    return {k for k, _ in space.exponents(monomial)}


def _letters(monomial: int, space: JetSpace) -> tuple[int, ...]:
    """The variables of a monomial but the parameters, as often as they occur."""
    constants = range(len(space.independent), space.base)
    return tuple(k for k, e in space.exponents(monomial) if k not in constants for _ in range(e))
