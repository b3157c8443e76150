"""VICRegL: tokens that show the same place, or the same thing, agree between two views."""

# B rows of this process, N tokens, k matches, d coordinate axes, D embedding width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pdessl.errors import ShapeError
from pdessl.objectives.distributed import check_embeddings, full_precision, sum_over_processes
from pdessl.objectives.regularisation import Regulariser, make_regulariser, named_terms, regularity
from pdessl.objectives.terms import Terms
from pdessl.objectives.vicreg import invariance_term
from pdessl.objectives.views import Views, over_pairs

__all__ = ["VICRegL", "match_nearest", "squared_distances"]


def squared_distances(p: Tensor, p_prime: Tensor, period: Tensor | Sequence[float] | None = None) -> Tensor:
    """Squared distance of every token of one view to every token of the other.

    Args:
        p: positions of the first view's tokens in common coordinates, shape (B, N, d).
        p_prime: those of the second's, shape (B, N', d).
        period: length after which each axis repeats, shape (d,) or (B, d); ``inf`` for an axis that does not. None: no
            axis repeats.

    Returns:
        Shape (B, N, N').
    """
    total = p.new_zeros(p.shape[0], p.shape[1], p_prime.shape[1])
    for axis in range(p.shape[2]):  # one table at a time, not d
        difference = p[:, :, None, axis] - p_prime[:, None, :, axis]
        if period is not None:
            length = torch.as_tensor(period, dtype=p.dtype, device=p.device)
            length = length.expand(p.shape[0], p.shape[2])[:, None, None, axis]
            wrapped = difference - length * torch.round(difference / length)
            difference = torch.where(torch.isfinite(length), wrapped, difference)
        total += difference.square()
    return total


