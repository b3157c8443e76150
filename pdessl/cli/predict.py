"""``pdessl predict``: parameters of new runs from a saved model, with intervals and a flag for runs unlike training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pdessl.cli.parsing import Parser
from pdessl.errors import CheckpointError, PdesslError
from pdessl.written import say

__all__ = ["main"]

_OWN = ("model", "tailored")  # by a model that was fitted on labelled runs
_SHOWN = 20  # rows printed where all of them are in a file


def main(arguments: Sequence[str]) -> int:
    """Parse, predict file by file, print a table, write the results."""
    parser = Parser(
        "predict",
        "Predict parameters of new runs with a model that 'pdessl regress' saved: value, interval, and whether the\n"
        "run is like those of training. Runs are read piece by piece; labels in the files are not read.\n"
        "Where the equation is known and has a simulator on a periodic interval, --inference simulator fits that to\n"
        "each run instead: no model and no label. --inference energy takes a law of 'pdessl discover' as the model,\n"
        "and returns the codes under which it foresees each run best. --inference tailored goes on training the model\n"
        "on the residual of a known equation, a copy for each run, before it predicts: for runs unlike the labelled.",
        examples=[
            "pdessl predict --model runs/viscosity new_runs.nc --out viscosity.csv",
            "pdessl predict --model runs/viscosity runs/*.nc --level 0.95 --out viscosity.nc",
            "pdessl predict --model runs/viscosity lab.h5 --mapping lab.yaml --missing drop",
            "pdessl predict --model runs/viscosity data/burgers --split test --out test.json",
            "pdessl predict --inference simulator --target viscosity --equation burgers new_runs.nc",
            "pdessl predict --inference energy --model runs/law new_runs.nc --out codes.csv",
            "pdessl predict --inference tailored --model runs/viscosity --equation burgers new_runs.nc",
        ],
        python="import pdessl, xarray as xr\nmodel = pdessl.load('runs/viscosity')\n"
        "model.predict(xr.open_dataset('new_runs.nc', decode_times=False))",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="netCDF or Zarr files, stores, or mapped files")
    parser.add_argument("--model", metavar="FOLDER", help="folder of a saved model")
    parser.add_argument("--inference", choices=(*_OWN, "simulator", "energy"), default="model", help="what estimates")
    parser.add_argument("--target", metavar="NAME,...", help="with the simulator: parameters, e.g. viscosity")
    parser.add_argument(
        "--equation", metavar="NAME", help="simulator, tailored: name or file; default what the data or the model say"
    )
    parser.add_argument(
        "--tailoring", nargs="+", default=[], metavar="KEY=VALUE", help="steps=50, learning_rate=1e-4, anchor=1"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="results: .csv, .nc or .json")
    parser.add_argument("--level", type=float, metavar="SHARE", help="of the intervals; default the model's")
    parser.add_argument(
        "--missing",
        choices=("refuse", "drop", "interpolate"),
        default="refuse",
        help="runs with NaN: refuse (default), keep their longest stretch of complete frames, or fill in time",
    )
    parser.add_argument("--mapping", help="how to read other files: a name of 'pdessl list datasets' or a YAML file")
    parser.add_changes("mapping", "missing=drop")
    parser.add_argument("--split", metavar="NAME", help="split of a store; default all")
    parser.add_argument("--device", default="cpu", help="torch device: cpu, cuda, ...")
    options = parser.parse_args(arguments)
    simulator = options.inference == "simulator"
    parser.require(options, "target" if simulator else "model")
    tailored = options.inference == "tailored"
    if simulator and options.model:
        parser.error("--model is for --inference model, energy or tailored: a simulator needs none")
    if not simulator and options.target:
        parser.error("--target is for --inference simulator: a model has its own targets")
    if options.tailoring and not tailored:
        parser.error("--tailoring is for --inference tailored")
    if options.equation and not (simulator or tailored):
        parser.error("--equation is for --inference simulator, tailored")
    mapping = parser.mapping(options)
    if options.print_config:
        return 0

    from torch import nn

    from pdessl.inference import ParameterModel, load
    from pdessl.inference.prediction import ENDINGS, expected, predict_files, shown, write_predictions

    if options.out is not None and options.out.suffix not in ENDINGS:
        raise PdesslError(f"--out {options.out}: write results to a file ending in {', '.join(ENDINGS)}.")
    if options.inference not in _OWN:
        return _unlabelled(options, mapping)
    model = load(options.model)
    if not isinstance(model, ParameterModel):
        raise CheckpointError(
            f"{options.model} holds a network ({type(model).__name__}), not a model of parameters. Fit one on labelled "
            "runs:  pdessl regress --encoder ... --data ..."
        )
    if isinstance(model.encoder, nn.Module):
        model.encoder.to(options.device)
    level = model.level if options.level is None else options.level

    def warn(line: str) -> None:
        say(f"warning: {line}", file=sys.stderr)

    predict = _tailored(model, options, level) if tailored else None
    results = predict_files(model, options.paths, level, options.missing, mapping, options.split, warn, predict)
    for line in shown(model, results, level, None if options.out is None else _SHOWN):
        say(line)
    if tailored:
        say("intervals are the model's, of what it says untailored; what they promise is for runs as in training")
    novel = results["in_distribution"].values.tolist().count(False)
    promise = "; their intervals promise nothing" if novel else ""
    reason = "novelty above 1, or a value outside the labels"
    say(f"{novel} of {results.sizes['run']} runs are unlike those of training ({reason}){promise}")
    for line in expected(model):
        say(line)
    if options.out is not None:
        write_predictions(options.out, model, results, level)
        say(f"written to {options.out}")
    return 0


def _tailored(model: Any, options: argparse.Namespace, level: float) -> Any:
    from pdessl.inference.tailoring import Tailoring, predict_tailored
    from pdessl.schema import fill, override

    settings = fill(Tailoring, override({}, options.tailoring), "--tailoring")
    return lambda data: predict_tailored(model, data, options.equation, settings, level, options.missing)


def _unlabelled(options: argparse.Namespace, mapping: Any) -> int:
    from pdessl.inference import law_codes, load, prediction
    from pdessl.inference.simulated import fit_simulator

    level = 0.9 if options.level is None else options.level
    if options.inference == "simulator":
        names = options.target.split(",")
        found: Any = fit_simulator(options.paths, names, options.equation, level, mapping, options.split)
        holds = "the fit alone: they hold where the runs obey the equation and their noise is white"
    else:
        found = law_codes.codes_of_files(load(options.model), options.paths, level, mapping, options.split)
        holds = "the curvature alone; 'pdessl regress --inference energy' calibrates them on labelled runs"
    for line in prediction.shown(found, found.table, level, None if options.out is None else _SHOWN):
        say(line)
    say(f"intervals are of {holds}")
    if options.out is not None:
        prediction.write_predictions(options.out, found, found.table, level)
        say(f"written to {options.out}")
    return 0
