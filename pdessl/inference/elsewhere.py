"""What a model makes of runs unlike those it was fitted on: errors, coverage and novelty, for its card."""

# m runs of a kind

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from pdessl.errors import FormatError
from pdessl.evaluation.intervals import coverage
from pdessl.evaluation.metrics import error_in_percent
from pdessl.evaluation.novelty import area_under_roc
from pdessl.inference.labels import labels_of
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    from pdessl.inference.model import ParameterModel

__all__ = ["AS_IN_TRAINING", "measured_elsewhere"]

AS_IN_TRAINING = "as in training"


def measured_elsewhere(
    model: ParameterModel,
    held_out: Trajectories | xr.Dataset,
    others: Mapping[str, Trajectories | xr.Dataset],
) -> dict[str, dict[str, Any]]:
    """Measure a model on held-out runs like those of training, and on others.

    Args:
        model: with the level of its intervals.
        held_out: labelled runs that nothing was fitted on.
        others: name -> runs that differ. Where they have a parameter of the model, its error and coverage are measured;
            other equations need have none.

    Returns:
        Plain data by name, ``as in training`` first: ``count`` m, ``novel`` (share called novel, or with a value
        outside the labels), ``area`` (under the receiver's curve of the novelty against the held-out runs: 0.5 is
        chance; not for these themselves), and by parameter ``error`` in % and ``coverage``. Runs that the model cannot
        read have ``refused``, the reason, only.
    """
    found: dict[str, dict[str, Any]] = {}
    known = None
    for name, runs in {AS_IN_TRAINING: held_out, **others}.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that these runs differ is why they are here
                predicted = model.predict(runs)
        except FormatError as error:
            if known is None:
                raise
            found[name] = {"refused": str(error)}
            continue
        score = np.atleast_1d(predicted.novelty.values)
        row: dict[str, Any] = {"count": len(score), "novel": 1 - float(predicted.in_distribution.mean())}
        row |= {"error": {}, "coverage": {}}
        if known is None:
            known = score
        else:
            row["area"] = area_under_roc(known, score)
        labels = runs.parameters if isinstance(runs, Trajectories) else runs.variables
        for target in (t.name for t in model.targets if t.name in labels):
            truth = labels_of(runs, target)
            value, low, high = (np.atleast_1d(predicted[target + end].values) for end in ("", "_low", "_high"))
            row["error"][target] = float(error_in_percent(torch.from_numpy(value), torch.from_numpy(truth)))
            row["coverage"][target] = coverage(truth, low, high, model.level).share
        found[name] = row
    return found
