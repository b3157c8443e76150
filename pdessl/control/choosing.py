"""Choosing experiments: search for the most telling one, and one experiment after another."""

# n experiments, d free numbers of one, H hypotheses, D numbers read in one

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pdessl.control.decisions import Choice, Chooser, Decision, admissible, refuse, sobol_points
from pdessl.control.information import answer_weights, information_gain, noise_draws, separation, told_of, updated
from pdessl.errors import DataError

__all__ = ["Best", "Known", "Record", "experiment"]

_SHRINK = 0.5


@dataclass(eq=False)
class _Pool:
    """Admissible points of one decision, and what the hypotheses foresee of them; beliefs do not enter."""

    decision: Decision
    points: Tensor
    outcomes: Tensor


class Best(Chooser):
    """Search for the experiment of largest expected information gain, or of largest worst-case separation.

    A pool of points of a Sobol sequence is simulated once under all hypotheses; what is believed only weighs the
    outcomes, so that every later choice re-uses them. The best of the pool are moved by normal steps, which get
    shorter from round to round. The gain of the chosen one is estimated again with other draws of the noise: the
    largest of many estimates is too large.

    Args:
        criterion: ``information`` or ``separation``.
        pool: points of the pool, a power of two.
        rounds: of moving.
        kept: how many of the best are moved.
        moved: points that each becomes in a round.
        step: standard deviation of the first moves, share of a range.
        draws: of the noise for each estimate, even.
        seed: of pool, moves and draws.

    Good values: the defaults; a choice then simulates 256 experiments once and 96 more each time.

    Experiments of which a hypothesis foresees something that is not finite are left out.

    Raises:
        DataError: no admissible experiment, or none with finite outcomes.
    """

    def __init__(
        self,
        criterion: Literal["information", "separation"] = "information",
        pool: int = 256,
        rounds: int = 3,
        kept: int = 4,
        moved: int = 8,
        step: float = 0.15,
        draws: int = 128,
        seed: int = 0,
    ) -> None:
        if criterion not in ("information", "separation"):
            raise DataError(f"criterion '{criterion}'; expected information or separation.")
        if pool < 1 or pool & (pool - 1) or min(kept, moved) < 1 or rounds < 0 or not step > 0:
            raise DataError(
                f"pool {pool}, kept {kept}, moved {moved}, rounds {rounds}, step {step}: expected a power of two, "
                "then 1 or more, 1 or more, 0 or more, and > 0."
            )
        self.criterion, self.pool, self.rounds, self.kept, self.moved = criterion, pool, rounds, kept, moved
        self.step, self.draws, self.seed = step, draws, seed
        self._pool: _Pool | None = None

    def value(self, decision: Decision, outcomes: Tensor, weights: Tensor, number: int, fresh: bool = False) -> Tensor:
        """Return what is maximised of experiments with these outcomes, and its standard error, (2, n)."""
        if self.criterion == "separation":
            found = separation(outcomes, weights, decision.noise, decision.answers)
            return torch.stack([found, torch.zeros_like(found)])
        draws = noise_draws(self.draws, decision.size, self.seed + 2 * number + int(fresh))
        gain = information_gain(outcomes, weights, decision.noise, draws, decision.answers)
        return torch.stack([gain.mean, gain.error])

    def choose(self, decision: Decision, weights: Tensor, number: int) -> Choice:
        """Return the next one; see :meth:`Chooser.choose`."""
        return self.searched(decision, weights, number, self.value)

    def searched(self, decision: Decision, weights: Tensor, number: int, value: Callable[..., Tensor]) -> Choice:
        """Return the experiment of the largest ``value``, a function as :meth:`value`."""
        held = self._pooled(decision)
        points, outcomes = held.points, held.outcomes
        values = value(decision, outcomes, weights, number)[0]
        stream = torch.Generator().manual_seed(self.seed * 7919 + number)
        step = self.step
        for _ in range(self.rounds):
            top = values.topk(min(self.kept, len(values))).indices
            moves = torch.randn(len(top), self.moved, points.shape[1], generator=stream, dtype=torch.float64)
            tried = (points[top][:, None] + step * moves).flatten(0, 1).clamp(0, 1)
            tried = tried[admissible(decision, tried)]
            if len(tried):
                tried, foreseen = _foreseen(decision, tried)
                points, outcomes = torch.cat([points[top], tried]), torch.cat([outcomes[top], foreseen])
                values = value(decision, outcomes, weights, number)[0]
            step *= _SHRINK
        best = int(values.argmax())
        told, error = value(decision, outcomes[best : best + 1], weights, number, True)[:, 0].tolist()
        return Choice(points[best], told, error)

    def _pooled(self, decision: Decision) -> _Pool:
        if self._pool is None or self._pool.decision is not decision:
            points = sobol_points(self.pool, decision.dimensions, self.seed)
            good = admissible(decision, points)
            if not bool(good.any()):
                raise refuse(decision, points)
            held = _foreseen(decision, points[good])
            if not len(held[0]):
                raise DataError(
                    f"none of {int(good.sum())} admissible experiments has finite outcomes under every hypothesis: the "
                    "models fail. A finer grid, or smaller ranges of what is set, would help."
                )
            self._pool = _Pool(decision, *held)
        return self._pool


