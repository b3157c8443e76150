"""``timestep``: time-stepping networks with and without a condition, rolled out, in a report."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import CheckpointError
from pdessl.evaluation.report import write_report
from pdessl.experiments.inputs import read_data, read_encoder
from pdessl.experiments.provenance import check_writable, machine, versions
from pdessl.experiments.stages import Stages
from pdessl.experiments.stepping import Stepping, SteppingResult, as_report, compare_steppers
from pdessl.experiments.training import quietly
from pdessl.files import writes_to

__all__ = ["timestep"]


@writes_to("out")
def timestep(
    encoder: str | os.PathLike[str] | nn.Module,
    data: str | os.PathLike[str] | PDEDataModule,
    *,
    settings: Stepping | None = None,
    out: str | os.PathLike[str] | None = None,
    workers: int = 1,
    commands: Sequence[str] = (),
    announce: Callable[[str], None] = print,
) -> SteppingResult:
    """Train time-steppers, plain and conditioned, and roll them out on the test runs beside persistence.

    Args:
        encoder: a pretraining run, a saved encoder, or a network.
        data: a store or file with the splits labelled, validation and test, or a data module that has been set up.
        settings: how they are trained and compared.
        out: folder; receives ``report.html`` and ``report.json``. None: nothing is written.
        workers: processes of one thread each.
        commands: for the report.
        announce: receives a line after each training.

    Raises:
        CheckpointError: no encoder there.
        StoreError: a folder that cannot be written.
    """
    settings = settings or Stepping()
    network, name = read_encoder(encoder)
    if not isinstance(network, nn.Module):
        raise CheckpointError(
            f"{name} holds a {type(network).__name__}; steppers are conditioned on the features of a network. Give a "
            "folder that 'pdessl pretrain' wrote."
        )
    module = read_data(data)
    if out is not None:
        check_writable(Path(out))
    stages = Stages(announce)
    with stages.stage("timestepping"), quietly():
        result = compare_steppers(network, module, settings, announce, workers)
    if out is not None:
        sections, arrays = as_report(result, settings)
        report: dict[str, Any] = {"title": f"timestepping: {name} on {module.store.name}", **sections}
        report |= {"commands": list(commands), "versions": versions(), "machine": machine()}
        report |= {"seconds": dict(stages.seconds), "recipe": dataclasses.asdict(settings)}
        announce(f"report: {write_report(Path(out), report, arrays)}")
    return result
