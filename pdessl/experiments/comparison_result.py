"""What a few-label comparison gave, and its sections of a report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from pdessl.experiments.comparison import Regression

__all__ = ["METHODS", "RegressionResult", "as_report"]

# method -> title and group of the table, in the order of the table
METHODS = {
    "frozen": ("frozen encoder, ridge on its features", "pretrained"),
    "neighbours": ("frozen encoder, nearest neighbours", "pretrained"),
    "finetuned": ("fine-tuned encoder", "pretrained"),
    "mean": ("predict the mean", "floor"),
    "random": ("random encoder, same ridge", "floor"),
    "physics": ("hand-made physics features, same ridge", "floor"),
    "scratch": ("supervised from scratch", "floor"),
    "moved": ("supervised, views that move the label", "floor"),
    "least_squares": ("least squares, pointwise", "classical"),
    "weak_form": ("least squares, weak form", "classical"),
}


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
    """

    rows: list[dict[str, Any]]
    titles: dict[str, str]
    predictions: dict[str, Tensor]
    features: dict[str, Tensor]
    truth: Tensor
    chosen: list[dict[str, Any]]
    scale: str
    intervals: list[dict[str, Any]] = field(default_factory=list)
    reliability: dict[str, Any] = field(default_factory=dict)
    robustness: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def as_report(result: RegressionResult, settings: Regression) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the sections and arrays of a report; see :mod:`pdessl.evaluation.report`."""
    arrays: dict[str, Any] = {"predictions/true": result.truth.numpy(), "embedding/parameter": result.truth.numpy()}
    arrays |= {f"predictions/{method}": values.numpy() for method, values in result.predictions.items()}
    arrays |= {f"embedding/{method}": np.asarray(f, dtype=np.float32) for method, f in result.features.items()}
    encoders = {"frozen": "pretrained encoder", "random": "random encoder"}
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
        "embedding": {"encoders": {m: encoders[m] for m in result.features}},
    }
    if result.intervals:
        sections["intervals"] = {"rows": result.intervals, "reliability": result.reliability}
    if result.robustness:
        sections["robustness"] = {"labels": max(counts), "rows": result.robustness}
    return sections, arrays
