"""What is wrong with a representation, in one sentence, from its embeddings alone."""

# n rows, D width

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.objectives.monitors import collapse_summary, rank_me
from pdessl.objectives.variance_covariance import equilibrium_std

__all__ = ["CAUSES", "Diagnosis", "collapse_diagnosis"]

# Cause -> what to do about it.
CAUSES = {
    "healthy": "Nothing to do.",
    "non-finite": "Lower the learning rate, clip gradients, or look for non-finite fields in the data.",
    "complete collapse": (
        "All samples have one embedding. Raise the weight of the anti-collapse term, or check predictor, stop-gradient "
        "and teacher; then the learning rate."
    ),
    "projector collapse": (
        "The encoder's features are spread, the embeddings are not: raise the weights of the anti-collapse term, or "
        "look at the projector (last layer, dead activations), not at the encoder."
    ),
    "dimensional collapse": (
        "The embeddings fill few dimensions. Raise the decorrelation (covariance) weight, narrow the projector, or use "
        "views that share more than one easy quantity."
    ),
    "dead dimensions": "Raise the variance weight, or narrow the embedding by as many dimensions.",
    "noise floor": (
        "The spread is what the sampling noise of the covariance term allows at this batch size, not a collapse: use "
        "debias_covariance=True, a narrower projector or a larger batch."
    ),
    "unrelated views": (
        "Two views of a sample are as far apart as two samples: raise the invariance weight, or weaken the "
        "augmentation."
    ),
    "narrow embeddings": (
        "The features fill many dimensions, the embeddings few: usual where two views share few quantities, and no "
        "collapse as long as the rank of the features holds."
    ),
}

# A share of the root mean square below which all rows are one point, or nearly (sound trainings of transformers pass
# through 0.07); of the spread aimed at; of dimensions; of the rank that Gaussian embeddings of the same shape have; of
# the distance between samples. PLANE is an effective rank, not a share: two directions with some noise. VICReg on
# Burgers' runs ends at 5 to 10, without its covariance term at 2. LINE too: one number, and next to nothing beside it.
ONE_POINT, NEARLY, NO_SPREAD, DEAD_SHARE, LOW_RANK, UNRELATED, PLANE = 0.01, 0.06, 0.05, 0.05, 0.25, 0.9, 3.0
LINE = 1.01


class Diagnosis(NamedTuple):
    """Result of :func:`collapse_diagnosis`.

    Attributes:
        cause: one of ``CAUSES``.
        message: what was found and what to do, one line.
        values: the numbers it rests on.
        relative_to: of a collapse, the value that may be low from the start (the spread of a new projector, the rank of
            data that vary in few ways), and counts where it has fallen; None: a collapse whatever it was before
            (deviations below 1 % of the root mean square, and a rank below 1.01, among them).
    """

    cause: str
    message: str
    values: dict[str, float]
    relative_to: str | None = None

    @property
    def collapsed(self) -> bool:
        """Whether training on is pointless as it is."""
        return self.cause in ("non-finite", "complete collapse", "projector collapse", "dimensional collapse")


def _spread(z: Tensor) -> tuple[float, float]:
    """Largest standard deviation, and the root mean square deviation over the root mean square (0: one point)."""
    centred = z - z.mean(dim=0)
    size = float(z.square().mean().sqrt())
    return float(z.std(dim=0).max()), float(centred.square().mean().sqrt()) / size if size > 0 else 0.0


