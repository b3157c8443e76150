"""Datasets: recipes, generation, the store on disk, inspection and the Lightning data module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pdessl.data.conversion import convert
from pdessl.data.distribution import Distribution
from pdessl.data.generation import generate
from pdessl.data.inspection import Inspection, inspect
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.data.reporting import Progress
from pdessl.data.simulation import Switch, simulate
from pdessl.data.source import Source
from pdessl.data.store import Store, open

if TYPE_CHECKING:
    from pdessl.data.datamodule import FieldStatistics, PDEDataModule
    from pdessl.data.streaming import SimulatedDataset, StreamingDataModule

__all__ = [
    "DatasetRecipe",
    "Distribution",
    "FieldStatistics",
    "Inspection",
    "PDEDataModule",
    "Progress",
    "SimulatedDataset",
    "Source",
    "Store",
    "StreamingDataModule",
    "Switch",
    "convert",
    "generate",
    "inspect",
    "load_recipe",
    "open",
    "simulate",
]


_LATE = {
    "FieldStatistics": "datamodule",
    "PDEDataModule": "datamodule",
    "SimulatedDataset": "streaming",
    "StreamingDataModule": "streaming",
}


def __getattr__(name: str) -> Any:
    # Importing lightning takes seconds, and generating or inspecting data does not need it.
    if name in _LATE:
        return getattr(importlib.import_module(f"pdessl.data.{_LATE[name]}"), name)
    raise AttributeError(f"module 'pdessl.data' has no attribute '{name}'")
