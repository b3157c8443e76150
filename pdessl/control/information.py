"""What an experiment is expected to tell: posterior weights, expected information gain, worst-case separation."""

# n experiments, H hypotheses, A answers (groups of hypotheses), D numbers an experiment returns, N draws of the noise

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = ["Gain", "answer_weights", "entropy", "information_gain", "noise_draws", "separation", "told_of", "updated"]

_VALUES = 1 << 24  # numbers held at a time


@dataclass(frozen=True, eq=False)
class Gain:
    """Expected information gain of experiments, in nats, and the standard error of the estimate.

    Args:
        mean: (n,).
        error: (n,).
    """

    mean: Tensor
    error: Tensor


def noise_draws(count: int, size: int, seed: int = 0) -> Tensor:
    """Return normal draws of the noise (N, D) whose mean is 0 and whose covariance is the unit matrix, both exactly.

    They come in pairs of opposite sign and are whitened (where D > N/4: each column is scaled): most of what a gain
    differs by from draw to draw is how large the noise happens to be.

    Args:
        count: N, even, >= 4.
        size: D, >= 1.
        seed: of the draws.

    Raises:
        DataError: an odd number, or fewer than 4.
    """
    if count < 4 or count % 2:
        raise DataError(f"{count} draws of the noise; expected an even number, 4 or more.")
    half = torch.randn(count // 2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if 4 * size > count:
        half = half / half.square().mean(dim=0).sqrt()
    else:
        root = torch.linalg.cholesky(half.mT @ half / len(half))
        half = torch.linalg.solve_triangular(root, half.mT, upper=False).mT
    return torch.cat([half, -half])


def updated(weights: Tensor, outcomes: Tensor, observed: Tensor, noise: float | Tensor) -> Tensor:
    """Return the posterior weights of hypotheses after an experiment with white Gaussian noise.

        p(h | y) ∝ p(h) exp(-½ Σ_d ((y_d - m_hd)/σ_d)²)

    Args:
        weights: p(h), (H,), >= 0, of sum 1.
        outcomes: m, what every hypothesis foresees, (H, D).
        observed: y, (D,); NaN where nothing was read, which says nothing.
        noise: σ, > 0, in the unit of what is read; a number or (D,).

    Raises:
        ShapeError: shapes that do not fit.
        DataError: nothing was read, infinite values, or no hypothesis can explain what was read.
    """
    if outcomes.ndim != 2 or outcomes.shape[0] != len(weights) or observed.shape != outcomes.shape[1:]:
        raise ShapeError(
            f"weights {tuple(weights.shape)}, outcomes {tuple(outcomes.shape)} and what was read "
            f"{tuple(observed.shape)} do not fit; expected (H,), (H, D) and (D,)."
        )
    read = ~torch.isnan(observed)
    if not bool(read.any()) or bool(torch.isinf(observed).any()):
        raise DataError("an experiment returned no number, or an infinite one; expected one number at least.")
    gap = ((observed - outcomes) / noise).square()
    logs = weights.log() - 0.5 * torch.where(read, gap, torch.zeros_like(gap)).sum(dim=1)
    if not bool(torch.isfinite(logs).any()):
        raise DataError("no hypothesis that is left can explain what was read: widen the hypotheses, or the noise.")
    return torch.softmax(logs, dim=0)


def answer_weights(weights: Tensor, answers: Tensor) -> Tensor:
    """Return the weights of answers (A,) from those of hypotheses (H,) and the number of the answer of each (H,)."""
    return weights.new_zeros(int(answers.max()) + 1).index_add_(0, answers, weights)


def entropy(weights: Tensor) -> float:
    """Return -Σ p log p in nats."""
    return float(-torch.special.xlogy(weights, weights).sum())


def _checked(outcomes: Tensor, weights: Tensor, noise: float | Tensor) -> None:
    if outcomes.ndim != 3 or outcomes.shape[1] != len(weights) or not outcomes.numel():
        raise ShapeError(f"outcomes {tuple(outcomes.shape)} for {len(weights)} hypotheses; expected (n, H, D).")
    if not bool((torch.as_tensor(noise) > 0).all()):
        raise DataError(f"noise {noise}: expected a standard deviation > 0; without noise one experiment tells all.")


def _told(scaled: Tensor, weights: Tensor, answers: Tensor, draws: Tensor) -> Tensor:
    """Return log p(y | answer of h) - log p(y) for every y = m_h + σ ε, (n, H, N), of outcomes in units of σ."""
    every = answer_weights(weights, answers)
    centred = scaled - scaled.mean(dim=1, keepdim=True)
    half = 0.5 * centred.square().sum(dim=2)  # (n, H)
    drawn = (centred[:, :, None] + draws).flatten(1, 2)  # (n, H N, D)
    # log p(h) p(y | h) but for what is the same for all h: no term of the size of D is formed
    logs = torch.baddbmm((weights.log() - half)[:, None], drawn, centred.mT).unflatten(1, (len(weights), len(draws)))
    evidence = torch.logsumexp(logs, dim=3)
    if len(every) == len(weights):
        own = logs.diagonal(dim1=1, dim2=3).mT
    else:
        same = answers[:, None] == answers[None]
        own = torch.logsumexp(logs.masked_fill(~same[:, None], -math.inf), dim=3)
    return own - every.log()[answers][:, None] - evidence


def told_of(
    outcomes: Tensor, weights: Tensor, noise: float | Tensor, draws: Tensor, answers: Tensor, truth: int
) -> Tensor:
    """Return by how much the logarithm of the weight of the true answer is expected to grow, (n,), in nats.

    Nobody who asks knows the truth: this is what the best choice is measured against. Arguments as in
    :func:`information_gain`; ``truth`` is the number of the true hypothesis.
    """
    _checked(outcomes, weights, noise)
    found = [_told(part / noise, weights, answers, draws)[:, truth].mean(dim=1) for part in _parts(outcomes, draws)]
    return torch.cat(found)


def information_gain(
    outcomes: Tensor, weights: Tensor, noise: float | Tensor, draws: Tensor, answers: Tensor | None = None
) -> Gain:
    """Return the expected information gain of experiments about the answer: the mutual information of answer and data.

        I = Σ_h p_h E_ε [ log p(y | a_h) - log p(y) ],    y = m_h + σ ε
        p(y) = Σ_h' p_h' p(y | h'),    p(y | a) = Σ_{h' in a} p_h' p(y | h') / p_a

    Nested estimate: the inner sums run over all hypotheses, without error; the outer mean is over N draws of the noise
    for each hypothesis, the same for all experiments, so that their order is sharper than their values. The draws
    are whitened, which leaves a bias of order 1/N and far less spread than ``error`` says, the standard error over
    pairs of opposite sign as if they were independent. I lies between 0 and the answer's entropy.

    Args:
        outcomes: m, what each hypothesis foresees of each experiment, (n, H, D).
        weights: p, (H,); hypotheses of weight 0 do not count.
        noise: σ, > 0, a number or (D,).
        draws: ε, (N, D), from :func:`noise_draws`.
        answers: number of the answer of each hypothesis, 0 to A - 1, (H,); None: each is an answer. Parameters within
            an answer that nobody asks for are summed over.

    Raises:
        ShapeError: shapes that do not fit.
        DataError: noise that is not > 0.

    Source: Lindley (1956); the nested estimator: Ryan (2003), here with an exact inner sum.
    """
    _checked(outcomes, weights, noise)
    kept = weights > 0
    chosen = torch.arange(len(weights)) if answers is None else answers
    _, chosen = torch.unique(chosen[kept], return_inverse=True)
    held, p = outcomes[:, kept], weights[kept]
    means, errors = [], []
    for part in _parts(held, draws):
        each = torch.einsum("h,nhk->nk", p, _told(part / noise, p, chosen, draws))
        pairs = 0.5 * (each[:, : len(draws) // 2] + each[:, len(draws) // 2 :])
        means.append(pairs.mean(dim=1))
        errors.append(pairs.std(dim=1) / math.sqrt(pairs.shape[1]))
    return Gain(torch.cat(means), torch.cat(errors))


def _parts(outcomes: Tensor, draws: Tensor) -> tuple[Tensor, ...]:
    return outcomes.split(max(1, _VALUES // (outcomes.shape[1] ** 2 * len(draws))))


def separation(
    outcomes: Tensor, weights: Tensor, noise: float | Tensor, answers: Tensor | None = None, least: float = 1e-3
) -> Tensor:
    """Return the worst-case separation: the distance of the two closest outcomes of different answers, (n,), in σ.

    Args:
        outcomes: as in :func:`information_gain`, as are
        weights: and
        noise: and
        answers: there.
        least: hypotheses of less weight than this share of the largest do not count any more; where one answer is
            left, the separation is that of all.

    Raises:
        ShapeError: shapes that do not fit.
        DataError: noise that is not > 0, or a single answer.
    """
    _checked(outcomes, weights, noise)
    chosen = torch.arange(len(weights)) if answers is None else answers
    if len(chosen.unique()) < 2:
        raise DataError("a single answer: there is nothing to separate.")
    kept = weights >= least * weights.max()
    if len(chosen[kept].unique()) < 2:
        kept = torch.ones_like(kept)
    scaled = outcomes[:, kept] / noise
    distance = torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist")
    other = chosen[kept][:, None] != chosen[kept][None]
    return distance.masked_fill(~other, math.inf).flatten(1).amin(dim=1)
