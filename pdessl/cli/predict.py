"""``pdessl predict``: parameters of new runs from a saved model, with intervals and a flag for runs unlike training."""

from __future__ import annotations

import csv
import json
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdessl.cli.parsing import Parser
from pdessl.cli.written import cell, visible
from pdessl.errors import CheckpointError, PdesslError

if TYPE_CHECKING:
    import xarray as xr

    from pdessl.inference import ParameterModel

__all__ = ["main", "predict_files"]

ENDINGS = (".csv", ".nc", ".json")
_SHOWN = 20  # rows printed where all of them are in a file
_PIECE = 512  # runs of a store that are loaded at a time


def main(arguments: Sequence[str]) -> int:
    """Parse, predict file by file, print a table, write the results."""
    parser = Parser(
        "predict",
        "Predict parameters of new runs with a model that 'pdessl regress' saved: value, interval, and whether the\n"
        "run is like those of training. Runs are read piece by piece; labels in the files are not read.",
        examples=[
            "pdessl predict --model runs/viscosity new_runs.nc --out viscosity.csv",
            "pdessl predict --model runs/viscosity runs/*.nc --level 0.95 --out viscosity.nc",
            "pdessl predict --model runs/viscosity lab.h5 --mapping lab.yaml --missing drop",
            "pdessl predict --model runs/viscosity data/burgers --split test --out test.json",
        ],
        python="import pdessl, xarray as xr\n"
        "model = pdessl.load('runs/viscosity')\n"
        "model.predict(xr.open_dataset('new_runs.nc', decode_times=False))",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="netCDF or Zarr files, stores, or mapped files")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="folder of a saved model")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results: .csv, .nc or .json")
    parser.add_argument("--level", type=float, metavar="SHARE", help="of the intervals; default the model's")
    parser.add_argument(
        "--missing",
        choices=("refuse", "drop", "interpolate"),
        default="refuse",
        help="runs with NaN: refuse (default), keep their longest stretch of complete frames, or fill in time",
    )
    parser.add_argument("--mapping", help="how to read other files: a name of 'pdessl list datasets' or a YAML file")
    parser.add_argument("--split", metavar="NAME", help="split of a store; default all")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda, ...")
    options = parser.parse_args(arguments)
    if options.out is not None and options.out.suffix not in ENDINGS:
        raise PdesslError(f"--out {options.out}: write results to a file ending in {', '.join(ENDINGS)}.")

    from pdessl.inference import ParameterModel, load

    model = load(options.model)
    if not isinstance(model, ParameterModel):
        raise CheckpointError(
            f"{options.model} holds a network ({type(model).__name__}), not a model of parameters. Fit one on labelled "
            "runs:  pdessl regress --encoder ... --data ..."
        )
    model.encoder.to(options.device)
    level = model.level if options.level is None else options.level
    results = predict_files(model, options.paths, level, options.missing, options.mapping, options.split)
    _print(model, results, level, everything=options.out is None)
    if options.out is not None:
        _write(options.out, model, results, level)
        print(f"written to {options.out}")
    return 0


def predict_files(
    model: ParameterModel,
    paths: Sequence[str],
    level: float,
    missing: str = "refuse",
    mapping: str | None = None,
    split: str | None = None,
) -> xr.Dataset:
    """Return the predictions for all runs of all files, over ``run``, with ``file`` (and ``split``) of each.

    What is wrong with a file is said with its name; warnings go to stderr, once each.
    """
    import xarray as xr

    parts = []
    for path in paths:
        told: set[str] = set()
        for name, data in _opened(path, mapping, split):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                try:
                    part = model.predict(data, level, missing)
                except PdesslError as error:
                    raise type(error)(f"{path}: {error}") from None
            for line in sorted({str(w.message) for w in caught if w.category is UserWarning} - told):
                print(visible(f"warning: {path}: {line}", keep="\n"), file=sys.stderr)
                told.add(line)
            parts.append(_rows(part, str(path), name))
    joined = xr.concat(parts, "run", coords="minimal", compat="override", combine_attrs="drop_conflicts")
    return joined


