"""Fitting a ParameterModel on labelled runs, and calibrating it run by run."""

# n labelled runs, c calibration runs, D feature width, K folds

from __future__ import annotations

import dataclasses
import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

import pdessl
from pdessl.conventions import run_name
from pdessl.errors import DataError
from pdessl.evaluation.intervals import conformal_quantile
from pdessl.evaluation.novelty import Novelty
from pdessl.inference.conformal import CrossConformal, CrossQuantiles
from pdessl.inference.elsewhere import measured_elsewhere, plain_rows
from pdessl.inference.encoding import RunEncoder, gives_codes, has_trunk
from pdessl.inference.format import InputFormat, constants_of
from pdessl.inference.labels import labels_of
from pdessl.inference.measured import Measured
from pdessl.inference.model import ParameterModel
from pdessl.inference.reading import Encoded, encode
from pdessl.inference.readouts import Estimator, HeadReadout, fit_estimator, label_weights
from pdessl.inference.target import Target
from pdessl.inference.views import Views
from pdessl.models.scale import to_scale
from pdessl.trajectory import Trajectories

__all__ = ["fit_parameter_model", "with_measured", "with_measurements"]

_FEWEST = 6  # labelled runs: two folds of three


def fit_parameter_model(
    encoder: nn.Module | RunEncoder,
    labelled: Trajectories | xr.Dataset | Encoded,
    calibration: Trajectories | xr.Dataset | Encoded | None = None,
    targets: Sequence[str] | Mapping[str, str] | str | None = None,
    views: Views | None = None,
    readout: str | HeadReadout | None = None,
    level: float = 0.9,
    *,
    interval: str = "adaptive",
    folds: int = 10,
    groups: ArrayLike | None = None,
    novelty: str = "mahalanobis",
    novelty_level: float = 0.99,
    units: Mapping[str, str] | None = None,
    unlabelled: Trajectories | xr.Dataset | Encoded | None = None,
    held_out: Trajectories | xr.Dataset | None = None,
    elsewhere: Mapping[str, Trajectories | xr.Dataset] | None = None,
    record: Mapping[str, Any] | None = None,
    layer: str = "features",
    errors: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
) -> ParameterModel:
    """Fit readouts of parameters on a frozen encoder, calibrate their intervals, and set the threshold of novelty.

    Calibration counts runs, never windows: features of a run are averaged over its views first. A ridge on hand-made
    features is fitted on every view of the labelled runs, whole runs being left out to choose its penalty
    (:func:`pdessl.models.ridge.fit_ridge_on_views`); what it predicts is the average over the views of a run. With
    ``calibration`` runs, intervals are split conformal, guaranteed at the level. Without, labels are too few to be set
    aside: every labelled run is scored by a readout fitted without its fold (CV+, see
    :class:`~pdessl.inference.conformal.CrossConformal`), and all of them fit the readout that predicts. The threshold
    of novelty is calibrated on the same runs in the same way, at ``novelty_level`` or the highest level they allow,
    c/(c + 1).

    ``model.save("runs/viscosity")`` writes it; ``pdessl.load`` and ``pdessl predict`` read it.

    Args:
        encoder: network on fields (B, C, T, *X), a law, or hand-made features; not changed.
        labelled: runs with labels. From a dataset, units are read too. Of these and other runs, what
            :meth:`ParameterModel.encode` returned for the same encoder, views, layer and seed is taken as well.
        calibration: further labelled runs, which nothing else was fitted on.
        targets: names of the parameters, or ``{name: "log" or "linear"}``. Default all the runs have; scale ``log``
            where every label is positive.
        views: that features are averaged over; default whole runs as they are.
        readout: ``ridge``, ``neighbours``, ``mean``, ``affine``, ``best`` (see
            :func:`~pdessl.inference.readouts.fit_estimator`), or a trained head (which needs ``calibration``). Default
            ``ridge``, and ``best`` for a law.
        level: of the intervals.
        interval: ``adaptive``: width by a guess of each prediction's error, from 20 labelled runs on; ``constant``; or
            ``quantile``: conformalised quantiles of the errors of the nearest labelled runs.
        folds: K, without calibration runs.
        groups: group of each labelled run, (n,): runs of one group are left out together.
        novelty: ``mahalanobis`` or ``neighbours``; where the encoder has a head, the larger of the scores of its
            features and of the values below it.
        novelty_level: share of runs like those of training that are not to be called novel.
        units: of fields, axes, ``time`` and parameters, as :attr:`pdessl.data.Source.units`; datasets state their own.
        unlabelled: further runs, e.g. those of pretraining: they say what runs are like, and all labelled runs set the
            threshold of novelty.
        held_out: labelled runs on which coverage is measured, for the model card.
        elsewhere: name -> runs unlike those of training, on which errors, coverage and novelty are measured beside
            ``held_out``, for the card; see :func:`pdessl.inference.elsewhere.measured_elsewhere`.
        record: plain data for the model card: ``data``, ``encoder``, ``floors`` ({name: error}), ``notes``.
        layer: of the encoder that is read, see :func:`pdessl.inference.features`.
        errors: name -> standard error of each run's label, (n,), in the unit of the label (not a number, or 0: none).
            Labels count by them, see :func:`~pdessl.inference.readouts.label_weights`, and intervals are those of the
            value itself: of the residual of a label its own share is taken off.
        seed: of folds and views.

    Raises:
        DataError: no such parameter, values <= 0 on a log scale, too few labelled runs (6 without calibration runs,
            else 3; 2 for a law), another kind of interval, a trained head without calibration runs or with quantiles,
            or ``elsewhere`` without ``held_out``.
        FormatError: datasets outside the format of the labelled runs.
    """
    views = views or Views(count=1)
    if elsewhere and held_out is None:
        raise DataError("runs unlike those of training are compared with held-out runs like them: give held_out too.")
    if views.moves:
        raise DataError(
            f"views that move {', '.join(views.moves)} cannot be averaged for a readout of fixed labels. Leave 'moves' "
            "empty and the generators that move parameters out of 'strengths'."
        )
    law = gives_codes(encoder)
    readout = readout or ("best" if law else "ridge")
    given = labelled.data if isinstance(labelled, Encoded) else labelled
    units = {**_units(given), **(units or {})}
    runs = _loaded(given)
    scales = _scales(given, runs, targets)
    fewest = 2 if law else _FEWEST if calibration is None else 3
    if len(runs) < fewest:
        raise DataError(f"{len(runs)} labelled runs; expected {fewest} or more to fit and calibrate a readout.")
    declared = InputFormat.of(runs, encoder, views, units, constants_of(given, besides=scales))
    below = layer == "features" and has_trunk(encoder)

    def read(data: Trajectories | xr.Dataset | Encoded, every: bool = False) -> Encoded:
        if isinstance(data, Encoded):
            return data
        found = encode(data, encoder, declared, views, seed, "both" if below else layer, every=every)
        for line in found.reader.warnings() if found.reader.regridded else ():
            warnings.warn(line, UserWarning, stacklevel=3)
        return found

    own = read(labelled, every=True)
    each_of = [own, *(None if data is None else read(data) for data in (calibration, unlabelled))]
    parts = [[None if e is None else e.values for e in each_of]]
    if below:
        parts.append([None if e is None else e.trunk for e in each_of])
    labels_in = [None if e is None else e.data for e in each_of]
    z, other, _ = parts[0]
    assert z is not None  # noqa: S101  (there are labelled runs)
    # Too few to leave some out: intervals without an end, and no threshold of novelty.
    fold = _folds(len(runs), folds, groups, seed) if other is None and len(runs) >= _FEWEST else None
    found = []
    for column, (name, scale) in enumerate(scales.items()):
        labels = labels_of(given, name)
        y = to_scale(torch.from_numpy(labels), scale, name)
        held = labels_in[1]
        more = None if held is None else to_scale(torch.from_numpy(labels_of(held, name)), scale, name)
        kind = dataclasses.replace(readout, column=column) if isinstance(readout, HeadReadout) else readout
        sigma = None if errors is None or name not in errors else _on_scale(errors[name], labels, scale, name)
        main, left_out, conformal = _calibrated(z, y, other, more, fold, kind, interval, scale, sigma, own.rows)
        found.append(
            Target(
                name=name,
                scale=scale,
                unit=units.get(name, ""),
                low=float(labels.min()),
                high=float(labels.max()),
                count=len(labels),
                estimator=main,
                folds=left_out,
                conformal=conformal,
            )
        )
    # Of two scores the larger counts: each calls half as many runs of known kinds novel.
    each = 1 - (1 - novelty_level) / len(parts)
    distances = [_novelty(*part, fold, novelty, each) for part in parts]
    model = ParameterModel(
        encoder=encoder,
        views=views,
        format=declared,
        targets=tuple(found),
        novelty=distances[0],
        trunk_novelty=distances[1] if len(distances) > 1 else None,
        level=level,
        record={**(record or {}), "versions": _versions()},
        head=readout.head if isinstance(readout, HeadReadout) else None,
        seed=seed,
        layer=layer,
    )
    return model if held_out is None else with_measurements(model, held_out, elsewhere or {})


