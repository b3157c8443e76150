"""What identifies a dataset, so that a run is not resumed on another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from pdessl.data.source import Source
from pdessl.data.store import Store

__all__ = ["identity", "shortened"]


def identity(source: Source) -> str:
    """Return a hash of what a dataset is: a store's recipe, else its layout, sizes and parameters."""
    if isinstance(source, Store):
        return source.manifest["recipe_hash"]
    content = hashlib.sha256(repr((source.format, source.field_names, source.axis_names)).encode())
    for name, size in source.splits.items():
        content.update(repr((name, size, source.shape(name) if size else ())).encode())
        for parameter, values in source.parameter_values(name).items():
            content.update(parameter.encode() + np.ascontiguousarray(values, "<f8").tobytes())
    return content.hexdigest()


def shortened(identities: Sequence[str]) -> str:
    """Return identities as messages show them."""
    return ", ".join(identity[:12] for identity in identities)
