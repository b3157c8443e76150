"""One time-stepper of a comparison: made, trained, rolled out over the test runs; the model it becomes."""

# N runs, M draws, C channels, T frames, X points, F width of a condition

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdessl.data.datamodule import PDEDataModule
from pdessl.experiments.processes import Shared
from pdessl.experiments.supervision import FixedBatches, ShuffledBatches, silent_trainer
from pdessl.experiments.training import interruptible
from pdessl.inference.conditions import Condition
from pdessl.inference.surrogates import SurrogateModel, banded
from pdessl.models import FNO, DilatedNetwork, Surrogate, UNet
from pdessl.operators import CoarseStep, load_law
from pdessl.tasks import TimeStepping
from pdessl.trajectory import Trajectories

__all__ = ["Job", "Stepped", "model_of", "split", "step_through", "surrogate_of"]

_NETWORKS = {"dilated": DilatedNetwork, "unet": UNet, "fno": FNO}
_PART = 128
_COLUMN = "condition {}"


@dataclass(frozen=True, eq=False)
class Job:
    """A training.

    Args:
        method: row of the table.
        seed: of the training.
        train: what each run of training is told, (N, F), or None.
        test: the same of the test runs; (M, N, F) where each is rolled out under M conditions.
        law: folder of the law whose coarse step is corrected; None: none.
    """

    method: str
    seed: int
    train: NDArray[np.float64] | None
    test: NDArray[np.float64] | None
    law: str | None = None


@dataclass(frozen=True, eq=False)
class Stepped:
    """What a training gave: arrays, as tensors do not cross between processes.

    Args:
        far, near: rollouts and single steps, (N, C, T, *X) each; means over draws where there are some.
        low, high: where 90 % of the rollouts under M conditions lie, node by node; None with one condition.
        weights: of the surrogate, by name.
        seconds: of processor time, of the training.
    """

    far: NDArray[np.float32]
    near: NDArray[np.float32]
    low: NDArray[np.float32] | None
    high: NDArray[np.float32] | None
    weights: Mapping[str, NDArray[Any]]
    seconds: float


def surrogate_of(settings: Any, runs: Trajectories, condition: int, coarse: bool = False) -> Surrogate:
    """Return an untrained surrogate for runs like these.

    Args:
        settings: network, sizes, past, bundle, derivatives.
        runs: for the number of fields and the boundaries.
        condition: F.
        coarse: it corrects a coarse step.
    """
    periodic = [kind == "periodic" for kind in runs.boundary]
    given: dict[str, Any] = {
        "channels": runs.fields.shape[1],
        "past": settings.past + coarse * settings.bundle + settings.derivatives * len(periodic),
        "bundle": settings.bundle,
        "width": settings.width,
        "blocks": settings.blocks,
        "condition": condition,
        "periodic": periodic,
    }
    if settings.modulation is not None:
        given["modulation"] = settings.modulation
    if settings.network == "fno":
        given["modes"] = min(settings.modes, min(runs.fields.shape[3:]) // 2)
    network = _NETWORKS[settings.network](**given)
    return Surrogate(network, coarse=coarse, derivatives=settings.derivatives, periodic=periodic)


def split(data: PDEDataModule, settings: Any) -> tuple[Trajectories, Trajectories, int]:
    """Return training and test runs at the stride of a step, and the context in these frames."""
    stride = slice(None, None, settings.stride)
    train, test = (runs.window(stride) for runs in (data.labelled_subset(settings.runs), data.test))
    return train, test, -(-settings.context // settings.stride)


def _attached(runs: Trajectories, vectors: NDArray[np.float64] | None) -> tuple[Trajectories, tuple[str, ...]]:
    """Return runs that hold their conditions as parameters, and the names of these."""
    if vectors is None:
        return runs, ()
    columns = {_COLUMN.format(i): torch.from_numpy(vectors[:, i].copy()).double() for i in range(vectors.shape[1])}
    return runs.replace(parameters={**runs.parameters, **columns}), tuple(columns)


def step_through(shared: Shared, job: Job) -> Stepped:
    """Train one time-stepper; roll it out over the test runs, and take single steps along them."""
    settings, begun = shared.settings, time.process_time()
    train, test, context = split(shared.data, settings)
    train, names = _attached(train, job.train)
    coarse = None if job.law is None else CoarseStep(load_law(job.law))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        surrogate = surrogate_of(settings, train, len(names), coarse is not None)
    conditions = torch.from_numpy(job.train) if job.train is not None and names else None
    step = None if coarse is None else coarse(train.window(slice(0, context)), conditions)
    surrogate.set_statistics(train.fields, conditions, step)
    task = TimeStepping(
        surrogate,
        context=context,
        unroll=settings.unroll,
        pushforward=settings.pushforward,
        curriculum=settings.curriculum or 0.0,
        noise=settings.noise,
        augmentation=settings.views.augmentation(train.equation or ""),
        learning_rate=settings.learning_rate,
        seed=job.seed,
        parameters=names,
        scale="linear",
        coarse=coarse,
    )
    # A law, whose step a hybrid corrects, lives on the CPU.
    trainer = silent_trainer(max_epochs=1, accelerator="auto" if coarse is None else "cpu", devices=1)
    with interruptible():
        trainer.fit(task, ShuffledBatches(train, settings.batch_size, settings.steps, job.seed))
    return _predicted(task.cpu().eval(), test, context, job.test, time.process_time() - begun)


def _predicted(
    task: TimeStepping, test: Trajectories, context: int, vectors: NDArray[np.float64] | None, seconds: float
) -> Stepped:
    told = [vectors] if vectors is None or vectors.ndim == 2 else list(vectors)
    steps = test.fields.shape[2] - context
    near: Tensor | None = None
    every: list[list[Tensor]] = []  # by part of the runs, a rollout per draw
    for given in told:
        runs, _ = _attached(test, given)
        single = torch.cat([task.one_step(part) for part in FixedBatches(runs, _PART)]) / len(told)
        near = single if near is None else near + single
        for i, part in enumerate(FixedBatches(runs, _PART)):
            if len(every) <= i:
                every.append([])
            every[i].append(task.rollout(part, steps))
    assert near is not None  # noqa: S101  (told is never empty)
    parts = [banded(torch.stack(drawn)) if len(told) > 1 else (drawn[0],) for drawn in every]
    columns = [torch.cat(column).float().numpy() for column in zip(*parts, strict=True)]
    low, high = (columns[1], columns[2]) if len(columns) == 3 else (None, None)
    weights = {n: v.detach().numpy() for n, v in task.surrogate.state_dict().items()}
    return Stepped(columns[0], near.numpy(), low, high, weights, seconds)


def model_of(
    stepped: Stepped, job: Job, condition: Condition, runs: Trajectories, settings: Any, record: Mapping[str, Any]
) -> SurrogateModel:
    """Return what a training gave as a model.

    Args:
        stepped: what it gave.
        job: the training.
        condition: where new runs get theirs from.
        runs: of training.
        settings: of the comparison.
        record: for the card.
    """
    width = 0 if job.train is None else job.train.shape[1]
    surrogate = surrogate_of(settings, runs, width, job.law is not None)
    surrogate.load_state_dict({n: torch.from_numpy(v) for n, v in stepped.weights.items()})
    context = -(-settings.context // settings.stride)
    trained = {"training runs": len(runs), "gradient steps": settings.steps, "unrolled steps": settings.unroll}
    trained["seconds of training, processor"] = round(stepped.seconds, 1)
    return SurrogateModel.of(surrogate.eval(), condition, context, runs, {**trained, **record})
