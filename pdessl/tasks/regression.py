"""A physical parameter from an encoder: frozen with a head, fine-tuned, or trained from scratch."""

# B batch, D feature width

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.evaluation.metrics import relative_error
from pdessl.models import Head, Normalised, view_seed
from pdessl.tasks.batches import check_task, log_parameter, log_shift, normalise_from_data, step_generator
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups

__all__ = ["ParameterRegression"]


class ParameterRegression(lightning.LightningModule):
    """Regress one positive parameter on the log scale, standardised on the training labels.

        loss = mean (h(f(view)) - (log p(view) - m)/s)²

    f: encoder, h: head, m and s: mean and deviation of log p over the training labels. With an augmentation, each step
    sees a fresh view, and p(view) is the parameter *of the view*: equivalence transformations may move it. Predictions
    average log p̂(view) - δ(view) over ``views`` views, δ the known shift, and return p̂ in its own unit.

    The weights with the lowest validation error are kept in memory and restored at the end of the fit.

    Args:
        encoder: network on fields giving (B, D) with attribute ``feature_dim``; a loaded one brings its normalisation.
        target: name of the parameter, as in the batches.
        freeze: train the head only; the encoder then stays in evaluation mode, its statistics unchanged.
        hidden: widths of the head's hidden layers; none for a linear head.
        augmentation: as in :class:`~pdessl.tasks.Pretraining`; None for none.
        views: views averaged in validation and prediction; used with an augmentation.
        learning_rate: of AdamW at the end of the warm-up.
        encoder_learning_rate: of the encoder where it is fine-tuned; default the same.
        weight_decay: on weights; biases and norms have none.
        warmup: share of the run (below 1) or optimiser steps of linear warm-up; cosine to 0 afterwards.
        normalisation: ``{mean: [...], std: [...]}`` per channel for an encoder without; default from the data module.
        seed: of the views.

    Raises:
        SchemaError: a setting out of range.
        DataError: batches without the target, or targets that are not positive.
    """

    def __init__(
        self,
        encoder: nn.Module,
        target: str = "viscosity",
        freeze: bool = False,
        hidden: list[int] | None = None,
        augmentation: nn.Module | None = None,
        views: int = 1,
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
        self.encoder = encoder if isinstance(encoder, Normalised) else Normalised(encoder)
        self._statistics_given = isinstance(encoder, Normalised) or normalisation is not None
        if normalisation is not None:
            self.encoder.set_statistics(normalisation["mean"], normalisation["std"])
        self.target, self.freeze, self.views, self.augmentation = target, freeze, views, augmentation
        # A frozen encoder's features have any scale; standardise them in front of the head.
        self.head = Head(self.encoder.feature_dim, hidden=hidden or (), standardise=True)
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.encoder_learning_rate = learning_rate if encoder_learning_rate is None else encoder_learning_rate
        self.seed = seed
        self.register_buffer("log_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("log_std", torch.zeros((), dtype=torch.float64))
        self.best: dict[str, Any] | None = None
        self._errors: list[Tensor] = []
        if freeze:
            # Lightning does not call train() at the start of a fit: the mode set here is the one that is used.
            self.encoder.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> ParameterRegression:
        """Switch to training; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.encoder.eval()
        return self

    def setup(self, stage: str) -> None:
        """Take the normalisation from the data module unless it was given."""
        if stage == "fit" and not self._statistics_given:
            normalise_from_data(self, [self.encoder])

    def on_train_start(self) -> None:
        """Standardise the target on the training labels, once; a resumed run keeps its values."""
        if float(self.log_std) > 0:
            return
        logs = torch.cat([log_parameter(batch, self.target).cpu() for batch in self.trainer.train_dataloader])
        spread = float(logs.std()) if len(logs) > 1 else 0.0
        self.log_mean.fill_(float(logs.mean()))
        self.log_std.fill_(spread if spread > 0 else 1.0)

    def forward(self, fields: Tensor) -> Tensor:
        """Return log-parameter (B,) of raw fields, float64."""
        scale = self.log_std if float(self.log_std) > 0 else torch.ones_like(self.log_std)
        return self.head(self.encoder(fields))[:, 0].double() * scale + self.log_mean

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the standardised square error of one view of each trajectory."""
        if self.augmentation is not None:
            with torch.no_grad():
                batch, _ = self.augmentation(batch, step_generator(self, self.seed, batch_idx, batch.fields.device))
        wanted = (log_parameter(batch, self.target) - self.log_mean) / self.log_std
        loss = (self.head(self.encoder(batch.fields))[:, 0].float() - wanted.float()).square().mean()
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    @torch.no_grad()
    def estimate(self, batch: Any, seed: int = 0) -> Tensor:
        """Return the parameter (B,) in its own unit, averaged over views on the log scale.

        Args:
            batch: trajectories; their parameters are not read.
            seed: of the views.
        """
        batch = batch.without_parameters() if self.augmentation is None else batch
        if self.augmentation is None:
            return self(batch.fields).exp()
        generator = torch.Generator(device=batch.fields.device).manual_seed(view_seed(self.seed, seed))
        total: Any = 0
        for _ in range(self.views):
            view, elements = self.augmentation(batch, generator)
            total = total + self(view.fields) - log_shift(elements, self.target, batch)
        return (total / self.views).exp()

    # ------------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation."""
        self._errors = []

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect estimates; with several loaders the last one is the validation split."""
        loaders = self.trainer.val_dataloaders
        if isinstance(loaders, (list, tuple)) and dataloader_idx != len(loaders) - 1:
            return
        truth = log_parameter(batch, self.target).exp()
        self._errors.append(torch.stack([self.estimate(batch, batch_idx), truth]).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log the relative error and the log-scale error; keep the best weights."""
        if not self._errors:
            return
        estimate, truth = torch.cat(self._errors, dim=1)
        squared = float((estimate.log() - truth.log()).square().mean())
        relative = float(relative_error(estimate, truth))
        values = {"validation/log_error": squared**0.5, "validation/relative_error": relative}
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
        return self.estimate(batch, batch_idx)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on head and, unless frozen, encoder; warm-up and cosine per optimiser step."""
        groups = parameter_groups([self.head], self.weight_decay)
        if not self.freeze:
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
