"""``regress``: a physical parameter from few labels, beside its floors, and a model that predicts it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pdessl import catalog
from pdessl.data import open as open_data
from pdessl.data.datamodule import PDEDataModule
from pdessl.evaluation.report import write_report
from pdessl.evaluation.tables import findings
from pdessl.experiments.comparison import compare_methods
from pdessl.experiments.comparison_result import RegressionResult, as_report
from pdessl.experiments.inputs import read_data, read_encoder
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.regression import Regression
from pdessl.experiments.shifts import applicable, shifted
from pdessl.experiments.stages import Stages
from pdessl.experiments.training import quietly
from pdessl.files import writes_to
from pdessl.inference import ParameterModel
from pdessl.inference.fitting import with_measurements
from pdessl.models.encoder import trained_on
from pdessl.operators import LatentOperator

__all__ = ["default_recipe", "regress", "saved_model"]


def default_recipe(data: str | os.PathLike[str]) -> str:
    """Return the name of the recipe for the equation of a dataset."""
    name = f"regression/{open_data(data).equation}"
    return name if name in catalog.names("configs") else "regression/default"


@writes_to("out")
def regress(
    encoder: str | os.PathLike[str] | nn.Module | LatentOperator,
    data: str | os.PathLike[str] | PDEDataModule,
    target: str | None = None,
    *,
    labels: Sequence[int] | None = None,
    seeds: int | None = None,
    settings: Regression | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    commands: Sequence[str] = (),
    announce: Callable[[str], None] = print,
) -> RegressionResult:
    """Regress a parameter from a pretrained encoder at several numbers of labels, beside what it must beat.

        result = pdessl.regress("runs/pretraining", "data/burgers", "viscosity", labels=(16, 64), out="runs/viscosity")
        result.model.predict(xr.open_dataset("new_runs.nc", decode_times=False))

    Args:
        encoder: a pretraining run, a law or a saved encoder (their folder), or a network or law itself.
        data: a store or file with the splits unlabelled, labelled and test (and validation for trainings by gradient),
            or a data module that has been set up.
        target: name of the parameter; default that of the settings.
        labels: numbers of labelled runs; 0 means all; default those of the settings.
        seeds: per method; default that of the settings.
        settings: everything else; default closed forms only.
        out: folder; receives ``report.html``, ``report.json`` and ``model/``, which :func:`pdessl.load` reads. None:
            nothing is written.
        workers: processes of one thread each.
        commands: for the report.
        announce: receives a line per stage.

    Returns:
        The rows, and in ``model`` the one that leaves out its labels best at the largest number of them, with what it
        makes of the test runs and of the settings' shifts and strangers in its card.

    Raises:
        CheckpointError: no encoder there.
        DataError: no such parameter, or not enough labelled runs.
        StoreError: a folder that cannot be written.
    """
    chosen: dict[str, Any] = {"target": target, "seeds": seeds, "labels": None if labels is None else tuple(labels)}
    settings = dataclasses.replace(
        settings or Regression(), **{name: value for name, value in chosen.items() if value is not None}
    )
    network, name = read_encoder(encoder)
    module = read_data(data)
    if out is not None:
        check_writable(Path(out))
    stages = Stages(announce)
    with stages.stage("regression"), quietly():
        result = compare_methods(network, module, settings, announce, workers)
        result.model = saved_model(result, module, settings, name, network)
    if out is not None:
        _write(Path(out), result, settings, f"{name} on {module.store.name}", commands, stages, announce)
    return result


def _write(
    folder: Path,
    result: RegressionResult,
    settings: Regression,
    title: str,
    commands: Sequence[str],
    stages: Stages,
    announce: Callable[[str], None],
) -> None:
    sections, arrays = as_report(result, settings)
    report: dict[str, Any] = {"title": f"regression: {title}", **sections, "commands": list(commands)}
    report |= {"versions": versions(), "machine": machine(), "seconds": dict(stages.seconds)}
    report["recipe"] = dataclasses.asdict(settings)
    if result.model is not None:
        result.model.save(folder / "model")
        announce(f"saved: {result.model.record['method']}, which leaves out its labels best")
        rows = result.model.record["elsewhere"]
        if len(rows) > 1:
            report["elsewhere"] = {"level": result.model.level, "rows": rows}
            for name, row in rows.items():
                if "area" in row:
                    inside = "".join(f"; {s:.0%} of {n} in its interval" for n, s in row["coverage"].items())
                    announce(f"{name}: novelty AUROC {row['area']:.2f}, {row['novel']:.0%} flagged{inside}")
    page = write_report(folder, report, arrays)
    for line in findings(report["regression"]["rows"]):
        announce(line)
    announce(f"report: {page}")


def saved_model(
    result: RegressionResult, data: PDEDataModule, settings: Regression, encoder: str, network: Any
) -> ParameterModel | None:
    """Return the model that leaves out its labels best, at the largest number of labels, with measurements and record.

    It is one whose predictions the table holds (:meth:`RegressionResult.best`). Its errors, coverage and novelty are
    measured on the test runs and on the settings' shifts and strangers. None where no method in closed form was run.
    """
    method, (count, seed) = result.best(), result.most
    if method is None:
        return None
    model = result.models[method, count, seed]
    floors = {
        f"{row['title']}, %": row["relative_error"]["mean"]
        for row in result.rows
        if row["group"] == "floor" and row["labels"] in (count, None)
    }
    elsewhere = dict(result.shifted)
    strangers = settings.robustness.strangers if settings.robustness is not None else {}
    elsewhere |= {name: shifted(data, shift) for name, shift in applicable(data, strangers)[0].items()}
    trained = trained_on(network).get("equation")
    model = with_measurements(model, result.test, elsewhere)
    return model.with_record(
        method=settings.title(method)[0],
        data=data.store.name,
        encoder=f"{encoder}{f', pretrained on {trained}' if trained else ''}",
        floors=floors,
    )
