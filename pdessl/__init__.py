"""Self-supervised learning on PDE simulations, with views made by the equation's own Lie point symmetries."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded on first use, so that `pdessl --help` does not wait for torch and lightning.
_PUBLIC = {
    "Trajectories": "pdessl.trajectory",
    "Equation": "pdessl.equations",
    "load_equation": "pdessl.equations",
    "symmetries": "pdessl.symmetry",
    "LieAugmentation": "pdessl.augmentation",
    "from_xarray": "pdessl.data.formats",
    "discover": "pdessl.experiments.discovery",
    "generate": "pdessl.experiments.controlled_runs",
    "simulate": "pdessl.data",
    "inspect": "pdessl.data",
    "convert": "pdessl.data",
    "open": "pdessl.data",
    "load": "pdessl.inference",
    "LawTransformer": "pdessl.inference",
    "SimulationEncoder": "pdessl.inference",
    "fit_parameter_model": "pdessl.inference",
    "regress": "pdessl.experiments.regress",
    "pretrain": "pdessl.experiments.pretrain",
    "timestep": "pdessl.experiments.timestep",
    "surprise": "pdessl.experiments.surprise",
    "design": "pdessl.experiments.design",
    "plan": "pdessl.experiments.planning",
    "study": "pdessl.experiments.study",
    "quickstart": "pdessl.experiments.quickstart",
    "testing": "pdessl",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("pdessl.testing")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'pdessl' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
