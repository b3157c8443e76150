"""Quantiles of the error of a prediction, from the errors of labelled runs that look alike."""

# n labelled runs, m new runs, D feature width, k neighbours

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["residual_quantiles"]


def residual_quantiles(
    known: Tensor, residuals: Tensor, features: Tensor, level: float, neighbours: int = 32
) -> tuple[Tensor, Tensor]:
    """Return the (1 - level)/2 and (1 + level)/2 quantiles of the residuals of the k nearest labelled runs.

    Added to predictions they are lower and upper quantiles that follow the features: nearest-neighbour quantile
    regression of the residuals. They promise nothing by themselves; conformalise them
    (:meth:`pdessl.evaluation.intervals.Conformal.calibrate` with ``upper``).

    Args:
        known: features of the labelled runs, (n, D); distances are taken after standardising with their deviations.
        residuals: truth less prediction of each, with itself left out, (n,), on the scale of the prediction.
        features: of new runs, (m, D).
        level: in (0, 1).
        neighbours: k >= 2, at most n.

    Returns:
        lower and upper, (m,) each, float64.

    Raises:
        ShapeError: rows or widths that do not fit.

    Source: Bhattacharya, Gangopadhyay (1990), Annals of Statistics 18(3): quantiles of nearest neighbours.
    """
    x, r, q = known.double(), residuals.double().reshape(-1), features.double()
    if x.ndim != 2 or len(r) != len(x) or q.ndim != 2 or q.shape[1] != x.shape[1] or len(x) < 2:
        raise ShapeError(
            f"residual_quantiles got features {tuple(x.shape)}, residuals {tuple(r.shape)} and queries "
            f"{tuple(q.shape)}; expected (n, D), (n,) and (m, D)."
        )
    scale = x.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    nearest = torch.cdist(q / scale, x / scale).topk(max(2, min(neighbours, len(x))), dim=1, largest=False).indices
    local = r[nearest]
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64, device=x.device)
    low, high = torch.quantile(local, ends, dim=1)
    return low, high
