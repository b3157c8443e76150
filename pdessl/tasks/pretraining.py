"""Joint-embedding pretraining on views made by an augmentation, on the device."""

# B batch, D feature width, n rows of a split

from __future__ import annotations

import math
import os
from typing import Any, Literal

import lightning
import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.evaluation.metrics import r2, relative_error
from pdessl.models import Head, Normalised, embed, fit_ridge, save_pretrained, view_seed
from pdessl.objectives import ParameterEquivariance, collapse_summary
from pdessl.tasks.batches import check_task, log_parameter, log_shift, normalise_from_data, step_generator
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups

__all__ = ["Pretraining"]


class Pretraining(lightning.LightningModule):
    """Train an encoder without labels: two views of each trajectory, one embedding each, an objective between them.

        loss = objective(p(f(view₁)), p(f(view₂)))
               + w · mean (h(f(view₁)) - h(f(view₂)) - (δ₁ - δ₂))²
               + w' · ½ [forecast(f(view₁), view₂) + forecast(f(view₂), view₁)]

    f: encoder, p: projector. The second part is there only with ``equivariance``: h is a linear head and δ the known
    shift of log-parameter that the augmentation gave each view (see :class:`pdessl.objectives.ParameterEquivariance`).
    The third is there only with ``forecast`` (see :class:`pdessl.objectives.CrossForecast`).

    Each epoch's validation logs collapse monitors (``monitor/...``: of the embeddings and, with ``features_`` in the
    name, of the features) and an online probe (``probe/...``): ridge on log-parameter, fitted on the labelled loader,
    scored on the validation loader. The probe sees labels; it gives the encoder no gradient.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D), with attribute ``feature_dim`` if ``equivariance`` is
            used.
        projector: network on features (or on the trunk) giving embeddings.
        objective: called with two embeddings; returns a named tuple with ``loss`` first, or a scalar.
        augmentation: called ``augmentation(batch, generator)``; returns (view, elements). Elements that move parameters
            state it as ``log_parameter_shift``, name -> (B,).
        projected: what the projector is given: the ``features``, or the ``trunk`` below the encoder's last layers (an
            encoder with methods ``trunk`` and ``head``, as :class:`pdessl.models.ConvEncoder` with ``features``). With
            ``trunk`` the objective shapes the trunk, and the features serve the forecast and the head alone: a narrow
            code need not hold everything that two views share.
        equivariance: name of the parameter whose known shift supervises a head, e.g. ``viscosity``; None for none.
        equivariance_weight: w >= 0.
        forecast: called with the features of one view, the standardised fields of the other and uniform numbers (B,);
            returns a named tuple with ``loss`` first. None for none.
        forecast_weight: w' >= 0.
        learning_rate: of AdamW, at the end of the warm-up.
        weight_decay: on weights; biases and norms have none.
        warmup: share of the run (below 1) or optimiser steps of linear warm-up; cosine to 0 afterwards.
        probe: parameters probed in validation; None for all that the labelled batches hold.
        probe_views: views averaged by the probe; 0 embeds the trajectories as they are.
        normalisation: ``{mean: [...], std: [...]}`` per channel. None: the ``statistics`` of the data module, or 0 and
        1.
        seed: of the views.
        export_to: folder to which the encoder is written at the end of the fit; None for none (see
            :meth:`save_encoder`).

    Under gradient accumulation the statistics of an objective are those of one micro-batch. Networks with dropout draw
    from torch's global generator, which is not restored on resume; everything drawn here is.

    Raises:
        SchemaError: a setting out of range.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module,
        objective: nn.Module,
        augmentation: nn.Module,
        projected: Literal["features", "trunk"] = "features",
        equivariance: str | None = None,
        equivariance_weight: float = 1.0,
        forecast: nn.Module | None = None,
        forecast_weight: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup: float = 0.1,
        probe: list[str] | None = None,
        probe_views: int = 0,
        normalisation: dict[str, list[float]] | None = None,
        seed: int = 0,
        export_to: str | None = None,
    ) -> None:
        super().__init__()
        weights = (weight_decay, warmup, equivariance_weight, forecast_weight, probe_views)
        if learning_rate <= 0 or min(weights) < 0:
            raise SchemaError(
                f"Pretraining got learning_rate {learning_rate}, weight_decay {weight_decay}, warmup {warmup}, "
                f"equivariance_weight {equivariance_weight}, forecast_weight {forecast_weight}, probe_views "
                f"{probe_views}; expected learning_rate > 0 and the others >= 0."
            )
        if projected not in ("features", "trunk"):
            raise SchemaError(f"Pretraining got projected '{projected}'; expected features or trunk.")
        self.projected = projected
        self.encoder = encoder if isinstance(encoder, Normalised) else Normalised(encoder)
        self._statistics_given = isinstance(encoder, Normalised) or normalisation is not None
        if normalisation is not None:
            self.encoder.set_statistics(normalisation["mean"], normalisation["std"])
        self.projector, self.objective, self.augmentation = projector, objective, augmentation
        self.equivariance, self.equivariance_weight = equivariance, equivariance_weight
        # Standardised features: the head's learning rate then fits whatever scale the encoder has.
        self.head = Head(self.encoder.feature_dim, standardise=True) if equivariance else None
        self.equivariance_objective = ParameterEquivariance() if equivariance else None
        self.forecast, self.forecast_weight = forecast, forecast_weight
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.probe, self.probe_views = probe, probe_views
        self.seed, self.export_to = seed, export_to
        self._collected: dict[int, dict[str, list[Tensor]]] = {}

    def setup(self, stage: str) -> None:
        """Take the normalisation from the data module unless it was given."""
        if stage == "fit" and not self._statistics_given:
            normalise_from_data(self, [self.encoder])

    def forward(self, fields: Tensor) -> Tensor:
        """Return features (B, D) of raw fields."""
        return self.encoder(fields)

    # -------------------------------------------------------------------------- training

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Draw two views, embed them, return the loss."""
        generator = step_generator(self, self.seed, batch_idx, batch.fields.device)
        with torch.no_grad():
            first, first_elements = self.augmentation(batch, generator)
            second, second_elements = self.augmentation(batch, generator)
        # One pass per view: batch norms see one distribution of views at a time, as both views are drawn alike.
        features, projected = zip(*(self.represent(view.fields) for view in (first, second)), strict=True)
        terms = self.objective(*(self.projector(p) for p in projected))
        named = terms._asdict() if hasattr(terms, "_asdict") else {"loss": terms}
        loss = named["loss"]
        logged = {f"train/{name}": value.detach() for name, value in named.items() if name != "loss"}
        if self.head is not None:
            shifts = [log_shift(e, self.equivariance, batch) for e in (first_elements, second_elements)]
            outputs = [self.head(f)[:, 0] for f in features]
            known = self.equivariance_objective(*outputs, *shifts)
            loss = loss + self.equivariance_weight * known.loss
            logged |= {"train/equivariance": known.loss.detach(), "train/equivariance_floor": known.difference}
        if self.forecast is not None:
            fields = [self.encoder.standardise(view.fields) for view in (first, second)]
            start = torch.rand(2, len(batch), generator=generator, device=batch.fields.device)
            ahead = [self.forecast(features[i], fields[1 - i], start[i]) for i in (0, 1)]
            error = (ahead[0].loss + ahead[1].loss) / 2
            loss = loss + self.forecast_weight * error
            logged |= {"train/forecast": error.detach(), "train/persistence": ahead[0].persistence}
        logged["train/loss"] = loss.detach()
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def represent(self, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Return features, and what the projector is given, of raw fields."""
        if self.projected == "trunk":
            trunk = self.encoder.trunk(fields)
            return self.encoder.module.head(trunk), trunk
        features = self.encoder(fields)
        return features, features

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, warm-up and cosine per optimiser step."""
        optional = [module for module in (self.head, self.forecast) if module is not None]
        modules = [self.encoder, self.projector, self.objective, *optional]
        groups = parameter_groups(modules, self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        return optimiser_and_schedule(groups, self.learning_rate, total, self.warmup)

    # ------------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Forget the features of the last validation."""
        self._collected = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect features and labels; loader 0 is the labelled split, loader 1 the one that is scored."""
        seed = view_seed(self.seed, dataloader_idx, batch_idx)
        augmentation = self.augmentation if self.probe_views else None
        both = embed(_FeaturesAndProjected(self), batch, augmentation, max(self.probe_views, 1), seed)
        features, projected = both.split([self.encoder.feature_dim, both.shape[1] - self.encoder.feature_dim], dim=1)
        kept = self._collected.setdefault(dataloader_idx, {"features": [], "embeddings": []})
        kept["features"].append(features.cpu())
        kept["embeddings"].append(self.projector(projected.float()).double().cpu())
        for name in batch.parameters if self.probe is None else self.probe:
            kept.setdefault(name, []).append(log_parameter(batch, name).cpu())

    def on_validation_epoch_end(self) -> None:
        """Log monitors and probe scores."""
        if not self._collected:
            return
        splits = {i: {name: torch.cat(rows) for name, rows in kept.items()} for i, kept in self._collected.items()}
        self._collected = {}
        scored = splits[max(splits)]
        values: dict[str, float] = {}
        for name, prefix in (("embeddings", ""), ("features", "features_")):
            if len(scored[name]) >= 2 and torch.isfinite(scored[name]).all():
                summary = collapse_summary(scored[name])
                for key in ("std_min", "std_median", "share_collapsed", "rank_me"):
                    values[f"monitor/{prefix}{key}"] = getattr(summary, key)
        if len(splits) > 1 and len(splits[0]["features"]) >= 3:
            for name in [n for n in splits[0] if n not in ("features", "embeddings")]:
                readout = fit_ridge(splits[0]["features"], splits[0][name])
                prediction = readout.predict(scored["features"])[:, 0]
                values[f"probe/{name}_r2"] = float(r2(prediction, scored[name]))
                values[f"probe/{name}_relative_error"] = float(relative_error(prediction.exp(), scored[name].exp()))
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self.log_dict({name: torch.tensor(v, dtype=torch.float32) for name, v in finite.items()}, sync_dist=True)

    # ---------------------------------------------------------------------- saved models

    def save_encoder(self, path: str | os.PathLike[str], provenance: dict[str, Any] | None = None) -> None:
        """Write the encoder with its normalisation as a folder for :func:`pdessl.load`.

        Args:
            path: the folder.
            provenance: plain data to keep with it; epochs, steps and seed are added.
        """
        record = {"task": "Pretraining", "seed": self.seed}
        if self._trainer is not None:
            record |= {"epochs": self.current_epoch, "steps": self.global_step}
        save_pretrained(path, self.encoder, {"provenance": {**record, **(provenance or {})}})

    def on_fit_end(self) -> None:
        """Write the encoder to ``export_to``."""
        if self.export_to is not None and self.trainer.is_global_zero:
            self.save_encoder(self.export_to)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which task wrote the checkpoint."""
        checkpoint["pdessl_task"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task."""
        check_task(self, checkpoint)


class _FeaturesAndProjected(nn.Module):
    """Both outputs of :meth:`Pretraining.represent` side by side, (B, D + D'), so that one pass embeds both."""

    def __init__(self, task: Pretraining) -> None:
        super().__init__()
        self.encoder, self._represent = task.encoder, task.represent

    def forward(self, fields: Tensor) -> Tensor:
        return torch.cat(self._represent(fields), dim=1)
