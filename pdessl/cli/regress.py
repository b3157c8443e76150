"""``pdessl regress``: a physical parameter from few labels, beside its floors, and a model that predicts it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser, integers
from pdessl.written import say

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, run the comparison for every target, save a model, say where things are."""
    parser = Parser(
        "regress",
        "Regress a physical parameter from a pretrained encoder, frozen and fine-tuned, and from the law that the\n"
        "unlabelled runs obey, at several numbers of labels, and beside it what must be beaten on the same labels\n"
        "and test runs: the mean, a random encoder, hand-made physics features, the same network trained from\n"
        "scratch, and least squares of the equation's own terms.\n"
        "Writes report.html, report.json, and a model that 'pdessl predict --model FOLDER' reads.",
        examples=[
            "pdessl regress --encoder runs/pretraining --data data/burgers --target viscosity --labels 16,64,all",
            "pdessl regress --encoder runs/e --data my_runs/ --target viscosity --labels labels.csv",
            "pdessl regress --encoder runs/ks --data data/ks --target hyperviscosity --out runs/nu4",
            "pdessl regress --encoder runs/pretraining --data data/burgers --preset quick      closed forms only",
            "pdessl regress --inference simulator --data data/burgers --preset quick           the equation is known",
        ],
        python="import pdessl\npdessl.regress('runs/pretraining', 'data/burgers', 'viscosity', labels=(32,))",
    )
    parser.add_argument(
        "--encoder", metavar="FOLDER", help="a pretraining run, a law of pdessl discover, or a saved encoder"
    )
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="store or files; runs without TARGET are unlabelled"
    )
    parser.add_argument("--target", metavar="NAME,...", help="parameter, e.g. viscosity; default the recipe's")
    parser.add_argument(
        "--labels",
        type=counts_or_table,
        metavar="N,N,... | FILE.csv",
        help="numbers of labelled runs, 'all' for all; or the labels: a table with columns file (or run), value, and\n"
        "where wanted standard_error and unit",
    )
    parser.add_argument(
        "--inference",
        choices=("readout", "simulator", "energy"),
        default="readout",
        help="simulator: also fit the equation's simulator to every test run; needs no label, and no --encoder.\n"
        "energy: also move the code of each run to where the law of the unlabelled runs foresees the run best",
    )
    parser.add_argument("--mapping", help="how to read files: a name of 'pdessl list datasets' or a YAML file")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds per method")
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="recipe with a section 'regression'; default regression/EQUATION of the data, else regression/default",
    )
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. quick")
    parser.add_changes("recipe", "regression.seeds=5")
    parser.add_argument("--workers", type=int, metavar="N", help="processes of one thread each")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write; default runs/TARGET")
    options = parser.parse_args(arguments)
    words = list(options.set)
    table = options.labels if isinstance(options.labels, str) else None
    words += [f"regression.labels={options.labels}"] if options.labels and table is None else []
    words += [f"regression.seeds={options.seeds}"] if options.seeds else []
    words += [f"workers={options.workers}"] if options.workers else []

    from pdessl.experiments.quickstart import read_settings
    from pdessl.experiments.regress import default_recipe, regress
    from pdessl.schema import dump_yaml

    config = options.config or default_recipe(options.data, options.mapping)
    targets = options.target.split(",") if options.target else [None]
    for target in targets:
        chosen = [f"regression.target={target}"] if target else []
        settings = read_settings(config, options.preset, words + chosen)
        if options.print_config:
            print(dump_yaml({"regression": settings.regression, "workers": settings.workers}), end="")
            return 0
        name = settings.regression.target
        folder = options.out if options.out and len(targets) == 1 else (options.out or Path("runs")) / name
        command = shlex.join(["pdessl", "regress", *arguments])
        found = regress(
            options.encoder,
            options.data,
            labels=table,
            mapping=options.mapping,
            settings=settings.regression,
            out=folder,
            workers=settings.workers,
            inference=options.inference,
            commands=[command],
        )
        if found.model is not None:
            say(f"model: pdessl predict --model {folder} NEW_RUNS.nc --out {name}.csv")
        if options.inference == "simulator":
            say(f"no model: pdessl predict --inference simulator --target {name} NEW_RUNS.nc --out {name}.csv")
    return 0


def counts_or_table(text: str) -> list[int] | str:
    """Read numbers of labelled runs, or take the name of a table."""
    return text if text.lower().endswith(".csv") else counts(text)


def counts(text: str) -> list[int]:
    """Read ``16,64,all`` as numbers of labelled runs; 0 stands for all."""
    words = [word.strip() for word in text.split(",")]
    if "all" in words[:-1]:
        raise argparse.ArgumentTypeError(f"'{text}': 'all' comes last, as in 16,64,all")
    numbers = integers(",".join(words[:-1])) if words[-1] == "all" and len(words) > 1 else []
    return [*numbers, 0] if words[-1] == "all" else integers(text)
