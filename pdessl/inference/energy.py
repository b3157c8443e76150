"""Codes of runs by minimising the error with which a law, or a conditioned surrogate, foresees them."""

# B runs, R codes, F width of a condition, T frames

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdessl.errors import CheckpointError, DataError, ShapeError
from pdessl.inference.surrogates import SurrogateModel
from pdessl.operators import LatentOperator
from pdessl.operators.energy import Minimum, Prior, minimise
from pdessl.operators.following import prediction_errors, shortened
from pdessl.trajectory import Trajectories

__all__ = ["EnergyEncoder", "surrogate_codes"]

_PIECE = 64  # runs of which all frames are foreseen at a time
_LEAST_MISS = 1e-6  # of the mean square of the fields, of errors that are divided by their size


@dataclass(frozen=True)
class EnergyEncoder:
    """A law, whose code of a run is that under which the run is foreseen best: inference by minimising an energy.

        E(z) = ½ Σ_t |(frame_t - what a filter under z predicts of it)/σ_t|² + ½ Σ_r ((z_r - ẑ_r)/(w s_r))²

    ẑ, s are the code and its standard error by least squares of the law's terms: the guess that the search starts from,
    and that holds it where the run says little. The filter (:func:`pdessl.operators.follow`) carries the fields from
    frame to frame and corrects them, so that runs may be chaotic. No label enters; an encoder like the others.

    Args:
        law: of first order in time, on periodic axes.
        width: w, > 0: how many of its standard errors the guess may be off.
        rounds: Gauss-Newton steps, >= 1.
        refine: nodes of the grid of products over nodes of the data, see :class:`pdessl.operators.LawFlow`.

    Raises:
        DataError: a law without codes, or numbers out of range.

    Source: least squares is where a code is read in a step; prediction errors as the criterion: Ljung (1979).
    """

    law: LatentOperator
    width: float = 3.0
    rounds: int = 4
    refine: int = 2
    gives_codes: ClassVar[bool] = True
    reads_any_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.law.rank:
            raise DataError("nothing in the law differs from run to run (rank 0): it has no code to infer.")
        if not self.width > 0 or self.rounds < 1 or self.refine < 1:
            raise DataError(
                f"width {self.width}, rounds {self.rounds}, refine {self.refine}: expected > 0, >= 1 and >= 1."
            )

    def infer(self, runs: Trajectories) -> Minimum:
        """Return the codes of runs, their standard errors from the curvature, and the energies, of B runs.

        Raises:
            DataError: an axis that is not periodic, a law of second order in time, or other fields than the law's.
            ShapeError: fewer than 7 frames.
        """
        law = shortened(self.law, runs.fields.shape[2])
        parts = []
        for start in range(0, len(runs), _PIECE):
            part = runs[slice(start, start + _PIECE)]
            guess, error = law.encode(part)

            def errors(codes: Tensor, part: Trajectories = part) -> Tensor:
                return prediction_errors(law, part, codes, self.refine)

            prior = Prior(guess, self.width * error.clamp_min(1e-12))
            parts.append(minimise(errors, guess, law.spread, prior, self.rounds))
        return _joined(parts)

    def features(self, runs: Trajectories) -> Tensor:
        """Return the codes (B, R), float64."""
        return self.infer(runs).codes


def surrogate_codes(
    model: SurrogateModel, runs: Trajectories, start: Tensor, deviation: Tensor | float, rounds: int = 6
) -> Minimum:
    """Return the conditions under which a time-stepper foresees runs best, from the next frames of all windows.

        E(c) = ½ Σ_t |(step(frames before t; c) - frame_t)/σ|² + ½ Σ_f ((c_f - start_f)/deviation_f)²

    σ² is the mean square of the errors of each run at the start. The frames are the run's: nothing is rolled out.

    Args:
        model: a surrogate with a condition (a parameter, a representation or an operator's code).
        runs: with more frames than the surrogate reads and makes in a step.
        start: the guess, (B, F), in the units of the condition (a parameter's logarithm where its scale is ``log``).
        deviation: of the prior about it, > 0, a number, (F,) or (B, F).
        rounds: Gauss-Newton steps.

    Raises:
        CheckpointError: a surrogate without a condition or network.
        ShapeError: a start that is not (B, F), or too few frames.
    """
    network = model.surrogate
    if network is None or not network.condition:
        raise CheckpointError(
            "the surrogate has no condition: nothing in it can be inferred. Train one with a condition."
        )
    past, bundle = network.past, network.bundle
    count = runs.fields.shape[2] - past - bundle + 1
    if start.shape != (len(runs), network.condition) or count < 1:
        raise ShapeError(
            f"start {tuple(start.shape)}, {runs.fields.shape[2]} frames; expected ({len(runs)}, {network.condition}) "
            f"and {past + bundle} frames or more."
        )
    with torch.no_grad():
        z = network.scale(runs.fields.to(next(network.parameters()).dtype))
        windows = torch.stack([z[:, :, t : t + past] for t in range(count)], dim=1).flatten(0, 1)
        wanted = torch.stack([z[:, :, t + past : t + past + bundle] for t in range(count)], dim=1)

        def misses(codes: Tensor) -> Tensor:
            every = network.given(codes.repeat_interleave(count, dim=0))
            found = network.step(windows, every).unflatten(0, (len(runs), count))
            return (found - wanted).flatten(1).double()

        first = misses(start)
        floor = _LEAST_MISS * wanted.double().square().flatten(1).mean(dim=1)
        scale = first.square().mean(dim=1).clamp_min(floor).clamp_min(1e-300).sqrt()[:, None]
        spread = torch.as_tensor(deviation, dtype=torch.float64).expand(start.shape)
        return minimise(lambda c: misses(c) / scale, start, spread, Prior(start, spread), rounds)


def _joined(parts: Sequence[Minimum]) -> Minimum:
    return Minimum(*(torch.cat([getattr(p, n) for p in parts]) for n in ("codes", "deviation", "energy", "start")))
