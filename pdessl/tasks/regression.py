"""Physical parameters from an encoder: frozen with a head, fine-tuned in part or whole, or trained from scratch."""

# B batch, D feature width, N tokens, P targets

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.evaluation.metrics import relative_error
from pdessl.models import (
    AttentiveHead,
    Encoder,
    Head,
    from_scale,
    spacing_arguments,
    to_scale,
    train_only,
    view_seed,
)
from pdessl.objectives.distributed import mean_over_rows, row_count
from pdessl.tasks.batches import (
    check_task,
    from_all_processes,
    log_shift,
    normalise_from_data,
    parameter,
    rows_generator,
    step_generator,
)
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups

__all__ = ["ParameterRegression"]


class ParameterRegression(lightning.LightningModule):
    """Regress one parameter or several, each on its scale, standardised on the training labels.

        loss = mean over targets of (h(f(view)) - (s(p(view)) - m)/σ)²,        s: log, or nothing

    f: encoder, h: head, m and σ: mean and deviation of s(p) over the training labels. With an augmentation, each step
    sees a fresh view, and p(view) is the parameter *of the view*: equivalence transformations may move it. Predictions
    are moved back by the known shift of their view, averaged over ``views`` views on the scale, and returned in their
    own unit.

    The weights with the lowest validation error are kept in memory and restored at the end of the fit.

    Args:
        encoder: network on fields giving (B, D) with attribute ``feature_dim``; a loaded one brings its normalisation.
        target: name of the parameter, as in the batches, or several names.
        scale: ``log`` (positive parameters) or ``linear``; one for all targets, or one each.
        trained: which part of the encoder is trained beside the head: ``all``, ``last`` stage, ``norms``, ``adapters``
            (low-rank additions to its linear layers) or ``none``, see :func:`pdessl.models.train_only`. What holds
            nothing that is trained stays in evaluation mode, its statistics unchanged.
        readout: ``features``: a linear head or, with ``hidden``, a multilayer perceptron on features. ``tokens``:
            attentive pooling over the encoder's tokens (:class:`pdessl.models.AttentiveHead`).
        hidden: widths of the head's hidden layers; none for a linear head.
        augmentation: as in :class:`~pdessl.tasks.Pretraining`; None for none.
        views: views averaged in validation and prediction; used with an augmentation.
        constants: parameters that are known of every run, which predictions may read: those of the dataset that are the
            same in all of its runs. Some generators need them to be applied.
        learning_rate: of AdamW at the end of the warm-up.
        encoder_learning_rate: of the encoder where it is fine-tuned; default the same.
        weight_decay: on weights; biases and norms have none.
        warmup: share of the run (below 1) or optimiser steps of linear warm-up; cosine to 0 afterwards.
        normalisation: ``{mean: [...], std: [...]}`` per channel for an encoder without; default from the data module.
        seed: of the views.

    Raises:
        SchemaError: a setting out of range, or tokens from an encoder that has none.
        CheckpointError: an encoder without the part that is to be trained.
        DataError: batches without the target, or targets that are not positive on the log scale.
    """

    def __init__(
        self,
        encoder: nn.Module,
        target: str | list[str] = "viscosity",
        scale: str | list[str] = "log",
        trained: Literal["all", "last", "norms", "adapters", "none"] = "all",
        readout: Literal["features", "tokens"] = "features",
        hidden: list[int] | None = None,
        augmentation: nn.Module | None = None,
        views: int = 1,
        constants: Collection[str] = (),
        learning_rate: float = 1e-3,
        encoder_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        normalisation: dict[str, list[float]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if learning_rate <= 0 or weight_decay < 0 or warmup < 0 or views < 1:
            raise SchemaError(
                f"ParameterRegression got learning_rate {learning_rate}, weight_decay {weight_decay}, warmup "
                f"{warmup}, views "
                f"{views}; expected learning_rate > 0, views >= 1 and the others >= 0."
            )
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        self.scales = (scale,) * len(self.targets) if isinstance(scale, str) else tuple(scale)
        if not self.targets or len(self.scales) != len(self.targets):
            raise SchemaError(
                f"ParameterRegression got targets {self.targets} and scales {self.scales}; expected one or more "
                "targets, and one scale for all or one for each."
            )
        self.encoder = Encoder.of(encoder)
        if normalisation is not None:
            self.encoder.set_statistics(normalisation["mean"], normalisation["std"])
        self.readout, self.views, self.augmentation = readout, views, augmentation
        self.constants = frozenset(constants) - set(self.targets)
        self.head = self._head(hidden)
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.encoder_learning_rate = learning_rate if encoder_learning_rate is None else encoder_learning_rate
        self.seed = seed
        self.register_buffer("target_mean", torch.zeros(len(self.targets), dtype=torch.float64))
        self.register_buffer("target_std", torch.zeros(len(self.targets), dtype=torch.float64))
        self.best: dict[str, Any] | None = None
        self._errors: list[Tensor] = []
        train_only(self.encoder, trained)
        # Lightning does not call train() at the start of a fit: the mode set here is the one that is used.
        self.train()

    def _head(self, hidden: Sequence[int] | None) -> nn.Module:
        count = len(self.targets)
        if self.readout == "features":
            # A frozen encoder's features have any scale; standardise them in front of the head.
            return Head(self.encoder.feature_dim, count, hidden=hidden or (), standardise=True)
        width = getattr(self.encoder.module, "token_dim", None)
        if width is None or hidden:
            raise SchemaError(
                f"readout '{self.readout}' needs an encoder with tokens and no hidden widths; "
                f"{type(self.encoder.module).__name__} has "
                + (f"tokens, and hidden is {hidden}." if width else "none. Use readout features.")
            )
        return AttentiveHead(width, count)

    def train(self, mode: bool = True) -> ParameterRegression:
        """Switch to training; what holds nothing that is trained stays in evaluation mode."""
        super().train(mode)
        for module in self.encoder.modules():
            weights = list(module.parameters())
            if not any(w.requires_grad for w in weights) and (weights or module is self.encoder):
                module.train(False)
        return self

    def setup(self, stage: str) -> None:
        """Take the normalisation from the data module unless it was given."""
        if stage == "fit":
            normalise_from_data(self, self.encoder.normalisation)

    def on_train_start(self) -> None:
        """Standardise the targets on the training labels, once; a resumed run keeps its values."""
        if bool((self.target_std > 0).all()):
            return
        labels = torch.cat([self._labels(batch).cpu() for batch in self.trainer.train_dataloader])
        spread = labels.std(dim=0) if len(labels) > 1 else torch.zeros(len(self.targets), dtype=torch.float64)
        self.target_mean.copy_(labels.mean(dim=0))
        self.target_std.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def _labels(self, batch: Any) -> Tensor:
        """Return the targets of a batch on their scales, (B, P), float64."""
        columns = zip(self.targets, self.scales, strict=True)
        return torch.stack([to_scale(parameter(batch, n), s, n) for n, s in columns], dim=1)

    def _output(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return the head's standardised output (B, P)."""
        look = self.encoder.tokens if self.readout == "tokens" else self.encoder
        return self.head(look(fields, **given))

    def _values(self, fields: Tensor, **given: Tensor) -> Tensor:
        spread = torch.where(self.target_std > 0, self.target_std, torch.ones_like(self.target_std))
        return self._output(fields, **given).double() * spread + self.target_mean

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return the targets of raw fields on their scales, float64: (B,) for one, (B, P) for several.

        Args:
            fields: shape (B, C, T, *X).
            given: what the encoder wants besides, see :func:`pdessl.models.spacing_arguments`.
        """
        values = self._values(fields, **given)
        return values[:, 0] if len(self.targets) == 1 else values

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the standardised square error of one view of each trajectory."""
        if self.augmentation is not None:
            with torch.no_grad():
                batch, _ = self.augmentation(batch, step_generator(self, self.seed, batch_idx, batch.fields))
        wanted = (self._labels(batch) - self.target_mean) / self.target_std
        output = self._output(batch.fields, **spacing_arguments(self.encoder, batch)).float()
        loss = mean_over_rows((output - wanted.float()).square())
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=row_count(batch.fields))
        return loss

    @torch.no_grad()
    def estimate(self, batch: Any, seed: int = 0) -> Tensor:
        """Return the targets in their own units, averaged over views on their scales.

        Args:
            batch: trajectories; of their parameters only the constants are read.
            seed: of the views.

        Returns:
            (B,) for one target, (B, P) for several, float64.
        """
        return self._estimate(batch, torch.Generator(batch.fields.device).manual_seed(view_seed(self.seed, seed)))

    def _estimate(self, batch: Any, generator: torch.Generator) -> Tensor:
        batch = batch.without_parameters(but=self.constants)
        if self.augmentation is None:
            total, count = self._values(batch.fields, **spacing_arguments(self.encoder, batch)), 1
        else:
            total, count = torch.zeros((), dtype=torch.float64, device=batch.fields.device), self.views
            for _ in range(self.views):
                view, elements = self.augmentation(batch, generator)
                values = self._values(view.fields, **spacing_arguments(self.encoder, view))
                total = total + self._moved_back(values, elements, batch)
        own = [from_scale(column, s) for column, s in zip((total / count).unbind(1), self.scales, strict=True)]
        return own[0] if len(own) == 1 else torch.stack(own, dim=1)

    @torch.no_grad()
    def _of_batch(self, batch: Any, batch_idx: int) -> Tensor:
        """Estimate a batch that all processes of the run share."""
        return self._estimate(batch, rows_generator(batch.fields, self.seed, batch_idx))

    def _moved_back(self, values: Tensor, elements: Any, batch: Any) -> Tensor:
        """Return targets (B, P) of the run from those of its view, all on their scales."""
        columns = []
        for column, name, scale in zip(values.unbind(1), self.targets, self.scales, strict=True):
            shift = log_shift(elements, name, batch)
            columns.append(column - shift if scale == "log" else column * torch.exp(-shift))
        return torch.stack(columns, dim=1)

    # ------------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._errors = []

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect estimates; with several loaders the last one is the validation split."""
        loaders = self.trainer.val_dataloaders
        if isinstance(loaders, (list, tuple)) and dataloader_idx != len(loaders) - 1:
            return
        estimate = self._of_batch(batch, batch_idx).reshape(len(batch), -1)
        truth = torch.stack([parameter(batch, name) for name in self.targets], dim=1)
        self._errors.append(torch.stack([estimate, truth]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log the error on the scale (of several targets: of the standardised ones); keep the best weights."""
        errors = [pair for mine in from_all_processes(self._errors) for pair in mine]
        if not errors:
            return
        estimate, truth = torch.cat(errors, dim=1)
        pairs = zip(estimate.unbind(1), truth.unbind(1), self.scales, self.targets, strict=True)
        errors = torch.stack([to_scale(e, s, n) - to_scale(t, s, n) for e, t, s, n in pairs], dim=1)
        if len(self.targets) > 1:
            errors = errors / self.target_std.cpu()
        squared = float(errors.square().mean())
        values = {"validation/error": squared**0.5}
        if bool((truth != 0).all()):
            values["validation/relative_error"] = float(relative_error(estimate, truth))
        self.log_dict({k: torch.tensor(v, dtype=torch.float32) for k, v in values.items()}, sync_dist=True)
        if self.trainer.sanity_checking:
            return
        if self.best is None or squared < self.best["error"]:
            weights = {name: value.detach().cpu().clone() for name, value in self.state_dict().items()}
            self.best = {"error": squared, "epoch": self.current_epoch, "weights": weights}

    def on_fit_end(self) -> None:
        """Restore the weights with the lowest validation error, if there was a validation."""
        if self.best is not None:
            self.load_state_dict(self.best["weights"])

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return estimates of a batch."""
        return self._of_batch(batch, batch_idx)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on head and, unless frozen, encoder; warm-up and cosine per optimiser step."""
        groups = parameter_groups([self.head], self.weight_decay)
        encoder = parameter_groups([self.encoder], self.weight_decay)
        groups += [{**group, "lr": self.encoder_learning_rate} for group in encoder]
        total = self.trainer.estimated_stepping_batches
        return optimiser_and_schedule(groups, self.learning_rate, total, self.warmup)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the task's name and the best weights."""
        checkpoint["pdessl_task"] = type(self).__name__
        checkpoint["best"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task; take the best weights back."""
        check_task(self, checkpoint)
        self.best = checkpoint["best"]
