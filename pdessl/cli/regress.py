"""``pdessl regress``: a physical parameter from few labels, beside its floors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pdessl.cli.parsing import Parser, integers

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Parse, call :func:`pdessl.cli.regression.regress`, print the findings and where the report is."""
    parser = Parser(
        "regress",
        "Regress a physical parameter from a pretrained encoder, frozen and fine-tuned, at several numbers of labels,\n"
        "and beside it what it must beat on the same labels and test runs: the mean, a random encoder, the same\n"
        "network trained from scratch, and least squares of the equation's own terms. Writes report.html, report.json.",
        examples=[
            "pdessl regress --encoder runs/pretraining --data data/burgers --target viscosity",
            "pdessl regress --encoder runs/pretraining --data data/burgers --labels 16,64 --seeds 5 --out runs/few",
        ],
        python="from pdessl.cli.regression import Regression, compare_methods\n"
        "compare_methods(pdessl.load('runs/pretraining'), data_module, Regression(labels=(32,)))",
    )
    parser.add_argument("--encoder", required=True, metavar="FOLDER", help="a pretraining run, or a saved encoder")
    parser.add_argument("--data", required=True, metavar="STORE", help="folder of a store with labelled and test runs")
    parser.add_argument("--target", metavar="NAME", help="parameter, e.g. viscosity; default the recipe's")
    parser.add_argument("--labels", type=integers, metavar="N,N,...", help="numbers of labelled runs")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds per method")
    parser.add_argument("--config", default="quickstart", metavar="NAME", help="recipe with a section 'regression'")
    parser.add_argument("--preset", metavar="NAME", help="a variant in the recipe, e.g. tiny")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. regression.seeds=5")
    parser.add_argument("--out", type=Path, default=Path("runs/regression"), metavar="FOLDER", help="folder to write")
    options = parser.parse_args(arguments)
    words = list(options.set)
    words += [f"regression.target={options.target}"] if options.target else []
    words += [f"regression.labels={options.labels}"] if options.labels else []
    words += [f"regression.seeds={options.seeds}"] if options.seeds else []

    from pdessl.cli.pipeline import read_settings, run_regression

    settings = read_settings(options.config, options.preset, words)
    run_regression(options.encoder, options.data, settings, options.out, ["pdessl regress " + " ".join(arguments)])
    return 0
