"""``pdessl timestep``: time-stepping networks with and without conditioning, and their rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.experiments.quickstart.run_timestepping`, print where the report is."""
    parser = Parser(
        "timestep",
        "Train a small network that predicts the next frame, without a condition, conditioned on the representation\n"
        "of the first frames, and on the true parameter (the ceiling); roll all of them out on the test runs beside\n"
        "persistence. Writes report.html and report.json.",
        examples=[
            "pdessl timestep --encoder runs/pretraining --data data/burgers",
            "pdessl timestep --encoder runs/pretraining --data data/burgers --set timestepping.steps=2000",
        ],
        python="from pdessl.experiments.stepping import Stepping, compare_steppers\n"
        "compare_steppers(pdessl.load('runs/pretraining'), data_module, Stepping(steps=2000))",
    )
    parser.add_argument("--encoder", metavar="FOLDER", help="a pretraining run, or a saved encoder")
    parser.add_argument("--data", metavar="STORE", help="folder of a store with labelled and test runs")
    parser.add_argument("--config", default="quickstart", metavar="NAME", help="recipe with a section 'timestepping'")
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. tiny")
    parser.add_changes("recipe", "timestepping.width=48")
    parser.add_argument("--out", type=Path, default=Path("runs/timestepping"), metavar="FOLDER", help="folder to write")
    options = parser.parse_args(arguments)
    parser.require(options, "encoder", "data")

    from pdessl.experiments.quickstart import read_settings, run_timestepping
    from pdessl.schema import dump_yaml

    settings = read_settings(options.config, options.preset, options.set)
    if options.print_config:
        print(dump_yaml({"timestepping": settings.timestepping, "workers": settings.workers}), end="")
        return 0
    run_timestepping(options.encoder, options.data, settings, options.out, ["pdessl timestep " + " ".join(arguments)])
    return 0
