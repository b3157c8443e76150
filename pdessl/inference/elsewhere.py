"""A model measured on held-out runs, and on runs unlike those it was fitted on, for its card and for tables."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import xarray as xr

from pdessl.errors import FormatError, ShapeError
from pdessl.evaluation.novelty import area_under_roc
from pdessl.inference.measured import Measured
from pdessl.trajectory import Trajectories

__all__ = ["AS_IN_TRAINING", "LEFT_OUT", "measured_elsewhere", "plain_rows"]

AS_IN_TRAINING = "as in training"
LEFT_OUT = "labelled runs, left out in turn"  # by what a model's errors were measured


class _Model(Protocol):
    def measure(self, runs: xr.Dataset | Trajectories) -> Measured: ...


def measured_elsewhere(
    model: _Model, others: Mapping[str, Trajectories | xr.Dataset]
) -> tuple[dict[str, Measured], dict[str, str]]:
    """Measure a model on runs unlike those of training.

    Args:
        model: a :class:`pdessl.inference.ParameterModel`.
        others: name -> runs that differ. Where they have a parameter of the model, its error and coverage are measured;
            other equations need have none.

    Returns:
        What was measured by name, and why the model refuses the others by theirs.
    """
    found, refused = {}, {}
    for name, runs in others.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that these runs differ is why they are here
                found[name] = model.measure(runs)
        except (FormatError, ShapeError) as error:
            refused[name] = str(error)
    return found, refused


def plain_rows(known: Measured, found: Mapping[str, Measured], refused: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return plain data by name, that of the held-out runs first, under ``as in training``.

    Each has what :meth:`Measured.plain` returns and, but for the held-out runs, ``area`` under the receiver's curve of
    its novelty against theirs (0.5 is chance); runs that the model refuses have ``refused``, the reason, only.
    """
    rows = {AS_IN_TRAINING: known.plain()}
    rows |= {n: m.plain() | {"area": area_under_roc(known.novelty, m.novelty)} for n, m in found.items()}
    return rows | {n: {"refused": reason} for n, reason in refused.items()}
