"""MMCR: the mean embeddings of the samples span as large a volume as possible."""

# n rows over all processes, V views, D embedding width

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from pdessl.objectives.distributed import check_embeddings, gather_rows, mean_over_rows, unit_rows
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import Views

__all__ = ["MMCR", "MMCRTerms", "nuclear_norm"]


class MMCRTerms(NamedTuple):
    """Terms of :class:`MMCR`.

    ``loss`` is weighted; ``centroids`` is the nuclear norm of the centroids, ``local`` the mean over samples of that of
    their views, ``saturation`` the first over its upper bound (1: as large as it can be).
    """

    loss: Tensor
    centroids: Tensor
    local: Tensor
    saturation: Tensor


def nuclear_norm(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values of (..., a, b), shape (...)."""
    return torch.linalg.svdvals(matrix).sum(dim=-1)


class MMCR(nn.Module):
    """Maximum manifold capacity: views of a sample agree and samples fill the sphere, through one nuclear norm.

        loss = -‖C‖_* + λ mean over samples of ‖U_b‖_*,   C = rows mean over views of u,  u = z/‖z‖

    U_b (V, D) holds the unit rows of the V views of sample b; any V >= 2. Behaviour: -sqrt(n) when all rows are equal;
    at least -min(n, sqrt(n D)), reached by views that agree on a tight frame. It grows with n: compare ``saturation``
    across batch sizes. A row's scale and a common rotation do not enter.

    Args:
        local: λ >= 0; the authors use 0 on images.

    Shapes:
        z, z', ... each (B, D), any float dtype -> MMCRTerms of scalars in float32 (float64 in, float64 out). Centroids
        are gathered over all ranks; batches may differ in size.

    Raises:
        ShapeError: views that differ in shape, or are not (B, D).
        DataError: a non-finite entry.
        ValueError: a negative weight.

    Source: Yerxa, Kuang, Simoncelli, Chung (2023), arXiv:2303.03307; λ as in the authors' code.
    """

    choose_when: ClassVar[str] = "two or more views; nothing to tune, at one singular value decomposition per step"

    def __init__(self, local: float = 0.0) -> None:
        super().__init__()
        if not local >= 0:
            raise ValueError(f"MMCR: local is {local}; expected a weight >= 0.")
        self.local = local

    def forward(self, views: Views) -> Terms:
        """Return the terms of all views together."""
        embeddings = [view.embedding for view in views]
        return Terms.of(self.terms(*embeddings, global_views=views.global_views))

    def terms(self, z: Tensor, z_prime: Tensor, *more: Tensor, global_views: int | None = None) -> MMCRTerms:
        """Return the terms for embeddings of the views, the same rows in the same order.

        Args:
            z: embeddings of the first view, (B, D).
            z_prime: of the second.
            more: of further views.
            global_views: of no consequence: all views count alike.
        """
        given = (z, z_prime, *more)
        n = check_embeddings("MMCR", given, min_rows=1)
        with torch.autocast(z.device.type, enabled=False):
            views = torch.stack([unit_rows(view) for view in given], dim=1)
            centroids = nuclear_norm(gather_rows(views.mean(dim=1)))
            local = mean_over_rows(nuclear_norm(views)) if self.local else centroids.new_zeros(())
            bound = min(n, (n * z.shape[1]) ** 0.5)
            return MMCRTerms(self.local * local - centroids, centroids, local, centroids.detach() / bound)
