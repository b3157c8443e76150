"""Masked JEPA: latents of hidden space-time blocks are predicted from those of the visible tokens."""

# B rows of this process, M target blocks, N tokens of a block, D latent width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives.distributed import check_embeddings, full_precision
from pdessl.objectives.latents import (
    DISTANCES,
    check_latents,
    chosen_latents,
    prediction_term,
    statistic_rows,
    unexplained,
)
from pdessl.objectives.regularisation import Regulariser, make_regulariser, named_terms, regularity

__all__ = ["MaskedJEPA"]


class MaskedJEPA(nn.Module):
    """Latents of hidden blocks of space-time are predicted from the visible rest (I-JEPA, V-JEPA).

        loss = mean distance(p, sg LayerNorm(t)) + Σ regulariser(...)

    p: the predictor's latents at the hidden tokens, from the encoder's latents of the visible ones; t: latents at the
    same tokens of an encoder that saw everything, either a slow teacher (:class:`ExponentialMovingAverage`; no
    regulariser, as published) or the encoder itself with an anti-collapse term and no teacher. Draw the blocks with
    :class:`BlockMasks`. The loss alone does not show collapse when the teacher's tokens are normalised: watch
    ``unexplained`` and the monitors.

    Args:
        distance: ``smooth_absolute`` (I-JEPA's code), ``square`` (its paper) or ``absolute`` (V-JEPA).
        normalise_target: layer norm without scale or shift over the width of each target token.
        regulariser: anti-collapse term: None (teacher), ``vc``, ``sigreg`` or a callable.
        regularise: which latents: of ``prediction``, ``target``, ``context``. Those of the target are taken before
            normalisation and with gradient.
        rows: ``dense``, ``position`` or ``pooled`` (see :func:`statistic_rows`).
        stop_gradient: the target receives no gradient from the prediction term.
        prediction: weight of the prediction term, >= 0.

    Shapes:
        prediction and target (B, N, D) or (B, M, N, D), context (B, N', D) -> terms loss, prediction, unexplained,
        and those of the regulariser, averaged over latents. Statistics are over all ranks.

    Raises:
        ShapeError, DataError: latents of different shapes, or not finite.
        SchemaError: a setting out of range.

    Source: Assran et al. (2023), arXiv:2301.08243, section 3; Bardes et al. (2024), arXiv:2404.08471.
    """

    choose_when: ClassVar[str] = "no views: a transformer encoder and much data"

    def __init__(
        self,
        distance: Literal["square", "smooth_absolute", "absolute"] = "smooth_absolute",
        normalise_target: bool = True,
        regulariser: nn.Module | Regulariser | str | None = None,
        regularise: Sequence[str] = ("target",),
        rows: Literal["dense", "position", "pooled"] = "dense",
        stop_gradient: bool = True,
        prediction: float = 1.0,
    ) -> None:
        super().__init__()
        if not prediction >= 0 or distance not in DISTANCES:
            raise SchemaError(
                f"MaskedJEPA got prediction {prediction} and distance '{distance}'; expected a weight >= 0 and one of "
                f"{', '.join(DISTANCES)}."
            )
        check_latents("MaskedJEPA", regularise, rows)
        self.distance, self.normalise_target, self.stop_gradient = distance, normalise_target, stop_gradient
        self.regulariser = make_regulariser("MaskedJEPA", regulariser, prediction)
        self.regularise = tuple(regularise) if regulariser is not None else ()
        self.rows, self.prediction = rows, prediction

    @property
    def guarded(self) -> bool:
        """Whether something besides a teacher keeps a constant encoder from solving the task."""
        return self.regulariser is not None

    def forward(self, prediction: Tensor, target: Tensor, context: Tensor | None = None) -> Any:
        """Return the terms for predicted latents, target latents at the same tokens, and (if regularised) context."""
        if prediction.ndim not in (3, 4):
            raise ShapeError(
                f"MaskedJEPA got predictions {tuple(prediction.shape)}; expected (B, N, D), or (B, M, N, D) for M "
                "blocks."
            )
        axes = "(B, N, D)" if prediction.ndim == 3 else "(B, M, N, D)"
        check_embeddings("MaskedJEPA", (prediction, target), min_rows=1, axes=axes)
        chosen = chosen_latents(
            "MaskedJEPA", self.regularise, {"prediction": prediction, "target": target, "context": context}
        )
        with torch.autocast(target.device.type, enabled=False):
            aim = full_precision(target.detach() if self.stop_gradient else target)
            aim = functional.layer_norm(aim, aim.shape[-1:]) if self.normalise_target else aim
        error = prediction_term(prediction, aim, self.distance)
        extra = regularity(self.regulariser, [r for latent in chosen for r in statistic_rows(latent, self.rows)])
        loss = self.prediction * error + extra.get("regularity", 0)
        rest = unexplained(prediction, aim)
        return named_terms("MaskedJEPATerms", loss, prediction=error, unexplained=rest, **extra)
