"""Scores of predicted parameters and fields."""

# n rows, B batch, C channels, T time, X space

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["error_in_percent", "nmse", "nmse_per_frame", "r2", "relative_error"]


def _pair(name: str, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if prediction.shape != target.shape or prediction.ndim == 0 or prediction.shape[0] == 0:
        raise ShapeError(
            f"{name} got predictions {tuple(prediction.shape)} and targets {tuple(target.shape)}; expected one shape "
            "with at "
            "least one row."
        )
    return prediction.detach().double(), target.detach().double()


def relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of |p̂ - p| / |p| in per cent.

    Args:
        prediction: estimates.
        target: truth, in the parameters' own unit (not their logarithm), shape (n,) or (n, P), no entry 0.

    Raises:
        ShapeError: shapes that differ.
        ValueError: a target of 0.
    """
    prediction, target = _pair("relative_error", prediction, target)
    if (target == 0).any():
        raise ValueError("relative_error is not defined for a target of 0; use r2 or nmse.")
    return 100 * ((prediction - target).abs() / target.abs()).mean()


def error_in_percent(prediction: Tensor, target: Tensor) -> Tensor:
    """:func:`relative_error` of a parameter of one sign; of one that changes sign, mean |p̂ - p| over mean |p|, in %.

    Args:
        prediction: estimates.
        target: truth, in the parameter's own unit, shape (n,), not all 0.
    """
    if bool((target > 0).all() or (target < 0).all()):
        return relative_error(prediction, target)
    prediction, target = _pair("error_in_percent", prediction, target)
    return 100 * (prediction - target).abs().mean() / target.abs().mean()


def r2(prediction: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination, 1 - Σ (ŷ - y)² / Σ (y - mean y)².

    1 is exact, 0 as good as the mean of these targets, below 0 worse.

    Args:
        prediction: estimates.
        target: truth, shape (n,), n >= 2, not all equal (otherwise the result is not finite).
    """
    prediction, target = _pair("r2", prediction, target)
    return 1 - (prediction - target).square().sum() / (target - target.mean()).square().sum()


def nmse(prediction: Tensor, target: Tensor, centred: bool | None = None) -> Tensor:
    """Normalised mean square error.

    For parameters (n,): Σ (ŷ - y)² / Σ (y - mean y)², which is 1 for the mean prediction. For fields (B, ...): the mean
    over trajectories of Σ (û - u)² / Σ u², sums over everything but the trajectory; 1 for the prediction 0.

    Args:
        prediction: estimates.
        target: truth, of the same shape.
        centred: subtract the mean of the targets (parameters) or of each trajectory (fields) in the denominator; the
            default does so for parameters only.
    """
    prediction, target = _pair("nmse", prediction, target)
    if target.ndim == 1:
        reference = target - target.mean() if centred in (None, True) else target
        return (prediction - target).square().sum() / reference.square().sum()
    error = (prediction - target).flatten(1).square().sum(dim=1)
    flat = target.flatten(1)
    reference = flat - flat.mean(dim=1, keepdim=True) if centred else flat
    return (error / reference.square().sum(dim=1)).mean()


def nmse_per_frame(prediction: Tensor, target: Tensor) -> Tensor:
    """NMSE of each frame of a rollout: the mean over trajectories of Σ (û - u)² / Σ u², sums over channels and space.

    Args:
        prediction: estimates.
        target: truth, shape (B, C, T, *X).

    Returns:
        Shape (T,).
    """
    prediction, target = _pair("nmse_per_frame", prediction, target)
    if target.ndim < 3:
        raise ShapeError(f"nmse_per_frame got {tuple(target.shape)}; expected (B, C, T, *X).")
    error, power = ((a.square().transpose(1, 2).flatten(2).sum(dim=2)) for a in (prediction - target, target))
    return torch.where(power > 0, error / power, torch.full_like(error, torch.nan)).mean(dim=0)
