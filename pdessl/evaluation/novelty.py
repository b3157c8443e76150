"""Novelty of a run: how far its features lie from those of the training runs, with a calibrated threshold."""

# n training runs, m new runs, D feature width

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.intervals import conformal_quantile

__all__ = ["Novelty", "area_under_roc"]

_SHRINKAGE = 0.1  # of the covariance towards its diagonal: n is often below 10 D


@dataclass(frozen=True, eq=False)
class Novelty:
    """Distance of features from those of known runs, as a share of what is usual.

        mahalanobis:  d² = (z - μ)ᵀ Σ⁻¹ (z - μ),  Σ the shrunk covariance of the known runs
        neighbours:   d = mean distance to the k nearest known runs, features standardised

    The score is d over the threshold: above 1 a run is called novel. The threshold is the conformal quantile of runs
    that neither trained the features nor fitted the distance, so that known kinds of runs are called novel at most
    with rate 1 - level.

    Args:
        method: ``mahalanobis`` or ``neighbours``.
        mean, scale: of the features, (D,).
        reference: precision matrix (D, D), or standardised features of known runs (n, D).
        neighbours: k.
        threshold: distance from which a run is novel.

    Source: Lee et al. (2018), arXiv:1807.03888 (Mahalanobis distance of features); Sun et al. (2022),
        arXiv:2204.06507 (nearest neighbours); calibration: Bates et al. (2023), arXiv:2104.08279.
    """

    method: str
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    reference: NDArray[np.float64]
    neighbours: int
    threshold: float

    @staticmethod
    def fit(
        known: ArrayLike,
        calibration: ArrayLike,
        level: float = 0.99,
        method: str = "mahalanobis",
        neighbours: int = 5,
    ) -> Novelty:
        """Fit on features of known runs and set the threshold on those of others like them.

        Args:
            known: shape (n, D), n >= 2.
            calibration: features of further known runs, shape (c, D); 1/(1 - level) of them or more, else nothing is
                ever called novel.
            level: share of known runs that must not be called novel.
            method: ``mahalanobis`` or ``neighbours``.
            neighbours: k, at most n.

        Raises:
            DataError: an unknown method, features that are not finite, or too few.
            ShapeError: widths that differ.
        """
        x, c = _features(known), _features(calibration)
        if x.shape[1] != c.shape[1]:
            raise ShapeError(f"novelty got features of width {x.shape[1]} and {c.shape[1]}; expected the same.")
        if method not in ("mahalanobis", "neighbours") or len(x) < 2 or not 1 <= neighbours <= len(x):
            raise DataError(
                f"novelty got method '{method}', {len(x)} known runs and {neighbours} neighbours; expected mahalanobis "
                "or neighbours, at least 2 runs and no more neighbours than runs."
            )
        mean = x.mean(axis=0)
        spread = x.std(axis=0, ddof=1)
        scale = np.where(spread > 0, spread, 1.0)
        standard = (x - mean) / scale
        if method == "mahalanobis":
            covariance = standard.T @ standard / (len(x) - 1)
            diagonal = np.diag(np.diag(covariance).clip(min=1e-6))
            reference = np.linalg.inv((1 - _SHRINKAGE) * covariance + _SHRINKAGE * diagonal)
        else:
            reference = standard
        found = Novelty(method, mean, scale, reference, neighbours, 1.0)
        threshold = conformal_quantile(found.distance(c), level)
        return Novelty(method, mean, scale, reference, neighbours, threshold)

    def distance(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the distance of runs from the known ones, (m,)."""
        z = (_features(features) - self.mean) / self.scale
        if self.method == "mahalanobis":
            return np.sqrt(np.einsum("mi,ij,mj->m", z, self.reference, z))
        nearest = []
        for start in range(0, len(z), 256):  # bounds the table of distances
            table = np.linalg.norm(z[start : start + 256, None] - self.reference[None], axis=2)
            nearest.append(np.partition(table, self.neighbours - 1, axis=1)[:, : self.neighbours].mean(axis=1))
        return np.concatenate(nearest)

    def score(self, features: ArrayLike) -> NDArray[np.float64]:
        """Return the novelty of runs, (m,): above 1 a run is unlike the known ones."""
        return self.distance(features) / self.threshold

    def state(self) -> dict[str, Any]:
        """Return everything as plain data and arrays."""
        return {
            "method": self.method,
            "mean": self.mean,
            "scale": self.scale,
            "reference": self.reference,
            "neighbours": self.neighbours,
            "threshold": self.threshold,
        }


def _features(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array):
        raise ShapeError(f"novelty got features of shape {array.shape}; expected (runs, width).")
    if not np.isfinite(array).all():
        raise DataError("novelty got features that are not finite. Check the fields and the encoder.")
    return array


def area_under_roc(known: ArrayLike, novel: ArrayLike) -> float:
    """Return the probability that a novel run scores above a known one (ties count half): 0.5 is chance.

    Args:
        known: scores of known runs, shape (n,).
        novel: scores of novel runs, shape (m,).
    """
    from scipy.stats import rankdata

    a, b = (np.asarray(v, dtype=np.float64).reshape(-1) for v in (known, novel))
    if not len(a) or not len(b):
        raise ShapeError(f"an area under the curve needs scores of both kinds; got {len(a)} and {len(b)}.")
    ranks = rankdata(np.concatenate([a, b]))
    return float((ranks[len(a) :].sum() - len(b) * (len(b) + 1) / 2) / (len(a) * len(b)))
