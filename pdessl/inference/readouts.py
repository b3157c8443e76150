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
from pdessl.inference.affine import AffineReadout
from pdessl.models import RidgeReadout, fit_ridge
from pdessl.models.ridge import fit_ridge_on_views, left_out_residuals
from pdessl.models.scale import SCALES, bounded, from_scale
from pdessl.objectives.neighbours import nearest_neighbour_prediction

__all__ = [
    "INTERVALS",
    "READOUTS",
    "CodeReadout",
    "Estimator",
    "HeadReadout",
    "MeanReadout",
    "NeighbourReadout",
    "Readout",
    "fit_estimator",
    "label_weights",
    "readout_arrays",
    "readout_from",
]

INTERVALS = ("adaptive", "constant", "quantile")
READOUTS = ("ridge", "neighbours", "mean", "affine", "best")

_FEWEST_FOR_SPREAD = 20  # runs; with fewer, a regression on log |residual| is noise
_GAIN = 0.9  # of the variance of log |residual|: a spread that leaves more unexplained widens more than it helps
_MEDIAN_OF_CHI2 = 0.4549364231195725  # with one degree of freedom
_FLOOR = 1e-2  # residuals below this share of their median count as this: a lucky hit says nothing of its neighbours
_NEIGHBOURS = (1, 2, 3, 5, 10, 20)
_RANGE = math.log(4.0)  # the guessed width varies by this factor up and down at most


class Readout(Protocol):
    """Anything that predicts one target, on the scale it was fitted on."""

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m, 1) or (m,) for features (m, D)."""


@dataclass(frozen=True, eq=False)
class NeighbourReadout:
    """Weighted mean target of the k nearest labelled runs, by distance of standardised features.

    Args:
        centre, scale: of the features, (D,).
        known: standardised features of labelled runs, (n, D).
        targets: their values, (n,).
        neighbours: k.
        weights: of the runs, (n,); None: all alike.
    """

    centre: Tensor
    scale: Tensor
    known: Tensor
    targets: Tensor
    neighbours: int
    weights: Tensor | None = None

    @staticmethod
    def fit(
        features: Tensor, targets: Tensor, neighbours: int | None = None, weights: Tensor | None = None
    ) -> NeighbourReadout:
        """Fit on features (n, D) and targets (n,).

        Args:
            features: n >= 2 rows.
            targets: on the scale of the readout.
            neighbours: k, at most n - 1; None: of 1, 2, 3, 5, 10 and 20 the one with the smallest leave-one-out error.
            weights: see the class.
        """
        centre, scale = features.mean(dim=0), features.std(dim=0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        known, most = (features - centre) / scale, len(features) - 1
        tried = [k for k in _NEIGHBOURS if k <= most] if neighbours is None else [max(1, min(neighbours, most))]

        def error(k: int) -> float:
            left = NeighbourReadout(centre, scale, known, targets, k, weights).left_out()
            return _mean((left - targets).square(), weights)

        return NeighbourReadout(centre, scale, known, targets, min(tried, key=error), weights)

    def left_out(self) -> Tensor:
        """Return the predictions of the labelled runs, each without itself, (n,)."""
        return self._of(None)

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for features (m, D)."""
        return self._of((features.double() - self.centre) / self.scale)

    def _of(self, queries: Tensor | None) -> Tensor:
        mean = lambda values: nearest_neighbour_prediction(  # noqa: E731
            self.known, values, queries, self.neighbours, cosine=False
        )
        if self.weights is None:
            return mean(self.targets)
        return mean(self.weights * self.targets) / mean(self.weights)


