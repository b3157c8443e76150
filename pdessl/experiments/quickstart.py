"""The quickstart's stages, each a call that its verb makes too, from generating data to the report."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pdessl.data import generate, load_recipe, simulate
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import PdesslError
from pdessl.evaluation.classical import least_squares, weak_form
from pdessl.evaluation.metrics import relative_error
from pdessl.evaluation.report import write_report
from pdessl.evaluation.tables import findings
from pdessl.experiments.comparison import RUNS_OF_A_LAW, compare_methods
from pdessl.experiments.comparison_result import as_report
from pdessl.experiments.law_report import as_report as law_report
from pdessl.experiments.law_report import read_law
from pdessl.experiments.pretraining import pretrain
from pdessl.experiments.processes import Workers
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.recipes import read_recipe, recipe_path
from pdessl.experiments.regress import saved_model
from pdessl.experiments.regression import Regression
from pdessl.experiments.stages import Stages
from pdessl.experiments.stepping import Stepping, compare_steppers
from pdessl.experiments.stepping_scores import as_report as stepping_report
from pdessl.experiments.training import quietly
from pdessl.inference.views import Views
from pdessl.models import load
from pdessl.operators.saving import save_law
from pdessl.schema import Count, Overrides, Size, fill, merge, override, read_words, write_words
from pdessl.trajectory import Trajectories
from pdessl.written import say

__all__ = [
    "Pipeline",
    "Pretraining",
    "Simulation",
    "quickstart",
    "read_settings",
    "single_steps",
]


@dataclass(frozen=True)
class Simulation:
    """The dataset: name or file, trajectories per split, and other values for its keys, as ``--set`` takes them."""

    dataset: str = "burgers"
    size: dict[str, Size] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pretraining:
    """The recipe that is run, one of its presets, and other values for its keys, as ``--set`` takes them."""

    recipe: str = "burgers_vicreg"
    preset: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """Settings of all stages.

    Args:
        data: what is simulated.
        pretraining: how the encoder is trained.
        regression: the few-label comparison.
        timestepping: the time-steppers.
        views: the augmentation drawn in the report's first figure.
        title, description: texts of the report.
        threads: processor threads; None leaves torch's choice.
        workers: processes that the small trainings of regression and time-stepping are spread over.
    """

    data: Simulation = Simulation()
    pretraining: Pretraining = Pretraining()
    regression: Regression = Regression()
    timestepping: Stepping = Stepping()
    views: Views = Views()
    title: str = ""
    description: str = ""
    threads: Count | None = None
    workers: Count = 1


def read_settings(
    config: str | os.PathLike[str], preset: str | None = None, overrides: Overrides | None = None
) -> Pipeline:
    """Read a recipe of the whole pipeline, see :func:`pdessl.experiments.recipes.read_recipe`.

    Args:
        config: recipe name from ``pdessl list configs``, or a YAML file.
        preset: a name under its key ``presets``, whose values are laid over the recipe.
        overrides: other values, laid over that.

    Raises:
        CatalogError: no such recipe or preset.
        SchemaError: a key that does not exist, or a value of another type or out of its range.
    """
    return fill(Pipeline, read_recipe(config, preset, overrides), recipe_path(config).name)


def quickstart(
    out: str | os.PathLike[str] = "quickstart",
    config: str | os.PathLike[str] = "quickstart",
    preset: str | None = None,
    overrides: Overrides | None = None,
    command: str = "",
    announce: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Run the whole pipeline into a folder.

    Args:
        out: holds afterwards ``data/`` (the store), ``law/`` (that of the unlabelled runs), ``pretraining/`` (encoder,
            curves, checkpoint), ``model/`` (which predicts the parameter of new runs), ``report.html``, ``report.json``
            and ``report.npz``. A store that is there already is used again if the same recipe made it.
        config: recipe name or YAML file, see :func:`read_settings`.
        preset: name of a variant in the recipe.
        overrides: other values, ``{"regression.seeds": 5}`` or ``["regression.seeds=5"]``.
        command: the command line, for the report.
        announce: receives a line per stage with its time.

    Returns:
        What ``report.json`` holds.

    Raises:
        PdesslError: anything the user can repair; nothing half-written is left.
    """
    settings = read_settings(config, preset, overrides)
    folder = Path(out)
    check_writable(folder)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    stages = Stages(announce)
    arrays: dict[str, Any] = {}
    report: dict[str, Any] = {
        "title": settings.title or "pdessl quickstart",
        "summary": [settings.description] if settings.description else [],
    }
    with stages.stage("simulate"):
        store = generate(
            settings.data.dataset,
            folder / "data",
            size=settings.data.size or None,
            overrides=settings.data.overrides,
            resume=True,
        )
    data = PDEDataModule(store.path)
    data.setup()
    law = None
    with stages.stage("find the law of the unlabelled runs"):
        try:
            found = read_law(data, settings.regression)
        except PdesslError as error:  # no law can be found in runs so few or so short: the networks need none
            announce(f"no law: {error}")
        else:
            law = found.law
            save_law(law, folder / "law", dict(zip(data.test.axis_names, data.test.boundary, strict=True)))
            report["law"], held = law_report(found, data, settings.regression.target)
            arrays |= held
            for line in found.lines(settings.regression.target):
                announce(line)
    with stages.stage("pretrain without labels"), quietly():
        given = override({"data": {"path": str(store.path)}}, settings.pretraining.overrides)
        if not sys.stderr.isatty():
            given = merge({"trainer": {"enable_progress_bar": False}}, given)
        run = pretrain(settings.pretraining.recipe, given, folder / "pretraining", preset=settings.pretraining.preset)
    encoder = load(run.folder)
    with Workers(settings.workers) as workers:  # of both, as starting them takes long
        with stages.stage(f"regress {settings.regression.target} from few labels"), quietly():
            result = compare_methods(encoder, data, settings.regression, workers=workers, law=law)
            name = str(folder / "pretraining")
            result.model = saved_model(result, data, settings.regression, name, encoder)
        with stages.stage("step in time"), quietly():
            stepped = compare_steppers(encoder, data, settings.timestepping, workers=workers)
    if result.model is not None:
        result.model.save(folder / "model")
        report["model"] = result.model.record["method"]
    for sections, held in (
        as_report(result, settings.regression),
        stepping_report(stepped, settings.timestepping),
    ):
        report |= sections
        arrays |= held
    with stages.stage("report"):
        report["training"] = {"curves": _shown_curves(run.curves)}
        report["views"], held = _views_section(settings, data)
        arrays |= held
        report["regression"]["notes"] += _regression_notes(settings)
        report["commands"] = [command] if command else []
        report["commands"] += single_steps(settings, folder, config, preset, overrides)
        report["versions"], report["machine"] = versions(), machine()
        report["data"] = {"splits": store.splits, "recipe_hash": store.manifest["recipe_hash"]}
        report["recipe"] = dataclasses.asdict(settings)
        report["seconds"] = stages.seconds
    report["seconds"] = dict(stages.seconds)
    page = write_report(folder, report, arrays)
    announce(f"{'all stages':<44s}{stages.total:8.1f} s")
    for line in findings(report["regression"]["rows"]):
        announce(line)
    announce(f"report: {page}")
    return report