def _opened(path: str, mapping: str | None, split: str | None) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the pieces of a file or store, each with the name of its split, read lazily where the format allows."""
    from pdessl.data import open
    from pdessl.data.formats.files import LABELLED_SUFFIXES
    from pdessl.data.formats.labelled import LabelledFile

    if mapping is None and Path(path).suffix.lower() in LABELLED_SUFFIXES:
        yield "", LabelledFile(path).dataset()
        return
    source = open(path, mapping)
    for name in [source.known(split)] if split else list(source.splits):
        for start in range(0, source.splits[name], _PIECE):
            yield name, source.to_xarray(name, slice(start, start + _PIECE))


def _rows(part: xr.Dataset, path: str, split: str) -> xr.Dataset:
    """Return predictions over ``run``: numbered by the label they have in their file, with the file's name."""
    import numpy as np

    dimension = next(iter(part.dims), None)
    if dimension is None:
        part, dimension = part.expand_dims("trajectory"), "trajectory"
    count = part.sizes[dimension]
    labels = part[dimension].values if dimension in part.coords else np.arange(count)
    part = part.drop_vars(list(part.coords)).rename_dims({dimension: "run"})
    columns = {"file": [path] * count, "label": [str(v) for v in labels]} | (
        {"split": [split] * count} if split else {}
    )
    return part.assign_coords({n: ("run", np.array(v, dtype=object)) for n, v in columns.items()})


def _columns(model: ParameterModel) -> list[str]:
    targets = [f"{t.name}{end}" for t in model.targets for end in ("", "_low", "_high")]
    return [*targets, "novelty", "in_distribution"]


def _records(model: ParameterModel, results: xr.Dataset) -> list[dict[str, Any]]:
    names = [n for n in ("file", "split", "label") if n in results.coords]
    table = {
        **{n: results[n].values.tolist() for n in names},
        **{n: results[n].values.tolist() for n in _columns(model)},
    }
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return [{("run" if n == "label" else n): v for n, v in row.items()} for row in rows]


def _print(model: ParameterModel, results: xr.Dataset, level: float, everything: bool) -> None:
    rows = _records(model, results)
    header = [n for n in rows[0] if n != "in_distribution"]
    several = len({row["file"] for row in rows}) > 1
    header = [n for n in header if n != "file" or several]
    shown = rows if everything else rows[:_SHOWN]
    cells = [[f"{row[n]:.4g}" if isinstance(row[n], float) else visible(str(row[n])) for n in header] for row in shown]
    cells = [[*c, _said(row)] for c, row in zip(cells, shown, strict=True)]
    header = [*header, ""]
    widths = [max(len(line[i]) for line in [header, *cells]) for i in range(len(header))]
    for line in [header, *cells]:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    if len(shown) < len(rows):
        print(f"... and {len(rows) - len(shown)} more")
    novel = sum(not row["in_distribution"] for row in rows)
    units = ", ".join(f"{t.name} in {t.unit}" for t in model.targets if t.unit)
    print(f"{len(rows)} runs, intervals at level {level:g}{f'; {units}' if units else ''}")
    promise = "; their intervals promise nothing" if novel else ""
    reason = "novelty above 1, or a value outside the labels"
    print(f"{novel} of {len(rows)} runs are unlike those of training ({reason}){promise}")


def _said(row: Mapping[str, Any]) -> str:
    if row["in_distribution"]:
        return ""
    return "novel" if row["novelty"] > 1 else "outside the labels"


def _write(path: Path, model: ParameterModel, results: xr.Dataset, level: float) -> None:
    from pdessl.files import replacing

    with replacing(path) as temporary:
        if path.suffix == ".nc":
            plain = {str(n): v for n, v in results.attrs.items() if isinstance(v, (str, int, float))}
            dataset = results.copy()
            dataset.attrs = {**plain, "level": level, "source": "pdessl predict"}
            dataset.to_netcdf(temporary, engine="h5netcdf")
            return
        rows = _records(model, results)
        if path.suffix == ".json":
            units = {t.name: t.unit for t in model.targets}
            # JSON has no infinity; an interval without an end has null there.
            finite = [
                {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in r.items()} for r in rows
            ]
            content = {"level": level, "units": units, "runs": finite}
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            return
        with temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            # Names come from the files of others; a spreadsheet runs a cell that begins with "=".
            writer.writerows({n: cell(v) if isinstance(v, str) else v for n, v in row.items()} for row in rows)
