"""Lie point symmetries, exactly: verified, discovered, exponentiated; ``pdessl.augmentation`` applies them."""

from __future__ import annotations

import importlib
from typing import Any

# Loaded on first use: verification needs neither torch nor sympy.
_PUBLIC = {
    "Flow": "pdessl.symmetry.flow",
    "SymmetryAlgebra": "pdessl.symmetry.algebra",
    "SymmetryGenerator": "pdessl.symmetry.generator",
    "find_symmetries": "pdessl.symmetry.completion",
    "symmetries": "pdessl.symmetry.verification",
    "verify": "pdessl.symmetry.verification",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'pdessl.symmetry' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
