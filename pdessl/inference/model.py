"""ParameterModel: what `pdessl.load` returns for a saved regression, from runs to parameters with intervals."""

# n labelled runs, m new runs, D feature width, K fold models

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from pdessl.evaluation.novelty import Novelty
from pdessl.inference.card import card
from pdessl.inference.encoding import RunEncoder
from pdessl.inference.format import InputFormat
from pdessl.inference.labels import labels_of
from pdessl.inference.measured import Measured, MeasuredParameter
from pdessl.inference.reading import Encoded, encode
from pdessl.inference.saving import save
from pdessl.inference.target import Target
from pdessl.inference.views import Views
from pdessl.trajectory import Trajectories

__all__ = ["ParameterModel"]


@dataclass(frozen=True, eq=False)
class ParameterModel:
    """Physical parameters of runs, each with an interval, and whether the run is like those of training.

    Made by :func:`pdessl.inference.fit_parameter_model`, written by :meth:`save`, read by :func:`pdessl.load`::

        model = pdessl.load("runs/viscosity")
        model.predict(xr.open_dataset("new_runs.nc", decode_times=False))

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D), or another encoder of runs: a law
            (:class:`pdessl.operators.LatentOperator`), hand-made features (:class:`pdessl.inference.PhysicsEncoder`).
        views: that features of a network are averaged over.
        format: the input it takes.
        targets: the parameters it predicts.
        novelty: distance of features from those of training.
        trunk_novelty: that of the pooled values below the encoder's head, where it has one. A head keeps what training
            asked for, such as one parameter; the values below still tell other equations.
        level: of the intervals, unless another one is asked for.
        record: plain data for the model card: what trained it, floors, measured coverage, versions.
        head: the trained head that the readouts are columns of, where there is one.
        seed: of the views.
        layer: of the encoder that is read, ``features`` or ``trunk``: see :func:`pdessl.inference.features`.
    """

    encoder: nn.Module | RunEncoder
    views: Views
    format: InputFormat
    targets: tuple[Target, ...]
    novelty: Novelty
    level: float = 0.9
    record: Mapping[str, Any] = field(default_factory=dict)
    head: nn.Module | None = None
    seed: int = 0
    trunk_novelty: Novelty | None = None
    layer: str = "features"

    def __repr__(self) -> str:
        names = ", ".join(f"{t.name} in [{t.low:.3g}, {t.high:.3g}] {t.unit}".rstrip() for t in self.targets)
        return f"ParameterModel({names}; {self.format.equation or 'no equation'}, level {self.level})"

    def encode(self, data: xr.Dataset | Trajectories, missing: str = "refuse", batch: int = 64) -> Encoded:
        """Read runs once, for :meth:`predict` and :meth:`measure` to be called on what is returned; see there."""
        layer = self.layer if self.trunk_novelty is None else "both"
        return encode(data, self.encoder, self.format, self.views, self.seed, layer, missing, batch)

    def features(self, data: xr.Dataset | Trajectories, missing: str = "refuse", batch: int = 64) -> xr.DataArray:
        """Return features over (run dimension, ``feature``), float64, read piece by piece; see :meth:`predict`."""
        found = self.encode(data, missing, batch)
        found.reader.warn()
        return found.reader.features(found.values.numpy())

    def predict(
        self,
        data: xr.Dataset | Trajectories | Encoded,
        level: float | None = None,
        missing: str = "refuse",
        batch: int = 64,
    ) -> xr.Dataset:
        """Predict parameters of runs.

        Args:
            data: fields over ``time``, the space axes and, for several runs, ``trajectory`` (or ``sample``, ``run``,
                ``realization``, ``member``), in any order. Read ``batch`` runs at a time, so that a dataset opened
                lazily or backed by Dask may exceed memory. Labels in it are not read. Or what :meth:`encode` returned.
            level: of the intervals; default that of the model. Any level can be asked for: what the calibration runs
                say is kept. n of them allow n/(n + 1) at most; above it intervals are infinite.
            missing: what is done with runs that hold NaN: ``refuse``; ``drop`` all but their longest stretch of
                complete frames; ``interpolate`` linearly in time.
            batch: runs read at a time.

        Returns:
            For each target ``<name>``, ``<name>_low``, ``<name>_high``, and ``novelty`` (above 1: unlike the runs of
            training) and ``in_distribution`` (novelty up to 1, and every prediction within the range of its labels),
            over the run dimension, with the run coordinates and attributes of the data.

        Raises:
            FormatError: data outside the declared format (names, dimensions, units, size), or on a grid too coarse
                for their fields, with the repair.
            DataError: values that are not finite, or a level outside (0, 1).

        Warns:
            UserWarning: runs on another grid, which were brought to that of training; runs outside the ranges of
                training (length, frames, boundary, equation), which are predicted all the same; and repaired runs.
        """
        level = self.level if level is None else level
        found = data if isinstance(data, Encoded) else self.encode(data, missing, batch)
        features, trunk, reader = found.values, found.trunk, found.reader
        reader.warn()
        variables: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {}
        inside = []  # a prediction outside the labels is an extrapolation, which no calibration run speaks for
        for target in self.targets:
            value, low, high = target.predict(features, level)
            text, unit = target.name.replace("_", " "), {"units": target.unit} if target.unit else {}
            inside.append((value >= target.low) & (value <= target.high))
            variables[target.name] = value, {**unit, "long_name": text}
            ends = {**unit, "level": level}
            variables[f"{target.name}_low"] = low, {**ends, "long_name": f"{text}, lower end of the interval"}
            variables[f"{target.name}_high"] = high, {**ends, "long_name": f"{text}, upper end of the interval"}
            if not math.isfinite(high[0]):
                count = target.conformal.count
                allowed = f"{count} runs allow {count / (count + 1):.3g} at most: ask for that, or calibrate on more."
                warnings.warn(
                    f"{target.name}: {count} calibration runs are too few for level {level}: the intervals are "
                    f"infinite. {allowed if count else 'Give six labelled runs or more, or calibration runs.'}",
                    UserWarning,
                    stacklevel=2,
                )
        score = self.novelty.score(features.numpy())
        if self.trunk_novelty is not None and trunk is not None:
            score = np.maximum(score, self.trunk_novelty.score(trunk.numpy()))
        variables["novelty"] = score, {"units": "1", "long_name": "distance from the runs of training; above 1: novel"}
        meaning = "like the runs of training: novelty up to 1, predictions within the labels"
        variables["in_distribution"] = (score <= 1) & np.all(inside, axis=0), {"long_name": meaning}
        return reader.dataset(variables)

    def measure(self, runs: xr.Dataset | Trajectories | Encoded, level: float | None = None) -> Measured:
        """Measure errors, coverage and novelty on runs that nothing was fitted on.

        Args:
            runs: with labels of every parameter that is to be measured; or what :meth:`encode` returned of them.
            level: of the intervals; default that of the model.

        Raises:
            FormatError: data outside the declared format.
            DataError: labels that are not finite.
        """
        level = self.level if level is None else level
        found = self.predict(runs, level)
        data = runs.data if isinstance(runs, Encoded) else runs
        labels = data.parameters if isinstance(data, Trajectories) else data.variables
        named = [t for t in self.targets if t.name in labels]
        return Measured(
            count=found["novelty"].size,
            novelty=np.atleast_1d(found["novelty"].values),
            in_distribution=np.atleast_1d(found["in_distribution"].values),
            parameters={
                t.name: MeasuredParameter.of(
                    labels_of(data, t.name),
                    *(np.atleast_1d(found[t.name + end].values) for end in ("", "_low", "_high")),
                    level,
                    # The draw of calibration runs moves the coverage of a split conformal interval.
                    t.conformal.count if len(t.folds) == 1 else None,
                )
                for t in named
            },
        )

    def with_record(self, **entries: Any) -> ParameterModel:
        """Return the model with further plain data for its card, e.g. ``floors`` and ``coverage``."""
        return dataclasses.replace(self, record={**self.record, **entries})

    def card(self) -> str:
        """Return the model card as Markdown: trained on what, range of validity, coverage, floors, versions."""
        return card(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model as one folder that :func:`pdessl.load` reads; see :func:`pdessl.inference.save`."""
        return save(path, self)
