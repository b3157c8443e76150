"""From the frames of a run that were seen to those that a law says will follow."""

# B runs, R codes, C fields, T frames, X nodes, M modes

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.operators.energy import minimise
from pdessl.operators.integration import WILD, LawFlow
from pdessl.operators.latent import LatentOperator
from pdessl.operators.weak import noise_level
from pdessl.solvers.pseudo_spectral import ETDRK4
from pdessl.trajectory import Trajectories

__all__ = ["CoarseStep", "Followed", "codes_of", "follow", "one_step", "prediction_errors", "shortened"]

_MODEL = 1e-4  # of the power of a mode: what a step of the law itself adds to the uncertainty of its square


@dataclass(frozen=True, eq=False)
class Followed:
    """What a law says will follow.

    Args:
        fields: (B, C, steps, *X).
        codes: (B, R), of the context.
        start: the last frame of the context, its noise filtered out, (B, C, *X).
    """

    fields: Tensor
    codes: Tensor
    start: Tensor


def shortened(law: LatentOperator, frames: int) -> LatentOperator:
    """Return a law whose test functions fit into so many frames.

    The law's coefficients do not depend on the test functions they were found with; only reading runs does.

    Raises:
        ShapeError: fewer than 7 frames.
    """
    if frames < 7:
        raise ShapeError(f"a context of {frames} frames; a law reads codes from 7 or more. Give a longer context.")
    most = (frames - 3) // 2
    width = law.projection.half_width
    if width[0] <= most:
        return law
    return replace(law, projection=replace(law.projection, half_width=(most, *width[1:])))


def follow(
    law: LatentOperator,
    context: Trajectories,
    steps: int,
    codes: Tensor | None = None,
    refine: int | None = None,
    filtered: bool = True,
    rounds: int = 4,
) -> Followed:
    """Return the frames after a context that a law says will follow; nothing is trained.

    The last frame of the context, which the integration starts from, is estimated from all its frames by a Kalman
    filter over Fourier modes: the law carries the estimate from frame to frame, its linear part the uncertainty of each
    mode, and each frame corrects the modes as far as it is more certain than they are. Noise is white, of the level
    that :func:`noise_level` finds.

    The code of each run is read from its context by least squares of the law's terms, and then moved, by Gauss-Newton
    steps, to where the filter's predictions of the frames that come next err least: a short, noisy window says more
    that way, as the whole window has to follow from its beginning.

    Args:
        law: of first order in time, on periodic axes.
        context: the frames that were seen, equally spaced.
        steps: number of frames after them, >= 1.
        codes: (B, R); None: read from the context.
        refine: see :class:`LawFlow`; None: 4 along a single axis, else 2.
        filtered: whether the start is filtered; False: the last frame as it is, and codes as least squares find them.
        rounds: Gauss-Newton steps, where codes are read.

    Raises:
        DataError, ShapeError: as :class:`LawFlow` and :meth:`LatentOperator.encode`.

    Source: the filter: Kalman (1960), with the covariance of the linear part only; parameters by the errors of its
        predictions: Ljung (1979).
    """
    interval = context.time_step.double()
    finest = (4 if len(context.space) == 1 else 2) if refine is None else refine
    if codes is None:
        codes = codes_of(law, context, finest, rounds if filtered else 0)
    flow = LawFlow(law, context, codes, finest)
    modes = _Filter(flow, context).run().state if filtered else flow.modes(context.fields[:, :, -1])
    _, fields = flow.advance(modes, interval, steps)
    dtype = context.fields.dtype
    return Followed(fields.to(dtype), codes, flow.observed(modes).to(dtype))


def codes_of(law: LatentOperator, context: Trajectories, refine: int = 2, rounds: int = 4) -> Tensor:
    """Return the codes (B, R) of runs as :func:`follow` reads them from a context.

    Args:
        law: as in :func:`follow`.
        context: the frames that were seen.
        refine: see :class:`LawFlow`; 2 at most is used.
        rounds: Gauss-Newton steps; 0: codes as least squares find them.
    """
    codes = shortened(law, context.fields.shape[2]).encode(context)[0]
    return _refined(law, context, codes, min(refine, 2), rounds) if rounds and law.rank else codes


def one_step(law: LatentOperator, runs: Trajectories, context: int, codes: Tensor, refine: int | None = None) -> Tensor:
    """Return every frame after the context, each predicted from the frames before it, (B, C, T - context, *X).

    The filter of :func:`follow`, with codes, level of the noise and power of the modes from the context alone, goes on
    through the run; what it predicts before it sees a frame is the prediction.

    Args:
        law: as in :func:`follow`.
        runs: context and the frames after it.
        context: number of frames of it.
        codes: (B, R), read from it.
        refine: see :class:`LawFlow`.
    """
    seen = runs.window(slice(0, context))
    flow = LawFlow(law, seen, codes, (4 if len(runs.space) == 1 else 2) if refine is None else refine)
    found = _Filter(flow, seen).run(runs.fields[:, :, context:])
    return torch.stack(found.predicted, dim=2).to(runs.fields.dtype)


