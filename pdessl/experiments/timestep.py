"""``timestep``: time-stepping networks told nothing, a parameter, or what they inferred, rolled out, in a report."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.evaluation.animation import rollout_gif
from pdessl.evaluation.report import write_report
from pdessl.experiments.inputs import read_data, read_encoder
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.stages import Stages
from pdessl.experiments.stepping import Stepping, compare_steppers
from pdessl.experiments.stepping_scores import SteppingResult, as_report
from pdessl.experiments.training import quietly
from pdessl.files import writes_to
from pdessl.inference.encoding import RunEncoder
from pdessl.written import say

__all__ = ["timestep"]


@writes_to("out")
def timestep(
    encoder: str | os.PathLike[str] | nn.Module | RunEncoder | None,
    data: str | os.PathLike[str] | PDEDataModule,
    *,
    settings: Stepping | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    commands: Sequence[str] = (),
    announce: Callable[[str], None] = say,
) -> SteppingResult:
    """Train time-steppers under every condition, and roll them out on the test runs beside persistence.

    Args:
        encoder: a pretraining run, a saved encoder, a law, or one of these itself; None where no condition of the
            settings needs one (none, parameter, operator, law).
        data: a store or file with the splits labelled and test, or a data module that has been set up.
        settings: how they are trained and compared.
        out: folder; receives ``report.html``, ``report.json``, ``rollout.gif``, and a folder for each model of the
            first seed, which :func:`pdessl.load` loads. None: nothing is written.
        workers: processes of one thread each.
        commands: for the report.
        announce: receives a line after each training.

    Raises:
        CheckpointError: no encoder there.
        DataError: too few frames, no such parameter, or a condition that needs an encoder.
        StoreError: a folder that cannot be written.
    """
    settings = settings or Stepping()
    network, name = (None, "no encoder") if encoder is None else read_encoder(encoder)
    module = read_data(data)
    if out is not None:
        check_writable(Path(out))
    stages = Stages(announce)
    with stages.stage("timestepping"), quietly():
        result = compare_steppers(network, module, settings, announce, workers, out)
    if out is not None:
        sections, arrays = as_report(result, settings)
        report: dict[str, Any] = {"title": f"timestepping: {name} on {module.store.name}", **sections}
        report |= {"commands": list(commands), "versions": versions(), "machine": machine()}
        report |= {"seconds": dict(stages.seconds), "recipe": dataclasses.asdict(settings)}
        best = min(result.shown, key=lambda m: result.scores[m][0].pooled)
        rollout_gif(Path(out) / "rollout.gif", result.truth, result.shown[best], result.time, best)
        announce(f"report: {write_report(Path(out), report, arrays)}")
    return result