@dataclass(frozen=True, eq=False)
class MeanReadout:
    """The mean target of the labelled runs, whatever the features: the floor of every table."""

    mean: float

    def predict(self, features: Tensor) -> Tensor:
        """Return the mean (m,) for features (m, D)."""
        return torch.full((len(features),), self.mean, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class CodeReadout:
    """A parameter that is nearly affine in a law's codes, on its scale: a + b·z, or the logarithm of that.

    Args:
        affine: the map to the parameter itself.
        scale: ``log`` or ``linear``.
        least: smallest label, > 0, on the scale ``log``; half of it stands for values that have no logarithm.
    """

    affine: AffineReadout
    scale: str
    least: float = 0.0

    @staticmethod
    def fit(codes: Tensor, targets: Tensor, scale: str, weights: Tensor | None = None) -> CodeReadout:
        """Fit on codes (n, R) and targets (n,) on the scale; see :meth:`AffineReadout.fit`."""
        labels = from_scale(targets, scale)
        return CodeReadout(
            AffineReadout.fit(codes, labels, weights), scale, float(labels.min()) if scale == "log" else 0.0
        )

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for codes (m, R)."""
        found = self.affine.predict(features)
        return found.clamp_min(self.least / 2).log() if self.scale == "log" else found


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
        return self.traced(features).cpu()

    def traced(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for features (m, D), with their derivatives by the features."""
        weight = next(self.head.parameters(), features)
        output = self.head(features.to(weight.device, weight.dtype))[:, self.column]
        return self.offset[self.column] + self.factor[self.column] * output.double()


@dataclass(frozen=True, eq=False)
class Estimator:
    """A readout of one target and s > 0, a guess of how wrong each prediction is.

        s(z) = exp(g(μ, μ², log |z|²)),   g: ridge on log |leave-one-out residual|, within a factor 4;  s = 1 without

    Where the residuals of the labelled runs are kept, quantiles of the error are those of the 32 nearest of them
    (:func:`pdessl.evaluation.residual_quantiles.residual_quantiles`).

    Predictions stay within the range of the labels, widened by half its width on each side
    (:func:`pdessl.models.scale.bounded`); those that are affine in a law's codes are not bounded: they hold where the
    law does.

    Args:
        readout: the predictions.
        labels: smallest and largest label, on the scale of the readout.
        spread: ridge on log |residual|; None: every prediction is taken to be as wrong as the others.
        typical: mean log |residual|.
        left_out: root mean square error of the labelled runs, each left out of the fit, on the scale of the readout.
        known, residuals: features (n, D) and left-out residuals (n,) of the labelled runs; None: no quantiles.
    """

    readout: Readout
    labels: tuple[float, float]
    spread: RidgeReadout | None = None
    typical: float = 0.0
    left_out: float = math.nan
    known: Tensor | None = None
    residuals: Tensor | None = None

    def predict(self, features: Tensor) -> NDArray[np.float64]:
        """Return predictions (m,) for features (m, D)."""
        found = self.readout.predict(features).reshape(len(features))
        if isinstance(self.readout, CodeReadout):
            return found.numpy()
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


def fit_estimator(
    features: Tensor,
    targets: Tensor,
    kind: str = "ridge",
    interval: str = "adaptive",
    scale: str = "linear",
    weights: Tensor | None = None,
    rows: Tensor | None = None,
) -> Estimator:
    """Fit a readout and, where there are enough runs, what the width of its intervals follows.

    Args:
        features: (n, D), float64.
        targets: (n,), float64, on the scale of the readout.
        kind: ``ridge``, ``neighbours``, ``mean``, ``affine`` (for the codes of a law), or ``best``: of ridge,
            neighbours and affine the one with the smallest leave-one-out error.
        interval: ``constant``; ``adaptive``: fit a spread; ``quantile``: keep the residuals.
        scale: that of the targets, ``log`` or ``linear``; ``affine`` needs it.
        weights: what a squared error of each run counts, (n,), see :func:`label_weights`; None: all alike.
        rows: (n, V, D), features of every view of every run, whose averages are ``features``: a ridge is then fitted on
            all of them, see :func:`pdessl.models.ridge.fit_ridge_on_views`.

    Raises:
        DataError: another kind of readout or interval.
        ShapeError: fewer than three runs (two for ``affine``, ``best`` and ``mean``).
    """
    if interval not in INTERVALS:
        raise DataError(f"no interval '{interval}'.{did_you_mean(interval, INTERVALS)} Choose: {', '.join(INTERVALS)}.")
    if kind not in READOUTS:
        raise DataError(
            f"no readout '{kind}'.{did_you_mean(kind, READOUTS)} Choose {', '.join(READOUTS)}, or give a trained head "
            "(HeadReadout)."
        )
    labels = float(targets.min()), float(targets.max())
    readout, residual = _fitted(features, targets, kind, scale, weights, rows)
    error = math.sqrt(_mean(residual.square(), weights))
    if interval == "quantile":
        return Estimator(readout, labels, left_out=error, known=features, residuals=residual)
    size = residual.abs()
    if interval == "constant" or len(size) < _FEWEST_FOR_SPREAD or not bool(size.median() > 0):
        return Estimator(readout, labels, left_out=error)
    log = size.clamp_min(_FLOOR * float(size.median())).log()
    spread = fit_ridge(_cues(readout, features, targets - residual), log, weights=weights)
    if spread.leave_one_out > _GAIN * float(log.var()):
        return Estimator(readout, labels, left_out=error)
    return Estimator(readout, labels, spread, float(log.mean()), error)


def label_weights(
    features: Tensor, targets: Tensor, errors: Tensor, kind: str, scale: str = "linear"
) -> tuple[Tensor, Tensor]:
    """Return what labels of known standard errors count in a fit, and what of their residuals is not the label's.

        w_i = 1/(s² + σ_i²),   s² = median(r_i² - σ_i²)/0.455, at least 1e-6 of median r²;   sqrt(s² w_i)

    r_i are the residuals of the labelled runs, each left out of a fit; s, the error of the method itself, is taken
    twice: of a fit in which all count alike, and of one with the weights that follow. 0.455 is the median of chi² with
    one degree of freedom.

    Args:
        features: (n, D).
        targets: (n,), on the scale of the readout.
        kind: see :func:`fit_estimator`.
        scale: likewise.
        errors: σ, (n,), >= 0, on the scale of the readout; 0 where a label is exact or nothing is said.

    Returns:
        w (n,), with mean 1, and the factors (n,) in (0, 1] that residuals are multiplied by to be those of an exact
        label.
    """
    weights, variance = None, torch.tensor(0.0)
    for _ in range(2):
        square = _fitted(features, targets, kind, scale, weights)[1].square()
        least = 1e-6 * square.median() + torch.finfo(torch.float64).tiny
        variance = torch.maximum((square - errors.square()).median() / _MEDIAN_OF_CHI2, least)
        weights = 1 / (variance + errors.square())
        weights = weights / weights.mean()
    return weights, (variance / (variance + errors.square())).sqrt()


def _mean(values: Tensor, weights: Tensor | None) -> float:
    return float(values.mean() if weights is None else (weights * values).sum() / weights.sum())


def _fitted(
    features: Tensor,
    targets: Tensor,
    kind: str,
    scale: str,
    weights: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Readout, Tensor]:
    """Return a readout and y_i - ŷ_i with run i left out, (n,)."""
    if kind == "best":
        # A ridge on fewer than three rows is none.
        kinds = ("affine", "ridge", "neighbours") if len(targets) > 2 else ("affine",)
        tried = [_fitted(features, targets, k, scale, weights, rows) for k in kinds]
        return min(tried, key=lambda found: _mean(found[1].square(), weights))
    if kind == "ridge" and rows is not None:
        return fit_ridge_on_views(rows, targets, weights=weights)
    if kind == "ridge":
        ridge = fit_ridge(features, targets, weights=weights)
        return ridge, left_out_residuals(ridge, features, targets, weights)[:, 0]
    if kind == "neighbours":
        near = NeighbourReadout.fit(features, targets, weights=weights)
        return near, targets - near.left_out()
    if kind == "mean":
        share = (torch.ones_like(targets) if weights is None else weights) / len(targets)
        share = share / share.sum()
        mean = (share * targets).sum()
        return MeanReadout(float(mean)), (targets - mean) / (1 - share).clamp_min(1e-9 if len(targets) > 1 else 1.0)
    runs = np.arange(len(targets))
    # Two labels have no third that a map of one alone could be tried on.
    left = [runs[runs != i] if len(runs) > 2 else runs for i in runs]
    codes = lambda kept: CodeReadout.fit(  # noqa: E731
        features[kept], targets[kept], scale, None if weights is None else weights[kept]
    )
    parts = [codes(kept).predict(features[[i]]) for i, kept in enumerate(left)]
    return codes(runs), targets - torch.cat(parts)


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
        shares = {} if readout.weights is None else {"shares": readout.weights}
        return {"kind": "neighbours", "neighbours": readout.neighbours}, {
            n: getattr(readout, n) for n in names
        } | shares
    if isinstance(readout, MeanReadout):
        return {"kind": "mean", "mean": readout.mean}, {}
    if isinstance(readout, CodeReadout):
        numbers_of = {"intercept": readout.affine.intercept, "scale": readout.scale, "least": readout.least}
        return {"kind": "affine", **numbers_of}, {"weights": readout.affine.weights}
    if isinstance(readout, HeadReadout):
        numbers = {"offset": [float(v) for v in readout.offset], "factor": [float(v) for v in readout.factor]}
        return {"kind": "head", "column": readout.column, **numbers}, {}
    raise DataError(
        f"cannot save a readout of class {type(readout).__name__}; expected ridge, neighbours, mean, affine or a head."
    )


def readout_from(data: Mapping[str, Any], arrays: Mapping[str, Tensor], head: nn.Module | None) -> Readout:
    """Return the readout that :func:`readout_arrays` described."""
    if data["kind"] == "ridge":
        names = ("centre", "scale", "weights", "intercept")
        return RidgeReadout(*(arrays[n] for n in names), float(data["penalty"]), float(data["leave_one_out"]))
    if data["kind"] == "neighbours":
        names = ("centre", "scale", "known", "targets")
        return NeighbourReadout(*(arrays[n] for n in names), int(data["neighbours"]), arrays.get("shares"))
    if data["kind"] == "mean":
        return MeanReadout(float(data["mean"]))
    if data["kind"] == "affine" and data["scale"] in SCALES:
        return CodeReadout(
            AffineReadout(float(data["intercept"]), arrays["weights"]), data["scale"], float(data["least"])
        )
    if data["kind"] == "head" and head is not None:
        numbers = (tuple(map(float, data[n])) for n in ("offset", "factor"))
        return HeadReadout(head, int(data["column"]), *numbers)
    raise ValueError(f"readout of kind {data['kind']!r}")
