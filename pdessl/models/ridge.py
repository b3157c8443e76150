"""Ridge regression in closed form, its penalty chosen by leave-one-out error."""

# n rows or runs, V views of a run, D feature width, P targets

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = ["RidgeReadout", "fit_ridge", "fit_ridge_on_views", "left_out_residuals"]

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
    w = _shares(weights, n).to(x.device)
    x, centre, scale = _standardised(x, w)
    mean, root = (w[:, None] * y).mean(dim=0), w.sqrt()[:, None]
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


def _standardised(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return columns of weighted mean 0 and variance 1, and what was taken from them."""
    centre = (w[:, None] * x).mean(dim=0)
    scale = (w[:, None] * (x - centre).square()).mean(dim=0).sqrt()
    # A column that is constant up to rounding stays 0 after centring, instead of becoming amplified rounding.
    constant = scale <= 1e-12 * centre.abs().clamp_min(torch.finfo(x.dtype).tiny)
    scale = torch.where(constant, torch.ones_like(scale), scale)
    return torch.where(constant, torch.zeros_like(x), (x - centre) / scale), centre, scale


def fit_ridge_on_views(
    features: Tensor,
    targets: Tensor,
    penalties: tuple[float, ...] = PENALTIES,
    weights: Tensor | None = None,
) -> tuple[RidgeReadout, Tensor]:
    """Fit a ridge regression with every view of every run as a row; choose the penalty by leaving whole runs out.

    The readout is that of :func:`fit_ridge` on n V rows, the label of a run repeated. It is linear: on features
    averaged over the views of a run it gives the average of its predictions for them. Few labelled runs, each seen in
    several ways, so say what differs between views of one run and is no matter of the label. With run g left out, all
    of its views are: r_g = (I - H_gg)⁻¹ (y - ŷ)_g, exactly, H_gg its block of the hat matrix. What is compared is the
    error of the averaged prediction.

    Args:
        features: shape (n, V, D), n >= 3.
        targets: shape (n,), on the scale the error should be measured.
        penalties: grid of κ, > 0.
        weights: what a squared error of each run counts, (n,), > 0; None: all alike.

    Returns:
        The readout, in float64, its ``leave_one_out`` that of averaged predictions; and y_g - ŷ_g of averaged
        predictions with run g left out, (n,). Ties go to the larger penalty.

    Raises:
        ShapeError: rows that do not match, or fewer than three runs.
        DataError: a feature, target or weight that is not finite.
    """
    x, y = features.detach().double(), targets.detach().double()
    if x.ndim != 3 or y.shape != x.shape[:1] or x.shape[0] < 3:
        raise ShapeError(
            f"fit_ridge_on_views got features {tuple(features.shape)} and targets {tuple(targets.shape)}; expected "
            "(n, V, D) and (n,) with n >= 3."
        )
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise DataError("fit_ridge_on_views got features or targets that are not finite. Check labels and encoder.")
    runs, views = x.shape[:2]
    n, one = runs * views, torch.eye(views, dtype=x.dtype, device=x.device)
    own = _shares(weights, runs).to(x.device)
    w = own.repeat_interleave(views)
    rows, centre, scale = _standardised(x.flatten(0, 1), w)
    mean, root = (own * y).mean(), w.sqrt()
    u, sigma, v = torch.linalg.svd(root[:, None] * rows, full_matrices=False)
    rest = root * (y - mean).repeat_interleave(views)
    projected, blocks = u.T @ rest, u.reshape(runs, views, -1)
    best: tuple[float, float, Tensor] | None = None
    for penalty in sorted(penalties, reverse=True):
        shrink = sigma**2 / (sigma**2 + penalty * n)
        hat = (blocks * shrink) @ blocks.mT + own[:, None, None] / n
        residual = (rest - u @ (shrink * projected)).reshape(runs, views, 1)
        # As in fit_ridge, what leaves no residual at all is bounded: eigenvalues of H_gg reach 1.
        left = torch.linalg.solve((1 + 1e-14) * one - hat, residual)[..., 0].mean(dim=1) / own.sqrt()
        error = float((own * left.square()).mean())
        if best is None or error < best[0]:
            best = error, penalty, left
    assert best is not None  # noqa: S101  (the grid is not empty)
    error, penalty, left = best
    coefficients = v.T @ (sigma / (sigma**2 + penalty * n) * projected)
    return RidgeReadout(centre, scale, coefficients[:, None], mean[None], penalty, error), left


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
    w = _shares(weights, len(x)).to(x.device)
    u, sigma, _ = torch.linalg.svd(w.sqrt()[:, None] * x, full_matrices=False)
    leverage = u.square() @ (sigma**2 / (sigma**2 + readout.penalty * len(x))) + w / len(x)
    return (y - readout.predict(features)) / (1 - leverage).clamp_min(1e-12)[:, None]
