"""Time-stepping with and without a condition, beside persistence: one step and rollouts."""

# N runs, C channels, T frames, X points, D feature width

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.errors import DataError
from pdessl.evaluation.metrics import nmse, nmse_per_frame
from pdessl.evaluation.tables import measured
from pdessl.experiments.processes import Shared, each
from pdessl.experiments.supervision import FixedBatches, ShuffledBatches, silent_trainer
from pdessl.experiments.training import interruptible
from pdessl.models import TimeStepper, embed
from pdessl.schema import Count, Positive
from pdessl.tasks import TimeStepping
from pdessl.trajectory import Trajectories

__all__ = ["Bottleneck", "Stepping", "SteppingResult", "as_report", "compare_steppers"]


@dataclass(frozen=True)
class Stepping:
    """How the time-steppers are trained and compared.

    Args:
        target: parameter that the last comparison is conditioned on.
        context: frames from which the representation is computed; prediction starts after them.
        past: frames a step sees.
        stride: frames of the data per step, >= 1.
        unroll: steps of each training prediction.
        steps: gradient steps.
        batch_size: runs per gradient step.
        learning_rate: of AdamW, after warm-up.
        width: hidden channels of the network.
        blocks: its residual blocks.
        components: principal components of the representation that condition it, fitted on the training runs.
        seeds: number of seeds.
        runs: labelled runs to train on; None: all.
    """

    target: str = "viscosity"
    context: Count = 16
    past: Count = 2
    stride: Count = 1
    unroll: Count = 1
    steps: Count = 400
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    width: Count = 24
    blocks: Count = 7
    components: Count = 8
    seeds: Count = 3
    runs: Count | None = None


_TITLES = {
    "persistence": "persistence: nothing changes",
    "plain": "time-stepper, unconditioned",
    "representation": "conditioned on the representation",
    "parameter": "conditioned on the true {target} (ceiling)",
}


class Bottleneck(nn.Module):
    """An encoder followed by a fixed projection onto the first principal components of its features.

    Args:
        encoder: network on fields giving (B, D).
        features: features of the training runs (N, D), which fix the components.
        count: number of components, at most; directions without variance are left out.

    Shapes:
        fields (B, C, T, *X) -> (B, feature_dim).
    """

    def __init__(self, encoder: nn.Module, features: Tensor, count: int) -> None:
        super().__init__()
        self.encoder = encoder
        mean = features.mean(dim=0)
        _, singular, directions = torch.linalg.svd(features - mean, full_matrices=False)
        kept = max(min(count, int((singular > 1e-9 * singular[0]).sum())), 1)
        scale = (singular[:kept] / max(len(features) - 1, 1) ** 0.5).clamp_min(torch.finfo(features.dtype).tiny)
        self.register_buffer("mean", mean.float())
        self.register_buffer("directions", (directions[:kept].T / scale).float())
        self.feature_dim = kept

    def forward(self, fields: Tensor) -> Tensor:
        """Return the leading components, each of deviation 1 over the training runs."""
        return (self.encoder(fields) - self.mean) @ self.directions


@dataclass
class SteppingResult:
    """Errors by method (one value per seed), error per frame, and one run rolled out by the first seed."""

    one_step: dict[str, list[float]]
    rollout: dict[str, list[float]]
    over_time: dict[str, list[float]]
    shown: dict[str, Tensor]
    truth: Tensor
    time: Tensor
    space: Tensor
    run: str


