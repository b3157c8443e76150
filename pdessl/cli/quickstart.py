"""``pdessl quickstart``: simulate, pretrain without labels, regress, step in time, report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.experiments.quickstart.quickstart`, print the time of each stage and the findings."""
    parser = Parser(
        "quickstart",
        "The whole pipeline for Burgers' equation with unknown viscosity, on a laptop: simulate noisy coarse runs,\n"
        "pretrain an encoder without labels on views made by the equation's symmetries, regress viscosity from few\n"
        "labelled runs beside every floor, train time-steppers with and without the representation, write a report.",
        examples=[
            "pdessl quickstart",
            "pdessl quickstart --preset tiny --out /tmp/tiny          every stage at toy size, under a minute",
            "pdessl quickstart --set regression.seeds=5 --set 'regression.labels=[16, 64]'",
        ],
        python="from pdessl.experiments.quickstart import quickstart\nquickstart(out='quickstart', preset='tiny')",
    )
    parser.add_argument("--out", type=Path, default=Path("quickstart"), metavar="FOLDER", help="default ./quickstart")
    parser.add_argument("--config", default="quickstart", metavar="NAME", help="recipe of the catalog, or a YAML file")
    parser.add_argument("--preset", metavar="NAME", help="a smaller or larger variant in the recipe, e.g. tiny")
    parser.add_changes("recipe", "regression.seeds=5")
    options = parser.parse_args(arguments)

    from pdessl.experiments.quickstart import quickstart, read_settings
    from pdessl.schema import dump_yaml

    if options.print_config:
        print(dump_yaml(read_settings(options.config, options.preset, options.set)), end="")
        return 0
    command = shlex.join(["pdessl", "quickstart", *arguments])
    quickstart(options.out, options.config, options.preset, options.set, command=command, announce=say)
    return 0