def with_measurements(
    model: ParameterModel,
    held_out: Trajectories | xr.Dataset | Encoded,
    elsewhere: Mapping[str, Trajectories | xr.Dataset],
) -> ParameterModel:
    """Return the model with what it makes of held-out runs, and of runs unlike those of training, for its card.

    Raises:
        DataError: held-out runs without a parameter of the model.
    """
    data = held_out.data if isinstance(held_out, Encoded) else held_out
    for target in model.targets:
        labels_of(data, target.name)
    return with_measured(model, model.measure(held_out), elsewhere)


def with_measured(
    model: ParameterModel, known: Measured, elsewhere: Mapping[str, Trajectories | xr.Dataset]
) -> ParameterModel:
    """Return the model with what was measured of it on runs that it, or fits like it, had not seen, for its card."""
    covered = {n: found.coverage for n, found in known.parameters.items()}
    # Infinity is no plain data: intervals without an end have no width.
    ends = {n: {} if math.isfinite(c.width) else {"width": None} for n, c in covered.items()}
    return model.with_record(
        coverage={n: dataclasses.asdict(c) | ends[n] for n, c in covered.items()},
        elsewhere=plain_rows(known, *measured_elsewhere(model, elsewhere)),
    )


def _loaded(labelled: Trajectories | xr.Dataset) -> Trajectories:
    """Return labelled runs in memory."""
    if isinstance(labelled, Trajectories):
        return labelled.check_finite()
    run = run_name(labelled.dims)
    return Trajectories.from_xarray(labelled, parameters=(), trajectory=run)


