"""Readouts in closed form: from features of few labelled runs to predictions for others."""

# n labelled runs, m other runs, D feature width

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pdessl.data import PDEDataModule, Store
from pdessl.equations import load_equation
from pdessl.errors import CatalogError, DataError, did_you_mean
from pdessl.models import fit_ridge, to_scale
from pdessl.objectives.neighbours import nearest_neighbour_prediction
from pdessl.trajectory import Trajectories

__all__ = ["by_neighbours", "by_ridge", "declared_scale", "targets_of"]

NEIGHBOURS = (1, 2, 3, 5, 10, 20)


def by_ridge(known: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Return ridge predictions (m,) on the labels' scale for features (m, D)."""
    return fit_ridge(known, labels).predict(features)[:, 0]


def by_neighbours(known: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Return the mean label of the k nearest labelled runs (m,), k chosen by leave-one-out error of the labels."""
    scale = known.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    x, q = known / scale, features / scale
    best, chosen = math.inf, 1
    for k in NEIGHBOURS:
        if k > len(known) - 1:
            break
        left_out = nearest_neighbour_prediction(x, labels, None, k, cosine=False)
        error = float((left_out - labels).square().mean())
        if error < best:
            best, chosen = error, k
    return nearest_neighbour_prediction(x, labels, q, chosen, cosine=False)


def declared_scale(data: PDEDataModule, name: str) -> str:
    """Return the scale a parameter is regressed on: ``log`` where dataset or equation say so, else ``linear``.

    The dataset says so by drawing the parameter log-uniformly, the equation's file by ``positive: true``.
    """
    store = data.store
    if isinstance(store, Store):
        parameters: Any = store.manifest["recipe"].get("parameters")
        declared = parameters.get(name) if isinstance(parameters, dict) else None
        if isinstance(declared, dict) and declared.get("distribution") == "log_uniform":
            return "log"
    try:
        equation = load_equation(store.equation) if store.equation else None
    except CatalogError:
        return "linear"
    positive = {} if equation is None else {equation.parameter_names[letter] for letter in equation.positive}
    return "log" if name in positive else "linear"


def targets_of(runs: Trajectories, name: str, scale: str) -> Tensor:
    """Return a parameter of labelled runs on its scale, (n,), float64.

    Raises:
        DataError: no such parameter, or values without a logarithm on the log scale.
    """
    if name not in runs.parameters:
        known = list(runs.parameters)
        raise DataError(
            f"the labelled runs have no parameter '{name}'.{did_you_mean(name, known)} "
            f"They have: {', '.join(known) or 'none'}."
        )
    return to_scale(runs.parameters[name], scale, name)
