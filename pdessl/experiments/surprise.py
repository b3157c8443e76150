"""``surprise``: which new runs stop doing what sound runs do, when, and where, from files to a table and a picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdessl.conventions import run_name
from pdessl.data import open as open_data
from pdessl.data.lengths import parts_of
from pdessl.errors import CheckpointError, DataError, FormatError
from pdessl.evaluation.surprise_figure import surprise_figure
from pdessl.experiments.latent_forecasts import foreseen
from pdessl.files import replacing
from pdessl.inference.frame_scores import scores_of
from pdessl.inference.prediction import for_files, opened
from pdessl.inference.reading import RunReader
from pdessl.inference.surprise import SurpriseDetector
from pdessl.trajectory import Trajectories
from pdessl.written import cell

__all__ = ["calibrated", "check_places", "plot_surprise", "surprise", "surprise_of_files", "write_surprise"]

_ENDINGS = (".csv", ".nc")
_PICTURES = (".png", ".svg", ".pdf")
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
        model: folder of a law, a surrogate, a world model, a temporal JEPA or a detector; or one of them itself.
        sound: runs that are as they should be, which the model was not fitted on: a store, files, a dataset, or
            trajectories; not needed for a detector.
        split: of a store; default ``labelled`` and ``validation``, else all runs. Of runs of different lengths those
            count that have the most common one.
        mapping: how to read other files.
        seed: of the halves; see :meth:`pdessl.inference.surprise.SurpriseDetector.fit`.

    Raises:
        CheckpointError: a model that foresees nothing.
        DataError: no sound runs where they are needed, or too few.
    """
    found = foreseen(model) if isinstance(model, (str, os.PathLike)) else model
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
    alike: dict[tuple[int, ...], list[Trajectories]] = {}
    for name in (part for n in named for part in parts_of(data.known(n), data.splits) if data.splits[part]):
        runs = data.load(name).without_parameters(())
        alike.setdefault(tuple(runs.fields.shape[1:]), []).append(runs)
    if not alike:
        raise DataError(f"{sound} holds no runs in {', '.join(named)}.")
    # Statistics are per frame: runs of the length that most of them have, a few shorter ones are left out.
    most = max(alike.values(), key=lambda parts: (sum(map(len, parts)), parts[0].fields.shape[2]))
    return SurpriseDetector.fit(source, Trajectories.concatenate(most), data.units, seed)


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
        model: folder of a law (``pdessl discover``), of a time-stepper (``pdessl timestep``), of a world model or
            a temporal JEPA (``pdessl pretrain``), or of a saved detector; or one of them itself.
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
    return for_files(lambda data: detector.detect(data, rate, missing), paths, mapping, split, warn)


def check_places(out: str | os.PathLike[str] | None, plot: str | os.PathLike[str] | None) -> None:
    """Check the endings of files to be written, before anything is read.

    Raises:
        DataError: another ending than :func:`write_surprise` and :func:`plot_surprise` know.
    """
    for place, endings, what in ((out, _ENDINGS, "the surprise"), (plot, _PICTURES, "the picture")):
        if place is not None and Path(place).suffix not in endings:
            raise DataError(f"{place}: write {what} to a file ending in {', '.join(endings)}.")


def write_surprise(path: str | os.PathLike[str], found: xr.Dataset) -> None:
    """Write the surprise of files, CSV (a row per run and frame) or netCDF, by the ending of the path.

    Raises:
        DataError: another ending.
    """
    place = Path(path)
    check_places(place, None)
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
    missing: str = "refuse",
    mapping: Any = None,
    split: str | None = None,
) -> None:
    """Draw the run whose statistic is largest: its first field, in the plane along the middle of the last axis.

    Args:
        detector: what judged.
        paths: that were judged.
        found: what :func:`surprise_of_files` returned for them.
        place: file to write, ``.png``, ``.svg`` or ``.pdf``.
        missing: as they were judged.
        mapping: as they were read.
        split: as they were read.

    Raises:
        DataError: another ending.
    """
    target = Path(place)
    check_places(None, target)
    most = int(np.nanmax(found.statistic.values, axis=1).argmax())
    row = found.isel(run=most)
    (piece,) = RunReader(_run(paths, most, mapping, split), detector.declared, missing)
    runs, axes = piece.runs, detector.declared.axis_names
    field = runs.fields[0, 0]
    for _ in axes[1:]:
        field = field.select(2, field.shape[2] // 2)
    alarm = float(row.alarm_time)
    title = f"{Path(row['file'].item()).name}, run {row['label'].item()}"
    title += f": alarm at time {alarm:.4g}" if np.isfinite(alarm) else ": no alarm"
    names = (runs.field_names[0], axes[0], "time")
    seen = (row.known.values, row.statistic.values)
    figure = surprise_figure(field, runs.time[0], runs.space[0][0], *seen, alarm, title, names)
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=150, format=target.suffix[1:])


def _run(paths: Sequence[str | os.PathLike[str]], number: int, mapping: Any, split: str | None) -> xr.Dataset:
    """Return a run, counted over all files as they are read."""
    for path in paths:
        for _, data, _ in opened(str(path), mapping, split):
            run = run_name(data.dims)
            count = data.sizes.get(run, 1)
            if number < count:
                return data.isel({run: slice(number, number + 1)}) if run in data.dims else data
            number -= count
    raise DataError("the files hold fewer runs than were judged; they changed on the way.")
