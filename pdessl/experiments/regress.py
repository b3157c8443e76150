"""``regress``: a physical parameter from few labels, beside its floors, and a model that predicts it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pdessl import catalog
from pdessl.data import open as open_data
from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError
from pdessl.evaluation.report import write_report
from pdessl.evaluation.tables import findings
from pdessl.experiments.comparison import compare_methods
from pdessl.experiments.comparison_result import RegressionResult, as_report
from pdessl.experiments.cross_validation import cross_validate
from pdessl.experiments.estimates import Classical
from pdessl.experiments.inputs import read_encoder, read_labelled, split_labels, to_be_left_out
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.regression import Regression
from pdessl.experiments.shifts import applicable, shifted
from pdessl.experiments.stages import Stages
from pdessl.experiments.training import quietly
from pdessl.files import writes_to
from pdessl.inference import ParameterModel
from pdessl.inference.elsewhere import LEFT_OUT
from pdessl.inference.fitting import with_measured, with_measurements
from pdessl.models.encoder import trained_on
from pdessl.operators import LatentOperator
from pdessl.written import say

__all__ = ["default_recipe", "regress", "saved_model", "with_energy", "with_simulator"]

_WITHOUT_ENCODER = ("law", "energy", "physics", "balance")
_INFERENCES = ("readout", "simulator", "energy")


def default_recipe(data: str | os.PathLike[str], mapping: Any = None) -> str:
    """Return the name of the recipe for the equation of a dataset."""
    name = f"regression/{open_data(data, mapping).equation}"
    return name if name in catalog.names("configs") else "regression/default"


@writes_to("out")
def regress(
    encoder: str | os.PathLike[str] | nn.Module | LatentOperator | None,
    data: str | os.PathLike[str] | PDEDataModule,
    target: str | None = None,
    *,
    labels: Sequence[int] | str | os.PathLike[str] | Any = None,
    mapping: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    seeds: int | None = None,
    settings: Regression | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    inference: Literal["readout", "simulator", "energy"] = "readout",
    commands: Sequence[str] = (),
    announce: Callable[[str], None] = say,
) -> RegressionResult:
    """Regress a parameter from a pretrained encoder at several numbers of labels, beside what it must beat.

        result = pdessl.regress("runs/pretraining", "data/burgers", "viscosity", labels=(16, 64), out="runs/viscosity")
        result.model.predict(xr.open_dataset("new_runs.nc", decode_times=False))

    Args:
        encoder: a pretraining run, a law or a saved encoder (their folder), or a network or law itself. None, where
            labelled runs are left out in turn: methods that need none.
        data: a store or files, or a data module that has been set up. Runs without the parameter are unlabelled. Where
            nothing is called test and labelled runs are few (:data:`pdessl.experiments.inputs.FEW`), they are left out
            in turn: see :func:`pdessl.experiments.cross_validation.cross_validate`; trainings by gradient need
            splits test and validation.
        target: name of the parameter; default that of the settings.
        labels: numbers of labelled runs, 0 means all; default those of the settings. Or the labels themselves, where
            the files do not state them: a table as :func:`pdessl.data.labels.read_labels` takes it.
        mapping: how files are read, see :func:`pdessl.open`.
        seeds: per method; default that of the settings.
        settings: everything else; default closed forms only.
        out: folder; receives ``report.html``, ``report.json`` and ``model/``, which :func:`pdessl.load` reads. None:
            nothing is written.
        workers: processes of one thread each.
        inference: ``simulator`` adds a row that needs no label: the equation's own simulator fitted to every test run
            (:func:`pdessl.inference.shooting.shoot`), a second a run and more. ``energy`` adds a row of the law that
            the unlabelled runs obey (or the one given), each run's code moved to where the law foresees the run best
            (:class:`pdessl.inference.EnergyEncoder`), a tenth of a second a run and more. Neither needs an encoder:
            without one, the rows that need one are left out.
        commands: for the report.
        announce: receives a line per stage.

    Returns:
        The rows, and in ``model`` the one that leaves out its labels best at the largest number of them, with what it
        makes of the test runs and of the settings' shifts and strangers in its card.

    Raises:
        CheckpointError: no encoder there.
        DataError: no such parameter, not enough labelled runs, or another kind of inference.
        StoreError: a folder that cannot be written.
    """
    if inference not in _INFERENCES:
        raise DataError(f"inference '{inference}'; expected one of {', '.join(_INFERENCES)}.")
    counts, table = split_labels(labels)
    chosen: dict[str, Any] = {"target": target, "seeds": seeds, "labels": counts}
    settings = dataclasses.replace(
        settings or Regression(), **{name: value for name, value in chosen.items() if value is not None}
    )
    if inference == "simulator":
        settings = with_simulator(settings, encoder is not None)
    if inference == "energy":
        settings = with_energy(settings, encoder is not None)
    network, name = (None, "no encoder") if encoder is None else read_encoder(encoder)
    module = read_labelled(data, settings.target, table, mapping)
    alone = to_be_left_out(module, settings.target)
    if network is None and not alone and inference == "readout":
        raise DataError("regress got no encoder; pretrain one:  pdessl pretrain --data DATA --out FOLDER")
    if out is not None:
        check_writable(Path(out))
    stages = Stages(announce)
    with stages.stage("regression"), quietly():
        if alone:
            result = cross_validate(network, module, settings, announce)
        else:
            result = compare_methods(network, module, settings, announce, workers)
        result.model = saved_model(result, module, settings, name, network)
    if out is not None:
        _write(Path(out), result, settings, f"{name} on {module.store.name}", commands, stages, announce)
    return result


def with_simulator(settings: Regression, encoder: bool) -> Regression:
    """Return settings with the row of the simulator, and without an encoder only with rows that need none."""
    classical = dataclasses.replace(settings.classical or Classical(), shooting=True)
    settings = dataclasses.replace(settings, classical=classical)
    return settings if encoder else _without_encoder(settings)


def with_energy(settings: Regression, encoder: bool) -> Regression:
    """Return settings with the row of least forecast error, and without an encoder only with rows that need none."""
    settings = dataclasses.replace(settings, methods=tuple(dict.fromkeys((*settings.methods, "energy"))))
    return settings if encoder else _without_encoder(settings)


def _without_encoder(settings: Regression) -> Regression:
    methods = tuple(m for m in settings.methods if m in _WITHOUT_ENCODER)
    return dataclasses.replace(settings, methods=methods, scratch=None, moved=None, finetune=None, others=None)


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
        by = "predicts runs left out best" if result.left_out else "leaves out its labels best"
        announce(f"saved: {result.model.record['method']}, which {by}")
        rows = result.model.record["elsewhere"]
        if len(rows) > 1:
            report["elsewhere"] = {"level": result.model.level, "rows": rows}
            for name, row in rows.items():
                if "area" in row:
                    inside = "".join(f"; {s:.0%} of {n} in its interval" for n, s in row["coverage"].items())
                    announce(f"{name}: novelty AUROC {row['area']:.2f}, {row['novel']:.0%} flagged{inside}")
    page = write_report(folder, report, arrays)
    for line in findings(report["regression"]["rows"], report["regression"]["test_size"]):
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
        if row["group"] == "floor" and row["labels"] in (count, None) and row["method"] != method
    }
    elsewhere = dict(result.shifted)
    strangers = settings.robustness.strangers if settings.robustness is not None else {}
    elsewhere |= {name: shifted(data, shift) for name, shift in applicable(data, strangers)[0].items()}
    trained = trained_on(network).get("equation")
    if method in result.left_out:
        model = with_measured(model, result.left_out[method], {})
    else:
        model = with_measurements(model, result.test, elsewhere)
    return model.with_record(
        method=settings.title(method)[0],
        data=data.store.name,
        encoder=f"{encoder}{f', pretrained on {trained}' if trained else ''}",
        measured_by=LEFT_OUT if method in result.left_out else "held-out runs",
        floors=floors,
    )
