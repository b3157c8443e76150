"""Experiments as files for a laboratory: the design, its initial field, and a table of results to fill in."""

# D numbers read in an experiment

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from pdessl.control.interventions import Experiments
from pdessl.control.rivals import Problem
from pdessl.errors import FormatError, StoreError
from pdessl.files import replacing, write_text
from pdessl.schema import dump_yaml

__all__ = ["read_result", "write_experiment"]

_COLUMNS = ["time", "sensor", "value"]


def _places(problem: Problem, chosen: Experiments) -> list[tuple[float, float]]:
    """Return (time, sensor) of every number read, in the order of outcomes."""
    told = problem.space.described(chosen, 0)
    return [(t, x) for t in told["times"] for x in told["sensors"]]


def write_experiment(folder: Path, problem: Problem, chosen: Experiments) -> None:
    """Write an experiment that somebody else makes: the design, the initial field, and a table to fill in.

    Args:
        folder: to write, which is not there yet.
        problem: the study.
        chosen: one experiment.

    Raises:
        StoreError: the folder is there: it may hold a result.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise StoreError(f"{folder} is there already, and may hold a result. Move it away, and call again.") from None
    write_text(folder / "design.yaml", dump_yaml(problem.space.described(chosen, 0)))
    for name, rows in (
        ("initial.csv", [["x", "u"], *_field(problem, chosen)]),
        ("result.csv", [_COLUMNS, *([*place, ""] for place in _places(problem, chosen))]),
    ):
        with replacing(folder / name) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
            csv.writer(handle).writerows(rows)


def _field(problem: Problem, chosen: Experiments) -> list[list[str]]:
    field = problem.space.fields(chosen)[0].tolist()
    node = problem.file.domain.length / problem.file.points
    return [[f"{i * node:.9g}", f"{value:.9g}"] for i, value in enumerate(field)]


def read_result(path: Path, problem: Problem, chosen: Experiments) -> Tensor | None:
    """Return what a laboratory read, (D,), NaN where a cell is empty; None where all are, or there is no table.

    Args:
        path: the table.
        problem: the study.
        chosen: the experiment.

    Raises:
        FormatError: another table than was written, or a value that is no number.
    """
    places = _places(problem, chosen)
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        table = {(float(r["time"]), float(r["sensor"])): r["value"].strip() for r in rows}
        values = [float(table[place]) if table[place] else math.nan for place in places]
    except FileNotFoundError:
        return None
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error, UnicodeDecodeError):
        raise FormatError(
            f"{path}: expected columns {', '.join(_COLUMNS)} and a row for each of "
            f"{', '.join(f'time {t:g} sensor {x:g}' for t, x in places[:4])}{' ...' if len(places) > 4 else ''}; the "
            "value a number, or empty where nothing was read."
        ) from None
    found = torch.tensor(values, dtype=torch.float64)
    return None if bool(found.isnan().all()) else found
