"""What goes along with a run: a collapse alarm, the average of the last weights, and saving at the end."""

from __future__ import annotations

import copy
import logging
import os
from typing import Any, Protocol, runtime_checkable

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from pdessl.errors import PdesslError, SchemaError
from pdessl.objectives.diagnosis import Diagnosis

__all__ = ["AverageWeights", "CollapseAlarm", "SaveEncoder"]

_log = logging.getLogger(__name__)
FALLEN = 0.5  # share of the highest value so far, below which a low one is a collapse


@runtime_checkable
class _Diagnosed(Protocol):
    diagnosis: Diagnosis | None


class CollapseAlarm(Callback):
    """Warn, or stop the run, when validation shows that the representation has collapsed, and name the likely cause.

    What counts as collapse, and the causes told apart, are those of
    :func:`pdessl.objectives.diagnosis.collapse_diagnosis`. Few dimensions of what the projector is given, and
    embeddings whose spread is small beside their size (though above 1 %) or beside what the objective aims at, count
    only where they have fallen below half of the highest value so far: data that vary in few ways have few dimensions
    from the start, and a new network may give numbers that are small, or all alike. The rank of the embeddings alone
    does not count: in sound trainings it falls to a third.

    Args:
        stop_on_collapse: end the run with an error instead of a warning.
        patience: validations in a row that must show a collapse before it rings, >= 1.

    Attributes:
        reason: what the alarm said last, or None.

    Raises:
        SchemaError: patience below 1.
    """

    def __init__(self, stop_on_collapse: bool = False, patience: int = 2) -> None:
        if patience < 1:
            raise SchemaError(f"CollapseAlarm got patience {patience}; expected at least 1.")
        self.stop_on_collapse, self.patience = stop_on_collapse, patience
        self.reason: str | None = None
        self._bad = 0
        self._highest: dict[str, float] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the diagnosis of this validation."""
        diagnosis = pl_module.diagnosis if isinstance(pl_module, _Diagnosed) else None
        if diagnosis is None or trainer.sanity_checking:
            return
        for name in ("relative_deviation", "std_max", "rank_me", "features_rank_me"):
            self._highest[name] = max(diagnosis.values.get(name, 0.0), self._highest.get(name, 0.0))
        low = diagnosis.relative_to
        rings = diagnosis.collapsed and (low is None or diagnosis.values[low] < FALLEN * self._highest[low])
        self._bad = self._bad + 1 if rings else 0
        if self._bad < self.patience:
            return
        self.reason = diagnosis.message
        if self.stop_on_collapse:
            raise PdesslError(f"the run was stopped in epoch {trainer.current_epoch + 1}: {self.reason}")
        if self._bad == self.patience:  # once, not every epoch
            _log.warning("epoch %d: %s", trainer.current_epoch + 1, self.reason)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"bad": self._bad, "highest": self._highest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self._bad, self._highest = state_dict["bad"], dict(state_dict["highest"])


class AverageWeights(Callback):
    """At the end of the fit, give the encoder the mean of its weights over the last epochs.

    Averaging the last iterates lowers the variance between runs. Statistics of batch norms are averaged like weights,
    counters are kept.

    Args:
        epochs: how many of the last epochs' weights are averaged, >= 2.

    Raises:
        SchemaError: fewer than two epochs.

    Source: Izmailov et al. (2018), arXiv:1803.05407; over the tail of a cosine schedule instead of a cyclic one.
    """

    def __init__(self, epochs: int = 3) -> None:
        if epochs < 2:
            raise SchemaError(f"AverageWeights got epochs {epochs}; expected at least 2.")
        self.epochs = epochs
        self._kept: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep this epoch's weights."""
        encoder: nn.Module = pl_module.encoder
        self._kept.append({k: copy.deepcopy(v.detach().cpu()) for k, v in encoder.state_dict().items()})
        del self._kept[: -self.epochs]

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Replace the encoder's weights by their mean."""
        if len(self._kept) < 2:
            return
        mean = {
            name: torch.stack([w[name] for w in self._kept]).mean(dim=0) if value.is_floating_point() else value
            for name, value in self._kept[-1].items()
        }
        pl_module.encoder.load_state_dict(mean)

    def state_dict(self) -> dict[str, Any]:
        """Return the weights kept so far."""
        return {"kept": self._kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the weights kept so far."""
        self._kept = state_dict["kept"]


class SaveEncoder(Callback):
    """At the end of the fit, write the encoder as a folder for :func:`pdessl.load`.

    Args:
        folder: where to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write it, by the first process."""
        if trainer.is_global_zero:
            pl_module.save_encoder(self.folder)
