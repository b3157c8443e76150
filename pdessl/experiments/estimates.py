"""Estimates of a parameter without an encoder: of the equation's own terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pdessl.equations import load_equation
from pdessl.errors import CatalogError, PdesslError
from pdessl.evaluation.classical import least_squares, weak_form
from pdessl.evaluation.energy_balance import energy_balance
from pdessl.inference.shooting import shoot
from pdessl.schema import Count, Natural
from pdessl.trajectory import Trajectories
from pdessl.units import conversion

__all__ = ["Classical", "balance_itself", "equation_estimates"]


@dataclass(frozen=True)
class Classical:
    """Classical estimates of the equation's own coefficient, where the equation is linear in it.

    Args:
        half_width: frames, and points of each axis, on each side of a test function of the weak form; default 6.
        noise_level: known standard deviation of the noise, 0 where it is not known.
        equation: formulation that is fitted, by name; default that of the data. One without pressure where the data
            hold none.
        unknown: parameters that are estimated together with the target, instead of taken from the runs.
        shooting: fit the equation's simulator to every run too, see :func:`pdessl.inference.shooting.shoot`: the
            strongest of the three, at up to some seconds a run.
    """

    half_width: tuple[Count, ...] | None = None
    noise_level: Natural = 0.0
    equation: str | None = None
    unknown: tuple[str, ...] = ()
    shooting: bool = False


def equation_estimates(
    settings: Classical, equation: str, target: str, runs: Trajectories
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return, by method, the estimates (m,) that can be made of these runs, and why others cannot.

    Args:
        settings: see :class:`Classical`.
        equation: of the data.
        target: name of the parameter.
        runs: m runs; no label is read.
    """
    names = (target, *settings.unknown)
    half = settings.half_width
    if half is not None:  # shorter or coarser runs take narrower test functions
        half = tuple(max(1, min(h, (n - 1) // 4)) for h, n in zip(half, runs.fields.shape[2:], strict=False))
    chosen = settings.equation or equation
    makers: dict[str, Callable[[], Tensor]] = {
        "least_squares": lambda: least_squares(chosen, runs, names),
        "weak_form": lambda: weak_form(chosen, runs, names, half, noise_level=settings.noise_level),
    }
    if settings.shooting:
        makers["shooting"] = lambda: shoot(equation, runs, names).value
    found, reasons = {}, {}
    for method, make in makers.items():
        try:
            found[method] = make()[:, 0].cpu()
        except PdesslError as error:
            reasons[method] = str(error)
    return found, reasons


def balance_itself(equation: str | None, target: str, unit: str, runs: Trajectories) -> Tensor | None:
    """Return -dE/dt over the dissipation (m,) as the parameter itself, which no label is needed for.

    That is a viscosity or diffusivity where the other terms neither make nor destroy energy, see
    :func:`pdessl.evaluation.energy_balance.energy_balance`; elsewhere its error says that it is none.

    Args:
        equation: of the data, or None.
        target: name of the parameter.
        unit: of the labels, empty where nothing is said.
        runs: m runs; no label is read.

    Returns:
        None where the parameter is no length²/time by the equation's file, the unit or its name, or runs are too short.
    """
    try:
        known = None if equation is None else load_equation(equation)
    except CatalogError:
        known = None
    letters = {name: letter for letter, name in known.parameter_names.items()} if known else {}
    if known and target in letters:
        diffusive = known.parameter_units.get(letters[target]) == "length^2/time"
    elif unit:
        diffusive = conversion(unit, "m^2/s") is not None
    else:
        diffusive = target.endswith(("viscosity", "diffusivity"))
    if not diffusive:
        return None
    try:
        return energy_balance(runs)[:, 0].cpu()
    except PdesslError:
        return None
