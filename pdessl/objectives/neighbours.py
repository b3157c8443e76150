"""Nearest-neighbour regression: a probe of a representation that has nothing to train."""

# n labelled rows, m queries, D width, P targets, k neighbours

from __future__ import annotations

import torch
from torch import Tensor

from pdessl.errors import DataError, ShapeError
from pdessl.objectives.distributed import unit_rows

__all__ = ["nearest_neighbour_prediction"]

# Rows of queries compared at once: bounds the table of distances to a few ten megabytes.
_BLOCK = 1024


def nearest_neighbour_prediction(
    features: Tensor, targets: Tensor, queries: Tensor | None = None, neighbours: int = 10, cosine: bool = True
) -> Tensor:
    """Mean target of the k nearest labelled rows.

    Args:
        features: of labelled rows, shape (n, D).
        targets: their values, shape (n,) or (n, P), on the scale the error is measured on (log of a parameter).
        queries: features to predict for, shape (m, D). None: the labelled rows themselves, each without itself
            (leave-one-out).
        neighbours: k >= 1; at most the number of rows there are to choose from.
        cosine: nearness by the angle between features; ``False`` by their distance.

    Returns:
        Shape (m,) or (m, P), float64.

    Raises:
        ShapeError: rows or widths that do not match, or fewer than k rows to choose from.
        DataError: a feature that is not finite.

    Source: Wu, Xiong, Yu, Lin (2018), arXiv:1805.01978, section 3.4, with equal weights.
    """
    alone = queries is None
    x, y, q = (t.detach().double() for t in (features, targets, features if alone else queries))
    if x.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(x) or q.ndim != 2 or q.shape[1] != x.shape[1]:
        raise ShapeError(
            f"nearest neighbours got features {tuple(x.shape)}, targets {tuple(y.shape)} and queries {tuple(q.shape)}; "
            "expected (n, D), (n,) or (n, P), and (m, D)."
        )
    if not 1 <= neighbours <= len(x) - alone:
        raise ShapeError(f"nearest neighbours got {len(x)} labelled rows; expected more than {neighbours} neighbours.")
    if not (torch.isfinite(x).all() and torch.isfinite(q).all()):
        raise DataError("nearest neighbours got features that are not finite. Check the encoder.")
    if cosine:
        x, q = unit_rows(x), unit_rows(q)
    predictions = []
    for start in range(0, len(q), _BLOCK):
        distance = torch.cdist(q[start : start + _BLOCK], x)
        if alone:
            row = torch.arange(len(distance), device=x.device)
            distance[row, row + start] = torch.inf
        predictions.append(y[distance.topk(neighbours, dim=1, largest=False).indices].mean(dim=1))
    return torch.cat(predictions)