def compare_steppers(
    encoder: nn.Module,
    data: PDEDataModule,
    settings: Stepping,
    report: Callable[[str], None] = lambda line: None,
    workers: int = 1,
) -> SteppingResult:
    """Train every time-stepper on the labelled runs and roll it out on the test runs.

    All see the same frames. The representation is computed from the first ``context`` frames only; the true parameter
    is a ceiling that no method without it can be expected to pass.

    Args:
        encoder: pretrained encoder, kept frozen.
        data: gives the labelled and the test split.
        settings: what is trained.
        report: receives a line of progress after each training.
        workers: processes that the trainings are spread over; see :func:`pdessl.experiments.processes.each`.

    Raises:
        DataError: fewer frames than context and one step, or no such parameter.
    """
    train, test, context = _split(data, settings)
    steps = test.fields.shape[2] - context
    if steps < 1 or context < settings.past:
        raise DataError(
            f"{data.test.fields.shape[2]} frames with context {settings.context}, stride {settings.stride} and past "
            f"{settings.past} leave nothing to predict. Lower context or stride."
        )
    truth = test.fields[:, :, context:]
    last = test.fields[:, :, context - 1 : context]
    rolled = {"persistence": [last.expand_as(truth)]}
    ahead = {"persistence": [_persistence_ahead(test.fields, context)]}
    jobs = [(m, seed) for seed in range(settings.seeds) for m in ("plain", "representation", "parameter")]
    for (method, seed), found in zip(
        jobs, each(_train_and_predict, jobs, Shared(encoder, data, settings), workers), strict=True
    ):
        far, near = (torch.from_numpy(values) for values in found)
        rolled.setdefault(method, []).append(far)
        ahead.setdefault(method, []).append(near)
        report(f"{method}, seed {seed}: rollout NMSE {float(nmse(far, truth)):.3g}")
    row = int(test.parameters[settings.target].argsort()[len(test) // 4])
    return SteppingResult(
        one_step={m: [float(nmse(v, truth)) for v in values] for m, values in ahead.items()},
        rollout={m: [float(nmse(v, truth)) for v in values] for m, values in rolled.items()},
        over_time={m: _mean_over_time(values, truth) for m, values in rolled.items()},
        shown={m: values[0][row, 0] for m, values in rolled.items() if m in ("plain", "representation")},
        truth=truth[row, 0],
        time=test.time[row, context:],
        space=test.space[0][row],
        run=f"{settings.target} {float(test.parameters[settings.target][row]):.3f}",
    )


def _split(data: PDEDataModule, settings: Stepping) -> tuple[Trajectories, Trajectories, int]:
    """Return training and test runs at the stride of a step, and the context in these frames."""
    stride = slice(None, None, settings.stride)
    train, test = (runs.window(stride) for runs in (data.labelled_subset(settings.runs), data.test))
    return train, test, -(-settings.context // settings.stride)


def _train_and_predict(shared: Shared, job: tuple[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Train one time-stepper; return its rollout over the test runs and its one-step predictions."""
    method, seed = job
    settings = shared.settings
    train, test, context = _split(shared.data, settings)
    conditioning: dict[str, Any] = {}
    if method == "representation":
        features = embed(shared.encoder, [part.window(slice(0, context)) for part in FixedBatches(train)])
        conditioning["encoder"] = Bottleneck(shared.encoder, features, settings.components)
    elif method == "parameter":
        conditioning["parameter"] = settings.target
    # Normalisation from the training runs; the task is given no data module.
    statistics = {
        "mean": train.fields.double().mean(dim=(0, 2, 3)).tolist(),
        "std": train.fields.double().std(dim=(0, 2, 3)).tolist(),
    }
    task = _train(train, context, statistics, settings, seed, **conditioning)
    steps = test.fields.shape[2] - context
    far = _in_parts(task, test, lambda t, part: t.rollout(part, steps))
    return far.numpy(), _in_parts(task, test, lambda t, part: t.one_step(part)).numpy()


def _mean_over_time(predictions: list[Tensor], truth: Tensor) -> list[float]:
    """NMSE of each frame, the mean over seeds."""
    return torch.stack([nmse_per_frame(values, truth) for values in predictions]).mean(dim=0).tolist()


def _persistence_ahead(fields: Tensor, context: int) -> Tensor:
    """One step of persistence from every true frame."""
    return fields[:, :, context - 1 : -1]


def _train(
    train: Trajectories,
    context: int,
    statistics: dict[str, list[float]],
    settings: Stepping,
    seed: int,
    encoder: nn.Module | None = None,
    parameter: str | None = None,
) -> TimeStepping:
    periodic = [kind == "periodic" for kind in train.boundary]
    condition = 1 if parameter is not None else 0 if encoder is None else int(encoder.feature_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stepper = TimeStepper(
            channels=train.fields.shape[1],
            past=settings.past,
            width=settings.width,
            blocks=settings.blocks,
            condition=condition,
            periodic=periodic,
        )
    task = TimeStepping(
        stepper,
        encoder,
        context=context,
        unroll=settings.unroll,
        learning_rate=settings.learning_rate,
        normalisation=statistics,
        seed=seed,
        parameter=parameter,
    )
    trainer = silent_trainer(max_epochs=1, accelerator="auto", devices=1)
    with interruptible():
        trainer.fit(task, ShuffledBatches(train, settings.batch_size, settings.steps, seed))
    return task.cpu().eval()


@torch.no_grad()
def _in_parts(
    task: TimeStepping, runs: Trajectories, predict: Callable[[TimeStepping, Trajectories], Tensor]
) -> Tensor:
    return torch.cat([predict(task, part).cpu() for part in FixedBatches(runs, 128)])


def as_report(result: SteppingResult, settings: Stepping) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section and arrays of a report; see :mod:`pdessl.evaluation.report`."""
    titles = {m: title.format(target=settings.target) for m, title in _TITLES.items()}
    arrays: dict[str, Any] = {f"rollout/{m}": values.numpy() for m, values in result.shown.items()}
    arrays |= {"rollout/time": result.time.numpy(), "rollout/space": result.space.numpy()}
    arrays["rollout/truth"] = result.truth.numpy()
    section = {
        "rows": [
            {
                "method": m,
                "title": titles[m],
                "one_step": measured(result.one_step[m]),
                "rollout": measured(values),
            }
            for m, values in result.rollout.items()
        ],
        "frames": result.truth.shape[0],
        "error_over_time": {titles[m]: values for m, values in result.over_time.items()},
        "shown": {m: titles[m] for m in result.shown},
        "run": result.run,
        "notes": [
            f"A small network predicts the next frame from the last {settings.past}. The representation is computed "
            f"from the first {settings.context} frames of a run, and prediction starts after them. Errors are against "
            "observed frames, whose noise no method can predict."
        ],
    }
    return {"timestepping": section}, arrays
