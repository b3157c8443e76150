"""Temporal JEPA: the latent of the next window is predicted from the latent of the past one."""

# B rows of this process, N tokens (positions in time and space), D latent width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError
from pdessl.objectives.distributed import check_embeddings
from pdessl.objectives.draws import StepDraws
from pdessl.objectives.latents import (
    DISTANCES,
    check_latents,
    chosen_latents,
    prediction_term,
    statistic_rows,
    unexplained,
)
from pdessl.objectives.regularisation import Regulariser, make_regulariser, named_terms, regularity

__all__ = ["TemporalJEPA"]


class TemporalJEPA(nn.Module):
    """The latent of the next window is predicted from that of the past, and kept from collapse without a teacher.

        loss = w mean (p - t)² + mean over chunks of Σ regulariser(...),    p = g(f(past)), t = f(next)

    Gradients flow through both branches: no teacher, no stop-gradient, no projector. As published the prediction and
    the target are regularised, 2 (p - t)² + 40 [½h(p) + ½h(t)] + 2 [c(p) + c(t)], h the hinge on the spread, c the
    covariance. Behaviour: 39.6 at collapse with these weights. Tokens of one sample are correlated, so the effective
    number of rows is below B N.

    Args:
        prediction: w >= 0.
        regulariser: anti-collapse term: ``vc`` (40 and 2), ``sigreg``, a callable, or None.
        regularise: which latents: of ``prediction``, ``target``, ``context``.
        rows: ``dense``, ``position`` or ``pooled`` (see :func:`statistic_rows`).
        chunks: the regulariser runs separately on this many random sets of tokens, with ``dense``. (The published code
            splits all rows at random; here the tokens are split, alike in every sample, so that the result does not
            depend on how the batch is spread over processes.)
        distance: ``square``, ``smooth_absolute`` or ``absolute``.
        stop_gradient: the target receives no gradient from the prediction term.
        seed: of the chunks.

    Shapes:
        prediction, target and context (B, N, D) or (B, D) -> terms loss, prediction, unexplained (error over the
        target's variance), and those of the regulariser, averaged over latents. Statistics are over all ranks.

    Raises:
        ShapeError, DataError: latents of different shapes, or not finite.
        SchemaError: a setting out of range.

    Source: Representation Learning for Spatiotemporal Physical Systems (2026), arXiv:2603.13227; VICReg's
        terms with n - 1 in the variance (``VarianceCovariance(unbiased_variance=False)`` is theirs).
    """

    choose_when: ClassVar[str] = "no views: runs in time and no augmentation to trust"

    def __init__(
        self,
        prediction: float = 2.0,
        regulariser: nn.Module | Regulariser | str | None = "vc",
        regularise: Sequence[str] = ("prediction", "target"),
        rows: Literal["dense", "position", "pooled"] = "dense",
        chunks: int = 1,
        distance: Literal["square", "smooth_absolute", "absolute"] = "square",
        stop_gradient: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not prediction >= 0 or chunks < 1 or distance not in DISTANCES:
            raise SchemaError(
                f"TemporalJEPA got prediction {prediction}, chunks {chunks}, distance '{distance}'; expected "
                f"prediction >= 0, chunks >= 1 and one of {', '.join(DISTANCES)}."
            )
        check_latents("TemporalJEPA", regularise, rows)
        self.prediction, self.distance, self.stop_gradient = prediction, distance, stop_gradient
        self.regulariser = make_regulariser("TemporalJEPA", regulariser, prediction, (20 * prediction, prediction))
        self.regularise, self.rows, self.chunks = tuple(regularise), rows, chunks
        self.draws = StepDraws(seed)

    @property
    def guarded(self) -> bool:
        """Whether something keeps a constant encoder, which predicts itself, from solving the task."""
        return self.regulariser is not None or self.stop_gradient

    def forward(self, prediction: Tensor, target: Tensor, context: Tensor | None = None) -> Any:
        """Return the terms for predicted latents, those of the target window and (if regularised) of the past."""
        latents = {"prediction": prediction, "target": target, "context": context}
        axes = "(B, D)" if prediction.ndim == 2 else "(B, N, D)"
        check_embeddings("TemporalJEPA", (prediction, target), axes=axes)
        chosen = chosen_latents("TemporalJEPA", self.regularise, latents)
        aim = target.detach() if self.stop_gradient else target
        error = prediction_term(prediction, aim, self.distance)
        parts = self._parts(prediction)
        sets = [rows for latent in chosen for rows in statistic_rows(latent, self.rows, parts)]
        extra = regularity(self.regulariser, sets)
        if extra:
            extra["regularity"] = extra["regularity"] / len(parts or [0])  # mean over chunks
        loss = self.prediction * error + extra.get("regularity", 0)
        rest = unexplained(prediction, target)
        return named_terms("TemporalJEPATerms", loss, prediction=error, unexplained=rest, **extra)

    def _parts(self, latent: Tensor) -> list[Tensor] | None:
        if self.chunks == 1 or latent.ndim == 2 or self.rows != "dense":
            return None
        order = torch.randperm(latent.shape[1], generator=self.draws()).to(latent.device)
        return list(order.tensor_split(min(self.chunks, latent.shape[1])))
