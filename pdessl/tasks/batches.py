"""What every task asks of its batches, of the data module beside it, and of the other processes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import lightning
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pdessl.augmentation.draws import SharedGenerator
from pdessl.errors import CheckpointError, DataError, did_you_mean
from pdessl.models import Normalisation, to_scale, view_seed
from pdessl.objectives.distributed import row_share, world_size

__all__ = [
    "check_task",
    "data_module",
    "from_all_processes",
    "log_parameter",
    "log_shift",
    "normalise_from_data",
    "refuse_single_rows",
    "parameter",
    "rows_generator",
    "step_generator",
]

_ROUNDING = 1e-7  # of float32


def rows_generator(rows: Tensor, *numbers: int) -> torch.Generator:
    """Return the generator of a batch that depends on some numbers; every process of a run must ask for it.

    Where several processes share the batch, each gets for its rows what one process with all of them would draw, see
    :class:`pdessl.augmentation.draws.SharedGenerator`.

    Args:
        rows: what this process has of the batch, (B, ...).
        numbers: seed, epoch, number of the batch, ...: see :func:`pdessl.models.view_seed`.
    """
    seed = view_seed(*numbers)
    if world_size() == 1:
        return torch.Generator(device=rows.device).manual_seed(seed)
    first, total = row_share(rows)
    own = view_seed(*numbers, 1 + dist.get_rank())
    return SharedGenerator(seed, own, first, len(rows), total, rows.device)


def step_generator(task: lightning.LightningModule, seed: int, batch_index: int, rows: Tensor) -> torch.Generator:
    """Return the generator of one micro-batch, see :func:`rows_generator`.

    It depends on the seed, the epoch and the number of the batch only: a resumed run draws what an uninterrupted one
    draws, and several processes what one does.
    """
    return rows_generator(rows, seed, task.current_epoch, batch_index, 0)


def parameter(batch: Any, name: str) -> Tensor:
    """Return a parameter in its own unit, shape (B,), float64.

    Raises:
        DataError: the batch does not hold it.
    """
    if name not in batch.parameters:
        known = ", ".join(batch.parameters) or "none"
        raise DataError(
            f"the batch has no parameter '{name}'; it has {known}.{did_you_mean(name, batch.parameters)} Use a "
            "labelled split and a target it holds."
        )
    return batch.parameters[name].double()


def from_all_processes(mine: Any) -> list[Any]:
    """Return what every process of the run holds, in the order of ranks: tensors on the CPU and plain data.

    What is computed from all of it is the same on every process; numbers of one process alone would let them disagree
    on when a run has collapsed, or on which weights are the best.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [mine]
    everything: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everything, mine)
    return everything


def log_parameter(batch: Any, name: str) -> Tensor:
    """Return log of a parameter, shape (B,), float64.

    Raises:
        DataError: the batch does not hold it, or it is not positive and finite.
    """
    return to_scale(parameter(batch, name), "log", name)


@runtime_checkable
class _Shifted(Protocol):
    log_parameter_shift: Mapping[str, Tensor]


def log_shift(elements: Any, name: str, batch: Any) -> Tensor:
    """Return how much the augmentation moved log of a parameter, shape (B,); zero where it does not say."""
    shift = elements.log_parameter_shift.get(name) if isinstance(elements, _Shifted) else None
    if shift is None:
        return torch.zeros(batch.fields.shape[0], dtype=torch.float64, device=batch.fields.device)
    return shift.double()


class FieldStatistics(Protocol):
    """What a data module says of a field."""

    mean: float
    std: float


@runtime_checkable
class DescribedData(Protocol):
    """A data module that knows mean and standard deviation of each field, by name."""

    @property
    def statistics(self) -> Mapping[str, FieldStatistics] | None:
        """Of the training split; None where it does not know."""


@runtime_checkable
class _WithData(Protocol):
    datamodule: lightning.LightningDataModule


def data_module(trainer: lightning.Trainer) -> lightning.LightningDataModule | None:
    """Return the data module of a fit; None where loaders were given instead: a trainer then has no such attribute."""
    return trainer.datamodule if isinstance(trainer, _WithData) else None


def normalise_from_data(task: lightning.LightningModule, normalisation: Normalisation) -> None:
    """Set mean and standard deviation of each field as the data module has them, unless they were given.

    A field that is constant but for rounding becomes 0: it has no deviation to be divided by.
    """
    data = data_module(task.trainer)
    if normalisation.given or not isinstance(data, DescribedData) or not data.statistics:
        return
    found = data.statistics.values()
    varies = [s.std > _ROUNDING * abs(s.mean) for s in found]
    std = [s.std if v else 1.0 for s, v in zip(found, varies, strict=True)]
    normalisation.set_statistics([s.mean for s in found], std)


def refuse_single_rows(task: lightning.LightningModule, rows: int) -> None:
    """Refuse a batch of one trajectory where something is compared with other trajectories, or averaged over them.

    Raises:
        DataError: one row, and batch norms in training mode or no other process.
    """
    norms = any(
        isinstance(m, _BatchNorm) and m.training and not isinstance(m, nn.SyncBatchNorm) for m in task.modules()
    )
    if rows < 2 and (norms or world_size() < 2):
        raise DataError(
            "a batch of one trajectory: there is no other to tell it from. Set data.batch_size to 2 or more; it needs "
            "two training trajectories (on several devices: two for each)."
        )


def check_task(task: lightning.LightningModule, checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another task.

    Raises:
        CheckpointError: it was written by another task; the message says how to start from its encoder.
    """
    found = checkpoint.get("pdessl_task", "another program")
    if found != type(task).__name__:
        raise CheckpointError(
            f"the checkpoint was written by {found}; {type(task).__name__} resumes its own only. To start from its "
            "encoder: "
            "--set 'model.encoder={class_path: pdessl.models.pretrained, init_args: {checkpoint: RUN_FOLDER}}'"
        )