def _units(data: Trajectories | xr.Dataset) -> dict[str, str]:
    if isinstance(data, Trajectories):
        return {}
    return {str(n): str(v.attrs["units"]) for n, v in data.variables.items() if v.attrs.get("units")}


def _scales(
    labelled: Trajectories | xr.Dataset, runs: Trajectories, targets: Sequence[str] | Mapping[str, str] | str | None
) -> dict[str, str]:
    """Return the scale of each target."""
    if targets is None:
        stated = str(getattr(labelled, "attrs", {}).get("parameters", ""))
        targets = list(runs.parameters) or [n for n in stated.split(",") if n]
    if isinstance(targets, Mapping):
        scales = dict(targets)
    else:
        names = [targets] if isinstance(targets, str) else list(targets)
        scales = {n: "log" if (labels_of(labelled, n) > 0).all() else "linear" for n in names}
    if not scales:
        raise DataError("the labelled runs have no parameter to predict. Give runs with labels, or name the targets.")
    return scales


def _folds(count: int, folds: int, groups: ArrayLike | None, seed: int) -> NDArray[np.int64]:
    """Return the fold of each run, (n,): groups stay together, folds are as equal as they allow."""
    names = np.arange(count) if groups is None else np.asarray(groups).reshape(-1)
    if len(names) != count:
        raise DataError(f"{len(names)} groups for {count} labelled runs; expected one per run.")
    _, group = np.unique(names, return_inverse=True)
    number = int(group.max()) + 1
    k = min(folds, number, count // 3)
    if k < 2:
        raise DataError(f"{number} groups of labelled runs; expected 2 or more, so that some can be left out.")
    order = np.random.default_rng(seed).permutation(number)
    fold = np.empty(number, dtype=np.int64)
    fold[order] = np.arange(number) % k
    return fold[group]


def _calibrated(
    z: Tensor,
    y: Tensor,
    other: Tensor | None,
    more: Tensor | None,
    fold: NDArray[np.int64] | None,
    readout: str | HeadReadout,
    interval: str,
    scale: str,
    errors: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Estimator, tuple[Estimator, ...], CrossConformal | CrossQuantiles]:
    if isinstance(readout, HeadReadout):
        if interval == "quantile":
            raise DataError(
                "quantiles are those of errors on labelled runs left out of the fit, which a trained head has all "
                "seen. Choose interval='constant', or a readout in closed form."
            )
        if other is None:
            raise DataError("a trained head has seen the labelled runs: give calibration runs it was not trained on.")
        main = Estimator(readout, (float(y.min()), float(y.max())))
    else:
        weights, share = (None, torch.ones_like(y)) if errors is None else label_weights(z, y, errors, readout, scale)
        main = fit_estimator(z, y, readout, interval, scale, weights, rows)
    if other is not None and more is not None:
        if interval == "quantile":
            return main, (main,), CrossQuantiles(other, more, np.zeros(len(more), dtype=np.int64))
        scores = _scores(main, other, more)
        return main, (main,), CrossConformal(scores, np.zeros(len(more), dtype=np.int64))
    assert isinstance(readout, str)  # noqa: S101  (a trained head has calibration runs)
    if fold is None:
        return main, (main,), CrossConformal(np.empty(0), np.empty(0, dtype=np.int64))
    parts, scores = [], np.empty(len(y))
    for k in range(int(fold.max()) + 1):
        left, kept = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        part = fit_estimator(
            z[kept],
            y[kept],
            readout,
            interval,
            scale,
            None if weights is None else weights[kept],
            None if rows is None else rows[kept],
        )
        parts.append(part)
        scores[left] = _scores(part, z[left], y[left]) * share[left].numpy()
    if interval == "quantile":
        return main, tuple(parts), CrossQuantiles(z, y, fold)
    return main, tuple(parts), CrossConformal(scores, fold)


def _on_scale(errors: ArrayLike, labels: NDArray[np.float64], scale: str, name: str) -> Tensor | None:
    """Standard errors (n,) on the scale of the readout; None where no label has one."""
    sigma = np.nan_to_num(np.asarray(errors, dtype=np.float64).reshape(-1))
    if sigma.shape != labels.shape or (sigma < 0).any() or not np.isfinite(sigma).all():
        raise DataError(
            f"standard errors of '{name}': got {sigma.size} for {len(labels)} labels, smallest {sigma.min():g}; "
            "expected one per label, finite and >= 0."
        )
    return torch.from_numpy(sigma / np.abs(labels) if scale == "log" else sigma) if sigma.any() else None


def _scores(estimator: Estimator, z: Tensor, y: Tensor) -> NDArray[np.float64]:
    return np.abs(y.numpy() - estimator.predict(z)) / estimator.scale(z)


def _novelty(
    z: Tensor, other: Tensor | None, known: Tensor | None, fold: NDArray[np.int64] | None, method: str, level: float
) -> Novelty:
    """Fit on the unlabelled or else the labelled runs; the threshold is the conformal quantile of runs left out."""
    x, held = z.numpy(), None if other is None else other.numpy()
    if known is not None:
        held = x if held is None else np.concatenate([x, held])
        x = known.numpy()
    neighbours = max(1, min(5, len(x) // 2))
    if held is not None:
        return Novelty.fit(x, held, min(level, len(held) / (len(held) + 1)), method, neighbours)
    if fold is None:
        return dataclasses.replace(Novelty.fit(x, x, 0.5, method, neighbours), threshold=math.inf)
    distance = np.empty(len(x))
    for k in range(int(fold.max()) + 1):
        left = fold == k
        near = min(neighbours, int((~left).sum()))
        distance[left] = Novelty.fit(x[~left], x[left], 0.5, method, near).distance(x[left])
    threshold = conformal_quantile(distance, min(level, len(x) / (len(x) + 1)))
    return dataclasses.replace(Novelty.fit(x, x, 0.5, method, neighbours), threshold=threshold)


def _versions() -> dict[str, str]:
    return {
        "pdessl": pdessl.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
