"""``pdessl study``: many pretrainings, seeds and floors in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`study`, print the table."""
    parser = Parser(
        "study",
        "Pretrain every variant of a study with several seeds, probe all encoders alike on few labels, and print one\n"
        "table beside a random encoder and the same network trained on the labels alone. What is finished is kept: a\n"
        "study that was stopped goes on, and --set or a changed recipe runs again only what it changes.",
        examples=[
            "pdessl study objectives_burgers --out runs/objectives --workers 2",
            "pdessl study objectives_burgers --out runs/objectives --only VICReg SIE --set study.seeds=1",
            "pdessl study search_burgers --out runs/search --set search.trials=20",
            "pdessl study inverse_benchmark --out runs/inverse",
            "pdessl study table1 --preset cpu --out runs/table1",
            "pdessl study rerun runs/inverse/rows/kdv-shooting-frames2-noise0.01-seed0.json",
        ],
        python="import pdessl\npdessl.study('objectives_burgers', 'runs/objectives')",
    )
    parser.add_argument("config", help="recipe of a study: name from 'pdessl list configs', or a YAML file")
    parser.add_argument("row", nargs="?", type=Path, metavar="ROW.json", help="after 'rerun': a row to compute again")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the study")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="run these variants only")
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. cpu, full")
    parser.add_changes("recipe", "study.seeds=1")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="Dask scheduler, tcp://host:port: its workers, which see --out, do it",
    )
    parser.add_allowed()
    parser.add_argument("--any-version", action="store_true", help="keep results of another version of pdessl or torch")
    options = parser.parse_args(arguments)
    if (options.config == "rerun") != (options.row is not None):
        parser.error("expected a recipe, or the word rerun and the file of a row:  pdessl study rerun ROW.json")
    if options.row is not None:
        from pdessl.experiments.inverse_study import rerun

        same = rerun(options.row, options.out or options.row.parent.parent)
        say("the same numbers" if same else "other numbers")
        return 0 if same else 1
    parser.require(options, "out")
    from pdessl.experiments.recipes import read_recipe
    from pdessl.experiments.study import study
    from pdessl.experiments.study_table import table
    from pdessl.schema import dump_yaml

    if options.workers < 1:
        parser.error(f"--workers {options.workers}: expected at least 1")
    if options.print_config:
        print(dump_yaml(read_recipe(options.config, options.preset, options.set)), end="")
        return 0
    results = study(
        options.config,
        options.out,
        options.set,
        options.only,
        options.workers,
        allow=options.allow,
        any_version=options.any_version,
        preset=options.preset,
        scheduler=options.scheduler,
    )
    say(f"\n{results['title']}\n\n{table(results)}\n{options.out}: results.json, table.md")
    return 0
