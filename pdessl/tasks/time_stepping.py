"""A time-stepping surrogate, with or without a representation as its condition."""

# B batch, C channels, T time frames, X space, K past frames

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.errors import SchemaError, ShapeError
from pdessl.evaluation.metrics import nmse
from pdessl.models import Normalisation, TimeStepper, spacing_arguments
from pdessl.objectives.distributed import mean_over_rows, row_count
from pdessl.tasks.batches import check_task, log_parameter, normalise_from_data, step_generator
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups

__all__ = ["TimeStepping"]


class TimeStepping(lightning.LightningModule):
    """Train a :class:`~pdessl.models.TimeStepper` to predict the next frame; roll it out.

        loss = mean (û(t + Δt) - u(t + Δt))², fields standardised with fixed values

    The condition is computed once per trajectory by a frozen encoder from its first ``context`` frames only, so that no
    later frame leaks into a prediction; training starts are drawn at random, one per trajectory and step.

    Args:
        stepper: network (B, C, K, *X), condition -> (B, C, *X). Its ``condition`` must be the encoder's
            ``feature_dim``, 1 with ``parameter``, or 0 without either.
        encoder: frozen network on fields giving (B, D), or None.
        context: frames the condition is computed from, and the number of frames before the first predicted one, >= K.
        unroll: steps of each training prediction; gradients flow through all of them.
        learning_rate, weight_decay, warmup: as in :class:`~pdessl.tasks.Pretraining`.
        normalisation: ``{mean: [...], std: [...]}`` per channel. None: from the data module, or 0 and 1.
        seed: of the starts.
        parameter: name of a parameter whose logarithm is the condition instead, read from the batch: the ceiling of
            what a representation can bring.

    Raises:
        SchemaError: a setting out of range, encoder and parameter together, or a condition that does not fit.
        ShapeError: trajectories too short.
    """

    def __init__(
        self,
        stepper: TimeStepper,
        encoder: nn.Module | None = None,
        context: int = 16,
        unroll: int = 1,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.05,
        normalisation: dict[str, list[float]] | None = None,
        seed: int = 0,
        parameter: str | None = None,
    ) -> None:
        super().__init__()
        if encoder is not None and parameter is not None:
            raise SchemaError(f"TimeStepping got an encoder and the parameter '{parameter}'; give one as condition.")
        if context < stepper.past or unroll < 1 or learning_rate <= 0:
            raise SchemaError(
                f"TimeStepping got context {context}, unroll {unroll}, learning_rate {learning_rate}; expected "
                "context >= "
                f"{stepper.past} (the frames the stepper is given), unroll >= 1 and learning_rate > 0."
            )
        width = encoder.feature_dim if encoder is not None else 0 if parameter is None else 1
        if stepper.condition != width:
            reason = "the encoder's feature_dim" if encoder is not None else "one per parameter"
            raise SchemaError(f"the stepper has condition {stepper.condition}; expected {width}, {reason}.")
        self.parameter = parameter
        self.stepper, self.encoder, self.context, self.unroll = stepper, encoder, context, unroll
        if encoder is not None:
            encoder.requires_grad_(False).eval()
        self.learning_rate, self.weight_decay, self.warmup, self.seed = learning_rate, weight_decay, warmup, seed
        # A stepper's input and output share one scale.
        self.scale = Normalisation(stepper.in_channels)
        if normalisation is not None:
            self.scale.set_statistics(normalisation["mean"], normalisation["std"])

    def train(self, mode: bool = True) -> TimeStepping:
        """Switch to training; the encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def setup(self, stage: str) -> None:
        """Take the normalisation from the data module unless it was given."""
        if stage == "fit":
            normalise_from_data(self, self.scale)

    def condition(self, batch: Any) -> Tensor | None:
        """Return the condition (B, D) of trajectories (or, for an encoder, of their raw fields), or None without one.

        An encoder is given the first ``context`` frames; a parameter is read from the trajectories.
        """
        if self.parameter is not None:
            return log_parameter(batch, self.parameter).float()[:, None]
        if self.encoder is None:
            return None
        with torch.no_grad():
            given = spacing_arguments(self.encoder, batch) if hasattr(batch, "fields") else {}
            return self.encoder(getattr(batch, "fields", batch)[:, :, : self.context], **given)

    def _check(self, fields: Tensor, frames: int) -> None:
        if fields.shape[2] < frames:
            raise ShapeError(
                f"trajectories have {fields.shape[2]} frames; expected at least {frames} (context {self.context}, "
                "then the "
                "predicted ones). Lower context or unroll, or store more frames."
            )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Predict ``unroll`` frames from a random start in each trajectory."""
        fields, past = batch.fields, self.stepper.past
        self._check(fields, max(self.context, past) + self.unroll)
        generator = step_generator(self, self.seed, batch_idx, fields)
        latest = fields.shape[2] - past - self.unroll
        start = draw_rows(
            lambda n, g: torch.randint(0, latest + 1, (n,), generator=g, device=fields.device), len(fields), generator
        )
        frames = start[:, None] + torch.arange(past + self.unroll, device=fields.device)
        rows = torch.arange(len(fields), device=fields.device)[:, None]
        window = self.scale(fields.transpose(1, 2)[rows, frames].transpose(1, 2))
        predictions = self.stepper.rollout(window[:, :, :past], self.unroll, self.condition(batch))
        loss = mean_over_rows((predictions.float() - window[:, :, past:]).square())
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=row_count(batch.fields))
        return loss

    @torch.no_grad()
    def rollout(self, batch: Any, steps: int) -> Tensor:
        """Return the ``steps`` frames after the context, in the units of the fields, shape (B, C, steps, *X).

        Only the first ``context`` frames are read.

        Args:
            batch: trajectories (or raw fields, unless the condition is a parameter) with T >= context.
            steps: number of frames, >= 1.
        """
        fields = getattr(batch, "fields", batch)
        self._check(fields, self.context)
        first = self.scale(fields[:, :, self.context - self.stepper.past : self.context])
        return self._rescaled(self.stepper.rollout(first, steps, self.condition(batch)))

    @torch.no_grad()
    def one_step(self, batch: Any) -> Tensor:
        """Return every frame after the context, each predicted from the true frames before it; shape as the truth.

        Args:
            batch: trajectories (or raw fields, unless the condition is a parameter) with T > context.
        """
        fields = getattr(batch, "fields", batch)
        self._check(fields, self.context + 1)
        condition, past = self.condition(batch), self.stepper.past
        scaled = self.scale(fields)
        steps = [self.stepper(scaled[:, :, t - past : t], condition) for t in range(self.context, fields.shape[2])]
        return self._rescaled(torch.stack(steps, dim=2))

    def _rescaled(self, predictions: Tensor) -> Tensor:
        shape = (1, -1, *(1,) * (predictions.ndim - 2))
        return predictions.float() * self.scale.std.view(shape) + self.scale.mean.view(shape)

    def persistence(self, fields: Tensor, steps: int) -> Tensor:
        """Return the last context frame repeated, the baseline of :meth:`rollout`."""
        self._check(fields, self.context)
        last = fields[:, :, self.context - 1 : self.context]
        return last.expand(-1, -1, steps, *(-1,) * (fields.ndim - 3)).clone()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log NMSE of one step and of the whole rollout, and of persistence, on the last validation loader."""
        loaders = self.trainer.val_dataloaders
        if isinstance(loaders, (list, tuple)) and dataloader_idx != len(loaders) - 1:
            return
        fields = batch.fields
        self._check(fields, self.context + 1)
        truth = fields[:, :, self.context :]
        predictions = self.rollout(batch, truth.shape[2])
        values = {
            "validation/one_step_nmse": nmse(predictions[:, :, :1], truth[:, :, :1]),
            "validation/rollout_nmse": nmse(predictions, truth),
            "validation/persistence_nmse": nmse(self.persistence(fields, truth.shape[2]), truth),
        }
        values = {name: value.float() for name, value in values.items()}
        self.log_dict(values, batch_size=len(batch), sync_dist=True, add_dataloader_idx=False)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on the stepper; warm-up and cosine per optimiser step."""
        groups = parameter_groups([self.stepper], self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        return optimiser_and_schedule(groups, self.learning_rate, total, self.warmup)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which task wrote the checkpoint."""
        checkpoint["pdessl_task"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task."""
        check_task(self, checkpoint)
