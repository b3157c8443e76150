"""From features to one target: a readout, and a guess of how wrong it is."""

# n labelled runs, m new runs, D feature width

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pdessl.errors import DataError, did_you_mean
from pdessl.evaluation.residual_quantiles import residual_quantiles
from pdessl.models import RidgeReadout, fit_ridge
from pdessl.models.ridge import left_out_residuals
from pdessl.models.scale import bounded
from pdessl.objectives.neighbours import nearest_neighbour_prediction

__all__ = ["INTERVALS", "Estimator", "HeadReadout", "NeighbourReadout", "Readout", "fit_estimator"]

INTERVALS = ("adaptive", "constant", "quantile")

_FEWEST_FOR_SPREAD = 20  # runs; with fewer, a regression on log |residual| is noise
_GAIN = 0.9  # of the variance of log |residual|: a spread that leaves more unexplained widens more than it helps
_FLOOR = 1e-2  # residuals below this share of their median count as this: a lucky hit says nothing of its neighbours
_RANGE = math.log(4.0)  # the guessed width varies by this factor up and down at most


class Readout(Protocol):
    """Anything that predicts one target, on the scale it was fitted on."""

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m, 1) or (m,) for features (m, D)."""


@dataclass(frozen=True, eq=False)
class NeighbourReadout:
    """Mean target of the k nearest labelled runs, by distance of standardised features.

    Args:
        centre, scale: of the features, (D,).
        known: standardised features of labelled runs, (n, D).
        targets: their values, (n,).
        neighbours: k.
    """

    centre: Tensor
    scale: Tensor
    known: Tensor
    targets: Tensor
    neighbours: int

    @staticmethod
    def fit(features: Tensor, targets: Tensor, neighbours: int = 10) -> NeighbourReadout:
        """Fit on features (n, D) and targets (n,); k is at most n - 1."""
        centre, scale = features.mean(dim=0), features.std(dim=0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        k = max(1, min(neighbours, len(features) - 1))
        return NeighbourReadout(centre, scale, (features - centre) / scale, targets, k)

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for features (m, D)."""
        standard = (features.double() - self.centre) / self.scale
        return nearest_neighbour_prediction(self.known, self.targets, standard, self.neighbours, cosine=False)


@dataclass(frozen=True, eq=False)
class HeadReadout:
    """One output of a head that was trained by gradient, on the scale its labels were standardised from.

    Of a fitted :class:`pdessl.tasks.ParameterRegression` with ``readout="features"``::

        HeadReadout(task.head, 0, task.target_mean.tolist(), task.target_std.tolist())       # encoder: task.encoder

    The head reads features averaged over views; its outputs are not averaged.

    Args:
        head: network (m, D) -> (m, P), in evaluation mode.
        column: which output.
        offset, factor: target i is ``offset[i] + factor[i] * output[i]``, on its scale; P numbers each.
    """

    head: nn.Module
    column: int = 0
    offset: Sequence[float] = (0.0,)
    factor: Sequence[float] = (1.0,)

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for features (m, D)."""
        weight = next(self.head.parameters(), features)
        output = self.head(features.to(weight.device, weight.dtype))[:, self.column]
        return self.offset[self.column] + self.factor[self.column] * output.double().cpu()


@dataclass(frozen=True, eq=False)
class Estimator:
    """A readout of one target and s > 0, a guess of how wrong each prediction is.

        s(z) = exp(g(μ, μ², log |z|²)),   g: ridge on log |leave-one-out residual|, within a factor 4;  s = 1 without

    Where the residuals of the labelled runs are kept, quantiles of the error are those of the 32 nearest of them
    (:func:`pdessl.evaluation.residual_quantiles.residual_quantiles`).

    Predictions stay within the range of the labels, widened by half its width on each side
    (:func:`pdessl.models.scale.bounded`).

    Args:
        readout: the predictions.
        labels: smallest and largest label, on the scale of the readout.
        spread: ridge on log |residual|; None: every prediction is taken to be as wrong as the others.
        typical: mean log |residual|.
        known, residuals: features (n, D) and left-out residuals (n,) of the labelled runs; None: no quantiles.
    """

    readout: Readout
    labels: tuple[float, float]
    spread: RidgeReadout | None = None
    typical: float = 0.0
    known: Tensor | None = None
    residuals: Tensor | None = None

    def predict(self, features: Tensor) -> NDArray[np.float64]:
        """Return predictions (m,) for features (m, D)."""
        found = self.readout.predict(features).reshape(len(features))
        return bounded(found, torch.tensor(self.labels, dtype=found.dtype)).numpy()

    def scale(self, features: Tensor) -> NDArray[np.float64]:
        """Return s (m,)."""
        if self.spread is None:
            return np.ones(len(features))
        log = self.spread.predict(_cues(self.readout, features, self.readout.predict(features)))[:, 0] - self.typical
        return log.clamp(-_RANGE, _RANGE).add(self.typical).exp().numpy()

    def ends(self, features: Tensor, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what an interval starts from, (m,) each: quantiles of the prediction, or the prediction twice."""
        value = self.predict(features)
        if self.known is None or self.residuals is None:
            return value, value
        low, high = residual_quantiles(self.known, self.residuals, features, level)
        return value + low.numpy(), value + high.numpy()


