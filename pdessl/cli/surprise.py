"""``pdessl surprise``: when new runs stop doing what a model foresees, with an alarm at a promised rate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]

_SHOWN = 20


def main(arguments: Sequence[str]) -> int:
    """Parse, calibrate or load, judge file by file, print a table, write the results."""
    parser = Parser(
        "surprise",
        "Judge every frame of new runs by a model that foresees: a law of 'pdessl discover', a time-stepper of\n"
        "'pdessl timestep', a world model or a temporal JEPA of 'pdessl pretrain'. A parameter that changes on the\n"
        "way, a run that goes backwards, a sensor that fails: each gets a p-value per frame and an alarm. In sound\n"
        "runs an alarm is raised at most at the promised rate.",
        examples=[
            "pdessl surprise --model runs/law --sound data/burgers new_runs.nc --out surprise.csv --save runs/detector",
            "pdessl surprise --model runs/detector newer_runs.nc --rate 0.01 --plot surprise.png",
        ],
        python="found = pdessl.surprise('runs/law', 'new_runs.nc', sound='data/burgers')\nfound.alarm_time",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help="netCDF or Zarr files, stores, or mapped files")
    parser.add_argument("--model", metavar="FOLDER", help="law, time-stepper, world model, JEPA, or what --save wrote")
    parser.add_argument("--sound", metavar="PATH", help="store or files of sound runs the model was not fitted on")
    parser.add_argument("--sound-split", metavar="NAME", help="of them; default labelled and validation, else all")
    parser.add_argument("--split", metavar="NAME", help="split of a store that is judged; default all")
    parser.add_argument(
        "--rate", type=float, default=0.05, metavar="SHARE", help="of sound runs with an alarm, at most; default 0.05"
    )
    parser.add_argument("--missing", choices=("refuse", "drop", "interpolate"), default="refuse", help="runs with NaN")
    parser.add_argument("--mapping", help="how to read other files: a name of 'pdessl list datasets' or a YAML file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a row per run and frame: .csv or .nc")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="picture of the most surprising run")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the calibrated detector there")
    options = parser.parse_args(arguments)
    parser.require(options, "model")

    from pdessl.experiments.surprise import (
        calibrated,
        check_places,
        plot_surprise,
        surprise_of_files,
        write_surprise,
    )

    check_places(options.out, options.plot)
    detector = calibrated(options.model, options.sound, options.sound_split, options.mapping)
    detector.threshold(options.rate)  # refused before anything is read
    if options.save is not None:
        detector.save(options.save)

    def warn(line: str) -> None:
        say(f"warning: {line}", file=sys.stderr)

    chosen = (options.rate, options.missing, options.mapping, options.split)
    found = surprise_of_files(detector, options.paths, *chosen, warn)
    if options.out is not None:
        write_surprise(options.out, found)
    alarms = [run for run in range(found.sizes["run"]) if bool(found.alarm[run])]
    for run in alarms[:_SHOWN]:
        row = found.isel(run=run)
        where = f"{row['file'].item()}, run {row['label'].item()}"
        say(f"{where}: alarm at time {float(row.alarm_time):.6g}")
    if len(alarms) > _SHOWN:
        say(f"... and {len(alarms) - _SHOWN} more")
    say(
        f"{len(alarms)} of {found.sizes['run']} runs raise an alarm; of sound runs at most {options.rate:.0%} do "
        f"(calibrated on {detector.count})"
    )
    if options.plot is not None:
        plot_surprise(detector, options.paths, found, options.plot, options.missing, options.mapping, options.split)
        say(f"{options.plot}: the most surprising run")
    for place in filter(None, (options.out, options.save)):
        say(f"written to {place}")
    return 0
