"""Tailoring: a trained network goes on training on the residual of the equation of the very runs it reads."""

# n runs, V views of each, D feature width, P targets

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from pdessl.equations import Equation, load_equation
from pdessl.errors import CheckpointError, DataError
from pdessl.evaluation.classical import weak_terms
from pdessl.evaluation.equation_terms import letters_of, unknown_terms
from pdessl.evaluation.frame_terms import FrameTerms, frame_terms
from pdessl.inference.encoding import read_of, views_of
from pdessl.inference.model import ParameterModel
from pdessl.inference.reading import RunReader
from pdessl.inference.readouts import HeadReadout
from pdessl.models import RidgeReadout
from pdessl.models.scale import from_scale
from pdessl.models.spacing import spacing_arguments
from pdessl.schema import Count, Natural, Positive
from pdessl.trajectory import Trajectories

__all__ = ["Tailoring", "descend", "predict_tailored", "residual_terms"]

_WEAK = 5  # frames for a test function with one on each side of its centre, and a second one


@dataclass(frozen=True)
class Tailoring:
    """Training at test time on the residual of the equation, which needs no label.

        min over weights of  q(p̂) / q(0) + anchor |w - w_0|²

    q is the squared residual of a run, p̂ what the network says of it, w_0 the weights that training ended with.

    Args:
        steps: of Adam.
        learning_rate: of Adam. With the published 1e-5 a prediction far from the truth moves by little; with 1e-3 it
            ends where the residual is least, whatever the network said.
        anchor: weight of the distance from the trained weights.

    Source: PDEInvBench (2026), arXiv:2605.25353: 50 steps with an anchor, of a whole batch at once.
    """

    steps: Count = 50
    learning_rate: Positive = 1e-4
    anchor: Natural = 1.0


class _Share(Protocol):
    """A squared residual over that with all unknowns 0."""

    def share(self, values: Tensor) -> Tensor:
        """Return it for unknowns (n, P), (n,), differentiable in them."""


def descend(
    network: nn.Module, values: Callable[[nn.Module], Tensor], terms: _Share, settings: Tailoring
) -> tuple[Tensor, Tensor]:
    """Train a copy of a network on the residual of what it then reads, and return what it says before and after.

    Args:
        network: stays as it is, in evaluation mode where its copy is trained too.
        values: gives the unknowns of the equation, (n, P), from a network.
        terms: the residual of n runs; their mean is minimised.
        settings: see :class:`Tailoring`.

    Returns:
        Unknowns, (n, P) each, detached.
    """
    own = copy.deepcopy(network).eval().requires_grad_(True)
    weights = list(own.parameters())
    anchors = [w.detach().clone() for w in weights]
    optimiser = torch.optim.Adam(weights, lr=settings.learning_rate)
    before: Tensor | None = None
    with torch.enable_grad():
        for _ in range(settings.steps):
            optimiser.zero_grad()
            found = values(own)
            before = found.detach() if before is None else before
            moved = torch.stack([(w - a).square().sum() for w, a in zip(weights, anchors, strict=True)]).sum()
            (terms.share(found).mean() + settings.anchor * moved).backward()
            optimiser.step()
    with torch.no_grad():
        after = values(own)
    assert before is not None  # noqa: S101  (there is a step)
    return before, after


def residual_terms(equation: Equation, runs: Trajectories, names: list[str]) -> FrameTerms:
    """Return the squared residual of runs as a quadratic in unknowns.

    Of five frames and more it is that of the weak form (:func:`pdessl.evaluation.classical.weak_terms`), which averages
    noise; of fewer, that of the trapezoidal rule between frames (:func:`pdessl.evaluation.frame_terms.frame_terms`).
    """
    if runs.fields.shape[2] < _WEAK:
        return frame_terms(equation, runs, names)
    held = weak_terms(equation, runs, names)
    return FrameTerms(held.gram.sum(dim=1), held.right.sum(dim=1), held.rest.sum(dim=1))


class _Tailored(NamedTuple):
    """Of n runs: values before and after, (n, P), and what is left of the residual at both, (n,)."""

    before: Tensor
    after: Tensor
    residual_before: Tensor
    residual: Tensor


