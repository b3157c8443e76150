"""Strengths: which flows are drawn, and what a window-relative strength means in the units of the data."""

# B batch, T time frames, d number of space axes

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy
import torch
from torch import Tensor

from pdessl.augmentation.coefficients import coefficients, compile_expression
from pdessl.augmentation.slice_affine import SliceAffine
from pdessl.equations import STRENGTH_UNITS
from pdessl.errors import SymmetryError, did_you_mean
from pdessl.symmetry.flow import Flow, as_expression
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    from pdessl.augmentation.plan import Plan

__all__ = ["Factor", "Widths", "choose_factors"]


def choose_factors(
    algebra: Any, strengths: Mapping[str, float] | None, moves: Sequence[str], observed: Sequence[str] | None
) -> list[Factor]:
    """Return the flows to draw, in the order of declaration.

    Args:
        algebra: a :class:`pdessl.symmetry.SymmetryAlgebra`.
        strengths: largest strength by generator; None: those of the equation file, without the generators that move
            parameters outside ``moves`` and those that only look like such a motion (``algebra.confounded``).
        moves: names of the parameters that may move.
        observed: fields that the network sees; None: those of the equation file.

    Raises:
        SymmetryError: an unknown generator, a strength that is no finite number >= 0, or a generator that moves a
            parameter outside ``moves``.
    """
    equation, known = algebra.equation, {g.name: g for g in algebra.generators}
    letters = equation.parameters
    names = {k: equation.parameter_names.get(k, k) for k in letters}
    for name in strengths or {}:
        if name not in known:
            raise SymmetryError(
                f"{equation.name} has no generator '{name}'.{did_you_mean(name, known)} Generators: {', '.join(known)}."
            )
    confounded = algebra.confounded(observed) if strengths is None else {}
    factors = []
    for name, generator in known.items():
        maximum = (generator.strength_max or 0.0) if strengths is None else strengths.get(name, 0.0)
        if not math.isfinite(maximum) or maximum < 0:
            raise SymmetryError(f"strength of '{name}' is {maximum}; give a finite number >= 0.")
        moved = [names[k] for k in letters if k in generator.flow.moved_parameters]
        barred = [n for n in moved if n not in moves]
        if maximum == 0 or (strengths is None and (barred or name in confounded)):
            continue
        if barred:
            raise SymmetryError(
                f"'{name}' moves {', '.join(moved)}: a view under it belongs to another {barred[0]}, so the two "
                "views of a trajectory must not be treated as equal. If the motion is wanted (labels move with the "
                f"view), pass moves={tuple(moved)!r}."
            )
        factors.append(Factor(generator, float(maximum), algebra))
    return factors


@dataclass(frozen=True)
class Widths:
    """Extents of the view that window-relative strengths refer to."""

    space: Tensor  # (B, d)
    duration: Tensor  # (B,)
    floor: Tensor  # (B,), stands for the largest |t| of a view of one frame
    deviation: Tensor | None  # (B, C), where a strength is measured by it

    @staticmethod
    def of(batch: Trajectories, plan: Plan, time: Tensor, deviations: bool) -> Widths:
        """Measure the views of a batch whose frames lie at ``time`` (B, frames)."""
        spacing, step = batch.grid_spacing, batch.time_step
        extent = torch.stack([spacing[:, i] * p for i, p in enumerate(plan.points)], dim=1)
        deviation = None
        if deviations:  # the population form, so that a single value has deviation 0 and no warning
            deviation = batch.fields.detach().flatten(2).std(dim=2, correction=0).to(torch.float64)
        return Widths(extent, (time[:, -1] - time[:, 0]) + step, step / 2, deviation)

    def map(self, function: Callable[[Tensor], Tensor]) -> Widths:
        """Apply a function to every tensor."""
        deviation = None if self.deviation is None else function(self.deviation)
        return Widths(function(self.space), function(self.duration), function(self.floor), deviation)


