"""Datasets: recipes, generation, the store on disk, inspection and the Lightning data module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pdessl.data.distribution import Distribution
from pdessl.data.generation import generate
from pdessl.data.inspection import Inspection, inspect
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.data.reporting import Progress
from pdessl.data.simulation import simulate
from pdessl.data.store import Store, open

if TYPE_CHECKING:
    from pdessl.data.datamodule import FieldStatistics, PDEDataModule

__all__ = [
    "DatasetRecipe",
    "Distribution",
    "FieldStatistics",
    "Inspection",
    "PDEDataModule",
    "Progress",
    "Store",
    "generate",
    "inspect",
    "load_recipe",
    "open",
    "simulate",
]


def __getattr__(name: str) -> Any:
    # Importing lightning takes seconds, and generating or inspecting data does not need it.
    if name in ("PDEDataModule", "FieldStatistics"):
        from pdessl.data import datamodule

        return getattr(datamodule, name)
    raise AttributeError(f"module 'pdessl.data' has no attribute '{name}'")
