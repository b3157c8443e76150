"""Objectives of two views on more than two."""

# V views, G global ones, B rows of this process, D embedding width

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pdessl.errors import ShapeError

__all__ = ["view_terms"]


def view_terms(
    objective: Callable[..., Any], embeddings: Sequence[Tensor], global_views: int | None = None
) -> dict[str, Tensor]:
    """Return the named terms of an objective on V >= 2 views of the same samples.

        multi-view objective:  its own formula on all views
        others:                mean over pairs v < w, v <= G, of terms(z_v, z_w)

    A local view (a smaller crop, v > G) is compared with the global ones only. The mean over pairs is how W-MSE is
    published. For VICReg it is λ mean over pairs s + mean over views of 2 (μ v + ν c), so that weights keep their
    meaning; contrastive pairs see the negatives of their two views.

    Args:
        objective: called with two embeddings, or, where it has the attribute ``multi_view``, with all of them and
            ``global_views``. Returns a named tuple with ``loss`` first, or a scalar.
        embeddings: V tensors (B, D), global views first.
        global_views: G; None: all.

    Raises:
        ShapeError: fewer than two views, or G out of range.
    """
    count = len(embeddings)
    chosen = count if global_views is None else global_views
    if count < 2 or not 1 <= chosen <= count:
        raise ShapeError(f"got {count} views, {chosen} of them global; expected at least 2, and 1 to all of them.")
    if getattr(objective, "multi_view", False):
        return _named(objective(*embeddings, global_views=chosen))
    pairs = [(v, w) for v in range(chosen) for w in range(v + 1, count)]
    found = [_named(objective(embeddings[v], embeddings[w])) for v, w in pairs]
    return {name: sum(terms[name] for terms in found) / len(found) for name in found[0]}


def _named(terms: Any) -> dict[str, Tensor]:
    return dict(terms._asdict()) if hasattr(terms, "_asdict") else {"loss": terms}
