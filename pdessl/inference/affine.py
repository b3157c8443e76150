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
    """p = a + b·z, fitted with weights 1/p², so that relative errors count alike over the range of the labels.

    Args:
        intercept: a.
        weights: b, (R,).

    The affine map holds beyond the labels' range, where the law does: predictions are not bounded by it.
    """

    intercept: float
    weights: Tensor

    @staticmethod
    def fit(codes: Tensor, labels: Tensor, weights: Tensor | None = None) -> AffineReadout:
        """Fit on codes (n, R) and labels (n,), the parameter itself and not its logarithm.

        Tried are p = b·z_j with one code alone, and the affine map of all; the smallest leave-one-out relative error
        chooses. Two labels suffice for the former, as codes are coefficients of terms.

        Args:
            codes: (n, R).
            labels: (n,).
            weights: what a squared relative error of each run counts, (n,), > 0. Default all alike.

        Raises:
            ShapeError: shapes that do not fit, or fewer than two labels.
            DataError: labels that are 0 or not finite.
        """
        if codes.ndim != 2 or labels.shape != codes.shape[:1] or len(labels) < 2:
            raise ShapeError(
                f"codes {tuple(codes.shape)} and labels {tuple(labels.shape)}; expected (n, R) and (n,), n >= 2."
            )
        labels, z = labels.double(), codes.double()
        if not bool(torch.isfinite(labels).all()) or bool((labels == 0).any()):
            raise DataError("labels that are 0 or not finite have no relative error; leave these runs out.")
        size = z.square().mean(dim=0).sqrt().clamp_min(1e-300)
        ones = torch.ones_like(labels)[:, None]
        tried = [((1 + j,), (z[:, j : j + 1] / size[j])) for j in range(z.shape[1])]
        if len(labels) > z.shape[1] + 1:
            tried.append((tuple(range(z.shape[1] + 1)), torch.cat([ones, z / size], dim=1)))
        best, found = torch.inf, torch.zeros(z.shape[1] + 1, dtype=torch.float64)
        for places, columns in tried:
            error, values = _left_out(columns / labels[:, None], ones[:, 0] if weights is None else weights.double())
            if error < best:
                best, found = error, torch.zeros_like(found)
                found[list(places)] = values
        return AffineReadout(float(found[0]), found[1:] / size)

    def predict(self, features: Tensor) -> Tensor:
        """Return predictions (m,) for codes (m, R)."""
        return self.intercept + features.double() @ self.weights


def _left_out(columns: Tensor, weights: Tensor) -> tuple[float, Tensor]:
    """Return the weighted mean square leave-one-out residual of columns·w = 1, and w."""
    root = weights.sqrt()
    inverse = torch.linalg.pinv(root[:, None] * columns)
    values = inverse @ root
    leverage = (root[:, None] * columns * inverse.T).sum(dim=1).clamp(max=1 - 1e-9)
    residual = (1 - columns @ values) / (1 - leverage)
    return float((weights * residual.square()).sum() / weights.sum()), values
