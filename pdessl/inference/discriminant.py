"""Codes of runs in closed form, from which runs belong together: a transformer of scikit-learn, saved as an encoder."""

# n runs, D feature width, R codes

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from pdessl.errors import DataError
from pdessl.evaluation.physics_features import moments_of
from pdessl.models import embed, save_pretrained
from pdessl.models.discriminant import LinearMap, fit_discriminant, fit_principal, fit_views
from pdessl.models.linear_code import LinearCode
from pdessl.trajectory import Trajectories

__all__ = ["GroupDiscriminant"]

_METHODS = ("discriminant", "views", "principal")


class GroupDiscriminant(TransformerMixin, BaseEstimator):
    """What runs of a group have in common, in closed form: no training, no label, no equation.

    Runs repeated at a setting share what the setting decides, and nothing else; the leading directions of features in
    which groups differ and their runs agree are a code of it::

        code = GroupDiscriminant().fit(unlabelled, groups=groups)            # groups: (n,) anything, equal = same group
        model = fit_parameter_model(code.encoder_, labelled, targets=["viscosity"])  # few labels: what the code is
        code.save("runs/code"); SimulationEncoder("runs/code")               # an encoder like any other

    Args:
        encoder: network whose features the code is of, frozen; None: moments of the fields
            (:class:`pdessl.models.moments.Moments`, with correlations on one axis).
        components: R; None: chosen on held-out groups.
        ridge: of the within-group covariance; None: chosen on held-out groups, see
            :func:`pdessl.models.discriminant.fit_discriminant`.
        method: ``discriminant``; for comparison ``views``, the linear solution of VICReg on pairs of runs of a group
            (:func:`pdessl.models.discriminant.fit_views`), and ``principal``, which uses no groups.
        batch: runs whose features are made at a time.

    Attributes:
        map_: the fitted :class:`pdessl.models.discriminant.LinearMap`; ``map_.scores`` are intraclass correlations.
        encoder_: the code as an encoder (fitted on runs), else None.
        seconds_: of the fit, features included.
        n_features_in_: width of a row, where fitted on a table.

    Shapes:
        Trajectories of n runs, or a table of features (n, D) -> (n, R).

    Raises:
        DataError: no groups where they are needed, or too few; see the functions above.
        ValueError: an unknown method.
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        components: int | None = None,
        ridge: float | None = None,
        method: str = "discriminant",
        batch: int = 64,
    ) -> None:
        self.encoder = encoder
        self.components = components
        self.ridge = ridge
        self.method = method
        self.batch = batch

    def fit(self, X: Any, y: Any = None, groups: Sequence[Any] | NDArray[Any] | None = None) -> GroupDiscriminant:  # noqa: N803
        """Fit the code.

        Args:
            X: runs or features; see the class. Labels in the data are not read.
            y: ignored.
            groups: group of each run, (n,): any values, equal ones are one group.
        """
        if self.method not in _METHODS:
            raise ValueError(f"no method '{self.method}'; choose {', '.join(_METHODS)}.")
        started = time.perf_counter()
        runs = isinstance(X, Trajectories)
        below = (self.encoder if self.encoder is not None else moments_of(X, len(X.space) == 1)) if runs else None
        features = self._features(below, X)
        if groups is None and self.method != "principal":
            raise DataError("GroupDiscriminant needs groups=..., of each run; without any choose method='principal'.")
        numbers = None if groups is None else torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])
        if numbers is not None and len(numbers) != len(features):
            raise DataError(f"{len(numbers)} groups for {len(features)} runs; give one for each run.")
        self.map_ = self._fitted(features, numbers)
        self.encoder_ = None if below is None else LinearCode.of(below, self.map_)
        if not runs:
            self.n_features_in_ = features.shape[1]
        self.seconds_ = time.perf_counter() - started
        return self

    def _fitted(self, features: Tensor, groups: Tensor | None) -> LinearMap:
        if self.method == "discriminant":
            assert groups is not None  # noqa: S101  (checked by fit)
            return fit_discriminant(features, groups, self.components, self.ridge)
        count = 4 if self.components is None else self.components
        if self.method == "principal":
            return fit_principal(features, count)
        assert groups is not None  # noqa: S101  (checked by fit)
        first, second = _pairs(groups)
        return fit_views(features[first], features[second], count, 1e-3 if self.ridge is None else self.ridge)

    def transform(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """Return codes (n, R)."""
        check_is_fitted(self, "map_")
        if isinstance(X, Trajectories):
            if self.encoder_ is None:
                raise DataError("the code was fitted on a table of features; give one of the same columns.")
            return self._features(self.encoder_, X).numpy()
        return self.map_.apply(self._features(None, X)).numpy()

    def save(self, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> Path:
        """Write the code as an encoder: a folder for :func:`pdessl.load` and :class:`SimulationEncoder`.

        Raises:
            DataError: fitted on a table: there is no network.
        """
        check_is_fitted(self, "map_")
        if self.encoder_ is None:
            raise DataError("the code was fitted on a table of features, so there is no encoder of runs to save.")
        record = {
            "method": self.method,
            "grouped": self.method != "principal",
            "scores": self.map_.scores.tolist(),
            "ridge": self.map_.ridge,
            "seconds": self.seconds_,
        }
        return save_pretrained(path, self.encoder_, {"provenance": record | dict(provenance or {})})

    def _features(self, encoder: nn.Module | None, values: Any) -> Tensor:
        if encoder is None:
            table = torch.as_tensor(np.asarray(values, dtype=np.float64))
            if table.ndim != 2:
                raise DataError(f"got an array {tuple(table.shape)}; expected a table (n, D), or Trajectories.")
            return table
        parts = (values[slice(i, i + self.batch)] for i in range(0, len(values), self.batch))
        return embed(encoder, parts).cpu()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "map_")


def _pairs(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers of neighbouring runs of each group, first with second, third with fourth, ..."""
    order = torch.argsort(groups, stable=True)
    same = groups[order][1:] == groups[order][:-1]
    starts = torch.cat([torch.ones(1, dtype=torch.bool), ~same]).cumsum(0) - 1
    place = torch.arange(len(order)) - torch.searchsorted(starts, starts)
    first = (place % 2 == 0).nonzero()[:, 0]
    first = first[(first + 1 < len(order))]
    first = first[same[first]]
    return order[first], order[first + 1]
