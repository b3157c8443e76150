"""Time-stepping under every condition, beside persistence, the true parameter and the law itself."""

# N runs, C channels, T frames, X points, F width of a condition

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from pdessl.data.datamodule import PDEDataModule
from pdessl.data.statistics import far_from_zero, field_statistics
from pdessl.errors import DataError
from pdessl.experiments.processes import Shared, Workers, each
from pdessl.experiments.stepping_conditions import Told, told
from pdessl.experiments.stepping_scores import Scores, SteppingResult, scores
from pdessl.experiments.stepping_training import Job, model_of, split, step_through
from pdessl.inference.conditions import Condition
from pdessl.inference.encoding import RunEncoder
from pdessl.inference.surrogates import SurrogateModel
from pdessl.inference.views import Views
from pdessl.operators import follow, save_law
from pdessl.operators.following import one_step
from pdessl.schema import Count, Natural, Positive, Share, Size
from pdessl.trajectory import Trajectories

__all__ = ["Stepping", "compare_steppers"]

_PART = 128
_NO_NETWORK = ("law", "recomputed")  # recomputed: that of the representation


@dataclass(frozen=True)
class Stepping:
    """How the time-steppers are trained and compared.

    Args:
        target: parameter that the ceiling is conditioned on.
        also: further ones that it is conditioned on together with it, and that are predicted.
        conditions: rows of the table beside persistence: ``none``; ``parameter`` (the true one, the ceiling);
            ``representation`` (leading components of the encoder's features of the context); ``recomputed`` (the same
            network, told the representation anew of its own frames, every ``context`` of them); ``predicted`` (the
            parameter as a ridge on the representation predicts it, out of fold in training); ``posterior`` (the network
            of the true parameter, told ``draws`` values that the run may have: the mean of the rollouts, and where they
            lie); ``operator`` (the code of the law that unlabelled runs obey, read from the context); ``hybrid`` (a
            network that corrects one coarse step of that law, told its code); ``shuffled`` (the representation of
            another run) and ``random`` (that of an untrained encoder): floors; ``law``: no network, the law itself
            integrated in time. With a law as encoder its code takes the place of the representation.
        context: frames from which conditions are computed; prediction starts after them.
        past: frames a step sees.
        bundle: frames a step gives.
        stride: frames of the data per step, >= 1.
        network: ``dilated``, ``unet`` or ``fno``.
        modulation: how the condition acts: ``film``, ``addition``, for an FNO also ``modes``; None: the network's own.
        width: hidden channels of the network.
        blocks: its residual blocks; of a U-Net, per level and way.
        modes: of an FNO.
        derivatives: highest order of derivatives of the last frame that every network sees besides the frames.
        spacing: every network is told time step and node distances besides its condition.
        unroll, pushforward, curriculum, noise: of training; see :class:`pdessl.tasks.TimeStepping`.
        views: symmetries that move whole runs of training, so that pairs of frames stay solutions; none that moves a
            parameter, since what a run is told was read before it was moved.
        steps: gradient steps.
        batch_size: runs per gradient step.
        learning_rate: of AdamW, after warm-up.
        components: principal components of the representation that condition it, fitted on the training runs; 1 is the
            bottleneck of the reference paper.
        draws: rollouts per run of a ``posterior``.
        seeds: number of seeds.
        runs: labelled runs to train on; None: all.
    """

    target: str = "viscosity"
    also: tuple[str, ...] = ()
    conditions: tuple[
        Literal[
            "none",
            "parameter",
            "representation",
            "recomputed",
            "predicted",
            "posterior",
            "operator",
            "hybrid",
            "shuffled",
            "random",
            "law",
        ],
        ...,
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
    derivatives: Size = 0
    spacing: bool = False
    unroll: Count = 1
    pushforward: bool = False
    curriculum: Share | None = None
    noise: Natural = 0.0
    views: Views = Views()
    steps: Count = 400
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    components: Count = 8
    draws: Count = 16
    seeds: Count = 3
    runs: Count | None = None


def compare_steppers(
    encoder: nn.Module | RunEncoder | None,
    data: PDEDataModule,
    settings: Stepping,
    report: Callable[[str], None] = lambda line: None,
    workers: int | Workers = 1,
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
        DataError: fewer frames than context and one step, no such parameter, a condition that needs an encoder, or
            views that are windows or move a parameter.
        SymmetryError: views by a generator that the equation of the runs does not have.
    """
    train, test, context = split(data, settings)
    steps = test.fields.shape[2] - context
    if steps < 1 or context < settings.past:
        raise DataError(
            f"{data.test.fields.shape[2]} frames with context {settings.context}, stride {settings.stride} and past "
            f"{settings.past} leave nothing to predict. Lower context or stride."
        )
    _check_views(settings.views, train)
    if "recomputed" in settings.conditions and "representation" not in settings.conditions:
        raise DataError("the condition 'recomputed' is that of the network of 'representation': add that condition.")
    truth = test.fields[:, :, context:]
    last = test.fields[:, :, context - 1 : context]
    result = SteppingResult.of(test, context, settings.target)
    result.target = " and ".join(dict.fromkeys((settings.target, *settings.also)))
    result.add("persistence", scores(test.fields[:, :, context - 1 : -1], last.expand_as(truth), test, context), None)
    given = told(encoder, data, train, test, context, settings, report)
    if "law" in given:
        result.add("law", *_law(given["law"], test, context, out))
        report(f"law: rollout NMSE {result.scores['law'][0].rollout:.3g}")
    with tempfile.TemporaryDirectory() as scratch:
        jobs = list(_jobs(given, settings, train, Path(scratch)))
        # What the trainings are told was computed above: their processes need no encoder.
        shared = Shared(nn.Identity(), data, settings)
        for job, stepped in zip(jobs, each(step_through, jobs, shared, workers), strict=True):
            far, near = torch.from_numpy(stepped.far), torch.from_numpy(stepped.near)
            band = None
            if stepped.low is not None and stepped.high is not None:
                band = torch.from_numpy(stepped.low), torch.from_numpy(stepped.high)
            found = scores(near, far, test, context, band)
            result.add(job.method, found, far if not job.seed else None)
            report(f"{job.method}, seed {job.seed}: rollout NMSE {found.rollout:.3g}")
            condition = given[job.method].condition
            if condition is None:  # floors are no models
                continue
            record = {
                "one-step NMSE on test runs": f"{found.one_step:.3g}",
                "rollout NMSE on test runs": f"{found.rollout:.3g}",
            }
            model = model_of(stepped, job, condition, train, settings, record)
            if out is not None and not job.seed:
                model.save(Path(out) / job.method)
            if job.method == "representation" and "recomputed" in settings.conditions:
                again = torch.cat([model.ahead(part, steps, context) for part in _parts(test, context)])
                result.add("recomputed", scores(near, again, test, context), again if not job.seed else None)
    result.notes = far_from_zero(field_statistics([train.fields], train.field_names))
    result.notes += [line for m in given.values() for line in m.notes]
    return result


def _check_views(views: Views, runs: Trajectories) -> None:
    if views.moves or views.window is not None:
        what = f"move {', '.join(views.moves)}" if views.moves else f"are windows of {list(views.window or ())}"
        raise DataError(
            f"timestepping.views {what}; conditions are read from the context of whole runs before views are drawn. "
            "Leave out timestepping.views.moves and timestepping.views.window."
        )
    if views.drawn and not runs.equation:
        raise DataError(
            "timestepping.views are symmetries of the equation of the runs, and these runs name none. Leave out "
            "timestepping.views, or use runs of a dataset file, which name theirs."
        )
    views.augmentation(runs.equation or "")


def _jobs(given: Mapping[str, Told], settings: Stepping, train: Trajectories, scratch: Path) -> Iterator[Job]:
    """Yield every training: all conditions of a seed before the next seed."""
    kinds = dict(zip(train.axis_names, train.boundary, strict=True))
    for seed in range(settings.seeds):
        for method in settings.conditions:
            if method in _NO_NETWORK:
                continue
            law, folder = given[method].law, None
            if given[method].coarse is not None and law is not None:
                folder = str(save_law(law, scratch / "law", kinds).parent) if not seed else str(scratch / "law")
            vectors = [None if v is None else v.numpy() for v in given[method].vectors(seed)]
            yield Job(method, seed, vectors[0], vectors[1], folder)


def _parts(test: Trajectories, context: int) -> Iterator[Trajectories]:
    seen = test.window(slice(0, context))
    return (seen[slice(i, i + _PART)] for i in range(0, len(test), _PART))


def _law(
    given: Told, test: Trajectories, context: int, out: str | os.PathLike[str] | None
) -> tuple[Scores, Tensor | None]:
    """Integrate the law itself over the test runs."""
    law = given.law
    assert law is not None  # noqa: S101  (that of the row)
    steps = test.fields.shape[2] - context
    far, near = [], []
    for i, seen in enumerate(_parts(test, context)):
        ahead = follow(law, seen, steps)
        far.append(ahead.fields)
        near.append(one_step(law, test[slice(i * _PART, (i + 1) * _PART)], context, ahead.codes))
    found = scores(torch.cat(near), torch.cat(far), test, context)
    if out is not None:
        record = {"rollout NMSE": f"{found.rollout:.3g}", "one-step NMSE": f"{found.one_step:.3g}"}
        SurrogateModel.of(None, Condition("law", law=law), context, test, record).save(Path(out) / "law")
    return found, torch.cat(far)
