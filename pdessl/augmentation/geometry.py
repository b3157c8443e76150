"""Geometry: where every node of a view is read and what its values undergo, in numbers."""

# B batch, C channels, T time frames, P nodes of the view, R reflections, d space axes

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pdessl.augmentation.placement import constant
from pdessl.augmentation.plan import Plan
from pdessl.augmentation.slice_affine import SliceAffine, inverse_matrix

__all__ = ["Geometry"]

Added = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, eq=False)
class Geometry:
    """What every trajectory of a batch is to undergo, in numbers; all with B rows.

    Args:
        first: first frame, (B,).
        start: first node, (B, d).
        matrix: source cells per target node, (B, T | 1, d, d).
        offset: where the middle of the view is read, in source cells, (B, T | 1, d).
        mix: M, (B, T | 1, C, C), or None for the identity.
        added: what is added, as a polynomial in positions relative to the centre: its constant (B, T | 1, C), slope
            (B, T | 1, C, d) and curvature (B, T | 1, C, d, d); None where it is zero.
        nodes: nodes relative to the centre that ``added`` refers to, (B, P_i) per axis.
        reflected: whether each reflection is applied, (B, R), or None.
    """

    first: Tensor
    start: Tensor
    matrix: Tensor
    offset: Tensor
    mix: Tensor | None
    added: Added
    nodes: tuple[Tensor, ...]
    reflected: Tensor | None

    @staticmethod
    def of(
        g: SliceAffine, plan: Plan, spacing: Tensor, start: Tensor, nodes: Sequence[Tensor], reflected: Tensor | None
    ) -> Geometry:
        """Return the geometry of views in mode ``grid``, whose nodes are images under the map."""
        inverse = inverse_matrix(g.s)
        middle = start[:, 1:] + constant(tuple((p - 1) / 2 for p in plan.points), start.device)
        moved = (inverse @ g.r[..., None])[..., 0] / spacing[:, None]
        added = g.added_at_images()
        return Geometry(
            first=start[:, 0],
            start=start[:, 1:],
            matrix=inverse * (spacing[:, None, None, :] / spacing[:, None, :, None]),
            offset=middle[:, None] - moved,
            mix=g.m if plan.linear else None,
            added=_present(plan, *added),
            nodes=tuple(nodes),
            reflected=reflected,
        )

    @staticmethod
    def unmoved(
        g: SliceAffine, plan: Plan, start: Tensor, nodes: Sequence[Tensor], reflected: Tensor | None
    ) -> Geometry:
        """Return the geometry of views whose array stays in place: modes ``coords`` and ``metadata``."""
        return Geometry(
            first=start[:, 0],
            start=start[:, 1:],
            matrix=g.s,
            offset=g.r,
            mix=g.m if plan.linear else None,
            added=_present(plan, g.b0, g.b1, g.b2),
            nodes=tuple(nodes),
            reflected=reflected,
        )

    def rows(self, chosen: slice) -> Geometry:
        """Select trajectories."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, tuple):
                changes[entry.name] = tuple(None if v is None else v[chosen] for v in value)
            elif value is not None:
                changes[entry.name] = value[chosen]
        return dataclasses.replace(self, **changes)


def _present(plan: Plan, shift: Tensor, slope: Tensor, curvature: Tensor | None) -> Added:
    return (
        shift if plan.added or plan.tilted else None,
        slope if plan.tilted else None,
        curvature if plan.tilted else None,
    )