def predict_tailored(
    model: ParameterModel,
    data: xr.Dataset | Trajectories,
    equation: str | Equation | None = None,
    settings: Tailoring | None = None,
    level: float | None = None,
    missing: str = "refuse",
) -> xr.Dataset:
    """Predict parameters of runs whose equation is known, each by a copy of the model trained on the run's residual.

    No label is read. What a run is told is the same alone and among others: each has a copy of its own, as trained
    before. The interval is the model's, of the prediction before tailoring: labelled runs have calibrated that one, so
    that it still holds as many truths as it promises, and a tailored value may lie outside. A tailored value is not
    bounded by the labels.

    Args:
        model: of a network, with readouts that have a slope (ridge, or a trained head).
        data: see :meth:`ParameterModel.predict`.
        equation: name in the catalog, file, or an equation; default what the model was trained on. It must be linear in
            the model's targets; its other parameters are the model's constants.
        settings: see :class:`Tailoring`.
        level: of the intervals.
        missing: as in :meth:`ParameterModel.predict`.

    Returns:
        What :meth:`ParameterModel.predict` returns, with tailored values, and for each target ``<name>_untailored``;
        ``residual`` and ``residual_untailored``, the squared residual over that with every target 0.

    Raises:
        CheckpointError: a model that has nothing to train, or a readout without a slope.
        DataError: no equation, or one with parameters that nothing is known of.
        EquationError: an equation without such a parameter, or not linear in it.
        FormatError, ShapeError: data outside the declared format, or that are no fields of the equation.

    Warns:
        UserWarning: see :meth:`ParameterModel.predict`; or runs whose residual is larger than before and than 1, or not
            finite.
    """
    settings = settings or Tailoring()
    _check_trainable(model)
    chosen = _checked_equation(model, equation)
    result = model.predict(data, level, missing)
    reader = RunReader(data, model.format, missing)
    names = [t.name for t in model.targets]
    found = {n: np.full(reader.count, np.nan) for n in (*names, *(f"{n}_untailored" for n in names))}
    left = {n: np.full(reader.count, np.nan) for n in ("residual", "residual_untailored")}
    for piece in reader:
        for i, place in enumerate(piece.places):
            one = _tailor_run(model, piece.runs[slice(i, i + 1)], chosen, settings)
            for k, name in enumerate(names):
                found[name][place], found[f"{name}_untailored"][place] = one.after[0, k], one.before[0, k]
            left["residual"][place], left["residual_untailored"][place] = one.residual[0], one.residual_before[0]
    # Around the least residual steps lead up and down; saying nothing (0) is no worse than what is above 1.
    began = left["residual_untailored"]
    away = ~(left["residual"] <= np.maximum(began, 1.0)) & np.isfinite(began)
    if away.any():
        warnings.warn(
            f"tailoring left more of the residual than there was, or no finite number, in {int(away.sum())} of "
            f"{len(away)} runs, first run {int(away.argmax())}: do not use what it says of them. Lower learning_rate "
            f"({settings.learning_rate:g}), or take more steps ({settings.steps}).",
            stacklevel=2,
        )
    dims, shape = result["novelty"].dims, result["novelty"].shape
    for name, values in found.items():
        result[name] = (dims, values.reshape(shape), result[name.removesuffix("_untailored")].attrs)
    for name, values in left.items():
        meaning = "squared residual over that with every target 0"
        result[name] = (dims, values.reshape(shape), {"units": "1", "long_name": meaning})
    return result


def _tailor_run(model: ParameterModel, run: Trajectories, equation: Equation, settings: Tailoring) -> _Tailored:
    assert isinstance(model.encoder, nn.Module)  # noqa: S101  (checked before)
    views = model.format.fitted(model.views, run)
    seen = list(views_of(model.encoder, run, views, model.format.equation, model.seed))

    def values(encoder: nn.Module) -> Tensor:
        network = read_of(encoder, model.layer)
        rows = torch.cat([network(v.fields, **spacing_arguments(network, v)).double() for v in seen])
        features = rows.mean(dim=0, keepdim=True).cpu()
        columns = []
        for target in model.targets:
            readout = target.estimator.readout
            predict = readout.traced if isinstance(readout, HeadReadout) else readout.predict
            columns.append(from_scale(predict(features).reshape(1).cpu(), target.scale))
        return torch.stack(columns, dim=1)

    terms = residual_terms(equation, model.format.with_constants(run), [t.name for t in model.targets])
    before, after = descend(model.encoder, values, terms, settings)
    return _Tailored(before, after, terms.share(before), terms.share(after))


def _check_trainable(model: ParameterModel) -> None:
    if not isinstance(model.encoder, nn.Module) or not any(w.is_floating_point() for w in model.encoder.parameters()):
        raise CheckpointError(
            f"the model reads {type(model.encoder).__name__}, which has no weights to tailor. Where the equation is "
            "known, the simulator can be fitted to each run instead:  pdessl predict --inference simulator; or fit a "
            "model on a network:  pdessl regress --encoder ..."
        )
    for target in model.targets:
        readout = target.estimator.readout
        if not isinstance(readout, (RidgeReadout, HeadReadout)):
            raise CheckpointError(
                f"{target.name} is read by a {type(readout).__name__}, which has no slope to follow. Fit the model "
                "with readout='ridge', or with a trained head."
            )


def _checked_equation(model: ParameterModel, equation: str | Equation | None) -> Equation:
    given = equation or model.format.equation
    if given is None:
        raise DataError("neither the model nor you say which equation the runs obey. Give it:  --equation NAME")
    found, names = load_equation(given), [t.name for t in model.targets]
    unknown_terms(found, letters_of(found, names))
    missing = [n for n in found.parameter_names.values() if n not in names and n not in model.format.constants]
    if missing:
        held = ", ".join(f"{n} {v:g}" for n, v in model.format.constants.items()) or "none"
        raise DataError(
            f"{found.name} has the parameter '{missing[0]}', which the model neither predicts nor knows (constants of "
            f"its runs: {held}). Write its number into a copy of the equation's file:  --equation FILE.yaml"
        )
    return found
