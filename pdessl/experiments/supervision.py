"""Supervised training on few labelled runs: a sweep of learning rates, stopped and chosen by validation error."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from pdessl.experiments.training import interruptible
from pdessl.inference.regridding import in_order, regridded, steps_of
from pdessl.inference.views import Views
from pdessl.schema import Count, Natural, Positive, Share
from pdessl.tasks import ParameterRegression
from pdessl.trajectory import Trajectories

__all__ = ["FixedBatches", "ShuffledBatches", "Supervised", "Supervision", "best_of_sweep", "silent_trainer"]


@dataclass(frozen=True)
class Supervision:
    """How a network is trained on labelled runs.

    Args:
        learning_rates: all are tried; the one with the lowest validation error is kept.
        encoder_rate: learning rate of the encoder as a share of the head's.
        steps: gradient steps of each training, at most.
        batch_size: runs per step.
        check_every: steps between two looks at the validation error. The weights of the best look are kept.
        patience: looks without improvement after which training stops; None: never before ``steps``.
        weight_decay: of AdamW.
        warmup: share of the steps.
        views: augmentation in training, and in predictions, which are averaged over ``views.count`` views. Where a
            generator moves the parameter, the label of the view moves with it.
        validation_views: views that each look averages over.
        validation_runs: how many validation runs are looked at; None: all.
        trained: part of the encoder that is trained, and
        readout: what the head reads: see :class:`pdessl.tasks.ParameterRegression`.
        hidden: widths of the head's hidden layers; none for a linear head.
        title: what readers see, for trainings that a recipe adds.
    """

    learning_rates: tuple[Positive, ...] = (1e-3, 3e-3)
    encoder_rate: Natural = 1.0
    steps: Count = 300
    batch_size: Count = 32
    check_every: Count = 25
    patience: Count | None = None
    weight_decay: Natural = 0.01
    warmup: Share = 0.1
    views: Views = field(default_factory=Views)
    validation_views: Count = 1
    validation_runs: Count | None = None
    trained: str = "all"
    readout: str = "features"
    hidden: tuple[Count, ...] = ()
    title: str = ""


@dataclass
class Supervised:
    """What a sweep gave: predictions for the test runs and for others, and which training gave them."""

    predictions: Tensor
    summary: dict[str, Any]
    others: dict[str, Tensor] = field(default_factory=dict)


class ShuffledBatches:
    """An endless shuffled stream of runs, cut into epochs of so many batches.

    Args:
        runs: what is drawn from, without repetition within a pass.
        batch_size: runs per batch, at most all.
        batches: batches per epoch.
        seed: of the order.
    """

    def __init__(self, runs: Trajectories, batch_size: int, batches: int, seed: int) -> None:
        self.runs, self.batch_size, self.batches = runs, min(batch_size, len(runs)), batches
        self._stream = np.random.default_rng(seed)
        self._order: list[int] = []

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Trajectories]:
        for _ in range(self.batches):
            if len(self._order) < self.batch_size:
                self._order = self._stream.permutation(len(self.runs)).tolist()
            chosen, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
            yield self.runs[chosen]


class FixedBatches:
    """All runs in order, in batches."""

    def __init__(self, runs: Trajectories, batch_size: int = 256) -> None:
        self.runs, self.batch_size = runs, batch_size

    def __len__(self) -> int:
        return -(-len(self.runs) // self.batch_size)

    def __iter__(self) -> Iterator[Trajectories]:
        return (self.runs[slice(i, i + self.batch_size)] for i in range(0, len(self.runs), self.batch_size))


def silent_trainer(**arguments: Any) -> lightning.Trainer:
    """Return a trainer that writes and prints nothing."""
    return lightning.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **arguments,
    )


def best_of_sweep(
    start: nn.Module,
    labelled: Trajectories,
    validation: Trajectories,
    test: Trajectories,
    target: str | list[str],
    equation: str,
    settings: Supervision,
    seed: int,
    scale: str = "log",
    others: Mapping[str, Trajectories] | None = None,
    constants: Collection[str] = (),
) -> Supervised:
    """Train once per learning rate and keep the training with the lowest validation error.

    Args:
        start: encoder whose weights each training starts from; it is not changed.
        labelled: runs to train on, with parameters.
        validation: chooses learning rate and number of steps.
        test: predicted by the training that was chosen; its labels are not used.
        target: name of the parameter, or names of several, which then have one head and predictions (m, P).
        equation: name of the equation, for the augmentation.
        settings: what is tried.
        seed: of batches, views and the head.
        scale: on which the parameter is regressed, ``log`` or ``linear``.
        others: further runs that are predicted, by name, on the grid of the labelled ones where they have another.
        constants: parameters that predictions may read, see :class:`pdessl.tasks.ParameterRegression`.
    """
    if settings.validation_runs is not None:
        validation = validation[slice(0, settings.validation_runs)]
    best: tuple[float, ParameterRegression, dict[str, Any]] | None = None
    for rate in settings.learning_rates:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            task = ParameterRegression(
                encoder=copy.deepcopy(start).requires_grad_(True),
                target=target,
                scale=scale,
                trained=settings.trained,
                readout=settings.readout,
                hidden=list(settings.hidden),
                augmentation=settings.views.augmentation(equation),
                views=settings.validation_views,
                constants=constants,
                learning_rate=rate,
                encoder_learning_rate=settings.encoder_rate * rate,
                weight_decay=settings.weight_decay,
                warmup=settings.warmup,
                seed=seed,
            )
        error, steps = _fit(task, labelled, validation, settings, seed)
        if best is None or error < best[0]:
            best = (error, task, {"learning_rate": rate, "steps": steps, "validation_error": error})
    assert best is not None  # noqa: S101  (a sweep has at least one learning rate)
    _, task, summary = best
    task.views = settings.views.count
    task.eval()

    steps = steps_of(labelled)

    def predicted(runs: Trajectories) -> Tensor:
        rows = []
        for part in regridded(runs, steps):
            task.augmentation = settings.views.within(part.runs).augmentation(equation)
            found = [task.estimate(batch, seed=i) for i, batch in enumerate(FixedBatches(part.runs))]
            rows.append((part.places, torch.cat(found).cpu()))
        return in_order(rows)

    return Supervised(predicted(test), summary, {name: predicted(runs) for name, runs in (others or {}).items()})


def _fit(
    task: ParameterRegression, labelled: Trajectories, validation: Trajectories, settings: Supervision, seed: int
) -> tuple[float, int]:
    """Train one task; return its lowest validation error (root mean square on the scale) and the steps to it."""
    check = min(settings.check_every, settings.steps)
    stopping = []
    if settings.patience is not None:
        stopping.append(EarlyStopping("validation/error", patience=settings.patience, verbose=False))
    trainer = silent_trainer(max_epochs=-(-settings.steps // check), callbacks=stopping, accelerator="auto", devices=1)
    train = ShuffledBatches(labelled, settings.batch_size, check, seed)
    with interruptible():
        trainer.fit(task, train, FixedBatches(validation))
    assert task.best is not None  # noqa: S101  (every epoch ends with a validation)
    return float(task.best["error"]) ** 0.5, (task.best["epoch"] + 1) * check