def match_nearest(distance: Tensor, count: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each sample, the tokens with the nearest partners, and those partners.

    Args:
        distance: shape (B, N, N').
        count: k, how many tokens to keep (at most N), those with the smallest distance first; None keeps all.

    Returns:
        Indices of tokens (B, k), of their partners (B, k), and the distance of each pair (B, k).
    """
    smallest, partner = distance.min(dim=2)
    k = distance.shape[1] if count is None else min(count, distance.shape[1])
    kept = torch.sort(smallest, dim=1, stable=True).indices[:, :k]
    return kept, partner.gather(1, kept), smallest.gather(1, kept)


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class VICRegL(nn.Module):
    """VICReg on the whole and on the tokens: the same place, or the most alike tokens, agree between two views.

        loss = α VICReg(z, z') + (1 - α) [local(by location) + local(by feature)]
        local = mean over both directions of  λ mean (a - b)² + regulariser(a) + regulariser(b)

    a and b are matched tokens (B, k, D). By location, each token is matched with the nearest one of the other view in
    *common coordinates*: map the positions of a transformed view back by the inverse of its group element and the match
    is exact. By feature, with the token of least distance between embeddings. The anti-collapse terms of the tokens run
    over the batch at each rank of match, so that n is B. The feature match of the last step costs B N² D.

    Args:
        alpha: α in [0, 1].
        invariance: λ >= 0.
        location_matches: k, the closest pairs kept; None keeps one for each token.
        feature_matches: the same for matches by feature.
        max_distance: pairs by location that are further apart do not count (tokens that left the common domain); in
            the units of the positions. None counts all.
        regulariser: anti-collapse term: ``vc`` (25 and 0.5, as published), ``sigreg``, or a callable.
        projector: network on the encoder's tokens (B, N, D'') giving (B, N, D'); None: the tokens themselves.

    Shapes:
        z, z' (B, D); tokens and tokens' (B, N, D'), positions and positions' (B, N, d) -> terms loss, invariance,
        location, feature (mean square differences, unweighted), matched (share of location pairs that count),
        regularity (all anti-collapse terms as weighted in the loss) and the regulariser's terms of z and z', averaged.

    Raises:
        ShapeError: shapes that do not go together.
        DataError: a non-finite embedding, token or position.
        ValueError: a weight out of range.

    Source: Bardes, Ponce, LeCun (2022), arXiv:2210.01571, section 3. There the first 20 location matches are kept,
        and all by feature; both are the defaults.
    """

    choose_when: ClassVar[str] = "two views with tokens; what is wanted varies in space (fields, local parameters)"
    # The spread of each dimension that it aims at, by which the monitors tell a collapse in scale.
    target_std: ClassVar[float] = 1.0

    def __init__(
        self,
        alpha: float = 0.75,
        invariance: float = 25.0,
        location_matches: int | None = 20,
        feature_matches: int | None = None,
        max_distance: float | None = None,
        regulariser: nn.Module | Regulariser | str | None = "vc",
        projector: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not (0 <= alpha <= 1 and invariance >= 0):
            raise ValueError(f"VICRegL got alpha {alpha} and invariance {invariance}; expected [0, 1] and >= 0.")
        if any(k is not None and k < 1 for k in (location_matches, feature_matches)):
            raise ValueError(f"VICRegL got {location_matches} and {feature_matches} matches; expected at least 1.")
        self.projector = nn.Identity() if projector is None else projector
        self.alpha, self.invariance, self.max_distance = alpha, invariance, max_distance
        self.location_matches, self.feature_matches = location_matches, feature_matches
        self.regulariser = make_regulariser("VICRegL", regulariser, invariance, (invariance, invariance / 50))

    def forward(self, views: Views) -> Terms:
        """Return the terms, the mean over pairs of views."""
        tokens = [self.projector(view.tokens) for view in views]
        return over_pairs(views, lambda v, w: self._pair(views, v, w, tokens), "VICRegL")

    def _pair(self, views: Views, first: int, second: int, tokens: Sequence[Tensor]) -> Any:
        a, b = views[first], views[second]
        return self.terms(
            a.embedding, b.embedding, tokens[first], tokens[second], a.places, b.places, period=views.period
        )

    def terms(
        self,
        z: Tensor,
        z_prime: Tensor,
        tokens: Tensor,
        tokens_prime: Tensor,
        positions: Tensor,
        positions_prime: Tensor,
        period: Tensor | Sequence[float] | None = None,
    ) -> Any:
        """Return the terms.

        Args:
            z: embeddings of the whole first view, (B, D).
            z_prime: of the second.
            tokens: embeddings of the first view's tokens, (B, N, D').
            tokens_prime: of the second's.
            positions: of the first view's tokens, in coordinates common to both views, (B, N, d).
            positions_prime: of the second's.
            period: see :func:`squared_distances`.
        """
        self._check(z, z_prime, tokens, tokens_prime, positions, positions_prime)
        invariance = invariance_term(z, z_prime)
        extra = regularity(self.regulariser, (z, z_prime))
        regular = self.alpha * extra.pop("regularity", torch.zeros((), device=z.device))
        with torch.autocast(z.device.type, enabled=False):
            a, b = full_precision(tokens), full_precision(tokens_prime)
            place = squared_distances(full_precision(positions), full_precision(positions_prime), period)
            alike = torch.cdist(a.detach(), b.detach())
            found: dict[str, list[Tensor]] = {"location": [], "feature": [], "matched": []}
            for kind, distance, count in (
                ("location", place, self.location_matches),
                ("feature", alike, self.feature_matches),
            ):
                for first, second, table in ((a, b, distance), (b, a, distance.mT)):
                    index, partner, gap = match_nearest(table, count)
                    pair = _take(first, index), _take(second, partner)
                    counts = torch.ones_like(gap)
                    if kind == "location" and self.max_distance is not None:
                        counts = (gap <= self.max_distance**2).to(gap.dtype)
                    difference = (pair[0] - pair[1]).square().mean(dim=-1)
                    sums = sum_over_processes(torch.stack(((counts * difference).sum(), counts.sum())))
                    total = sum_over_processes(torch.full_like(sums[1], gap.numel()))
                    found[kind].append(sums[0] / sums[1].clamp_min(1))
                    if kind == "location":
                        found["matched"].append(sums[1] / total)
                    of_pair = regularity(self.regulariser, [t.transpose(0, 1) for t in pair])
                    regular = regular + (1 - self.alpha) / 2 * of_pair.get("regularity", 0)
            terms = {name: (values[0] + values[1]) / 2 for name, values in found.items()}
            local = terms["location"] + terms["feature"]
            loss = self.invariance * (self.alpha * invariance + (1 - self.alpha) * local) + regular
            return named_terms("VICRegLTerms", loss, invariance=invariance, **terms, regularity=regular, **extra)

    def _check(self, z: Tensor, z_prime: Tensor, *maps: Tensor) -> None:
        check_embeddings("VICRegL", (z, z_prime))
        check_embeddings("VICRegL", maps[:2], axes="(B, N, D)")
        check_embeddings("VICRegL", maps[2:], axes="(B, N, d)")
        if maps[0].shape[:2] != maps[2].shape[:2] or len(z) != len(maps[0]):
            raise ShapeError(
                f"VICRegL got embeddings {tuple(z.shape)}, tokens {tuple(maps[0].shape)} and positions "
                f"{tuple(maps[2].shape)}; expected one position for each token of each of the {len(z)} rows."
            )
