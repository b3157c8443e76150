"""Ridge regression in closed form, its penalty chosen by leave-one-out error."""

# n rows, D feature width, P targets

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = ["RidgeReadout", "fit_ridge", "left_out_residuals"]

PENALTIES = tuple(10.0**k for k in range(-8, 4))


class RidgeReadout(NamedTuple):
    """A fitted linear readout; call :meth:`predict` on features.

    Attributes:
        centre, scale: standardisation of the features, shape (D,).
        weights: shape (D, P), on standardised features.
        intercept: shape (P,).
        penalty: the κ that was chosen.
        leave_one_out: mean square leave-one-out error at that κ, over rows and targets.
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor
    intercept: Tensor
    penalty: float
    leave_one_out: float

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (n, P) for features (n, D), in float64."""
        if features.ndim != 2 or features.shape[1] != len(self.centre):
            raise ShapeError(f"readout got features {tuple(features.shape)}; expected (n, {len(self.centre)}).")
        return ((features.double() - self.centre) / self.scale) @ self.weights + self.intercept


def fit_ridge(
    features: Tensor, targets: Tensor, penalties: tuple[float, ...] = PENALTIES, weights: Tensor | None = None
) -> RidgeReadout:
    """Fit a ridge regression on standardised features; choose the penalty by exact leave-one-out error.

        w(κ) = (XᵀX + κ n I)⁻¹ XᵀY,   X and Y centred, the intercept is not penalised

    All penalties share one singular value decomposition of X. With its left vectors U and values σ, the fit is HY,
    H = U diag(σ²/(σ² + κn)) Uᵀ + 11ᵀ/n, and the leave-one-out residual of row i is (y_i - ŷ_i)/(1 - H_ii). With weights
    w_i (mean 1) means are weighted, rows of X and Y are multiplied by sqrt(w_i), and the last term of H_ii is w_i/n.

    Args:
        features: shape (n, D), n >= 3. Columns are standardised with their own mean and deviation; a constant column is
            given weight 0.
        targets: shape (n,) or (n, P), on the scale the error should be measured (the logarithm for a parameter that
            spans decades).
        penalties: grid of κ, > 0.
        weights: what a squared error of each row counts, shape (n,), > 0; only their ratios matter. Default all alike.

    Returns:
        The readout, in float64. Ties go to the larger penalty.

    Raises:
        ShapeError: rows that do not match, or fewer than three.
        DataError: a feature or target that is not finite.
    """
    x, y = features.detach().double(), targets.detach().double()
    y = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or y.ndim != 2 or x.shape[0] != y.shape[0] or x.shape[0] < 3:
        raise ShapeError(
            f"fit_ridge got features {tuple(features.shape)} and targets {tuple(targets.shape)}; expected (n, D) and "
            "(n,) or (n, P) with n >= 3."
        )
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise DataError("fit_ridge got features or targets that are not finite. Check the labels and the encoder.")
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"fit_ridge got penalties {penalties}; expected numbers > 0.")
    n = x.shape[0]
    w = _shares(weights, n)
    mean_of = lambda values: (w[:, None] * values).mean(dim=0)  # noqa: E731
    centre = mean_of(x)
    scale = mean_of((x - centre).square()).sqrt()
    # A column that is constant up to rounding stays 0 after centring, instead of becoming amplified rounding.
    constant = scale <= 1e-12 * centre.abs().clamp_min(torch.finfo(x.dtype).tiny)
    scale = torch.where(constant, torch.ones_like(scale), scale)
    x = torch.where(constant, torch.zeros_like(x), (x - centre) / scale)
    mean, root = mean_of(y), w.sqrt()[:, None]
    u, sigma, v = torch.linalg.svd(root * x, full_matrices=False)
    projected = u.T @ (root * (y - mean))
    best: tuple[float, float] | None = None
    for penalty in sorted(penalties, reverse=True):
        shrink = sigma**2 / (sigma**2 + penalty * n)
        leverage = (u.square() @ shrink) + w / n
        fitted = u @ (shrink[:, None] * projected) / root
        residual = (y - mean - fitted) / (1 - leverage)[:, None].clamp_min(1e-12)
        error = float((w[:, None] * residual.square()).mean())
        if best is None or error < best[0]:
            best = (error, penalty)
    assert best is not None  # noqa: S101  (the grid is not empty, checked above)
    error, penalty = best
    weights = v.T @ ((sigma / (sigma**2 + penalty * n))[:, None] * projected)
    return RidgeReadout(centre, scale, weights, mean, penalty, error)


def _shares(weights: Tensor | None, n: int) -> Tensor:
    """Weights of mean 1."""
    if weights is None:
        return torch.ones(n, dtype=torch.float64)
    if weights.shape != (n,) or not bool((weights > 0).all()) or not bool(torch.isfinite(weights).all()):
        raise DataError(f"weights of {n} rows: got shape {tuple(weights.shape)}; expected ({n},), finite and > 0.")
    return weights.double() / weights.double().mean()


def left_out_residuals(
    readout: RidgeReadout, features: Tensor, targets: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return y_i - ŷ_i with row i left out, (n, P), at the penalty that was chosen: (y - Hy)_i/(1 - H_ii).

    Args:
        readout: fitted on these rows.
        features: shape (n, D).
        targets: shape (n,) or (n, P).
        weights: those it was fitted with.
    """
    y = targets.detach().double()
    y = y[:, None] if y.ndim == 1 else y
    x = (features.detach().double() - readout.centre) / readout.scale
    w = _shares(weights, len(x))
    u, sigma, _ = torch.linalg.svd(w.sqrt()[:, None] * x, full_matrices=False)
    leverage = u.square() @ (sigma**2 / (sigma**2 + readout.penalty * len(x))) + w / len(x)
    return (y - readout.predict(features)) / (1 - leverage).clamp_min(1e-12)[:, None]