def _shown_curves(curves: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Leave out the monitors of the features (those of the embeddings are what VICReg acts on) and R²."""
    shown = {n: v for n, v in curves.items() if "/features_" not in n and not n.endswith("_r2")}
    return {name.split("/", 1)[-1].replace("_", " "): list(values) for name, values in shown.items()}


def _views_section(settings: Pipeline, data: PDEDataModule) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw three labelled runs across the range of the parameter, and two views of each."""
    labelled = data.labelled
    name = settings.regression.target
    order = labelled.parameters[name].argsort()
    runs = labelled[order[[len(order) // 10, len(order) // 2, 9 * len(order) // 10]]]
    augmentation = settings.views.augmentation(data.store.equation)
    columns = [runs]
    if augmentation is not None:
        generator = torch.Generator().manual_seed(0)
        columns += [augmentation(runs, generator)[0] for _ in range(2)]
    arrays: dict[str, Any] = {}
    for i in range(len(runs)):
        for j, column in enumerate(columns):
            arrays[f"views/{i}/{j}/field"] = column.fields[i, 0].numpy().astype("float32")
            arrays[f"views/{i}/{j}/time"] = column.time[i].numpy()
            arrays[f"views/{i}/{j}/space"] = column.space[0][i].numpy()
    section = {
        "row_titles": [f"{name} {float(v):.3f}" for v in runs.parameters[name]],
        "column_titles": ["observed", "a view", "another view"][: len(columns)],
        "field": labelled.field_names[0],
        "strengths": [{"generator": g.replace("_", " "), "strength": s} for g, s in settings.views.strengths.items()],
    }
    return section, arrays


def _regression_notes(settings: Pipeline) -> list[str]:
    notes = [
        f"Every method regresses the logarithm of the {settings.regression.target} and is scored on the same test "
        "runs. Validation data choose learning rate and length of every supervised training; the ridge chooses its "
        "penalty by leave-one-out error on its training labels. The random encoder's ridge is given all its "
        "pooled maps, not the few outputs of a random head. Standard errors are over label subsets, views and "
        "initial weights; one encoder was pretrained."
    ]
    if settings.regression.classical is not None:
        plain, weak = _classical_on_clean_data(settings)
        notes.append(
            "Who knows the equation needs no network: least squares of its own terms, on clean runs on a fine grid, is "
            f"nearly exact (relative error {plain:.2g} % pointwise, {weak:.2g} % in weak form, on 16 runs). The table "
            "has what remains of it on the coarse, noisy data that all other methods are given."
        )
    return notes


def _classical_on_clean_data(settings: Pipeline) -> tuple[float, float]:
    clean = {"observation.noise": 0.0, "observation.points": 256, "observation.frames": 512}
    # The recipe's own dotted keys become one mapping first, else they are laid over these.
    recipe = load_recipe(settings.data.dataset, None, override(override({}, settings.data.overrides), clean))
    runs: Trajectories = simulate(recipe, "clean", range(16))
    truth = runs.parameters[settings.regression.target]
    return (
        float(relative_error(least_squares(recipe.equation, runs, settings.regression.target), truth)),
        float(relative_error(weak_form(recipe.equation, runs, settings.regression.target), truth)),
    )


def single_steps(
    settings: Pipeline,
    folder: Path,
    config: str | os.PathLike[str],
    preset: str | None = None,
    overrides: Overrides | None = None,
) -> list[str]:
    """Return the stages of a quickstart as single commands, with the same preset and the same other values.

    Args:
        settings: of all stages, read from the following.
        folder: of the run.
        config: as given to :func:`quickstart`, and so are
        preset: and
        overrides: these.
    """
    changes = write_words(overrides if isinstance(overrides, Mapping) else read_words(overrides or ()))
    data, pretraining = folder / "data", settings.pretraining
    size = ",".join(f"{split}={n}" for split, n in settings.data.size.items())
    inputs = ["--encoder", folder / "pretraining", "--data", data, "--config", config, *_option("--preset", preset)]
    steps = [
        ["generate", settings.data.dataset, "--out", data, *_option("--size", size)]
        + _option("--set", *write_words(settings.data.overrides)),
        ["discover", data, "--limit", RUNS_OF_A_LAW, "--out", folder / "law"],
        ["pretrain", "--config", pretraining.recipe, *_option("--preset", pretraining.preset), "--data", data]
        + ["--out", folder / "pretraining", *_option("--set", *write_words(pretraining.overrides))],
        ["regress", *inputs, "--out", folder / "regression", *_option("--set", *changes)],
        ["timestep", *inputs, "--out", folder / "timestepping", *_option("--set", *changes)],
    ]
    return ["# the same in single steps", *(shlex.join(["pdessl", *map(str, step)]) for step in steps)]


def _option(name: str, *values: str | None) -> list[Any]:
    given = [value for value in values if value]
    return [name, *given] if given else []
