"""How badly a model foresees every frame of runs: the errors that a surprise is made of."""

# B runs, C fields, T frames, X space, S channels of scores, T' scored positions in time

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdessl.errors import FormatError
from pdessl.inference.surrogates import SurrogateModel
from pdessl.operators import LatentOperator, Projection, surprise
from pdessl.operators.following import one_step, shortened
from pdessl.operators.refinement import periodic_axes
from pdessl.trajectory import Trajectories

__all__ = ["LEAST", "Foreseen", "FrameScores", "LawScores", "PlainScores", "StepScores", "scores_of"]

LEAST = 1e-12
_BATCH = 64


@dataclass(frozen=True, eq=False)
class FrameScores:
    """Scores of runs in time: the larger, the worse what happens there was foreseen.

    Args:
        values: natural logarithms, (B, T', S), float64; NaN where a channel has none yet.
        time: what they are about, (B, T').
        known: when all that they depend on has been seen, (B, T').
        places: where in space, (B, T', *X'), or None.
    """

    values: Tensor
    time: Tensor
    known: Tensor
    places: Tensor | None = None

    @staticmethod
    def join(parts: list[FrameScores]) -> FrameScores:
        """Return the scores of all parts, in order."""
        held = [p.places for p in parts if p.places is not None]
        return FrameScores(
            *(torch.cat([getattr(p, n) for p in parts]) for n in ("values", "time", "known")),
            torch.cat(held) if len(held) == len(parts) else None,
        )


@runtime_checkable
class Foreseen(Protocol):
    """What scores the frames of runs, each from the frames before it."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        ...

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs."""
        ...


