"""Which run each view is made of: of one run all of them, or of two runs of a group in turn."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pdessl.errors import SchemaError

__all__ = ["refuse_places", "runs_of_views"]


def runs_of_views(batch: Any, count: int) -> list[Any]:
    """Return the batch that each of ``count`` views is made of.

    A batch with ``partner`` (runs of the same groups, row by row; ``grouped`` of :class:`pdessl.data.PDEDataModule`)
    gives the first, third, ... view from its runs and the second, fourth, ... from their partners: what is left common
    to two views is what two runs of a group share. Any other batch gives all views.
    """
    partner = getattr(batch, "partner", None)
    return [batch] * count if partner is None else [(batch, partner)[v % 2] for v in range(count)]


def refuse_places(asked: Collection[str], name: str) -> None:
    """Refuse an objective that compares places of one run, which two runs do not have in common.

    Args:
        asked: what it asked the views for.
        name: of the objective.

    Raises:
        SchemaError: such an objective.
    """
    if "places" in asked:
        raise SchemaError(
            f"{name} compares what lies at one place of a run; two runs of a group have no place in common. Leave "
            "data.grouped out, or choose an objective on embeddings (VICReg, SimCLR, LeJEPA, ...)."
        )
