"""What every task that trains an encoder without labels shares: data's normalisation, probe, monitors, saving."""

# B batch, D feature width, n rows of a split

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.evaluation.metrics import r2, relative_error
from pdessl.models import Normalised, embed, fit_ridge, save_pretrained, spacing_arguments, view_seed
from pdessl.objectives import ExponentialMovingAverage, collapse_summary
from pdessl.objectives.diagnosis import Diagnosis, collapse_diagnosis
from pdessl.objectives.monitors import alignment, alpha_req, lidar, uniformity
from pdessl.objectives.neighbours import nearest_neighbour_prediction
from pdessl.tasks.batches import check_task, from_all_processes, log_parameter, normalise_from_data
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups

__all__ = ["RepresentationTask", "refuse_untrained_head"]

# What validation collects besides labels.
_WATCHED = ("features", "embeddings", "trunk", "views")


class RepresentationTask(lightning.LightningModule):
    """Interface of the tasks that train an encoder without labels.

    Each epoch's validation logs monitors (``monitor/...``: of the embeddings and, with ``features_`` in the name, of
    the features, with ``trunk_`` of a trunk that the projector is given in their place; RankMe, α-ReQ, uniformity,
    spread per dimension, and, where there are views, alignment and LiDAR), names what looks wrong (attribute
    ``diagnosis``; :class:`pdessl.tasks.CollapseAlarm` rings on it), and scores two online probes of log-parameter
    (``probe/...``: ridge, and the mean of the ten nearest neighbours), fitted on the labelled loader, scored on the
    validation loader. Probes see labels; they give the encoder no gradient. Under DDP all of these are computed from
    the rows of all processes.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D).
        learning_rate: of AdamW, at the end of the warm-up.
        weight_decay: on weights; biases and norms have none.
        warmup: share of the run (below 1) or optimiser steps of linear warm-up; cosine to 0 afterwards.
        probe: parameters probed in validation; None for all positive ones that the labelled batches hold.
        probe_views: views averaged by the probe; 0 embeds the trajectories as they are.
        normalisation: ``{mean: [...], std: [...]}`` per channel. None: the ``statistics`` of the data module, or 0 and
        1.
        seed: of everything that is drawn.
        export_to: folder to which the encoder is written at the end of the fit; None for none (see
            :meth:`save_encoder`).

    Raises:
        SchemaError: a setting out of range.
    """

    def __init__(
        self,
        encoder: nn.Module,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        probe: list[str] | None,
        probe_views: int,
        normalisation: dict[str, list[float]] | None,
        seed: int,
        export_to: str | None,
    ) -> None:
        super().__init__()
        if learning_rate <= 0 or min(weight_decay, warmup, probe_views) < 0:
            raise SchemaError(
                f"{type(self).__name__} got learning_rate {learning_rate}, weight_decay {weight_decay}, warmup "
                f"{warmup}, probe_views {probe_views}; expected learning_rate > 0 and the others >= 0."
            )
        self.encoder = encoder if isinstance(encoder, Normalised) else Normalised(encoder)
        self._statistics_given = isinstance(encoder, Normalised) or normalisation is not None
        if normalisation is not None:
            self.encoder.set_statistics(normalisation["mean"], normalisation["std"])
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.probe, self.probe_views = probe, probe_views
        self.seed, self.export_to = seed, export_to
        self.teacher: ExponentialMovingAverage | None = None
        self.diagnosis: Diagnosis | None = None
        self._collected: dict[int, dict[str, list[Tensor]]] = {}
        self._steps: tuple[Tensor, Tensor] | None = None
        self._axes: tuple[str, ...] = ()
        self._equation: str | None = None

    # ------------------------------------------------------------------ what a task supplies

    @abstractmethod
    def trained(self) -> Sequence[nn.Module]:
        """Return the modules whose parameters are trained."""

    @abstractmethod
    def representations(self, fields: Tensor, **given: Tensor) -> dict[str, Tensor]:
        """Return what is watched, of raw fields, one row per trajectory.

        What an encoder wants besides the fields is ``given``, see :func:`pdessl.models.spacing_arguments`.

        Returns:
            ``features`` (B, D), ``embeddings`` (B, D'), which the objective regularises, and, where these are not made
            from the features, ``trunk``, what they are made from.
        """

    def student(self) -> nn.Module:
        """Return what the teacher is a moving average of; needed where there is a teacher."""
        raise NotImplementedError

    def views(self) -> nn.Module | None:
        """Return the augmentation whose views the probe averages, or None."""
        return None

    # -------------------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Take the normalisation from the data module unless it was given."""
        if stage == "fit" and not self._statistics_given:
            normalise_from_data(self, [self.encoder])

    def on_fit_start(self) -> None:
        """Tell the teacher how many optimiser steps its schedule has."""
        if self.teacher is not None and self.teacher.steps < 1:
            total = self.trainer.estimated_stepping_batches
            if not math.isfinite(total):
                raise SchemaError(
                    "the teacher's momentum follows the length of the run, which has no end; set trainer.max_epochs "
                    "or max_steps, or a constant schedule."
                )
            self.teacher.steps = int(total)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Note the time step and the grid spacing, which a saved encoder brings runs on other grids to."""
        if not hasattr(batch, "grid_spacing"):
            return
        steps = torch.cat([batch.time_step[:, None], batch.grid_spacing], dim=1)
        low, high = steps.amin(dim=0), steps.amax(dim=0)
        if self._steps is not None:
            low, high = torch.minimum(low, self._steps[0]), torch.maximum(high, self._steps[1])
        self._steps, self._axes, self._equation = (low, high), ("time", *batch.axis_names), batch.equation

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the teacher follow: once per optimiser step, not per accumulated micro-batch."""
        super().optimizer_step(*args, **kwargs)
        if self.teacher is not None:
            self.teacher.update(self.student())

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        """Return features (B, D) of raw fields; an encoder with ``spacing=True`` is given ``spacing`` (B, 1 + d)."""
        return self.encoder(fields, **given)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, warm-up and cosine per optimiser step."""
        groups = parameter_groups(self.trained(), self.weight_decay)
        total = self.trainer.estimated_stepping_batches
        return optimiser_and_schedule(groups, self.learning_rate, total, self.warmup)

    def log_terms(self, terms: dict[str, Tensor], loss: Tensor, size: int) -> None:
        """Log the terms of an objective and the whole loss, averaged over the epoch."""
        logged = {f"train/{name}": value.detach() for name, value in terms.items() if name != "loss"}
        self.log_dict(logged | {"train/loss": loss.detach()}, on_step=False, on_epoch=True, batch_size=size)

    # ------------------------------------------------------------------------ validation

    def on_validation_epoch_start(self) -> None:
        """Forget the features of the last validation."""
        self._collected = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect features and labels; loader 0 is the labelled split, loader 1 the one that is scored."""
        seed = view_seed(self.seed, dataloader_idx, batch_idx)
        views = self.views() if self.probe_views else None
        network = _SideBySide(self)
        rows = embed(network, batch, views, max(self.probe_views, 1), seed)
        kept = self._collected.setdefault(dataloader_idx, {})
        for name, values in zip(network.widths, rows.split(list(network.widths.values()), dim=1), strict=True):
            kept.setdefault(name, []).append(values.cpu())
        if dataloader_idx > 0 and self.views() is not None:
            kept.setdefault("views", []).append(self._two_views(batch, view_seed(seed, 1)))
        positive = [name for name, values in batch.parameters.items() if bool((values > 0).all())]
        for name in positive if self.probe is None else self.probe:
            kept.setdefault(name, []).append(log_parameter(batch, name).cpu())

    def _two_views(self, batch: Any, seed: int) -> Tensor:
        """Embeddings of two views of each trajectory, (B, 2, D')."""
        generator = torch.Generator(device=batch.fields.device).manual_seed(seed)
        drawn = [self.views()(batch, generator)[0] for _ in range(2)]
        made = [self.representations(v.fields, **spacing_arguments(self.encoder, v))["embeddings"] for v in drawn]
        return torch.stack([embeddings.double().cpu() for embeddings in made], dim=1)

    def on_validation_epoch_end(self) -> None:
        """Log monitors and probe scores, and name what looks wrong."""
        splits = _joined(from_all_processes(self._collected))
        self._collected = {}
        if not splits:
            return
        scored = splits[max(splits)]
        values: dict[str, float] = {}
        if len(scored["features"]) >= 2:
            # Without an aim for the spread what counts is the spread beside the size of an embedding.
            self.diagnosis = collapse_diagnosis(
                scored["embeddings"],
                features=scored.get("trunk", scored["features"]),
                target_std=getattr(getattr(self, "objective", None), "target_std", None),
            )
            values["monitor/collapsed"] = float(self.diagnosis.collapsed)
            values |= _monitors(scored)
        if len(splits) > 1 and len(splits[0]["features"]) >= 3:
            for name in [n for n in splits[0] if n not in _WATCHED]:
                if any(len(s.get(name, ())) != len(s["features"]) for s in (splits[0], scored)):
                    continue  # positive in some batches only: it has no logarithm to probe
                values |= _probes(splits[0]["features"], splits[0][name], scored["features"], scored[name], name)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self.log_dict({name: torch.tensor(v, dtype=torch.float32) for name, v in finite.items()}, sync_dist=True)

    # ---------------------------------------------------------------------- saved models

    def save_encoder(self, path: str | os.PathLike[str], provenance: dict[str, Any] | None = None) -> None:
        """Write the encoder with its normalisation as a folder for :func:`pdessl.load`.

        Args:
            path: the folder.
            provenance: plain data to keep with it; epochs, steps and seed are added.
        """
        record = {"task": type(self).__name__, "seed": self.seed}
        if self._trainer is not None:
            record |= {"epochs": self.current_epoch, "steps": self.global_step}
        if self._steps is not None:
            pairs = torch.stack(self._steps, dim=1).double().tolist()
            self.encoder.trained_on = {
                "equation": self._equation,
                "steps": dict(zip(self._axes, pairs, strict=True)),
            }
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


