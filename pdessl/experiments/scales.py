"""The scale a parameter is regressed on, as dataset and equation declare it."""

from __future__ import annotations

from typing import Any

from pdessl.data import PDEDataModule, Store
from pdessl.equations import load_equation
from pdessl.errors import CatalogError

__all__ = ["declared_scale"]


def declared_scale(data: PDEDataModule, name: str) -> str:
    """Return the scale a parameter is regressed on: ``log`` where dataset or equation say so, else ``linear``.

    The dataset says so by drawing the parameter log-uniformly, the equation's file by ``positive: true``.
    """
    store = data.store
    if isinstance(store, Store):
        parameters: Any = store.manifest["recipe"].get("parameters")
        declared = parameters.get(name) if isinstance(parameters, dict) else None
        if isinstance(declared, dict) and declared.get("distribution") == "log_uniform":
            return "log"
    try:
        equation = load_equation(store.equation) if store.equation else None
    except CatalogError:
        return "linear"
    positive = {} if equation is None else {equation.parameter_names[letter] for letter in equation.positive}
    return "log" if name in positive else "linear"
