"""Time-stepping under every condition, beside persistence, the true parameter and the law itself."""

# N runs, C channels, T frames, X points, F width of a condition

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.statistics import far_from_zero, field_statistics
from pdessl.errors import DataError
from pdessl.experiments.processes import Shared, each
from pdessl.experiments.stepping_conditions import Told, told
from pdessl.experiments.stepping_scores import Scores, SteppingResult, scores
from pdessl.experiments.supervision import FixedBatches, ShuffledBatches, silent_trainer
from pdessl.experiments.training import interruptible
from pdessl.files import replacing
from pdessl.inference.conditions import Condition
from pdessl.inference.encoding import RunEncoder
from pdessl.inference.surrogates import SurrogateModel
from pdessl.models import FNO, DilatedNetwork, Surrogate, UNet, load, save_pretrained
from pdessl.operators import follow
from pdessl.operators.following import one_step
from pdessl.schema import Count, Natural, Positive, Share
from pdessl.tasks import TimeStepping
from pdessl.trajectory import Trajectories

__all__ = ["Stepping", "compare_steppers", "surrogate_of"]

_NETWORKS = {"dilated": DilatedNetwork, "unet": UNet, "fno": FNO}
_PART = 128
_COLUMN = "condition {}"


@dataclass(frozen=True)
class Stepping:
    """How the time-steppers are trained and compared.

    Args:
        target: parameter that the ceiling is conditioned on.
        conditions: rows of the table beside persistence: ``none``; ``parameter`` (the true one, the ceiling);
            ``representation`` (leading components of the encoder's features of the context); ``predicted`` (the
            parameter as a ridge on the representation predicts it, out of fold in training); ``operator`` (the code of
            the law that unlabelled runs obey, read from the context); ``shuffled`` (the representation of another run)
            and ``random`` (that of an untrained encoder): floors; ``law``: no network, the law itself integrated in
            time. With a law as encoder its code takes the place of the representation.
        context: frames from which conditions are computed; prediction starts after them.
        past: frames a step sees.
        bundle: frames a step gives.
        stride: frames of the data per step, >= 1.
        network: ``dilated``, ``unet`` or ``fno``.
        modulation: how the condition acts: ``film``, ``addition``, for an FNO also ``modes``; None: the network's own.
        width: hidden channels of the network.
        blocks: its residual blocks; of a U-Net, per level and way.
        modes: of an FNO.
        unroll, pushforward, curriculum, noise: of training; see :class:`pdessl.tasks.TimeStepping`.
        steps: gradient steps.
        batch_size: runs per gradient step.
        learning_rate: of AdamW, after warm-up.
        components: principal components of the representation that condition it, fitted on the training runs; 1 is the
            bottleneck of the reference paper.
        seeds: number of seeds.
        runs: labelled runs to train on; None: all.
    """

    target: str = "viscosity"
    conditions: tuple[
        Literal["none", "parameter", "representation", "predicted", "operator", "shuffled", "random", "law"], ...
    ] = ("none", "representation", "parameter")
    context: Count = 16
    past: Count = 2
    bundle: Count = 1
    stride: Count = 1
    network: Literal["dilated", "unet", "fno"] = "dilated"
    modulation: str | None = None
    width: Count = 24
    blocks: Count = 7
    modes: Count = 16
    unroll: Count = 1
    pushforward: bool = False
    curriculum: Share | None = None
    noise: Natural = 0.0
    steps: Count = 400
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    components: Count = 8
    seeds: Count = 3
    runs: Count | None = None


