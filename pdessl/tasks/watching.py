"""What watches a representation while it is trained: label-free monitors, and probes, each a callback."""

# B batch, D feature width, n rows of a split

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.evaluation.metrics import r2, relative_error
from pdessl.models import fit_ridge
from pdessl.objectives import collapse_summary
from pdessl.objectives.diagnosis import collapse_diagnosis
from pdessl.objectives.monitors import alignment, alpha_req, lidar, uniformity
from pdessl.objectives.neighbours import nearest_neighbour_prediction
from pdessl.tasks.batches import from_all_processes, log_parameter, rows_generator

__all__ = ["Monitors", "Probes", "Watched"]

MADE = ("features", "embeddings", "trunk")


class Watchable(Protocol):
    """What the callbacks ask of a task."""

    seed: int

    def watched(self, batch: Any) -> dict[str, Tensor]:
        """Return ``features`` and ``embeddings`` (B, D), and ``trunk`` where the embeddings are made of that."""

    def views(self) -> nn.Module | None:
        """Return what makes views, or None."""


class Watched:
    """A batch of validation as its representation; made when a callback asks, once for all of them.

    Args:
        task: gives it.
        batch: the trajectories.
        seed: of their views.
    """

    def __init__(self, task: Watchable, batch: Any, seed: int) -> None:
        self.batch, self._task, self._seed = batch, task, seed
        self._made: dict[int, dict[str, Tensor]] = {}

    @torch.no_grad()
    def rows(self, views: int) -> dict[str, Tensor]:
        """Return what is watched, averaged over views (0: of the trajectories as they are), float64, on the CPU."""
        augmentation = self._task.views()
        count = views if augmentation is not None else 0
        if count not in self._made:
            total: dict[str, Tensor] = {}
            generator = rows_generator(self.batch.fields, self._seed, 0)
            for _ in range(max(count, 1)):
                seen = augmentation(self.batch, generator)[0] if augmentation is not None and count else self.batch
                for name, values in self._task.watched(seen).items():
                    total[name] = total.get(name, 0) + values.double()
            self._made[count] = {name: (values / max(count, 1)).cpu() for name, values in total.items()}
        return self._made[count]

    @torch.no_grad()
    def pair(self) -> Tensor | None:
        """Return embeddings of two views of each trajectory, (B, 2, D'), float64; None without an augmentation."""
        augmentation = self._task.views()
        if augmentation is None:
            return None
        generator = rows_generator(self.batch.fields, self._seed, 1)
        drawn = [augmentation(self.batch, generator)[0] for _ in range(2)]
        return torch.stack([self._task.watched(view)["embeddings"].double().cpu() for view in drawn], dim=1)


class _Rows:
    """What a validation has collected: loader -> name -> rows."""

    def __init__(self) -> None:
        self._kept: dict[int, dict[str, list[Tensor]]] = {}

    def add(self, loader: int, rows: Mapping[str, Tensor]) -> None:
        kept = self._kept.setdefault(loader, {})
        for name, values in rows.items():
            kept.setdefault(name, []).append(values)

    def of_all_processes(self) -> dict[int, dict[str, Tensor]]:
        joined: dict[int, dict[str, list[Tensor]]] = {}
        for mine in from_all_processes(self._kept):
            for loader, kept in mine.items():
                for name, rows in kept.items():
                    joined.setdefault(loader, {}).setdefault(name, []).extend(rows)
        return {loader: {name: torch.cat(rows) for name, rows in kept.items()} for loader, kept in joined.items()}


def _log(task: lightning.LightningModule, values: Mapping[str, float]) -> None:
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    task.log_dict({name: torch.tensor(v, dtype=torch.float32) for name, v in finite.items()}, sync_dist=True)


