"""BYOL and SimSiam: a predictor on one view meets the other view behind a stop-gradient."""

# B rows of this process, D embedding width

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.objectives.distributed import check_embeddings, mean_over_rows, unit_rows
from pdessl.objectives.regularisation import Regulariser, make_regulariser, named_terms, regularity
from pdessl.objectives.terms import Terms
from pdessl.objectives.views import View, Views, over_pairs

__all__ = ["BYOL", "SimSiam", "cosine_term"]


def cosine_term(prediction: Tensor, target: Tensor, stop_gradient: bool = True) -> Tensor:
    """Mean cosine between a prediction and a target, over the rows of all processes.

    Args:
        prediction: what the predictor returned, shape (B, D).
        target: what it should return, shape (B, D).
        stop_gradient: the target receives no gradient.

    Raises:
        ShapeError: shapes that differ.
    """
    if prediction.shape != target.shape:
        raise ShapeError(
            f"the predictor returned {tuple(prediction.shape)} for a target {tuple(target.shape)}; expected the same "
            "shape: give it the embedding's width as its output."
        )
    target = target.detach() if stop_gradient else target
    with torch.autocast(prediction.device.type, enabled=False):
        return mean_over_rows((unit_rows(prediction) * unit_rows(target)).sum(dim=-1))


class BYOL(nn.Module):
    """A predictor guesses the slowly moving teacher's embedding of the other view: no negatives, no statistics.

        loss = [2 - 2 cos(q(z), t')] + [2 - 2 cos(q(z'), t)] + regulariser(z) + regulariser(z')

    t and t' are the teacher's embeddings of the two views (:class:`ExponentialMovingAverage` of encoder and projector);
    they receive no gradient. Behaviour: 0 to 8, and 0 when everything has collapsed: the loss cannot show collapse, the
    monitors can. Every call updates the predictor's batch norms twice, once per view.

    Args:
        predictor: q, network (B, D) -> (B, D). Without one BYOL collapses.
        regulariser: anti-collapse term on z and z': ``vc``, ``sigreg``, a callable, or None as published.

    Shapes:
        z, z', t, t' (B, D) -> terms loss, cosine (mean of both directions), and those of the regulariser.

    Raises:
        ShapeError: embeddings of different shapes.
        DataError: a non-finite entry.

    Source: Grill et al. (2020), arXiv:2006.07733, eq. 2; the sum over both directions as published.
    """

    choose_when: ClassVar[str] = "two views; baseline with a teacher, small batches; watch the monitors, not the loss"

    def __init__(self, predictor: nn.Module, regulariser: nn.Module | Regulariser | str | None = None) -> None:
        super().__init__()
        self.predictor, self.regulariser = predictor, make_regulariser("BYOL", regulariser, 1.0)

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self._pair(views[v], views[w]), "BYOL")

    def _pair(self, first: View, second: View) -> Any:
        return self.terms(first.embedding, second.embedding, first.taught, second.taught)

    def terms(self, z: Tensor, z_prime: Tensor, target: Tensor, target_prime: Tensor) -> Any:
        """Return the terms for the student's and the teacher's embeddings of both views."""
        check_embeddings("BYOL", (z, z_prime, target, target_prime), min_rows=1)
        cosine = cosine_term(self.predictor(z), target_prime) + cosine_term(self.predictor(z_prime), target)
        extra = regularity(self.regulariser, (z, z_prime))
        loss = 4 - 2 * cosine + extra.get("regularity", 0)
        return named_terms("BYOLTerms", loss, cosine=cosine.detach() / 2, **extra)


class SimSiam(nn.Module):
    """A predictor guesses the other view's embedding, which receives no gradient: BYOL without a teacher.

        loss = -½ cos(q(z), sg z') - ½ cos(q(z'), sg z) + regulariser(z) + regulariser(z')

    Behaviour: -1 to 1, and -1 when everything has collapsed: the loss cannot show collapse, the monitors can.

    Args:
        predictor: q, network (B, D) -> (B, D), with a narrow hidden layer.
        stop_gradient: ``False`` lets the target move too, which collapses (the published ablation).
        regulariser: anti-collapse term on z and z': ``vc``, ``sigreg``, a callable, or None as published.

    Shapes:
        z, z' (B, D) -> terms loss, cosine (mean of both directions), and those of the regulariser.

    Raises:
        ShapeError: embeddings of different shapes.
        DataError: a non-finite entry.

    Source: Chen, He (2021), arXiv:2011.10566, eq. 1 to 4.
    """

    choose_when: ClassVar[str] = "two views; baseline without a teacher; projector and predictor need batch norms"

    def __init__(
        self,
        predictor: nn.Module,
        stop_gradient: bool = True,
        regulariser: nn.Module | Regulariser | str | None = None,
    ) -> None:
        super().__init__()
        self.predictor, self.stop_gradient = predictor, stop_gradient
        self.regulariser = make_regulariser("SimSiam", regulariser, 0.25)

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self.terms(views[v].embedding, views[w].embedding), "SimSiam")

    def terms(self, z: Tensor, z_prime: Tensor) -> Any:
        """Return the terms for embeddings of two views, the same rows in the same order."""
        check_embeddings("SimSiam", (z, z_prime), min_rows=1)
        predictions = self.predictor(z), self.predictor(z_prime)
        cosine = sum(cosine_term(*pair, self.stop_gradient) for pair in zip(predictions, (z_prime, z), strict=True))
        extra = regularity(self.regulariser, (z, z_prime))
        loss = -cosine / 2 + extra.get("regularity", 0)
        return named_terms("SimSiamTerms", loss, cosine=cosine.detach() / 2, **extra)
