"""``pdessl timestep``: time-stepping networks under every condition, and their rollouts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.timestep`, print the table."""
    parser = Parser(
        "timestep",
        "Train a network that predicts the next frame: told nothing, told what an encoder or a law infers from the\n"
        "first frames, and told the true parameter (the ceiling); roll all of them out on the test runs beside\n"
        "persistence. The condition 'law' trains nothing: the law that the unlabelled runs obey is integrated.\n"
        "Writes report.html, report.json, rollout.gif, and a folder per model that pdessl.load loads.",
        examples=[
            "pdessl timestep --encoder runs/pretraining --data data/burgers",
            "pdessl timestep --data data/burgers --condition none operator law parameter",
            "pdessl timestep --encoder runs/smoke --data data/smoke --set timestepping.network=unet "
            "timestepping.target=buoyancy",
        ],
        python="import pdessl\npdessl.timestep('runs/pretraining', 'data/burgers', out='runs/timestepping')\n"
        "future = pdessl.load('runs/timestepping/representation').rollout(ds, steps=40)",
    )
    parser.add_argument("--encoder", metavar="FOLDER", help="a pretraining run, a saved encoder, or a law")
    parser.add_argument("--data", metavar="STORE", help="folder of a store with labelled and test runs")
    parser.add_argument(
        "--condition",
        nargs="+",
        metavar="NAME",
        help="rows of the table: none, parameter, representation, recomputed, predicted, posterior, operator, hybrid, "
        "shuffled, random, law",
    )
    parser.add_argument("--config", default="quickstart", metavar="NAME", help="recipe with a section 'timestepping'")
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. tiny")
    parser.add_changes("recipe", "timestepping.width=48")
    parser.add_argument("--out", type=Path, default=Path("runs/timestepping"), metavar="FOLDER", help="folder to write")
    options = parser.parse_args(arguments)
    parser.require(options, "data")
    chosen = [] if options.condition is None else [f"timestepping.conditions=[{', '.join(options.condition)}]"]

    from pdessl.experiments.quickstart import read_settings
    from pdessl.experiments.stepping_scores import table
    from pdessl.experiments.timestep import timestep
    from pdessl.schema import dump_yaml

    settings = read_settings(options.config, options.preset, [*options.set, *chosen])
    if options.print_config:
        print(dump_yaml({"timestepping": settings.timestepping, "workers": settings.workers}), end="")
        return 0
    result = timestep(
        options.encoder,
        options.data,
        settings=settings.timestepping,
        out=options.out,
        workers=settings.workers,
        commands=[shlex.join(["pdessl", "timestep", *arguments])],
    )
    say(table(result), end="")
    return 0