def surrogate_of(settings: Stepping, runs: Trajectories, condition: int) -> Surrogate:
    """Return an untrained surrogate for runs like these.

    Args:
        settings: network, sizes, past, bundle.
        runs: for the number of fields and the boundaries.
        condition: F.
    """
    given: dict[str, Any] = {
        "channels": runs.fields.shape[1],
        "past": settings.past,
        "bundle": settings.bundle,
        "width": settings.width,
        "blocks": settings.blocks,
        "condition": condition,
        "periodic": [kind == "periodic" for kind in runs.boundary],
    }
    if settings.modulation is not None:
        given["modulation"] = settings.modulation
    if settings.network == "fno":
        given["modes"] = min(settings.modes, min(runs.fields.shape[3:]) // 2)
    return Surrogate(_NETWORKS[settings.network](**given))


def compare_steppers(
    encoder: nn.Module | RunEncoder | None,
    data: PDEDataModule,
    settings: Stepping,
    report: Callable[[str], None] = lambda line: None,
    workers: int = 1,
    out: str | os.PathLike[str] | None = None,
) -> SteppingResult:
    """Train every time-stepper on the labelled runs and roll it out on the test runs.

    All see the same frames. Conditions are computed from the first ``context`` frames only; the true parameter is a
    ceiling that no method without it can be expected to pass, unless it is no network.

    Args:
        encoder: pretrained encoder, kept frozen, or a law; None where no condition needs one.
        data: gives the labelled, the test and, for a law, the unlabelled split.
        settings: what is trained.
        report: receives a line of progress after each training.
        workers: processes that the trainings are spread over; see :func:`pdessl.experiments.processes.each`.
        out: folder; receives the models of the first seed, each in a folder of the name of its condition.

    Raises:
        DataError: fewer frames than context and one step, no such parameter, or a condition that needs an encoder.
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
    result = SteppingResult.of(test, context, settings.target)
    result.add("persistence", scores(test.fields[:, :, context - 1 : -1], last.expand_as(truth), test, context), None)
    given = told(encoder, data, train, test, context, settings, report)
    if "law" in given:
        result.add("law", *_law(given["law"], test, context, out))
        report(f"law: rollout NMSE {result.scores['law'][0].rollout:.3g}")
    methods = [m for m in settings.conditions if m in given and m != "law"]
    jobs = []
    for seed in range(settings.seeds):
        for method in methods:
            vectors = given[method].vectors(seed)
            kept = out is not None and not seed and given[method].condition is not None  # floors are no models
            folder = str(Path(str(out)) / method) if kept else None
            jobs.append((method, seed, *(None if v is None else v.numpy() for v in vectors), folder))
    # What the trainings are told was computed above: their processes need no encoder.
    shared = Shared(nn.Identity(), data, settings)
    for job, (far, near) in zip(jobs, each(_train_and_predict, jobs, shared, workers), strict=True):
        method, seed, folder = job[0], job[1], job[4]
        found = scores(torch.from_numpy(near), torch.from_numpy(far), test, context)
        result.add(method, found, torch.from_numpy(far) if not seed else None)
        report(f"{method}, seed {seed}: rollout NMSE {found.rollout:.3g}")
        condition = given[method].condition
        if folder is not None and condition is not None:
            _model(folder, condition, context, train, found, settings).save(folder)
    result.notes = far_from_zero(field_statistics([train.fields], train.field_names))
    result.notes += [line for m in given.values() for line in m.notes]
    return result


def _split(data: PDEDataModule, settings: Stepping) -> tuple[Trajectories, Trajectories, int]:
    """Return training and test runs at the stride of a step, and the context in these frames."""
    stride = slice(None, None, settings.stride)
    train, test = (runs.window(stride) for runs in (data.labelled_subset(settings.runs), data.test))
    return train, test, -(-settings.context // settings.stride)


def _law(
    given: Told, test: Trajectories, context: int, out: str | os.PathLike[str] | None
) -> tuple[Scores, Tensor | None]:
    """Integrate the law itself over the test runs."""
    law = given.law
    assert law is not None  # noqa: S101  (that of the row)
    seen, steps = test.window(slice(0, context)), test.fields.shape[2] - context
    far, near = [], []
    for i in range(0, len(test), _PART):
        rows = slice(i, i + _PART)
        ahead = follow(law, seen[rows], steps)
        far.append(ahead.fields)
        near.append(one_step(law, test[rows], context, ahead.codes))
    found = scores(torch.cat(near), torch.cat(far), test, context)
    if out is not None:
        record = {"rollout NMSE": f"{found.rollout:.3g}", "one-step NMSE": f"{found.one_step:.3g}"}
        SurrogateModel.of(None, Condition("law", law=law), context, test, record).save(Path(out) / "law")
    return found, torch.cat(far)


def _attached(runs: Trajectories, vectors: np.ndarray | None) -> tuple[Trajectories, tuple[str, ...]]:
    """Return runs that hold their conditions as parameters, and the names of these."""
    if vectors is None:
        return runs, ()
    columns = {_COLUMN.format(i): torch.from_numpy(vectors[:, i].copy()).double() for i in range(vectors.shape[1])}
    return runs.replace(parameters={**runs.parameters, **columns}), tuple(columns)


def _train_and_predict(
    shared: Shared, job: tuple[str, int, np.ndarray | None, np.ndarray | None, str | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Train one time-stepper; return its rollout over the test runs and its one-step predictions."""
    _, seed, train_vectors, test_vectors, folder = job
    settings: Stepping = shared.settings
    train, test, context = _split(shared.data, settings)
    train, names = _attached(train, train_vectors)
    test, _ = _attached(test, test_vectors)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        surrogate = surrogate_of(settings, train, len(names))
    conditions = None if train_vectors is None else torch.from_numpy(train_vectors)
    surrogate.set_statistics(train.fields, conditions)
    task = TimeStepping(
        surrogate,
        context=context,
        unroll=settings.unroll,
        pushforward=settings.pushforward,
        curriculum=settings.curriculum or 0.0,
        noise=settings.noise,
        learning_rate=settings.learning_rate,
        seed=seed,
        parameters=names,
        scale="linear",
    )
    trainer = silent_trainer(max_epochs=1, accelerator="auto", devices=1)
    with interruptible():
        trainer.fit(task, ShuffledBatches(train, settings.batch_size, settings.steps, seed))
    task = task.cpu().eval()
    if folder is not None:
        _keep(surrogate, folder)
    steps = test.fields.shape[2] - context
    far = [task.rollout(part, steps) for part in FixedBatches(test, _PART)]
    near = [task.one_step(part) for part in FixedBatches(test, _PART)]
    return torch.cat(far).numpy(), torch.cat(near).numpy()


def _keep(surrogate: Surrogate, folder: str) -> None:
    """Write the network and scales where the parent, which knows what they are told, finds them."""
    save_pretrained(Path(folder) / "network", surrogate.network)
    scales = torch.nn.Module()
    for name in ("change", "condition_mean", "condition_std"):
        scales.register_buffer(name, getattr(surrogate, name))
    scales.register_buffer("mean", surrogate.scale.mean)
    scales.register_buffer("std", surrogate.scale.std)
    with replacing(Path(folder) / "scales.npz") as temporary, temporary.open("wb") as handle:
        np.savez(handle, **{n: v.numpy() for n, v in scales.named_buffers()})


def _model(
    folder: str, condition: Condition, context: int, runs: Trajectories, found: Scores, settings: Stepping
) -> SurrogateModel:
    network, place = load(Path(folder) / "network"), Path(folder) / "scales.npz"
    surrogate = Surrogate(network)
    with np.load(place, allow_pickle=False) as held:
        arrays = {n: torch.from_numpy(held[n]) for n in held.files}
    place.unlink()
    surrogate.scale.set_statistics(arrays["mean"], arrays["std"])
    surrogate.change, surrogate.condition_mean = arrays["change"], arrays["condition_mean"]
    surrogate.condition_std = arrays["condition_std"]
    record = {
        "training runs": len(runs), "gradient steps": settings.steps, "unrolled steps": settings.unroll,
        "one-step NMSE on test runs": f"{found.one_step:.3g}", "rollout NMSE on test runs": f"{found.rollout:.3g}",
    }  # fmt: skip
    return SurrogateModel.of(surrogate.eval(), condition, context, runs, record)