def refuse_untrained_head(encoder: Normalised, task: str) -> None:
    """Refuse an encoder whose features come from a head that the task gives no gradient.

    Features would be a random map of what is trained, and DistributedDataParallel would wait for its gradient.

    Raises:
        SchemaError: its attribute ``head`` has parameters.
    """
    head = getattr(encoder.module, "head", None)
    if isinstance(head, nn.Module) and any(p.requires_grad for p in head.parameters()):
        raise SchemaError(
            f"{task} trains what lies below the head of the encoder, and this one has a head (features="
            f"{encoder.feature_dim}), which would stay random. Leave features out of the encoder's arguments."
        )


def _joined(collected: Sequence[dict[int, dict[str, list[Tensor]]]]) -> dict[int, dict[str, Tensor]]:
    """Concatenate what processes collected, loader by loader and name by name."""
    joined: dict[int, dict[str, list[Tensor]]] = {}
    for mine in collected:
        for loader, kept in mine.items():
            for name, rows in kept.items():
                joined.setdefault(loader, {}).setdefault(name, []).extend(rows)
    return {loader: {name: torch.cat(rows) for name, rows in kept.items()} for loader, kept in joined.items()}


def _monitors(scored: dict[str, Tensor]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, prefix in (("embeddings", ""), ("features", "features_"), ("trunk", "trunk_")):
        z = scored.get(name)
        if z is None or not torch.isfinite(z).all():
            continue
        summary = collapse_summary(z)
        for key in ("std_min", "std_median", "share_collapsed", "rank_me"):
            values[f"monitor/{prefix}{key}"] = getattr(summary, key)
        values |= {f"monitor/{prefix}alpha_req": alpha_req(z), f"monitor/{prefix}uniformity": uniformity(z)}
    views = scored.get("views")
    if views is not None and torch.isfinite(views).all():
        found = lidar(views)
        values |= {"monitor/lidar": found.rank, "monitor/lidar_signal": found.signal}
        values["monitor/alignment"] = alignment(views[:, 0], views[:, 1])
    return values


def _probes(features: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, name: str) -> dict[str, float]:
    if not (torch.isfinite(features).all() and torch.isfinite(queries).all()):
        return {}
    prediction = fit_ridge(features, labels).predict(queries)[:, 0]
    near = nearest_neighbour_prediction(features, labels, queries, min(10, len(features)))
    return {
        f"probe/{name}_r2": float(r2(prediction, truth)),
        f"probe/{name}_relative_error": float(relative_error(prediction.exp(), truth.exp())),
        f"probe/{name}_neighbours_r2": float(r2(near, truth)),
    }


class _SideBySide(nn.Module):
    """All of :meth:`RepresentationTask.representations` side by side, so that one pass gives them.

    Attribute ``widths``: columns of each, by name, after a call.
    """

    def __init__(self, task: RepresentationTask) -> None:
        super().__init__()
        self.encoder, self._made = task.encoder, task.representations
        self.uses_spacing = task.encoder.uses_spacing
        self.widths: dict[str, int] = {}

    def forward(self, fields: Tensor, **given: Tensor) -> Tensor:
        made = self._made(fields, **given)
        self.widths = {name: rows.shape[1] for name, rows in made.items()}
        return torch.cat(list(made.values()), dim=1)