class Factor:
    """One flow of the product: its largest strength and the unit in which it is given."""

    def __init__(self, generator: Any, maximum: float, algebra: Any) -> None:
        self.name, self.flow, self.maximum = generator.name, generator.flow, maximum
        self.generator = generator
        if self.flow.obstruction is not None:
            raise SymmetryError(
                f"'{self.name}' cannot be applied to gridded data: {self.flow.obstruction}. Leave it out (strength 0)."
            )
        equation = algebra.equation
        expressions = generator.expressions()
        self.time, self.space = equation.independent[0], equation.independent[1:]
        translations = {z for g in algebra.generators for z in equation.independent if _is_translation(g, z)}
        for z in equation.independent:
            if z not in translations and any(e.has(sympy.Symbol(z)) for e in expressions.values()):
                raise SymmetryError(
                    f"'{self.name}' depends on {z}, but {equation.name} declares no translation {{{z}: 1}}; without it "
                    "the flow cannot be centred in the window. Declare the translation if it is a symmetry."
                )
        natural = _natural_unit(expressions, self.flow, equation)
        unit = generator.strength_unit
        if unit not in STRENGTH_UNITS:
            known = ", ".join(STRENGTH_UNITS)
            raise SymmetryError(
                f"'{self.name}' has strength unit '{unit}'.{did_you_mean(unit, STRENGTH_UNITS)} Units: {known}."
            )
        if natural == "window_time":
            unit = natural  # no other unit keeps the frames away from the singularity
            if maximum > 1:
                raise SymmetryError(
                    f"'{self.name}' is projective: its strength times the duration of the window must be <= 1, not "
                    f"{maximum}, so that the scale factor D stays above 1/2."
                )
        self.unit = unit
        measured = {"window": equation.independent, "window_displacement": self.space, "std": equation.dependent}
        moved = [z for z in measured.get(unit, ()) if expressions.get(z, 0) != 0]
        self.rates = {z: compile_expression(expressions[z]) for z in moved}
        if unit == "window_time":
            rate = sympy.diff(expressions[self.time], sympy.Symbol(self.time), 2) / 2
            self.rates = {self.time: compile_expression(rate)}
        if unit == "window_angle":
            turns = [sympy.diff(expressions[a], sympy.Symbol(b)) for a in self.space for b in self.space if a != b]
            self.rates = {f"angle {i}": compile_expression(e) for i, e in enumerate(turns) if e != 0}
        if unit not in ("log", "angle") and not self.rates:
            raise SymmetryError(f"'{self.name}' moves nothing that the unit '{unit}' measures; use {natural}.")

    def on(self, state: SliceAffine, strength: Tensor, plan: Plan) -> SliceAffine:
        """Coefficients on the slices and parameters that the earlier factors have left."""
        return coefficients(self.flow, strength, state.new_time, state.parameters, plan.fields, plan.axes)

    def strength(self, relative: Tensor, state: SliceAffine, widths: Widths, plan: Plan) -> Tensor:
        """Turn a window-relative strength into ε, (B,)."""
        if self.unit in ("log", "angle"):
            return relative
        values: dict[str, Any] = {n: p[:, None] for n, p in state.parameters.items()} | {self.time: state.new_time}
        for name in (*self.space, *plan.fields):
            values.setdefault(name, 0.0)
        needed = []
        for z, function in self.rates.items():
            absent = [k for k in self.flow.parameters if k not in values]
            try:
                rate = function(values)
            except KeyError as error:
                raise SymmetryError(
                    f"the strength of '{self.name}' depends on the parameter {error}, whose values the batch does not "
                    f"hold (missing: {', '.join(absent)}). Give labelled data, or leave this generator out."
                ) from None
            rate = torch.as_tensor(rate, dtype=torch.float64, device=relative.device)
            rate = rate.abs().reshape(1, 1) if rate.dim() == 0 else rate.abs()
            rate = rate.amax(dim=1).expand(relative.shape[0])
            tiny = torch.finfo(torch.float64).tiny
            if self.unit == "window_time":
                # twice the largest |t| is the duration of a centred window; later than a time shift it is more
                span = 2 * torch.maximum(state.new_time.abs().amax(dim=1), widths.floor)
                # a trajectory of one frame has no duration to measure by: nothing is drawn
                needed.append(torch.where(rate * span > 0, (rate * span).clamp(min=tiny).reciprocal(), 0.0))
                continue
            if self.unit == "window_angle":
                needed.append(torch.where(rate > 0, rate.clamp(min=tiny).reciprocal(), 0.0))
                continue
            if z == self.time:
                extent = widths.duration
            elif z in plan.axes:
                extent = widths.space[:, plan.axes.index(z)]
                if self.unit == "window_displacement":  # a view of one frame sits at t = 0: measure half a frame away
                    away = function({**values, self.time: widths.floor[:, None]})
                    away = torch.as_tensor(away, dtype=torch.float64, device=relative.device)
                    rate = torch.maximum(rate, away.abs().reshape(-1).expand(relative.shape[0]))
            else:
                if z not in plan.fields:
                    continue
                assert widths.deviation is not None  # noqa: S101  (measured where a strength refers to it)
                extent = widths.deviation[:, plan.fields.index(z)]
            needed.append(torch.where(rate > 0, extent / rate.clamp(min=tiny), 0.0))
        return relative * functools.reduce(torch.minimum, needed) if needed else relative


def _natural_unit(expressions: Mapping[str, sympy.Expr], flow: Flow, equation: Any) -> str:
    """The unit that fits a vector field."""
    time = sympy.Symbol(equation.independent[0])
    if sympy.diff(flow.maps[equation.independent[0]], time, 2) != 0:
        return "window_time"
    moved = {n: as_expression(e, n) for n, e in expressions.items() if e != 0}
    inputs = {sympy.Symbol(n) for n in (*equation.independent, *equation.dependent)}
    space = [n for n in moved if n in equation.independent[1:]]
    if all(not e.free_symbols & inputs for e in moved.values()) and set(moved) <= set(equation.independent):
        return "window"
    if space and all(moved[n].free_symbols & inputs <= {time} for n in space) and equation.independent[0] not in moved:
        return "window_displacement"
    if not space and equation.independent[0] not in moved and all(not e.free_symbols & inputs for e in moved.values()):
        return "std"
    return "log"


def _is_translation(generator: Any, name: str) -> bool:
    moved = {n: e for n, e in generator.expressions().items() if e != 0}
    return set(moved) == {name} and bool(moved[name].is_number)
