"""Intervals and errors of the few-label comparison on test runs that differ from the labelled ones."""

# n labelled runs, c calibration runs, m test runs, D feature width

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pdessl.evaluation.intervals import Conformal, coverage
from pdessl.experiments.shifts import Shift
from pdessl.inference.readouts import Estimator, fit_estimator
from pdessl.models import from_scale
from pdessl.schema import Range

__all__ = ["INTERVALS", "Intervals", "Robustness", "interval_rows", "reliability"]

INTERVALS = {
    "constant": "split conformal, one width for all",
    "adaptive": "split conformal, width by guessed error",
    "quantile": "conformalised quantiles of neighbours' errors",
}


_Level: TypeAlias = Annotated[float, Range(above=0, below=1)]


@dataclass(frozen=True)
class Robustness:
    """How methods are tried on runs that differ from the labelled ones; nothing is fitted again for them.

    Networks read runs on another grid as ``pdessl predict`` does: brought to the grid of training
    (:func:`pdessl.inference.regridding.regridded`), or not at all where it is too coarse; the notes say which.
    Hand-made features and least squares read them as they are. For runs shorter than a view, the comparison shrinks the
    views; the saved model refuses such runs, and its card says so.

    Args:
        shifts: name -> what is changed in the test runs.
        strangers: name -> runs that only the novelty of the saved model is measured on: other equations, parameters out
            of the range of training.
    """

    shifts: dict[str, Shift] = field(default_factory=dict)
    strangers: dict[str, Shift] = field(default_factory=dict)


@dataclass(frozen=True)
class Intervals:
    """Intervals around the frozen encoder's ridge at the largest number of labels.

    They are calibrated on the validation runs, which count as further labels: nothing was fitted on them.

    Args:
        level: promised coverage.
        levels: of the calibration plot.
        saved: kind of the intervals of the model that is saved: ``adaptive``, ``constant`` or ``quantile``.
    """

    level: _Level = 0.9
    saved: Literal["adaptive", "constant", "quantile"] = "adaptive"
    levels: tuple[_Level, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class _Kind:
    """One kind of interval, fitted on labelled runs and calibrated on others."""

    def __init__(self, kind: str, known: Tensor, labels: Tensor, calibration: Tensor, truth: Tensor) -> None:
        self.estimator: Estimator = fit_estimator(known, labels, interval=kind)
        self.calibration, self.truth = calibration, truth.numpy()

    def _columns(self, features: Tensor, level: float) -> dict[str, Any]:
        low, high = self.estimator.ends(features, level)
        return {"prediction": low, "scale": self.estimator.scale(features), "upper": high}

    def interval(self, features: Tensor, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return lower and upper ends (m,) on the scale of the labels."""
        rule = Conformal.calibrate(self.truth, level=level, **self._columns(self.calibration, level))
        return rule.interval(**self._columns(features, level))


def _kinds(known: Tensor, labels: Tensor, calibration: Tensor, truth: Tensor) -> dict[str, _Kind]:
    return {kind: _Kind(kind, known, labels, calibration, truth) for kind in INTERVALS}


def interval_rows(
    known: Tensor,
    labels: Tensor,
    calibration: Tensor,
    calibration_truth: Tensor,
    tests: Mapping[str, tuple[Tensor, Tensor]],
    scale: str,
    level: float,
) -> list[dict[str, Any]]:
    """Measure coverage and width of every kind of interval on every set of test runs.

    Args:
        known: features of the labelled runs, (n, D).
        labels: their labels on the scale, (n,).
        calibration: features of the calibration runs, (c, D).
        calibration_truth: their labels on the scale, (c,).
        tests: name -> features (m, D) and truth on the scale (m,).
        scale: ``log`` or ``linear``.
        level: promised coverage.

    Returns:
        a row per test set and kind: share covered, the shares that chance allows at the level, the median width in the
        parameter's unit and relative to the truth (in %), and the ratio of the 90th to the 10th percentile of relative
        widths (1: the same for all).
    """
    rows = []
    for kind, made in _kinds(known, labels, calibration, calibration_truth).items():
        for name, (features, truth) in tests.items():
            low, high = made.interval(features, level)
            found = coverage(truth.numpy(), low, high, level, len(calibration_truth))
            ends = [from_scale(torch.from_numpy(end), scale) for end in (low, high)]
            width = (ends[1] - ends[0]).numpy()
            relative = 100 * width / np.abs(from_scale(truth, scale).numpy())
            tenth, ninetieth = (
                np.quantile(relative, [0.1, 0.9]) if np.isfinite(relative).all() else (math.nan, math.nan)
            )
            rows.append(
                {
                    "runs": name,
                    "kind": kind,
                    "title": INTERVALS[kind],
                    "level": level,
                    "share": found.share,
                    "expected": [found.low, found.high],
                    "median_width": float(np.median(width)),
                    "median_relative_width": float(np.median(relative)),
                    "spread_of_widths": float(ninetieth / tenth),
                    "count": found.count,
                }
            )
    return rows


def reliability(
    known: Tensor,
    labels: Tensor,
    calibration: Tensor,
    calibration_truth: Tensor,
    features: Tensor,
    truth: Tensor,
    levels: Sequence[float],
) -> dict[str, list[float]]:
    """Return kind -> measured coverage at every level, the curve of a calibration plot; arguments as above."""
    found = {}
    for kind, made in _kinds(known, labels, calibration, calibration_truth).items():
        ends = [made.interval(features, level) for level in levels]
        found[kind] = [coverage(truth.numpy(), *e, level).share for e, level in zip(ends, levels, strict=True)]
    return found
