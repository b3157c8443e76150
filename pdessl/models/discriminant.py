"""Linear codes in closed form: what runs of a group share, what two views share, and what varies most."""

# n rows, D feature width, G groups, R codes

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = ["LinearMap", "fit_discriminant", "fit_principal", "fit_views", "intraclass_correlation"]

RIDGES = tuple(10.0**k for k in range(-7, 2))
CLIP = 6.0
_MOST = 8  # codes looked at where their number is not given
_SHARED = 0.25  # intraclass correlation on held-out groups from which a code counts as shared


class LinearMap(NamedTuple):
    """A fitted linear code: clip((x - centre) / scale) @ weights.

    Attributes:
        centre, scale: standardisation of the features, (D,).
        weights: (D, R), on standardised features.
        scores: of each code (R,): of a discriminant and of views the intraclass correlation, on held-out groups where
            the ridge was chosen on them; of principal components the share of the variance.
        ridge: added to the within-group covariance, in units of its mean variance.
        clip: standardised features are cut off at this.
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor
    scores: Tensor
    ridge: float
    clip: float

    def apply(self, features: Tensor) -> Tensor:
        """Return codes (n, R), float64, of features (n, D).

        Raises:
            ShapeError: another width.
        """
        if features.ndim != 2 or features.shape[1] != len(self.centre):
            raise ShapeError(f"linear code got features {tuple(features.shape)}; expected (n, {len(self.centre)}).")
        return self.standardised(features) @ self.weights

    def standardised(self, features: Tensor) -> Tensor:
        """Return (x - centre) / scale, cut off at ``clip``, float64."""
        return ((features.double() - self.centre) / self.scale).clamp(-self.clip, self.clip)


def fit_discriminant(
    features: Tensor,
    groups: Tensor,
    components: int | None = None,
    ridge: float | None = None,
    folds: int = 4,
    clip: float = CLIP,
) -> LinearMap:
    """Fit the directions in which runs of a group agree and groups differ.

        S_b v = λ (S_w + κ s I) v,    S_w = Σ_g Σ_{i in g} (x_i - μ_g)(x_i - μ_g)ᵀ / (n - G),
                                      S_b = Σ_g n_g (μ_g - μ)(μ_g - μ)ᵀ / (G - 1)

    x: standardised features, s: mean of the diagonal of S_w. Codes have variance 1 within groups (at κ = 0). Nothing
    but which runs are of one group is used: the setting they share, and no other, is what they agree in.

    Args:
        features: (n, D), any of several runs of each group: hand-made, or of a frozen encoder.
        groups: group of each row, (n,), integers. Rows alone in their group count for S_b only.
        components: R; None: the leading codes whose intraclass correlation on held-out groups is above 0.25, at least 1
            and at most 8.
        ridge: κ > 0; None: that with the largest ratio of variances between and within *held-out* groups.
        folds: parts of the groups that are held out in turn.
        clip: standardised features are cut off at this, so that a run out of the ordinary does not decide.

    Raises:
        ShapeError: rows that do not match.
        DataError: features that are not finite, fewer than two groups of two runs, or too few groups for the folds.

    Source: Fisher (1936); ridge of Friedman (1989), chosen here without labels.
    """
    x, g, centre, scale = _prepared(features, groups, clip)
    sizes = torch.bincount(g)
    if int((sizes > 1).sum()) < 2:
        raise DataError(
            f"{int((sizes > 1).sum())} of {len(sizes)} groups have two runs; a discriminant needs two such groups. "
            "Give runs that were repeated at a setting (groups), or fit_principal, which needs none."
        )
    several = int((sizes > 1).sum())
    scores = None
    if ridge is None or components is None:
        if several < 2 * folds:
            raise DataError(
                f"{several} groups of two runs or more are too few to hold out parts of them ({folds} folds); expected "
                f"{2 * folds}. Give ridge and components, or fewer folds."
            )
        tried = [ridge] if ridge is not None else list(RIDGES)
        asked = min(components or _MOST, x.shape[1], len(sizes) - 1)
        ratios, shared = _held_out(x, g, tried, asked, folds)
        # The first code decides: further ones may be noise. Ties go to the larger ridge.
        best = len(tried) - 1 - int(ratios.flip(0).argmax())
        ridge, scores = tried[best], shared[best]
        if components is None:
            good = (scores > _SHARED).long().cumprod(0)
            components = max(1, int(good.sum()))
    components = min(components, x.shape[1], len(sizes) - 1)
    weights = _solve(*_scatter(x, g), ridge, components)
    if scores is None:
        scores = intraclass_correlation(x @ weights, g)
    return LinearMap(centre, scale, weights, scores[:components], ridge, clip)


def fit_views(first: Tensor, second: Tensor, components: int, ridge: float = 1e-3, clip: float = CLIP) -> LinearMap:
    """Fit the linear solution of VICReg: the codes with variance 1, uncorrelated, in which two views agree best.

        C₁₂ v = ρ (C + κ s I) v,    C₁₂ = (cov(x, x') + cov(x', x)) / 2,   C = (cov(x) + cov(x')) / 2

    ρ is the correlation of the code of two views; with maps of their own for both views it would be canonical
    correlation analysis, and for groups of two it is the discriminant: λ = (1 + ρ) / (1 - ρ).

    Args:
        first: features of a view of each run, (n, D); or of one run of each group.
        second: of another view of the same runs, or another run of the same groups, in the same order.
        components: R.
        ridge: κ > 0, in units of the mean variance.
        clip: see :func:`fit_discriminant`.

    Raises:
        ShapeError, DataError: as :func:`fit_discriminant`.
    """
    if first.shape != second.shape:
        raise ShapeError(f"views have features {tuple(first.shape)} and {tuple(second.shape)}; expected one row each.")
    both = torch.cat([first, second])
    rows = torch.arange(len(first), device=first.device).repeat(2)
    x, _, centre, scale = _prepared(both, rows, clip)
    x = x - x.mean(dim=0)
    a, b = x[: len(first)], x[len(first) :]
    cross = (a.T @ b + b.T @ a) / (2 * len(first))
    total = x.T @ x / len(x)
    weights, correlation = _generalised(cross, _regularised(total, ridge), min(components, x.shape[1]))
    return LinearMap(centre, scale, weights, correlation, ridge, clip)


def fit_principal(features: Tensor, components: int, clip: float = CLIP) -> LinearMap:
    """Fit principal components of standardised features: the directions of largest variance, whatever it comes from.

    Args:
        features: (n, D).
        components: R.
        clip: see :func:`fit_discriminant`.
    """
    x, _, centre, scale = _prepared(features, torch.arange(len(features)), clip)
    x = x - x.mean(dim=0)
    _, sigma, v = torch.linalg.svd(x, full_matrices=False)
    share = sigma.square() / sigma.square().sum().clamp_min(1e-300)
    count = min(components, len(sigma))
    return LinearMap(centre, scale, v[:count].T.contiguous(), share[:count], 0.0, clip)


def intraclass_correlation(codes: Tensor, groups: Tensor) -> Tensor:
    """Return the share of each code's variance that runs of a group have in common, (R,), at most 1.

        (B - W) / (B + (m - 1) W)

    B, W: mean squares between and within groups; m: size of a group, (n - Σ n_g² / n) / (G - 1) where they differ. It
    is 0 in the mean, also below, where groups mean nothing.

    Source: Shrout and Fleiss (1979), ICC(1, 1); unequal sizes: Donner (1986).
    """
    g = torch.unique(groups, return_inverse=True)[1]
    sizes = torch.bincount(g).to(codes.dtype)
    between, within = _mean_squares(codes, g)
    m = (len(g) - sizes.square().sum() / len(g)) / (len(sizes) - 1)
    return (between - within) / (between + (m - 1) * within).clamp_min(1e-300)


# ------------------------------------------------------------------------------------------------- parts


def _prepared(features: Tensor, groups: Tensor, clip: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = features.detach().double()
    if x.ndim != 2 or groups.shape != (len(x),) or len(x) < 3:
        raise ShapeError(
            f"got features {tuple(features.shape)} and groups {tuple(groups.shape)}; expected (n, D) and (n,), n >= 3."
        )
    if not bool(torch.isfinite(x).all()):
        raise DataError("features that are not finite; check the runs (check_finite) and the encoder.")
    centre, scale = x.mean(dim=0), x.std(dim=0, correction=0)
    constant = scale <= 1e-12 * centre.abs().clamp_min(torch.finfo(x.dtype).tiny)
    scale = torch.where(constant, torch.full_like(scale, torch.inf), scale)  # divided by, they are 0
    g = torch.unique(groups, return_inverse=True)[1]
    return ((x - centre) / scale).clamp(-clip, clip), g, centre, scale


def _means(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    sizes = torch.bincount(g).to(x.dtype)
    sums = torch.zeros(len(sizes), x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, g, x)
    return sums / sizes[:, None], sizes


def _scatter(x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return S_b and S_w, (D, D)."""
    means, sizes = _means(x, g)
    inside = x - means[g]
    apart = (means - x.mean(dim=0)) * sizes.sqrt()[:, None]
    return apart.T @ apart / (len(sizes) - 1), inside.T @ inside / (len(x) - len(sizes))


def _mean_squares(codes: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    means, sizes = _means(codes, g)
    apart = (means - codes.mean(dim=0)).square() * sizes[:, None]
    inside = (codes - means[g]).square()
    return apart.sum(dim=0) / (len(sizes) - 1), inside.sum(dim=0) / (len(codes) - len(sizes))


def _regularised(matrix: Tensor, ridge: float) -> Tensor:
    size = matrix.diagonal().mean().clamp_min(1e-12)
    return matrix + ridge * size * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def _generalised(a: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the leading solutions of A v = λ B v, vᵀ B v = 1: (D, R) and (R,)."""
    root = torch.linalg.cholesky(b)
    inner = torch.linalg.solve_triangular(root, a, upper=False)
    inner = torch.linalg.solve_triangular(root, inner.T, upper=False)
    values, vectors = torch.linalg.eigh((inner + inner.T) / 2)
    leading = vectors[:, -count:].flip(1)
    found = torch.linalg.solve_triangular(root.T, leading, upper=True)
    # The sign of an eigenvector is a matter of the library: its largest entry is positive.
    sign = found.gather(0, found.abs().argmax(dim=0, keepdim=True)).sign()
    return found * sign, values[-count:].flip(0)


def _solve(between: Tensor, within: Tensor, ridge: float, count: int) -> Tensor:
    return _generalised(between, _regularised(within, ridge), count)[0]


def _held_out(x: Tensor, g: Tensor, ridges: Sequence[float], count: int, folds: int) -> tuple[Tensor, Tensor]:
    """Return per ridge, on held-out groups, the log ratio of the first code (K,) and the correlations (K, R)."""
    sizes = torch.bincount(g)
    order = torch.argsort(sizes, descending=True, stable=True)  # groups of one size are spread over the folds
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order), device=order.device) % folds
    ratio = torch.zeros(len(ridges), dtype=x.dtype)
    shared = torch.zeros(len(ridges), count, dtype=x.dtype)
    for part in range(folds):
        out = fold[g] == part
        known, groups = x[~out], torch.unique(g[~out], return_inverse=True)[1]
        others, held = x[out], torch.unique(g[out], return_inverse=True)[1]
        scatter = _scatter(known, groups)
        for i, ridge in enumerate(ridges):
            codes = others @ _solve(*scatter, ridge, count)
            between, within = _mean_squares(codes[:, :1], held)
            ratio[i] += (between[0] / within[0].clamp_min(1e-300)).log() / folds
            shared[i, : codes.shape[1]] += intraclass_correlation(codes, held) / folds
    return ratio, shared