@dataclass(frozen=True, eq=False)
class CoarseStep:
    """One step of a law's integration as cheap as it gets, for a network to correct.

    From frame to frame by a single step of ETDRK4 on the data's own grid (of whose waves the lower two thirds are
    kept), with gradients. A run that leaves 30 times the largest value of its frame, as such a step may be too long,
    stays as it was.

    Called with the contexts of runs and with their codes (B, F >= R; the first R are read), it gives the step from
    fields (B, C, *X) to those one frame later.

    Args:
        law: of first order in time.

    Raises:
        DataError, ShapeError: as :class:`LawFlow`.
    """

    law: LatentOperator

    def __call__(self, context: Trajectories, condition: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Return the step for these runs."""
        if condition is None:
            condition = torch.zeros(len(context), 0, dtype=torch.float64)
        flow = LawFlow(self.law, context, condition[:, : self.law.rank].double(), refine=1)
        scheme = ETDRK4.build(flow.linear, context.time_step.double())

        def step(fields: Tensor) -> Tensor:
            moved = flow.observed(scheme.advance(flow.modes(fields), flow.nonlinear)).to(fields.dtype)
            limit = WILD * fields.detach().abs().flatten(1).amax(dim=1)
            sound = moved.detach().abs().flatten(1).amax(dim=1) <= limit  # false for NaN too
            return torch.where(sound.view(-1, *(1,) * (fields.ndim - 1)), moved, fields)

        return step


@dataclass(frozen=True, eq=False)
class _Estimate:
    """State at the last frame, errors of the predictions of each frame over their deviation, (B, numbers), and fields.

    The fields are those predicted of frames after the context, (B, C, *X) each.
    """

    state: Tensor
    errors: Tensor
    predicted: list[Tensor]


class _Filter:
    """The Kalman filter of :func:`follow` for one context and the flow of one law and code."""

    def __init__(self, flow: LawFlow, context: Trajectories) -> None:
        self.flow, self.interval = flow, context.time_step.double()
        self.seen = [flow.modes(context.fields[:, :, t]) for t in range(context.fields.shape[2])]
        # White noise of variance s² on N nodes has s²/N in every mode; that of a curl its symbol's square times it.
        noise = noise_level(context).double().square() / context.fields[0, 0, 0].numel()
        self.error = flow.noise(noise) * (flow.known() > 0)
        self.power = (torch.stack([v.abs().square() for v in self.seen]).mean(dim=0) - self.error).clamp_min(0.0)

    def run(self, later: Tensor | None = None) -> _Estimate:
        """Run through the frames of the context, and later ones (B, C, T, *X)."""
        context = len(self.seen)
        after = [] if later is None else [self.flow.modes(later[:, :, t]) for t in range(later.shape[2])]
        shape = (-1, *(1,) * (self.flow.linear.ndim - 1))
        growth = torch.exp(2 * self.flow.linear.real * self.interval.reshape(shape)).clamp_max(1e6)
        state, certain, found = torch.zeros_like(self.seen[0]), self.power, []
        predicted: list[Tensor] = []
        for t, frame in enumerate([*self.seen, *after]):
            if t:
                state, fields = self.flow.advance(state, self.interval)
                predicted += [fields[:, :, 0]] if t >= context else []
                certain = (certain * growth + _MODEL * self.power).clamp_max(4 * self.power + self.error)
            spread = (certain + self.error).clamp_min(1e-300)
            miss = (frame - state) * (self.flow.known() > 0)
            if 0 < t < context:
                found.append(torch.view_as_real(miss / spread.sqrt() * (self.power > 0)).flatten(1))
            state = state + certain / spread * miss
            certain = certain * self.error / spread
        errors = torch.cat(found, dim=1) if found else torch.zeros(len(state), 0, dtype=torch.float64)
        return _Estimate(state, errors, predicted)


def prediction_errors(law: LatentOperator, runs: Trajectories, codes: Tensor, refine: int) -> Tensor:
    """Return the errors of what the filter of :func:`follow` predicts of each frame from those before it, (B, N).

    They are in units of the deviation that the filter expects of them, of every mode and frame after the first.

    Args:
        law: as in :func:`follow`.
        runs: whose frames are predicted.
        codes: (B, R).
        refine: see :class:`LawFlow`.
    """
    return _Filter(LawFlow(law, runs, codes, refine), runs).run().errors


def _refined(law: LatentOperator, context: Trajectories, codes: Tensor, refine: int, rounds: int) -> Tensor:
    """Return codes at which the filter's predictions err least; never worse ones."""

    def errors(z: Tensor) -> Tensor:
        return prediction_errors(law, context, z, refine)

    return minimise(errors, codes, law.spread, rounds=rounds, curvature=False).codes
