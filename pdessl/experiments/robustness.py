"""Intervals and errors of the few-label comparison on test runs that differ from the labelled ones."""

# m test runs

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from pdessl.experiments.shifts import Shift
from pdessl.inference import MeasuredParameter, ParameterModel
from pdessl.inference.reading import Encoded
from pdessl.schema import Range
from pdessl.trajectory import Trajectories

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

    Models read runs on another grid as ``pdessl predict`` does: brought to the grid of training
    (:func:`pdessl.inference.regridding.regridded`), or not at all where it is too coarse, or the run is shorter than a
    view; the notes say which. Least squares read them as they are.

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


def interval_rows(
    models: Mapping[str, ParameterModel], tests: Mapping[str, Trajectories | Encoded], target: str
) -> list[dict[str, Any]]:
    """Measure coverage and width of every kind of interval on every set of test runs.

    Args:
        models: kind of interval -> model, each with its level.
        tests: name -> labelled runs, m of each.
        target: the parameter.

    Returns:
        a row per kind and test set: share covered, the shares that chance allows at the level, the median width in the
        parameter's unit and relative to the truth (in %), and the ratio of the 90th to the 10th percentile of relative
        widths (1: the same for all).
    """
    rows = []
    for kind, model in models.items():
        for name, runs in tests.items():
            found = _measured(model, runs, target)
            width = found.high - found.low
            relative = 100 * width / np.abs(found.truth)
            tenth, ninetieth = (
                np.quantile(relative, [0.1, 0.9]) if np.isfinite(relative).all() else (math.nan, math.nan)
            )
            rows.append(
                {
                    "runs": name,
                    "kind": kind,
                    "title": INTERVALS[kind],
                    "level": model.level,
                    "share": found.coverage.share,
                    "expected": [found.coverage.low, found.coverage.high],
                    "median_width": float(np.median(width)),
                    "median_relative_width": float(np.median(relative)),
                    "spread_of_widths": float(ninetieth / tenth),
                    "count": found.coverage.count,
                }
            )
    return rows


def reliability(
    models: Mapping[str, ParameterModel], runs: Trajectories | Encoded, target: str, levels: Sequence[float]
) -> dict[str, list[float]]:
    """Return kind -> measured coverage at every level, the curve of a calibration plot; arguments as above."""
    return {
        kind: [_measured(model, runs, target, level).coverage.share for level in levels]
        for kind, model in models.items()
    }


def _measured(
    model: ParameterModel, runs: Trajectories | Encoded, target: str, level: float | None = None
) -> MeasuredParameter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that runs differ is why they are here
        return model.measure(runs, level).parameters[target]
