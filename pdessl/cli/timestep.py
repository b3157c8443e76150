"""``pdessl timestep``: time-stepping networks with and without conditioning, and their rollouts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.timestep`, print where the report is."""
    parser = Parser(
        "timestep",
        "Train a small network that predicts the next frame, without a condition, conditioned on the representation\n"
        "of the first frames, and on the true parameter (the ceiling); roll all of them out on the test runs beside\n"
        "persistence. Writes report.html and report.json.",
        examples=[
            "pdessl timestep --encoder runs/pretraining --data data/burgers",
            "pdessl timestep --encoder runs/pretraining --data data/burgers --set timestepping.steps=2000",
        ],
        python="import pdessl\npdessl.timestep('runs/pretraining', 'data/burgers')",
    )
    parser.add_argument("--encoder", metavar="FOLDER", help="a pretraining run, or a saved encoder")
    parser.add_argument("--data", metavar="STORE", help="folder of a store with labelled and test runs")
    parser.add_argument("--config", default="quickstart", metavar="NAME", help="recipe with a section 'timestepping'")
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. tiny")
    parser.add_changes("recipe", "timestepping.width=48")
    parser.add_argument("--out", type=Path, default=Path("runs/timestepping"), metavar="FOLDER", help="folder to write")
    options = parser.parse_args(arguments)
    parser.require(options, "encoder", "data")

    from pdessl.experiments.quickstart import read_settings
    from pdessl.experiments.timestep import timestep
    from pdessl.schema import dump_yaml

    settings = read_settings(options.config, options.preset, options.set)
    if options.print_config:
        print(dump_yaml({"timestepping": settings.timestepping, "workers": settings.workers}), end="")
        return 0
    timestep(
        options.encoder,
        options.data,
        settings=settings.timestepping,
        out=options.out,
        workers=settings.workers,
        commands=[shlex.join(["pdessl", "timestep", *arguments])],
    )
    return 0
