"""What a few-label comparison gave, and its sections of a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from pdessl.experiments.regression import Regression
from pdessl.inference import ParameterModel
from pdessl.inference.measured import Measured
from pdessl.trajectory import Trajectories

__all__ = ["RegressionResult", "as_report"]


@dataclass
class RegressionResult:
    """What a comparison gave.

    Attributes:
        rows: of the table.
        titles: method -> what readers see.
        predictions: of the first seed by method.
        features: of the test runs by encoder.
        truth: of the test runs.
        chosen: what validation chose for each training.
        scale: on which the target was regressed.
        intervals, reliability, robustness: rows and curves of the further sections; empty where they were left out.
        notes: what could not be computed, and why.
        models: (method, number of labels, seed) -> the fitted model whose predictions the row holds, for methods in
            closed form.
        test: the test runs.
        shifted: name -> test runs with a change, on which robustness was measured.
        left_out: method -> what fits without them make of the labelled runs, where these were left out in turn.
        model: the one that is saved, where :func:`pdessl.experiments.regress.regress` made it.
    """

    rows: list[dict[str, Any]]
    titles: dict[str, str]
    predictions: dict[str, Tensor]
    features: dict[str, Tensor]
    truth: Tensor
    test: Trajectories
    chosen: list[dict[str, Any]]
    scale: str
    intervals: list[dict[str, Any]] = field(default_factory=list)
    reliability: dict[str, Any] = field(default_factory=dict)
    robustness: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    models: Mapping[tuple[str, int, int], ParameterModel] = field(default_factory=dict)
    shifted: Mapping[str, Trajectories] = field(default_factory=dict)
    left_out: Mapping[str, Measured] = field(default_factory=dict)
    model: ParameterModel | None = None

    def best(self) -> str | None:
        """Return the method in closed form that leaves out its labels best, at most labels and the first seed.

        Where labelled runs were left out in turn, by that error. No test, validation or calibration run chooses: error
        and intervals stay those of a model chosen without them. None where there is no such method.
        """
        tried = {m: model for (m, n, k), model in self.models.items() if m != "mean" and (n, k) == self.most}
        if not tried:
            return None
        if self.left_out:
            return min(tried, key=lambda m: next(iter(self.left_out[m].parameters.values())).error)
        return min(tried, key=lambda method: tried[method].targets[0].estimator.left_out)

    @property
    def most(self) -> tuple[int, int]:
        """The largest number of labels, and the first seed."""
        count = max((n for _, n, _ in self.models), default=0)
        return count, min((k for _, n, k in self.models if n == count), default=0)


def as_report(result: RegressionResult, settings: Regression) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sections and arrays of a report; see :mod:`pdessl.evaluation.report`."""
    arrays: dict[str, Any] = {"predictions/true": result.truth.numpy(), "embedding/parameter": result.truth.numpy()}
    arrays |= {f"predictions/{method}": values.numpy() for method, values in result.predictions.items()}
    arrays |= {f"embedding/{method}": np.asarray(f, dtype=np.float32) for method, f in result.features.items()}
    encoders = {"frozen": "pretrained encoder", "random": "random encoder", "law": "codes of the law"}
    counts = [row["labels"] for row in result.rows if row["labels"] is not None]
    sections: dict[str, Any] = {
        "regression": {
            "target": settings.target,
            "scale": result.scale,
            "test_size": len(result.truth),
            "rows": result.rows,
            "chosen_on_validation": result.chosen,
            "notes": result.notes,
        },
        "predictions": {
            "labels": settings.shown or min(counts),
            "methods": {method: result.titles[method] for method in result.predictions},
        },
    }
    if result.features:
        sections["embedding"] = {"encoders": {m: encoders[m] for m in result.features}}
    if result.intervals:
        sections["intervals"] = {"rows": result.intervals, "reliability": result.reliability}
    if result.robustness:
        sections["robustness"] = {"labels": max(counts), "rows": result.robustness}
    return sections, arrays