def _foreseen(decision: Decision, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the experiments of which every hypothesis foresees something finite, and what that is."""
    outcomes = decision.outcomes(points)
    finite = torch.isfinite(outcomes).flatten(1).all(dim=1)
    return points[finite], outcomes[finite]


class Known(Chooser):
    """The exact-model optimum: the same search by somebody who knows the true hypothesis and wants to convince.

    It maximises the expected growth of the logarithm of the true answer's weight under the true model. Nobody can do
    this; no choice can be expected to need fewer experiments by much.

    Args:
        truth: number of the true hypothesis.
        search: the search.
    """

    def __init__(self, truth: int, search: Best) -> None:
        self.truth, self.search = truth, search

    def choose(self, decision: Decision, weights: Tensor, number: int) -> Choice:
        """Return the next one; see :meth:`Chooser.choose`."""

        def value(d: Decision, outcomes: Tensor, w: Tensor, k: int, fresh: bool = False) -> Tensor:
            draws = noise_draws(self.search.draws, d.size, self.search.seed + 2 * k + int(fresh))
            found = told_of(outcomes, w, d.noise, draws, d.answers, self.truth)
            return torch.stack([found, torch.zeros_like(found)])

        return self.search.searched(decision, weights, number, value)


@dataclass(frozen=True, eq=False)
class Record:
    """Experiments one after another.

    Args:
        choices: what was chosen.
        observed: what was read, (n, D).
        weights: what was believed before, and after each, (n + 1, H).
    """

    choices: list[Choice] = field(default_factory=list)
    observed: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)

    def certainty(self, answers: Tensor, answer: int | None = None) -> Tensor:
        """Return the weight of an answer (None: of the likeliest one) before, and after each experiment, (n + 1,)."""
        every = torch.stack([answer_weights(w, answers) for w in self.weights])
        return every.amax(dim=1) if answer is None else every[:, answer]

    def needed(self, answers: Tensor, answer: int, level: float = 0.95) -> float:
        """Return how many experiments were made when an answer first had this weight; infinite if it never had."""
        above = (self.certainty(answers, answer) >= level).nonzero().flatten()
        return float(above[0]) if len(above) else math.inf


def experiment(
    decision: Decision,
    chooser: Chooser,
    observe: Callable[[Tensor, int], Tensor],
    count: int,
    until: float | None = None,
    weights: Tensor | None = None,
    announce: Callable[[Choice, Tensor], None] | None = None,
) -> Record:
    """Choose, run, read, believe, and choose again.

    Args:
        decision: what it is about.
        chooser: who chooses.
        observe: runs experiment (d,) number k and returns what was read, (D,): a solver, or a laboratory.
        count: most experiments, >= 1.
        until: stop when an answer has this weight; None: never before ``count``.
        weights: what is believed at first; default the prior.
        announce: receives each choice with the weights after it.

    Raises:
        DataError: no admissible experiment, nothing was read, or something was foreseen that is not finite.
    """
    if count < 1 or (until is not None and not 0 < until < 1):
        raise DataError(f"count {count}, until {until}: expected one or more, and a weight between 0 and 1.")
    record = Record(weights=[decision.weights if weights is None else weights])
    for number in range(count):
        if until is not None and float(record.certainty(decision.answers)[-1]) >= until:
            break
        choice = chooser.choose(decision, record.weights[-1], number)
        read = observe(choice.point, number)
        foreseen = decision.outcomes(choice.point[None])[0]
        if not bool(torch.isfinite(foreseen).all()):
            raise DataError(f"experiment {number + 1}: what is foreseen of it is not finite; the models fail there.")
        record.choices.append(choice)
        record.observed.append(read)
        record.weights.append(updated(record.weights[-1], foreseen, read, decision.noise))
        if announce is not None:
            announce(choice, record.weights[-1])
    return record