@functools.cache
def _gaussian_rank(n: int, width: int) -> float:
    return rank_me(torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def _relative_rank(z: Tensor) -> float:
    """RankMe over that of Gaussian rows of the same shape: neither n nor D enters then, to first order."""
    return rank_me(z) / _gaussian_rank(*z.shape)


def collapse_diagnosis(
    embeddings: Tensor,
    second: Tensor | None = None,
    features: Tensor | None = None,
    target_std: float | None = 1.0,
    batch: int | None = None,
    variance: float = 25.0,
    covariance: float = 1.0,
    debias_covariance: bool = False,
) -> Diagnosis:
    """Name the likeliest cause of trouble with a representation, the gravest first.

    =====================  =============================================================================
    non-finite             any entry is NaN or infinite
    complete collapse      deviations below 6 % of the root mean square, or every std below 5 % of the target
    projector collapse     the embeddings are one point or lie in a plane (RankMe below 3), the features do not
    dimensional collapse   RankMe of the embeddings, and of the features, below a quarter of that of Gaussian rows
    noise floor            median std within 15 % of the equilibrium of VICReg at this batch, and below 0.9
    dead dimensions        more than 5 % of the columns have a std below 5 % of the target (or of the median)
    unrelated views        partners are more than 0.9 as far apart as different samples
    narrow embeddings      RankMe of the embeddings below that quarter, of the features not; no collapse
    healthy                none of these
    =====================  =============================================================================

    The thresholds are ours and generous: they shall not cry wolf. A representation of data that vary in two ways only
    may rightly have a low rank. The rank of embeddings falls in sound trainings too, to a third and less where views
    share few quantities; that of the features below the projector, which are what is kept, does not.

    Args:
        embeddings: of one view of each sample, shape (n, D), n >= 4 D where possible.
        second: embeddings of another view of the same samples, for ``unrelated views``.
        features: what the projector is given of the same samples, shape (n, D'), to tell its doing from the encoder's.
        target_std: spread that the objective aims at; None for objectives without one (cosine losses, Barlow Twins).
        batch: rows over all processes in a training step, for ``noise floor``; None where the objective has no
            covariance term.
        variance: weight μ of the variance term.
        covariance: weight ν of the covariance term.
        debias_covariance: the floor is subtracted, so it cannot be the cause.

    Raises:
        ShapeError: embeddings that are not (n, D) with n >= 2, or rows that do not match.
    """
    given = [t for t in (embeddings, second, features) if t is not None]
    if any(t.ndim != 2 or len(t) != len(embeddings) or len(t) < 2 for t in given):
        found = ", ".join(str(tuple(t.shape)) for t in given)
        raise ShapeError(f"collapse_diagnosis got {found}; expected (n, D) of the same n >= 2 samples.")
    if not all(bool(torch.isfinite(t).all()) for t in given):
        bad = float(sum((~torch.isfinite(t)).any(dim=1).sum() for t in given))
        return _result("non-finite", {"rows_not_finite": bad}, f"{bad:.0f} rows hold NaN or infinite entries")
    z = embeddings.detach().double()
    summary = collapse_summary(z, NO_SPREAD * (target_std or 1.0))
    largest, deviation = _spread(z)
    values = {
        "std_median": summary.std_median,
        "std_max": largest,
        "relative_deviation": deviation,
        "rank_me": summary.rank_me,
        "relative_rank": _relative_rank(z),
    }
    small = target_std is not None and largest < NO_SPREAD * target_std
    one_point = deviation < NEARLY or small
    low = None if deviation < ONE_POINT else "relative_deviation" if deviation < NEARLY else "std_max"
    low_rank = z.shape[1] > 1 and values["relative_rank"] < LOW_RANK
    narrow, spread_below = False, False
    aim = "" if target_std is None else f" (aim {target_std:g})"
    if features is not None:
        f = features.detach().double()
        values |= {"features_deviation": _spread(f)[1], "features_rank_me": rank_me(f)}
        values["features_relative_rank"] = _relative_rank(f)
        spread_below = values["features_deviation"] >= NEARLY
        narrow = low_rank and spread_below and values["features_relative_rank"] >= LOW_RANK
    plane = narrow and summary.rank_me < PLANE
    if (one_point and spread_below) or plane:
        what = f"embeddings of rank {summary.rank_me:.1f} and largest std {largest:.2g}{aim} from features of rank "
        what += f"{values['features_rank_me']:.1f}"
        return _result("projector collapse", values, what, None if plane else low)
    if one_point:
        what = f"largest std {largest:.2g}{aim}, {deviation:.1%} of the size of a row"
        return _result("complete collapse", values, what, low)
    if low_rank and not narrow:
        what = f"effective rank {summary.rank_me:.1f} of {z.shape[1]}, {values['relative_rank']:.0%} of what "
        below = "" if features is None else f"; features of rank {values['features_rank_me']:.1f}"
        what += f"{len(z)} Gaussian rows have{below}"
        name = "rank_me" if features is None else "features_rank_me"
        return _result("dimensional collapse", values, what, None if values[name] < LINE else name)
    if batch is not None and not debias_covariance and target_std is not None:
        values["equilibrium_std"] = target_std * equilibrium_std(batch, z.shape[1], variance, covariance)
        ratio = summary.std_median / values["equilibrium_std"]
        if values["equilibrium_std"] < 0.9 * target_std and 0.85 < ratio < 1.15:
            what = f"median std {summary.std_median:.2f}; {batch} rows of width {z.shape[1]} settle near "
            return _result("noise floor", values, what + f"{values['equilibrium_std']:.2f}")
    typical = target_std if target_std is not None else summary.std_median
    values["share_dead"] = float((z.std(dim=0) < NO_SPREAD * typical).double().mean())
    if values["share_dead"] > DEAD_SHARE:
        return _result("dead dimensions", values, f"{values['share_dead']:.0%} of {z.shape[1]} columns do not vary")
    if second is not None:
        w = second.detach().double()
        between = float(2 * z.var(dim=0).sum())
        values["view_distance"] = float((z - w).square().sum(dim=1).mean()) / between
        if values["view_distance"] > UNRELATED:
            what = f"partners are {values['view_distance']:.2f} times as far apart (squared) as different samples"
            return _result("unrelated views", values, what)
    if narrow:
        what = f"effective rank {summary.rank_me:.1f} of {z.shape[1]} from features of rank "
        return _result("narrow embeddings", values, what + f"{values['features_rank_me']:.1f}")
    return _result("healthy", values, f"median std {summary.std_median:.2f}, effective rank {summary.rank_me:.1f}")


def _result(cause: str, values: dict[str, float], found: str, relative_to: str | None = None) -> Diagnosis:
    return Diagnosis(cause, f"{cause}: {found}. {CAUSES[cause]}", values, relative_to)
