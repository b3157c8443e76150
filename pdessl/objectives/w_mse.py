"""W-MSE: agreement of two views after each has been whitened."""

# n rows over all processes, m rows of a sub-batch, D embedding width

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.errors import DataError
from pdessl.objectives.distributed import check_embeddings, full_precision, gather_rows, unit_rows
from pdessl.objectives.draws import StepDraws
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views, over_pairs

__all__ = ["WMSE", "WMSETerms", "whiten"]


class WMSETerms(NamedTuple):
    """Terms of :class:`WMSE`: the loss, and the mean cosine between whitened views."""

    loss: Tensor
    cosine: Tensor


def whiten(z: Tensor, shrinkage: float = 0.0) -> Tensor:
    """Return the rows with zero mean and identity covariance: w = ẑ L⁻ᵀ, (1 - ε) cov(z) + ε I = L Lᵀ.

    Args:
        z: embeddings, shape (..., m, D), m > D unless ``shrinkage`` > 0; float32 or float64. Leading axes are
            independent sets.
        shrinkage: ε in [0, 1]. Above 0 the covariance of the result is not exactly I.

    Raises:
        DataError: the covariance is singular in the arithmetic used.
    """
    deviations = z - z.mean(dim=-2, keepdim=True)
    covariance = deviations.mT @ deviations / (z.shape[-2] - 1)
    identity = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    factor, info = torch.linalg.cholesky_ex((1 - shrinkage) * covariance + shrinkage * identity)
    # Rounding may leave a positive pivot where the matrix is singular: compare the pivots with the diagonal.
    diagonal = covariance.detach().diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo(z.dtype).tiny)
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1).square() / (diagonal + shrinkage)
    if bool(info.any()) or float(pivots.min()) < z.shape[-1] * torch.finfo(z.dtype).eps:
        raise DataError(
            f"W-MSE cannot whiten {z.shape[-2]} rows of width {z.shape[-1]}: their covariance is singular. The "
            "embeddings have collapsed, or the sub-batch is too small: use sub_batch >= 2 D, a smaller width, or "
            "shrinkage > 0."
        )
    return torch.linalg.solve_triangular(factor, deviations.mT, upper=False).mT


class WMSE(nn.Module):
    """Two views point the same way after each has been whitened: collapse is impossible by construction.

        loss = mean over rows of 2 - 2 cos(w, w'),   w = whiten(z), w' = whiten(z')

    The whitening is by the Cholesky factor, on sub-batches of m rows drawn from the rows of all processes. Behaviour: 0
    to 4, 2 for independent views. A shift of a view changes nothing, nor (without shrinkage) does a map ẑ -> ẑ Aᵀ with
    A lower triangular of positive diagonal; any other linear map rotates the view's w. A covariance that cannot be
    whitened is an error, not a large loss.

    Args:
        sub_batch: m; a multiple of it is used and the remaining rows are left out of that step. None whitens all rows
            together. m >= 2 D is advised: at m close to D every whitened row has nearly the same length and little is
            learned.
        shrinkage: ε in [0, 1): (1 - ε) cov + ε I is whitened.
        seed: of the sub-batches.

    Shapes:
        z, z' (B, D), any float dtype -> WMSETerms of scalars in float32 (float64 in, float64 out). Rows are gathered
        over all ranks; batches may differ in size.

    Raises:
        ShapeError: z and z' differ in shape, or are not (B, D).
        DataError: a non-finite entry, or a singular covariance.
        ValueError: n or m not above D while ``shrinkage`` is 0, or a setting out of range.

    Source: Ermolov, Siarohin, Sangineto, Sebe (2021), arXiv:2007.06346, section 3; shrinkage as in the authors' code.
    """

    choose_when: ClassVar[str] = "two views; narrow embeddings (D of 64 to 128) in batches of several times that"

    def __init__(self, sub_batch: int | None = None, shrinkage: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        if not 0 <= shrinkage < 1 or (sub_batch is not None and sub_batch < 2):
            raise ValueError(
                f"WMSE got sub_batch {sub_batch} and shrinkage {shrinkage}; expected sub_batch >= 2 or None, and "
                "0 <= shrinkage < 1."
            )
        self.sub_batch, self.shrinkage = sub_batch, shrinkage
        self.draws = StepDraws(seed)

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self.terms(views[v].embedding, views[w].embedding), "WMSE")

    def terms(self, z: Tensor, z_prime: Tensor) -> WMSETerms:
        """Return the terms for embeddings of two views, the same rows in the same order."""
        n, width = check_embeddings("WMSE", (z, z_prime)), z.shape[1]
        rows = n if self.sub_batch is None else min(self.sub_batch, n)
        if rows <= width and self.shrinkage == 0:
            raise ValueError(
                f"WMSE got {rows} rows to whiten (batch {n}, sub_batch {self.sub_batch}) of width {width}; expected "
                f"more rows than columns, better {2 * width} or more. Use a narrower projector or larger batches."
            )
        with torch.autocast(z.device.type, enabled=False):
            views = [gather_rows(full_precision(view)) for view in (z, z_prime)]
            if rows < n:
                kept = torch.randperm(n, generator=self.draws())[: n // rows * rows].to(z.device)
                views = [view[kept].unflatten(0, (-1, rows)) for view in views]
            first, second = (unit_rows(whiten(view, self.shrinkage)) for view in views)
            cosine = (first * second).sum(dim=-1).mean()
            return WMSETerms(2 - 2 * cosine, cosine.detach())
