"""SIE: a representation split into what a transformation leaves and what it moves, the latter predicted."""

# B rows of this process, D_e width of the equivariant part, k coordinates of a group element

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pdessl.errors import SchemaError, ShapeError
from pdessl.objectives.distributed import check_embeddings, full_precision, mean_over_rows
from pdessl.objectives.regularisation import Regulariser, make_regulariser, named_terms, regularity
from pdessl.objectives.terms import Terms
from pdessl.objectives.variance_covariance import variance_term
from pdessl.objectives.vicreg import invariance_term
from pdessl.objectives.views import Views, over_pairs

__all__ = ["SIE", "GroupAction", "composition_error"]

# In steps of norm <= 1 the rest of the series is below 1/19! = 8e-18. Beyond the largest number of steps, which only a
# diverging training reaches, the matrix is cheaper.
_TAYLOR_ORDER, _MAX_STEPS = 18, 16


class GroupAction(nn.Module):
    """Linear action of a group element on an embedding, exactly the identity at the identity element g = 0.

        affine:       ŷ = z + Σ_j g_j z H_jᵀ                    W(g) = I + H(g), a linear hypernetwork without bias
        exponential:  ŷ = z exp(Σ_j g_j H_j)ᵀ                   W(-g) = W(g)⁻¹; represents rotations by any angle

    H starts at 0, so that the first prediction is "nothing moves". Neither form makes D² numbers per row: the affine
    action costs k D² per row, the exponential some twenty times that (a Taylor series in steps of norm at most 1).

    Args:
        coordinates: k, coordinates of a group element, 0 at the identity (strengths of generators).
        width: D, of the embedding it acts on.
        form: ``affine`` or ``exponential``.

    Shapes:
        z (B, D), g (B, k) -> (B, D).

    Raises:
        SchemaError: a form that is not known, or a size below 1.
        ShapeError: z or g of another shape.

    Source: Garrido, Najman, LeCun (2023), arXiv:2302.10283 (hypernetwork); I + H and the exponential:
        ours, because a linear map of Lie coordinates alone would predict 0 at the identity.
    """

    def __init__(self, coordinates: int, width: int, form: Literal["affine", "exponential"] = "affine") -> None:
        super().__init__()
        if form not in ("affine", "exponential") or coordinates < 1 or width < 1:
            raise SchemaError(
                f"GroupAction got coordinates {coordinates}, width {width}, form '{form}'; expected sizes >= 1 and "
                "affine or exponential."
            )
        self.form = form
        self.generators = nn.Parameter(torch.zeros(coordinates, width, width))

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"coordinates={self.generators.shape[0]}, width={self.generators.shape[1]}, form={self.form}"

    def matrix(self, element: Tensor) -> Tensor:
        """Return W(g), shape (B, D, D), for elements (B, k), in float32 (float64 stays)."""
        generators = full_precision(self.generators)
        total = torch.einsum("bk,kij->bij", element.to(generators.dtype), generators)
        if self.form == "exponential":
            return torch.linalg.matrix_exp(total)
        return total + torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)

    def forward(self, z: Tensor, element: Tensor) -> Tensor:
        """Return the embedding moved by the element."""
        coordinates, width = self.generators.shape[:2]
        if z.ndim != 2 or z.shape[1] != width or element.shape != (z.shape[0], coordinates):
            raise ShapeError(
                f"GroupAction got z {tuple(z.shape)} and element {tuple(element.shape)}; expected (B, {width}) and "
                f"(B, {coordinates})."
            )
        with torch.autocast(z.device.type, enabled=False):
            # Exactness at the identity and of inverses is worth float32.
            z = full_precision(z)
            element, generators = element.to(z.dtype), self.generators.to(z.dtype)
            if self.form == "affine":
                return z + _generated(z, element, generators)
            bound = float((element.detach().abs() @ generators.detach().abs().sum(dim=1).amax(dim=1)).amax())
            if not bound <= _MAX_STEPS:  # NaN too: the loss then shows it
                return torch.einsum("bij,bj->bi", self.matrix(element).to(z.dtype), z)
            steps = max(1, math.ceil(bound))
            for _ in range(steps):
                term = z
                for order in range(1, _TAYLOR_ORDER + 1):
                    term = _generated(term, element, generators) / (steps * order)
                    z = z + term
            return z


def _generated(z: Tensor, element: Tensor, generators: Tensor) -> Tensor:
    """(Σ_j g_j H_j) z, row by row."""
    return torch.einsum("bk,bkd->bd", element, torch.einsum("bj,kdj->bkd", z, generators))


@torch.no_grad()
def composition_error(action: GroupAction, first: Tensor, second: Tensor, composed: Tensor) -> Tensor:
    """How far the action is from a representation: ‖W(g₂∘g₁) - W(g₂) W(g₁)‖ / ‖W(g₂) W(g₁)‖, per row.

    A diagnostic, not a loss.

    Args:
        action: W.
        first: g₁, shape (B, k).
        second: g₂, shape (B, k).
        composed: g₂∘g₁, from composing the flows; g₁ + g₂ only where the generators commute.
    """
    product = action.matrix(second) @ action.matrix(first)
    return (action.matrix(composed) - product).norm(dim=(1, 2)) / product.norm(dim=(1, 2))


