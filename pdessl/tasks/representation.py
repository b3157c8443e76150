"""What every task that trains an encoder without labels shares: normalisation, teacher, watching, saving."""

# B batch, D feature width

from __future__ import annotations

import copy
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pdessl.errors import CheckpointError, SchemaError
from pdessl.models import Encoder, complete_networks, open_networks, save_pretrained, view_seed
from pdessl.objectives import ExponentialMovingAverage, Terms
from pdessl.objectives.diagnosis import Diagnosis
from pdessl.objectives.distributed import row_count
from pdessl.tasks.batches import check_task, data_module, normalise_from_data
from pdessl.tasks.optimisation import optimiser_and_schedule, parameter_groups
from pdessl.tasks.watching import Monitors, Probes, Watched
from pdessl.trajectory import Trajectories

__all__ = ["RepresentationTask", "refuse_untrained_head", "trained_head"]

_SEEN = "pdessl_trained_on"  # key of a checkpoint


class RepresentationTask(lightning.LightningModule):
    """Interface of the tasks that train an encoder without labels.

    Validation gives the representation of each batch to the callbacks. :class:`pdessl.tasks.Monitors` and
    :class:`pdessl.tasks.Probes` are there by themselves; give the trainer one of your own to change its settings.

    Args:
        encoder: network on fields (B, C, T, *X) giving (B, D), or a :class:`pdessl.models.Encoder`. Where that has no
            normalisation, it is given the ``statistics`` of the data module.
        learning_rate: of AdamW, at the end of the warm-up.
        weight_decay: on weights; biases and norms have none.
        warmup: share of the run (below 1) or optimiser steps of linear warm-up; cosine to 0 afterwards.
        seed: of everything that is drawn.

    Raises:
        SchemaError: a setting out of range.
    """

    def __init__(self, encoder: nn.Module, learning_rate: float, weight_decay: float, warmup: float, seed: int) -> None:
        super().__init__()
        if learning_rate <= 0 or min(weight_decay, warmup) < 0:
            raise SchemaError(
                f"{type(self).__name__} got learning_rate {learning_rate}, weight_decay {weight_decay}, warmup "
                f"{warmup}; expected learning_rate > 0 and the others >= 0."
            )
        self.encoder = Encoder.of(encoder)
        self.learning_rate, self.weight_decay, self.warmup, self.seed = learning_rate, weight_decay, warmup, seed
        self.teacher: ExponentialMovingAverage | None = None
        self.diagnosis: Diagnosis | None = None
        self._steps: tuple[Tensor, Tensor] | None = None
        self._axes: tuple[str, ...] = ()
        self._equation: str | None = None

    # ------------------------------------------------------------------ what a task supplies

    @abstractmethod
    def trained(self) -> Sequence[nn.Module]:
        """Return the modules whose parameters are trained."""

    @abstractmethod
    def watched(self, batch: Any) -> dict[str, Tensor]:
        """Return what is watched of a batch, one row per trajectory.

        Returns:
            ``features`` (B, D), ``embeddings`` (B, D'), which the objective regularises, and, where these are not made
            from the features, ``trunk``, what they are made from.
        """

    def student(self) -> nn.Module:
        """Return what the teacher is a moving average of; needed where there is a teacher."""
        raise NotImplementedError

    def views(self) -> nn.Module | None:
        """Return the augmentation whose views are watched, or None."""
        return None

    @property
    def target_std(self) -> float | None:
        """The spread that the objective means each dimension of the embeddings to have; None: it has no such aim."""
        return None

    def configure_callbacks(self) -> list[Callback]:
        """Return monitors and probes, unless the trainer has its own; both watch the same views."""
        given = self.trainer.callbacks
        probes = next((c for c in given if isinstance(c, Probes)), None)
        missing: list[Callback] = [] if probes is not None else [Probes()]
        if not any(isinstance(c, Monitors) for c in given):
            missing.append(Monitors(0 if probes is None else probes.views))
        return missing

    # -------------------------------------------------------------------------- training

    def setup(self, stage: str) -> None:
        """Take from the data module what networks leave open, and the normalisation unless it was given."""
        if stage == "fit":
            self._complete()
            normalise_from_data(self, self.encoder.normalisation)

    def _complete(self) -> None:
        """Fill in numbers of channels and periodic axes from a view of the first batch."""
        data = data_module(self.trainer)
        if data is None or not open_networks(self):
            return
        batch = next(iter(data.train_dataloader()))
        # A copy: what an augmentation remembers of its calls stays as it is.
        augmentation = copy.deepcopy(self.views())
        if augmentation is not None:
            generator = torch.Generator(device=batch.fields.device).manual_seed(self.seed)
            with torch.no_grad():
                batch, _ = augmentation(batch, generator)
        if not isinstance(batch, Trajectories):
            return  # fields alone do not say which axes are periodic
        periodic = [kind == "periodic" for kind in batch.boundary]
        if complete_networks(self, batch.fields.shape[1], periodic) and self.teacher is not None:
            self.teacher.module.load_state_dict(self.student().state_dict())

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
            before, after = (s.to(low) for s in self._steps)  # a checkpoint's are on the CPU
            low, high = torch.minimum(low, before), torch.maximum(high, after)
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

    def log_terms(self, terms: Terms, rows: Tensor) -> None:
        """Log the terms of an objective and the whole loss, averaged over the epoch; ``rows`` (B, ...) of the batch."""
        logged = {f"train/{name}": value.detach() for name, value in terms.named.items()}
        self.log_dict(
            logged | {"train/loss": terms.total.detach()}, on_step=False, on_epoch=True, batch_size=row_count(rows)
        )

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Watched]:
        """Give the batch's representation to the callbacks; loader 0 is the labelled split, the last one is scored."""
        return {"watched": Watched(self, batch, view_seed(self.seed, dataloader_idx, batch_idx))}

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note which task wrote the checkpoint, and the steps of the runs that were seen."""
        checkpoint["pdessl_task"] = type(self).__name__
        if self._steps is not None:
            seen = {"equation": self._equation, "axes": list(self._axes), "steps": torch.stack(self._steps).cpu()}
            checkpoint[_SEEN] = seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task; go on from the steps that were seen, if only to save the encoder.

        Raises:
            CheckpointError: another task, or steps that are none.
        """
        check_task(self, checkpoint)
        seen = checkpoint.get(_SEEN)
        if seen is None:
            return
        try:
            axes, steps = tuple(map(str, seen["axes"])), seen["steps"]
            good = steps.shape == (2, len(axes)) and bool((torch.isfinite(steps) & (steps >= 0)).all())
            equation = seen["equation"]
        except (KeyError, TypeError, AttributeError):
            good = False
        if not good or not isinstance(equation, (str, type(None))):
            raise CheckpointError(f"the checkpoint's {_SEEN} is damaged. Start the run again without --ckpt_path.")
        self._steps, self._axes, self._equation = (steps[0], steps[1]), axes, equation


def trained_head(encoder: Encoder) -> list[nn.Parameter]:
    """Return the trainable parameters of what maps an encoder's trunk to features."""
    head = encoder.head
    return [] if head is None else [p for p in head.parameters() if p.requires_grad]


def refuse_untrained_head(encoder: Encoder, task: str) -> None:
    """Refuse an encoder whose features come from a head that the task gives no gradient.

    Features would be a random map of what is trained, and DistributedDataParallel would wait for its gradient.

    Raises:
        SchemaError: its head has parameters.
    """
    if trained_head(encoder):
        raise SchemaError(
            f"{task} trains what lies below the head of the encoder, and this one has a head (features="
            f"{encoder.feature_dim}), which would stay random. Leave features out of the encoder's arguments."
        )