@dataclass(frozen=True, eq=False)
class LawScores:
    """Scores by a law: what it leaves unexplained, and how much its code has changed.

    ``residual`` is the mean square of :attr:`pdessl.operators.Surprise.surprise` over that of the time derivative up to
    there, ``place`` its largest value in space likewise, ``code`` its ``change``. Of a whole run only the level of the
    noise enters, so that scores of a run that goes on change little.

    Args:
        law: found by :func:`pdessl.discover`, without known factors.
        recent: positions of the test function that a change of the code is read from.
        width: half-width of the test function in time, frames; None: that of the law, and at most a tenth of the frames
            of the first runs that are scored.

    Raises:
        FormatError: a law with known factors, which new runs do not tell.
    """

    law: LatentOperator
    recent: int = 8
    width: int | None = None

    def __post_init__(self) -> None:
        factors = sorted({t.factor for t in self.law.terms if t.factor})
        if factors:
            raise FormatError(
                f"the law has known factors ({', '.join(factors)}), which are not read from runs that are judged. Find "
                "a law without --known."
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return ("residual", "place", "code") if self.law.rank else ("residual", "place")

    def for_frames(self, frames: int) -> LawScores:
        """Return this with the width that suits runs of so many frames, where none was given."""
        if self.width is not None:
            return self
        return replace(self, width=min(self.law.projection.half_width[0], max(3, frames // 10)))

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs.

        Raises:
            FormatError: too few frames.
        """
        frames = runs.fields.shape[2]
        width = self.for_frames(frames).width
        assert width is not None  # noqa: S101  (for_frames gives one)
        projection, recent = self.law.projection, self.recent if self.law.rank else 0
        least = 4 * width + 2 + recent
        if frames < least:
            raise FormatError(f"runs of {frames} frames; this law needs {least} to be surprised. Give longer runs.")
        stride = (1, *projection.stride[1:]) if projection.stride else ()
        short = replace(projection, half_width=(width, *projection.half_width[1:]), stride=stride)
        found = surprise(replace(self.law, projection=short), runs, self.recent)
        count = torch.arange(1, found.size.shape[1] + 1, dtype=found.size.dtype)
        before = (found.size.cumsum(dim=1) / count).clamp_min(1e-300)
        places = found.surprise.square().mean(dim=1)
        channels = [found.per_frame() / before, places.flatten(2).amax(dim=2) / before]
        channels += [found.change] if self.law.rank else []
        known = found.frames + found.reach * runs.time_step[:, None].double()
        values = torch.stack(channels, dim=2).clamp_min(LEAST).log()
        return FrameScores(values, found.frames, known, _at_nodes(places, short, runs))


def _at_nodes(places: Tensor, projection: Projection, runs: Trajectories) -> Tensor:
    """Return values (B, T', *X') of positions of a test function at the nodes of runs, along axes that wrap round.

    They come numbered by the first node of the function, of which there are more where runs were refined.
    """
    for axis in periodic_axes(runs):
        if not projection.stride or projection.stride[1 + axis] == 1:
            places = places.roll(projection.half_width[1 + axis], dims=2 + axis)
            kept = torch.arange(0, places.shape[2 + axis], projection.refined, device=places.device)
            places = places.index_select(2 + axis, kept)
    return places


@dataclass(frozen=True, eq=False)
class StepScores:
    """Scores by a time-stepper: the squared error of every frame, predicted from the true frames before it.

    What conditions it comes from the first frames of the run, its context, which are not scored.

    Args:
        model: a surrogate; where it is the law itself, frames are predicted by the filter of
            :func:`pdessl.operators.follow`.
    """

    model: SurrogateModel

    def __post_init__(self) -> None:
        if self.model.condition.kind == "parameter":
            raise FormatError(
                "the surrogate is told the true parameter, which is not read from runs that are judged. Train one with "
                "--condition operator, representation or none."
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return ("forecast",)

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs.

        Raises:
            FormatError: too few frames.
        """
        context, frames = self.model.context, runs.fields.shape[2]
        if frames <= context:
            raise FormatError(f"runs of {frames} frames; the surrogate's context alone is {context}. Give longer runs.")
        parts = [self._missed(runs[slice(i, i + _BATCH)]) for i in range(0, len(runs), _BATCH)]
        missed = torch.cat(parts)
        size = runs.fields[:, :, context:].double().square().flatten(3).mean(dim=(1, 3)).clamp_min(1e-300)
        values = missed.flatten(2).mean(dim=2) / size
        time = runs.time[:, context:]
        return FrameScores(values.clamp_min(LEAST).log()[..., None], time, time, missed)

    def _missed(self, runs: Trajectories) -> Tensor:
        """Return squared errors, mean over fields, of every frame after the context, (B, T - context, *X)."""
        model, seen = self.model, runs.window(slice(0, self.model.context))
        truth = runs.fields[:, :, model.context :].double()
        if model.surrogate is None:
            law = model.condition.law
            assert law is not None  # noqa: S101  (only a law goes without a network)
            codes = shortened(law, model.context).encode(seen)[0]
            return (one_step(law, runs, model.context, codes).double() - truth).square().mean(dim=1)
        step, past = model.stepper(seen), model.surrogate.past
        found = [
            step(runs.fields[:, :, t - past : t], 1).mean(dim=0) for t in range(model.context, runs.fields.shape[2])
        ]
        return (torch.cat(found, dim=2).double() - truth).square().mean(dim=1)


@dataclass(frozen=True, eq=False)
class PlainScores:
    """Scores by a function of runs, ``(B, T')``, positive: a floor, or a model of one's own.

    Args:
        function: runs -> scores of the last T' frames, each from frames up to it.
        name: of the channel.
    """

    function: Callable[[Trajectories], Tensor]
    name: str = "score"

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scores."""
        return (self.name,)

    def scores(self, runs: Trajectories) -> FrameScores:
        """Return the scores of runs."""
        values = self.function(runs).double()
        if values.ndim != 2 or len(values) != len(runs) or not 0 < values.shape[1] <= runs.fields.shape[2]:
            raise FormatError(
                f"'{self.name}' returned scores {tuple(values.shape)} for {len(runs)} runs of {runs.fields.shape[2]} "
                "frames; expected (runs, frames), one number for each of the last frames."
            )
        time = runs.time[:, -values.shape[1] :]
        return FrameScores(values.clamp_min(LEAST).log()[..., None], time, time)


def scores_of(model: Any) -> Foreseen:
    """Return what scores frames by a model: a law, a surrogate, a function, or anything with ``scores``.

    Raises:
        FormatError: nothing that foresees, or that needs to be told what runs do not say.
    """
    if isinstance(model, LatentOperator):
        return LawScores(model)
    if isinstance(model, SurrogateModel):
        return StepScores(model)
    if isinstance(model, Foreseen):
        return model
    if callable(model) and not isinstance(model, torch.nn.Module):
        return PlainScores(model, getattr(model, "__name__", "score"))
    raise FormatError(
        f"{type(model).__name__} foresees nothing; expected a law (pdessl discover), a time-stepper (pdessl timestep) "
        "or a function of runs that returns a score per frame."
    )
