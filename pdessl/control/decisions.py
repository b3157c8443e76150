"""What an experiment is chosen for, what forbids one, and the ways of choosing that are blind to what was learned."""

# n experiments, d free numbers of one, H hypotheses, D numbers read in one

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.stats import qmc
from torch import Tensor

from pdessl.control.interventions import Refusal
from pdessl.errors import DataError

__all__ = [
    "Choice", "Chooser", "Decision", "Equal", "Sobol", "Uniform", "admissible", "over_limits", "refuse", "sobol_points",
]  # fmt: skip

_TRIES = 4096  # points that are tried until one is admissible
_BATCH = 64
_SCALES = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


class Decision(Protocol):
    """What a choice is made about: :class:`pdessl.control.rivals.Problem`, or something of your own.

    Attributes:
        dimensions: d; experiments are points of the unit cube [0, 1]^d.
        size: D.
        noise: standard deviation of what is read, > 0.
        weights: prior of the hypotheses, (H,).
        answers: number of the answer of each hypothesis, (H,).
    """

    dimensions: int
    noise: float
    weights: Tensor
    answers: Tensor

    @property
    def size(self) -> int:
        """Return D."""
        ...

    def outcomes(self, cube: Tensor) -> Tensor:
        """Return what every hypothesis foresees of experiments (n, d), (n, H, D); not finite where a model fails."""
        ...

    def refusals(self, cube: Tensor) -> list[Refusal]:
        """Return every limit with the values of experiments (n, d)."""
        ...


@dataclass(frozen=True, eq=False)
class Choice:
    """An experiment.

    Args:
        point: of the unit cube, (d,).
        value: what the chooser expects of it: nats, or standard deviations of the noise; None for floors.
        error: standard error of the value.
    """

    point: Tensor
    value: float | None = None
    error: float | None = None


class Chooser(ABC):
    """Chooses the next experiment."""

    @abstractmethod
    def choose(self, decision: Decision, weights: Tensor, number: int) -> Choice:
        """Return the next experiment.

        Args:
            decision: what it is about.
            weights: what is believed now, (H,).
            number: of experiments made before.

        Raises:
            DataError: no admissible experiment, with the limits that refuse them.
        """


def admissible(decision: Decision, cube: Tensor) -> Tensor:
    """Return which experiments (n, d) pass no limit, (n,)."""
    good = torch.ones(len(cube), dtype=torch.bool)
    for refusal in decision.refusals(cube):
        good &= refusal.values <= refusal.limit
    return good


def refuse(decision: Decision, cube: Tensor) -> DataError:
    """Return the error that says why none of the experiments (n, d) is admissible."""
    told = []
    for refusal in decision.refusals(cube):
        bad = int((refusal.values > refusal.limit).sum())
        if bad:
            least = float(refusal.values.min())
            told.append(f"'{refusal.name}' <= {refusal.limit:g} refuses {bad} (smallest value {least:.4g})")
    return DataError(
        f"none of {len(cube)} experiments is admissible: {'; '.join(told)}. Raise the limit, or widen the ranges."
    )


def over_limits(refusals: Sequence[Refusal], where: str) -> None:
    """Refuse one experiment that passes a limit.

    Raises:
        DataError: with every limit that it passes, and its value.
    """
    passed = [f"'{r.name}' is {float(r.values[0]):.4g}, at most {r.limit:g}" for r in refusals if r.values[0] > r.limit]
    if passed:
        raise DataError(f"{where}: not admissible: {'; '.join(passed)}. Change the experiment, or the limit.")


def _first_admissible(decision: Decision, points: Callable[[int], Tensor]) -> Tensor:
    """Return the first admissible point of batches that a function of their number gives, (d,)."""
    seen = []
    for batch in range(_TRIES // _BATCH):
        seen.append(points(batch))
        good = admissible(decision, seen[-1]).nonzero()
        if len(good):
            return seen[-1][int(good[0])]
    raise refuse(decision, torch.cat(seen))


class Uniform(Chooser):
    """Points of the cube by chance; those that are not admissible are drawn again.

    Args:
        seed: of the draws; experiment k depends on the seed and k alone.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def choose(self, decision: Decision, weights: Tensor, number: int) -> Choice:
        """Return the next one; see :meth:`Chooser.choose`."""
        stream = torch.Generator().manual_seed(self.seed * 1_000_003 + number)

        def batch(_: int) -> Tensor:
            return torch.rand(_BATCH, decision.dimensions, generator=stream, dtype=torch.float64)

        return Choice(_first_admissible(decision, batch))


class Sobol(Chooser):
    """Successive admissible points of a scrambled Sobol sequence: space-filling, blind to what was learned.

    Args:
        seed: of the scrambling.

    Source: Sobol (1967); scrambling: Owen (1998), as in scipy.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def choose(self, decision: Decision, weights: Tensor, number: int) -> Choice:
        """Return the next one; see :meth:`Chooser.choose`."""
        points, found = sobol_points(_TRIES, decision.dimensions, self.seed), 0
        for start in range(0, _TRIES, _BATCH):
            part = points[start : start + _BATCH]
            for row in admissible(decision, part).nonzero().flatten().tolist():
                if found == number:
                    return Choice(part[row])
                found += 1
        if found:
            return Choice(points[admissible(decision, points)][number % found])
        raise refuse(decision, points)


class Equal(Chooser):
    """Equal spacing: of ``total`` experiments every number takes equally spaced values, once each.

    Points of a rank-one lattice, centred in their cells. Where the decision can say so (``evenly``), sensors and times
    of one experiment are equally spaced, and move from experiment to experiment. A point that is not admissible is
    drawn towards the middle of the ranges of amplitudes, mean and force (of all numbers, where the decision cannot say
    which these are) step by step, and replaced by the next one where that does not help.

    Args:
        total: number of experiments that are planned, >= 1.
    """

    def __init__(self, total: int) -> None:
        self.total = total

    def choose(self, decision: Decision, weights: Tensor, number: int) -> Choice:
        """Return the next one; see :meth:`Chooser.choose`."""
        d, n = decision.dimensions, self.total
        # Powers of the generalised golden ratio spread the levels of different numbers against each other.
        root = 1.5
        for _ in range(64):
            root = (1 + root) ** (1 / (d + 1))
        steps = torch.tensor([root ** -(i + 1) for i in range(d)], dtype=torch.float64)
        order = torch.stack([((torch.arange(n) + 1) * s % 1).argsort().argsort() for s in steps], dim=1)
        lattice = (order.double() + 0.5) / n
        wanted = lattice[[(number + i) % n for i in range(n)]]
        evenly = getattr(getattr(decision, "space", None), "evenly", None)
        drawn = [0.5 + (wanted - 0.5) * s if evenly is None else evenly(wanted, s) for s in _SCALES]
        tried = torch.stack(drawn, dim=1).flatten(0, 1)
        good = admissible(decision, tried).nonzero()
        if not len(good):
            raise refuse(decision, tried)
        return Choice(tried[int(good[0])])


def sobol_points(count: int, dimensions: int, seed: int) -> Tensor:
    """Return the first points of a scrambled Sobol sequence, (count, d), float64; count a power of two."""
    sampler = qmc.Sobol(dimensions, scramble=True, rng=seed)
    return torch.from_numpy(sampler.random(count)).double()