def fit_estimator(features: Tensor, targets: Tensor, kind: str = "ridge", interval: str = "adaptive") -> Estimator:
    """Fit a readout and, where there are enough runs, what the width of its intervals follows.

    Args:
        features: (n, D), float64.
        targets: (n,), float64, on the scale of the readout.
        kind: ``ridge`` or ``neighbours``.
        interval: ``constant``; ``adaptive``: fit a spread; ``quantile``: keep the residuals.

    Raises:
        DataError: another kind of readout or interval.
        ShapeError: fewer than three runs.
    """
    if interval not in INTERVALS:
        raise DataError(f"no interval '{interval}'.{did_you_mean(interval, INTERVALS)} Choose: {', '.join(INTERVALS)}.")
    labels = float(targets.min()), float(targets.max())
    if kind == "ridge":
        readout: Readout = fit_ridge(features, targets)
        residual = left_out_residuals(readout, features, targets)[:, 0]  # type: ignore[arg-type]
    elif kind == "neighbours":
        readout = NeighbourReadout.fit(features, targets)
        residual = targets - nearest_neighbour_prediction(
            readout.known, targets, None, readout.neighbours, cosine=False
        )
    else:
        raise DataError(f"no readout '{kind}'. Choose ridge or neighbours, or give a trained head (head=...).")
    if interval == "quantile":
        return Estimator(readout, labels, known=features, residuals=residual)
    size = residual.abs()
    if interval == "constant" or len(size) < _FEWEST_FOR_SPREAD or not bool(size.median() > 0):
        return Estimator(readout, labels)
    log = size.clamp_min(_FLOOR * float(size.median())).log()
    spread = fit_ridge(_cues(readout, features, targets - residual), log)
    if spread.leave_one_out > _GAIN * float(log.var()):
        return Estimator(readout, labels)
    return Estimator(readout, labels, spread, float(log.mean()))


def _cues(readout: Readout, features: Tensor, predictions: Tensor) -> Tensor:
    """Return what the error of a prediction may depend on, (n, 3): μ, μ² and log of the distance from the mean run.

    All D features would fit the noise of log |residual| where labels are few.
    """
    mu = predictions.reshape(-1)
    if isinstance(readout, (RidgeReadout, NeighbourReadout)):
        far = ((features - readout.centre) / readout.scale).square().mean(dim=1).clamp_min(1e-12).log()
    else:
        far = torch.zeros_like(mu)
    return torch.stack([mu, mu.square(), far], dim=1)


# ---------------------------------------------------------------------------------------------- plain data


def readout_arrays(readout: Readout) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a readout is made of: plain data and arrays. A head's weights are saved apart."""
    if isinstance(readout, RidgeReadout):
        names = ("centre", "scale", "weights", "intercept")
        values = {"penalty": readout.penalty, "leave_one_out": readout.leave_one_out}
        return {"kind": "ridge", **values}, {n: getattr(readout, n) for n in names}
    if isinstance(readout, NeighbourReadout):
        names = ("centre", "scale", "known", "targets")
        return {"kind": "neighbours", "neighbours": readout.neighbours}, {n: getattr(readout, n) for n in names}
    if isinstance(readout, HeadReadout):
        numbers = {"offset": [float(v) for v in readout.offset], "factor": [float(v) for v in readout.factor]}
        return {"kind": "head", "column": readout.column, **numbers}, {}
    raise DataError(f"cannot save a readout of class {type(readout).__name__}; expected ridge, neighbours or a head.")


def readout_from(data: Mapping[str, Any], arrays: Mapping[str, Tensor], head: nn.Module | None) -> Readout:
    """Return the readout that :func:`readout_arrays` described."""
    if data["kind"] == "ridge":
        names = ("centre", "scale", "weights", "intercept")
        return RidgeReadout(*(arrays[n] for n in names), float(data["penalty"]), float(data["leave_one_out"]))
    if data["kind"] == "neighbours":
        names = ("centre", "scale", "known", "targets")
        return NeighbourReadout(*(arrays[n] for n in names), int(data["neighbours"]))
    if data["kind"] == "head" and head is not None:
        numbers = (tuple(map(float, data[n])) for n in ("offset", "factor"))
        return HeadReadout(head, int(data["column"]), *numbers)
    raise ValueError(f"readout of kind {data['kind']!r}")
