"""A parameter as an affine function of codes that are already nearly it: 1 + R numbers, from as few as two labels."""

# n labelled runs, m new runs, R codes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError

__all__ = ["AffineReadout"]


@dataclass(frozen=True, eq=False)
class AffineReadout:
    """p = a + b·z with weights 1/p², so that relative errors count alike over the range of the labels.

    Args:
        intercept: a.
        weights: b, (R,).

    The affine map holds beyond the labels' range, where the law does: predictions are not bounded by it.
    """

    intercept: float
    weights: Tensor

    @staticmethod
    def fit(codes: Tensor, labels: Tensor) -> AffineReadout:
        """Fit on codes (n, R) and labels (n,), the parameter itself and not its logarithm.

        With fewer labels than 1 + R, the smallest weights that fit are taken.

        Raises:
            ShapeError: shapes that do not fit, or fewer than two labels.
            DataError: labels that are 0 or not finite.
        """
        if codes.ndim != 2 or labels.shape != codes.shape[:1] or len(labels) < 2:
            raise ShapeError(
                f"codes {tuple(codes.shape)} and labels {tuple(labels.shape)}; expected (n, R) and (n,), n >= 2."
            )
        labels = labels.double()
        if not bool(torch.isfinite(labels).all()) or bool((labels == 0).any()):
            raise DataError("labels that are 0 or not finite have no relative error; leave these runs out.")
        z, weight = codes.double(), labels.abs().reciprocal()
        centre, scale = z.mean(dim=0), z.std(dim=0, correction=0)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        columns = torch.cat([torch.ones_like(labels)[:, None], (z - centre) / scale], dim=1)
        found = torch.linalg.pinv(columns * weight[:, None]) @ (labels * weight)
        slopes = found[1:] / scale
        return AffineReadout(float(found[0] - slopes @ centre), slopes)

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for codes (m, R)."""
        return self.intercept + features.double() @ self.weights