class Monitors(Callback):
    """Log, without labels, whether a representation is losing dimensions (``monitor/...``).

    At the end of each validation, of the last loader: RankMe, α-ReQ, uniformity and the spread per dimension of the
    embeddings and, with ``features_`` in the name, of the features, with ``trunk_`` of a trunk that the projector is
    given in their place; where there are views, their alignment and LiDAR. What looks wrong is named in the task's
    attribute ``diagnosis``; :class:`pdessl.tasks.CollapseAlarm` rings on it. Under DDP all are computed from the rows
    of all processes. A task brings them by itself, see :class:`pdessl.tasks.RepresentationTask`.

    Args:
        views: views averaged; 0: the trajectories as they are.

    Raises:
        SchemaError: views below 0.
    """

    def __init__(self, views: int = 0) -> None:
        self.views = _count("Monitors", views)
        self._rows = _Rows()

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the last validation."""
        self._rows = _Rows()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the representation, and that of two views of each trajectory."""
        watched: Watched = outputs["watched"]
        self._rows.add(dataloader_idx, watched.rows(self.views))
        pair = watched.pair() if dataloader_idx > 0 else None
        if pair is not None:
            self._rows.add(dataloader_idx, {"views": pair})

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the monitors, and name what looks wrong."""
        splits = self._rows.of_all_processes()
        self._rows = _Rows()
        if not splits or len(splits[max(splits)]["features"]) < 2:
            return
        scored = splits[max(splits)]
        # Without an aim for the spread what counts is the spread beside the size of an embedding.
        pl_module.diagnosis = collapse_diagnosis(
            scored["embeddings"],
            features=scored.get("trunk", scored["features"]),
            target_std=pl_module.target_std,
        )
        _log(pl_module, {"monitor/collapsed": float(pl_module.diagnosis.collapsed), **_monitors(scored)})


class Probes(Callback):
    """Log how well parameters can be read from the features (``probe/...``); labels, and no gradient.

    At the end of each validation two probes of log-parameter, ridge and the mean of the ten nearest neighbours, are
    fitted on the first loader, the labelled one, and scored on the last. Under DDP on the rows of all processes.

    Args:
        parameters: those probed; None: all positive ones that the labelled batches hold.
        views: views whose features are averaged; 0: the trajectories as they are.

    Raises:
        SchemaError: views below 0.
        DataError: batches without a parameter that was asked for, or one that is not positive.
    """

    def __init__(self, parameters: list[str] | None = None, views: int = 0) -> None:
        self.parameters, self.views = parameters, _count("Probes", views)
        self._rows = _Rows()

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Forget the last validation."""
        self._rows = _Rows()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect features and labels."""
        features = outputs["watched"].rows(self.views)["features"]
        positive = [name for name, values in batch.parameters.items() if bool((values > 0).all())]
        names = positive if self.parameters is None else self.parameters
        # "": no parameter has that name
        self._rows.add(dataloader_idx, {"": features} | {name: log_parameter(batch, name).cpu() for name in names})

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Fit, score and log."""
        splits = self._rows.of_all_processes()
        self._rows = _Rows()
        if len(splits) < 2 or len(splits[0][""]) < 3:
            return
        labelled, scored = splits[0], splits[max(splits)]
        values: dict[str, float] = {}
        for name in [n for n in labelled if n]:
            if any(len(s.get(name, ())) != len(s[""]) for s in (labelled, scored)):
                continue  # positive in some batches only: it has no logarithm to probe
            values |= _scores(labelled[""], labelled[name], scored[""], scored[name], name)
        _log(pl_module, values)


def _count(name: str, views: int) -> int:
    if views < 0:
        raise SchemaError(f"{name} got views {views}; expected 0 (trajectories as they are) or more.")
    return views


def _monitors(scored: Mapping[str, Tensor]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, prefix in (("embeddings", ""), ("features", "features_"), ("trunk", "trunk_")):
        z = scored.get(name)
        if z is None or not torch.isfinite(z).all():
            continue
        summary = collapse_summary(z)
        values |= {
            f"monitor/{prefix}std_min": summary.std_min,
            f"monitor/{prefix}std_median": summary.std_median,
            f"monitor/{prefix}share_collapsed": summary.share_collapsed,
            f"monitor/{prefix}rank_me": summary.rank_me,
            f"monitor/{prefix}alpha_req": alpha_req(z),
            f"monitor/{prefix}uniformity": uniformity(z),
        }
    views = scored.get("views")
    if views is not None and torch.isfinite(views).all():
        found = lidar(views)
        values |= {"monitor/lidar": found.rank, "monitor/lidar_signal": found.signal}
        values["monitor/alignment"] = alignment(views[:, 0], views[:, 1])
    return values


def _scores(features: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, name: str) -> dict[str, float]:
    if not (torch.isfinite(features).all() and torch.isfinite(queries).all()):
        return {}
    prediction = fit_ridge(features, labels).predict(queries)[:, 0]
    near = nearest_neighbour_prediction(features, labels, queries, min(10, len(features)))
    return {
        f"probe/{name}_r2": float(r2(prediction, truth)),
        f"probe/{name}_relative_error": float(relative_error(prediction.exp(), truth.exp())),
        f"probe/{name}_neighbours_r2": float(r2(near, truth)),
    }
