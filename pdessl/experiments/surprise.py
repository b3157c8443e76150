"""``surprise``: which new runs stop doing what sound runs do, when, and where, from files to a table and a picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdessl.conventions import RUN_NAMES
from pdessl.data import open as open_data
from pdessl.errors import CheckpointError, DataError, FormatError, PdesslError
from pdessl.evaluation.surprise_figure import surprise_figure
from pdessl.files import replacing
from pdessl.inference import load
from pdessl.inference.frame_scores import scores_of
from pdessl.inference.prediction import as_rows, opened
from pdessl.inference.surprise import SurpriseDetector
from pdessl.trajectory import Trajectories
from pdessl.written import cell

__all__ = ["calibrated", "plot_surprise", "surprise", "surprise_of_files", "write_surprise"]

_MOST_SOUND = 2048
_ENDINGS = (".csv", ".nc")
_COLUMNS = ("time", "known", "surprise", "p_value", "statistic")


def calibrated(
    model: Any,
    sound: str | os.PathLike[str] | xr.Dataset | Trajectories | None = None,
    split: str | None = None,
    mapping: Any = None,
    seed: int = 0,
) -> SurpriseDetector:
    """Return a detector: the one that is given or saved, or one calibrated on sound runs.

    Args:
        model: folder of a law, a surrogate or a detector, or one of them itself.
        sound: runs that are as they should be, which the model was not fitted on: a store, files, a dataset, or
            trajectories; not needed for a detector.
        split: of a store; default ``labelled`` and ``validation``, else all runs.
        mapping: how to read other files.
        seed: of the halves; see :meth:`pdessl.inference.surprise.SurpriseDetector.fit`.

    Raises:
        CheckpointError: a model that foresees nothing.
        DataError: no sound runs where they are needed, or too few.
    """
    found = load(model) if isinstance(model, (str, os.PathLike)) else model
    if isinstance(found, SurpriseDetector):
        return found
    try:
        source = scores_of(found)
    except FormatError as error:
        raise CheckpointError(f"{model}: {error}" if isinstance(model, (str, os.PathLike)) else str(error)) from None
    if sound is None:
        raise DataError(
            "what is surprising is told from sound runs that the model was not fitted on: give them, sound=..., on the "
            "command line --sound DATA."
        )
    if isinstance(sound, (Trajectories, xr.Dataset)):
        return SurpriseDetector.fit(source, sound, seed=seed)
    data = open_data(sound, mapping)
    named = [split] if split else [n for n in ("labelled", "validation") if data.splits.get(n)] or list(data.splits)
    parts, left = [], _MOST_SOUND
    for name in named:
        count = min(data.splits[data.known(name)], left)
        if count:
            parts.append(data.load(name, slice(0, count)).without_parameters(()))
        left -= count
    if not parts:
        raise DataError(f"{sound} holds no runs in {', '.join(named)}.")
    return SurpriseDetector.fit(source, Trajectories.concatenate(parts), data.units, seed)


def surprise(
    model: Any,
    runs: str | os.PathLike[str] | xr.Dataset | Trajectories,
    sound: str | os.PathLike[str] | xr.Dataset | Trajectories | None = None,
    *,
    rate: float = 0.05,
    split: str | None = None,
    mapping: Any = None,
    missing: str = "refuse",
    places: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """Return when new runs stop doing what a model foresees, with an alarm at a promised rate of false ones.

    ::

        found = pdessl.surprise("runs/law", "new_runs.nc", sound="data/burgers")
        found.alarm, found.alarm_time, found.p_value

    Args:
        model: folder of a law (``pdessl discover``), of a time-stepper (``pdessl timestep``), or of a saved detector;
            or one of them itself.
        runs: files, a store, a dataset, or trajectories.
        sound: see :func:`calibrated`.
        rate: share of sound runs in which an alarm is raised, at most.
        split: of the sound runs.
        mapping: how to read files of either kind that are not labelled.
        missing: what is done with runs that hold NaN.
        places: return where in space as well (datasets and trajectories only).
        seed: of the calibration.

    Returns:
        See :meth:`pdessl.inference.surprise.SurpriseDetector.detect`; of files over ``run``.

    Raises:
        PdesslError: as :func:`calibrated` and :meth:`SurpriseDetector.detect`.
    """
    detector = calibrated(model, sound, split, mapping, seed)
    if isinstance(runs, (str, os.PathLike)):
        return surprise_of_files(detector, [runs], rate, missing, mapping)
    return detector.detect(runs, rate, missing, places)


def surprise_of_files(
    detector: SurpriseDetector,
    paths: Sequence[str | os.PathLike[str]],
    rate: float = 0.05,
    missing: str = "refuse",
    mapping: Any = None,
    split: str | None = None,
    warn: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """Return the surprise of all runs of all files, over ``run``, with ``file`` and ``label`` of each.

    Raises:
        PdesslError: what is wrong with a file, with its name.
    """
    parts, told = [], set()
    for path in paths:
        for name, data, origins in opened(str(path), mapping, split):
            try:
                part = detector.detect(data, rate, missing)
            except PdesslError as error:
                raise type(error)(f"{path}: {error}") from None
            for line in filter(None, str(part.attrs.pop("warnings", "")).split("\n")):
                if warn is not None and (path, line) not in told:
                    warn(f"{path}: {line}")
                told.add((path, line))
            parts.append(as_rows(part, str(path), name, origins))
    if not parts:
        raise DataError("no file to judge; give at least one.")
    return xr.concat(parts, "run", coords="minimal", compat="override", combine_attrs="drop_conflicts")


def write_surprise(path: str | os.PathLike[str], found: xr.Dataset) -> None:
    """Write the surprise of files, CSV (a row per run and frame) or netCDF, by the ending of the path.

    Raises:
        DataError: another ending.
    """
    place = Path(path)
    if place.suffix not in _ENDINGS:
        raise DataError(f"{place}: write the surprise to a file ending in {' or '.join(_ENDINGS)}.")
    with replacing(place) as temporary:
        if place.suffix == ".nc":
            found.to_netcdf(temporary, engine="h5netcdf")
            return
        names = [n for n in ("file", "split", "label") if n in found.coords]
        with temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow([*("run" if n == "label" else n for n in names), *_COLUMNS, "alarm"])
            for run in range(found.sizes["run"]):
                row = found.isel(run=run)
                origin = [cell(str(row[n].values)) for n in names]
                for values in np.stack([row[n].values for n in _COLUMNS], axis=1):
                    if np.isfinite(values[2]):
                        writer.writerow([*origin, *(f"{v:.6g}" for v in values), bool(values[4] > 1)])


def plot_surprise(
    detector: SurpriseDetector,
    paths: Sequence[str | os.PathLike[str]],
    found: xr.Dataset,
    place: str | os.PathLike[str],
    mapping: Any = None,
    split: str | None = None,
) -> None:
    """Draw the run whose statistic is largest: its first field, in the plane along the middle of the last axis.

    Args:
        detector: what judged.
        paths: that were judged.
        found: what :func:`surprise_of_files` returned for them.
        place: file to write, ``.png``, ``.svg`` or ``.pdf``.
        mapping: as they were read.
        split: as they were read.

    Raises:
        DataError: another ending.
    """
    target = Path(place)
    if target.suffix not in (".png", ".svg", ".pdf"):
        raise DataError(f"{target}: write the picture to a file ending in .png, .svg or .pdf.")
    most = int(np.nanmax(found.statistic.values, axis=1).argmax())
    row = found.isel(run=most)
    data, at = _run(paths, most, mapping, split)
    name, axes = detector.declared.field_names[0], detector.declared.axis_names
    run = next((d for d in data[name].dims if d not in ("time", *axes)), None)
    field = (data[name] if run is None else data[name].isel({run: at})).transpose("time", *axes)
    field = field.isel({a: field.sizes[a] // 2 for a in axes[1:]})
    nodes, time = (
        np.asarray(data[a].values if a in data.coords else np.arange(field.sizes[a]), dtype=np.float64)
        for a in (axes[0], "time")
    )
    alarm = float(row.alarm_time)
    title = f"{Path(row['file'].item()).name}, run {row['label'].item()}"
    title += f": alarm at time {alarm:.4g}" if np.isfinite(alarm) else ": no alarm"
    figure = surprise_figure(
        field.values, time, nodes, row.known.values, row.statistic.values, alarm, title, (name, axes[0], "time")
    )
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=150, format=target.suffix[1:])


def _run(
    paths: Sequence[str | os.PathLike[str]], number: int, mapping: Any, split: str | None
) -> tuple[xr.Dataset, int]:
    """Return the piece that holds a run, counted over all files, and its number there."""
    for path in paths:
        for _, data, _ in opened(str(path), mapping, split):
            first = data[next(iter(data.data_vars))]
            count = next((first.sizes[d] for d in first.dims if d in RUN_NAMES), 1)
            if number < count:
                return data, number
            number -= count
    raise DataError("the files hold fewer runs than were judged; they changed on the way.")
