"""Datasets: recipes, generation, the store on disk, inspection and the Lightning data module."""

from pdessl.data.generation import Progress, generate, simulate
from pdessl.data.recipe import DatasetRecipe, Distribution, load_recipe
from pdessl.data.store import Store, open

__all__ = ["DatasetRecipe", "Distribution", "Progress", "Store", "generate", "load_recipe", "open", "simulate"]
