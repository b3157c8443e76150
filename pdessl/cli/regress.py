"""``pdessl regress``: a physical parameter from few labels, beside its floors, and a model that predicts it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdessl.cli.parsing import Parser, integers
from pdessl.errors import PdesslError

if TYPE_CHECKING:
    from pdessl.experiments.comparison import Regression
    from pdessl.inference import ParameterModel

__all__ = ["main", "save_model"]


def main(arguments: Sequence[str]) -> int:
    """Parse, run the comparison for every target, save a model, say where things are."""
    parser = Parser(
        "regress",
        "Regress a physical parameter from a pretrained encoder, frozen and fine-tuned, at several numbers of labels,\n"
        "and beside it what it must beat on the same labels and test runs: the mean, a random encoder, hand-made\n"
        "physics features, the same network trained from scratch, and least squares of the equation's own terms.\n"
        "Writes report.html, report.json, and a model that 'pdessl predict --model FOLDER' reads.",
        examples=[
            "pdessl regress --encoder runs/pretraining --data data/burgers --target viscosity --labels 16,64,all",
            "pdessl regress --encoder runs/ks --data data/ks --target hyperviscosity --out runs/nu4",
            "pdessl regress --encoder runs/pretraining --data data/burgers --preset quick      closed forms only",
        ],
        python="from pdessl.experiments.comparison import Regression, compare_methods\n"
        "compare_methods(pdessl.load('runs/pretraining'), data_module, Regression(labels=(32,)))",
    )
    parser.add_argument("--encoder", required=True, metavar="FOLDER", help="a pretraining run, or a saved encoder")
    parser.add_argument("--data", required=True, metavar="STORE", help="folder of a store with labelled and test runs")
    parser.add_argument("--target", metavar="NAME,...", help="parameter, e.g. viscosity; default the recipe's")
    parser.add_argument("--labels", type=counts, metavar="N,N,...", help="numbers of labelled runs; 'all' for all")
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
    words += [f"regression.labels={options.labels}"] if options.labels else []
    words += [f"regression.seeds={options.seeds}"] if options.seeds else []
    words += [f"workers={options.workers}"] if options.workers else []

    from pdessl.experiments.quickstart import read_settings, run_regression
    from pdessl.schema import dump_yaml

    config = options.config or default_recipe(options.data)
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
        report = run_regression(options.encoder, options.data, settings, folder, [command])
        model = save_model(options.encoder, options.data, settings.regression, report, folder / "model")
        add_elsewhere(folder, model)
        print(f"model: pdessl predict --model {folder} NEW_RUNS.nc --out {name}.csv")
    return 0


def counts(text: str) -> list[int]:
    """Read ``16,64,all`` as numbers of labelled runs; 0 stands for all."""
    words = [word.strip() for word in text.split(",")]
    if "all" in words[:-1]:
        raise argparse.ArgumentTypeError(f"'{text}': 'all' comes last, as in 16,64,all")
    numbers = integers(",".join(words[:-1])) if words[-1] == "all" and len(words) > 1 else []
    return [*numbers, 0] if words[-1] == "all" else integers(text)


def default_recipe(data: str) -> str:
    """Return the name of the recipe for the equation of a dataset."""
    from pdessl import catalog
    from pdessl.data import open

    name = f"regression/{open(data).equation}"
    return name if name in catalog.names("configs") else "regression/default"


def add_elsewhere(folder: Path, model: ParameterModel) -> None:
    """Write the report once more, with what the saved model makes of runs unlike those of training, and say it."""
    from pdessl.evaluation.report import read_report, write_report

    found = model.record["elsewhere"]
    if len(found) < 2:
        return
    report, arrays = read_report(folder)
    write_report(folder, {**report, "elsewhere": {"level": model.level, "rows": found}}, arrays)
    for name, row in found.items():
        if "area" in row:
            inside = "".join(f"; {share:.0%} of {n} in its interval" for n, share in row["coverage"].items())
            print(f"{name}: novelty AUROC {row['area']:.2f}, {row['novel']:.0%} flagged{inside}")


def save_model(encoder: str, data: str, settings: Regression, report: dict[str, Any], folder: Path) -> ParameterModel:
    """Fit the frozen encoder's readout on the largest labelled subset, calibrate it, and save it with its card.

    Its errors, coverage and novelty are measured on the test runs and on the settings' shifts and strangers. Intervals
    are calibrated on the validation runs where there are enough for the level, else by leaving out folds of the
    labelled ones.
    """
    from pdessl.data import PDEDataModule
    from pdessl.evaluation.targets import with_target
    from pdessl.experiments.shifts import applicable, shifted
    from pdessl.experiments.views import fitting
    from pdessl.inference import fit_parameter_model
    from pdessl.models import load

    module = PDEDataModule(data)
    module.setup()
    rows = report["regression"]["rows"]
    count = max(row["labels"] for row in rows if row["labels"] is not None)
    labelled = with_target(module.labelled_subset(count, 0), settings.target)
    level = 0.9 if settings.intervals is None else settings.intervals.level
    fewest = math.ceil(level / (1 - level) - 1e-9)  # with fewer no finite interval keeps the promise
    try:
        validation = with_target(module.validation, settings.target)
        calibration = validation if len(validation) >= fewest else None
    except PdesslError:
        calibration = None
    floors = {
        f"{row['title']}, %": row["relative_error"]["mean"]
        for row in rows
        if row["group"] == "floor" and row["labels"] in (count, None)
    }
    elsewhere = {}
    if settings.robustness is not None:
        for name, shift in applicable(module, settings.robustness.shifts)[0].items():
            elsewhere[name] = with_target(shifted(module, shift), settings.target)
        for name, shift in applicable(module, settings.robustness.strangers)[0].items():
            elsewhere[name] = shifted(module, shift)
    network = load(encoder)
    trained = (getattr(network, "trained_on", None) or {}).get("equation")
    model = fit_parameter_model(
        network,
        labelled,
        calibration,
        targets={settings.target: report["regression"]["scale"]},
        views=dataclasses.replace(fitting(settings.views, labelled), moves=()),
        level=level,
        units=module.store.units,
        held_out=with_target(module.test, settings.target),
        elsewhere=elsewhere,
        interval="adaptive" if settings.intervals is None else settings.intervals.saved,
        record={
            "data": str(data),
            "encoder": f"{encoder}{f', pretrained on {trained}' if trained else ''}",
            "floors": floors,
        },
    )
    model.save(folder)
    return model
