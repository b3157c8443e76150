"""Latents of predictive objectives: distance to a target, and the rows that keep them from collapse."""

# B rows of this process, N tokens (positions in time and space), D latent width, n rows of a statistic

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pdessl.errors import SchemaError
from pdessl.objectives.distributed import check_embeddings, full_precision, mean_over_rows, row_count
from pdessl.objectives.variance_covariance import centred

__all__ = ["DISTANCES", "check_latents", "chosen_latents", "prediction_term", "statistic_rows", "unexplained"]

DISTANCES = ("square", "smooth_absolute", "absolute")


def prediction_term(prediction: Tensor, target: Tensor, distance: str = "square") -> Tensor:
    """Mean distance of a prediction and its target over all entries, rows of all processes.

    Args:
        prediction: shape (B, ..., D).
        target: the same shape.
        distance: ``square``, ``absolute``, or ``smooth_absolute`` (d²/2 below 1, |d| - 1/2 above).
    """
    with torch.autocast(prediction.device.type, enabled=False):
        prediction, target = full_precision(prediction), full_precision(target)
        difference = prediction - target
        if distance == "square":
            return mean_over_rows(difference.square())
        if distance == "absolute":
            return mean_over_rows(difference.abs())
        return mean_over_rows(functional.smooth_l1_loss(prediction, target, reduction="none"))


@torch.no_grad()
def unexplained(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean square error over the variance of the target, over all rows: 1 is no better than predicting the mean.

    Args:
        prediction: shape (B, ..., D).
        target: the same shape.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        rows = full_precision(target).reshape(-1, target.shape[-1])
        spread = mean_over_rows(centred(rows, row_count(rows)).square())
        return prediction_term(prediction, target) / spread.clamp_min(torch.finfo(rows.dtype).tiny)


def statistic_rows(latent: Tensor, rows: str, parts: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Return what the anti-collapse term is given: sets of rows (..., n, D) made from latents (B, N, D) or (B, D).

    Args:
        latent: latents.
        rows: ``dense`` (each token of each sample is a row), ``position`` (samples are the rows, separately at each
            token) or ``pooled`` (samples are the rows, tokens averaged).
        parts: with ``dense``, sets of token indices that are regularised separately; None for one set.
    """
    if latent.ndim == 2:
        return [latent]
    latent = latent.flatten(1, -2)
    if rows == "pooled":
        return [full_precision(latent).mean(dim=1)]
    if rows == "position":
        return [latent.transpose(0, 1)]
    return [latent.flatten(0, 1)] if parts is None else [latent[:, part].flatten(0, 1) for part in parts]


def check_latents(objective: str, regularise: Sequence[str], rows: str) -> None:
    """Check the choice of latents and rows of an objective that regularises latents.

    Raises:
        SchemaError: a name that is not known.
    """
    known = ("prediction", "target", "context")
    if not set(regularise) <= set(known) or rows not in ("dense", "position", "pooled"):
        raise SchemaError(
            f"{objective} got regularise {list(regularise)} and rows '{rows}'; expected names of {', '.join(known)}, "
            "and dense, position or pooled."
        )


def chosen_latents(objective: str, regularise: Sequence[str], latents: dict[str, Tensor | None]) -> list[Tensor]:
    """Return the latents that are regularised.

    Raises:
        SchemaError: one that was not passed.
        ShapeError, DataError: a context of another shape, or not finite.
    """
    missing = [name for name in regularise if latents[name] is None]
    if missing:
        raise SchemaError(f"{objective} regularises {', '.join(missing)}, which was not passed; pass or drop it.")
    if "context" in regularise:
        check_embeddings(
            objective, (latents["context"],), axes="(B, D)" if latents["context"].ndim == 2 else "(B, N, D)"
        )
    return [latents[name] for name in regularise]