class SIE(nn.Module):
    """Split embedding: one part is left by the transformation drawn, the other moves as the group element says.

        loss = λ mean (z_i - z_i')² + λκ mean (ŷ - z_e')² + regulariser(z) + regulariser(z') + μ v(ŷ),
        ŷ = predictor(z_e, g),   z = [z_i, z_e]

    g holds the coordinates of the element that carries view 1 to view 2, g₂∘g₁⁻¹ from composing the flows (the
    difference of drawn strengths only where the generators commute). What symmetries move is predicted instead of
    discarded. With one projector for both parts the two may mix below it; :class:`pdessl.models.SplitProjector` keeps
    them apart down to the features, as published. The anti-collapse term runs on the whole vector, so that the two
    parts decorrelate; v(ŷ), the hinge on the spread of the prediction, keeps the predictor from answering a constant.

    Args:
        predictor: network (z_e (B, D_e), g (B, k)) -> (B, D_e); :class:`GroupAction` is linear in z_e and the identity
            at g = 0.
        invariant: width of z_i, the first columns; >= 0. The rest is z_e.
        invariance: λ >= 0.
        equivariance: κ >= 0; 0.45 as in the paper's command (its program's default is 4.5).
        prediction_variance: μ >= 0.
        regulariser: anti-collapse term on z and z': ``vc`` (10 and 1), ``sigreg``, a callable, or None.

    Shapes:
        z, z' (B, D), g (B, k) -> terms loss, invariance, equivariance (mean square differences), unmoved (that of
        z_e and z_e' without the predictor: what the predictor must beat), prediction_variance, and the regulariser's.

    Raises:
        ShapeError: shapes that do not go together, or invariant > D.
        DataError: a non-finite entry.
        ValueError: a negative weight.

    Source: Garrido, Najman, LeCun (2023), arXiv:2302.10283; weights 10/10/1 as in the authors' code.
    """

    choose_when: ClassVar[str] = "two views; symmetries move what the head needs (position, frame, amplitude)"
    # The spread of each dimension that it aims at, by which the monitors tell a collapse in scale.
    target_std: ClassVar[float] = 1.0

    def __init__(
        self,
        predictor: nn.Module,
        invariant: int,
        invariance: float = 10.0,
        equivariance: float = 0.45,
        prediction_variance: float = 10.0,
        regulariser: nn.Module | Regulariser | str | None = "vc",
    ) -> None:
        super().__init__()
        weights = (invariance, equivariance, prediction_variance, invariant)
        if not min(weights) >= 0:
            raise ValueError(
                f"SIE got invariance {invariance}, equivariance {equivariance}, prediction_variance "
                f"{prediction_variance}, invariant {invariant}; expected all >= 0."
            )
        self.predictor, self.invariant = predictor, invariant
        self.invariance, self.equivariance, self.prediction_variance = invariance, equivariance, prediction_variance
        self.regulariser = make_regulariser("SIE", regulariser, invariance, (invariance, invariance / 10))

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        return over_pairs(views, lambda v, w: self._pair(views, v, w), "SIE")

    def _pair(self, views: Views, first: int, second: int) -> Any:
        return self.terms(views[first].embedding, views[second].embedding, views.between(first, second))

    def terms(self, z: Tensor, z_prime: Tensor, element: Tensor) -> Any:
        """Return the terms for embeddings of two views and the element (B, k) that carries the first to the second."""
        check_embeddings("SIE", (z, z_prime))
        check_embeddings("SIE", (element,), axes="(B, k)")
        if len(element) != len(z) or self.invariant > z.shape[1]:
            raise ShapeError(
                f"SIE got z {tuple(z.shape)}, element {tuple(element.shape)} and {self.invariant} invariant columns; "
                "expected one element for each row and no more invariant columns than there are."
            )
        split = (self.invariant, z.shape[1] - self.invariant)
        (z_i, z_e), (other_i, other_e) = z.split(split, dim=1), z_prime.split(split, dim=1)
        zero = full_precision(z).new_zeros(())
        invariant = invariance_term(z_i, other_i) if split[0] else zero
        equivariant, unmoved, spread = zero, zero, zero
        if split[1]:
            moved = self.predictor(z_e, element)
            if moved.shape != z_e.shape:
                raise ShapeError(f"SIE: the predictor returned {tuple(moved.shape)} for {tuple(z_e.shape)}.")
            equivariant, spread = invariance_term(moved, other_e), variance_term(moved)
            unmoved = mean_over_rows((full_precision(z_e) - full_precision(other_e)).detach().square())
        extra = regularity(self.regulariser, (z, z_prime))
        loss = self.invariance * (invariant + self.equivariance * equivariant) + self.prediction_variance * spread
        return named_terms(
            "SIETerms",
            loss + extra.get("regularity", 0),
            invariance=invariant,
            equivariance=equivariant,
            unmoved=unmoved,
            prediction_variance=spread,
            **extra,
        )
