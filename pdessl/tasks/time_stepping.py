"""A time-stepping surrogate, with or without a condition, trained on windows of runs."""

# B batch, C channels, T time frames, X space, K past frames, J frames a step gives

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pdessl.augmentation.draws import draw_rows
from pdessl.errors import SchemaError, ShapeError
from pdessl.evaluation.metrics import nmse
from pdessl.models import Surrogate, spacing_arguments, to_scale
from pdessl.models.surrogate import Coarse, windows
from pdessl.objectives.distributed import mean_over_rows, row_count
from pdessl.tasks.batches import check_task, from_all_processes, parameter, step_generator
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups

__all__ = ["TimeStepping"]


class TimeStepping(lightning.LightningModule):
    """Train a :class:`~pdessl.models.Surrogate` to predict the next frames; roll it out.

        loss = mean ((û(t + jΔt) - u(t + jΔt)) / (σ s_1))²,  σ s_1: root mean square of the change over one frame

    The condition is computed once per trajectory from its first ``context`` frames only, so that no later frame leaks
    into a prediction; training starts are drawn at random, one per trajectory and step.

    Args:
        stepper: a surrogate, or any network that :class:`~pdessl.models.Surrogate` takes. Its ``condition`` must be the
            encoder's ``feature_dim``, the number of ``parameters``, or 0 without either.
        encoder: network on fields giving (B, D), frozen unless ``train_encoder``; or None.
        context: frames the condition is computed from, and the number of frames before the first predicted one, >= K.
        unroll: steps of each training prediction, of J frames each; gradients flow through all of them.
        pushforward: gradients flow through the last step only; those before make the input what a rollout makes it
            (Brandstetter, Worrall, Welling 2022).
        curriculum: share of training over which the steps grow from 1 to ``unroll``.
        noise: standard deviation of white noise added to the input, in deviations of the fields.
        augmentation: called ``augmentation(batch, generator)``, gives a batch whose fields and parameters were moved by
            a symmetry, and the elements; pairs of frames stay solutions. None: none.
        learning_rate, weight_decay, warmup: as in :class:`~pdessl.tasks.Pretraining`.
        seed: of the starts, the noise and the augmentation.
        parameters: names of parameters that are the condition, read from the batch.
        scale: of these, ``log`` or ``linear``.
        train_encoder: fine-tune the encoder.
        coarse: for a hybrid surrogate: called with trajectories that hold the context alone and with their condition
            (B, F), gives the step from a frame to the next that the network corrects, as
            :class:`pdessl.operators.CoarseStep` does.

    All scales are those of the first batch, over all processes, unless the surrogate has its own.

    Raises:
        SchemaError: a setting out of range, encoder and parameters together, a condition that does not fit, or a hybrid
            without a coarse step (or that without it).
        ShapeError: trajectories too short.
    """

    def __init__(
        self,
        stepper: nn.Module,
        encoder: nn.Module | None = None,
        context: int = 16,
        unroll: int = 1,
        pushforward: bool = False,
        curriculum: float = 0.0,
        noise: float = 0.0,
        augmentation: nn.Module | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup: float = 0.05,
        seed: int = 0,
        parameters: Sequence[str] = (),
        scale: str = "log",
        train_encoder: bool = False,
        coarse: Callable[[Any, Tensor | None], Coarse] | None = None,
    ) -> None:
        super().__init__()
        surrogate = stepper if isinstance(stepper, Surrogate) else Surrogate(stepper)
        if encoder is not None and parameters:
            raise SchemaError(f"TimeStepping got an encoder and the parameters {list(parameters)}; give one of them.")
        if context < surrogate.past or unroll < 1 or learning_rate <= 0 or not 0 <= curriculum <= 1 or noise < 0:
            raise SchemaError(
                f"TimeStepping got context {context}, unroll {unroll}, curriculum {curriculum}, noise {noise}, "
                f"learning_rate {learning_rate}; expected context >= {surrogate.past} (the frames the stepper is "
                "given), unroll >= 1, curriculum in [0, 1], noise >= 0 and learning_rate > 0."
            )
        width = encoder.feature_dim if encoder is not None else len(parameters)
        if surrogate.condition != width:
            reason = "the encoder's feature_dim" if encoder is not None else "one per parameter"
            raise SchemaError(f"the stepper has condition {surrogate.condition}; expected {width}, {reason}.")
        if surrogate.coarse != (coarse is not None):
            raise SchemaError(
                f"TimeStepping got a surrogate with coarse={surrogate.coarse} and {'a' if coarse else 'no'} coarse "
                "step; give both (Surrogate(network, coarse=True), TimeStepping(..., coarse=CoarseStep(law))) or none."
            )
        self.coarse = coarse
        self.surrogate, self.encoder, self.context, self.unroll = surrogate, encoder, context, unroll
        self.parameters_given, self.condition_scale = tuple(parameters), scale
        self.pushforward, self.curriculum, self.noise = pushforward, curriculum, noise
        self.augmentation, self.train_encoder = augmentation, train_encoder
        if encoder is not None:
            encoder.requires_grad_(train_encoder).train(train_encoder)
        self.learning_rate, self.weight_decay, self.warmup, self.seed = learning_rate, weight_decay, warmup, seed

    def train(self, mode: bool = True) -> TimeStepping:
        """Switch to training; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None and not self.train_encoder:
            self.encoder.eval()
        return self

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Take the scales from the first batch where the surrogate has none."""
        if self.surrogate.scale.given or self.trainer.global_step:
            return
        if self.coarse is not None:
            raise SchemaError(
                "a hybrid surrogate has no scales yet; set them before training: surrogate.set_statistics(fields, "
                "conditions, coarse)."
            )
        with torch.no_grad():
            given = self.condition(batch)
            parts = from_all_processes((batch.fields.cpu(), None if given is None else given.cpu()))
        fields = torch.cat([f for f, _ in parts])
        conditions = torch.cat([c for _, c in parts]) if given is not None else None
        self.surrogate.set_statistics(fields.to(self.device), conditions)

    def condition(self, batch: Any) -> Tensor | None:
        """Return the condition (B, F) of trajectories (or, for an encoder, of their raw fields), or None without one.

        An encoder is given the first ``context`` frames; parameters are read from the trajectories.
        """
        if self.parameters_given:
            columns = [to_scale(parameter(batch, n), self.condition_scale, n) for n in self.parameters_given]
            return torch.stack(columns, dim=1)
        if self.encoder is None:
            return None
        with torch.set_grad_enabled(self.train_encoder and torch.is_grad_enabled()):
            given = spacing_arguments(self.encoder, batch) if hasattr(batch, "fields") else {}
            return self.encoder(getattr(batch, "fields", batch)[:, :, : self.context], **given)

    def _coarse(self, batch: Any, condition: Tensor | None) -> Coarse | None:
        if self.coarse is None:
            return None
        return self.coarse(batch.window(slice(0, self.context)), condition)

    def _check(self, fields: Tensor, frames: int) -> None:
        if fields.shape[2] < frames:
            raise ShapeError(
                f"trajectories have {fields.shape[2]} frames; expected at least {frames} (context {self.context}, "
                "then the predicted ones). Lower context or unroll, or store more frames."
            )

    def steps_now(self) -> int:
        """Return how many steps are unrolled at this point of the curriculum."""
        total = self.curriculum * float(self.trainer.estimated_stepping_batches)
        done = min(1.0, self.trainer.global_step / total) if total else 1.0
        return 1 + int((self.unroll - 1) * done)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Predict from a random start in each trajectory."""
        surrogate, past = self.surrogate, self.surrogate.past
        steps = self.steps_now()
        count = steps * surrogate.bundle
        generator = step_generator(self, self.seed, batch_idx, batch.fields)
        self._check(batch.fields, max(self.context, past) + self.unroll * surrogate.bundle)
        if self.augmentation is not None:
            batch, _ = self.augmentation(batch, generator)
        fields = batch.fields
        latest = fields.shape[2] - past - count
        start = draw_rows(
            lambda n, g: torch.randint(0, latest + 1, (n,), generator=g, device=fields.device), len(fields), generator
        )
        window = surrogate.scale(windows(fields, start, past + count))
        raw = self.condition(batch)
        condition, coarse = surrogate.given(raw), self._coarse(batch, raw)
        z = window[:, :, :past]
        if self.noise:
            z = z + self.noise * draw_rows(
                lambda n, g: torch.randn((n, *z.shape[1:]), generator=g, device=z.device, dtype=z.dtype),
                len(z),
                generator,
            )
        if self.pushforward and steps > 1:
            with torch.no_grad():
                seen = torch.cat([z, surrogate.unrolled(z, count - surrogate.bundle, condition, coarse)], dim=2)
            found = surrogate.step(seen[:, :, -past:], condition, coarse)
            truth = window[:, :, -surrogate.bundle :]
        else:
            found, truth = surrogate.unrolled(z, count, condition, coarse), window[:, :, past:]
        usual = surrogate.change[:, 0].view(1, -1, *(1,) * (found.ndim - 2))
        loss = mean_over_rows(((found.to(truth.dtype) - truth) / usual).square())
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
        condition = self.condition(batch)
        seen, coarse = fields[:, :, : self.context], self._coarse(batch, condition)
        return self.surrogate.rollout(seen, steps, condition, coarse)

    @torch.no_grad()
    def one_step(self, batch: Any) -> Tensor:
        """Return every frame after the context, each predicted from the true frames before it; shape as the truth.

        Args:
            batch: trajectories (or raw fields, unless the condition is a parameter) with T > context.
        """
        fields = getattr(batch, "fields", batch)
        self._check(fields, self.context + 1)
        surrogate = self.surrogate
        raw, scaled = self.condition(batch), surrogate.scale(fields)
        condition, coarse = surrogate.given(raw), self._coarse(batch, raw)
        frames = range(self.context, fields.shape[2])
        steps = [surrogate.step(scaled[:, :, t - surrogate.past : t], condition, coarse)[:, :, 0] for t in frames]
        return surrogate.physical(torch.stack(steps, dim=2))

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
        """AdamW on the stepper (and an encoder that is trained); warm-up and cosine per optimiser step."""
        trained = [self.surrogate, *([self.encoder] if self.encoder is not None and self.train_encoder else [])]
        groups = parameter_groups(trained, self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        return optimiser_and_schedule(groups, self.learning_rate, total, self.warmup)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which task wrote the checkpoint."""
        checkpoint["pdessl_task"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task."""
        check_task(self, checkpoint)
