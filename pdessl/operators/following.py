"""From the frames of a run that were seen to those that a law says will follow: codes, a start without noise, the flow."""

# B runs, R codes, C fields, T frames, X nodes, M modes

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.operators.integration import LawFlow
from pdessl.operators.latent import LatentOperator
from pdessl.operators.weak import noise_level
from pdessl.trajectory import Trajectories

__all__ = ["Followed", "follow", "shortened"]

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
) -> Followed:
    """Return the frames after a context that a law says will follow; nothing is trained.

    The code of each run is read from its context. The last frame of the context, which the integration starts from, is
    estimated from all its frames by a Kalman filter over Fourier modes: the law carries the estimate from frame to
    frame, its linear part the uncertainty of each mode, and each frame corrects the modes as far as it is more certain
    than they are. Noise is white, of the level that :func:`noise_level` finds.

    Args:
        law: of first order in time, on periodic axes.
        context: the frames that were seen, equally spaced.
        steps: number of frames after them, >= 1.
        codes: (B, R); None: read from the context.
        refine: see :class:`LawFlow`; None: 4 along a single axis, else 2.
        filtered: whether the start is filtered; False: the last frame as it is.

    Raises:
        DataError, ShapeError: as :class:`LawFlow` and :meth:`LatentOperator.encode`.

    Source: the filter: Kalman (1960), with the covariance of the linear part only.
    """
    if codes is None:
        codes = shortened(law, context.fields.shape[2]).encode(context)[0]
    flow = LawFlow(law, context, codes, (4 if len(context.space) == 1 else 2) if refine is None else refine)
    interval = context.time_step.double()
    modes = _filtered(flow, context, interval) if filtered else flow.modes(context.fields[:, :, -1])
    _, fields = flow.advance(modes, interval, steps)
    dtype = context.fields.dtype
    return Followed(fields.to(dtype), codes, flow.observed(modes).to(dtype))


def _filtered(flow: LawFlow, context: Trajectories, interval: Tensor) -> Tensor:
    """Return the state at the last frame of the context."""
    frames = context.fields.shape[2]
    nodes = context.fields[0, 0, 0].numel()
    noise = noise_level(context).double().square() / nodes if frames >= 5 or min(flow.sizes) >= 5 else None
    seen = [flow.modes(context.fields[:, :, t]) for t in range(frames)]
    if noise is None or frames < 2:
        return seen[-1]
    # Noise of a target: that of its field, or of the curl of two.
    error = flow.noise(noise)
    power = (torch.stack([v.abs().square() for v in seen]).mean(dim=0) - error).clamp_min(0.0)
    spread = torch.exp(2 * flow.linear.real * interval.reshape(-1, *(1,) * (flow.linear.ndim - 1)))
    state, certain = torch.zeros_like(seen[0]), power
    for t, frame in enumerate(seen):
        if t:
            state, _ = flow.state(state, interval)
            certain = (certain * spread + _MODEL * power).clamp_max(4 * power + error)
        gain = certain / (certain + error).clamp_min(1e-300)
        state = state + gain * (frame - state)
        certain = (1 - gain) * certain
    return state
